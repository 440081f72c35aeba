//! Audit events as rows, chained by hash, and the questions they answer.

mod append;
mod arrange;
mod digest;
mod direct;
mod filters;
mod prune;
mod records;
mod stats;
mod verify;

use std::borrow::Cow;

use sqlx::{ColumnIndex, Row as _, sqlite::SqliteRow};

pub(super) use append::{Chain, EVENTS_MAX};
pub(super) use direct::Direct;
pub use prune::{Cut, Prune};
pub use records::{Cursor, Page, Query, Record};
pub use stats::{Stats, StatsBy};

use super::{Store, StoreError, corrupt, timestamp};
use crate::{
    clock::Timestamp,
    ids::{CallId, SessionId},
};

/// One event, ready to be written. Text is redacted and bounded already.
#[derive(Debug, Clone)]
pub enum Event {
    Opened(Opened),
    Closed(Closed),
}

/// Something is about to run.
#[derive(Debug, Clone)]
pub struct Opened {
    pub record: CallId,
    pub at: Timestamp,
    pub parent: Option<CallId>,
    pub session: Option<SessionId>,
    pub principal: String,
    pub client: Option<String>,
    pub kind: Cow<'static, str>,
    pub server: Option<String>,
    pub name: String,
    pub arguments: Option<String>,
    pub arguments_bytes: u64,
    pub arguments_hash: Option<[u8; 32]>,
    /// W3C trace context's trace-id.
    pub trace: Option<String>,
}

#[cfg(test)]
impl Opened {
    pub(in crate::store) fn example() -> Self {
        Self {
            record: CallId::new(),
            at: Timestamp::UNIX_EPOCH,
            parent: None,
            session: None,
            principal: "operator".to_owned(),
            client: None,
            kind: "tool".into(),
            server: None,
            name: "echo".to_owned(),
            arguments: None,
            arguments_bytes: 0,
            arguments_hash: None,
            trace: None,
        }
    }
}

/// Something has run, or will not.
#[derive(Debug, Clone)]
pub struct Closed {
    pub record: CallId,
    pub at: Timestamp,
    pub duration_micros: u64,
    pub status: Cow<'static, str>,
    pub error: Option<String>,
    pub result: Option<String>,
    pub result_bytes: u64,
    pub result_hash: Option<[u8; 32]>,
}

/// What [`Store::verify_audit`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verification {
    /// Every event is where and what it was when it was written.
    Intact { events: u64, first: i64, last: i64, last_hash: String },
    /// The first event that is not.
    Broken { seq: i64, problem: String },
}

impl Store {
    /// Commits an audit event.
    ///
    /// # Errors
    ///
    /// When it could not be committed: then it is not in the log.
    pub async fn append_audit(&self, event: Event) -> Result<(), StoreError> {
        self.writer().append(event).await
    }

    /// Changes when events are committed.
    #[must_use]
    pub fn commits(&self) -> tokio::sync::watch::Receiver<()> {
        self.writer().commits()
    }

    /// The records that were opened and never closed.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn open_audit_records(&self) -> Result<Vec<(CallId, Timestamp)>, StoreError> {
        let rows = sqlx::query(
            "SELECT seq, record, opened_at AS at FROM audit_records r
             WHERE closed IS NULL AND NOT EXISTS (SELECT 1 FROM audit_closed c WHERE c.record = r.record)
             UNION ALL
             SELECT seq, record, at FROM audit_opened o
             WHERE seq > (SELECT seq FROM audit_arranged)
             AND NOT EXISTS (SELECT 1 FROM audit_closed c WHERE c.record = o.record)
             ORDER BY seq",
        )
        .fetch_all(self.readers())
        .await?;
        rows.iter().map(|row| Ok((call_id(row, "record")?, timestamp(row.try_get("at")?)))).collect()
    }

    /// Recomputes the chain from its beginning, and compares it with what the event of a checkpoint had for a hash.
    ///
    /// # Errors
    ///
    /// When the database cannot be read. A broken chain is not an error but an answer.
    pub async fn verify_audit(&self, checkpoint: Option<(i64, [u8; 32])>) -> Result<Verification, StoreError> {
        loop {
            let begin = self.audit_begin().await?;
            let (end, _) = self.audit_head().await?;
            let found = verify::run(self.readers(), begin, end, checkpoint).await?;
            // A log that was cut meanwhile lacks what a walk from its old beginning looks for.
            if matches!(found, Verification::Intact { .. }) || self.audit_begin().await? == begin {
                return Ok(found);
            }
        }
    }

    /// The number and hash of the last event.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn audit_head(&self) -> Result<(i64, [u8; 32]), StoreError> {
        let row = sqlx::query(
            "SELECT seq, hash FROM (SELECT seq, hash FROM audit_opened ORDER BY seq DESC LIMIT 1)
             UNION ALL
             SELECT seq, hash FROM (SELECT seq, hash FROM audit_closed ORDER BY seq DESC LIMIT 1)
             ORDER BY seq DESC LIMIT 1",
        )
        .fetch_optional(self.readers())
        .await?;
        let Some(row) = row else { return self.audit_begin().await };
        let hash = row.try_get::<Vec<u8>, _>("hash")?.try_into().map_err(|_| corrupt("a hash is not 32 bytes"))?;
        Ok((row.try_get("seq")?, hash))
    }
}

fn call_id<I: ColumnIndex<SqliteRow>>(row: &SqliteRow, column: I) -> Result<CallId, StoreError> {
    CallId::from_bytes(row.try_get::<&[u8], _>(column)?).ok_or_else(|| corrupt("a record's id is not 16 bytes"))
}

fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
