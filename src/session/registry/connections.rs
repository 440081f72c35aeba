//! Connections of clients, and what each of them follows.

use super::Sessions;
use crate::store::{StoreError, connections::ConnectionRow, subscriptions::SubscriptionRow};

impl Sessions {
    /// Keeps a connection of a client of a revision up to 2025-11-25, so that it works after a restart.
    ///
    /// # Errors
    ///
    /// When it could not be committed.
    pub async fn put_connection(&self, id: &str, connection: ConnectionRow) -> Result<(), StoreError> {
        self.store.put_connection(id, connection, self.clock.now()).await
    }

    /// The connection with that `Mcp-Session-Id`.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn connection(&self, id: &str) -> Result<Option<ConnectionRow>, StoreError> {
        self.store.connection(id).await
    }

    /// Keeps that a connection's client follows a resource.
    ///
    /// # Errors
    ///
    /// When it could not be committed.
    pub async fn put_subscription(&self, connection: &str, row: SubscriptionRow) -> Result<(), StoreError> {
        self.store.put_subscription(connection, row).await
    }

    /// Forgets that a connection's client follows a resource.
    ///
    /// # Errors
    ///
    /// When it could not be committed.
    pub async fn delete_subscription(&self, connection: &str, uri: &str) -> Result<(), StoreError> {
        self.store.delete_subscription(connection, uri).await
    }

    /// What a connection's client follows.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn subscriptions(&self, connection: &str) -> Result<Vec<SubscriptionRow>, StoreError> {
        self.store.subscriptions(connection).await
    }

    /// Forgets a connection.
    ///
    /// # Errors
    ///
    /// When it could not be committed.
    pub async fn delete_connection(&self, id: &str) -> Result<(), StoreError> {
        self.store.delete_connection(id).await
    }
}
