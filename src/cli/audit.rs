//! `mcp-broker audit`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use http::Method;
use serde_json::Value;

use super::{Global, broker::Broker, output, session::id_of};

/// The exit code for a log that is not as it was written.
const NOT_INTACT: u8 = 4;

/// Show what was done: every call, before it ran and after.
#[derive(Debug, Args)]
pub(super) struct AuditArgs {
    #[command(subcommand)]
    command: Option<AuditCommand>,
    /// Records of this session only (its id or name)
    #[arg(long, value_name = "SESSION")]
    session: Option<String>,
    /// The newest so many records
    #[arg(long, default_value_t = 50)]
    limit: u32,
    /// Print records as JSON, one a line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// Check that no event was changed or taken out
    Verify,
}

pub(super) async fn run(global: &Global, args: AuditArgs) -> anyhow::Result<ExitCode> {
    let broker = Broker::find(global.settings()?).await?;
    let outcome = answer(&broker, args).await;
    broker.close().await;
    outcome
}

async fn answer(broker: &Broker, args: AuditArgs) -> anyhow::Result<ExitCode> {
    if let Some(AuditCommand::Verify) = args.command {
        return verify(&broker.ask(Method::GET, "/v1/audit/verify", None).await?);
    }
    let mut path = format!("/v1/audit?limit={}", args.limit);
    if let Some(session) = &args.session {
        let id = match id_of(broker, session).await {
            Ok(id) => id,
            Err(_) => session.clone(),
        };
        path.push_str(&format!("&session={}", super::encoded(&id)));
    }
    let answer = broker.ask(Method::GET, &path, None).await?;
    let records = answer["records"].as_array().cloned().unwrap_or_default();
    if args.json {
        for record in &records {
            output::say(record.to_string());
        }
    } else {
        let rows: Vec<Vec<String>> = records.iter().map(row).collect();
        output::table(&["TIME", "MS", "STATUS", "PRINCIPAL", "KIND", "WHAT", "ARGUMENTS OR ERROR"], &rows);
    }
    Ok(ExitCode::SUCCESS)
}

fn verify(answer: &Value) -> anyhow::Result<ExitCode> {
    if answer["intact"] == true {
        output::say(format!(
            "intact: {} events, the last with hash {}",
            answer["events"],
            answer["last_hash"].as_str().unwrap_or_default()
        ));
        return Ok(ExitCode::SUCCESS);
    }
    output::say(format!("not intact: event {}: {}", answer["event"], answer["problem"].as_str().unwrap_or_default()));
    Ok(ExitCode::from(NOT_INTACT))
}

fn row(record: &Value) -> Vec<String> {
    const DETAIL_CHARACTERS_MAX: usize = 100;
    let text = |key: &str| record[key].as_str().unwrap_or_default();
    let what = match record["server"].as_str() {
        Some(server) => format!("{server} {}", text("name")),
        None => text("name").to_owned(),
    };
    let detail = record["error"].as_str().or(record["arguments"].as_str()).unwrap_or_default();
    let detail: String =
        detail.chars().map(|c| if c.is_control() { ' ' } else { c }).take(DETAIL_CHARACTERS_MAX).collect();
    let ms =
        record["duration_micros"].as_u64().map_or_else(String::new, |micros| format!("{:.1}", micros as f64 / 1000.0));
    let time = text("opened_at").get(..19).unwrap_or_default().replace('T', " ");
    vec![
        time,
        ms,
        record["status"].as_str().unwrap_or("open").to_owned(),
        text("principal").to_owned(),
        text("kind").to_owned(),
        what,
        detail,
    ]
}
