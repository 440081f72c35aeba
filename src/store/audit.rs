//! Audit events as rows, and the chain of hashes over them.

mod verify;

use std::borrow::Cow;

use sha2::{Digest as _, Sha256};
use sqlx::{Connection as _, Row as _, SqliteConnection, sqlite::SqliteRow};

use super::{Store, StoreError, corrupt, timestamp};
use crate::{
    clock::Timestamp,
    ids::{CallId, SessionId},
};

/// The hash that the first event of a log covers.
const GENESIS: [u8; 32] = [0; 32];

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
    pub opened_at: Timestamp,
    pub closed_at: Option<Timestamp>,
    pub duration_micros: Option<u64>,
    pub status: Option<String>,
    pub error: Option<String>,
    pub result: Option<String>,
    pub result_bytes: Option<u64>,
}

/// Which records to read.
#[derive(Debug, Clone, Default)]
pub struct Query {
    pub session: Option<SessionId>,
    /// The newest so many, in order of time.
    pub limit: u32,
}

/// The end of the chain: the number and hash of the last event.
pub(super) struct Chain {
    seq: i64,
    hash: [u8; 32],
}

impl Chain {
    pub(super) async fn load(connection: &mut SqliteConnection) -> Result<Self, sqlx::Error> {
        let last = sqlx::query(
            "SELECT seq, hash FROM (SELECT seq, hash FROM audit_opened ORDER BY seq DESC LIMIT 1)
             UNION ALL
             SELECT seq, hash FROM (SELECT seq, hash FROM audit_closed ORDER BY seq DESC LIMIT 1)
             ORDER BY seq DESC LIMIT 1",
        )
        .fetch_optional(connection)
        .await?;
        let Some(row) = last else {
            return Ok(Self { seq: 0, hash: GENESIS });
        };
        let hash: Vec<u8> = row.try_get("hash")?;
        Ok(Self { seq: row.try_get("seq")?, hash: hash.try_into().unwrap_or(GENESIS) })
    }

    /// Commits `events` together. When that fails none of them is in the log and the chain is where it was.
    pub(super) async fn append(
        &mut self,
        connection: &mut SqliteConnection,
        events: &[Event],
    ) -> Result<(), sqlx::Error> {
        let mut seq = self.seq;
        let mut hash = self.hash;
        if let [event] = events {
            seq += 1;
            hash = event_hash(&hash, seq, event);
            insert(connection, seq, &hash, event).await?;
        } else {
            let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
            for event in events {
                seq += 1;
                hash = event_hash(&hash, seq, event);
                insert(&mut transaction, seq, &hash, event).await?;
            }
            transaction.commit().await?;
        }
        self.seq = seq;
        self.hash = hash;
        Ok(())
    }
}

