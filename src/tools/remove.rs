//! `mcp-remove`: takes a server out of the session.

use std::sync::Arc;

use rmcp::model::{CallToolResult, ContentBlock, JsonObject};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Context, Reply, failure::Failure, find::shortened, reach::key_of};
use crate::{ids::ServerName, session::Session};

#[derive(Deserialize)]
struct Arguments {
    #[serde(alias = "server")]
    name: String,
}

pub(super) async fn run(
    context: &Arc<Context>,
    session: &Arc<Session>,
    arguments: JsonObject,
) -> Result<Reply, Failure> {
    let arguments: Arguments = serde_json::from_value(Value::Object(arguments))
        .map_err(|error| Failure::said(format!("mcp-remove takes `name` (text): {error}")))?;
    let not_on = || {
        let on: Vec<String> = session.servers().iter().map(|added| added.server.to_string()).collect();
        let what = if on.is_empty() { "no server is".to_owned() } else { format!("{} are", on.join(", ")) };
        Failure::said(format!("server `{}` is not on in this session; {what}", shortened(&arguments.name, 80)))
    };
    let server: ServerName = arguments.name.trim().parse().map_err(|_| not_on())?;
    let lock = session.server_lock(&server);
    let _one_change_at_a_time = lock.lock().await;
    let added = session.server(&server).ok_or_else(not_on)?;
    if added.fixed {
        return Err(Failure::refused(format!(
            "server `{server}` was put into every session by the operator and stays"
        )));
    }
    context.sessions.remove_server(session, &server).await?;
    if let Some(entry) = context.entry(session, &server).filter(|entry| !entry.shared) {
        context.supervisor.stop(&key_of(session, &entry));
    }
    let mut result = CallToolResult::success(vec![ContentBlock::text(format!(
        "Server `{server}` is off and its tools are gone. Its config is kept."
    ))]);
    result.structured_content = Some(json!({"server": server, "removed": true}));
    Ok(Reply::CallToolResult(result))
}
