//! Resources that clients of a session follow.

use tokio::sync::watch;

use super::Session;
use crate::{ids::ServerName, supervisor::subscription::ResourceSubscription};

/// A resource that clients of the session follow.
pub(super) struct Subscribed {
    followers: usize,
    pub(super) server: ServerName,
    _subscription: Option<ResourceSubscription>,
}

impl Session {
    /// Notes that a subscription is being made, until the guard is dropped.
    ///
    /// A client of revision 2026-07-28 is told that it is subscribed before its servers are; calls it makes wait until they
    /// are, so that it misses nothing that they cause.
    #[must_use]
    pub fn unsettled(&self) -> Unsettled<'_> {
        self.settling.send_modify(|making| *making += 1);
        Unsettled(&self.settling)
    }

    /// Completes when no subscription is being made.
    pub async fn settled(&self) {
        if *self.settling.borrow() > 0 {
            let _ = self.settling.subscribe().wait_for(|making| *making == 0).await;
        }
    }

    /// Follows a resource for one more client. The first one's subscription is kept for all.
    pub fn follow(&self, uri: &str, server: &ServerName, subscription: Option<ResourceSubscription>) {
        let mut subscriptions = self.lock(&self.subscriptions);
        let subscribed = subscriptions.entry(uri.to_owned()).or_insert_with(|| Subscribed {
            followers: 0,
            server: server.clone(),
            _subscription: subscription,
        });
        subscribed.followers += 1;
    }

    /// Whether a resource is followed already.
    #[must_use]
    pub fn follows(&self, uri: &str) -> bool {
        self.lock(&self.subscriptions).contains_key(uri)
    }

    /// Follows a resource for one client less.
    pub fn unfollow(&self, uri: &str) {
        let mut subscriptions = self.lock(&self.subscriptions);
        if let Some(subscribed) = subscriptions.get_mut(uri) {
            subscribed.followers -= 1;
            if subscribed.followers == 0 {
                subscriptions.remove(uri);
            }
        }
    }

    /// The resources of a server that are followed, so that a new instance of it can be asked for them.
    #[must_use]
    pub fn followed(&self, server: &ServerName) -> Vec<String> {
        let subscriptions = self.lock(&self.subscriptions);
        subscriptions
            .iter()
            .filter(|(_, subscribed)| subscribed.server == *server)
            .map(|(uri, _)| uri.clone())
            .collect()
    }

    /// Puts a new instance's subscription in the place of a lost one.
    pub fn refollow(&self, uri: &str, subscription: ResourceSubscription) {
        if let Some(subscribed) = self.lock(&self.subscriptions).get_mut(uri) {
            subscribed._subscription = Some(subscription);
        }
    }
}

/// A subscription that is being made, until it is dropped.
pub struct Unsettled<'a>(&'a watch::Sender<usize>);

impl Drop for Unsettled<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|making| *making -= 1);
    }
}
