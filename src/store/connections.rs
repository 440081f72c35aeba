//! Connections of clients of revisions up to 2025-11-25, so that their `Mcp-Session-Id` works after a restart.

use sqlx::Row as _;

use super::{Store, StoreError, corrupt, micros};
use crate::{
    clock::Timestamp,
    ids::{Principal, SessionId},
};

/// A connection of a client of a revision up to 2025-11-25.
#[derive(Debug, Clone)]
pub struct ConnectionRow {
    pub session: SessionId,
    pub principal: Principal,
    pub initialize: Option<String>,
}

impl Store {
    /// Keeps a connection, or what its client said when it connected.
    ///
    /// # Errors
    ///
    /// When it could not be committed.
    pub async fn put_connection(&self, id: &str, connection: ConnectionRow, now: Timestamp) -> Result<(), StoreError> {
        let statement = sqlx::query(
            "INSERT INTO connections (id, session, principal, initialize, created_at) VALUES (?, ?, ?, ?, ?)
             ON CONFLICT (id) DO UPDATE SET initialize = excluded.initialize",
        )
        .bind(id)
        .bind(connection.session.as_str())
        .bind(connection.principal.to_string())
        .bind(connection.initialize)
        .bind(micros(now));
        self.writer().execute(statement).await
    }

    /// Reads a connection of a session that has not ended.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn connection(&self, id: &str) -> Result<Option<ConnectionRow>, StoreError> {
        let row = sqlx::query(
            "SELECT c.session, c.principal, c.initialize FROM connections c
             JOIN sessions s ON s.id = c.session WHERE c.id = ? AND s.ended_at IS NULL",
        )
        .bind(id)
        .fetch_optional(self.readers())
        .await?;
        row.map(|row| {
            Ok(ConnectionRow {
                session: row.try_get::<String, _>("session")?.parse().map_err(corrupt)?,
                principal: row.try_get::<String, _>("principal")?.parse().map_err(corrupt)?,
                initialize: row.try_get("initialize")?,
            })
        })
        .transpose()
    }

    /// Forgets a connection.
    ///
    /// # Errors
    ///
    /// When it could not be committed.
    pub async fn delete_connection(&self, id: &str) -> Result<(), StoreError> {
        let statement = sqlx::query("DELETE FROM connections WHERE id = ?").bind(id);
        self.writer().execute(statement).await
    }
}
