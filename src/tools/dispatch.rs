//! The one door.

use std::{borrow::Cow, panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt as _;
use rmcp::model::{
    ArgumentInfo, CallToolRequest, CallToolRequestParams, CallToolResult, ClientRequest, CompleteRequest,
    CompleteRequestParams, ContentBlock, ErrorCode, ErrorData, GetPromptRequest, GetPromptRequestParams,
    InputResponses, JsonObject, ReadResourceRequest, ReadResourceRequestParams, Reference, ResourceContents,
};
use serde_json::Value;

use super::{
    Call, Context, ManagementTool, Operation, Reply, Seat, Tools, add, code_mode, config_set, failure::Failure, find,
    list, remove, rounds::Binding,
};
use crate::{
    audit::{Kind, OpenRecord, Outcome, Status, Subject},
    caller::Caller,
    features::Feature,
    ids::{CallId, ServerName, SessionId},
    session::{
        Session,
        menu::{Found, Menu, MenuTool},
    },
    supervisor::{Gone, RequestError, upstream::chain},
};

/// A call whose every name is resolved.
struct Routed {
    session: Option<Arc<Session>>,
    kind: Kind,
    server: Option<ServerName>,
    /// What the record calls it.
    name: String,
    arguments: Option<JsonObject>,
    target: Target,
}

enum Target {
    Management(ManagementTool),
    Tool { tool: Box<MenuTool>, responses: Option<InputResponses>, state: Option<String> },
    Prompt(GetPromptRequestParams),
    Resource { params: ReadResourceRequestParams, exposed_uri: String },
    Completion(CompleteRequestParams),
    Script { servers: Vec<ServerName> },
    Nothing(Failure),
}

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
        let context = &self.context;
        let _under_way = context.tasks.unanswered().one_more();
        let Call { seat, caller, operation, parent } = call;
        let is_tool = matches!(operation, Operation::Tool(_) | Operation::Management(..));
        let routed = context.route(&seat, &caller, operation).await;
        let kept = match &routed.target {
            Target::Management(ManagementTool::Add | ManagementTool::ConfigSet) => {
                routed.arguments.as_ref().map(|arguments| Cow::Owned(context.recordable(arguments)))
            }
            _ => routed.arguments.as_ref().map(Cow::Borrowed),
        };
        let record = match context.audit.open(&routed.subject(&caller, parent), kept.as_deref()).await {
            Ok(record) => record,
            Err(error) => return told(Failure::from(error), is_tool),
        };
        let running = AssertUnwindSafe(context.run(routed, &seat, &caller, record.id())).catch_unwind();
        let outcome = running.await.unwrap_or_else(|_| {
            Err(Failure::said("the broker failed while it made this call; its log says how. The session goes on."))
        });
        context.close(record, outcome, is_tool).await
    }
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
        }
    }
}

fn told(failure: Failure, is_tool: bool) -> Result<Reply, ErrorData> {
    if is_tool { failure.into_tool_reply() } else { Err(failure.into_protocol_error()) }
}

impl Context {
    async fn close(
        &self,
        record: OpenRecord,
        outcome: Result<Reply, Failure>,
        is_tool: bool,
    ) -> Result<Reply, ErrorData> {
        let closed = match &outcome {
            Ok(reply) => {
                let (status, error) = reading(reply);
                self.audit.close(record, Outcome { status, error, result: Some(reply) }).await
            }
            Err(failure) => {
                let error = Some(Cow::Borrowed(failure.text()));
                self.audit.close(record, Outcome::without_result(failure.status, error)).await
            }
        };
        match (closed, outcome) {
            (Ok(()), Ok(reply)) => Ok(reply),
            (Ok(()), Err(failure)) => told(failure, is_tool),
            (Err(error), _) => {
                tracing::error!(error = %chain(&error), "a call ran, and its outcome could not be recorded");
                let text = format!("the call was made, but its outcome could not be recorded: {}", chain(&error));
                told(Failure::said(text), is_tool)
            }
        }
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
            Target::Tool { tool, responses, state } => {
                self.call_tool(&session, caller, &tool, routed.arguments, responses, state).await
            }
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
        match tool {
            ManagementTool::Find => find::run(self, Some(session), arguments),
            ManagementTool::Add => add::run(self, session, caller, arguments, handle).await,
            ManagementTool::ConfigSet => config_set::run(self, session, arguments, handle).await,
            ManagementTool::Remove => remove::run(self, session, arguments).await,
            ManagementTool::List => list::run(self, session, caller, handle).await,
            ManagementTool::CodeMode => code_mode::run(self, session, caller, arguments, handle, record).await,
            ManagementTool::Exec => Err(Failure::invalid("mcp-exec needs the name of a tool")),
        }
    }

