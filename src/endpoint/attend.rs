//! Looking after a call while it runs: what it reports and asks goes to the client, what the client says goes to it.
//!
//! The call itself runs in a task of its own, so that a client that hangs up cannot leave its record open.

use rmcp::{
    RoleServer,
    model::{
        ErrorData, InputResponses, ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult,
        ListToolsResult, ResultType,
    },
    service::RequestContext,
};

use super::{Endpoint, era_of};
use crate::{
    caller::{Caller, ClientSide, Era, Link, Question, Report},
    endpoint::{
        parked::{Parked, Resumed, Running},
        quick::HandedOver,
    },
    ids::canonical,
    session::ask_peer,
    tools::{Call, Operation, Reply, Seat, Tools},
};

/// Runs an operation for a client, or takes up one that waits for its answer.
pub(super) async fn run(
    endpoint: &Endpoint,
    operation: Operation,
    context: RequestContext<RoleServer>,
) -> Result<Reply, ErrorData> {
    let what = what(&operation);
    let request = context.extensions.get::<http::request::Parts>();
    let running = match request.and_then(|request| request.extensions.get::<HandedOver>()?.take()) {
        Some(running) => running,
        None => match take_up(endpoint, operation, &context, &what)? {
            Resumed::AskedAgain(asked) => return Ok(Reply::InputRequiredResult(asked)),
            Resumed::Running(running) => running,
        },
    };
    attend(endpoint, running, &context, what).await
}

/// Takes up what waits for this request's answer, or begins something new.
fn take_up(
    endpoint: &Endpoint,
    operation: Operation,
    context: &RequestContext<RoleServer>,
    what: &str,
) -> Result<Resumed, ErrorData> {
    let (seat, principal) = endpoint.seat(context)?;
    if let (Some(state), responses) = rounds(&operation)
        && Parked::is_name(state)
    {
        return endpoint.parked.resume(state, responses, &principal, what);
    }
    let (link, side) = Link::new();
    let caller = endpoint.caller(context, &seat, principal, link);
    Ok(Resumed::Running(begin(&endpoint.tools, seat, caller, operation, side)))
}

/// Begins a call. It runs to its end, attended to or not.
pub(super) fn begin(tools: &Tools, seat: Seat, caller: Caller, operation: Operation, side: ClientSide) -> Running {
    let cancelled = caller.cancelled.clone();
    let door = tools.clone();
    let call = tools.tasks().spawn(async move { door.dispatch(Call { seat, caller, operation, parent: None }).await });
    Running { call, side, cancelled }
}

async fn attend(
    endpoint: &Endpoint,
    mut running: Running,
    context: &RequestContext<RoleServer>,
    what: String,
) -> Result<Reply, ErrorData> {
    let mut taken_back = false;
    loop {
        let report = tokio::select! {
            biased;
            report = running.side.next() => report,
            finished = &mut running.call => return finish(finished, &mut running.side, context).await,
            () = context.ct.cancelled(), if !taken_back => {
                taken_back = true;
                running.cancelled.cancel();
                continue;
            }
        };
        match report {
            Some(Report::Question(question)) if era_of(context) == Era::Modern => {
                let (_, principal) = endpoint.seat(context)?;
                return endpoint.parked.park(running, question, principal, what).map(Reply::InputRequiredResult);
            }
            Some(Report::Question(question)) => {
                if let Some(finished) = ask(question, &mut running, context).await {
                    return finish(finished, &mut running.side, context).await;
                }
            }
            Some(report) => pass_on(report, context).await,
            None => {
                let finished = (&mut running.call).await;
                return finish(finished, &mut running.side, context).await;
            }
        }
    }
}

/// What came of a call's task.
pub(super) type Finished = Result<Result<Reply, ErrorData>, tokio::task::JoinError>;

/// Asks a client of an older revision. The call may end before the client answers.
async fn ask(question: Question, running: &mut Running, context: &RequestContext<RoleServer>) -> Option<Finished> {
    tokio::select! {
        answer = ask_peer(&context.peer, question.request) => {
            let _ = question.answer.send(answer);
            None
        }
        finished = &mut running.call => Some(finished),
        () = context.ct.cancelled() => {
            running.cancelled.cancel();
            None
        }
    }
}

