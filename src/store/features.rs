//! Switches that were set by command.

use std::collections::BTreeMap;

use sqlx::Row as _;

use super::{Store, StoreError, micros};
use crate::clock::Timestamp;

impl Store {
    /// Every switch that was set, by name.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn features(&self) -> Result<BTreeMap<String, bool>, StoreError> {
        let rows = sqlx::query("SELECT name, enabled FROM features").fetch_all(self.readers()).await?;
        rows.iter().map(|row| Ok((row.try_get("name")?, row.try_get("enabled")?))).collect()
    }

    /// Keeps a switch.
    ///
    /// # Errors
    ///
    /// When it could not be committed.
    pub async fn set_feature(&self, name: &str, enabled: bool, now: Timestamp) -> Result<(), StoreError> {
        let statement = sqlx::query(
            "INSERT INTO features (name, enabled, set_at) VALUES (?, ?, ?)
             ON CONFLICT (name) DO UPDATE SET enabled = excluded.enabled, set_at = excluded.set_at",
        )
        .bind(name)
        .bind(enabled)
        .bind(micros(now));
        self.writer().execute(statement).await
    }
}
