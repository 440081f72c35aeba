//! The one door.

use std::{borrow::Cow, panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt as _;
use rmcp::model::{
    CallToolRequest, CallToolRequestParams, ClientRequest, CompleteRequest, ErrorData, GetPromptRequest,
    GetPromptRequestParams, InputResponses, JsonObject, ReadResourceRequest, ReadResourceRequestParams,
    ResourceContents,
};

use super::{
    Call, Context, ManagementTool, Operation, Reply, Seat, Tools, add, code_mode, config_set,
    explain::{explained, explained_failure},
    failure::Failure,
    find, list, profiles, remove,
    rounds::Binding,
    route::{Routed, Target, unknown_resource},
};
use crate::{
    audit::{OpenRecord, Outcome, Status, Subject},
    caller::Caller,
    features::Feature,
    ids::{CallId, ServerName, SessionId, canonical},
    lifecycle::Counted,
    session::{Session, menu::MenuTool},
    supervisor::{Gone, RequestError, upstream::chain},
};

impl Tools {
    /// Runs one call between its two audit records.
    ///
    /// If the opening event cannot be committed the call is refused: nothing happens here that the log was not told about.
    /// The closing event is committed before this answers; if it cannot be, the answer says so. Whoever calls this lets it
    /// run to its end: it takes notice of a caller that is gone by itself.
    ///
    /// # Errors
    ///
    /// The protocol's own errors: a malformed request, something that does not exist, a server's refusal. A tool's failure
    /// is a reply.
    pub async fn dispatch(&self, call: Call) -> Result<Reply, ErrorData> {
        let is_tool = matches!(call.operation, Operation::Tool(_) | Operation::Management(..) | Operation::PutOn(_));
        let outcome = match self.make(call).await {
            Ok(made) => self.context.close(made.record, &made.outcome).await.and(made.outcome),
            Err(refused) => Err(refused),
        };
        outcome.or_else(|failure| if is_tool { failure.into_tool_reply() } else { Err(failure.into_protocol_error()) })
    }

    /// Runs a call of a script, which is told what came of it before the closing event is committed. All that it can do with an
    /// outcome goes through here again, or into its own: whoever passes these on waits for the event.
    ///
    /// # Errors
    ///
    /// When the script knows the outcome and the log does not.
    pub(super) async fn dispatch_for_script(
        &self,
        call: Call,
        tell: impl FnOnce(Result<&Reply, &Failure>),
    ) -> Result<(), Failure> {
        match self.make(call).await {
            Ok(made) => {
                tell(made.outcome.as_ref());
                // The script goes on while this is committed.
                tokio::task::yield_now().await;
                self.context.close(made.record, &made.outcome).await
            }
            Err(refused) => {
                tell(Err(&refused));
                Ok(())
            }
        }
    }

    /// Runs a call behind its opening event, if that can be committed.
    async fn make(&self, call: Call) -> Result<Made, Failure> {
        let context = &self.context;
        let under_way = context.tasks.unanswered().one_more();
        let Call { seat, caller, operation, parent } = call;
        let routed = context.route(&seat, &caller, operation).await;
        let kept = match &routed.target {
            Target::PutOn | Target::Management(ManagementTool::Add | ManagementTool::ConfigSet) => routed
                .arguments
                .as_ref()
                .map(|arguments| Cow::Owned(context.recordable(routed.session.as_deref(), arguments))),
            _ => routed.arguments.as_ref().map(Cow::Borrowed),
        };
        let record = context.audit.open(&routed.subject(&caller, parent), kept.as_deref()).await?;
        let running = AssertUnwindSafe(context.run(routed, &seat, &caller, record.id())).catch_unwind();
        let outcome = running.await.unwrap_or_else(|_| {
            Err(Failure::said("the broker failed while it made this call; its log says how. The session goes on."))
        });
        Ok(Made { record, outcome, _under_way: under_way })
    }
}

/// A call that has run, and whose record is open.
struct Made {
    record: OpenRecord,
    outcome: Result<Reply, Failure>,
    _under_way: Counted,
}

impl Routed {
    fn subject<'a>(&'a self, caller: &'a Caller, parent: Option<CallId>) -> Subject<'a> {
        Subject {
            kind: self.kind,
            parent,
            session: self.session.as_ref().map(|session| session.id()),
            principal: &caller.principal,
            client: caller.client.as_deref(),
            server: self.server.as_ref(),
            name: &self.name,
            trace: caller.trace(),
        }
    }
}

impl Context {
    async fn close(&self, record: OpenRecord, outcome: &Result<Reply, Failure>) -> Result<(), Failure> {
        let closed = match outcome {
            Ok(reply) => {
                let (status, error) = reading(reply);
                self.audit.close(record, Outcome { status, error, result: Some(reply) }).await
            }
            Err(failure) => {
                let error = Some(Cow::Borrowed(failure.text()));
                self.audit.close(record, Outcome::without_result(failure.status, error)).await
            }
        };
        closed.map_err(|error| {
            tracing::error!(error = %chain(&error), "a call ran, and its outcome could not be recorded");
            Failure::said(format!("the call was made, but its outcome could not be recorded: {}", chain(&error)))
        })
    }

    async fn run(
        self: &Arc<Self>,
        routed: Routed,
        seat: &Seat,
        caller: &Caller,
        record: CallId,
    ) -> Result<Reply, Failure> {
        let session = match (routed.session, &routed.target) {
            (Some(session), _) => session,
            (None, Target::Management(ManagementTool::Find)) => {
                return find::run(self, None, routed.arguments.unwrap_or_default());
            }
            (None, _) => {
                return match routed.target {
                    Target::Nothing(failure) => Err(failure),
                    _ => Err(Failure::invalid("this call needs a session")),
                };
            }
        };
        self.sessions.touch(&session);
        session.settled().await;
        let handle = matches!(seat, Seat::Handle(_)).then(|| session.id().clone());
        match routed.target {
            Target::Management(tool) => {
                let arguments = routed.arguments.unwrap_or_default();
                self.manage(tool, &session, caller, arguments, handle, record).await
            }
            Target::PutOn => add::put_on(self, &session, caller, routed.arguments.unwrap_or_default()).await,
            Target::Tool { tool, responses, state } => {
                self.call_tool(&session, caller, &tool, routed.arguments, responses, state).await
            }
            Target::KeptResult => code_mode::read_result(&session, routed.arguments.unwrap_or_default()),
            Target::Script { servers } => {
                let script = routed.arguments.as_ref().and_then(|arguments| arguments.get("script")?.as_str());
                let script = script.ok_or_else(|| Failure::said("a code tool takes `script`, the text to run"))?;
                code_mode::execute(self, &session, caller, &servers, script.to_owned(), record).await
            }
            Target::Prompt(params) => self.get_prompt(&session, caller, routed.server, params).await,
            Target::Resource { params, exposed_uri } => {
                self.read_resource(&session, caller, routed.server, params, &exposed_uri).await
            }
            Target::Completion(params) => {
                let server = routed.server.ok_or_else(|| Failure::invalid("nothing to complete"))?;
                let request = ClientRequest::CompleteRequest(CompleteRequest::new(params));
                self.ask_server(&session, &server, caller, request).await
            }
            Target::Nothing(failure) => Err(failure),
        }
    }

    async fn manage(
        self: &Arc<Self>,
        tool: ManagementTool,
        session: &Arc<Session>,
        caller: &Caller,
        arguments: JsonObject,
        handle: Option<SessionId>,
        record: CallId,
    ) -> Result<Reply, Failure> {
        self.ask_in_call(session, caller).await;
        match tool {
            ManagementTool::Find => find::run(self, Some(session), arguments),
            ManagementTool::Add => add::run(self, session, caller, arguments, handle).await,
            ManagementTool::ConfigSet => config_set::run(self, session, arguments, handle).await,
            ManagementTool::Remove => remove::run(self, session, arguments).await,
            ManagementTool::List => list::run(self, session, caller, arguments, handle).await,
            ManagementTool::CodeMode => code_mode::run(self, session, caller, arguments, handle, record).await,
            ManagementTool::CreateProfile => profiles::create(self, session, arguments).await,
            ManagementTool::ActivateProfile => profiles::activate(self, session, caller, arguments, handle).await,
            ManagementTool::Exec => Err(Failure::invalid("mcp-exec needs the name of a tool")),
        }
    }

    async fn call_tool(
        self: &Arc<Self>,
        session: &Arc<Session>,
        caller: &Caller,
        tool: &MenuTool,
        arguments: Option<JsonObject>,
        responses: Option<InputResponses>,
        state: Option<String>,
    ) -> Result<Reply, Failure> {
        let binding = || binding(caller, session, &tool.server, &tool.tool.name, arguments.as_ref());
        let mut params = CallToolRequestParams::new(tool.tool.name.clone());
        params.arguments.clone_from(&arguments);
        params.input_responses = responses;
        params.request_state =
            state.map(|state| self.rounds.open(&state, &binding())).transpose().map_err(Failure::protocol)?;
        let request = ClientRequest::CallToolRequest(CallToolRequest::new(params));
        let outcome = self.ask_server(session, &tool.server, caller, request).await;
        match outcome {
            Ok(Reply::InputRequiredResult(asked)) => {
                Ok(Reply::InputRequiredResult(self.rounds.seal(asked, &binding())))
            }
            Ok(Reply::CallToolResult(result)) => {
                if self.features.enabled(Feature::CodeMode) {
                    self.learn_result(session, tool, &result);
                }
                Ok(Reply::CallToolResult(explained(result, tool, arguments.as_ref())))
            }
            Ok(_) => Err(Failure::said(format!(
                "server `{}` answered with something else than a tool's result",
                tool.server
            ))),
            Err(failure) => Err(explained_failure(failure, tool, arguments.as_ref())),
        }
    }

    async fn get_prompt(
        &self,
        session: &Arc<Session>,
        caller: &Caller,
        server: Option<ServerName>,
        mut params: GetPromptRequestParams,
    ) -> Result<Reply, Failure> {
        let server = server.ok_or_else(|| Failure::invalid("there is no such prompt"))?;
        let binding = binding(caller, session, &server, &params.name, params.arguments.as_ref());
        if let Some(state) = params.request_state.take() {
            params.request_state = Some(self.rounds.open(&state, &binding).map_err(Failure::protocol)?);
        }
        let request = ClientRequest::GetPromptRequest(GetPromptRequest::new(params));
        match self.ask_server(session, &server, caller, request).await? {
            Reply::InputRequiredResult(asked) => Ok(Reply::InputRequiredResult(self.rounds.seal(asked, &binding))),
            reply => Ok(reply),
        }
    }

    async fn read_resource(
        &self,
        session: &Arc<Session>,
        caller: &Caller,
        server: Option<ServerName>,
        mut params: ReadResourceRequestParams,
        exposed_uri: &str,
    ) -> Result<Reply, Failure> {
        let server = server.ok_or_else(|| unknown_resource(exposed_uri))?;
        let uri = params.uri.clone();
        let binding = binding(caller, session, &server, &uri, None);
        if let Some(state) = params.request_state.take() {
            params.request_state = Some(self.rounds.open(&state, &binding).map_err(Failure::protocol)?);
        }
        let request = ClientRequest::ReadResourceRequest(ReadResourceRequest::new(params));
        match self.ask_server(session, &server, caller, request).await? {
            Reply::InputRequiredResult(asked) => Ok(Reply::InputRequiredResult(self.rounds.seal(asked, &binding))),
            Reply::ReadResourceResult(mut result) => {
                for contents in &mut result.contents {
                    restore_uri(contents, &uri, exposed_uri);
                }
                Ok(Reply::ReadResourceResult(result))
            }
            reply => Ok(reply),
        }
    }

    /// Sends a request to a server of the session, starting it if need be.
    async fn ask_server(
        &self,
        session: &Arc<Session>,
        server: &ServerName,
        caller: &Caller,
        request: ClientRequest,
    ) -> Result<Reply, Failure> {
        let reached = self.reach(session, server, caller).await?;
        reached.instance.called();
        match reached.upstream.request(request, caller).await {
            Ok(reply) => Ok(reply),
            Err(RequestError::Closed) => {
                let gone = reached.instance.gone().await;
                let what = match &*gone {
                    Gone::Stopped => "was stopped during the call: call again".to_owned(),
                    other => format!("ended during the call: {other}\nThe next call starts it again."),
                };
                Err(Failure::said(format!("server `{server}` {what}")))
            }
            Err(RequestError::Protocol(error)) => Err(Failure::protocol(error)),
            Err(error) => {
                let failure = Failure::from(error);
                let (status, text) = (failure.status, format!("server `{server}`: {}", failure.text()));
                Err(Failure::said(text).with_status(status))
            }
        }
    }
}

fn binding(
    caller: &Caller,
    session: &Session,
    server: &ServerName,
    name: &str,
    arguments: Option<&JsonObject>,
) -> Binding {
    let arguments = arguments.map(canonical).unwrap_or_default();
    Binding::of(&[&caller.principal.to_string(), session.id().as_str(), server.as_str(), name, &arguments])
}

fn restore_uri(contents: &mut ResourceContents, uri: &str, exposed_uri: &str) {
    let (ResourceContents::TextResourceContents { uri: shown, .. }
    | ResourceContents::BlobResourceContents { uri: shown, .. }) = contents
    else {
        return;
    };
    if shown == uri {
        exposed_uri.clone_into(shown);
    }
}

/// How the log reads a reply.
fn reading(reply: &Reply) -> (Status, Option<Cow<'_, str>>) {
    match reply {
        Reply::InputRequiredResult(_) => (Status::InputRequired, None),
        Reply::CallToolResult(result) if result.is_error == Some(true) => {
            let text =
                result.content.iter().find_map(|block| block.as_text()).map(|text| Cow::Borrowed(text.text.as_str()));
            (Status::Error, text)
        }
        _ => (Status::Success, None),
    }
}
