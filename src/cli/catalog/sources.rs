//! `mcp-broker catalog ls`, `add`, `import`, `update` and `remove`.

use std::{
    io::{IsTerminal as _, stderr},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use clap::Args;
use futures_util::future::{Either, select};
use http::Method;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::cli::{Global, broker::Broker, encoded, output};

/// How often a bar moves.
const LOOK_EVERY: Duration = Duration::from_millis(150);

/// Problems of one source that are printed.
const PROBLEMS_SHOWN: usize = 5;

#[derive(Debug, Args)]
pub(in crate::cli) struct AddArgs {
    /// An https address (of a catalog file, a server.json, or a registry's listing), a file, or a folder
    location: String,
    /// What to call it [default: made from the location]
    #[arg(long)]
    name: Option<String>,
    /// It is an MCP registry; known by itself where the address ends with `/servers`
    #[arg(long)]
    registry: bool,
    /// Its entries may replace built-in ones
    #[arg(long)]
    replace: bool,
}

pub(super) async fn list(global: &Global) -> anyhow::Result<ExitCode> {
    let broker = Broker::find(global.settings()?).await?;
    show(&broker.ask_once(Method::GET, "/v1/catalog/sources", None).await?);
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn add(global: &Global, args: AddArgs) -> anyhow::Result<ExitCode> {
    let mut body = json!({"location": whole(&args.location)?, "name": args.name, "replace": args.replace});
    if args.registry {
        body["kind"] = json!("registry");
    }
    change(global, Method::POST, "/v1/catalog/sources", body, "added").await
}

pub(super) async fn import(global: &Global, location: &str) -> anyhow::Result<ExitCode> {
    change(global, Method::POST, "/v1/catalog/import", json!({"location": whole(location)?}), "has").await
}

pub(super) async fn update(global: &Global, sources: &[String]) -> anyhow::Result<ExitCode> {
    change(global, Method::POST, "/v1/catalog/update", json!({"sources": sources}), "has").await
}

pub(super) async fn remove(global: &Global, name: &str) -> anyhow::Result<ExitCode> {
    let broker = Broker::find(global.settings()?).await?;
    let path = format!("/v1/catalog/sources/{}", encoded(name));
    broker.ask_once(Method::DELETE, &path, None).await?;
    output::say(format!("{name} was removed"));
    Ok(ExitCode::SUCCESS)
}

/// A path is the broker's to read, who may have another working folder.
fn whole(location: &str) -> anyhow::Result<String> {
    if location.contains("://") {
        return Ok(location.to_owned());
    }
    Ok(std::path::absolute(Path::new(location))?.display().to_string())
}

/// Asks for a change, and says what each source has now.
async fn change(global: &Global, method: Method, path: &str, body: Value, verb: &str) -> anyhow::Result<ExitCode> {
    let broker = Broker::find(global.settings()?).await?;
    let answer = with_bar(&broker, broker.ask(method, path, Some(body))).await;
    broker.close().await;
    let answer = answer?;
    let sources = rows(&answer);
    if sources.is_empty() {
        output::say("there is no source to ask: `mcp-broker catalog add` adds one");
    }
    let mut failed = false;
    for source in sources {
        let name = text(source, "name");
        if let Some(error) = source["error"].as_str() {
            failed = true;
            output::note(format!("{name} was not updated and keeps its {} servers: {error}", source["servers"]));
            continue;
        }
        output::say(format!("{name} {verb} {} servers, {} problems", source["servers"], source["problems"]));
        let problems: Vec<&str> =
            source["first_problems"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for problem in problems.iter().take(PROBLEMS_SHOWN) {
            output::note(format!("  {problem}"));
        }
        let more = source["problems"].as_u64().unwrap_or_default().saturating_sub(PROBLEMS_SHOWN as u64);
        if more > 0 {
            output::note(format!("  and {more} more, which `mcp-broker catalog validate` shows of a file"));
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Waits for `answer`, and on a terminal shows how far it is.
async fn with_bar(broker: &Broker, answer: impl Future<Output = anyhow::Result<Value>>) -> anyhow::Result<Value> {
    if !stderr().is_terminal() {
        return answer.await;
    }
    let bar = ProgressBar::new(1);
    if let Ok(style) = ProgressStyle::with_template("{spinner} [{bar:24}] {pos}/{len} {msg}") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.enable_steady_tick(LOOK_EVERY);
    let looking = async {
        loop {
            if let Ok(answer) = broker.ask(Method::GET, "/v1/catalog/progress", None).await
                && let (Some(number), Some(of)) =
                    (answer["progress"]["number"].as_u64(), answer["progress"]["of"].as_u64())
            {
                bar.set_length(of);
                bar.set_position(number - 1);
                let servers = &answer["progress"]["servers"];
                let name = text(&answer["progress"], "source");
                bar.set_message(if *servers == json!(0) {
                    name.to_owned()
                } else {
                    format!("{name}: {servers} servers")
                });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::pin!(answer, looking);
    let answer = match select(answer, looking).await {
        Either::Left((answer, _)) => answer,
        Either::Right((never, _)) => never,
    };
    bar.finish_and_clear();
    answer
}

fn show(answer: &Value) {
    let row = |source: &Value| {
        let count = |key: &str| source[key].as_u64().map_or_else(String::new, |count| count.to_string());
        vec![
            text(source, "name").to_owned(),
            text(source, "kind").to_owned(),
            text(source, "trust").to_owned(),
            count("servers"),
            count("used"),
            count("problems"),
            minutes(text(source, "updated_at")),
            text(source, "location").to_owned(),
        ]
    };
    let rows = rows(answer);
    let table: Vec<Vec<String>> = rows.iter().map(|source| row(source)).collect();
    output::table(&["SOURCE", "KIND", "TRUST", "SERVERS", "USED", "PROBLEMS", "UPDATED", "LOCATION"], &table);
    for source in rows {
        if let Some(error) = source["error"].as_str() {
            let at = minutes(text(source, "checked_at"));
            output::say(format!("\n{}: the last update, at {at}, failed: {error}", text(source, "name")));
        }
    }
}

fn rows(answer: &Value) -> Vec<&Value> {
    answer["sources"].as_array().into_iter().flatten().collect()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// A time without its seconds.
fn minutes(time: &str) -> String {
    time.get(..16).map(|minutes| minutes.replace('T', " ")).unwrap_or_default()
}
