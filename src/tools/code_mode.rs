//! `code-mode`: makes a tool that runs scripts, and such tools themselves.
//!
//! A script calls tools and nothing else. Each of its calls goes through the same door as a client's, as a record of its
//! own below the script's record.

mod answer;
mod check;
mod declare;
mod host;
mod learning;
mod names;
mod shape;
mod types;
mod unrecorded;

use std::sync::Arc;

use js_runtime::Script;
use rmcp::model::{CallToolResult, ContentBlock, JsonObject, Tool, ToolAnnotations};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Context, Reply, Tools, failure::Failure};
use crate::{
    caller::Caller,
    ids::{CallId, ServerName, SessionId},
    session::{Session, menu::Menu},
};
use declare::{Callable, tools_of};
use host::SessionHost;
use learning::Learned;
use names::named;
use unrecorded::Unrecorded;

pub(super) use answer::{READ_RESULT, read_result};
pub(crate) use learning::Learning;

/// What the names of tools that are scripts begin with.
pub(super) const PREFIX: &str = "code-mode-";

const NAME_BYTES_MAX: usize = 40;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Arguments {
    servers: Vec<String>,
    name: String,
    script: Option<String>,
}

/// Makes a code tool, and runs its first script if there is one.
pub(super) async fn run(
    context: &Arc<Context>,
    session: &Arc<Session>,
    caller: &Caller,
    arguments: JsonObject,
    handle: Option<SessionId>,
    record: CallId,
) -> Result<Reply, Failure> {
    let arguments: Arguments = serde_json::from_value(Value::Object(arguments)).map_err(|error| {
        Failure::said(format!(
            "code-mode takes `servers` (a list of names), `name` and, if you like, `script`: {error}"
        ))
    })?;
    let valid = |character: char| character.is_ascii_alphanumeric() || character == '-';
    if arguments.name.is_empty() || arguments.name.len() > NAME_BYTES_MAX || !arguments.name.chars().all(valid) {
        return Err(Failure::said(format!(
            "`name` must be 1 to {NAME_BYTES_MAX} letters, digits and hyphens: the tool will be called {PREFIX}<name>"
        )));
    }
    let servers = servers_of(session, &arguments.servers)?;
    context
        .sessions
        .put_code_tool(session, &arguments.name, servers.clone())
        .await
        .map_err(|error| Failure::said(format!("the tool could not be kept: {error}")))?;
    if let Some(script) = arguments.script {
        return execute(context, session, caller, &servers, script, record).await;
    }
    let name = format!("{PREFIX}{}", arguments.name);
    let menu = context.menu(session, caller).await;
    let mut text = format!(
        "The tool {name} runs scripts. If your client does not show it, call it with mcp-exec: {{\"name\": \"{name}\", \
         \"arguments\": {{\"script\": \"…\"}}}}."
    );
    let mut structured = json!({"tool": name, "servers": servers});
    if let Some(handle) = handle {
        text.push_str(&format!(" Give `session`: \"{handle}\" with the calls that follow."));
        structured["session"] = json!(handle);
    }
    let learned = context.learned_types(&servers).await;
    let declarations = context.declarations(&menu, &servers, &learned);
    structured["declarations"] = json!(declarations);
    text.push_str("\n\n");
    text.push_str(&declarations);
    let mut result = CallToolResult::success(vec![ContentBlock::text(text)]);
    result.structured_content = Some(structured);
    Ok(Reply::CallToolResult(result))
}

fn servers_of(session: &Session, named: &[String]) -> Result<Vec<ServerName>, Failure> {
    let on = session.servers();
    let mut servers = Vec::new();
    for name in named {
        let found = on.iter().find(|added| added.server.as_str() == name.trim());
        let Some(added) = found else {
            return Err(Failure::said(format!(
                "the server `{name}` is not on in this session: add it with mcp-add first. mcp-list shows what is on."
            )));
        };
        if !servers.contains(&added.server) {
            servers.push(added.server.clone());
        }
    }
    if servers.is_empty() {
        return Err(Failure::said("`servers` must name at least one server of this session"));
    }
    Ok(servers)
}

/// A code tool as clients see it.
pub(super) async fn definition(context: &Context, menu: &Menu, name: &str, servers: &[ServerName]) -> Tool {
    let learned = context.learned_types(servers).await;
    let description = format!(
        "Runs JavaScript or TypeScript that calls the tools of {}.\n\
         Use it for many calls, calls that depend on each other, or large results of which you need a part; call a tool \
         directly for a single look-up.\n\
         Write the body of an async function: `await` and `return` at the top. A tool returns its data; a failed one throws \
         ToolError, and wrong arguments do so before anything is called. Promise.all runs calls at once; \
         broker.settle([…]) lets some fail.\n\
         Use only names declared here, or ask: await broker.search(\"words\"), await broker.describe(\"server.tool\").\n\
         There are no files, network, timers or modules. console.log comes back with the result.\n\n{}",
        servers.iter().map(ServerName::as_str).collect::<Vec<_>>().join(", "),
        context.declarations(menu, servers, &learned),
    );
    let schema = json!({
        "type": "object",
        "properties": {"script": {"type": "string", "description": "The body of an async function, in JavaScript or TypeScript"}},
        "required": ["script"],
    });
    Tool::new(format!("{PREFIX}{name}"), description, super::definitions::object(schema))
        .with_title(format!("Scripts: {name}"))
        .with_annotations(ToolAnnotations::new().read_only(false).open_world(true))
        .with_raw_output_schema(super::definitions::object(output_schema()))
}

pub(super) fn output_schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "status": {"type": "string", "enum": ["completed", "error", "limit", "cancelled"]},
            "execution_id": {"type": "string"},
            "result": {},
            "logs": {"type": "array", "items": {"type": "string"}},
            "calls": {"type": "array", "items": {
                "type": "object",
                "properties": {
                    "server": {"type": "string"}, "tool": {"type": "string"},
                    "ms": {"type": "integer"}, "ok": {"type": "boolean"}
                },
                "required": ["server", "tool", "ms", "ok"]
            }},
            "error": {"type": "object"}
        },
        "required": ["status", "execution_id", "logs", "calls"]
    })
}

/// Runs a script of a code tool.
pub(super) async fn execute(
    context: &Arc<Context>,
    session: &Arc<Session>,
    caller: &Caller,
    servers: &[ServerName],
    source: String,
    record: CallId,
) -> Result<Reply, Failure> {
    let menu = context.menu(session, caller).await;
    let host = SessionHost {
        tools: Tools { context: context.clone() },
        session: session.clone(),
        principal: caller.principal.clone(),
        client: caller.client.clone(),
        servers: named(servers).into(),
        record,
        unrecorded: Unrecorded::default(),
    };
    let tool_names = |server| tools_of(&menu, server).map(|tool| tool.tool.name.to_string()).collect();
    let servers = host.servers.iter().map(|server| (server.variable.clone(), tool_names(server))).collect();
    let script = Script { source, servers };
    let cancelled = caller.cancelled.clone();
    let outcome = context
        .code_mode
        .run(script, &host, async move { cancelled.cancelled().await })
        .await
        .map_err(|error| Failure::said(crate::supervisor::upstream::chain(&error)))?;
    host.unrecorded.none().await.map_err(Failure::said)?;
    answer::answer(context, session, outcome, record)
}

impl Context {
    fn declarations(&self, menu: &Menu, servers: &[ServerName], learned: &Learned) -> String {
        let servers = named(servers);
        Callable { menu, servers: &servers, learned }.declarations(self.code_mode.declarations_bytes_max())
    }
}
