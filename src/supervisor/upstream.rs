//! A connection to one server, ready for use.
//!
//! [`Upstream::request`] sends one request on a caller's behalf and waits for its answer, with deadlines that progress puts
//! off. What the server asks meanwhile goes to that caller, if it declared that it can answer. A server of revision
//! 2026-07-28 asks by answering `input_required`; for a caller of an older revision the question is put here and the
//! request sent again, for a caller of the same revision that answer is passed on.
//!
//! Every call has room for the largest of what it may wait for, so what is large and rare is awaited in a box.

use std::{
    borrow::Cow,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rmcp::{
    Peer, RoleClient,
    model::{
        ClientCapabilities, ClientRequest, ErrorData, GetExtensions as _, Implementation, InputRequiredResult,
        InputResponses, LoggingLevel, RequestMetaObject, ServerPeerInfo, ServerResult, SetLevelRequest,
        SetLevelRequestParams, SubscribeRequest, SubscribeRequestParams, SubscriptionFilter,
    },
    service::{PeerRequestOptions, RunningService, ServiceError},
};
use serde_json::Value;
use tokio::{sync::broadcast, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    calls::{Activity, Calls, InstanceEvent, OnBehalfOf},
    direct::{Direct, Unanswered, Underway},
    questions::{Handler, in_time},
    subscription::ResourceSubscription,
    surface::Surface,
};
use crate::{
    caller::{Caller, Era, cannot_answer},
    config::Limits,
};

/// How often one call may be asked for more input before it is given up on.
const ROUNDS_MAX: usize = 16;

/// Requests that are not a call (lists, levels, subscriptions) get this long.
pub(super) const SMALL_REQUEST: Duration = Duration::from_secs(30);

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The server refused it, in the protocol's way.
    #[error("{}", .0.message)]
    Protocol(ErrorData),
    #[error("the connection to the server ended during the call")]
    Closed,
    #[error("the server ended the call's stream before the answer was on it")]
    BrokenOff,
    #[error("a message on the call's stream is longer than {0} bytes")]
    MessageTooLong(usize),
    #[error("the server neither answered nor reported progress for {} s", .0.as_secs())]
    Silent(Duration),
    #[error("the call took longer than {} s", .0.as_secs())]
    TooLong(Duration),
    #[error("the client cancelled the call")]
    Cancelled,
    #[error("the server asked for input more than {ROUNDS_MAX} times")]
    TooManyRounds,
    #[error("the server's answer is of another kind than was asked for")]
    UnexpectedAnswer,
    #[error("the request could not be sent: {0}")]
    Send(String),
}

/// One connection.
pub struct Upstream {
    peer: Peer<RoleClient>,
    service: Mutex<Option<RunningService<RoleClient, Handler>>>,
    era: Era,
    info: ServerPeerInfo,
    calls: Arc<Calls>,
    closed: CancellationToken,
    /// Where calls need not go through rmcp's client.
    direct: Option<Direct>,
    log_level: Mutex<Option<LoggingLevel>>,
    limits: Arc<Limits>,
}

impl Upstream {
    pub(crate) fn new(
        service: RunningService<RoleClient, Handler>,
        era: Era,
        (calls, closed): (Arc<Calls>, CancellationToken),
        direct: Option<Direct>,
        limits: Arc<Limits>,
    ) -> Result<Self, RequestError> {
        let peer = service.peer().clone();
        let info = peer.peer_info().ok_or(RequestError::UnexpectedAnswer)?;
        Ok(Self {
            info: (*info).clone(),
            peer,
            service: Mutex::new(Some(service)),
            era,
            calls,
            closed,
            direct,
            log_level: Mutex::new(None),
            limits,
        })
    }

    #[must_use]
    pub fn era(&self) -> Era {
        self.era
    }

    /// What the server said of itself.
    #[must_use]
    pub fn info(&self) -> &ServerPeerInfo {
        &self.info
    }

