//! Clients that are connected to a session, and can be asked things.

use std::sync::{Arc, atomic::Ordering};

use futures_util::future::BoxFuture;
use rmcp::{
    Peer, RoleServer,
    model::{
        ClientCapabilities, ClientResult, CreateMessageResult, ElicitResult, ErrorCode, ErrorData, InputRequest,
        ListRootsResult, ServerRequest,
    },
};
use serde_json::{Map, Value};

use super::Session;
use crate::{
    caller::{Caller, cannot_answer},
    ids::Principal,
    supervisor::Asker,
};

/// A connected client of a revision up to 2025-11-25, which can be asked things.
pub(super) struct Client {
    number: u64,
    peer: Peer<RoleServer>,
    capabilities: ClientCapabilities,
}

impl Session {
    /// Registers a connected client that can be asked things. It is forgotten when the guard is dropped.
    #[must_use]
    pub fn connect(self: &Arc<Self>, peer: Peer<RoleServer>, capabilities: ClientCapabilities) -> ConnectedClient {
        let number = self.client_numbers.fetch_add(1, Ordering::Relaxed);
        self.lock(&self.clients).push(Client { number, peer, capabilities });
        ConnectedClient { session: self.clone(), number }
    }

    /// How many clients are connected that can be pushed to.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.lock(&self.clients).len()
    }
}

impl Session {
    /// Whether a client is connected that can answer `request`.
    #[must_use]
    pub fn can_ask(&self, request: &InputRequest) -> bool {
        self.lock(&self.clients).iter().any(|client| can_answer(client, request))
    }
}

/// A question that belongs to no call goes to the client that connected last and can answer it.
impl Asker for Session {
    fn ask(&self, request: InputRequest) -> BoxFuture<'_, Result<Value, ErrorData>> {
        let able = self
            .lock(&self.clients)
            .iter()
            .rev()
            .find(|client| can_answer(client, &request))
            .map(|client| client.peer.clone());
        Box::pin(async move {
            match able {
                Some(peer) => ask_peer(&peer, request).await,
                None => Err(cannot_answer(&request)),
            }
        })
    }
}

fn can_answer(client: &Client, request: &InputRequest) -> bool {
    let mut caller = Caller::internal(Principal::Local);
    caller.capabilities = client.capabilities.clone();
    caller.can_answer(request)
}

/// Puts a question to a connected client of a revision up to 2025-11-25.
///
/// # Errors
///
/// What the client answers, or that it is gone.
pub async fn ask_peer(peer: &Peer<RoleServer>, request: InputRequest) -> Result<Value, ErrorData> {
    let request = match request {
        InputRequest::CreateMessage(request) => ServerRequest::CreateMessageRequest(request),
        InputRequest::Elicitation(request) => ServerRequest::ElicitRequest(request),
        InputRequest::ListRoots(request) => ServerRequest::ListRootsRequest(request),
        other => return Err(cannot_answer(&other)),
    };
    let answer = peer.send_request(request).await.map_err(|error| match error {
        rmcp::service::ServiceError::McpError(error) => error,
        other => ErrorData::new(ErrorCode::INTERNAL_ERROR, format!("the client did not answer: {other}"), None),
    })?;
    let value = match answer {
        ClientResult::CreateMessageResult(result) => serde_json::to_value::<CreateMessageResult>(*result),
        ClientResult::ElicitResult(result) => serde_json::to_value::<ElicitResult>(result),
        ClientResult::ListRootsResult(result) => serde_json::to_value::<ListRootsResult>(result),
        ClientResult::EmptyResult(_) => Ok(Value::Object(Map::new())),
        other => serde_json::to_value(other),
    };
    value.map_err(|error| ErrorData::new(ErrorCode::INTERNAL_ERROR, error.to_string(), None))
}

/// A connected client, until it is dropped.
pub struct ConnectedClient {
    session: Arc<Session>,
    number: u64,
}

impl Drop for ConnectedClient {
    fn drop(&mut self) {
        let number = self.number;
        self.session.lock(&self.session.clients).retain(|client| client.number != number);
    }
}
