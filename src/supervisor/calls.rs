//! The calls in flight on one connection to a server, and what arrives for them.
//!
//! rmcp hands every notification to a task of its own, so progress can overtake progress and arrive after the answer. Here
//! notifications are taken off the wire in the order in which they came, before rmcp sees them: progress goes to the call
//! whose token it carries, log messages and changes to whoever listens to the instance.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use rmcp::model::{
    ClientRequest, ErrorData, GetExtensions as _, GetMeta as _, LoggingLevel, LoggingMessageNotificationParam,
    ProgressToken, RequestId, ServerJsonRpcMessage, ServerNotification, ServerResult,
};
use tokio::sync::{Notify, broadcast, oneshot};

use crate::caller::{Caller, Era, Link, Report};

/// Events that a slow listener may be behind by; one that is further behind has to look at everything again.
const EVENTS_MAX: usize = 256;

/// Something about an instance that concerns more than one call.
#[derive(Debug, Clone)]
pub enum InstanceEvent {
    ToolsChanged,
    PromptsChanged,
    ResourcesChanged,
    ResourceUpdated(String),
    Log(LoggingMessageNotificationParam),
}

/// Which kind of answer a request is waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    Initialize,
    Discover,
    Tools,
    Prompts,
    Resources,
    ResourceTemplates,
    ToolCall,
    Prompt,
    Resource,
    Completion,
    Listen,
    Empty,
    Other,
}

impl Expected {
    fn of(request: &ClientRequest) -> Self {
        match request {
            ClientRequest::InitializeRequest(_) => Self::Initialize,
            ClientRequest::DiscoverRequest(_) => Self::Discover,
            ClientRequest::ListToolsRequest(_) => Self::Tools,
            ClientRequest::ListPromptsRequest(_) => Self::Prompts,
            ClientRequest::ListResourcesRequest(_) => Self::Resources,
            ClientRequest::ListResourceTemplatesRequest(_) => Self::ResourceTemplates,
            ClientRequest::CallToolRequest(_) => Self::ToolCall,
            ClientRequest::GetPromptRequest(_) => Self::Prompt,
            ClientRequest::ReadResourceRequest(_) => Self::Resource,
            ClientRequest::CompleteRequest(_) => Self::Completion,
            ClientRequest::SubscriptionsListenRequest(_) => Self::Listen,
            ClientRequest::PingRequest(_)
            | ClientRequest::SetLevelRequest(_)
            | ClientRequest::SubscribeRequest(_)
            | ClientRequest::UnsubscribeRequest(_) => Self::Empty,
            _ => Self::Other,
        }
    }
}

/// Travels with a request to the wire and says whose call it is.
#[derive(Debug, Clone)]
pub(crate) struct OnBehalfOf {
    pub(crate) link: Link,
    pub(crate) era: Era,
    pub(crate) log_level: Option<LoggingLevel>,
    pub(crate) capabilities: rmcp::model::ClientCapabilities,
    pub(crate) activity: Arc<Activity>,
}

impl OnBehalfOf {
    pub(crate) fn caller(caller: &Caller) -> Self {
        Self {
            link: caller.link.clone(),
            era: caller.era,
            log_level: caller.log_level,
            capabilities: caller.capabilities.clone(),
            activity: Arc::default(),
        }
    }
}

/// Signs of life of a call, which put its deadline off.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    progressed: Notify,
    questions: AtomicUsize,
}

impl Activity {
    /// Completes at the next sign of life.
    pub(crate) async fn next(&self) {
        self.progressed.notified().await;
    }

    /// Whether the call waits for a person's answer.
    pub(crate) fn is_asking(&self) -> bool {
        self.questions.load(Ordering::Relaxed) > 0
    }

    /// Notes that the call asks, until the guard is dropped.
    pub(crate) fn asking(self: &Arc<Self>) -> AskingGuard {
        self.questions.fetch_add(1, Ordering::Relaxed);
        AskingGuard(self.clone())
    }
}

pub(crate) struct AskingGuard(Arc<Activity>);

impl Drop for AskingGuard {
    fn drop(&mut self) {
        self.0.questions.fetch_sub(1, Ordering::Relaxed);
        self.0.progressed.notify_one();
    }
}

struct InFlight {
    expected: Expected,
    token: Option<ProgressToken>,
    behalf: Option<OnBehalfOf>,
}

