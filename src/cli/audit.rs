//! `mcp-broker audit`.

mod show;

use std::{
    fs::OpenOptions,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use http::Method;
use serde_json::{Value, json};

use super::{Global, broker::Broker, encoded, output};
use show::{Format, Sheet};

/// The exit code for a log that is not as it was written.
const NOT_INTACT: u8 = 4;

/// Records that are read at a time.
const PAGE: u32 = 1000;

/// How long one question for new records waits.
const WAIT_SECONDS: u32 = 30;

/// Show what was done: every call, before it ran and after.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct AuditArgs {
    #[command(subcommand)]
    command: Option<AuditCommand>,
    #[command(flatten)]
    filters: Filters,
    /// The newest so many records
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// Show records that were made by others below them
    #[arg(long, conflicts_with = "follow")]
    tree: bool,
    /// Go on with new records as they are closed, until interrupted
    #[arg(long)]
    follow: bool,
    /// How records are printed
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

/// Which records. All filters have to match.
#[derive(Debug, Clone, Default, Args)]
struct Filters {
    /// Of this session (its id or name; it may have ended)
    #[arg(long, value_name = "SESSION")]
    session: Option<String>,
    /// Of this server
    #[arg(long, value_name = "SERVER")]
    server: Option<String>,
    /// Of this tool, prompt or resource, by its own name
    #[arg(long, value_name = "NAME")]
    tool: Option<String>,
    /// Of this kind: tool, management, script, prompt, resource, instance, session, feature, secret, audit…
    #[arg(long)]
    kind: Option<String>,
    /// success, error, refused, cancelled, timeout, input_required, abandoned or open
    #[arg(long)]
    status: Option<String>,
    /// Of this principal: local, administrator, anonymous or session:ID
    #[arg(long)]
    principal: Option<String>,
    /// Of this client program, with or without its version
    #[arg(long)]
    client: Option<String>,
    /// Opened at or after: 2026-11-21T10:00:00Z, 2026-11-21, or how long ago, like 90m
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Opened before
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// That took at least so many milliseconds
    #[arg(long, value_name = "MS")]
    slower_than: Option<f64>,
    /// With all these words in names, arguments, error or result
    #[arg(long, value_name = "WORDS")]
    grep: Option<String>,
}

#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// Check that no event was changed or taken out
    Verify {
        /// And that the log still holds what this checkpoint knows of
        #[arg(long, value_name = "FILE")]
        checkpoint: Option<PathBuf>,
        /// The key that the checkpoint was signed with, if not by this broker
        #[arg(long, value_name = "HEX", requires = "checkpoint")]
        public_key: Option<String>,
    },
    /// Sign how far the log goes, to be kept elsewhere
    Checkpoint {
        /// Where to write it, if not to standard output
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Count calls, errors, times and bytes
    Stats {
        #[command(flatten)]
        filters: Filters,
        /// What to count by
        #[arg(long, value_enum, default_value = "server")]
        by: By,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Write out every closed record that matches, in the order in which they were closed
    Export {
        #[command(flatten)]
        filters: Filters,
        /// Where to write, if not to standard output
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// How records are written
        #[arg(long, value_enum, default_value = "jsonl")]
        format: Format,
    },
    /// Remove the oldest records for good; what is left can still be verified
    #[command(group = clap::ArgGroup::new("what").required(true))]
    Prune {
        /// Those opened before: 2026-11-21T10:00:00Z, 2026-11-21, or how long ago, like 90d
        #[arg(long, value_name = "TIME", group = "what")]
        before: Option<String>,
        /// As many as it takes until the database holds so many bytes
        #[arg(long, value_name = "BYTES", group = "what")]
        database_bytes_max: Option<u64>,
        /// Only say what would go
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum By {
    Server,
    Tool,
    Session,
    Principal,
    Client,
    Status,
    Day,
}

impl Filters {
    /// As the parameters of a request, each after an ampersand.
    fn parameters(&self) -> String {
        let slower_than = self.slower_than.map(|ms| ms.to_string());
        let given = [
            ("session", &self.session),
            ("server", &self.server),
            ("tool", &self.tool),
            ("kind", &self.kind),
            ("status", &self.status),
            ("principal", &self.principal),
            ("client", &self.client),
            ("since", &self.since),
            ("until", &self.until),
            ("slower_than", &slower_than),
            ("grep", &self.grep),
        ];
        given.iter().filter_map(|(name, value)| Some(format!("&{name}={}", encoded(value.as_deref()?)))).collect()
    }
}

pub(super) async fn run(global: &Global, args: AuditArgs) -> anyhow::Result<ExitCode> {
    let broker = Broker::find(global.settings()?).await?;
    let outcome = answer(&broker, args).await;
    broker.close().await;
    outcome
}

async fn answer(broker: &Broker, args: AuditArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        None => show(broker, &args).await?,
        Some(AuditCommand::Verify { checkpoint, public_key }) => {
            return verify(broker, checkpoint.as_deref(), public_key.as_deref()).await;
        }
        Some(AuditCommand::Checkpoint { out }) => {
            let checkpoint = broker.ask(Method::POST, "/v1/audit/checkpoint", None).await?;
            writeln!(target(out.as_deref())?, "{checkpoint:#}")?;
        }
        Some(AuditCommand::Stats { filters, by, json }) => {
            let by = by.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
            let path = format!("/v1/audit/stats?by={by}{}", filters.parameters());
            let answer = broker.ask(Method::GET, &path, None).await?;
            if *json { output::say(answer["stats"].to_string()) } else { show::stats(&by, &answer["stats"]) }
        }
        Some(AuditCommand::Export { filters, out, format }) => export(broker, filters, out.as_deref(), *format).await?,
        Some(AuditCommand::Prune { before, database_bytes_max, dry_run }) => {
            let body = json!({"before": before, "database_bytes_max": database_bytes_max, "dry_run": dry_run});
            let gone = broker.ask(Method::POST, "/v1/audit/prune", Some(body)).await?;
            let would = if *dry_run { "would be " } else { "" };
            output::say(match gone["last"].as_i64() {
                Some(last) => format!("{} events {would}removed, up to event {last}", gone["events"]),
                None => "there is nothing to remove".to_owned(),
            });
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn show(broker: &Broker, args: &AuditArgs) -> anyhow::Result<()> {
    let filters = args.filters.parameters();
    let end = broker.ask(Method::GET, "/v1/audit?after=9223372036854775807", None).await?;
    let path = format!("/v1/audit?limit={}&tree={}{filters}", args.limit, args.tree);
    let answer = broker.ask(Method::GET, &path, None).await?;
    let mut sheet = Sheet::begin(args.format, Box::new(io::stdout()));
    if args.tree {
        sheet.tree(&list(&answer["records"]), &list(&answer["below"]))?;
    } else {
        sheet.records(&list(&answer["records"]))?;
    }
    if args.follow {
        follow(broker, &filters, end["end"].as_i64().unwrap_or_default(), &mut sheet).await?;
    }
    Ok(sheet.end()?)
}

/// Prints records as they are closed, until interrupted.
async fn follow(broker: &Broker, filters: &str, mut last: i64, sheet: &mut Sheet) -> anyhow::Result<()> {
    loop {
        let path = format!("/v1/audit?after={last}&wait={WAIT_SECONDS}&limit={PAGE}{filters}");
        let answer = tokio::select! {
            answer = broker.ask(Method::GET, &path, None) => answer?,
            _ = tokio::signal::ctrl_c() => return Ok(()),
        };
        sheet.records(&list(&answer["records"]))?;
        last = answer["last_seq"].as_i64().unwrap_or(last);
    }
}

async fn export(broker: &Broker, filters: &Filters, out: Option<&Path>, format: Format) -> anyhow::Result<()> {
    let filters = filters.parameters();
    let mut sheet = Sheet::begin(format, target(out)?);
    let mut last = 0;
    loop {
        let path = format!("/v1/audit?after={last}&limit={PAGE}{filters}");
        let answer = broker.ask(Method::GET, &path, None).await?;
        let records = list(&answer["records"]);
        if records.is_empty() {
            return Ok(sheet.end()?);
        }
        sheet.records(&records)?;
        last = answer["last_seq"].as_i64().unwrap_or(i64::MAX);
    }
}

async fn verify(broker: &Broker, checkpoint: Option<&Path>, key: Option<&str>) -> anyhow::Result<ExitCode> {
    let answer = match checkpoint {
        None => broker.ask(Method::GET, "/v1/audit/verify", None).await?,
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("could not read {}", path.display()))?;
            let checkpoint: Value =
                serde_json::from_str(&text).with_context(|| format!("{} is no checkpoint", path.display()))?;
            let body = json!({"checkpoint": checkpoint, "public_key": key});
            broker.ask(Method::POST, "/v1/audit/verify", Some(body)).await?
        }
    };
    if answer["intact"] == true {
        let text = |key: &str| answer[key].as_str().unwrap_or_default().to_owned();
        output::say(format!(
            "intact: {} events, {} to {}, the last with hash {}",
            answer["events"],
            answer["first"],
            answer["last"],
            text("last_hash")
        ));
        return Ok(ExitCode::SUCCESS);
    }
    output::say(format!("not intact: event {}: {}", answer["event"], answer["problem"].as_str().unwrap_or_default()));
    Ok(ExitCode::from(NOT_INTACT))
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

/// Where to write: a new file that only its owner can read, or standard output.
fn target(path: Option<&Path>) -> anyhow::Result<Box<dyn Write>> {
    let Some(path) = path else { return Ok(Box::new(io::stdout())) };
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path).with_context(|| format!("could not create {}", path.display()))?;
    Ok(Box::new(io::BufWriter::new(file)))
}