    async fn call_tool(
        &self,
        session: &Arc<Session>,
        caller: &Caller,
        tool: &MenuTool,
        arguments: Option<JsonObject>,
        responses: Option<InputResponses>,
        state: Option<String>,
    ) -> Result<Reply, Failure> {
        let binding = binding(caller, session, &tool.server, &tool.tool.name, arguments.as_ref());
        let mut params = CallToolRequestParams::new(tool.tool.name.clone());
        params.arguments.clone_from(&arguments);
        params.input_responses = responses;
        params.request_state =
            state.map(|state| self.rounds.open(&state, &binding)).transpose().map_err(Failure::protocol)?;
        let request = ClientRequest::CallToolRequest(CallToolRequest::new(params));
        let outcome = self.ask_server(session, &tool.server, caller, request).await;
        match outcome {
            Ok(Reply::InputRequiredResult(asked)) => Ok(Reply::InputRequiredResult(self.rounds.seal(asked, &binding))),
            Ok(Reply::CallToolResult(result)) => Ok(Reply::CallToolResult(explained(result, tool, arguments.as_ref()))),
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

    async fn route(self: &Arc<Self>, seat: &Seat, caller: &Caller, operation: Operation) -> Routed {
        match operation {
            Operation::Tool(params) => self.route_tool(seat, caller, *params).await,
            Operation::Management(tool, params) => self.route_management(seat, caller, tool, *params).await,
            other => {
                let session = match self.session_of(seat).await {
                    Ok(session) => session,
                    Err(failure) => return nothing(None, Kind::Prompt, String::new(), None, failure),
                };
                let menu = self.menu(&session, caller).await;
                route_other(session, &menu, other)
            }
        }
    }

    async fn route_tool(self: &Arc<Self>, seat: &Seat, caller: &Caller, params: CallToolRequestParams) -> Routed {
        let name = params.name.to_string();
        if let Some(tool) = ManagementTool::named(&name).filter(|tool| self.offers(*tool)) {
            return self.route_management(seat, caller, tool, params).await;
        }
        let session = match self.session_of(seat).await {
            Ok(session) => session,
            Err(failure) => return nothing(None, Kind::Tool, name, params.arguments, failure),
        };
        if let Some(routed) = self.route_script(&session, &name, params.arguments.as_ref()) {
            return routed;
        }
        let menu = self.menu_with(&session, caller, |menu| menu.tool(&name).is_some()).await;
        match menu.tool(&name) {
            Some(tool) => to_tool(session, tool, params),
            None => {
                let failure = Failure::invalid(format!("Unknown tool: {name}{}", did_you_mean(&menu, &name)));
                nothing(Some(session), Kind::Tool, name, params.arguments, failure)
            }
        }
    }

    /// Whether agents have this tool now.
    fn offers(&self, tool: ManagementTool) -> bool {
        let code = tool != ManagementTool::CodeMode || self.features.enabled(Feature::CodeMode);
        code && self.features.enabled(Feature::DynamicTools)
    }

    /// A call of a tool that is a script, if it is one.
    fn route_script(&self, session: &Arc<Session>, name: &str, arguments: Option<&JsonObject>) -> Option<Routed> {
        let short = name.strip_prefix(code_mode::PREFIX).filter(|_| self.features.enabled(Feature::CodeMode))?;
        let servers = session.code_tools().remove(short)?;
        Some(Routed {
            session: Some(session.clone()),
            kind: Kind::Script,
            server: None,
            name: name.to_owned(),
            arguments: arguments.cloned(),
            target: Target::Script { servers },
        })
    }

    async fn route_management(
        self: &Arc<Self>,
        seat: &Seat,
        caller: &Caller,
        tool: ManagementTool,
        mut params: CallToolRequestParams,
    ) -> Routed {
        let mut arguments = params.arguments.take().unwrap_or_default();
        let handle = arguments.remove("session");
        let name = tool.name().to_owned();
        let session = match self.session_for(seat, tool, handle).await {
            Ok(session) => session,
            Err(failure) => return nothing(None, Kind::Management, name, Some(arguments), failure),
        };
        if tool != ManagementTool::Exec {
            let target = Target::Management(tool);
            return Routed { session, kind: Kind::Management, server: None, name, arguments: Some(arguments), target };
        }
        match session {
            Some(session) => self.route_exec(session, caller, params, arguments).await,
            None => {
                nothing(None, Kind::Management, name, Some(arguments), Failure::invalid("mcp-exec needs a session"))
            }
        }
    }

    async fn route_exec(
        self: &Arc<Self>,
        session: Arc<Session>,
        caller: &Caller,
        mut params: CallToolRequestParams,
        mut given: JsonObject,
    ) -> Routed {
        let exec = ManagementTool::Exec.name().to_owned();
        let Some(wanted) = given.get("name").and_then(Value::as_str).map(str::to_owned) else {
            let failure = Failure::said("mcp-exec needs `name`, the tool to call. mcp-list shows what there is.");
            return nothing(Some(session), Kind::Management, exec, Some(given), failure);
        };
        let arguments = match given.remove("arguments").map(object_of) {
            None => None,
            Some(Some(arguments)) => Some(arguments),
            Some(None) => {
                let failure = Failure::said("mcp-exec: `arguments` must be an object with the tool's arguments");
                return nothing(Some(session), Kind::Management, exec, Some(given), failure);
            }
        };
        if let Some(routed) = self.route_script(&session, &wanted, arguments.as_ref()) {
            return routed;
        }
        let menu = self.menu_with(&session, caller, |menu| !matches!(menu.find_tool(&wanted), Found::Nothing)).await;
        let failure = match menu.find_tool(&wanted) {
            Found::Tool(tool) => {
                params.arguments = arguments;
                return to_tool(session, tool, params);
            }
            Found::Ambiguous(several) => {
                let names: Vec<&str> = several.iter().map(|tool| tool.exposed.as_str()).collect();
                Failure::said(format!("several servers have a tool `{wanted}`: use one of {}", names.join(", ")))
            }
            Found::Nothing if ManagementTool::named(&wanted).is_some() => {
                Failure::said(format!("`{wanted}` is one of the broker's own tools: call it directly"))
            }
            Found::Nothing => Failure::said(format!(
                "there is no tool `{wanted}` in this session{}. mcp-list shows what there is, mcp-find what could be added.",
                did_you_mean(&menu, &wanted)
            )),
        };
        given.insert("arguments".to_owned(), Value::Object(arguments.unwrap_or_default()));
        nothing(Some(session), Kind::Management, exec, Some(given), failure)
    }

    /// The session a call without a handle belongs to.
    async fn session_of(&self, seat: &Seat) -> Result<Arc<Session>, Failure> {
        match seat {
            Seat::Fixed(session) => Ok(session.clone()),
            Seat::Handle(principal) => Ok(self.sessions.of_principal(principal).await?),
        }
    }

    /// The session a management tool works in. Adding and configuring begin one where the client has none.
    async fn session_for(
        &self,
        seat: &Seat,
        tool: ManagementTool,
        handle: Option<Value>,
    ) -> Result<Option<Arc<Session>>, Failure> {
        let handle = match handle {
            None | Some(Value::Null) => None,
            Some(Value::String(handle)) => Some(handle),
            Some(_) => return Err(Failure::said("`session` must be the text that mcp-add returned")),
        };
        match (seat, handle) {
            (Seat::Fixed(session), None) => Ok(Some(session.clone())),
            (Seat::Fixed(session), Some(handle)) if handle == session.id().as_str() => Ok(Some(session.clone())),
            (Seat::Fixed(_), Some(_)) => {
                Err(Failure::refused("this connection has its session already: leave out `session`"))
            }
            (Seat::Handle(principal), Some(handle)) => {
                let unknown = || {
                    Failure::refused(
                        "there is no such session, or it has ended: leave out `session` to begin a new one",
                    )
                };
                let id: SessionId = handle.parse().map_err(|_| unknown())?;
                let session = self.sessions.get(&id).await?.filter(|session| session.principal() == principal);
                session.map(Some).ok_or_else(unknown)
            }
            (Seat::Handle(principal), None) => match tool {
                ManagementTool::Add | ManagementTool::ConfigSet => {
                    let kind = crate::store::sessions::SessionKind::Handle;
                    Ok(Some(self.sessions.create(kind, principal.clone(), None, None).await?))
                }
                ManagementTool::Find => Ok(None),
                ManagementTool::Remove | ManagementTool::Exec | ManagementTool::List | ManagementTool::CodeMode => {
                    Ok(Some(self.sessions.of_principal(principal).await?))
                }
            },
        }
    }
}

fn route_other(session: Arc<Session>, menu: &Menu, operation: Operation) -> Routed {
    match operation {
        Operation::Prompt(mut params) => {
            let name = params.name.clone();
            let arguments = params.arguments.clone();
            match menu.prompt(&name) {
                Some(prompt) => {
                    params.name.clone_from(&prompt.prompt.name);
                    let server = Some(prompt.server.clone());
                    let (name, target) = (params.name.clone(), Target::Prompt(params));
                    Routed { session: Some(session), kind: Kind::Prompt, server, name, arguments, target }
                }
                None => {
                    let failure = Failure::invalid(format!("Unknown prompt: {name}"));
                    nothing(Some(session), Kind::Prompt, name, arguments, failure)
                }
            }
        }
        Operation::Resource(mut params) => {
            let exposed_uri = params.uri.clone();
            let owner = menu.resource_owner(&exposed_uri);
            let Some((server, uri)) = owner else {
                return nothing(
                    Some(session),
                    Kind::Resource,
                    exposed_uri.clone(),
                    None,
                    unknown_resource(&exposed_uri),
                );
            };
            params.uri.clone_from(&uri);
            let target = Target::Resource { params, exposed_uri };
            Routed {
                session: Some(session),
                kind: Kind::Resource,
                server: Some(server),
                name: uri,
                arguments: None,
                target,
            }
        }
        Operation::Completion(params) => route_completion(session, menu, params),
        Operation::Tool(params) | Operation::Management(_, params) => nothing(
            Some(session),
            Kind::Tool,
            params.name.to_string(),
            params.arguments,
            Failure::invalid("not a tool call"),
        ),
    }
}

fn route_completion(session: Arc<Session>, menu: &Menu, mut params: CompleteRequestParams) -> Routed {
    let (name, server) = match &mut params.r#ref {
        Reference::Prompt(reference) => {
            let name = reference.name.clone();
            let found = menu.prompt(&name).map(|prompt| {
                reference.name.clone_from(&prompt.prompt.name);
                prompt.server.clone()
            });
            (name, found)
        }
        Reference::Resource(reference) => {
            let uri = reference.uri.clone();
            let owner = menu.template_owner(&uri).or_else(|| menu.resource_owner(&uri).map(|(server, _)| server));
            (uri, owner)
        }
        _ => (String::new(), None),
    };
    let arguments = Some(completion_arguments(&params.argument));
    match server {
        Some(server) => Routed {
            session: Some(session),
            kind: Kind::Completion,
            server: Some(server),
            name,
            arguments,
            target: Target::Completion(params),
        },
        None => {
            let failure = Failure::invalid(format!("nothing called {name} can be completed"));
            nothing(Some(session), Kind::Completion, name, arguments, failure)
        }
    }
}

fn completion_arguments(argument: &ArgumentInfo) -> JsonObject {
    JsonObject::from_iter([(argument.name.clone(), Value::String(argument.value.clone()))])
}

fn to_tool(session: Arc<Session>, tool: &MenuTool, params: CallToolRequestParams) -> Routed {
    Routed {
        session: Some(session),
        kind: Kind::Tool,
        server: Some(tool.server.clone()),
        name: tool.tool.name.to_string(),
        arguments: params.arguments,
        target: Target::Tool {
            tool: Box::new(tool.clone()),
            responses: params.input_responses,
            state: params.request_state,
        },
    }
}

fn nothing(
    session: Option<Arc<Session>>,
    kind: Kind,
    name: String,
    arguments: Option<JsonObject>,
    failure: Failure,
) -> Routed {
    Routed { session, kind, server: None, name, arguments, target: Target::Nothing(failure) }
}

/// Some clients send a tool's arguments as JSON in a string.
fn object_of(value: Value) -> Option<JsonObject> {
    match value {
        Value::Object(fields) => Some(fields),
        Value::Null => Some(JsonObject::new()),
        Value::String(text) => serde_json::from_str(&text).ok(),
        _ => None,
    }
}

fn did_you_mean(menu: &Menu, name: &str) -> String {
    let similar = menu.similar_tools(name);
    if similar.is_empty() { String::new() } else { format!(" (similar: {})", similar.join(", ")) }
}

fn unknown_resource(uri: &str) -> Failure {
    let data = serde_json::json!({"uri": uri});
    Failure::protocol(ErrorData::resource_not_found(format!("Resource not found: {uri}"), Some(data)))
        .with_status(Status::Refused)
}

fn binding(
    caller: &Caller,
    session: &Session,
    server: &ServerName,
    name: &str,
    arguments: Option<&JsonObject>,
) -> Binding {
    let arguments = arguments.map(|arguments| Value::Object(arguments.clone()).to_string()).unwrap_or_default();
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

/// A failed call whose arguments do not fit the tool's schema gets the schema, so that one retry suffices. The server's
/// word is what counts: arguments it accepts are never looked at.
fn explained(mut result: CallToolResult, tool: &MenuTool, arguments: Option<&JsonObject>) -> CallToolResult {
    if result.is_error == Some(true)
        && let Some(hint) = schema_hint(tool, arguments)
    {
        result.content.push(ContentBlock::text(hint));
    }
    result
}

fn explained_failure(failure: Failure, tool: &MenuTool, arguments: Option<&JsonObject>) -> Failure {
    if failure.code() != Some(ErrorCode::INVALID_PARAMS) {
        return failure;
    }
    match schema_hint(tool, arguments) {
        Some(hint) => Failure::said(format!("{}\n{hint}", failure.text())),
        None => failure,
    }
}

fn schema_hint(tool: &MenuTool, arguments: Option<&JsonObject>) -> Option<String> {
    const PROBLEMS_MAX: usize = 5;
    const SCHEMA_BYTES_MAX: usize = 8 << 10;
    let schema = Value::Object(tool.tool.input_schema.as_ref().clone());
    let text = schema.to_string();
    if text.len() > SCHEMA_BYTES_MAX {
        return None;
    }
    let validator = jsonschema::validator_for(&schema).ok()?;
    let given = Value::Object(arguments.cloned().unwrap_or_default());
    let problems: Vec<String> =
        validator.iter_errors(&given).take(PROBLEMS_MAX).map(|error| error.to_string()).collect();
    if problems.is_empty() {
        return None;
    }
    Some(format!(
        "The arguments of {} do not fit its schema: {}.\nIts input schema is {text}",
        tool.exposed,
        problems.join("; ")
    ))
}
