//! The table of calls, laid over a transport that decodes messages itself.
//!
//! Streamable HTTP is rmcp's own; this keeps its notifications in order and gives it back the lists that it could not
//! read for the sake of one item.

use std::sync::Arc;

use rmcp::{
    RoleClient,
    model::{
        ClientJsonRpcMessage, ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult, ListToolsResult,
        ServerJsonRpcMessage, ServerResult,
    },
    transport::Transport,
};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{
    calls::{Calls, Expected},
    decode, wire,
};

pub(crate) struct Tap<T> {
    inner: T,
    calls: Arc<Calls>,
    closed: CancellationToken,
    server: Arc<str>,
}

impl<T> Tap<T> {
    pub(crate) fn new(inner: T, calls: Arc<Calls>, closed: CancellationToken, server: Arc<str>) -> Self {
        Self { inner, calls, closed, server }
    }

    /// A message as rmcp is to see it, or nothing if it need not.
    fn passed(&self, message: ServerJsonRpcMessage) -> Option<ServerJsonRpcMessage> {
        match message {
            ServerJsonRpcMessage::Notification(mut notification) => {
                notification.notification = self.calls.notified(notification.notification)?;
                Some(ServerJsonRpcMessage::Notification(notification))
            }
            ServerJsonRpcMessage::Response(mut response) => {
                if let Some(expected) = self.calls.finished(&response.id) {
                    response.result = self.repaired(expected, response.result);
                }
                Some(ServerJsonRpcMessage::Response(response))
            }
            ServerJsonRpcMessage::Error(error) => {
                if let Some(id) = &error.id {
                    self.calls.finished(id);
                }
                Some(ServerJsonRpcMessage::Error(error))
            }
            request => Some(request),
        }
    }

    fn repaired(&self, expected: Expected, result: ServerResult) -> ServerResult {
        let ServerResult::CustomResult(custom) = result else {
            return result;
        };
        let server = self.server.as_ref();
        match expected {
            Expected::Tools => decode::repair(custom, "tools", server, |value: Value| {
                serde_json::from_value::<ListToolsResult>(value).map(ServerResult::ListToolsResult)
            }),
            Expected::Prompts => decode::repair(custom, "prompts", server, |value| {
                serde_json::from_value::<ListPromptsResult>(value).map(ServerResult::ListPromptsResult)
            }),
            Expected::Resources => decode::repair(custom, "resources", server, |value| {
                serde_json::from_value::<ListResourcesResult>(value).map(ServerResult::ListResourcesResult)
            }),
            Expected::ResourceTemplates => decode::repair(custom, "resourceTemplates", server, |value| {
                serde_json::from_value::<ListResourceTemplatesResult>(value)
                    .map(ServerResult::ListResourceTemplatesResult)
            }),
            _ => ServerResult::CustomResult(custom),
        }
    }
}

impl<T: Transport<RoleClient>> Transport<RoleClient> for Tap<T> {
    type Error = T::Error;

    fn send(&mut self, message: ClientJsonRpcMessage) -> impl Future<Output = Result<(), T::Error>> + Send + 'static {
        wire::note_sent(&message, &self.calls);
        self.inner.send(message)
    }

    async fn receive(&mut self) -> Option<ServerJsonRpcMessage> {
        loop {
            let Some(message) = self.inner.receive().await else {
                self.closed.cancel();
                return None;
            };
            if let Some(message) = self.passed(message) {
                return Some(message);
            }
        }
    }

    async fn close(&mut self) -> Result<(), T::Error> {
        self.closed.cancel();
        self.inner.close().await
    }
}