#[derive(Default)]
struct Table {
    calls: HashMap<RequestId, InFlight>,
    tokens: HashMap<ProgressToken, RequestId>,
    /// Ids in the order in which they were sent; the last one is the likeliest to have caused something unattributed.
    order: Vec<RequestId>,
    /// Who waits for the answers to requests that rmcp does not know of.
    waiting: HashMap<RequestId, oneshot::Sender<Result<ServerResult, ErrorData>>>,
}

/// The calls in flight on one connection.
pub(crate) struct Calls {
    table: Mutex<Table>,
    events: broadcast::Sender<InstanceEvent>,
}

impl Calls {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { table: Mutex::default(), events: broadcast::Sender::new(EVENTS_MAX) })
    }

    /// What happens on this connection that is not for one call.
    pub(crate) fn events(&self) -> broadcast::Receiver<InstanceEvent> {
        self.events.subscribe()
    }

    /// Notes a request before its bytes go out, so that nothing can arrive for it unknown.
    pub(crate) fn sent(&self, request: &ClientRequest, id: &RequestId) {
        self.note(request, id, request.extensions().get::<OnBehalfOf>().cloned());
    }

    fn note(&self, request: &ClientRequest, id: &RequestId, behalf: Option<OnBehalfOf>) {
        let (expected, token) = (Expected::of(request), request.get_meta().get_progress_token());
        let call = InFlight { expected, token, behalf };
        let mut table = self.table();
        if let Some(token) = &call.token {
            table.tokens.insert(token.clone(), id.clone());
        }
        if call.behalf.is_some() {
            table.order.push(id.clone());
        }
        table.calls.insert(id.clone(), call);
    }

    /// Notes a request that rmcp is not to know of.
    pub(crate) fn sent_past_rmcp(
        self: &Arc<Self>,
        request: &ClientRequest,
        id: RequestId,
        behalf: OnBehalfOf,
    ) -> Waiting {
        let (sender, answer) = oneshot::channel();
        self.note(request, &id, Some(behalf));
        self.table().waiting.insert(id.clone(), sender);
        Waiting { calls: self.clone(), id, answer }
    }

    /// Whether somebody other than rmcp waits for this answer.
    pub(crate) fn is_awaited(&self, id: &RequestId) -> bool {
        self.table().waiting.contains_key(id)
    }

    /// Takes a message off the wire, once it is decoded. Gives back those that rmcp has to see.
    pub(crate) fn arrived(&self, message: ServerJsonRpcMessage) -> Option<ServerJsonRpcMessage> {
        match message {
            ServerJsonRpcMessage::Notification(mut notification) => {
                notification.notification = self.notified(notification.notification)?;
                Some(ServerJsonRpcMessage::Notification(notification))
            }
            ServerJsonRpcMessage::Response(response) => match self.waiting(Some(&response.id)) {
                Some(waiting) => {
                    let _ = waiting.send(Ok(response.result));
                    None
                }
                None => Some(ServerJsonRpcMessage::Response(response)),
            },
            ServerJsonRpcMessage::Error(error) => match self.waiting(error.id.as_ref()) {
                Some(waiting) => {
                    let _ = waiting.send(Err(error.error));
                    None
                }
                None => Some(ServerJsonRpcMessage::Error(error)),
            },
            request @ ServerJsonRpcMessage::Request(_) => Some(request),
        }
    }

    fn waiting(&self, id: Option<&RequestId>) -> Option<oneshot::Sender<Result<ServerResult, ErrorData>>> {
        let id = id?;
        let mut table = self.table();
        table.waiting.remove(id).or_else(|| table.waiting.remove(&as_number(id)?))
    }

    /// Forgets a request that was answered or taken back; says what it was waiting for.
    pub(crate) fn finished(&self, id: &RequestId) -> Option<Expected> {
        let mut table = self.table();
        let number = if table.calls.contains_key(id) { None } else { as_number(id) };
        let id = number.as_ref().unwrap_or(id);
        let call = table.calls.remove(id)?;
        if let Some(token) = &call.token {
            table.tokens.remove(token);
        }
        table.order.retain(|other| other != id);
        Some(call.expected)
    }

    /// On whose behalf the server asks something: the call whose stream it came on, or the only one in flight.
    pub(crate) fn asked_by(&self, origin: Option<&RequestId>) -> Attribution {
        let table = self.table();
        if let Some(call) = origin.and_then(|id| table.calls.get(id)) {
            return call.behalf.clone().map_or(Attribution::Nobody, |behalf| Attribution::Call(Box::new(behalf)));
        }
        match table.order.as_slice() {
            [] => Attribution::Nobody,
            [only] => table
                .calls
                .get(only)
                .and_then(|call| call.behalf.clone())
                .map_or(Attribution::Nobody, |behalf| Attribution::Call(Box::new(behalf))),
            several => Attribution::Ambiguous(several.len()),
        }
    }

    fn notified(&self, notification: ServerNotification) -> Option<ServerNotification> {
        match notification {
            ServerNotification::ProgressNotification(progress) => {
                self.progressed(progress.params);
                None
            }
            ServerNotification::LoggingMessageNotification(log) => {
                self.logged(log.params);
                None
            }
            ServerNotification::ToolListChangedNotification(_) => self.event(InstanceEvent::ToolsChanged),
            ServerNotification::PromptListChangedNotification(_) => self.event(InstanceEvent::PromptsChanged),
            ServerNotification::ResourceListChangedNotification(_) => self.event(InstanceEvent::ResourcesChanged),
            ServerNotification::ResourceUpdatedNotification(update) => {
                self.event(InstanceEvent::ResourceUpdated(update.params.uri))
            }
            other => Some(other),
        }
    }

    fn progressed(&self, progress: rmcp::model::ProgressNotificationParam) {
        let table = self.table();
        let call = table.tokens.get(&progress.progress_token).and_then(|id| table.calls.get(id));
        if let Some(behalf) = call.and_then(|call| call.behalf.as_ref()) {
            behalf.activity.progressed.notify_one();
            behalf.link.report(Report::Progress(progress));
        }
    }

    fn logged(&self, message: LoggingMessageNotificationParam) {
        {
            let table = self.table();
            let asked = table.order.iter().rev().filter_map(|id| table.calls.get(id)?.behalf.as_ref()).find(|behalf| {
                behalf.era == Era::Modern
                    && behalf.log_level.is_some_and(|level| severity(message.level) >= severity(level))
            });
            if let Some(behalf) = asked {
                behalf.link.report(Report::Log(message.clone()));
            }
        }
        self.event(InstanceEvent::Log(message));
    }

    fn event(&self, event: InstanceEvent) -> Option<ServerNotification> {
        let _ = self.events.send(event);
        None
    }

    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The number that a server has made a string of: some do with all ids.
