//! Walking the chain again.
//!
//! There are millions of events, and what it takes to hand a row from SQLite's thread to ours, and each of its columns, is
//! more than its hash takes. So a thousand events are read as one row of two values: all their numbers and the lengths of
//! their texts, and all their texts one after the other.

use std::{str::SplitAsciiWhitespace, sync::LazyLock};

use data_encoding::HEXLOWER;
use futures_util::FutureExt as _;
use sqlx::{Row as _, SqlitePool, sqlite::SqliteRow};

use super::{
    Verification,
    digest::{self, CLOSED, Layout, OPENED, Shape, Value},
    prune,
};
use crate::store::{StoreError, corrupt};

/// Events that are read while those before them are checked: enough that neither often waits for the other.
const EVENTS: i64 = 1024;

/// Of larger events fewer are read at once: SQLite has a bound for one value, and memory has one too.
const BYTES_MAX: i64 = 8 << 20;

/// What stands for the length of a value that is absent.
const ABSENT: i64 = -1;

/// The kind of record that a cut of the log is.
const CUT_KIND: &str = "audit";

static READ_OPENED: LazyLock<String> = LazyLock::new(|| statement(&OPENED));
static READ_CLOSED: LazyLock<String> = LazyLock::new(|| statement(&CLOSED));
static MEASURE: LazyLock<String> =
    LazyLock::new(|| format!("SELECT ({}) + ({}) AS bytes", measure(&OPENED), measure(&CLOSED)));

/// Reads some events as their numbers, each event's own first, and their bytes, each event's hash first.
fn statement(layout: &Layout) -> String {
    let columns = || layout.columns.iter();
    let number = |(column, shape): &(&str, Shape)| match shape {
        Shape::Integer => (*column).to_owned(),
        _ => format!("coalesce(octet_length({column}), {ABSENT})"),
    };
    let numbers: Vec<String> = columns().map(number).collect();
    let texts: Vec<&str> = columns().filter(|(_, shape)| *shape != Shape::Integer).map(|(column, _)| *column).collect();
    format!(
        "SELECT group_concat(format('{}', seq, octet_length(hash), {}), ''), group_concat(concat(hash, {}), '')
         FROM {} WHERE seq > ?1 AND seq <= ?2",
        "%d ".repeat(numbers.len() + 2),
        numbers.join(", "),
        texts.join(", "),
        layout.table,
    )
}

/// Adds up the bytes of some events, without reading them.
fn measure(layout: &Layout) -> String {
    let texts = layout.columns.iter().filter(|(_, shape)| *shape != Shape::Integer);
    let lengths: Vec<String> = texts.map(|(column, _)| format!("coalesce(octet_length({column}), 0)")).collect();
    format!("SELECT coalesce(sum({}), 0) FROM {} WHERE seq > ?1 AND seq <= ?2", lengths.join(" + "), layout.table)
}

/// An event as it was read.
struct Read<'r> {
    layout: &'static Layout,
    seq: i64,
    hash: &'r [u8],
    values: Vec<Value<'r>>,
}

impl<'r> Read<'r> {
    /// Takes a row apart; the events in the order of their numbers.
    fn all(row: &'r SqliteRow, layout: &'static Layout) -> Result<Vec<Self>, StoreError> {
        let Some(numbers) = row.try_get::<Option<&str>, _>(0)? else { return Ok(Vec::new()) };
        let mut rest = Rest { numbers: numbers.split_ascii_whitespace(), bytes: row.try_get(1)? };
        let mut events = Vec::new();
        while let Some(seq) = rest.numbers.next() {
            let seq = seq.parse().map_err(|_| misread())?;
            let length = rest.number()?;
            let hash = rest.bytes(length)?;
            let mut values = Vec::with_capacity(layout.columns.len());
            for (_, shape) in layout.columns {
                values.push(match (rest.number()?, shape) {
                    (number, Shape::Integer) => Value::Integer(number),
                    (ABSENT, _) => Value::Bytes(None),
                    (length, _) => Value::Bytes(Some(rest.bytes(length)?)),
                });
            }
            events.push(Self { layout, seq, hash, values });
        }
        events.sort_by_key(|event| event.seq);
        Ok(events)
    }

    /// What a text column holds.
    fn text(&self, column: &str) -> Option<&'r [u8]> {
        let place = self.layout.columns.iter().position(|(name, _)| *name == column)?;
        match self.values.get(place)? {
            Value::Bytes(bytes) => *bytes,
            Value::Integer(_) => None,
        }
    }
}

/// What of a row was not taken yet.
struct Rest<'r> {
    numbers: SplitAsciiWhitespace<'r>,
    bytes: &'r [u8],
}

