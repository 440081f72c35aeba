//! Keeps `audit_records` and `audit_words` in step with the events, behind them.
//!
//! Calls do not wait for this: the writer does it when nothing else is queued for a while, or when a question is asked.

use sqlx::{Row as _, SqliteConnection};

use crate::store::transaction;

pub(super) async fn position(connection: &mut SqliteConnection) -> Result<i64, sqlx::Error> {
    sqlx::query("SELECT seq FROM audit_arranged").fetch_one(connection).await?.try_get("seq")
}

/// Arranges the events after `done` up to `last`, and commits that.
pub(super) async fn events(connection: &mut SqliteConnection, done: i64, last: i64) -> Result<(), sqlx::Error> {
    transaction::begin(connection).await?;
    let outcome = arrange(connection, done, last).await;
    transaction::end(connection, outcome).await
}

async fn arrange(connection: &mut SqliteConnection, done: i64, last: i64) -> Result<(), sqlx::Error> {
    let steps = [
        "INSERT INTO audit_records (seq, record, closed, parent, session, principal, client, kind, server, name,
             opened_at, duration, status, bytes_in, bytes_out)
         SELECT o.seq, o.record, c.seq, o.parent, o.session, o.principal, o.client, o.kind, o.server, o.name, o.at,
             c.duration, c.status, o.arguments_bytes, c.result_bytes
         FROM audit_opened o LEFT JOIN audit_closed c ON c.record = o.record AND c.seq <= ?2
         WHERE o.seq > ?1 AND o.seq <= ?2",
        "UPDATE audit_records SET closed = c.seq, duration = c.duration, status = c.status, bytes_out = c.result_bytes
         FROM audit_closed c
         WHERE c.seq > ?1 AND c.seq <= ?2 AND audit_records.record = c.record AND audit_records.closed IS NULL",
        "INSERT INTO audit_words (rowid, words)
         SELECT seq, concat_ws(' ', server, name, arguments) FROM audit_opened WHERE seq > ?1 AND seq <= ?2
         UNION ALL
         SELECT seq, concat_ws(' ', error, result) FROM audit_closed
         WHERE seq > ?1 AND seq <= ?2 AND (error IS NOT NULL OR result IS NOT NULL)",
        "UPDATE audit_arranged SET seq = ?2 WHERE seq = ?1",
    ];
    for step in steps {
        sqlx::query(step).bind(done).bind(last).execute(&mut *connection).await?;
    }
    Ok(())
}
