//! When sessions end by themselves, and what is a session's alone.

use sqlx::Row as _;

use super::super::{Store, StoreError, corrupt, micros, timestamp};
use crate::{
    clock::Timestamp,
    ids::{ServerName, SessionId},
};

impl Store {
    /// Keeps when a session ends by itself. Says whether there is one that has not ended.
    ///
    /// # Errors
    ///
    /// When it could not be committed.
    pub async fn set_session_expiry(&self, id: &SessionId, at: Timestamp) -> Result<bool, StoreError> {
        let statement = sqlx::query("UPDATE sessions SET expires_at = ? WHERE id = ? AND ended_at IS NULL")
            .bind(micros(at))
            .bind(id.as_str());
        self.writer().changes_a_row(statement).await
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::Principal,
        lifecycle::Tasks,
        store::{
            Durability,
            sessions::{SessionKind, SessionRow},
        },
    };

    #[tokio::test]
    async fn a_session_whose_own_servers_cannot_be_kept_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (tasks, _crashes) = Tasks::new();
        let store = Store::open(folder.path(), Durability::default(), &tasks).await.unwrap();
        let row = || SessionRow {
            id: SessionId::random(),
            kind: SessionKind::Named,
            principal: Principal::Administrator,
            name: Some("one".to_owned()),
            token: None,
            created_at: Timestamp::UNIX_EPOCH,
            used_at: Timestamp::UNIX_EPOCH,
            expires_at: None,
            label: None,
            ended_at: None,
            end_reason: None,
        };
        let entries = |text: &str| vec![("github/a/b".parse().unwrap(), text.to_owned())];
        assert!(store.insert_session(row(), entries("[]")).await.is_err());
        assert_eq!(store.session_named("one").await.unwrap(), None);
        let kept = row();
        store.insert_session(kept.clone(), entries("{}")).await.unwrap();
        assert_eq!(store.session(&kept.id).await.unwrap().unwrap().entries, entries("{}"));
        store.close().await;
    }
}
