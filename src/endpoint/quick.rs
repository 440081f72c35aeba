//! Tool calls over HTTP that are over at once and say nothing meanwhile.
//!
//! rmcp hands a request from task to task and back: in the older era to answer it with a stream that can be resumed, in the
//! newer one to serve it as a connection of its own. A call that has nothing but an answer needs none of it, so it is begun
//! here. What is not over after [`AT_ONCE`], has something to report or to ask, or fails as a request, is handed to rmcp as
//! it runs, and goes on there.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use rmcp::model::{
    CallToolRequestParams, ClientCapabilities, ClientJsonRpcMessage, ClientNotification, InitializeRequestParams,
    ProtocolVersion, RequestId, RequestMetaObject, ServerJsonRpcMessage, ServerResult, Tool,
};
use tokio_util::sync::CancellationToken;

use super::{
    Access, Who,
    attend::{self, Finished},
    client_name,
    parked::Running,
};
use crate::{
    caller::{Era, Link},
    ids::Principal,
    session::Session,
    tools::{Operation, Reply, Seat, Tools},
};

/// How long a call may take to be answered here. One that takes longer does not notice what a stream costs.
const AT_ONCE: Duration = Duration::from_millis(20);

/// Where calls are begun.
pub struct QuickCalls {
    tools: Tools,
    /// By `Mcp-Session-Id`.
    lines: Mutex<HashMap<Arc<str>, Weak<Line>>>,
}

/// A tool call as its client wrote it. Its `_meta` is in its params.
pub struct PlainCall {
    pub id: RequestId,
    pub params: CallToolRequestParams,
}

/// A connection of a client of a revision up to 2025-11-25, and its calls.
pub(super) struct Line {
    all: Arc<QuickCalls>,
    id: Arc<str>,
    session: Arc<Session>,
    principal: Principal,
    client: Arc<str>,
    capabilities: ClientCapabilities,
    /// Calls that rmcp does not know of, to be cancelled.
    calls: Mutex<HashMap<RequestId, CancellationToken>>,
}

/// What came of a call.
pub enum Taken {
    Answered(Box<ServerJsonRpcMessage>),
    /// Its client took it back, so nothing is to be answered.
    TakenBack,
    /// It runs, for rmcp to look after. Until rmcp has it, its client can take it back through what comes with it.
    Runs(HandedOver, Option<Begun>),
}

/// A call that its client can take back for as long as this exists.
pub struct Begun {
    line: Arc<Line>,
    id: RequestId,
}

/// A call that runs already, on its way through rmcp with its HTTP request.
#[derive(Clone)]
pub struct HandedOver(Arc<Mutex<Option<Running>>>);

impl QuickCalls {
    #[must_use]
    pub fn new(tools: Tools) -> Arc<Self> {
        Arc::new(Self { tools, lines: Mutex::default() })
    }

    /// Takes in a connection's client, whose calls can come for as long as the line exists.
    pub(super) fn line(
        self: &Arc<Self>,
        id: Arc<str>,
        session: Arc<Session>,
        principal: Principal,
        client: &InitializeRequestParams,
    ) -> Arc<Line> {
        let line = Arc::new(Line {
            all: self.clone(),
            id: id.clone(),
            session,
            principal,
            client: client_name(&client.client_info),
            capabilities: client.capabilities.clone(),
            calls: Mutex::default(),
        });
        self.lines().insert(id, Arc::downgrade(&line));
        line
    }

    /// Begins a call on a connection; gives it back where that is not possible.
    ///
    /// # Errors
    ///
    /// The call, when the connection is asleep, or the call is not of its era.
    pub async fn on_connection(&self, connection: &str, mut call: PlainCall) -> Result<Taken, PlainCall> {
        let Some(line) = self.line_of(connection).filter(|_| !is_a_further_round(&call)) else { return Err(call) };
        let meta = call.params.meta.take().unwrap_or_default();
        if meta.protocol_version().is_some() {
            call.params.meta = Some(meta);
            return Err(call);
        }
        let mut running = self.begin(line.who(), Seat::Fixed(line.session.clone()), &meta, call.params);
        let begun = line.note(call.id.clone(), running.cancelled.clone());
        let finished = at_once(&mut running).await;
        if running.cancelled.is_cancelled() {
            return Ok(Taken::TakenBack);
        }
        Ok(self.taken(call.id, Era::Legacy, finished, running, Some(begun)))
    }

    /// Begins a call of revision 2026-07-28, which stands alone. Its client takes it back by hanging up.
    ///
    /// # Errors
    ///
    /// The call, when rmcp has to see it first.
    pub async fn by_itself(&self, access: &Access, mut call: PlainCall) -> Result<Taken, PlainCall> {
        let meta = call.params.meta.take().unwrap_or_default();
        let revision = ProtocolVersion::V_2026_07_28;
        let is_whole =
            meta.protocol_version() == Some(revision.clone()) && meta.missing_required_keys(&revision).is_empty();
        let wants_headers = || access.tool(&self.tools, &call.params.name).is_some_and(|tool| wants_headers(&tool));
        if !is_whole || is_a_further_round(&call) || wants_headers() {
            call.params.meta = Some(meta);
            return Err(call);
        }
        let who = Who {
            principal: access.principal().clone(),
            client: meta.client_info().map(|info| client_name(&info)),
            era: Era::Modern,
            capabilities: meta.client_capabilities().unwrap_or_default(),
            log_level: meta.log_level(),
        };
        let mut running = self.begin(who, access.seat(), &meta, call.params);
        let hung_up = running.cancelled.clone().drop_guard();
        let finished = at_once(&mut running).await;
        hung_up.disarm();
        Ok(self.taken(call.id, Era::Modern, finished, running, None))
    }

