//! Requests that are not answered yet. The broker does not stop before they are: a call that has ended is not done while
//! its answer is still on its way to the client.

use std::collections::HashMap;

use axum::{
    body::{Body, HttpBody as _},
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use http::Method;
use http_body_util::BodyExt as _;
use rmcp::{
    RoleServer,
    model::{ClientNotification, ClientRequest, JsonRpcMessage, RequestId},
    service::{RxJsonRpcMessage, TxJsonRpcMessage},
    transport::Transport,
};

use crate::{
    lifecycle::{Count, Counted},
    mcp_headers,
};

/// Counts a request until its answer has been written. A stream that a client only listens on is no request.
pub(super) async fn count(State(unanswered): State<Count>, request: Request, next: Next) -> Response {
    let listens = request.headers().get(mcp_headers::METHOD).is_some_and(|method| method == "subscriptions/listen");
    if request.method() != Method::POST || listens {
        return next.run(request).await;
    }
    let counted = unanswered.one_more();
    let response = next.run(request).await;
    if response.body().is_end_stream() {
        return response;
    }
    response.map(|body| {
        // The closure lives as long as the body, and this adapter leaves the body's length known.
        Body::new(body.map_err(move |error| {
            let _ = &counted;
            error
        }))
    })
}

/// The same for a stream of messages.
pub(super) struct Answering<T> {
    inner: T,
    unanswered: Count,
    waiting: HashMap<RequestId, Counted>,
}

impl<T> Answering<T> {
    pub(super) fn new(inner: T, unanswered: Count) -> Self {
        Self { inner, unanswered, waiting: HashMap::new() }
    }
}

impl<T: Transport<RoleServer>> Transport<RoleServer> for Answering<T> {
    type Error = T::Error;

    fn send(
        &mut self,
        message: TxJsonRpcMessage<RoleServer>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send + 'static {
        let answered = match &message {
            JsonRpcMessage::Response(response) => self.waiting.remove(&response.id),
            JsonRpcMessage::Error(error) => error.id.as_ref().and_then(|id| self.waiting.remove(id)),
            JsonRpcMessage::Request(_) | JsonRpcMessage::Notification(_) => None,
        };
        let sending = self.inner.send(message);
        async move {
            let sent = sending.await;
            drop(answered);
            sent
        }
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        let message = self.inner.receive().await?;
        match &message {
            JsonRpcMessage::Request(request) => {
                if !matches!(request.request, ClientRequest::SubscriptionsListenRequest(_)) {
                    self.waiting.insert(request.id.clone(), self.unanswered.one_more());
                }
            }
            // What is taken back is not answered any more.
            JsonRpcMessage::Notification(notification) => {
                if let ClientNotification::CancelledNotification(cancelled) = &notification.notification
                    && let Some(id) = &cancelled.params.request_id
                {
                    self.waiting.remove(id);
                }
            }
            JsonRpcMessage::Response(_) | JsonRpcMessage::Error(_) => {}
        }
        Some(message)
    }

    async fn close(&mut self) -> Result<(), Self::Error> {
        self.waiting.clear();
        self.inner.close().await
    }
}
