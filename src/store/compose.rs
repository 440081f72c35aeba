//! Compose files that were agreed to, and their services that are servers of sessions.

use futures_util::FutureExt as _;
use sqlx::Row as _;

use super::{Store, StoreError, corrupt, micros, timestamp};
use crate::{clock::Timestamp, compose::Definition, ids::SessionId};

/// A Compose file that somebody agreed to.
#[derive(Debug, Clone)]
pub struct Consent {
    pub hash: String,
    pub file: String,
    pub agreed_at: Timestamp,
}

impl Store {
    /// Keeps that a person has agreed to a file.
    ///
    /// # Errors
    ///
    /// When it could not be committed.
    pub async fn put_consent(&self, hash: &str, file: &str, now: Timestamp) -> Result<(), StoreError> {
        let statement =
            sqlx::query("INSERT INTO compose_consents (hash, file, agreed_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING")
                .bind(hash.to_owned())
                .bind(file.to_owned())
                .bind(micros(now));
        self.writer().execute(statement).await
    }

    /// Forgets every consent to a file.
    ///
    /// # Errors
    ///
    /// When it could not be committed.
    pub async fn delete_consents(&self, file: &str) -> Result<(), StoreError> {
        let statement = sqlx::query("DELETE FROM compose_consents WHERE file = ?").bind(file.to_owned());
        self.writer().execute(statement).await
    }

    /// Every consent, the newest first.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn consents(&self) -> Result<Vec<Consent>, StoreError> {
        let rows = sqlx::query("SELECT * FROM compose_consents ORDER BY agreed_at DESC, file")
            .fetch_all(self.readers())
            .await?;
        rows.iter()
            .map(|row| {
                Ok(Consent {
                    hash: row.try_get("hash")?,
                    file: row.try_get("file")?,
                    agreed_at: timestamp(row.try_get("agreed_at")?),
                })
            })
            .collect()
    }

    /// Whether somebody agreed to what has that hash.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn has_consent(&self, hash: &str) -> Result<bool, StoreError> {
        let row = sqlx::query("SELECT 1 FROM compose_consents WHERE hash = ?")
            .bind(hash)
            .fetch_optional(self.readers())
            .await?;
        Ok(row.is_some())
    }

    /// Keeps the services that are servers of a session, in place of those that were.
    ///
    /// # Errors
    ///
    /// When it could not be committed.
    pub async fn put_session_compose(
        &self,
        session: &SessionId,
        definitions: Vec<Definition>,
    ) -> Result<(), StoreError> {
        let session = session.clone();
        self.writer()
            .change(move |connection| {
                async move {
                    sqlx::query("DELETE FROM session_compose WHERE session = ?")
                        .bind(session.as_str())
                        .execute(&mut *connection)
                        .await?;
                    for definition in definitions {
                        let kept = serde_json::to_string(&definition.without_secrets()).map_err(corrupt)?;
                        sqlx::query("INSERT INTO session_compose (session, server, definition) VALUES (?, ?, ?)")
                            .bind(session.as_str())
                            .bind(definition.name.as_str())
                            .bind(kept)
                            .execute(&mut *connection)
                            .await?;
                    }
                    Ok(())
                }
                .boxed()
            })
            .await
    }

    /// The services that are servers of a session, without the values that are secret.
    pub(super) async fn session_compose(&self, session: &SessionId) -> Result<Vec<Definition>, StoreError> {
        let rows = sqlx::query("SELECT definition FROM session_compose WHERE session = ? ORDER BY server")
            .bind(session.as_str())
            .fetch_all(self.readers())
            .await?;
        rows.iter().map(|row| serde_json::from_str(&row.try_get::<String, _>("definition")?).map_err(corrupt)).collect()
    }
}
