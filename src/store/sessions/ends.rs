//! When sessions end by themselves, and what is a session's alone.

use futures_util::FutureExt as _;
use sqlx::Row as _;

use super::super::{Store, StoreError, corrupt, micros, timestamp};
use crate::{
    clock::Timestamp,
    ids::{ServerName, SessionId},
};

impl Store {
    /// Keeps when a session ends by itself.
    ///
    /// # Errors
    ///
    /// When it could not be committed.
    pub async fn set_session_expiry(&self, id: &SessionId, at: Timestamp) -> Result<(), StoreError> {
        let statement = sqlx::query("UPDATE sessions SET expires_at = ? WHERE id = ? AND ended_at IS NULL")
            .bind(micros(at))
            .bind(id.as_str());
        self.writer().execute(statement).await
    }

    /// When the first of the sessions that have not ended ends by itself.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn first_session_end(&self) -> Result<Option<Timestamp>, StoreError> {
        let row = sqlx::query("SELECT min(expires_at) AS at FROM sessions WHERE ended_at IS NULL")
            .fetch_one(self.readers())
            .await?;
        Ok(row.try_get::<Option<i64>, _>("at")?.map(timestamp))
    }

    /// Keeps servers that are a session's alone.
    ///
    /// # Errors
    ///
    /// When it could not be committed: then none is kept.
    pub async fn put_session_entries(
        &self,
        session: &SessionId,
        entries: Vec<(ServerName, String)>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let session = session.clone();
        self.writer()
            .change(move |connection| {
                async move {
                    for (server, entry) in entries {
                        sqlx::query(
                            "INSERT INTO session_entries (session, server, entry, added_at) VALUES (?, ?, ?, ?)
                             ON CONFLICT (session, server) DO UPDATE SET entry = excluded.entry",
                        )
                        .bind(session.as_str())
                        .bind(server.as_str())
                        .bind(entry)
                        .bind(micros(now))
                        .execute(&mut *connection)
                        .await?;
                    }
                    Ok(())
                }
                .boxed()
            })
            .await
    }

    pub(super) async fn session_entries(&self, id: &SessionId) -> Result<Vec<(ServerName, String)>, StoreError> {
        let rows = sqlx::query("SELECT server, entry FROM session_entries WHERE session = ?")
            .bind(id.as_str())
            .fetch_all(self.readers())
            .await?;
        let entry = |row: &sqlx::sqlite::SqliteRow| {
            let server = row.try_get::<String, _>("server")?.parse().map_err(corrupt)?;
            Ok((server, row.try_get("entry")?))
        };
        rows.iter().map(entry).collect()
    }
}
