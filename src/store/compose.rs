//! Compose files that were agreed to, and their services that are servers of sessions.

use futures_util::FutureExt as _;
use sqlx::Row as _;

use super::{
    SealedSecret, Store, StoreError, corrupt, micros, secrets,
    sessions::{self, SessionServerRow},
    timestamp,
};
use crate::{
    clock::Timestamp,
    compose::Definition,
    ids::{ServerName, SessionId},
};

/// A Compose file that somebody agreed to.
#[derive(Debug, Clone)]
pub struct Consent {
    pub hash: String,
    pub file: String,
    pub agreed_at: Timestamp,
}

/// What changes in a session that takes the services of a Compose file.
pub struct TakenServices {
    pub definitions: Vec<Definition>,
    /// The servers that they are.
    pub servers: Vec<SessionServerRow>,
    /// Values that came from elsewhere than the file.
    pub secrets: Vec<SealedSecret>,
    /// Names of secrets that no service has any more.
    pub forgotten: Vec<String>,
    /// Servers that were services, and are not any more.
    pub gone: Vec<ServerName>,
    pub at: Timestamp,
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

    /// Keeps the services that are servers of a session, in place of those that were: all that belongs to it, or nothing.
    ///
    /// # Errors
    ///
    /// When it could not be committed.
    pub async fn take_compose(&self, session: &SessionId, taken: TakenServices) -> Result<(), StoreError> {
        let session = session.clone();
        self.writer()
            .change(move |connection| {
                async move {
                    let mut statements =
                        vec![sqlx::query("DELETE FROM session_compose WHERE session = ?").bind(session.to_string())];
                    for definition in taken.definitions {
                        let kept = serde_json::to_string(&definition.without_secrets()).map_err(corrupt)?;
                        let insert = "INSERT INTO session_compose (session, server, definition) VALUES (?, ?, ?)";
                        let row = sqlx::query(insert).bind(session.to_string()).bind(definition.name.to_string());
                        statements.push(row.bind(kept));
                    }
                    statements.extend(taken.forgotten.iter().map(|name| secrets::forget(session.as_str(), name)));
                    statements.extend(taken.secrets.into_iter().map(|secret| secrets::put(secret, taken.at)));
                    statements.extend(taken.gone.iter().flat_map(|server| sessions::forget_server(&session, server)));
                    statements.extend(taken.servers.iter().map(|server| sessions::put_server(&session, server)));
                    for statement in statements {
                        statement.execute(&mut *connection).await?;
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
