//! Writing events, and the chain of hashes over them.

use std::sync::{Arc, LazyLock};

use sqlx::{Row as _, SqliteConnection, query::Query, sqlite::SqliteArguments};

use super::{Closed, Event, Opened, arrange, digest, integer};
use crate::{
    ids::{CallId, SessionId},
    store::transaction,
};

/// The hash that the first event of a log covers.
pub(super) const GENESIS: [u8; 32] = [0; 32];

/// Events that are committed together, at most.
pub(in crate::store) const EVENTS_MAX: usize = 64;

const OPENED_COLUMNS: usize = 15;
const CLOSED_COLUMNS: usize = 10;

const OPEN: &str = "INSERT INTO audit_opened (seq, record, at, parent, session, principal, client, kind, server, name,
     arguments, arguments_bytes, arguments_hash, trace, hash) ";

const CLOSE: &str =
    "INSERT INTO audit_closed (seq, record, at, duration, status, error, result, result_bytes, result_hash,
     hash) ";

pub(super) static OPEN_ONE: LazyLock<String> = LazyLock::new(|| format!("{OPEN} VALUES {}", places(1, OPENED_COLUMNS)));
pub(super) static CLOSE_ONE: LazyLock<String> =
    LazyLock::new(|| format!("{CLOSE} VALUES {}", places(1, CLOSED_COLUMNS)));

/// Transactions that write up to so many events of each kind. What is not needed of one is filled with nulls, and not
/// written. It is handed to SQLite's thread at once: every trip there and back costs as much as many rows do.
static BATCHES: LazyLock<[(usize, String); 4]> =
    LazyLock::new(|| [4, 16, 32, EVENTS_MAX].map(|rows| (rows, batch(rows))));

fn places(rows: usize, columns: usize) -> String {
    let row = format!("({})", vec!["?"; columns].join(", "));
    vec![row.as_str(); rows].join(", ")
}

fn batch(rows: usize) -> String {
    let some = |columns| format!("SELECT * FROM (VALUES {}) WHERE column1 IS NOT NULL", places(rows, columns));
    format!("BEGIN IMMEDIATE; {OPEN} {}; {CLOSE} {}; COMMIT", some(OPENED_COLUMNS), some(CLOSED_COLUMNS))
}

/// The end of the chain: the number and hash of the last event, and how far the log is arranged for questions.
pub(in crate::store) struct Chain {
    seq: i64,
    hash: [u8; 32],
    arranged: i64,
}

pub(super) struct Link<'a, E> {
    pub(super) seq: i64,
    pub(super) hash: [u8; 32],
    pub(super) event: &'a E,
}

impl Chain {
    pub(in crate::store) async fn load(connection: &mut SqliteConnection) -> Result<Self, sqlx::Error> {
        let last = sqlx::query(
            "SELECT seq, hash FROM (SELECT seq, hash FROM audit_opened ORDER BY seq DESC LIMIT 1)
             UNION ALL
             SELECT seq, hash FROM (SELECT seq, hash FROM audit_closed ORDER BY seq DESC LIMIT 1)
             UNION ALL
             SELECT seq, hash FROM audit_pruned
             ORDER BY seq DESC LIMIT 1",
        )
        .fetch_optional(&mut *connection)
        .await?;
        let arranged = arrange::position(connection).await?;
        let Some(row) = last else {
            return Ok(Self { seq: 0, hash: GENESIS, arranged });
        };
        let hash: Vec<u8> = row.try_get("hash")?;
        Ok(Self { seq: row.try_get("seq")?, hash: hash.try_into().unwrap_or(GENESIS), arranged })
    }

    /// Commits at most [`EVENTS_MAX`] events together. When that fails none of them is in the log and the chain is where it
    /// was.
    pub(in crate::store) async fn append(
        &mut self,
        connection: &mut SqliteConnection,
        events: &[Arc<Event>],
    ) -> Result<(), sqlx::Error> {
        let (links, end) = self.links(events);
        let (mut opened, mut closed) = (Vec::new(), Vec::new());
        for Link { seq, hash, event } in links {
            match event {
                Event::Opened(event) => opened.push(Link { seq, hash, event }),
                Event::Closed(event) => closed.push(Link { seq, hash, event }),
            }
        }
        let single = match (opened.as_slice(), closed.as_slice()) {
            ([one], []) => Some(bind_opened(sqlx::query(OPEN_ONE.as_str()), one)),
            ([], [one]) => Some(bind_closed(sqlx::query(CLOSE_ONE.as_str()), one)),
            _ => None,
        };
        if let Some(insert) = single {
            insert.execute(connection).await?;
        } else {
            let outcome = write(connection, &opened, &closed).await;
            transaction::taken_back(connection, outcome).await?;
        }
        (self.seq, self.hash) = end;
        Ok(())
    }

