//! What servers said they offer.

use futures_util::FutureExt as _;
use sqlx::Row as _;

use super::{Store, StoreError, micros};
use crate::{clock::Timestamp, ids::ServerName};

/// A tool that is offered no more is forgotten when there is news of its server, and this is how old it is then.
const FORGOTTEN_AFTER_HOURS: i64 = 30 * 24;

/// More tools than this are not read.
const TOOLS_MAX: i64 = 100_000;

/// A tool of a server, in the server's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LearnedTool {
    pub name: String,
    pub description: String,
}

impl Store {
    /// What was learned under `fingerprint`, as JSON.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn learned_surface(&self, fingerprint: &str) -> Result<Option<String>, StoreError> {
        let row = sqlx::query("SELECT surface FROM learned_surfaces WHERE fingerprint = ?")
            .bind(fingerprint)
            .fetch_optional(self.readers())
            .await?;
        Ok(row.map(|row| row.try_get("surface")).transpose()?)
    }

    /// Keeps what was learned.
    ///
    /// # Errors
    ///
    /// When it could not be committed.
    pub async fn learn_surface(
        &self,
        fingerprint: String,
        server: &ServerName,
        surface: String,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let statement = sqlx::query(
            "INSERT INTO learned_surfaces (fingerprint, server, surface, learned_at) VALUES (?, ?, ?, ?)
             ON CONFLICT (fingerprint) DO UPDATE
             SET surface = excluded.surface, learned_at = excluded.learned_at",
        )
        .bind(fingerprint)
        .bind(server.as_str())
        .bind(surface)
        .bind(micros(now));
        self.writer().execute(statement).await
    }

    /// The tools of every server that said what they do, by server.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn learned_tools(&self) -> Result<Vec<(String, LearnedTool)>, StoreError> {
        let rows = sqlx::query("SELECT server, name, description FROM learned_tools ORDER BY server, name LIMIT ?")
            .bind(TOOLS_MAX)
            .fetch_all(self.readers())
            .await?;
        rows.iter()
            .map(|row| {
                let tool = LearnedTool { name: row.try_get("name")?, description: row.try_get("description")? };
                Ok((row.try_get("server")?, tool))
            })
            .collect()
    }

    /// Keeps what tools of a server do. Says whether that was not known.
    ///
    /// # Errors
    ///
    /// When it could not be committed.
    pub async fn learn_tools(
        &self,
        server: &ServerName,
        tools: Vec<LearnedTool>,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let known = self.learned_tools_of(server).await?;
        if tools.iter().all(|tool| known.contains(tool)) {
            return Ok(false);
        }
        let server = server.to_string();
        let now = micros(now);
        self.writer()
            .change(move |connection| {
                async move {
                    for tool in tools {
                        sqlx::query(
                            "INSERT INTO learned_tools (server, name, description, learned_at) VALUES (?, ?, ?, ?)
                             ON CONFLICT (server, name) DO UPDATE
                             SET description = excluded.description, learned_at = excluded.learned_at",
                        )
                        .bind(&server)
                        .bind(tool.name)
                        .bind(tool.description)
                        .bind(now)
                        .execute(&mut *connection)
                        .await?;
                    }
                    sqlx::query("DELETE FROM learned_tools WHERE server = ? AND learned_at < ?")
                        .bind(&server)
                        .bind(now - FORGOTTEN_AFTER_HOURS * 3_600_000_000)
                        .execute(connection)
                        .await?;
                    Ok(())
                }
                .boxed()
            })
            .await?;
        Ok(true)
    }

    async fn learned_tools_of(&self, server: &ServerName) -> Result<Vec<LearnedTool>, StoreError> {
        let rows = sqlx::query("SELECT name, description FROM learned_tools WHERE server = ?")
            .bind(server.as_str())
            .fetch_all(self.readers())
            .await?;
        let tool = |row: &sqlx::sqlite::SqliteRow| {
            Ok(LearnedTool { name: row.try_get("name")?, description: row.try_get("description")? })
        };
        rows.iter().map(tool).collect()
    }

    /// The shapes of results that were learned under `fingerprint`, as JSON, by tool.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn result_shapes(&self, fingerprint: &str) -> Result<Vec<(String, String)>, StoreError> {
        let rows = sqlx::query("SELECT tool, shape FROM result_shapes WHERE fingerprint = ?")
            .bind(fingerprint)
            .fetch_all(self.readers())
            .await?;
        rows.iter().map(|row| Ok((row.try_get("tool")?, row.try_get("shape")?))).collect()
    }

    /// Keeps the shape of a tool's results.
    ///
    /// # Errors
    ///
    /// When it could not be committed.
    pub async fn keep_result_shape(
        &self,
        fingerprint: String,
        server: &ServerName,
        tool: String,
        shape: String,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let statement = sqlx::query(
            "INSERT INTO result_shapes (fingerprint, tool, server, shape, learned_at) VALUES (?, ?, ?, ?, ?)
             ON CONFLICT (fingerprint, tool) DO UPDATE
             SET shape = excluded.shape, learned_at = excluded.learned_at",
        )
        .bind(fingerprint)
        .bind(tool)
        .bind(server.as_str())
        .bind(shape)
        .bind(micros(now));
        self.writer().execute(statement).await
    }
}
