//! Sealed secrets. This module sees ciphertext only.

use sqlx::{Row as _, sqlite::SqliteRow};

use super::{Store, StoreError, corrupt, micros, writer::Statement};
use crate::clock::Timestamp;

/// A secret as it is kept.
#[derive(Debug, Clone)]
pub struct SealedSecret {
    /// The session it is for, or empty for every session.
    pub scope: String,
    pub name: String,
    pub nonce: [u8; 24],
    pub ciphertext: Vec<u8>,
}

impl Store {
    /// Keeps a secret, replacing one of the same scope and name.
    ///
    /// # Errors
    ///
    /// When it could not be committed.
    pub async fn put_secret(&self, secret: SealedSecret, now: Timestamp) -> Result<(), StoreError> {
        self.writer().execute(put(secret, now)).await
    }

    /// Every secret, sealed, by scope and name.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn secrets(&self) -> Result<Vec<SealedSecret>, StoreError> {
        let rows = sqlx::query("SELECT scope, name, nonce, ciphertext FROM secrets ORDER BY scope, name")
            .fetch_all(self.readers())
            .await?;
        rows.iter().map(sealed).collect()
    }

    /// Forgets a secret.
    ///
    /// # Errors
    ///
    /// When it could not be committed.
    pub async fn delete_secret(&self, scope: &str, name: &str) -> Result<(), StoreError> {
        self.writer().execute(forget(scope, name)).await
    }
}

pub(super) fn put(secret: SealedSecret, now: Timestamp) -> Statement {
    sqlx::query(
        "INSERT INTO secrets (scope, name, nonce, ciphertext, set_at) VALUES (?, ?, ?, ?, ?)
         ON CONFLICT (scope, name) DO UPDATE
         SET nonce = excluded.nonce, ciphertext = excluded.ciphertext, set_at = excluded.set_at",
    )
    .bind(secret.scope)
    .bind(secret.name)
    .bind(secret.nonce.to_vec())
    .bind(secret.ciphertext)
    .bind(micros(now))
}

pub(super) fn forget(scope: &str, name: &str) -> Statement {
    sqlx::query("DELETE FROM secrets WHERE scope = ? AND name = ?").bind(scope.to_owned()).bind(name.to_owned())
}

fn sealed(row: &SqliteRow) -> Result<SealedSecret, StoreError> {
    let nonce: Vec<u8> = row.try_get("nonce")?;
    Ok(SealedSecret {
        scope: row.try_get("scope")?,
        name: row.try_get("name")?,
        nonce: nonce.try_into().map_err(|_| corrupt("a secret's nonce is not 24 bytes"))?,
        ciphertext: row.try_get("ciphertext")?,
    })
}
