//! Tools that sessions have made of scripts.

use sqlx::Row as _;

use super::{Store, StoreError, corrupt, micros};
use crate::{
    clock::Timestamp,
    ids::{ServerName, SessionId},
};

impl Store {
    /// A session's code tools: their names, and the servers that they may call.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn code_tools(&self, session: &SessionId) -> Result<Vec<(String, Vec<ServerName>)>, StoreError> {
        let rows = sqlx::query("SELECT name, servers FROM session_code_tools WHERE session = ? ORDER BY name")
            .bind(session.as_str())
            .fetch_all(self.readers())
            .await?;
        rows.iter()
            .map(|row| {
                let servers: String = row.try_get("servers")?;
                Ok((row.try_get("name")?, serde_json::from_str(&servers).map_err(corrupt)?))
            })
            .collect()
    }

    /// Keeps a code tool. One of the same name is replaced.
    ///
    /// # Errors
    ///
    /// When it could not be committed.
    pub async fn put_code_tool(
        &self,
        session: &SessionId,
        name: &str,
        servers: &[ServerName],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let servers = serde_json::to_string(servers).map_err(corrupt)?;
        let statement = sqlx::query(
            "INSERT INTO session_code_tools (session, name, servers, made_at) VALUES (?, ?, ?, ?)
             ON CONFLICT (session, name) DO UPDATE SET servers = excluded.servers",
        )
        .bind(session.as_str())
        .bind(name)
        .bind(servers)
        .bind(micros(now));
        self.writer().execute(statement).await
    }
}
