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
    decode,
    door::{Asides, Door},
    wire,
};

pub(crate) struct Tap<T> {
    inner: T,
    calls: Arc<Calls>,
    closed: CancellationToken,
    server: Arc<str>,
    door: Arc<Door>,
    /// What arrived past rmcp's transport, and is for rmcp.
    aside: Asides,
}

impl<T> Tap<T> {
    pub(crate) fn new(
        inner: T,
        calls: Arc<Calls>,
        closed: CancellationToken,
        server: Arc<str>,
        (door, aside): (Arc<Door>, Asides),
    ) -> Self {
        Self { inner, calls, closed, server, door, aside }
    }

    /// A message as rmcp is to see it, or nothing if it need not.
    fn passed(&self, message: ServerJsonRpcMessage) -> Option<ServerJsonRpcMessage> {
        let message = match message {
            ServerJsonRpcMessage::Response(mut response) => {
                if let Some(expected) = self.calls.finished(&response.id) {
                    response.result = self.repaired(expected, response.result);
                }
                if let ServerResult::ListToolsResult(list) = &response.result {
                    self.door.note_headers(&list.tools);
                }
                ServerJsonRpcMessage::Response(response)
            }
            ServerJsonRpcMessage::Error(error) => {
                if let Some(id) = &error.id {
                    self.calls.finished(id);
                }
                ServerJsonRpcMessage::Error(error)
            }
            other => other,
        };
        self.calls.arrived(message)
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
            let message = tokio::select! {
                message = self.inner.receive() => message,
                Some(message) = self.aside.recv() => return Some(message),
            };
            let Some(message) = message else {
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
