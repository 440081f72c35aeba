//! Reading records back: filters, pages, full text.

use std::{fmt, str::FromStr};

use sqlx::{QueryBuilder, Row as _, Sqlite, sqlite::SqliteRow};

use super::{call_id, filters::Prepared};
use crate::{
    clock::Timestamp,
    ids::{CallId, SessionId},
    store::{Store, StoreError, timestamp},
};

/// A record as it is read back.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Record {
    pub record: CallId,
    pub parent: Option<CallId>,
    pub session: Option<String>,
    pub principal: String,
    pub client: Option<String>,
    pub kind: String,
    pub server: Option<String>,
    pub name: String,
    pub arguments: Option<String>,
    pub arguments_bytes: u64,
    /// SHA-256 of the whole arguments, in hexadecimal.
    pub arguments_hash: Option<String>,
    pub opened_at: Timestamp,
    pub closed_at: Option<Timestamp>,
    pub duration_micros: Option<u64>,
    pub status: Option<String>,
    pub error: Option<String>,
    pub result: Option<String>,
    pub result_bytes: Option<u64>,
    /// SHA-256 of the whole result, in hexadecimal.
    pub result_hash: Option<String>,
    pub trace: Option<String>,
    /// The number of the event that opened it, and of the one that closed it.
    pub opened_seq: i64,
    pub closed_seq: Option<i64>,
}

/// Which records. What is not given does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    pub session: Option<SessionId>,
    pub server: Option<String>,
    pub name: Option<String>,
    pub kind: Option<String>,
    /// A status, or `open`.
    pub status: Option<String>,
    pub principal: Option<String>,
    /// A client program's name, with or without its version.
    pub client: Option<String>,
    pub since: Option<Timestamp>,
    /// Excluded.
    pub until: Option<Timestamp>,
    pub slower_than_micros: Option<u64>,
    /// Words that all occur in names, arguments, error or result.
    pub grep: Option<String>,
    /// Records that no other record is the parent of.
    pub roots: bool,
}

/// Where a page ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct Cursor {
    /// The time of the last record of the page; none if the page was in the order of the events with the words.
    at: Option<i64>,
    seq: i64,
}

impl Cursor {
    /// Whether a page of `query` can have ended there.
    #[must_use]
    pub fn is_of(&self, query: &Query) -> bool {
        self.at.is_some() || query.grep.is_some()
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            Some(at) => write!(formatter, "{at}.{}", self.seq),
            None => write!(formatter, "words.{}", self.seq),
        }
    }
}

impl FromStr for Cursor {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (at, seq) = text.split_once('.').ok_or("a cursor is what an earlier answer gave as `next_cursor`")?;
        let at = if at == "words" { Ok(None) } else { at.parse().map(Some) };
        match (at, seq.parse()) {
            (Ok(at), Ok(seq)) => Ok(Self { at, seq }),
            _ => Err("a cursor is what an earlier answer gave as `next_cursor`"),
        }
    }
}

impl TryFrom<String> for Cursor {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// Some of the records, in order of time, and where the next older ones begin.
#[derive(Debug, Clone)]
pub struct Page {
    pub records: Vec<Record>,
    pub next: Option<Cursor>,
}

const COLUMNS: &str =
    "r.seq, r.record, r.parent, r.session, r.principal, r.client, r.kind, r.server, r.name, r.opened_at,
     r.duration, r.status, r.bytes_in, r.bytes_out, r.closed, o.arguments, o.arguments_hash, o.trace,
     c.at AS closed_at, c.error, c.result, c.result_hash";

const EVENTS: &str = " JOIN audit_opened o ON o.seq = r.seq LEFT JOIN audit_closed c ON c.seq = r.closed";

impl Store {
    /// The newest records that match, older than `before` if that is given.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn audit_records(&self, query: &Query, before: Option<Cursor>, limit: u32) -> Result<Page, StoreError> {
        self.writer().arrange().await?;
        let prepared = self.prepare_led(query).await?;
        if prepared.matches_nothing() {
            return Ok(Page { records: Vec::new(), next: None });
        }
        // A page goes on in the order in which the one before it was.
        let words = match before {
            Some(Cursor { at: None, .. }) => prepared.words(),
            Some(_) => None,
            None => prepared.leading_words(),
        };
        let mut sql = match words {
            None => by_time(&prepared, before),
            Some(words) => by_words(&prepared, words, before),
        };
        sql.push(" LIMIT ").push_bind(i64::from(limit) + 1);
        let rows = sql.build().fetch_all(self.readers()).await?;
        let whole = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut next = None;
        if rows.len() > whole
            && let Some(last) = whole.checked_sub(1).and_then(|last| rows.get(last))
        {
            next = Some(match words {
                None => Cursor { at: Some(last.try_get("opened_at")?), seq: last.try_get("seq")? },
                Some(_) => Cursor { at: None, seq: last.try_get("event")? },
            });
        }
        let mut records = rows.iter().take(whole).map(record).collect::<Result<Vec<_>, _>>()?;
        records.reverse();
        Ok(Page { records, next })
    }

