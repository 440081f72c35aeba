//! `mcp-broker status`.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use http::Method;
use serde_json::{Value, json};

use super::{Global, broker::Broker, output, session::id_of};

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Only the servers of this session, by id or name
    #[arg(long, value_name = "SESSION")]
    session: Option<String>,
    /// How it is printed
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// Exit with 1 if no broker is running, and print nothing if one is
    #[arg(long, conflicts_with_all = ["session", "format"])]
    check: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Table,
    /// One object
    Json,
}

pub(super) async fn run(global: &Global, args: StatusArgs) -> anyhow::Result<ExitCode> {
    let settings = global.settings()?;
    let folder = settings.data_folder.clone();
    let running = Broker::running(&settings).await;
    if args.check {
        let broker = running.context("no broker is running")?;
        broker.ask_once(Method::GET, "/v1/status", None).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let Some(broker) = running else {
        match args.format {
            Format::Json => output::say(json!({"running": false, "data_folder": folder}).to_string()),
            Format::Table => {
                output::say(format!("data folder: {}", folder.display()));
                output::say("broker:      not running");
            }
        }
        return Ok(ExitCode::SUCCESS);
    };
    let mut status = broker.ask(Method::GET, "/v1/status", None).await?;
    if let Some(session) = &args.session {
        let id = id_of(&broker, session).await?;
        if let Some(servers) = status["running"].as_array_mut() {
            servers.retain(|server| server["session"] == id.as_str());
        }
    }
    match args.format {
        Format::Json => {
            let servers = status["running"].take();
            status["servers"] = servers;
            status["running"] = json!(true);
            status["data_folder"] = json!(folder);
            output::say(serde_json::to_string_pretty(&status)?);
        }
        Format::Table => {
            output::say(format!("data folder: {}", folder.display()));
            show(&status);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn show(status: &Value) {
    output::say(format!(
        "broker:      {} running as process {}",
        status["version"].as_str().unwrap_or("?"),
        status["pid"]
    ));
    output::say(format!("listening:   {}", status["url"].as_str().unwrap_or("unix socket only")));
    output::say(format!("since:       {}", status["started_at"].as_str().unwrap_or("?")));
    output::say(format!("sessions:    {}", status["sessions"]));
    output::say(format!("instances:   {}", status["instances"]));
    output::say(format!(
        "catalog:     {} servers, {} problems",
        status["catalog"]["servers"], status["catalog"]["problems"]
    ));
    let text = |server: &Value, key: &str| server[key].as_str().unwrap_or("shared").to_owned();
    let rows: Vec<Vec<String>> = status["running"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|server| ["server", "state", "session"].map(|key| text(server, key)).to_vec())
        .collect();
    if !rows.is_empty() {
        output::say("");
        output::table(&["SERVER", "STATE", "SESSION"], &rows);
    }
}
