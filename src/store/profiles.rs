//! Profiles and their servers.

use futures_util::FutureExt as _;
use serde_json::Value;
use sqlx::Row as _;

use super::{Store, StoreError, corrupt, micros, sessions::Activation};
use crate::{
    clock::Timestamp,
    profiles::{Profile, ProfileName, ProfileServer},
};

impl Store {
    /// The names of all profiles.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn profile_names(&self) -> Result<Vec<String>, StoreError> {
        let rows = sqlx::query("SELECT name FROM profiles ORDER BY name").fetch_all(self.readers()).await?;
        rows.iter().map(|row| Ok(row.try_get("name")?)).collect()
    }

    /// Every profile, by name.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn profiles(&self) -> Result<Vec<Profile>, StoreError> {
        let mut profiles = Vec::new();
        for name in self.profile_names().await? {
            profiles.extend(self.profile(&name.parse().map_err(corrupt)?).await?);
        }
        Ok(profiles)
    }

    /// The profile of that name.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn profile(&self, name: &ProfileName) -> Result<Option<Profile>, StoreError> {
        // One statement, so that nobody sees a profile without its servers.
        let rows = sqlx::query(
            "SELECT profiles.name, description, server, config, activate
             FROM profiles LEFT JOIN profile_servers ON profile = name WHERE name = ? ORDER BY position",
        )
        .bind(name.as_str())
        .fetch_all(self.readers())
        .await?;
        let Some(first) = rows.first() else { return Ok(None) };
        let mut profile = Profile {
            name: first.try_get::<String, _>("name")?.parse().map_err(corrupt)?,
            description: first.try_get("description")?,
            servers: Vec::new(),
        };
        for row in &rows {
            let Some(server) = row.try_get::<Option<String>, _>("server")? else { continue };
            let activate: Value = serde_json::from_str(&row.try_get::<String, _>("activate")?).map_err(corrupt)?;
            profile.servers.push(ProfileServer {
                name: server.parse().map_err(corrupt)?,
                config: serde_json::from_str(&row.try_get::<String, _>("config")?).map_err(corrupt)?,
                tools: Activation::from_value(&activate).ok_or_else(|| corrupt("a profile's choice of tools"))?,
            });
        }
        Ok(Some(profile))
    }

    /// Keeps a profile with its servers. Says whether it did: not if there is one of that name.
    ///
    /// # Errors
    ///
    /// When it could not be committed.
    pub async fn insert_profile(&self, profile: Profile, now: Timestamp) -> Result<bool, StoreError> {
        let (told, inserted) = tokio::sync::oneshot::channel();
        self.writer()
            .change(move |connection| {
                async move {
                    let done = sqlx::query(
                        "INSERT INTO profiles (name, description, created_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                    )
                    .bind(profile.name.as_str())
                    .bind(profile.description)
                    .bind(micros(now))
                    .execute(&mut *connection)
                    .await?;
                    let is_new = done.rows_affected() == 1;
                    for (position, server) in profile.servers.into_iter().enumerate().filter(|_| is_new) {
                        sqlx::query(
                            "INSERT INTO profile_servers (profile, server, position, config, activate)
                             VALUES (?, ?, ?, ?, ?)",
                        )
                        .bind(profile.name.as_str())
                        .bind(server.name.as_str())
                        .bind(i64::try_from(position).unwrap_or(i64::MAX))
                        .bind(Value::Object(server.config).to_string())
                        .bind(server.tools.to_value().to_string())
                        .execute(&mut *connection)
                        .await?;
                    }
                    let _ = told.send(is_new);
                    Ok(())
                }
                .boxed()
            })
            .await?;
        Ok(inserted.await.unwrap_or(false))
    }

    /// Forgets a profile.
    ///
    /// # Errors
    ///
    /// When it could not be committed.
    pub async fn delete_profile(&self, name: &ProfileName) -> Result<(), StoreError> {
        let name = name.clone();
        self.writer()
            .change(move |connection| {
                async move {
                    for forget in
                        ["DELETE FROM profile_servers WHERE profile = ?", "DELETE FROM profiles WHERE name = ?"]
                    {
                        sqlx::query(forget).bind(name.as_str()).execute(&mut *connection).await?;
                    }
                    Ok(())
                }
                .boxed()
            })
            .await
    }
}