    /// Has `write` commit events with their places in the chain. When that fails the chain is where it was.
    pub(super) fn append_by<E>(
        &mut self,
        events: &[Arc<Event>],
        write: impl FnOnce(&[Link<'_, Event>]) -> Result<(), E>,
    ) -> Result<(), E> {
        let (links, end) = self.links(events);
        write(&links)?;
        (self.seq, self.hash) = end;
        Ok(())
    }

    /// The places of events that come next, and the end of the chain with them.
    fn links<'a>(&self, events: &'a [Arc<Event>]) -> (Vec<Link<'a, Event>>, (i64, [u8; 32])) {
        let mut end = (self.seq, self.hash);
        let links = events.iter().map(|event| {
            let seq = end.0 + 1;
            end = (seq, digest::of_event(&end.1, seq, event));
            Link { seq, hash: end.1, event: event.as_ref() }
        });
        (links.collect(), end)
    }

    /// The number of the last event.
    pub(in crate::store) fn end(&self) -> i64 {
        self.seq
    }

    /// The number of the last event that is arranged for questions.
    pub(in crate::store) fn arranged(&self) -> i64 {
        self.arranged
    }

    /// How many events are not arranged for questions yet.
    pub(in crate::store) fn behind(&self) -> i64 {
        self.seq - self.arranged
    }

    /// Arranges the next events that are not yet, at most `events_max`, and commits that.
    pub(in crate::store) async fn arrange(
        &mut self,
        connection: &mut SqliteConnection,
        events_max: i64,
    ) -> Result<(), sqlx::Error> {
        let last = self.seq.min(self.arranged + events_max);
        arrange::events(connection, self.arranged, last).await?;
        self.arranged = last;
        Ok(())
    }
}

async fn write(
    connection: &mut SqliteConnection,
    opened: &[Link<'_, Opened>],
    closed: &[Link<'_, Closed>],
) -> Result<(), sqlx::Error> {
    let most = opened.len().max(closed.len());
    let batch = BATCHES.iter().find(|(rows, _)| *rows >= most);
    let (rows, statement) = batch.ok_or_else(|| sqlx::Error::Protocol(format!("{most} events are too many")))?;
    let query = opened.iter().fold(sqlx::query(statement.as_str()), bind_opened);
    let query = nulls(query, (rows - opened.len()) * OPENED_COLUMNS);
    let query = closed.iter().fold(query, bind_closed);
    nulls(query, (rows - closed.len()) * CLOSED_COLUMNS).execute(connection).await?;
    Ok(())
}

type Insert<'q> = Query<'q, sqlx::Sqlite, SqliteArguments>;

fn nulls(query: Insert<'_>, count: usize) -> Insert<'_> {
    (0..count).fold(query, |query, _| query.bind(None::<i64>))
}

fn bind_opened<'q>(query: Insert<'q>, link: &'q Link<'q, Opened>) -> Insert<'q> {
    let event = link.event;
    query
        .bind(link.seq)
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
        .bind(&event.trace)
        .bind(link.hash.as_slice())
}

fn bind_closed<'q>(query: Insert<'q>, link: &'q Link<'q, Closed>) -> Insert<'q> {
    let event = link.event;
    query
        .bind(link.seq)
        .bind(event.record.as_bytes())
        .bind(event.at.as_microsecond())
        .bind(integer(event.duration_micros))
        .bind(event.status.as_ref())
        .bind(&event.error)
        .bind(&event.result)
        .bind(integer(event.result_bytes))
        .bind(event.result_hash.as_ref().map(<[u8; 32]>::as_slice))
        .bind(link.hash.as_slice())
}
