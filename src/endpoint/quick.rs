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
    CallToolRequestParams, CallToolResult, ClientCapabilities, ClientJsonRpcMessage, ClientNotification,
    InitializeRequestParams, ProtocolVersion, RequestId, RequestMetaObject, ResultType, ServerJsonRpcMessage,
    ServerResult,
};
use tokio_util::sync::CancellationToken;

use super::{
    Access, OWN, Who,
    attend::{self, Finished},
    client_name,
    parked::Running,
};
use crate::{
    caller::{Era, Link},
    ids::Principal,
    lifecycle::Tasks,
    mcp_headers,
    session::Session,
    tools::{Operation, Reply, Seat, Tools},
};

/// How long a call may take to be answered here. One that takes longer does not notice what a stream costs.
const AT_ONCE: Duration = Duration::from_millis(100);

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
pub struct HandedOver(Arc<Held>);

struct Held(Mutex<Option<Running>>);

/// A call on a connection, while its client waits for it. One that hangs up can still take it back.
struct Waiting<'a> {
    tasks: &'a Tasks,
    of: Option<(Running, Begun)>,
}

impl QuickCalls {
    #[must_use]
    pub fn new(tools: Tools) -> Arc<Self> {
        Arc::new(Self { tools, lines: Mutex::default() })
    }

    /// How large a request may be.
    #[must_use]
    pub fn request_bytes_max(&self) -> usize {
        self.tools.limits().request_bytes_max
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

    /// Begins a call on a connection. Not one that `access` may not make, that is for a connection which is asleep or
    /// closed, or that has anything of the newer era in it.
    pub async fn on_connection(&self, access: &Access, connection: &str, call: PlainCall) -> Option<Taken> {
        let line = self.line_of(connection)?;
        if !access.may_use(line.session.id(), &line.principal) {
            return None;
        }
        let PlainCall { id, mut params } = call;
        let meta = params.meta.take().unwrap_or_default();
        if is_a_further_round(&params) || meta.keys().any(|key| key.starts_with(OWN)) {
            return None;
        }
        let running = self.begin(line.who(), Seat::Fixed(line.session.clone()), &meta, params);
        let begun = line.note(id.clone(), running.cancelled.clone());
        let mut waiting = Waiting { tasks: self.tools.tasks(), of: Some((running, begun)) };
        let finished = waiting.at_once().await;
        let (running, begun) = waiting.of.take()?;
        if running.cancelled.is_cancelled() {
            return Some(Taken::TakenBack);
        }
        Some(self.taken(id, Era::Legacy, finished, running, Some(begun)))
    }

    /// Begins a call of revision 2026-07-28, which stands alone. Its client takes it back by hanging up. Not one whose
    /// arguments may have to be in headers too, which is not known of a tool that is not listed.
    pub async fn by_itself(&self, access: &Access, call: PlainCall) -> Option<Taken> {
        let PlainCall { id, mut params } = call;
        let meta = params.meta.take().unwrap_or_default();
        let revision = ProtocolVersion::V_2026_07_28;
        let is_whole =
            meta.protocol_version() == Some(revision.clone()) && meta.missing_required_keys(&revision).is_empty();
        let wants_headers =
            || access.tool(&self.tools, &params.name).is_none_or(|tool| mcp_headers::has_argument_headers(&tool));
        if !is_whole || is_a_further_round(&params) || wants_headers() {
            return None;
        }
        let who = Who {
            principal: access.principal().clone(),
            client: meta.client_info().map(|info| client_name(&info)),
            era: Era::Modern,
            capabilities: meta.client_capabilities().unwrap_or_default(),
            log_level: meta.log_level(),
        };
        let mut running = self.begin(who, access.seat(), &meta, params);
        let hung_up = running.cancelled.clone().drop_guard();
        let finished = at_once(&mut running).await;
        hung_up.disarm();
        Some(self.taken(id, Era::Modern, finished, running, None))
    }

    /// A connection is closed or asleep: no more calls on it.
    pub fn close(&self, connection: &str) {
        self.lines().remove(connection);
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
                Ok(Reply::CallToolResult(result)) if !running.side.is_ready() => {
                    return Taken::Answered(Box::new(answer(id, result, era)));
                }
                outcome => running.call = self.tools.tasks().spawn(async move { outcome }),
            }
        }
        Taken::Runs(HandedOver::new(running), begun)
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

fn answer(id: RequestId, mut result: CallToolResult, era: Era) -> ServerJsonRpcMessage {
    result.result_type = (era == Era::Modern).then_some(ResultType::COMPLETE);
    ServerJsonRpcMessage::response(ServerResult::CallToolResult(result), id)
}

/// Whether a call carries the answer to a question.
fn is_a_further_round(params: &CallToolRequestParams) -> bool {
    params.request_state.is_some() || params.input_responses.is_some()
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

impl Waiting<'_> {
    async fn at_once(&mut self) -> Option<Finished> {
        at_once(&mut self.of.as_mut()?.0).await
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some((Running { call, .. }, begun)) = self.of.take() {
            self.tasks.spawn(async move {
                let _ = call.await;
                drop(begun);
            });
        }
    }
}

impl HandedOver {
    fn new(running: Running) -> Self {
        Self(Arc::new(Held(Mutex::new(Some(running)))))
    }

    /// The call, for whoever looks after it from here on.
    pub(super) fn take(&self) -> Option<Running> {
        self.0.take()
    }
}

impl Held {
    fn take(&self) -> Option<Running> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Held {
    /// Where nobody took it over, its client is gone.
    fn drop(&mut self) {
        if let Some(running) = self.take() {
            running.cancelled.cancel();
        }
    }
}
