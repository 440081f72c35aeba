//! `mcp-broker session`.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use clap::Subcommand;
use http::Method;
use serde_json::{Value, json};

use super::{
    Global,
    broker::Broker,
    output::{self, items},
    profile,
};

/// The exit code for calls that ended otherwise when they were run again.
const DIFFERS: u8 = 5;

/// List, make, hand over, copy and end sessions.
#[derive(Debug, Subcommand)]
pub(super) enum SessionCommand {
    /// List sessions that have not ended, most recently used first
    #[command(visible_alias = "list")]
    Ls,
    /// Show a session: its servers, their config without secrets, its code tools, its last calls
    Show {
        /// Its id or name
        session: String,
    },
    /// Make a session, and print its URL and token once
    New {
        /// A name to find it by
        #[arg(long)]
        name: Option<String>,
        /// A server to add
        #[arg(long, value_name = "NAME")]
        server: Vec<String>,
        /// A server's config, as JSON
        #[arg(long, value_name = "SERVER={…}")]
        server_config: Vec<String>,
        /// Text to find it by; several may have it
        #[arg(long)]
        label: Option<String>,
        /// Seconds after which it ends by itself, used or not
        #[arg(long, value_name = "SECONDS")]
        ttl: Option<u64>,
    },
    /// Print a session's URL and a new token, so that another client can go on with it; the old token is void
    Resume {
        /// Its id or name
        session: String,
    },
    /// Give a session a name
    Rename {
        /// Its id or name
        session: String,
        /// The new name
        name: String,
    },
    /// Write a session down, for `import`: its servers, config and code tools, and the names of its secrets
    Export {
        /// Its id or name
        session: String,
        /// Where to, instead of standard output
        file: Option<PathBuf>,
    },
    /// Make a session from what `export` wrote, and print its URL and token once
    Import {
        /// The file, or - for standard input
        file: PathBuf,
        /// A name in place of the one in the file
        #[arg(long)]
        name: Option<String>,
    },
    /// Run a session's recorded calls again in a fresh session, and show what differs
    ///
    /// The calls have whatever effect they have. Exits with 5 if an outcome is another one.
    Replay {
        /// Its id or name; it may have ended
        session: String,
        /// Only show what would be run
        #[arg(long)]
        dry_run: bool,
    },
    /// End a session: its servers stop, its history stays
    End {
        /// Its id or name
        session: String,
    },
}

pub(super) async fn run(global: &Global, command: SessionCommand) -> anyhow::Result<ExitCode> {
    let broker = Broker::find(global.settings()?).await?;
    let outcome = answer(&broker, command).await;
    broker.close().await;
    outcome
}

