//! `mcp-broker tool`.

mod arguments;

use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Subcommand, ValueEnum};
use http::Method;
use serde_json::{Value, json};

use super::{Global, broker::Broker, encoded, output, session::chosen};
use arguments::Given;

/// The exit code for a tool that ran and said that it failed.
const TOOL_FAILED: u8 = 6;

/// Look at the tools of a session and call them, as its agent would.
#[derive(Debug, Subcommand)]
pub(super) enum ToolCommand {
    /// List a session's tools
    #[command(visible_alias = "list")]
    Ls {
        #[command(flatten)]
        at: At,
        /// Of this server only
        #[arg(long, value_name = "NAME")]
        server: Option<String>,
    },
    /// Show what a tool does and takes
    Inspect {
        /// As it is listed, or as its server calls it where only one has it
        name: String,
        #[command(flatten)]
        at: At,
    },
    /// Call a tool; the call is recorded as any other
    ///
    /// Values are read by the tool's schema: `count=3` is a number where it says so. Exits with 6 if the tool ran and
    /// failed.
    Call {
        /// As it is listed, or as its server calls it where only one has it
        name: String,
        /// `key=value`, or `key:=JSON`; a value can be @FILE, or - for standard input; lists take a key several times
        #[arg(value_name = "KEY=VALUE")]
        values: Vec<String>,
        /// All arguments as one object: JSON, @FILE, or - for standard input; what is named besides comes over it
        #[arg(long, value_name = "JSON")]
        json: Option<String>,
        #[command(flatten)]
        at: At,
    },
}

#[derive(Debug, Args)]
pub(super) struct At {
    /// The session, by id or name [default: the only one there is]
    #[arg(long, value_name = "SESSION")]
    session: Option<String>,
    /// How it is printed
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people
    Table,
    /// As the broker has it
    Json,
}

pub(super) async fn run(global: &Global, command: ToolCommand) -> anyhow::Result<ExitCode> {
    let broker = Broker::find(global.settings()?).await?;
    let outcome = answer(&broker, command).await;
    broker.close().await;
    outcome
}

async fn answer(broker: &Broker, command: ToolCommand) -> anyhow::Result<ExitCode> {
    match command {
        ToolCommand::Ls { at, server } => {
            let mut tools = tools(broker, &chosen(broker, at.session.as_deref()).await?).await?;
            tools.retain(|tool| server.as_ref().is_none_or(|server| tool["server"] == server.as_str()));
            match at.format {
                Format::Json => output::say(serde_json::to_string_pretty(&tools)?),
                Format::Table => {
                    let rows: Vec<Vec<String>> = tools.iter().map(row).collect();
                    output::table(&["TOOL", "SERVER", "LISTED", "DESCRIPTION"], &rows);
                }
            }
        }
        ToolCommand::Inspect { name, at } => {
            let session = chosen(broker, at.session.as_deref()).await?;
            let tool = named(broker, &session, &name).await?;
            match at.format {
                Format::Json => output::say(serde_json::to_string_pretty(&tool)?),
                Format::Table => inspect(&tool)?,
            }
        }
        ToolCommand::Call { name, values, json, at } => {
            let session = chosen(broker, at.session.as_deref()).await?;
            let given = Given::read(json.as_deref(), &values)?;
            let tool = named(broker, &session, &name).await?;
            let arguments = given.typed(&tool["inputSchema"])?;
            let body = json!({"name": tool["name"], "arguments": arguments});
            let path = format!("/v1/sessions/{session}/tools");
            let answer = broker.ask(Method::POST, &path, Some(body)).await?;
            let result = &answer["result"];
            match at.format {
                Format::Json => output::say(serde_json::to_string_pretty(result)?),
                Format::Table => show(result)?,
            }
            if result["isError"] == true {
                return Ok(ExitCode::from(TOOL_FAILED));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn tools(broker: &Broker, session: &str) -> anyhow::Result<Vec<Value>> {
    let answer = broker.ask(Method::GET, &format!("/v1/sessions/{session}/tools"), None).await?;
    Ok(answer["tools"].as_array().cloned().unwrap_or_default())
}

/// The tool that the broker takes a name for.
async fn named(broker: &Broker, session: &str, wanted: &str) -> anyhow::Result<Value> {
    let path = format!("/v1/sessions/{session}/tools?name={}", encoded(wanted));
    let mut answer = broker.ask(Method::GET, &path, None).await?;
    match answer["tools"].as_array_mut().map(std::mem::take).unwrap_or_default().as_mut_slice() {
        [tool] => Ok(tool.take()),
        [] => bail!("the session has no tool `{wanted}`: `mcp-broker tool ls` lists those that it has"),
        several => {
            let names: Vec<&str> = several.iter().filter_map(|tool| tool["name"].as_str()).collect();
            bail!("several servers have a tool `{wanted}`: name one of {}", names.join(", "))
        }
    }
}

fn row(tool: &Value) -> Vec<String> {
    let text = |key: &str| tool[key].as_str().unwrap_or("-").to_owned();
    let first = text("description").lines().next().unwrap_or_default().to_owned();
    let listed = if tool["listed"] == true { "yes" } else { "no" };
    [text("name"), text("server"), listed.to_owned(), first].map(|cell| output::plain(&cell)).to_vec()
}

/// Prints what servers have a say in.
fn say(text: impl AsRef<str>) {
    output::say(output::clean(text.as_ref()));
}

fn inspect(tool: &Value) -> anyhow::Result<()> {
    let text = |key: &str| tool[key].as_str();
    say(format!("name:        {}", text("name").unwrap_or("-")));
    say(format!("server:      {}", text("server").unwrap_or("the broker itself")));
    if let Some(title) = text("title") {
        say(format!("title:       {title}"));
    }
    for (hint, value) in tool["annotations"].as_object().into_iter().flatten() {
        say(format!("{:<13}{value}", format!("{hint}:")));
    }
    say(format!("\n{}", text("description").unwrap_or("no description")));
    say(format!("\ninput: {}", serde_json::to_string_pretty(&tool["inputSchema"])?));
    if !tool["outputSchema"].is_null() {
        say(format!("\noutput: {}", serde_json::to_string_pretty(&tool["outputSchema"])?));
    }
    Ok(())
}

/// What a person reads of a result: its text, and what else there is.
fn show(result: &Value) -> anyhow::Result<()> {
    let blocks = result["content"].as_array().cloned().unwrap_or_default();
    for block in &blocks {
        match (block["type"].as_str(), block["text"].as_str()) {
            (Some("text"), Some(text)) => say(text),
            (Some("image" | "audio"), _) => {
                let bytes = block["data"].as_str().map_or(0, |data| data.len() * 3 / 4);
                let kind = block["mimeType"].as_str().unwrap_or("data");
                say(format!("[{kind}, {bytes} bytes: --format json has it]"));
            }
            (Some("resource"), _) if block["resource"]["text"].is_string() => {
                say(block["resource"]["text"].as_str().unwrap_or_default());
            }
            _ => say(block.to_string()),
        }
    }
    if blocks.is_empty() && !result["structuredContent"].is_null() {
        say(serde_json::to_string_pretty(&result["structuredContent"])?);
    }
    Ok(())
}
