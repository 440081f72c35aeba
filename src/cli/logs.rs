//! `mcp-broker logs`.

use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, ValueEnum};
use http::Method;
use serde_json::Value;

use super::{Global, broker::Broker, encoded, output, session::id_of};

/// How long one question for news waits.
const WAIT_SECONDS: u32 = 30;

/// Show what servers wrote to their standard error, and when they started and ended.
#[derive(Debug, Args)]
pub(super) struct LogsArgs {
    /// Of this server only
    #[arg(value_name = "SERVER")]
    server: Option<String>,
    /// Of this session only, by id or name
    #[arg(long, value_name = "SESSION")]
    session: Option<String>,
    /// The newest so many lines
    #[arg(long, short = 'n', visible_alias = "tail", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// Go on with new lines as they are written, until interrupted
    #[arg(long, short = 'f')]
    follow: bool,
    /// How lines are printed
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Table,
    /// One object a line
    Jsonl,
}

/// A line of a server's, or an event of its life.
struct Entry {
    at: String,
    session: String,
    server: String,
    text: String,
    value: Value,
}

pub(super) async fn run(global: &Global, args: LogsArgs) -> anyhow::Result<ExitCode> {
    let settings = global.settings()?;
    let broker = match Broker::running(&settings).await {
        Some(running) => running,
        None if args.follow => {
            bail!(
                "no broker is running on this data folder, so there is nothing to follow: `mcp-broker serve` starts one"
            )
        }
        None => Broker::find(settings).await?,
    };
    let outcome = show(&broker, &args).await;
    broker.close().await;
    outcome.map(|()| ExitCode::SUCCESS)
}

async fn show(broker: &Broker, args: &LogsArgs) -> anyhow::Result<()> {
    let session = match &args.session {
        Some(session) => Some(id_of(broker, session).await?),
        None => None,
    };
    let mut filters = String::new();
    for (name, value) in [("session", &session), ("server", &args.server)] {
        if let Some(value) = value {
            filters.push_str(&format!("&{name}={}", encoded(value)));
        }
    }
    let limit = args.limit;
    let end = broker.ask(Method::GET, "/v1/audit?after=9223372036854775807", None).await?;
    let lines = broker.ask(Method::GET, &format!("/v1/logs?limit={limit}{filters}"), None).await?;
    let events = broker.ask(Method::GET, &format!("/v1/audit?kind=instance&limit={limit}{filters}"), None).await?;
    let mut entries: Vec<Entry> = entries(&lines["lines"], line);
    entries.extend(self::entries(&events["records"], event));
    entries.sort_by(|one, other| one.at.cmp(&other.at));
    let skipped = entries.len().saturating_sub(limit as usize);
    entries.iter().skip(skipped).for_each(|entry| print(args.format, entry));
    if args.follow {
        let (lines, events) = (lines["last"].as_u64().unwrap_or(0), end["end"].as_i64().unwrap_or(0));
        follow(broker, args.format, &filters, lines, events).await?;
    }
    Ok(())
}

/// Waits for lines and for events at the same time, and prints whatever comes.
async fn follow(
    broker: &Broker,
    format: Format,
    filters: &str,
    mut line_seen: u64,
    mut event_seen: i64,
) -> anyhow::Result<()> {
    let lines = async {
        loop {
            let path = format!("/v1/logs?after={line_seen}&wait={WAIT_SECONDS}{filters}");
            let answer = broker.ask(Method::GET, &path, None).await?;
            entries(&answer["lines"], line).iter().for_each(|entry| print(format, entry));
            line_seen = answer["last"].as_u64().unwrap_or(line_seen);
        }
    };
    let events = async {
        loop {
            let path = format!("/v1/audit?kind=instance&after={event_seen}&wait={WAIT_SECONDS}{filters}");
            let answer = broker.ask(Method::GET, &path, None).await?;
            entries(&answer["records"], event).iter().for_each(|entry| print(format, entry));
            event_seen = answer["last_seq"].as_i64().unwrap_or(event_seen);
        }
    };
    tokio::select! {
        ended = lines => ended,
        ended = events => ended,
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

fn entries(list: &Value, read: fn(&Value) -> Entry) -> Vec<Entry> {
    list.as_array().into_iter().flatten().map(read).collect()
}

fn line(value: &Value) -> Entry {
    let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    Entry { at: text("at"), session: text("session"), server: text("server"), text: text("text"), value: value.clone() }
}

fn event(value: &Value) -> Entry {
    let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let status = value["status"].as_str().unwrap_or("open");
    let error = value["error"].as_str().map(|error| format!(": {error}")).unwrap_or_default();
    let said =
        if status == "success" { format!("[{}]", text("name")) } else { format!("[{} {status}{error}]", text("name")) };
    Entry { at: text("opened_at"), session: text("session"), server: text("server"), text: said, value: value.clone() }
}

fn print(format: Format, entry: &Entry) {
    match format {
        Format::Jsonl => output::say(entry.value.to_string()),
        Format::Table => {
            let at = entry.at.get(..19).unwrap_or(&entry.at).replace('T', " ");
            let session: String = entry.session.chars().take(12).collect();
            output::say(format!("{at} {session} {}: {}", entry.server, output::plain(&entry.text)));
        }
    }
}
