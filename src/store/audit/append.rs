//! Writing events, and the chain of hashes over them.

use std::sync::LazyLock;

use sqlx::{Row as _, SqliteConnection, query::Query, sqlite::SqliteArguments};

use super::{Closed, Event, Opened, arrange, digest, integer};
use crate::{
    ids::{CallId, SessionId},
    store::transaction,
};

/// The hash that the first event of a log covers.
pub(super) const GENESIS: [u8; 32] = [0; 32];

/// How many rows one statement writes. Every statement is a trip to SQLite's thread and back, which costs as much as
/// several rows do.
const ROWS: [usize; 7] = [64, 32, 16, 8, 4, 2, 1];

type Statements = [String; ROWS.len()];

static OPEN: LazyLock<Statements> = LazyLock::new(|| {
    statements(
        "INSERT INTO audit_opened (seq, record, at, parent, session, principal, client, kind, server, name, arguments,
             arguments_bytes, arguments_hash, trace, hash) VALUES ",
        15,
    )
});

static CLOSE: LazyLock<Statements> = LazyLock::new(|| {
    statements(
        "INSERT INTO audit_closed (seq, record, at, duration, status, error, result, result_bytes, result_hash, hash)
         VALUES ",
        10,
    )
});

fn statements(insert: &str, columns: usize) -> Statements {
    let row = format!("({})", vec!["?"; columns].join(", "));
    ROWS.map(|rows| format!("{insert}{}", vec![row.as_str(); rows].join(", ")))
}

/// The end of the chain: the number and hash of the last event, and how far the log is arranged for questions.
pub(in crate::store) struct Chain {
    seq: i64,
    hash: [u8; 32],
    arranged: i64,
}

struct Link<'a, E> {
    seq: i64,
    hash: [u8; 32],
    event: &'a E,
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

    /// Commits `events` together. When that fails none of them is in the log and the chain is where it was.
    pub(in crate::store) async fn append(
        &mut self,
        connection: &mut SqliteConnection,
        events: &[Event],
    ) -> Result<(), sqlx::Error> {
        let (mut seq, mut hash) = (self.seq, self.hash);
        let (mut opened, mut closed) = (Vec::new(), Vec::new());
        for event in events {
            seq += 1;
            hash = digest::of_event(&hash, seq, event);
            match event {
                Event::Opened(event) => opened.push(Link { seq, hash, event }),
                Event::Closed(event) => closed.push(Link { seq, hash, event }),
            }
        }
        if events.len() == 1 {
            write(connection, &opened, &closed).await?;
        } else {
            transaction::begin(connection).await?;
            let outcome = write(connection, &opened, &closed).await;
            transaction::end(connection, outcome).await?;
        }
        self.seq = seq;
        self.hash = hash;
        Ok(())
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
    insert(connection, &OPEN, opened, bind_opened).await?;
    insert(connection, &CLOSE, closed, bind_closed).await
}

type Insert<'q> = Query<'q, sqlx::Sqlite, SqliteArguments>;

async fn insert<'e, E>(
    connection: &mut SqliteConnection,
    statements: &'static Statements,
    mut links: &'e [Link<'e, E>],
    bind: fn(Insert<'e>, &'e Link<'e, E>) -> Insert<'e>,
) -> Result<(), sqlx::Error> {
    while !links.is_empty() {
        for (statement, rows) in statements.iter().zip(ROWS) {
            if let Some((now, later)) = links.split_at_checked(rows) {
                let query = now.iter().fold(sqlx::query(statement.as_str()), bind);
                query.execute(&mut *connection).await?;
                links = later;
                break;
            }
        }
    }
    Ok(())
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
