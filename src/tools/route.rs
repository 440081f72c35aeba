//! From a call to what it is about: its session, and the tool, prompt or resource that it names.
//!
//! Nothing runs here, and what names nothing is routed too: to its failure, which the log is told of like any other call.

use std::sync::Arc;

use rmcp::model::{
    ArgumentInfo, CallToolRequestParams, CompleteRequestParams, ErrorData, GetPromptRequestParams, InputResponses,
    JsonObject, ReadResourceRequestParams, Reference,
};
use serde_json::Value;

use super::{Context, ManagementTool, Operation, Seat, code_mode, failure::Failure, listing::Named};
use crate::{
    audit::{Kind, Status},
    caller::Caller,
    features::Feature,
    ids::{ServerName, SessionId},
    session::{
        Session,
        menu::{Menu, MenuTool},
    },
};

/// A call whose every name is resolved.
pub(super) struct Routed {
    pub(super) session: Option<Arc<Session>>,
    pub(super) kind: Kind,
    pub(super) server: Option<ServerName>,
    /// What the record calls it.
    pub(super) name: String,
    pub(super) arguments: Option<JsonObject>,
    pub(super) target: Target,
}

pub(super) enum Target {
    Management(ManagementTool),
    /// `mcp-add` that does not wait for the server.
    PutOn,
    Tool {
        tool: Box<MenuTool>,
        responses: Option<InputResponses>,
        state: Option<String>,
    },
    Prompt(GetPromptRequestParams),
    Resource {
        params: ReadResourceRequestParams,
        exposed_uri: String,
    },
    Completion(CompleteRequestParams),
    Script {
        servers: Vec<ServerName>,
    },
    /// A page of what a script returned.
    KeptResult,
    Nothing(Failure),
}

impl Context {
    pub(super) async fn route(self: &Arc<Self>, seat: &Seat, caller: &Caller, operation: Operation) -> Routed {
        match operation {
            Operation::Tool(params) => self.route_tool(seat, caller, *params).await,
            Operation::Management(tool, params) => self.route_management(seat, caller, tool, *params).await,
            Operation::PutOn(params) => {
                let routed = self.route_management(seat, caller, ManagementTool::Add, *params).await;
                match routed.target {
                    Target::Management(_) => Routed { target: Target::PutOn, ..routed },
                    _ => routed,
                }
            }
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
        // One of the broker's own that is switched off is no reason to ask servers.
        let is_own = ManagementTool::named(&name).is_some();
        let menu = self.menu_with(&session, caller, |menu| is_own || menu.tool(&name).is_some()).await;
        match menu.tool(&name) {
            Some(tool) => to_tool(session, tool, params),
            None => {
                let failure = Failure::invalid(format!("Unknown tool: {name}{}", did_you_mean(&menu, &name)));
                nothing(Some(session), Kind::Tool, name, params.arguments, failure)
            }
        }
    }

    /// Whether agents have this tool now.
    pub(super) fn offers(&self, tool: ManagementTool) -> bool {
        let code = tool != ManagementTool::CodeMode || self.features.enabled(Feature::CodeMode);
        code && self.features.enabled(Feature::DynamicTools)
    }

    /// A call of a tool that is a script, or reads what one returned, if it is one.
    pub(super) fn route_script(
        &self,
        session: &Arc<Session>,
        name: &str,
        arguments: Option<&JsonObject>,
    ) -> Option<Routed> {
        if !self.features.enabled(Feature::CodeMode) {
            return None;
        }
        let (kind, target) = if name == code_mode::READ_RESULT {
            (Kind::Management, Target::KeptResult)
        } else {
            let servers = session.code_tool(name.strip_prefix(code_mode::PREFIX)?)?;
            (Kind::Script, Target::Script { servers })
        };
        Some(Routed {
            session: Some(session.clone()),
            kind,
            server: None,
            name: name.to_owned(),
            arguments: arguments.cloned(),
            target,
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
        let failure = match self.find_tool(&session, caller, &wanted).await {
            Named::Tool(tool) => {
                params.arguments = arguments;
                return to_tool(session, &tool, params);
            }
            Named::Several(several) => {
                let names: Vec<&str> = several.iter().map(|tool| tool.exposed.as_str()).collect();
                Failure::said(format!("several servers have a tool `{wanted}`: use one of {}", names.join(", ")))
            }
            Named::Own => Failure::said(format!("`{wanted}` is one of the broker's own tools: call it directly")),
            Named::Nothing(menu) => Failure::said(format!(
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
                ManagementTool::Add | ManagementTool::ConfigSet | ManagementTool::ActivateProfile => {
                    let kind = crate::store::sessions::SessionKind::Handle;
                    Ok(Some(self.sessions.create(kind, principal.clone(), None, None).await?))
                }
                ManagementTool::Find => Ok(None),
                ManagementTool::Remove
                | ManagementTool::Exec
                | ManagementTool::List
                | ManagementTool::CodeMode
                | ManagementTool::CreateProfile => Ok(Some(self.sessions.of_principal(principal).await?)),
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
        Operation::Tool(params) | Operation::Management(_, params) | Operation::PutOn(params) => nothing(
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

pub(super) fn unknown_resource(uri: &str) -> Failure {
    let data = serde_json::json!({"uri": uri});
    Failure::protocol(ErrorData::resource_not_found(format!("Resource not found: {uri}"), Some(data)))
        .with_status(Status::Refused)
}