impl<'r> Rest<'r> {
    fn number(&mut self) -> Result<i64, StoreError> {
        self.numbers.next().and_then(|number| number.parse().ok()).ok_or_else(misread)
    }

    fn bytes(&mut self, length: i64) -> Result<&'r [u8], StoreError> {
        let taken = usize::try_from(length).ok().and_then(|length| self.bytes.split_at_checked(length));
        let (bytes, rest) = taken.ok_or_else(misread)?;
        self.bytes = rest;
        Ok(bytes)
    }
}

fn misread() -> StoreError {
    corrupt("events are not as they were asked for")
}

/// Walks from the event after `begin` to `end`: what is written meanwhile is left for the next walk.
pub(super) async fn run(
    readers: &SqlitePool,
    begin: (i64, [u8; 32]),
    end: i64,
    checkpoint: Option<(i64, [u8; 32])>,
) -> Result<Verification, StoreError> {
    let mut walk = Walk::from(begin, checkpoint);
    let mut next = Part::read(readers, begin.0, end).await?;
    while next.last < end {
        let read = Part::read(readers, next.last, end);
        let (read, broken) = tokio::join!(biased; read, std::future::ready(()).map(|()| walk.along(&next)));
        if let Some(broken) = broken? {
            return Ok(broken);
        }
        next = read?;
    }
    Ok(match walk.along(&next)? {
        Some(broken) => broken,
        None => walk.end(),
    })
}

/// Events that follow each other, those that open a record apart from those that close one.
struct Part {
    opened: SqliteRow,
    closed: SqliteRow,
    /// The number of the last one.
    last: i64,
}

impl Part {
    async fn read(readers: &SqlitePool, after: i64, end: i64) -> Result<Self, StoreError> {
        let mut last = end.min(after + EVENTS);
        let row = |statement: &'static str, last: i64| sqlx::query(statement).bind(after).bind(last).fetch_one(readers);
        while last > after + 1 && row(&MEASURE, last).await?.try_get::<i64, _>("bytes")? > BYTES_MAX {
            last = i64::midpoint(after, last);
        }
        let (opened, closed) = tokio::try_join!(row(&READ_OPENED, last), row(&READ_CLOSED, last))?;
        Ok(Self { opened, closed, last })
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
        let mut opened = Read::all(&part.opened, &OPENED)?.into_iter().peekable();
        let mut closed = Read::all(&part.closed, &CLOSED)?.into_iter().peekable();
        loop {
            let takes_opened = match (opened.peek(), closed.peek()) {
                (Some(opened), Some(closed)) => opened.seq < closed.seq,
                (opened, _) => opened.is_some(),
            };
            let next = if takes_opened { opened.next() } else { closed.next() };
            let Some(event) = next else { return Ok(None) };
            if let Some(broken) = self.step(&event) {
                return Ok(Some(broken));
            }
        }
    }

    fn step(&mut self, event: &Read<'_>) -> Option<Verification> {
        let seq = event.seq;
        let broken = |problem: String| Some(Verification::Broken { seq, problem });
        if seq != self.seq + 1 {
            return broken(format!("event {} is missing", self.seq + 1));
        }
        let hash = digest::of_values(&self.hash, seq, event.layout, &event.values);
        if event.hash != hash {
            return broken("the event is not what was written, or the one before it is not".to_owned());
        }
        if let Some(cut) = &self.cut
            && event.text("kind") == Some(CUT_KIND.as_bytes())
            && event.text("name") == Some(cut.as_bytes())
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
        None
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Event, Opened},
        *,
    };
    use crate::{
        lifecycle::Tasks,
        store::{Durability, Store},
    };

    #[tokio::test]
    async fn of_large_events_fewer_are_read_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let (tasks, _crashes) = Tasks::new();
        let store = Store::open(folder.path(), Durability::Process, &tasks).await.unwrap();
        let third = usize::try_from(BYTES_MAX / 3).unwrap();
        for bytes in [third, third, third, third, 10, 4 * third, 10] {
            let event = Opened { arguments: Some("x".repeat(bytes)), ..Opened::example() };
            store.append_audit(Event::Opened(event)).await.unwrap();
        }
        let (mut after, mut parts) = (0, Vec::new());
        while after < 7 {
            after = Part::read(store.readers(), after, 7).await.unwrap().last;
            parts.push(after);
        }
        assert_eq!(parts, [1, 2, 4, 5, 6, 7]);
        let found = run(store.readers(), (0, [0; 32]), 7, None).await.unwrap();
        assert!(matches!(found, Verification::Intact { events: 7, .. }), "{found:?}");
        store.close().await;
    }
}
