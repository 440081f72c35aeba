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
    ClientRequest, GetExtensions as _, GetMeta as _, LoggingLevel, LoggingMessageNotificationParam, ProgressToken,
    RequestId, ServerNotification,
};
use tokio::sync::{Notify, broadcast};

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
        let call = InFlight {
            expected: Expected::of(request),
            token: request.get_meta().get_progress_token(),
            behalf: request.extensions().get::<OnBehalfOf>().cloned(),
        };
        let mut table = self.table();
        if let Some(token) = &call.token {
            table.tokens.insert(token.clone(), id.clone());
        }
        if call.behalf.is_some() {
            table.order.push(id.clone());
        }
        table.calls.insert(id.clone(), call);
    }

    /// Forgets a request that was answered or taken back; says what it was waiting for.
    pub(crate) fn finished(&self, id: &RequestId) -> Option<Expected> {
        let mut table = self.table();
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

    /// Takes a notification off the wire. Gives back those that rmcp has to see.
    pub(crate) fn notified(&self, notification: ServerNotification) -> Option<ServerNotification> {
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
