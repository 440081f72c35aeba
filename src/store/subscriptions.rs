//! Resources that clients of revisions up to 2025-11-25 follow.

use sqlx::Row as _;

use super::{Store, StoreError, corrupt};
use crate::ids::ServerName;

/// A resource that a connection's client follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionRow {
    /// As the client names it.
    pub uri: String,
    pub server: ServerName,
    /// As the server names it.
    pub inner_uri: String,
}

impl Store {
    /// Keeps that a connection's client follows a resource.
    ///
    /// # Errors
    ///
    /// When it could not be committed, for one because there is no such connection.
    pub async fn put_subscription(&self, connection: &str, row: SubscriptionRow) -> Result<(), StoreError> {
        let statement = sqlx::query(
            "INSERT INTO subscriptions (connection, uri, server, inner_uri) VALUES (?, ?, ?, ?)
             ON CONFLICT (connection, uri) DO UPDATE
             SET server = excluded.server, inner_uri = excluded.inner_uri",
        )
        .bind(connection)
        .bind(row.uri)
        .bind(row.server.as_str())
        .bind(row.inner_uri);
        self.writer().execute(statement).await
    }

    /// Forgets that a connection's client follows a resource.
    ///
    /// # Errors
    ///
    /// When it could not be committed.
    pub async fn delete_subscription(&self, connection: &str, uri: &str) -> Result<(), StoreError> {
        let statement =
            sqlx::query("DELETE FROM subscriptions WHERE connection = ? AND uri = ?").bind(connection).bind(uri);
        self.writer().execute(statement).await
    }

    /// What a connection's client follows.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn subscriptions(&self, connection: &str) -> Result<Vec<SubscriptionRow>, StoreError> {
        let rows = sqlx::query("SELECT uri, server, inner_uri FROM subscriptions WHERE connection = ? ORDER BY uri")
            .bind(connection)
            .fetch_all(self.readers())
            .await?;
        rows.iter()
            .map(|row| {
                Ok(SubscriptionRow {
                    uri: row.try_get("uri")?,
                    server: row.try_get::<String, _>("server")?.parse().map_err(corrupt)?,
                    inner_uri: row.try_get("inner_uri")?,
                })
            })
            .collect()
    }
}
