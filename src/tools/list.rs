//! `mcp-list`: the servers that are on, and what was done with them.

use std::{fmt::Write as _, sync::Arc};

use rmcp::model::{CallToolResult, ContentBlock, JsonObject};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Context, Reply, failure::Failure, history, reach::key_of};
use crate::{
    caller::Caller,
    ids::SessionId,
    session::{AddedServer, Session, menu::Menu},
    store::sessions::SessionKind,
};

#[derive(Deserialize)]
struct Arguments {
    /// How many records of the session's history to return too.
    history: Option<u32>,
}

pub(super) async fn run(
    context: &Arc<Context>,
    session: &Arc<Session>,
    caller: &Caller,
    arguments: JsonObject,
    handle: Option<SessionId>,
) -> Result<Reply, Failure> {
    let arguments: Arguments = serde_json::from_value(Value::Object(arguments))
        .map_err(|error| Failure::said(format!("mcp-list takes `history` (a number): {error}")))?;
    context.recall(session, caller).await;
    let menu = session.menu(context.with_prefixes());
    let rows: Vec<Row> = session.servers().iter().map(|added| Row::of(context, session, added, &menu)).collect();
    let mut text = String::new();
    for row in &rows {
        let _ = writeln!(text, "{}", row.line());
    }
    if rows.is_empty() {
        text.push_str("No server is on in this session. mcp-find searches the catalog.");
    }
    if let Some(offer) = session.offer() {
        let _ = write!(text, "\n{}\n", offer.notice());
    }
    let mut structured = json!({"servers": rows.iter().map(Row::to_value).collect::<Vec<_>>()});
    if let Some(wanted) = arguments.history {
        if session.kind() == SessionKind::Principal {
            return Err(Failure::refused(
                "these servers are shared by everybody who has not begun a session, and so is what was done with them: \
                 give `session`, as mcp-add returned it, for the history of yours",
            ));
        }
        let records = history::of(context, session, wanted.clamp(1, history::RECORDS_MAX)).await?;
        let _ = write!(text, "\nHistory, the newest last:\n{}", history::lines(&records));
        structured["history"] = records.iter().map(history::to_value).collect();
    }
    if let Some(handle) = handle {
        structured["session"] = json!(handle);
    }
    let mut result = CallToolResult::success(vec![ContentBlock::text(text.trim_end())]);
    result.structured_content = Some(structured);
    Ok(Reply::CallToolResult(result))
}

struct Row {
    name: String,
    state: String,
    tools: Vec<String>,
    hidden: Vec<String>,
    fixed: bool,
    commit: Option<String>,
}

impl Row {
    fn of(context: &Context, session: &Session, added: &AddedServer, menu: &Menu) -> Self {
        let entry = context.entry(session, &added.server);
        let run = entry.as_ref().and_then(|entry| context.run_for(entry).ok());
        let commit = run.and_then(|run| context.supervisor.commit_of(run));
        let state = match &entry {
            None => "not in the catalog any more".to_owned(),
            Some(entry) => match context.supervisor.get(&key_of(session, entry)) {
                Some(instance) => instance.state().word().to_owned(),
                None => "stopped (starts when called)".to_owned(),
            },
        };
        let of_server = |listed: bool| {
            menu.tools
                .iter()
                .filter(|tool| tool.server == added.server && tool.listed == listed)
                .map(|tool| tool.exposed.clone())
                .collect()
        };
        Self {
            name: added.server.to_string(),
            state,
            tools: of_server(true),
            hidden: of_server(false),
            fixed: added.fixed,
            commit,
        }
    }

    fn line(&self) -> String {
        let mut line = format!("{}: {}", self.name, self.state);
        if let Some(commit) = &self.commit {
            let _ = write!(line, " (commit {commit})");
        }
        if !self.tools.is_empty() {
            let _ = write!(line, "; tools: {}", self.tools.join(", "));
        }
        if !self.hidden.is_empty() {
            let _ = write!(line, "; through mcp-exec only: {}", self.hidden.join(", "));
        }
        line
    }

    fn to_value(&self) -> Value {
        let mut value = json!({"name": self.name, "state": self.state, "tools": self.tools});
        if !self.hidden.is_empty() {
            value["hidden_tools"] = json!(self.hidden);
        }
        if let Some(commit) = &self.commit {
            value["commit"] = json!(commit);
        }
        if self.fixed {
            value["fixed"] = json!(true);
        }
        value
    }
}
