//! `mcp-add`: puts a server into the session.
//!
//! Everything is checked before anything runs, and the server is started before the session is changed, so that a failure
//! leaves nothing behind. The exception is a server whose tools are known from an earlier run: the answer comes at once,
//! with `state: starting`, and a start that fails after all is the next call's error.

use std::{collections::HashSet, sync::Arc};

use rmcp::model::{CallToolResult, ContentBlock, JsonObject};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    Context, Reply,
    config_set::about_unknown,
    failure::Failure,
    find::shortened,
    needs::{GivenConfig, split},
    reach::{ReachError, key_of, learned_key},
    signature::signature,
};
use crate::{
    caller::Caller,
    catalog::{Entry, spelling},
    ids::{ServerName, SessionId},
    secrets::Scope,
    session::{Session, menu::MenuTool},
    store::sessions::Activation,
    supervisor::Surface,
};

const TOOL_DESCRIPTION_CHARACTERS_MAX: usize = 100;

/// Signatures in one brief answer; more tools are named only.
const SIGNATURES_MAX: usize = 40;

const INSTRUCTIONS_CHARACTERS_MAX: usize = 1000;

#[derive(Deserialize)]
struct Arguments {
    #[serde(alias = "server")]
    name: String,
    #[serde(default)]
    activate: Option<Value>,
    #[serde(default)]
    config: Option<Map<String, Value>>,
    #[serde(default)]
    detail: Detail,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Detail {
    #[default]
    Brief,
    Full,
}

/// A server that was added, and how far it is.
struct Added {
    surface: Arc<Surface>,
    starting: bool,
    /// What is said of config that the entry does not name.
    unknown: Vec<String>,
}

pub(super) async fn run(
    context: &Arc<Context>,
    session: &Arc<Session>,
    caller: &Caller,
    arguments: JsonObject,
    handle: Option<SessionId>,
) -> Result<Reply, Failure> {
    let arguments: Arguments = serde_json::from_value(Value::Object(arguments)).map_err(|error| {
        Failure::said(format!(
            "mcp-add takes `name` (text), `activate` (true, false or a list of tools), `config` (an object) and `detail` \
             (brief or full): {error}"
        ))
    })?;
    let activate = match &arguments.activate {
        None | Some(Value::Null) => Activation::All,
        Some(value) => Activation::from_value(value)
            .ok_or_else(|| Failure::said("`activate` must be true, false, or a list of tool names"))?,
    };
    let detail = arguments.detail;
    let entry = entry_named(context, session, &arguments.name)?;
    check_allowed(context, &entry)?;
    let lock = session.server_lock(&entry.name);
    let _one_change_at_a_time = lock.lock().await;
    let added = add(context, session, caller, &entry, &activate, arguments.config).await?;
    Ok(Reply::CallToolResult(answer(context, session, &entry, &added, &activate, detail, handle.as_ref())))
}

/// The session's or the catalog's entry of that name, or a failure that suggests others.
pub(super) fn entry_named(context: &Context, session: &Session, name: &str) -> Result<Arc<Entry>, Failure> {
    let trimmed = name.trim();
    let unknown = || {
        let similar = context.catalog.snapshot().suggestions(trimmed);
        let hint = if similar.is_empty() {
            String::new()
        } else {
            let names: Vec<String> = similar.iter().map(ToString::to_string).collect();
            format!(" (similar: {})", names.join(", "))
        };
        Failure::said(format!(
            "there is no server `{}` in the catalog{hint}. mcp-find searches it.",
            shortened(trimmed, 80)
        ))
    };
    let server: ServerName = trimmed.parse().map_err(|_| unknown())?;
    context.entry(session, &server).ok_or_else(unknown)
}

/// Puts a server on and answers at once, with the server starting or what it still needs.
pub(super) async fn put_on(
    context: &Arc<Context>,
    session: &Arc<Session>,
    caller: &Caller,
    arguments: JsonObject,
) -> Result<Reply, Failure> {
    let arguments: Arguments = serde_json::from_value(Value::Object(arguments))
        .map_err(|error| Failure::said(format!("a server to put on has `name` and `config`: {error}")))?;
    let entry = entry_named(context, session, &arguments.name)?;
    check_allowed(context, &entry)?;
    let lock = session.server_lock(&entry.name);
    let _one_change_at_a_time = lock.lock().await;
    check_room(context, session, &entry)?;
    let given = arguments.config.map(|config| split(&entry, config).checked(&entry.name)).transpose()?;
    let config = match &given {
        Some(given) => over(context, &entry, given),
        None => context.config_of(session, &entry),
    };
    keep_secrets(context, session, given.as_ref()).await?;
    let needs = context.needs(Some(session.id()), &entry, &config, &[]);
    // One that is shared may serve others.
    let was_running = context.supervisor.lasting(&key_of(session, &entry)).is_some();
    let surface = if needs.is_empty() {
        context.start(session, &entry, &config, caller).await.map_err(|error| not_added(&entry, &error))?.surface()
    } else {
        None
    };
    let kept = given.map(|given| given.config).filter(|_| !entry.shared);
    if let Err(error) = context.sessions.put_server(session, &entry.name, Activation::All, kept, surface).await {
        if !was_running {
            context.supervisor.stop(&key_of(session, &entry));
        }
        return Err(error.into());
    }
    if needs.is_empty() {
        attach_when_ready(context, session, &entry, caller);
    }
    let text = format!("Server `{}` is on.", entry.name);
    let mut result = CallToolResult::success(vec![ContentBlock::text(text)]);
    result.structured_content = Some(json!({"server": entry.name}));
    Ok(Reply::CallToolResult(result))
}

fn check_allowed(context: &Context, entry: &Entry) -> Result<(), Failure> {
    match context.refusal(entry) {
        None => Ok(()),
        Some(refusal) => {
            let text = format!("Server `{}` was not added: {refusal}. mcp-find shows what can be added.", entry.name);
            Err(Failure::refused(text))
        }
    }
}

fn check_room(context: &Context, session: &Session, entry: &Entry) -> Result<(), Failure> {
    let max = context.limits.servers_per_session_max;
    if session.server(&entry.name).is_none() && session.server_count() >= max {
        return Err(Failure::refused(format!("this session has {max} servers, which is the limit: remove one first")));
    }
    Ok(())
}

async fn add(
    context: &Arc<Context>,
    session: &Arc<Session>,
    caller: &Caller,
    entry: &Arc<Entry>,
    activate: &Activation,
    config: Option<Map<String, Value>>,
) -> Result<Added, Failure> {
    let was_on = session.server(&entry.name).is_some();
    check_room(context, session, entry)?;
    if entry.shared && config.is_some() {
        return Err(Failure::refused(format!(
            "server `{}` is shared by all sessions: its config is the operator's",
            entry.name
        )));
    }
    let given = config.map(|config| split(entry, config).checked(&entry.name)).transpose()?;
    let config = match &given {
        Some(given) => over(context, entry, given),
        None => context.config_of(session, entry),
    };
    check_needs(context, session, entry, &config, given.as_ref())?;
    let changed = given.is_some() && was_on;
    let secrets = keep_secrets(context, session, given.as_ref()).await?;
    let outcome = start_and_keep(context, session, caller, entry, activate, config, given, changed).await;
    if outcome.is_err() && !was_on {
        for name in secrets {
            let _ = context.secrets.remove(Scope::Session(session.id().clone()), &name).await;
        }
    }
    outcome
}

/// The config that takes effect when `given` replaces what was set in the session.
pub(super) fn over(context: &Context, entry: &Entry, given: &GivenConfig) -> Map<String, Value> {
    let mut config = context.server_config.get(&entry.name).cloned().unwrap_or_default();
    config.extend(given.config.clone());
    config
}

fn check_needs(
    context: &Context,
    session: &Session,
    entry: &Entry,
    config: &Map<String, Value>,
    given: Option<&GivenConfig>,
) -> Result<(), Failure> {
    let secrets = given.map(|given| given.secrets.as_slice()).unwrap_or_default();
    let needs = context.needs(Some(session.id()), entry, config, secrets);
    if needs.is_empty() {
        return Ok(());
    }
    let text = format!(
        "Server `{}` was not added. It still needs:\n{}\nThen call mcp-add again.",
        entry.name,
        needs.advice(entry)
    );
    let structured = json!({"server": entry.name, "state": "not added", "needs": needs.to_value(entry)});
    Err(Failure::said_with(text, structured))
}

/// Keeps secrets that came with a config. Gives back their names.
pub(super) async fn keep_secrets(
    context: &Context,
    session: &Session,
    given: Option<&GivenConfig>,
) -> Result<Vec<String>, Failure> {
    let mut names = Vec::new();
    for (name, value) in given.iter().flat_map(|given| &given.secrets) {
        let scope = Scope::Session(session.id().clone());
        context.secrets.set(scope, name, value.clone()).await.map_err(|error| Failure::said(error.to_string()))?;
        names.push(name.clone());
    }
    Ok(names)
}

#[expect(clippy::too_many_arguments, reason = "one step of `add`, split off for length")]
async fn start_and_keep(
    context: &Arc<Context>,
    session: &Arc<Session>,
    caller: &Caller,
    entry: &Arc<Entry>,
    activate: &Activation,
    config: Map<String, Value>,
    given: Option<GivenConfig>,
    changed: bool,
) -> Result<Added, Failure> {
    let key = key_of(session, entry);
    if given.is_some() {
        // Another config may mend what failed.
        context.supervisor.forgive(&key);
    }
    if changed && let Some(running) = context.supervisor.stop(&key) {
        running.gone().await;
    }
    let started = start(context, session, caller, entry, activate, &config).await?;
    let kept = given.map(|given| given.config);
    let unknown = kept.as_ref().map(|kept| spelling::unknown(entry, kept)).unwrap_or_default();
    let surface = Some(started.surface.clone());
    let put = context.sessions.put_server(session, &entry.name, activate.clone(), kept, surface).await;
    if let Err(error) = put {
        started.take_back(context, session, entry);
        return Err(error.into());
    }
    attach_when_ready(context, session, entry, caller);
    Ok(Added { surface: started.surface, starting: started.starting, unknown })
}

/// A server that runs, or is about to, and is not on yet.
pub(super) struct Started {
    pub(super) surface: Arc<Surface>,
    pub(super) starting: bool,
    was_running: bool,
}

impl Started {
    /// Stops what was started.
    pub(super) fn take_back(&self, context: &Context, session: &Session, entry: &Entry) {
        if !self.was_running {
            context.supervisor.stop(&key_of(session, entry));
        }
    }
}

/// Starts a server that is to be on, and waits until it is known what it offers. If that fails, nothing is left running.
pub(super) async fn start(
    context: &Arc<Context>,
    session: &Arc<Session>,
    caller: &Caller,
    entry: &Arc<Entry>,
    activate: &Activation,
    config: &Map<String, Value>,
) -> Result<Started, Failure> {
    let key = key_of(session, entry);
    let was_running = context.supervisor.lasting(&key).is_some();
    let instance = context.start(session, entry, config, caller).await?;
    let known = match context.run_for(entry) {
        Ok(run) => {
            let learned_as = learned_key(entry, run, config, &capabilities_for(entry, caller));
            context.supervisor.learned(&learned_as).await
        }
        Err(_) => None,
    };
    let (surface, starting) = match (instance.surface(), known) {
        (Some(surface), _) => (surface, false),
        (None, Some(known)) => (known, true),
        (None, None) => {
            let ready = tokio::select! {
                ready = context.supervisor.ready(&key, &instance) => ready.map_err(ReachError::from),
                () = caller.cancelled.cancelled() => Err(ReachError::Cancelled),
            };
            if let Err(error) = ready {
                if !was_running {
                    context.supervisor.stop(&key);
                }
                return Err(not_added(entry, &error));
            }
            (instance.surface().unwrap_or_default(), false)
        }
    };
    if let Err(failure) = check_activation(entry, activate, &surface) {
        if !was_running && session.server(&entry.name).is_none() {
            context.supervisor.stop(&key);
        }
        return Err(failure);
    }
    Ok(Started { surface, starting, was_running })
}

fn capabilities_for(entry: &Entry, caller: &Caller) -> rmcp::model::ClientCapabilities {
    if entry.shared { Default::default() } else { caller.capabilities.clone() }
}

/// What the live server says replaces what was known of it, as soon as it says so.
pub(super) fn attach_when_ready(context: &Arc<Context>, session: &Arc<Session>, entry: &Arc<Entry>, caller: &Caller) {
    let (context, session, server) = (context.clone(), session.clone(), entry.name.clone());
    let mut caller = caller.clone();
    caller.cancelled = tokio_util::sync::CancellationToken::new();
    caller.link = crate::caller::Link::closed();
    let tasks = context.tasks.clone();
    tasks.spawn(async move {
        if let Err(error) = context.reach(&session, &server, &caller).await {
            tracing::info!(server.name = %server, %error, "a server that was added did not start");
        }
    });
}

fn not_added(entry: &Entry, error: &ReachError) -> Failure {
    let status = match error {
        ReachError::Cancelled => crate::audit::Status::Cancelled,
        _ => crate::audit::Status::Error,
    };
    let structured = json!({"server": entry.name, "state": "not added"});
    Failure::said_with(format!("Server `{}` was not added: {error}", entry.name), structured).with_status(status)
}

fn check_activation(entry: &Entry, activate: &Activation, surface: &Surface) -> Result<(), Failure> {
    let Activation::Only(wanted) = activate else { return Ok(()) };
    let unknown: Vec<&str> = wanted.iter().map(String::as_str).filter(|tool| surface.tool(tool).is_none()).collect();
    if unknown.is_empty() {
        return Ok(());
    }
    let known: Vec<&str> = surface.tools.iter().map(|tool| tool.name.as_ref()).collect();
    Err(Failure::said(format!(
        "Server `{}` was not added: it has no tool {}. Its tools are {}.",
        entry.name,
        unknown.join(", "),
        known.join(", ")
    )))
}

fn answer(
    context: &Context,
    session: &Session,
    entry: &Entry,
    added: &Added,
    activate: &Activation,
    detail: Detail,
    handle: Option<&SessionId>,
) -> CallToolResult {
    let menu = session.menu(context.with_prefixes());
    let tools: Vec<&MenuTool> = menu.tools.iter().filter(|tool| tool.server == entry.name).collect();
    // Who chose tools knows what the others are.
    let told = |tool: &MenuTool| match activate {
        Activation::Only(_) => activate.lists(&tool.tool.name),
        Activation::All | Activation::None => true,
    };
    let signed = tools.iter().filter(|tool| told(tool)).take(SIGNATURES_MAX);
    let signed: HashSet<&str> = signed.map(|tool| tool.exposed.as_str()).collect();
    let is_signed = |tool: &MenuTool| signed.contains(tool.exposed.as_str());
    let mut structured = json!({
        "server": entry.name,
        "state": if added.starting { "starting" } else { "ready" },
        "tools": tools.iter().map(|tool| tool_value(tool, detail, is_signed(tool))).collect::<Vec<_>>(),
    });
    if let Some(handle) = handle {
        structured["session"] = json!(handle);
    }
    if !added.unknown.is_empty() {
        structured["unknown_config"] = json!(added.unknown);
    }
    let prompts: Vec<&str> = menu
        .prompts
        .iter()
        .filter(|prompt| prompt.server == entry.name)
        .map(|prompt| prompt.exposed.as_str())
        .collect();
    if !prompts.is_empty() {
        structured["prompts"] = json!(prompts);
    }
    if !added.surface.resources.is_empty() {
        structured["resources"] = json!(added.surface.resources.len());
    }
    if let Some(instructions) = added.surface.instructions.as_deref().filter(|text| !text.is_empty()) {
        structured["instructions"] = json!(shortened(instructions, INSTRUCTIONS_CHARACTERS_MAX));
    }
    let mut text = headline(entry, added, &tools, handle);
    for tool in &tools {
        text.push('\n');
        text.push_str(&tool_line(tool, detail, is_signed(tool)));
    }
    let mut result = CallToolResult::success(vec![ContentBlock::text(text)]);
    result.structured_content = Some(structured);
    result
}

fn headline(entry: &Entry, added: &Added, tools: &[&MenuTool], handle: Option<&SessionId>) -> String {
    let state = if added.starting { "is on and starting" } else { "is on" };
    let mut text = format!("Server `{}` {state}, with {} tools.", entry.name, tools.len());
    text.push_str(&about_unknown(&added.unknown));
    if let Some(handle) = handle {
        text.push_str(&format!(
            " Its tools are not listed to you: call them with mcp-exec, and give `session`: \"{handle}\" with every call \
             of mcp-exec, mcp-add, mcp-config-set, mcp-list and mcp-remove."
        ));
    } else if !tools.is_empty() {
        text.push_str(" If your client does not list them, call them with mcp-exec.");
    }
    text
}

fn tool_value(tool: &MenuTool, detail: Detail, signed: bool) -> Value {
    let mut value = json!({"name": tool.exposed});
    if !tool.listed {
        value["listed"] = json!(false);
    }
    if detail == Detail::Full {
        value["inputSchema"] = Value::Object(tool.tool.input_schema.as_ref().clone());
        if let Some(output) = &tool.tool.output_schema {
            value["outputSchema"] = Value::Object(output.as_ref().clone());
        }
        if let Some(description) = &tool.tool.description {
            value["description"] = json!(description);
        }
    } else if signed {
        value["signature"] = json!(signature(&tool.exposed, &tool.tool.input_schema));
        if let Some(description) = tool.tool.description.as_deref().filter(|text| !text.trim().is_empty()) {
            value["description"] = json!(first_line(description));
        }
    }
    value
}

fn tool_line(tool: &MenuTool, detail: Detail, signed: bool) -> String {
    if detail == Detail::Full {
        let schema = Value::Object(tool.tool.input_schema.as_ref().clone());
        return format!("- {}: {}\n  {schema}", tool.exposed, tool.tool.description.as_deref().unwrap_or_default());
    }
    if !signed {
        return format!("- {}", tool.exposed);
    }
    let line = signature(&tool.exposed, &tool.tool.input_schema);
    match tool.tool.description.as_deref().map(first_line).filter(|text| !text.is_empty()) {
        Some(description) => format!("- {line}: {description}"),
        None => format!("- {line}"),
    }
}

fn first_line(description: &str) -> String {
    let line = description.trim().lines().next().unwrap_or_default();
    let sentence = line.split_inclusive(". ").next().unwrap_or(line).trim();
    shortened(sentence, TOOL_DESCRIPTION_CHARACTERS_MAX)
}
