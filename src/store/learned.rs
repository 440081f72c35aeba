//! What servers said they offer, and what the results of their tools looked like.

use futures_util::FutureExt as _;
use sqlx::Row as _;

use super::{Store, StoreError, micros};
use crate::{clock::Timestamp, ids::ServerName};

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
        let server = server.to_string();
        self.writer()
            .change(move |connection| {
                async move {
                    sqlx::query(
                        "INSERT INTO learned_surfaces (fingerprint, server, surface, learned_at) VALUES (?, ?, ?, ?)
                         ON CONFLICT (fingerprint) DO UPDATE
                         SET surface = excluded.surface, learned_at = excluded.learned_at",
                    )
                    .bind(fingerprint)
                    .bind(server)
                    .bind(surface)
                    .bind(micros(now))
                    .execute(connection)
                    .await?;
                    Ok(())
                }
                .boxed()
            })
            .await
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
        let server = server.to_string();
        self.writer()
            .change(move |connection| {
                async move {
                    sqlx::query(
                        "INSERT INTO result_shapes (fingerprint, tool, server, shape, learned_at) VALUES (?, ?, ?, ?, ?)
                         ON CONFLICT (fingerprint, tool) DO UPDATE
                         SET shape = excluded.shape, learned_at = excluded.learned_at",
                    )
                    .bind(fingerprint)
                    .bind(tool)
                    .bind(server)
                    .bind(shape)
                    .bind(micros(now))
                    .execute(connection)
                    .await?;
                    Ok(())
                }
                .boxed()
            })
            .await
    }
}