    /// What happens on this connection that is not for one call.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<InstanceEvent> {
        self.calls.events()
    }

    /// Completes when the connection has ended.
    pub async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// Ends the connection.
    pub async fn close(&self) {
        let service = self.service.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(service) = service {
            let _ = service.cancel().await;
        }
        self.closed.cancel();
    }

    /// Everything the server offers, all pages of it.
    ///
    /// # Errors
    ///
    /// When a list cannot be had.
    pub async fn surface(&self) -> Result<Surface, RequestError> {
        super::surface::read(self, self.limits.listed_max).await
    }

    /// Sends a request on `caller`'s behalf.
    ///
    /// # Errors
    ///
    /// When there is no answer, or the answer is a refusal.
    pub async fn request(&self, mut request: ClientRequest, caller: &Caller) -> Result<ServerResult, RequestError> {
        self.raise_log_level(caller).await;
        for _round in 0..ROUNDS_MAX {
            let result = self.request_once(&request, caller).await?;
            let ServerResult::InputRequiredResult(wanted) = result else {
                return Ok(result);
            };
            if caller.era == Era::Modern {
                return Ok(ServerResult::InputRequiredResult(wanted));
            }
            let (responses, state) = self.ask_all(wanted, caller).await?;
            answer_with(&mut request, responses, state);
        }
        Err(RequestError::TooManyRounds)
    }

    /// Sends a request of the broker's own.
    pub(crate) async fn small_request(&self, request: ClientRequest) -> Result<ServerResult, RequestError> {
        let options = PeerRequestOptions::with_timeout(SMALL_REQUEST);
        let handle = self.peer.send_request_with_option(request, options).await.map_err(sending)?;
        let answer = tokio::select! {
            biased;
            answer = handle.await_response() => answer,
            () = self.closed.cancelled() => return Err(RequestError::Closed),
        };
        answer.map_err(|error| match error {
            ServiceError::Timeout { timeout } => RequestError::Silent(timeout),
            other => service_error(other),
        })
    }

    async fn request_once(&self, request: &ClientRequest, caller: &Caller) -> Result<ServerResult, RequestError> {
        if self.closed.is_cancelled() {
            return Err(RequestError::Closed);
        }
        let mut meta = caller.request_meta();
        if self.era == Era::Modern {
            meta.set_client_capabilities(mirrored(&caller.capabilities));
            if let Some(level) = caller.log_level {
                meta.set_log_level(level);
            }
        }
        let direct = self.direct.as_ref();
        if let Some(underway) = direct.and_then(|direct| direct.begin(request, caller, self.era, &meta)) {
            match self.past_rmcp(underway, caller).await {
                Ok(result) => return Ok(result),
                Err(Unanswered::Failed(error)) => return Err(error),
                Err(Unanswered::NotRun) => {}
            }
        }
        Box::pin(self.through_rmcp(request.clone(), caller, meta)).await
    }

    async fn through_rmcp(
        &self,
        mut request: ClientRequest,
        caller: &Caller,
        meta: RequestMetaObject,
    ) -> Result<ServerResult, RequestError> {
        let behalf = OnBehalfOf::caller(caller);
        let activity = behalf.activity.clone();
        request.extensions_mut().insert(behalf);
        let mut options = PeerRequestOptions::no_options();
        options.meta = Some(meta);
        let mut handle = self.peer.send_request_with_option(request, options).await.map_err(sending)?;
        match self.in_bounds(&mut handle.rx, caller, &activity).await {
            Ok(Ok(answer)) => answer.map_err(service_error),
            Ok(Err(_)) | Err(RequestError::Closed) => Err(RequestError::Closed),
            Err(failure) => {
                let _ = handle.cancel(Some(failure.to_string())).await;
                Err(failure)
            }
        }
    }

    async fn past_rmcp(&self, mut underway: Underway, caller: &Caller) -> Result<ServerResult, Unanswered> {
        let activity = underway.activity();
        match self.in_bounds(underway.answer(), caller, &activity).await {
            Ok(answer) => {
                underway.over();
                answer
            }
            Err(RequestError::Closed) => Err(RequestError::Closed.into()),
            Err(failure) => {
                underway.take_back(&self.peer, failure.to_string()).await;
                Err(failure.into())
            }
        }
    }

    /// Waits for an answer as long as it may take, and says why not longer.
    async fn in_bounds<A>(
        &self,
        answer: impl Future<Output = A>,
        caller: &Caller,
        activity: &Activity,
    ) -> Result<A, RequestError> {
        let mut answer = std::pin::pin!(answer);
        let (silent_max, total_max) = (self.limits.call(), self.limits.call_total());
        let mut silent = std::pin::pin!(tokio::time::sleep(silent_max));
        let mut total = std::pin::pin!(tokio::time::sleep(total_max));
        loop {
            tokio::select! {
                biased;
                answer = &mut answer => return Ok(answer),
                () = self.closed.cancelled() => return Err(RequestError::Closed),
                () = caller.cancelled.cancelled() => return Err(RequestError::Cancelled),
                () = activity.next() => silent.as_mut().reset(Instant::now() + silent_max),
                () = &mut silent => {
                    if !activity.is_asking() {
                        return Err(RequestError::Silent(silent_max));
                    }
                    silent.as_mut().reset(Instant::now() + silent_max);
                }
                () = &mut total => return Err(RequestError::TooLong(total_max)),
            }
        }
    }

    async fn ask_all(
        &self,
        wanted: InputRequiredResult,
        caller: &Caller,
    ) -> Result<(InputResponses, Option<String>), RequestError> {
        let mut responses = InputResponses::new();
        for (key, request) in wanted.input_requests.into_iter().flatten() {
            if !caller.can_answer(&request) {
                return Err(RequestError::Protocol(cannot_answer(&request)));
            }
            let answer = Box::pin(self.in_time(caller.link.ask(request))).await.map_err(RequestError::Protocol)?;
            responses.insert(key, answer);
        }
        Ok((responses, wanted.request_state))
    }

    async fn in_time(&self, answer: impl Future<Output = Result<Value, ErrorData>>) -> Result<Value, ErrorData> {
        in_time(self.limits.question(), answer).await
    }

    /// Has a server of the older era send what the caller wants to see. It knows one level, for everybody.
    async fn raise_log_level(&self, caller: &Caller) {
        let Some(level) = caller.log_level.filter(|_| self.era == Era::Legacy) else {
            return;
        };
        let current = *self.log_level.lock().unwrap_or_else(PoisonError::into_inner);
        if current.is_none_or(|current| super::calls::severity(level) < super::calls::severity(current)) {
            self.set_log_level(level).await;
        }
    }

    /// Sets the level of the log messages a server of the older era sends. One that has none is left alone.
    pub async fn set_log_level(&self, level: LoggingLevel) {
        if self.era == Era::Modern || self.info.capabilities.logging.is_none() {
            return;
        }
        let request = ClientRequest::SetLevelRequest(SetLevelRequest::new(SetLevelRequestParams::new(level)));
        match Box::pin(self.small_request(request)).await {
            Ok(_) => *self.log_level.lock().unwrap_or_else(PoisonError::into_inner) = Some(level),
            Err(error) => tracing::debug!(%error, "a server did not take a log level"),
        }
    }

    /// Has the server report changes of a resource, for as long as the returned guard lives.
    ///
    /// # Errors
    ///
    /// When the server refuses.
    pub async fn subscribe(&self, uri: &str) -> Result<ResourceSubscription, RequestError> {
        match self.era {
            Era::Legacy => {
                let params = SubscribeRequestParams::new(uri);
                Box::pin(self.small_request(ClientRequest::SubscribeRequest(SubscribeRequest::new(params)))).await?;
                Ok(ResourceSubscription::by_request(self.peer.clone(), uri))
            }
            Era::Modern => {
                let filter = SubscriptionFilter::builder().resource_subscription(uri).build();
                let stop = self.listen(filter).await?;
                Ok(ResourceSubscription::by_listening(self.peer.clone(), uri, stop))
            }
        }
    }

    /// Keeps a `subscriptions/listen` open until the returned token is cancelled. What it brings arrives as events.
    pub(crate) async fn listen(&self, filter: SubscriptionFilter) -> Result<CancellationToken, RequestError> {
        let stop = CancellationToken::new();
        let mut subscription = tokio::time::timeout(SMALL_REQUEST, Box::pin(self.peer.listen(filter)))
            .await
            .map_err(|_| RequestError::Silent(SMALL_REQUEST))?
            .map_err(service_error)?;
        let (stopped, closed) = (stop.clone(), self.closed.clone());
        #[expect(clippy::disallowed_methods, reason = "ends with its subscription or its connection")]
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = stopped.cancelled() => break,
                    () = closed.cancelled() => break,
                    next = subscription.next() => if !matches!(next, Ok(Some(_))) { break },
                }
            }
            let _ = subscription.cancel().await;
        });
        Ok(stop)
    }

    /// Tells a server of the older era that the client's roots have changed.
    pub async fn notify_roots_changed(&self) {
        if self.era == Era::Legacy {
            let _ = self.peer.notify_roots_list_changed().await;
        }
    }
}