    /// Takes a call back if that is what the message says.
    pub fn cancel(&self, connection: &str, message: &ClientJsonRpcMessage) {
        let ClientJsonRpcMessage::Notification(notification) = message else { return };
        let ClientNotification::CancelledNotification(cancelled) = &notification.notification else { return };
        let Some(id) = &cancelled.params.request_id else { return };
        if let Some(call) = self.line_of(connection).and_then(|line| line.calls().get(id).cloned()) {
            call.cancel();
        }
    }

    fn begin(&self, who: Who, seat: Seat, meta: &RequestMetaObject, params: CallToolRequestParams) -> Running {
        let (link, side) = Link::new();
        attend::begin(&self.tools, seat, who.caller(meta, link), Operation::Tool(Box::new(params)), side)
    }

    fn taken(
        &self,
        id: RequestId,
        era: Era,
        finished: Option<Finished>,
        mut running: Running,
        begun: Option<Begun>,
    ) -> Taken {
        if let Some(finished) = finished {
            match attend::outcome(finished) {
                Ok(reply @ Reply::CallToolResult(_)) if !running.side.is_ready() => {
                    return Taken::Answered(Box::new(answer(id, reply, era)));
                }
                outcome => running.call = self.tools.tasks().spawn(async move { outcome }),
            }
        }
        Taken::Runs(HandedOver(Arc::new(Mutex::new(Some(running)))), begun)
    }

    fn line_of(&self, connection: &str) -> Option<Arc<Line>> {
        self.lines().get(connection).and_then(Weak::upgrade)
    }

    fn lines(&self) -> MutexGuard<'_, HashMap<Arc<str>, Weak<Line>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What came of a call, if it is over soon and has nothing to say before.
async fn at_once(running: &mut Running) -> Option<Finished> {
    let report = tokio::select! {
        biased;
        report = running.side.next() => report,
        finished = &mut running.call => return Some(finished),
        () = tokio::time::sleep(AT_ONCE) => return None,
    };
    match report {
        Some(report) => {
            running.side.give_back(report);
            None
        }
        // It is about to end.
        None => Some((&mut running.call).await),
    }
}

fn answer(id: RequestId, reply: Reply, era: Era) -> ServerJsonRpcMessage {
    match attend::shaped(reply, era) {
        Reply::CallToolResult(mut result) => {
            if era == Era::Legacy {
                result.result_type = None;
            }
            ServerJsonRpcMessage::response(ServerResult::CallToolResult(result), id)
        }
        _ => ServerJsonRpcMessage::error(super::errors::wrong_kind(), Some(id)),
    }
}

/// Whether a call carries the answer to a question.
fn is_a_further_round(call: &PlainCall) -> bool {
    call.params.request_state.is_some() || call.params.input_responses.is_some()
}

/// Whether a tool's arguments are to be in headers too (SEP-2243).
fn wants_headers(tool: &Tool) -> bool {
    tool.input_schema.values().any(is_annotated)
}

fn is_annotated(schema: &serde_json::Value) -> bool {
    match schema {
        serde_json::Value::Object(parts) => parts.contains_key("x-mcp-header") || parts.values().any(is_annotated),
        serde_json::Value::Array(parts) => parts.iter().any(is_annotated),
        _ => false,
    }
}

impl Line {
    fn who(&self) -> Who {
        Who {
            principal: self.principal.clone(),
            client: Some(self.client.clone()),
            era: Era::Legacy,
            capabilities: self.capabilities.clone(),
            log_level: self.session.log_level(),
        }
    }

    fn note(self: Arc<Self>, id: RequestId, cancelled: CancellationToken) -> Begun {
        self.calls().insert(id.clone(), cancelled);
        Begun { line: self, id }
    }

    fn calls(&self) -> MutexGuard<'_, HashMap<RequestId, CancellationToken>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let mut lines = self.all.lines();
        // A connection that was brought back meanwhile has another line.
        if lines.get(&self.id).is_some_and(|line| line.strong_count() == 0) {
            lines.remove(&self.id);
        }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.line.calls().remove(&self.id);
    }
}

impl HandedOver {
    /// The call, for whoever looks after it from here on.
    pub(super) fn take(&self) -> Option<Running> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for HandedOver {
    /// Where nobody took it over, its client is gone.
    fn drop(&mut self) {
        if Arc::strong_count(&self.0) == 1
            && let Some(running) = self.take()
        {
            running.cancelled.cancel();
        }
    }
}
