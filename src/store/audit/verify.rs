//! Walking the chain again.

use data_encoding::HEXLOWER;
use futures_util::FutureExt as _;
use sqlx::{Row as _, SqlitePool, sqlite::SqliteRow};

use super::{Closed, Event, Opened, Verification, append::event_hash, call_id, prune};
use crate::{
    ids::CallId,
    store::{StoreError, corrupt, timestamp},
};

/// Columns are read by their place: there are millions of rows.
const OPENED: &str = "SELECT seq, hash, record, at, parent, session, principal, client, kind, server, name, arguments,
     arguments_bytes, arguments_hash, trace FROM audit_opened WHERE seq > ?1 AND seq <= ?2 ORDER BY seq";

const CLOSED: &str = "SELECT seq, hash, record, at, duration, status, error, result, result_bytes, result_hash
     FROM audit_closed WHERE seq > ?1 AND seq <= ?2 ORDER BY seq";

/// Events that are read while those before them are checked: enough that neither waits for the other at every row.
const EVENTS: i64 = 256;

/// The kind of record that a cut of the log is.
const CUT_KIND: &str = "audit";

/// Walks from the event after `begin` to `end`: what is written meanwhile is left for the next walk.
pub(super) async fn run(
    readers: &SqlitePool,
    begin: (i64, [u8; 32]),
    end: i64,
    checkpoint: Option<(i64, [u8; 32])>,
) -> Result<Verification, StoreError> {
    let mut walk = Walk::from(begin, checkpoint);
    let mut next = Part::read(readers, begin.0, end).await?;
    let mut after = begin.0 + EVENTS;
    while after < end {
        let (read, broken) =
            tokio::join!(biased; Part::read(readers, after, end), std::future::ready(()).map(|()| walk.along(&next)));
        if let Some(broken) = broken? {
            return Ok(broken);
        }
        next = read?;
        after += EVENTS;
    }
    Ok(match walk.along(&next)? {
        Some(broken) => broken,
        None => walk.end(),
    })
}

/// Events that follow each other, those that open a record apart from those that close one.
struct Part {
    opened: Vec<SqliteRow>,
    closed: Vec<SqliteRow>,
}

impl Part {
    async fn read(readers: &SqlitePool, after: i64, end: i64) -> Result<Self, StoreError> {
        let last = end.min(after + EVENTS);
        let rows = |statement: &'static str| sqlx::query(statement).bind(after).bind(last).fetch_all(readers);
        let (opened, closed) = tokio::try_join!(rows(OPENED), rows(CLOSED))?;
        Ok(Self { opened, closed })
    }
}

struct Walk {
    begin: i64,
    seq: i64,
    hash: [u8; 32],
    /// The event that says that the log was cut where it begins, until it was met.
    cut: Option<String>,
    /// What an event is known to have had for a hash, until it was met.
    checkpoint: Option<(i64, [u8; 32])>,
}

impl Walk {
    fn from((begin, hash): (i64, [u8; 32]), checkpoint: Option<(i64, [u8; 32])>) -> Self {
        let cut = (begin > 0).then(|| prune::name(begin, &hash));
        // What was cut off cannot be compared any more; that it was cut is what the log has to say.
        let checkpoint = checkpoint.filter(|(seq, checked)| *seq > begin || (*seq == begin && *checked != hash));
        Self { begin, seq: begin, hash, cut, checkpoint }
    }

    fn end(self) -> Verification {
        if self.cut.is_some() {
            let problem = "the log begins here, and says nowhere that it was cut".to_owned();
            return Verification::Broken { seq: self.begin + 1, problem };
        }
        if let Some((seq, _)) = self.checkpoint {
            let problem = "the checkpoint knows of this event, and the log ends before it or holds another".to_owned();
            return Verification::Broken { seq, problem };
        }
        Verification::Intact {
            events: (self.seq - self.begin).unsigned_abs(),
            first: self.begin + 1,
            last: self.seq,
            last_hash: HEXLOWER.encode(&self.hash),
        }
    }

    /// Says what is broken, if anything is.
    fn along(&mut self, part: &Part) -> Result<Option<Verification>, StoreError> {
        let (mut opened, mut closed) = (part.opened.iter().peekable(), part.closed.iter().peekable());
        loop {
            let seq = |row: Option<&&SqliteRow>| row.map(|row| row.try_get::<i64, _>(0)).transpose();
            let takes_opened = match (seq(opened.peek())?, seq(closed.peek())?) {
                (Some(opened), Some(closed)) => opened < closed,
                (opened, _) => opened.is_some(),
            };
            let row = if takes_opened { opened.next() } else { closed.next() };
            let Some(row) = row else { return Ok(None) };
            if let Some(broken) = self.step(row, takes_opened)? {
                return Ok(Some(broken));
            }
        }
    }

    fn step(&mut self, row: &SqliteRow, opened: bool) -> Result<Option<Verification>, StoreError> {
        let seq: i64 = row.try_get(0)?;
        let broken = |problem: String| Ok(Some(Verification::Broken { seq, problem }));
        if seq != self.seq + 1 {
            return broken(format!("event {} is missing", self.seq + 1));
        }
        let event = if opened { opened_event(row) } else { closed_event(row) };
        let event = match event {
            Ok(event) => event,
            Err(error) => return broken(error.to_string()),
        };
        let hash = event_hash(&self.hash, seq, &event);
        if row.try_get::<&[u8], _>(1)? != hash {
            return broken("the event is not what was written, or the one before it is not".to_owned());
        }
        if let Event::Opened(event) = &event
            && event.kind == CUT_KIND
            && self.cut.as_ref() == Some(&event.name)
        {
            self.cut = None;
        }
        if let Some((checked, known)) = self.checkpoint
            && checked == seq
        {
            if known != hash {
                return broken("the checkpoint knows another event of this number".to_owned());
            }
            self.checkpoint = None;
        }
        self.seq = seq;
        self.hash = hash;
        Ok(None)
    }
}

fn opened_event(row: &SqliteRow) -> Result<Event, StoreError> {
    Ok(Event::Opened(Opened {
        record: call_id(row, 2)?,
        at: timestamp(row.try_get(3)?),
        parent: row.try_get::<Option<&[u8]>, _>(4)?.and_then(CallId::from_bytes),
        session: row.try_get::<Option<String>, _>(5)?.map(|text| text.parse()).transpose().map_err(corrupt)?,
        principal: row.try_get(6)?,
        client: row.try_get(7)?,
        kind: row.try_get::<String, _>(8)?.into(),
        server: row.try_get(9)?,
        name: row.try_get(10)?,
        arguments: row.try_get(11)?,
        arguments_bytes: row.try_get::<i64, _>(12)?.unsigned_abs(),
        arguments_hash: hash_column(row, 13)?,
        trace: row.try_get(14)?,
    }))
}

fn closed_event(row: &SqliteRow) -> Result<Event, StoreError> {
    Ok(Event::Closed(Closed {
        record: call_id(row, 2)?,
        at: timestamp(row.try_get(3)?),
        duration_micros: row.try_get::<i64, _>(4)?.unsigned_abs(),
        status: row.try_get::<String, _>(5)?.into(),
        error: row.try_get(6)?,
        result: row.try_get(7)?,
        result_bytes: row.try_get::<i64, _>(8)?.unsigned_abs(),
        result_hash: hash_column(row, 9)?,
    }))
}

fn hash_column(row: &SqliteRow, column: usize) -> Result<Option<[u8; 32]>, StoreError> {
    Ok(row.try_get::<Option<&[u8]>, _>(column)?.and_then(|bytes| bytes.try_into().ok()))
}
