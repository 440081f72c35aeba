//! The command line: one file per command.
//!
//! Every command works on a data folder. If a broker is running on it, the command asks that broker, through its unix
//! socket; if not, it takes the folder for as long as it needs.
//!
//! Exit codes: 0 done; 1 it failed, and standard error says why; 2 the command line is wrong; 3 another broker holds the
//! data folder; 4 the audit log is not intact; 5 a session's calls ended
//! otherwise when they were run again; 6 a tool ran and failed.

mod audit;
mod backup;
mod broker;
mod catalog;
mod client;
mod compose;
mod doctor;
mod feature;
mod logs;
mod manual;
mod output;
mod profile;
mod pull;
mod relay;
mod secret;
mod serve;
mod server;
mod session;
mod status;
mod stdio;
mod tool;

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use crate::{
    app::{FolderError, OpenError},
    config::{Overrides, Pull, Settings},
    ids::ServerName,
    telemetry::{self, LogFormat},
};

/// One MCP endpoint through which an agent finds, adds, uses and drops MCP servers in the middle of a conversation.
#[derive(Debug, Parser)]
#[command(name = "mcp-broker", version, propagate_version = true, after_help = AFTER_HELP)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 another broker holds the data folder, \
4 the audit log is not intact, 5 replayed calls gave other results, 6 a tool ran and failed";

#[derive(Debug, Args)]
struct Global {
    /// The folder with the broker's database, keys and packages [default: ~/.local/share/mcp-broker]
    #[arg(long, global = true, env = "MCP_BROKER_DATA_DIR", hide_env_values = true, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// The settings file [default: config.yaml in the data folder]
    #[arg(long, global = true, env = "MCP_BROKER_CONFIG", hide_env_values = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What is logged to standard error, as in `info` or `mcp_broker=debug`
    #[arg(long, global = true, env = "MCP_BROKER_LOG", hide_env_values = true, value_name = "FILTER")]
    log: Option<String>,
    /// How it is logged
    #[arg(long, global = true, value_enum, default_value = "text")]
    log_format: LogFormat,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one script (the broker starts itself with this)
    #[command(hide = true)]
    JsWorker { heap_bytes: u64, cpu_seconds: u64 },
    /// Serve MCP over HTTP
    Serve(ServeArgs),
    /// Serve MCP on standard input and output
    Stdio(StdioArgs),
    /// Switch features on and off
    #[command(subcommand)]
    Feature(feature::FeatureCommand),
    /// Keep secrets for servers
    #[command(subcommand)]
    Secret(secret::SecretCommand),
    /// List, make, hand over, copy and end sessions
    #[command(subcommand)]
    Session(session::SessionCommand),
    /// Show what was done
    Audit(Box<audit::AuditArgs>),
    /// Copy the database to a file, also while a broker is running on it
    Backup(backup::BackupArgs),
    /// Look into the catalog, and keep its sources
    #[command(subcommand)]
    Catalog(catalog::CatalogCommand),
    /// Keep profiles: servers under a name, to be put into sessions
    #[command(subcommand)]
    Profile(profile::ProfileCommand),
    /// Agree to Compose files, and look at what they would start
    #[command(subcommand)]
    Compose(compose::ComposeCommand),
    /// Add servers from Git repositories to a catalog of your own, and list and remove them
    #[command(subcommand)]
    Server(server::ServerCommand),
    /// Connect client programs: Claude Code, Codex, Cursor, VS Code and others
    #[command(subcommand)]
    Client(client::ClientCommand),
    /// Pull images of servers ahead, so that adding them need not wait
    Pull(pull::PullArgs),
    /// Show whether a broker is running, where, and what it runs
    Status(status::StatusArgs),
    /// Look at the tools of a session and call them
    #[command(subcommand, visible_alias = "tools")]
    Tool(tool::ToolCommand),
    /// Show what servers wrote to their standard error, and when they started and ended
    Logs(logs::LogsArgs),
    /// Print a script that completes commands in a shell
    Completions(manual::CompletionsArgs),
    /// Write manual pages to a folder
    #[command(hide = true)]
    Man(manual::ManArgs),
    /// Check what this machine has and what is missing
    Doctor,
}

/// What shapes the broker itself.
#[derive(Debug, Clone, Default, Args)]
struct BrokerArgs {
    /// A catalog file besides the built-in one; a later file's entry replaces an earlier one's
    #[arg(long, value_name = "FILE")]
    catalog: Vec<PathBuf>,
    /// A server that every session has; with `stdio`, the session of this process
    #[arg(long, value_name = "NAME")]
    server: Vec<ServerName>,
    /// A profile whose servers every session has; with `stdio`, the session of this process
    #[arg(long, value_name = "NAME")]
    profile: Vec<String>,
    /// A Compose file whose services every session has; with `stdio`, the session of this process
    #[arg(long, value_name = "FILE")]
    compose: Option<PathBuf>,
    /// When images of containers are pulled [default: as in the settings, or missing]
    #[arg(long, value_enum, hide_possible_values = true, value_name = "always|missing|never")]
    pull: Option<Pull>,
}