async fn finish(
    finished: Finished,
    side: &mut ClientSide,
    context: &RequestContext<RoleServer>,
) -> Result<Reply, ErrorData> {
    while let Some(report) = side.ready() {
        pass_on(report, context).await;
    }
    outcome(finished)
}

/// What came of a call.
pub(super) fn outcome(finished: Finished) -> Result<Reply, ErrorData> {
    finished.unwrap_or_else(|error| {
        tracing::error!(%error, "a call's task ended by itself");
        Err(ErrorData::internal_error("the call ended by an error in the broker: see its log", None))
    })
}

/// Reports arrive in the order in which the server sent them, and are passed on in that order.
async fn pass_on(report: Report, context: &RequestContext<RoleServer>) {
    let passed = match report {
        Report::Progress(mut progress) => match context.meta.get_progress_token() {
            Some(token) => {
                progress.progress_token = token;
                context.peer.notify_progress(progress).await
            }
            None => Ok(()),
        },
        Report::Log(message) => context.peer.notify_logging_message(message).await,
        Report::Question(_) => Ok(()),
    };
    if let Err(error) = passed {
        tracing::debug!(%error, "a client did not take a notification");
    }
}

/// What identifies a request, so that a parked call is only taken up by the same one.
fn what(operation: &Operation) -> String {
    match operation {
        Operation::Tool(params) | Operation::Management(_, params) | Operation::PutOn(params) => {
            let arguments = params.arguments.as_ref().map(canonical).unwrap_or_default();
            format!("tool {} {arguments}", params.name)
        }
        Operation::Prompt(params) => {
            let arguments = params.arguments.as_ref().map(canonical).unwrap_or_default();
            format!("prompt {} {arguments}", params.name)
        }
        Operation::Resource(params) => format!("resource {}", params.uri),
        Operation::Completion(_) => "completion".to_owned(),
    }
}

fn rounds(operation: &Operation) -> (Option<&str>, Option<&InputResponses>) {
    match operation {
        Operation::Tool(params) | Operation::Management(_, params) | Operation::PutOn(params) => {
            (params.request_state.as_deref(), params.input_responses.as_ref())
        }
        Operation::Prompt(params) => (params.request_state.as_deref(), params.input_responses.as_ref()),
        Operation::Resource(params) => (params.request_state.as_deref(), params.input_responses.as_ref()),
        Operation::Completion(_) => (None, None),
    }
}

/// A reply in the form its client's era has for it.
pub(super) fn shaped(mut reply: Reply, era: Era) -> Reply {
    match (&mut reply, era) {
        (Reply::CallToolResult(result), Era::Modern) => result.result_type = Some(ResultType::COMPLETE),
        (Reply::GetPromptResult(result), Era::Modern) => result.result_type = Some(ResultType::COMPLETE),
        (Reply::ReadResourceResult(result), Era::Modern) => result.result_type = Some(ResultType::COMPLETE),
        (Reply::CompleteResult(result), Era::Modern) => result.result_type = Some(ResultType::COMPLETE),
        (Reply::ReadResourceResult(result), Era::Legacy) => {
            result.ttl_ms = None;
            result.cache_scope = None;
        }
        _ => {}
    }
    reply
}

/// A list that says it is complete, for clients that have to be told.
pub(super) fn complete<L: HasResultType>(mut list: L, era: Era) -> L {
    if era == Era::Modern {
        list.set_result_type(ResultType::COMPLETE);
    }
    list
}

pub(super) trait HasResultType {
    fn set_result_type(&mut self, result_type: ResultType);
}

macro_rules! has_result_type {
    ($($list:ty),*) => {
        $(impl HasResultType for $list {
            fn set_result_type(&mut self, result_type: ResultType) {
                self.result_type = Some(result_type);
            }
        })*
    };
}

has_result_type!(ListToolsResult, ListPromptsResult, ListResourcesResult, ListResourceTemplatesResult);
