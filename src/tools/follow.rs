//! Following resources.

use std::sync::Arc;

use super::{Tools, reach::key_of};
use crate::{caller::Caller, session::Session, store::subscriptions::SubscriptionRow, supervisor::State};

/// Ends following a resource when it is dropped.
pub struct Following {
    session: Arc<Session>,
    inner_uri: String,
}

impl Tools {
    /// Follows a resource for a client. The guard ends it; the row is what it takes to do so again.
    ///
    /// # Errors
    ///
    /// A sentence on why it cannot be followed.
    pub async fn follow(
        &self,
        session: &Arc<Session>,
        uri: &str,
        caller: &Caller,
    ) -> Result<(Following, SubscriptionRow), String> {
        let _unsettled = session.unsettled();
        let context = &self.context;
        let menu = context.menu(session, caller).await;
        let (server, inner_uri) = menu.resource_owner(uri).ok_or_else(|| format!("Resource not found: {uri}"))?;
        // Two who follow the same at once share one subscription.
        let lock = session.server_lock(&server);
        let _one_at_a_time = lock.lock().await;
        let subscription = if session.follows(&inner_uri) {
            None
        } else {
            let reached = context.reach(session, &server, caller).await.map_err(|error| error.to_string())?;
            Some(reached.upstream.subscribe(&inner_uri).await.map_err(|error| error.to_string())?)
        };
        session.follow(&inner_uri, &server, subscription);
        let following = Following { session: session.clone(), inner_uri: inner_uri.clone() };
        Ok((following, SubscriptionRow { uri: uri.to_owned(), server, inner_uri }))
    }

    /// Follows what a client followed before its connection was brought back. A server that does not run is asked when it
    /// starts. Nothing, if the server is not on any more.
    pub async fn follow_again(&self, session: &Arc<Session>, kept: SubscriptionRow) -> Option<Following> {
        session.server(&kept.server)?;
        let mut subscription = None;
        if !session.follows(&kept.inner_uri)
            && let Some(entry) = self.context.entry(session, &kept.server)
            && let Some(instance) = self.context.supervisor.get(&key_of(session, &entry))
            && let State::Ready(ready) = instance.state()
        {
            subscription = ready.0.subscribe(&kept.inner_uri).await.ok();
        }
        session.follow(&kept.inner_uri, &kept.server, subscription);
        Some(Following { session: session.clone(), inner_uri: kept.inner_uri })
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.session.unfollow(&self.inner_uri);
    }
}