async fn insert(
    connection: &mut SqliteConnection,
    seq: i64,
    hash: &[u8; 32],
    event: &Event,
) -> Result<(), sqlx::Error> {
    let query = match event {
        Event::Opened(event) => sqlx::query(
            "INSERT INTO audit_opened (seq, record, at, parent, session, principal, client, kind, server, name,
                 arguments, arguments_bytes, arguments_hash, hash)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(seq)
        .bind(event.record.as_bytes())
        .bind(event.at.as_microsecond())
        .bind(event.parent.as_ref().map(CallId::as_bytes))
        .bind(event.session.as_ref().map(SessionId::as_str))
        .bind(&event.principal)
        .bind(&event.client)
        .bind(event.kind.as_ref())
        .bind(&event.server)
        .bind(&event.name)
        .bind(&event.arguments)
        .bind(integer(event.arguments_bytes))
        .bind(event.arguments_hash.as_ref().map(<[u8; 32]>::as_slice))
        .bind(hash.as_slice()),
        Event::Closed(event) => sqlx::query(
            "INSERT INTO audit_closed (seq, record, at, duration, status, error, result, result_bytes, result_hash, hash)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(seq)
        .bind(event.record.as_bytes())
        .bind(event.at.as_microsecond())
        .bind(integer(event.duration_micros))
        .bind(event.status.as_ref())
        .bind(&event.error)
        .bind(&event.result)
        .bind(integer(event.result_bytes))
        .bind(event.result_hash.as_ref().map(<[u8; 32]>::as_slice))
        .bind(hash.as_slice()),
    };
    query.execute(connection).await.map(|_| ())
}

/// SHA-256 over the previous hash and every column of the event, each with its length before it, so that no two
/// different events read the same.
fn event_hash(previous: &[u8; 32], seq: i64, event: &Event) -> [u8; 32] {
    let mut digest = ChainDigest(Sha256::new());
    digest.bytes(previous).integer(seq);
    match event {
        Event::Opened(event) => {
            digest
                .bytes(b"opened")
                .bytes(event.record.as_bytes())
                .integer(event.at.as_microsecond())
                .optional(event.parent.as_ref().map(CallId::as_bytes))
                .optional(event.session.as_ref().map(|session| session.as_str().as_bytes()))
                .bytes(event.principal.as_bytes())
                .optional(event.client.as_deref().map(str::as_bytes))
                .bytes(event.kind.as_bytes())
                .optional(event.server.as_deref().map(str::as_bytes))
                .bytes(event.name.as_bytes())
                .optional(event.arguments.as_deref().map(str::as_bytes))
                .integer(integer(event.arguments_bytes))
                .optional(event.arguments_hash.as_ref().map(<[u8; 32]>::as_slice));
        }
        Event::Closed(event) => {
            digest
                .bytes(b"closed")
                .bytes(event.record.as_bytes())
                .integer(event.at.as_microsecond())
                .integer(integer(event.duration_micros))
                .bytes(event.status.as_bytes())
                .optional(event.error.as_deref().map(str::as_bytes))
                .optional(event.result.as_deref().map(str::as_bytes))
                .integer(integer(event.result_bytes))
                .optional(event.result_hash.as_ref().map(<[u8; 32]>::as_slice));
        }
    }
    digest.0.finalize().into()
}

struct ChainDigest(Sha256);

impl ChainDigest {
    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    fn integer(&mut self, integer: i64) -> &mut Self {
        self.bytes(&integer.to_le_bytes())
    }

    /// An absent value differs from an empty one.
    fn optional(&mut self, bytes: Option<&[u8]>) -> &mut Self {
        match bytes {
            Some(bytes) => self.bytes(&[1]).bytes(bytes),
            None => self.bytes(&[0]),
        }
    }
}

/// What [`Store::verify_audit`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verification {
    /// Every event is where and what it was when it was written.
    Intact { events: u64, last_hash: String },
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

    /// Reads records, newest last.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn audit_records(&self, query: &Query) -> Result<Vec<Record>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM (
                 SELECT o.*, c.at AS closed_at, c.duration, c.status, c.error, c.result, c.result_bytes
                 FROM audit_opened o LEFT JOIN audit_closed c ON c.record = o.record
                 WHERE ?1 IS NULL OR o.session = ?1
                 ORDER BY o.seq DESC LIMIT ?2
             ) ORDER BY seq",
        )
        .bind(query.session.as_ref().map(SessionId::as_str))
        .bind(query.limit)
        .fetch_all(self.readers())
        .await?;
        rows.iter().map(record).collect()
    }

    /// The records that were opened and never closed.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn open_audit_records(&self) -> Result<Vec<(CallId, Timestamp)>, StoreError> {
        let rows = sqlx::query(
            "SELECT record, at FROM audit_opened o
             WHERE NOT EXISTS (SELECT 1 FROM audit_closed c WHERE c.record = o.record) ORDER BY seq",
        )
        .fetch_all(self.readers())
        .await?;
        rows.iter().map(|row| Ok((call_id(row, "record")?, timestamp(row.try_get("at")?)))).collect()
    }

    /// Recomputes the chain from its beginning.
    ///
    /// # Errors
    ///
    /// When the database cannot be read. A broken chain is not an error but an answer.
    pub async fn verify_audit(&self) -> Result<Verification, StoreError> {
        verify::run(self.readers()).await
    }
}

fn record(row: &SqliteRow) -> Result<Record, StoreError> {
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
        arguments_bytes: row.try_get::<i64, _>("arguments_bytes")?.unsigned_abs(),
        opened_at: timestamp(row.try_get("at")?),
        closed_at: row.try_get::<Option<i64>, _>("closed_at")?.map(timestamp),
        duration_micros: row.try_get::<Option<i64>, _>("duration")?.map(i64::unsigned_abs),
        status: row.try_get("status")?,
        error: row.try_get("error")?,
        result: row.try_get("result")?,
        result_bytes: row.try_get::<Option<i64>, _>("result_bytes")?.map(i64::unsigned_abs),
    })
}

fn call_id(row: &SqliteRow, column: &str) -> Result<CallId, StoreError> {
    CallId::from_bytes(&row.try_get::<Vec<u8>, _>(column)?)
        .ok_or_else(|| corrupt(format!("`{column}` is not 16 bytes")))
}

fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
