//! `mcp-broker session`.

use std::process::ExitCode;

use anyhow::bail;
use clap::Subcommand;
use http::Method;
use serde_json::{Value, json};

use super::{Global, broker::Broker, output};

/// List, make and end sessions.
#[derive(Debug, Subcommand)]
pub(super) enum SessionCommand {
    /// List sessions that have not ended, most recently used first
    #[command(visible_alias = "list")]
    Ls,
    /// Show a session and its servers
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
    outcome.map(|()| ExitCode::SUCCESS)
}

async fn answer(broker: &Broker, command: SessionCommand) -> anyhow::Result<()> {
    match command {
        SessionCommand::Ls => list(&broker.ask(Method::GET, "/v1/sessions", None).await?),
        SessionCommand::Show { session } => {
            let id = id_of(broker, &session).await?;
            show(&broker.ask(Method::GET, &format!("/v1/sessions/{id}"), None).await?);
        }
        SessionCommand::New { name, server } => {
            let servers: serde_json::Map<String, Value> =
                server.into_iter().map(|server| (server, json!({}))).collect();
            let body = json!({"name": name, "servers": servers});
            let made = broker.ask(Method::POST, "/v1/sessions", Some(body)).await?;
            output::say(format!("id:    {}", text(&made, "id")));
            output::say(format!(
                "url:   {}",
                made["mcp_url"].as_str().unwrap_or("none: `mcp-broker serve` is not running")
            ));
            output::say(format!("token: {}", text(&made, "mcp_token")));
        }
        SessionCommand::End { session } => {
            let id = id_of(broker, &session).await?;
            broker.ask(Method::DELETE, &format!("/v1/sessions/{id}"), None).await?;
            output::say(format!("session {session} has ended"));
        }
    }
    Ok(())
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
    for server in session["servers"].as_array().into_iter().flatten() {
        let tools = server["tools"].as_array().map_or(0, Vec::len);
        output::say(format!("server {}: {}, {tools} tools listed", text(server, "name"), text(server, "state")));
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("-")
}
