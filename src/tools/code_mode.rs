//! `code-mode`: makes a tool that runs scripts, and such tools themselves.
//!
//! A script calls tools and nothing else. Each of its calls goes through the same door as a client's, as a record of its
//! own below the script's record.

mod declare;
mod host;

use std::sync::Arc;

use js_runtime::{CallRecord, Ending, Limit, Outcome, Script};
use rmcp::model::{CallToolResult, ContentBlock, JsonObject, Tool, ToolAnnotations};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Context, Reply, Tools, failure::Failure};
use crate::{
    audit::Status,
    caller::Caller,
    ids::{CallId, ServerName, SessionId},
    session::{Session, menu::Menu},
};
use host::SessionHost;

/// What the names of tools that are scripts begin with.
pub(super) const PREFIX: &str = "code-mode-";

/// A result that is longer is answered with its beginning.
const RESULT_BYTES_MAX: usize = 24 << 10;
const PREVIEW_BYTES: usize = 4 << 10;

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
    let declarations = declare::declarations(&menu, &servers);
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
pub(super) fn definition(menu: &Menu, name: &str, servers: &[ServerName]) -> Tool {
    let description = format!(
        "Runs JavaScript that calls the tools of {}.\n\
         Use it for many calls, calls that depend on each other, or large results of which you need a part; call a tool \
         directly for a single look-up.\n\
         Write the body of an async function: `await` and `return` at the top. A tool returns its data; a failed one throws \
         ToolError. Promise.all runs calls at once; broker.settle([…]) lets some fail.\n\
         Use only names declared here, or ask: await broker.search(\"words\"), await broker.describe(\"server.tool\").\n\
         There are no files, network, timers or modules. console.log comes back with the result.\n\n{}",
        servers.iter().map(ServerName::as_str).collect::<Vec<_>>().join(", "),
        declare::declarations(menu, servers),
    );
    let schema = json!({
        "type": "object",
        "properties": {"script": {"type": "string", "description": "The body of an async JavaScript function"}},
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
        servers: servers.to_vec(),
        record,
    };
    let named = servers.iter().map(|server| (declare::variable(server), declare::tool_names(&menu, server))).collect();
    let script = Script { source, servers: named };
    let cancelled = caller.cancelled.clone();
    let outcome = context
        .code_mode
        .run(script, &host, async move { cancelled.cancelled().await })
        .await
        .map_err(|error| Failure::said(crate::supervisor::upstream::chain(&error)))?;
    answer(context, outcome, record)
}

fn answer(context: &Context, outcome: Outcome, record: CallId) -> Result<Reply, Failure> {
    let Outcome { ending, logs, calls } = outcome;
    let mut structured = json!({
        "execution_id": record,
        "logs": logs,
        "calls": calls.iter().take(CALLS_SHOWN_MAX).map(call).collect::<Vec<_>>(),
    });
    if calls.len() > CALLS_SHOWN_MAX {
        structured["calls_left_out"] = json!(calls.len() - CALLS_SHOWN_MAX);
    }
    let completed = matches!(ending, Ending::Completed(_));
    match ending {
        Ending::Completed(result) => {
            structured["status"] = json!("completed");
            put_result(&mut structured, result);
        }
        Ending::Error(error) => {
            structured["status"] = json!("error");
            structured["error"] = json!(error);
        }
        Ending::Limit(limit) => {
            structured["status"] = json!("limit");
            structured["error"] =
                json!({"name": "LimitError", "message": limit_text(limit, context.code_mode.limits())});
        }
        Ending::Cancelled => return Err(Failure::said("the script was cancelled").with_status(Status::Cancelled)),
        Ending::Lost(how) => {
            structured["status"] = json!("error");
            structured["error"] =
                json!({"name": "WorkerError", "message": format!("{how}; nothing else is affected: run it again")});
        }
    }
    let text = ContentBlock::text(structured.to_string());
    let mut result = if completed { CallToolResult::success(vec![text]) } else { CallToolResult::error(vec![text]) };
    result.structured_content = Some(structured);
    Ok(Reply::CallToolResult(result))
}

/// Calls in an answer; the audit log has them all.
const CALLS_SHOWN_MAX: usize = 50;

fn call(call: &CallRecord) -> Value {
    json!({"server": call.server, "tool": call.tool, "ms": call.ms, "ok": call.ok})
}

/// The result, or its beginning where it would be too long to be read.
fn put_result(structured: &mut Value, result: Value) {
    let text = result.to_string();
    if text.len() <= RESULT_BYTES_MAX {
        structured["result"] = result;
        return;
    }
    let preview = &text[..text.floor_char_boundary(PREVIEW_BYTES)];
    structured["result"] = json!({
        "preview": preview,
        "bytes": text.len(),
        "left_out": text.len() - preview.len(),
        "hint": "The result is too long: return only what you need of it.",
    });
}

fn limit_text(limit: Limit, limits: &js_runtime::Limits) -> String {
    let raise = |setting: &str| format!("do less in one script, or have the operator raise code_mode.{setting}");
    match limit {
        Limit::Wall => format!("it ran for {} s: {}", limits.wall.as_secs(), raise("wall_seconds")),
        Limit::Cpu => format!("it used {} s of CPU: {}", limits.cpu.as_secs(), raise("cpu_seconds")),
        Limit::Heap => format!("it used {} MiB of memory: {}", limits.heap_bytes >> 20, raise("heap_bytes")),
        Limit::Result => {
            format!("its result is longer than {} bytes: {}", limits.result_bytes_max, raise("result_bytes_max"))
        }
        Limit::Calls => format!("it made more than {} calls: {}", limits.calls_max, raise("calls_max")),
        Limit::Script => {
            format!("it is longer than {} bytes: {}", limits.script_bytes_max, raise("script_bytes_max"))
        }
    }
}
