//! Walking the chain again.
//!
//! There are millions of events, and what sqlx and SQLite do for each column of a row costs more than its hash. So a row is
//! read as two values: its numbers and the lengths of its texts, and all texts one after the other.

use std::sync::LazyLock;

use data_encoding::HEXLOWER;
use futures_util::FutureExt as _;
use sqlx::{Row as _, SqlitePool, sqlite::SqliteRow};

use super::{
    Verification,
    digest::{self, CLOSED, Layout, OPENED, Shape, Value},
    prune,
};
use crate::store::{StoreError, corrupt};

/// Events that are read while those before them are checked: enough that neither waits for the other at every row.
const EVENTS: i64 = 256;

/// What stands for the length of a value that is absent.
const ABSENT: i64 = -1;

/// The kind of record that a cut of the log is.
const CUT_KIND: &str = "audit";

static READ_OPENED: LazyLock<String> = LazyLock::new(|| statement(&OPENED));
static READ_CLOSED: LazyLock<String> = LazyLock::new(|| statement(&CLOSED));

/// Reads some events, each as its numbers, the first of which is its own, and its bytes, which begin with its hash.
fn statement(layout: &Layout) -> String {
    let columns = || layout.columns.iter();
    let number = |(column, shape): &(&str, Shape)| match shape {
        Shape::Integer => (*column).to_owned(),
        _ => format!("coalesce(octet_length({column}), {ABSENT})"),
    };
    let numbers: Vec<String> = columns().map(number).collect();
    let texts: Vec<&str> = columns().filter(|(_, shape)| *shape != Shape::Integer).map(|(column, _)| *column).collect();
    format!(
        "SELECT format('{}', seq, octet_length(hash), {}), concat(hash, {})
         FROM {} WHERE seq > ?1 AND seq <= ?2 ORDER BY seq",
        "%d ".repeat(numbers.len() + 2),
        numbers.join(", "),
        texts.join(", "),
        layout.table,
    )
}

/// An event as it was read.
struct Read<'r> {
    seq: i64,
    hash: &'r [u8],
    values: Vec<Value<'r>>,
}

impl<'r> Read<'r> {
    fn from(row: &'r SqliteRow, layout: &Layout) -> Result<Self, StoreError> {
        let wrong = || corrupt("an event is not as it was asked for");
        let mut numbers = row.try_get::<&str, _>(0)?.split_ascii_whitespace().map(str::parse::<i64>);
        let mut number = || numbers.next().and_then(Result::ok).ok_or_else(wrong);
        let mut rest: &[u8] = row.try_get(1)?;
        let mut bytes = |length: i64| {
            let taken = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length));
            let (bytes, after) = taken.ok_or_else(wrong)?;
            rest = after;
            Ok::<_, StoreError>(bytes)
        };
        let seq = number()?;
        let hash = bytes(number()?)?;
        let mut values = Vec::with_capacity(layout.columns.len());
        for (_, shape) in layout.columns {
            values.push(match (number()?, shape) {
                (number, Shape::Integer) => Value::Integer(number),
                (ABSENT, _) => Value::Bytes(None),
                (length, _) => Value::Bytes(Some(bytes(length)?)),
            });
        }
        Ok(Self { seq, hash, values })
    }

    /// What a text column holds.
    fn text(&self, layout: &Layout, column: &str) -> Option<&'r [u8]> {
        let place = layout.columns.iter().position(|(name, _)| *name == column)?;
        match self.values.get(place)? {
            Value::Bytes(bytes) => *bytes,
            Value::Integer(_) => None,
        }
    }
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
        let (opened, closed) = tokio::try_join!(rows(&READ_OPENED), rows(&READ_CLOSED))?;
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
        let read = |layout| move |row| Read::from(row, layout).map(|event| (layout, event));
        let mut opened = part.opened.iter().map(read(&OPENED)).peekable();
        let mut closed = part.closed.iter().map(read(&CLOSED)).peekable();
        loop {
            let takes_opened = match (opened.peek(), closed.peek()) {
                (Some(Ok((_, opened))), Some(Ok((_, closed)))) => opened.seq < closed.seq,
                (opened, _) => opened.is_some(),
            };
            let next = if takes_opened { opened.next() } else { closed.next() };
            let Some((layout, event)) = next.transpose()? else { return Ok(None) };
            if let Some(broken) = self.step(layout, &event) {
                return Ok(Some(broken));
            }
        }
    }

    fn step(&mut self, layout: &Layout, event: &Read<'_>) -> Option<Verification> {
        let seq = event.seq;
        let broken = |problem: String| Some(Verification::Broken { seq, problem });
        if seq != self.seq + 1 {
            return broken(format!("event {} is missing", self.seq + 1));
        }
        let hash = digest::of_values(&self.hash, seq, layout, &event.values);
        if event.hash != hash {
            return broken("the event is not what was written, or the one before it is not".to_owned());
        }
        if let Some(cut) = &self.cut
            && event.text(layout, "kind") == Some(CUT_KIND.as_bytes())
            && event.text(layout, "name") == Some(cut.as_bytes())
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
