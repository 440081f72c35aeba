//! A resource that a server reports changes of.

use rmcp::{
    Peer, RoleClient,
    model::{ClientRequest, UnsubscribeRequest, UnsubscribeRequestParams},
    service::PeerRequestOptions,
};
use tokio_util::sync::CancellationToken;

use super::upstream::SMALL_REQUEST;

/// Ends a resource subscription when it is dropped.
pub struct ResourceSubscription {
    peer: Peer<RoleClient>,
    uri: String,
    stop: Option<CancellationToken>,
}

impl ResourceSubscription {
    /// One that was asked for by `resources/subscribe`.
    pub(super) fn by_request(peer: Peer<RoleClient>, uri: &str) -> Self {
        Self { peer, uri: uri.to_owned(), stop: None }
    }

    /// One that is part of a `subscriptions/listen` that ends with `stop`.
    pub(super) fn by_listening(peer: Peer<RoleClient>, uri: &str, stop: CancellationToken) -> Self {
        Self { peer, uri: uri.to_owned(), stop: Some(stop) }
    }
}

impl Drop for ResourceSubscription {
    fn drop(&mut self) {
        if let Some(stop) = &self.stop {
            stop.cancel();
            return;
        }
        let (peer, uri) = (self.peer.clone(), std::mem::take(&mut self.uri));
        #[expect(clippy::disallowed_methods, reason = "one bounded request")]
        tokio::spawn(async move {
            let request =
                ClientRequest::UnsubscribeRequest(UnsubscribeRequest::new(UnsubscribeRequestParams::new(uri)));
            let options = PeerRequestOptions::with_timeout(SMALL_REQUEST);
            if let Ok(handle) = peer.send_request_with_option(request, options).await {
                let _ = handle.await_response().await;
            }
        });
    }
}
