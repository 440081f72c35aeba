//! What a server asks the broker as its client, and who answers: the call that it asks for, or the session.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::future::BoxFuture;
use rmcp::{
    ClientHandler, RoleClient,
    model::{
        CancelledNotificationParam, ClientCapabilities, ClientConfig, CreateMessageRequest, CreateMessageRequestParams,
        CreateMessageResult, ElicitRequest, ElicitRequestParams, ElicitResult, ErrorCode, ErrorData, InputRequest,
        ListRootsRequest, ListRootsResult, RequestId,
    },
    service::{InboundStreamOrigin, NotificationContext, RequestContext},
};
use serde_json::Value;

use super::{
    calls::{Attribution, Calls},
    upstream::implementation,
};
use crate::caller::{Caller, cannot_answer};

/// Somebody who can be asked what belongs to no call: a session, through a client that is connected to it.
pub trait Asker: Send + Sync {
    fn ask(&self, request: InputRequest) -> BoxFuture<'_, Result<Value, ErrorData>>;
}

/// The broker, as the client of a server.
pub(crate) struct Handler {
    pub(crate) capabilities: ClientCapabilities,
    pub(crate) calls: Arc<Calls>,
    pub(crate) asker: Weak<dyn Asker>,
    pub(crate) question_max: Duration,
}

impl Handler {
    async fn question<T: serde::de::DeserializeOwned>(
        &self,
        request: InputRequest,
        context: &RequestContext<RoleClient>,
    ) -> Result<T, ErrorData> {
        let origin = match context.extensions.get::<InboundStreamOrigin>() {
            Some(InboundStreamOrigin::OutboundRequest(id)) => Some(id.clone()),
            _ => None,
        };
        let answer = self.route(request, origin.as_ref()).await?;
        serde_json::from_value(answer).map_err(|error| {
            ErrorData::new(ErrorCode::INTERNAL_ERROR, format!("the client's answer has the wrong form: {error}"), None)
        })
    }

    async fn route(&self, request: InputRequest, origin: Option<&RequestId>) -> Result<Value, ErrorData> {
        match self.calls.asked_by(origin) {
            Attribution::Call(behalf) => {
                if !can_answer(&behalf.capabilities, &request) {
                    return Err(cannot_answer(&request));
                }
                let _asking = behalf.activity.asking();
                in_time(self.question_max, behalf.link.ask(request)).await
            }
            Attribution::Nobody => match self.asker.upgrade() {
                Some(asker) => in_time(self.question_max, asker.ask(request)).await,
                None => Err(cannot_answer(&request)),
            },
            Attribution::Ambiguous(calls) => {
                let message = format!(
                    "{calls} calls are in flight on this server and the question does not say which it belongs to: \
                     call one at a time"
                );
                Err(ErrorData::new(ErrorCode::INVALID_REQUEST, message, None))
            }
        }
    }
}

fn can_answer(capabilities: &ClientCapabilities, request: &InputRequest) -> bool {
    let mut caller = Caller::internal(crate::ids::Principal::Local);
    caller.capabilities = capabilities.clone();
    caller.can_answer(request)
}

/// An answer within `limit`, or an error that says so.
pub(super) async fn in_time(
    limit: Duration,
    answer: impl Future<Output = Result<Value, ErrorData>>,
) -> Result<Value, ErrorData> {
    tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| {
        let message = format!("nobody answered within {} s", limit.as_secs());
        Err(ErrorData::new(ErrorCode::INTERNAL_ERROR, message, None))
    })
}

impl ClientHandler for Handler {
    fn get_info(&self) -> ClientConfig {
        ClientConfig::new(self.capabilities.clone(), implementation())
    }

    async fn create_message(
        &self,
        params: CreateMessageRequestParams,
        context: RequestContext<RoleClient>,
    ) -> Result<CreateMessageResult, ErrorData> {
        self.question(InputRequest::CreateMessage(CreateMessageRequest::new(params)), &context).await
    }

    async fn list_roots(&self, context: RequestContext<RoleClient>) -> Result<ListRootsResult, ErrorData> {
        self.question(InputRequest::ListRoots(ListRootsRequest::default()), &context).await
    }

    async fn create_elicitation(
        &self,
        params: ElicitRequestParams,
        context: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        self.question(InputRequest::Elicitation(ElicitRequest::new(params)), &context).await
    }

    async fn on_cancelled(&self, _: CancelledNotificationParam, _: NotificationContext<RoleClient>) {}
}
