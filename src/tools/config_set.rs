//! `mcp-config-set`: a server's config, for this session.

use std::sync::Arc;

use rmcp::model::{CallToolResult, ContentBlock, JsonObject};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    Context, Reply,
    add::{entry_named, keep_secrets},
    failure::Failure,
    needs::split,
    reach::key_of,
};
use crate::{
    catalog::{Entry, config_schema::CONFIG_BYTES_MAX, spelling},
    ids::SessionId,
    session::Session,
};

#[derive(Deserialize)]
struct Arguments {
    #[serde(alias = "name")]
    server: String,
    config: Map<String, Value>,
}

pub(super) async fn run(
    context: &Arc<Context>,
    session: &Arc<Session>,
    arguments: JsonObject,
    handle: Option<SessionId>,
) -> Result<Reply, Failure> {
    let arguments: Arguments = serde_json::from_value(Value::Object(arguments)).map_err(|error| {
        Failure::said(format!("mcp-config-set takes `server` (text) and `config` (an object): {error}"))
    })?;
    let entry = entry_named(context, session, &arguments.server)?;
    if entry.shared {
        return Err(Failure::refused(format!(
            "server `{}` is shared by all sessions: its config is the operator's",
            entry.name
        )));
    }
    if Value::Object(arguments.config.clone()).to_string().len() > CONFIG_BYTES_MAX {
        return Err(Failure::said(format!("the config is larger than {CONFIG_BYTES_MAX} bytes")));
    }
    let lock = session.server_lock(&entry.name);
    let _one_change_at_a_time = lock.lock().await;
    let given = split(&entry, arguments.config).checked(&entry.name)?;
    check(context, &entry, &given.config)?;
    let secrets = keep_secrets(context, session, Some(&given)).await?;
    context.sessions.put_config(session, &entry.name, given.config.clone()).await?;
    let key = key_of(session, &entry);
    let restarted = match context.supervisor.stop(&key) {
        Some(running) => {
            running.gone().await;
            true
        }
        None => false,
    };
    context.supervisor.forgive(&key);
    Ok(Reply::CallToolResult(answer(&entry, &given.config, &secrets, restarted, handle)))
}

fn check(context: &Context, entry: &Entry, config: &Map<String, Value>) -> Result<(), Failure> {
    let Some(schema) = &entry.config else {
        return Ok(());
    };
    let mut whole = context.server_config.get(&entry.name).cloned().unwrap_or_default();
    whole.extend(config.clone());
    let problems = schema.problems(&Value::Object(whole));
    if problems.is_empty() {
        return Ok(());
    }
    let text = format!(
        "The config of server `{}` was not changed:\n- {}\nIts schema is {}",
        entry.name,
        problems.join("\n- "),
        schema.as_value()
    );
    Err(Failure::said_with(text, json!({"server": entry.name, "problems": problems})))
}

fn answer(
    entry: &Entry,
    config: &Map<String, Value>,
    secrets: &[String],
    restarted: bool,
    handle: Option<SessionId>,
) -> CallToolResult {
    let mut text = format!("The config of server `{}` is set: {}.", entry.name, names(config));
    if !secrets.is_empty() {
        text.push_str(&format!(" Kept encrypted, as secrets of this session: {}.", secrets.join(", ")));
    }
    let unknown = spelling::unknown(entry, config);
    text.push_str(&about_unknown(&unknown));
    if restarted {
        text.push_str(" It was running and starts again with it at the next call.");
    }
    let mut structured = json!({
        "server": entry.name, "config": masked(config), "secrets": secrets, "restarted": restarted,
    });
    if !unknown.is_empty() {
        structured["unknown_config"] = json!(unknown);
    }
    if let Some(handle) = handle {
        text.push_str(&format!(" Give `session`: \"{handle}\" with the calls that follow."));
        structured["session"] = json!(handle);
    }
    let mut result = CallToolResult::success(vec![ContentBlock::text(text)]);
    result.structured_content = Some(structured);
    result
}

/// A catalog's schema is somebody else's and may lack something, so what it does not name is taken nevertheless.
pub(super) fn about_unknown(unknown: &[String]) -> String {
    if unknown.is_empty() {
        String::new()
    } else {
        format!(" {}. What is not known was kept and may have no effect.", unknown.join("; "))
    }
}

fn names(config: &Map<String, Value>) -> String {
    if config.is_empty() { "empty".to_owned() } else { config.keys().cloned().collect::<Vec<_>>().join(", ") }
}

/// What may be a credential is not said again, whatever the catalog calls it.
fn masked(config: &Map<String, Value>) -> Value {
    crate::audit::without_secrets(&Value::Object(config.clone()))
}