    /// Everything below the records of a page, in order of time.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn audit_descendants(&self, records: &[Record], limit: u32) -> Result<Vec<Record>, StoreError> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let mut sql = QueryBuilder::<Sqlite>::new(
            "WITH RECURSIVE below (record) AS (SELECT record FROM audit_records WHERE parent IN (",
        );
        let mut parents = sql.separated(", ");
        for record in records {
            parents.push_bind(record.record.as_bytes().to_vec());
        }
        sql.push(
            ") UNION SELECT a.record FROM audit_records a JOIN below b ON a.parent = b.record)
             SELECT ",
        );
        sql.push(COLUMNS).push(" FROM below JOIN audit_records r ON r.record = below.record").push(EVENTS);
        sql.push(" ORDER BY r.opened_at, r.seq LIMIT ").push_bind(i64::from(limit));
        sql.build().fetch_all(self.readers()).await?.iter().map(record).collect()
    }

    /// Records that match and were closed after event `after`, in the order of closing.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn audit_closed_after(&self, query: &Query, after: i64, limit: u32) -> Result<Vec<Record>, StoreError> {
        self.writer().arrange().await?;
        let prepared = self.prepare(query).await?;
        if prepared.matches_nothing() {
            return Ok(Vec::new());
        }
        let mut sql = QueryBuilder::new("SELECT ");
        sql.push(COLUMNS).push(" FROM audit_records r").push(EVENTS);
        sql.push(" WHERE r.closed > ").push_bind(after);
        prepared.push_conditions(&mut sql);
        prepared.push_words(&mut sql);
        sql.push(" ORDER BY r.closed LIMIT ").push_bind(i64::from(limit));
        sql.build().fetch_all(self.readers()).await?.iter().map(record).collect()
    }
}

fn by_time(prepared: &Prepared, before: Option<Cursor>) -> QueryBuilder<Sqlite> {
    let mut sql = QueryBuilder::new("SELECT ");
    sql.push(COLUMNS).push(" FROM audit_records r");
    prepared.push_index(&mut sql);
    sql.push(EVENTS).push(" WHERE TRUE");
    prepared.push_conditions(&mut sql);
    prepared.push_words(&mut sql);
    if let Some(Cursor { at: Some(at), seq }) = before {
        sql.push(" AND (r.opened_at, r.seq) < (").push_bind(at).push(", ").push_bind(seq).push(")");
    }
    sql.push(" ORDER BY r.opened_at DESC, r.seq DESC");
    sql
}

/// Newest events first. A record that matches in both of its events is found by the one that closed it.
fn by_words(prepared: &Prepared, words: &str, before: Option<Cursor>) -> QueryBuilder<Sqlite> {
    let mut sql = QueryBuilder::new("SELECT w.rowid AS event, ");
    sql.push(COLUMNS).push(" FROM audit_words w CROSS JOIN audit_records r ON r.seq = coalesce(");
    sql.push("(SELECT seq FROM audit_records WHERE closed = w.rowid), w.rowid)").push(EVENTS);
    sql.push(" WHERE audit_words MATCH ").push_bind(words.to_owned());
    if let Some(Cursor { seq, .. }) = before {
        sql.push(" AND w.rowid < ").push_bind(seq);
    }
    sql.push(" AND NOT (w.rowid = r.seq AND r.closed IN (SELECT rowid FROM audit_words WHERE audit_words MATCH ");
    sql.push_bind(words.to_owned()).push(" AND rowid = r.closed))");
    prepared.push_conditions(&mut sql);
    sql.push(" ORDER BY w.rowid DESC");
    sql
}

fn record(row: &SqliteRow) -> Result<Record, StoreError> {
    let hex = |column: &str| -> Result<Option<String>, StoreError> {
        Ok(row.try_get::<Option<Vec<u8>>, _>(column)?.map(|bytes| data_encoding::HEXLOWER.encode(&bytes)))
    };
    Ok(Record {
        record: call_id(row, "record")?,
        parent: row.try_get::<Option<Vec<u8>>, _>("parent")?.and_then(|bytes| CallId::from_bytes(&bytes)),
        session: row.try_get("session")?,
        principal: row.try_get("principal")?,
        client: row.try_get("client")?,
        kind: row.try_get("kind")?,
        server: row.try_get("server")?,
        name: row.try_get("name")?,
        arguments: row.try_get("arguments")?,
        arguments_bytes: row.try_get::<i64, _>("bytes_in")?.unsigned_abs(),
        arguments_hash: hex("arguments_hash")?,
        opened_at: timestamp(row.try_get("opened_at")?),
        closed_at: row.try_get::<Option<i64>, _>("closed_at")?.map(timestamp),
        duration_micros: row.try_get::<Option<i64>, _>("duration")?.map(i64::unsigned_abs),
        status: row.try_get("status")?,
        error: row.try_get("error")?,
        result: row.try_get("result")?,
        result_bytes: row.try_get::<Option<i64>, _>("bytes_out")?.map(i64::unsigned_abs),
        result_hash: hex("result_hash")?,
        trace: row.try_get("trace")?,
        opened_seq: row.try_get("seq")?,
        closed_seq: row.try_get("closed")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written() {
        for at in [Some(-5), None] {
            let cursor = Cursor { at, seq: 17 };
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
        assert!("17".parse::<Cursor>().is_err() && "a.b".parse::<Cursor>().is_err());
    }
}