#[derive(Debug, Args)]
struct ServeArgs {
    #[command(flatten)]
    broker: BrokerArgs,
    /// The address to listen on; port 0 picks one
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// A Host header that is answered besides loopback names
    #[arg(long = "allowed-host", value_name = "HOST")]
    allowed_hosts: Vec<String>,
    /// A browser origin that may connect besides loopback ones
    #[arg(long = "allowed-origin", value_name = "ORIGIN")]
    allowed_origins: Vec<String>,
    /// Ask for no token (loopback addresses only)
    #[arg(long)]
    no_auth: bool,
}

#[derive(Debug, Args)]
struct StdioArgs {
    #[command(flatten)]
    broker: BrokerArgs,
    /// The session of this name, made if there is none; without it, a session that ends with this process
    #[arg(long, value_name = "NAME")]
    session: Option<String>,
}

impl Global {
    fn overrides(&self) -> Overrides {
        Overrides { config_file: self.config.clone(), data_folder: self.data_dir.clone(), ..Overrides::default() }
    }

    fn settings(&self) -> anyhow::Result<Settings> {
        Ok(Settings::load(self.overrides())?)
    }

    fn settings_with(&self, broker: &BrokerArgs) -> anyhow::Result<Settings> {
        let overrides = Overrides {
            catalogs: broker.catalog.clone(),
            servers: broker.server.clone(),
            pull: broker.pull,
            ..self.overrides()
        };
        Ok(Settings::load(overrides)?)
    }
}

/// Runs a command to its exit code.
pub fn run(cli: Cli) -> ExitCode {
    if let Command::JsWorker { heap_bytes, cpu_seconds } = cli.command {
        return js_runtime::worker::main(heap_bytes, cpu_seconds);
    }
    let serves = matches!(cli.command, Command::Serve(_));
    let filter = cli.global.log.as_deref().or(if serves { None } else { Some("warn") });
    telemetry::start(filter, cli.global.log_format);
    // One client's calls come one after another: handing them from thread to thread only makes each of them wait.
    let mut runtime = match serves {
        true => tokio::runtime::Builder::new_multi_thread(),
        false => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime = match runtime.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::complain(&anyhow::Error::new(error).context("could not start the runtime"));
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(Box::pin(dispatch(cli)));
    runtime.shutdown_background();
    outcome.unwrap_or_else(|error| {
        output::complain(&error);
        exit_code(&error)
    })
}

async fn dispatch(cli: Cli) -> anyhow::Result<ExitCode> {
    let global = cli.global;
    match cli.command {
        Command::JsWorker { .. } => Ok(ExitCode::FAILURE),
        Command::Serve(args) => serve::run(&global, args).await,
        Command::Stdio(args) => stdio::run(&global, args).await,
        Command::Feature(command) => feature::run(&global, command).await,
        Command::Secret(command) => secret::run(&global, command).await,
        Command::Session(command) => session::run(&global, command).await,
        Command::Audit(args) => audit::run(&global, *args).await,
        Command::Backup(args) => backup::run(&global, args).await,
        Command::Catalog(command) => catalog::run(&global, command).await,
        Command::Profile(command) => profile::run(&global, command).await,
        Command::Compose(command) => compose::run(&global, command).await,
        Command::Server(command) => server::run(&global, command).await,
        Command::Client(command) => client::run(&global, command).await,
        Command::Pull(args) => pull::run(&global, args).await,
        Command::Status(args) => status::run(&global, args).await,
        Command::Tool(command) => tool::run(&global, command).await,
        Command::Logs(args) => logs::run(&global, args).await,
        Command::Completions(args) => Ok(manual::completions(&args)),
        Command::Man(args) => manual::man(&args),
        Command::Doctor => doctor::run(&global).await,
    }
}

fn exit_code(error: &anyhow::Error) -> ExitCode {
    let held = |error: &FolderError| matches!(error, FolderError::Held { .. });
    let is_held = error.chain().any(|cause| {
        cause.downcast_ref::<FolderError>().is_some_and(held)
            || matches!(cause.downcast_ref::<OpenError>(), Some(OpenError::Folder(folder)) if held(folder))
    });
    if is_held { ExitCode::from(3) } else { ExitCode::FAILURE }
}

/// `text` as one segment of a path, or one value of a query (RFC 3986, section 2.1).
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