async fn answer(broker: &Broker, command: SessionCommand) -> anyhow::Result<ExitCode> {
    match command {
        SessionCommand::Ls => list(&broker.ask(Method::GET, "/v1/sessions", None).await?),
        SessionCommand::Show { session } => {
            let id = id_of(broker, &session).await?;
            show(&broker.ask(Method::GET, &format!("/v1/sessions/{id}"), None).await?);
        }
        SessionCommand::New { name, server, server_config, label, ttl } => {
            let named = profile::servers(&server, &server_config, &[])?;
            let mut servers = serde_json::Map::new();
            for server in items(&named) {
                let config = server.get("config").cloned().unwrap_or_else(|| json!({}));
                // One that is named twice has its config where it is first.
                servers.entry(text(server, "name")).or_insert(config);
            }
            let body = json!({"name": name, "label": label, "ttl": ttl, "servers": servers});
            say_how_to_connect(&broker.ask(Method::POST, "/v1/sessions", Some(body)).await?);
        }
        SessionCommand::Resume { session } => {
            let id = id_of(broker, &session).await?;
            say_how_to_connect(&broker.ask(Method::POST, &format!("/v1/sessions/{id}/resume"), None).await?);
        }
        SessionCommand::Rename { session, name } => {
            let id = id_of(broker, &session).await?;
            let body = Some(json!({"name": name}));
            broker.ask(Method::PATCH, &format!("/v1/sessions/{id}"), body).await?;
            output::say(format!("session {id} is called {name}"));
        }
        SessionCommand::Export { session, file } => {
            let id = id_of(broker, &session).await?;
            let document = broker.ask(Method::GET, &format!("/v1/sessions/{id}/export"), None).await?;
            let written = serde_json::to_string_pretty(&document)?;
            match file {
                None => output::say(written),
                Some(file) => std::fs::write(&file, written + "\n")
                    .with_context(|| format!("could not write {}", file.display()))?,
            }
        }
        SessionCommand::Import { file, name } => {
            let mut document = read(&file)?;
            if let Some(name) = name {
                document["name"] = json!(name);
            }
            say_how_to_connect(&broker.ask(Method::POST, "/v1/sessions/import", Some(document)).await?);
        }
        SessionCommand::Replay { session, dry_run } => {
            let path = format!("/v1/sessions/{}/replay", super::encoded(&session));
            let answer = broker.ask(Method::POST, &path, Some(json!({"dry_run": dry_run}))).await?;
            return Ok(show_replay(&answer));
        }
        SessionCommand::End { session } => {
            let id = id_of(broker, &session).await?;
            broker.ask(Method::DELETE, &format!("/v1/sessions/{id}"), None).await?;
            output::say(format!("session {session} has ended"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A session's id, from its id or its name.
pub(super) async fn id_of(broker: &Broker, wanted: &str) -> anyhow::Result<String> {
    let answer = broker.ask(Method::GET, "/v1/sessions", None).await?;
    let sessions = answer["sessions"].as_array().cloned().unwrap_or_default();
    let named = sessions.iter().find(|session| session["id"] == wanted || session["name"] == wanted);
    match named {
        Some(session) => Ok(text(session, "id").to_owned()),
        None => bail!("there is no session `{wanted}`, or it has ended: `mcp-broker session ls` lists them"),
    }
}

/// The session that is meant: the one that is named, or the only one there is.
pub(super) async fn chosen(broker: &Broker, wanted: Option<&str>) -> anyhow::Result<String> {
    if let Some(wanted) = wanted {
        return id_of(broker, wanted).await;
    }
    let answer = broker.ask(Method::GET, "/v1/sessions", None).await?;
    let sessions: Vec<&Value> = items(&answer["sessions"]).collect();
    match sessions.as_slice() {
        [session] => Ok(text(session, "id").to_owned()),
        [] => bail!("there is no session: `mcp-broker session new --server NAME` makes one"),
        several => {
            let names = several.iter().map(|session| session["name"].as_str().unwrap_or(text(session, "id")));
            bail!("there are several sessions: name one with --session ({})", names.collect::<Vec<_>>().join(", "))
        }
    }
}

fn list(answer: &Value) {
    let rows: Vec<Vec<String>> = answer["sessions"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|session| {
            ["id", "name", "kind", "principal", "used_at"].iter().map(|key| text(session, key).to_owned()).collect()
        })
        .collect();
    output::table(&["ID", "NAME", "KIND", "PRINCIPAL", "LAST USED"], &rows);
}

fn show(session: &Value) {
    for key in ["id", "name", "kind", "principal", "created_at", "used_at"] {
        output::say(format!("{key}: {}", text(session, key)));
    }
    for server in items(&session["servers"]) {
        let tools = server["tools"].as_array().map_or(0, Vec::len);
        output::say(format!("server {}: {}, {tools} tools listed", text(server, "name"), text(server, "state")));
    }
    for (server, config) in session["configs"].as_object().into_iter().flatten() {
        output::say(format!("config {server}: {config}"));
    }
    for secret in items(&session["secrets"]) {
        output::say(format!("secret {}: set", secret.as_str().unwrap_or("-")));
    }
    for (name, servers) in session["code_tools"].as_object().into_iter().flatten() {
        let servers: Vec<&str> = items(servers).filter_map(Value::as_str).collect();
        output::say(format!("tool code-mode-{name}: scripts that call {}", servers.join(", ")));
    }
    for call in items(&session["calls"]) {
        let server = call["server"].as_str().map(|server| format!("{server}: ")).unwrap_or_default();
        let (at, kind, name) = (text(call, "opened_at"), text(call, "kind"), text(call, "name"));
        output::say(format!("call {at} {kind} {server}{name}: {}", call["status"].as_str().unwrap_or("open")));
    }
}

/// One line for each call, and two more for one that ended otherwise.
fn show_replay(answer: &Value) -> ExitCode {
    let mut differs = false;
    for step in items(&answer["steps"]) {
        let server = step["server"].as_str().map(|server| format!("{server}: ")).unwrap_or_default();
        let what = format!("{server}{} {}", text(step, "name"), step["arguments"].as_str().unwrap_or("{}"));
        match (step["skipped"].as_str(), step["same"].as_bool()) {
            (Some(why), _) => output::say(format!("skipped  {what}: {why}")),
            (None, None) => output::say(format!("would    {what}")),
            (None, Some(true)) => output::say(format!("same     {what}")),
            (None, Some(false)) => {
                differs = true;
                output::say(format!("differs  {what}"));
                for when in ["then", "now"] {
                    let outcome = &step[when];
                    let told = outcome["error"].as_str().or(outcome["result"].as_str()).unwrap_or_default();
                    output::say(format!("  {when:<5}  {}: {told}", text(outcome, "status")));
                }
            }
        }
    }
    if differs { ExitCode::from(DIFFERS) } else { ExitCode::SUCCESS }
}

pub(super) fn say_how_to_connect(session: &Value) {
    output::say(format!("id:    {}", text(session, "id")));
    let url = session["mcp_url"].as_str().unwrap_or("none: `mcp-broker serve` is not running");
    output::say(format!("url:   {url}"));
    output::say(format!("token: {}", text(session, "mcp_token")));
    if let Some(at) = session["expires_at"].as_str() {
        output::say(format!("ends:  {at}"));
    }
    for server in items(&session["servers"]) {
        for unknown in items(&server["unknown_config"]).filter_map(Value::as_str) {
            output::note(format!("note: of {}, {unknown}. It was kept and may have no effect.", text(server, "name")));
        }
    }
}

fn read(file: &Path) -> anyhow::Result<Value> {
    let from = || format!("could not read {}", file.display());
    let written = if file == Path::new("-") {
        std::io::read_to_string(std::io::stdin()).with_context(from)?
    } else {
        std::fs::read_to_string(file).with_context(from)?
    };
    serde_json::from_str(&written).with_context(|| format!("{} is no session that was exported", file.display()))
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("-")
}