/// Capabilities that are declared to a server on behalf of a client that has `capabilities`.
///
/// Tasks are left out: the broker does not pass them on.
#[must_use]
pub fn mirrored(capabilities: &ClientCapabilities) -> ClientCapabilities {
    let mut mirrored = ClientCapabilities::default();
    mirrored.roots.clone_from(&capabilities.roots);
    mirrored.sampling.clone_from(&capabilities.sampling);
    mirrored.elicitation.clone_from(&capabilities.elicitation);
    mirrored.extensions.clone_from(&capabilities.extensions);
    if let Some(extensions) = &mut mirrored.extensions {
        extensions.retain(|name, _| name != rmcp::model::TASKS_EXTENSION_ID);
    }
    mirrored
}

/// What the broker calls itself towards servers.
#[must_use]
pub fn implementation() -> Implementation {
    Implementation::new("mcp-broker", env!("CARGO_PKG_VERSION")).with_title("mcp-broker")
}

fn answer_with(request: &mut ClientRequest, responses: InputResponses, state: Option<String>) {
    match request {
        ClientRequest::CallToolRequest(call) => {
            call.params.input_responses = Some(responses);
            call.params.request_state = state;
        }
        ClientRequest::GetPromptRequest(get) => {
            get.params.input_responses = Some(responses);
            get.params.request_state = state;
        }
        ClientRequest::ReadResourceRequest(read) => {
            read.params.input_responses = Some(responses);
            read.params.request_state = state;
        }
        _ => {}
    }
}

fn sending(error: ServiceError) -> RequestError {
    match error {
        ServiceError::TransportClosed => RequestError::Closed,
        other => RequestError::Send(other.to_string()),
    }
}

fn service_error(error: ServiceError) -> RequestError {
    match error {
        ServiceError::McpError(error) => RequestError::Protocol(error),
        ServiceError::TransportClosed => RequestError::Closed,
        ServiceError::TransportSend(error) => RequestError::Send(chain(&error)),
        ServiceError::Cancelled { .. } => RequestError::Cancelled,
        ServiceError::Timeout { timeout } => RequestError::Silent(timeout),
        _ => RequestError::UnexpectedAnswer,
    }
}

/// An error with everything that caused it, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text: Cow<'_, str> = error.to_string().into();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}").into();
        }
        source = cause.source();
    }
    text.into_owned()
}