fn as_number(id: &RequestId) -> Option<RequestId> {
    match id {
        RequestId::String(text) => text.parse().ok().map(RequestId::Number),
        RequestId::Number(_) => None,
    }
}

/// Whether a server may mean the request `id` by `given`.
pub(crate) fn is_same(given: &RequestId, id: &RequestId) -> bool {
    given == id || as_number(given).as_ref() == Some(id)
}

/// A request that rmcp does not know of. It is forgotten when this is dropped.
pub(crate) struct Waiting {
    calls: Arc<Calls>,
    id: RequestId,
    answer: oneshot::Receiver<Result<ServerResult, ErrorData>>,
}

impl Waiting {
    pub(crate) fn id(&self) -> &RequestId {
        &self.id
    }

    /// Its answer; nothing if there can be none any more.
    pub(crate) async fn answer(&mut self) -> Option<Result<ServerResult, ErrorData>> {
        (&mut self.answer).await.ok()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.calls.waiting(Some(&self.id));
        self.calls.finished(&self.id);
    }
}

/// Whose call a server's question belongs to.
pub(crate) enum Attribution {
    Call(Box<OnBehalfOf>),
    /// No call is in flight.
    Nobody,
    /// So many are, and the protocol has no field that says which.
    Ambiguous(usize),
}

/// RFC 5424's order, least severe first.
#[must_use]
pub fn severity(level: LoggingLevel) -> u8 {
    match level {
        LoggingLevel::Debug => 0,
        LoggingLevel::Info => 1,
        LoggingLevel::Notice => 2,
        LoggingLevel::Warning => 3,
        LoggingLevel::Error => 4,
        LoggingLevel::Critical => 5,
        LoggingLevel::Alert => 6,
        LoggingLevel::Emergency => 7,
    }
}
