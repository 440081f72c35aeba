//! `mcp-broker client`.

mod show;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};
use http::Method;

use super::{Global, broker::Broker, output};
use crate::{
    clients::{
        Client, ClientError, Config, Level, NAME, State, Surroundings, TOKEN, TokenFrom, Way, file, project_folder,
    },
    config::Settings,
    http::load_token,
};
use show::{Format, Row};

/// Connect client programs to the broker, by an entry in the file where each keeps its servers.
#[derive(Debug, Subcommand)]
pub(super) enum ClientCommand {
    /// List client programs: which are installed, and which are connected
    #[command(visible_alias = "list")]
    Ls {
        #[command(flatten)]
        place: Place,
        /// How the list is printed
        #[arg(long, value_enum, default_value = "table")]
        format: Format,
    },
    /// Connect a client program
    ///
    /// Everything else in its file stays as it is, byte for byte; a copy of the file is kept beside it.
    Connect {
        /// The client program
        #[arg(value_name = "NAME")]
        client: Client,
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        way: WayArgs,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Take the broker out of a client program's file; where nothing else has changed, the file becomes what it was
    Disconnect {
        /// The client program
        #[arg(value_name = "NAME")]
        client: Client,
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        change: ChangeArgs,
    },
}

#[derive(Debug, Args)]
pub(super) struct Place {
    /// The user's own file, which holds everywhere (as without --project)
    #[arg(long, short = 'g', conflicts_with = "project")]
    global: bool,
    /// The file of a project [default folder: the Git work tree around this one, or this one]
    #[arg(long, value_name = "FOLDER", num_args = 0..=1, require_equals = true)]
    project: Option<Option<PathBuf>>,
}

#[derive(Debug, Args)]
pub(super) struct WayArgs {
    /// Over HTTP, to the broker that `mcp-broker serve` runs, instead of starting `mcp-broker stdio`
    #[arg(long)]
    http: bool,
    /// Write the token into the client's file, also where the client could read it elsewhere
    #[arg(long, requires = "http")]
    token_in_file: bool,
    /// The session of this name, which outlives the client
    #[arg(long, value_name = "NAME", conflicts_with = "http")]
    session: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct ChangeArgs {
    /// Only show what would change
    #[arg(long, visible_alias = "dry-run")]
    print: bool,
    /// Take an entry of our name for ours, whatever it says
    #[arg(long)]
    force: bool,
}

impl Place {
    fn level(&self) -> anyhow::Result<Level> {
        Ok(match &self.project {
            None => Level::User,
            Some(Some(folder)) => Level::Project(std::path::absolute(folder)?),
            Some(None) => Level::Project(project_folder(&std::env::current_dir()?)),
        })
    }
}

pub(super) async fn run(global: &Global, command: ClientCommand) -> anyhow::Result<ExitCode> {
    let around = Surroundings::of_process().context("no home folder is known: set HOME")?;
    match command {
        ClientCommand::Ls { place, format } => {
            let ways = Ways::known(global, global.settings()?).await?;
            show::list(format, &rows(&around, &place, &ways.all())?)?;
        }
        ClientCommand::Connect { client, place, way, change } => {
            let config = Config::of(client, place.level()?, &around)?;
            let settings = global.settings()?;
            let way = if way.http {
                let ways = if change.print {
                    Ways::known(global, settings).await?
                } else {
                    Ways::with_token(global, settings).await?
                };
                if !ways.serves {
                    output::note(format!("note: nothing listens at {} now: `mcp-broker serve` does", ways.url));
                }
                ways.http(way.token_in_file)
            } else {
                Started::by(global, &settings)?.way(way.session.as_deref())
            };
            connect(&config, &around, &way, &change).await?;
        }
        ClientCommand::Disconnect { client, place, change } => {
            disconnect(&Config::of(client, place.level()?, &around)?, &change).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn connect(config: &Config, around: &Surroundings, way: &Way, change: &ChangeArgs) -> anyhow::Result<()> {
    let title = config.client.title();
    if change.print {
        let before = file::read(&config.path)?;
        let outcome = config.connected(before.as_deref(), way, change.force)?;
        return show::change(config, &outcome, Some(way));
    }
    let was_there = config.client.is_installed(around);
    let private = matches!(way, Way::Http { .. });
    let plan = |before: Option<&str>, _: Option<&str>| config.connected(before, way, change.force);
    let written = file::change(&config.path, private, plan).await?;
    let path = config.path.display();
    if !written.outcome.changes() {
        output::say(format!("{title} is connected already: {path} is as it was"));
    } else {
        output::say(format!("{title} is connected: {path}"));
        if let Some(backup) = &written.backup {
            output::say(format!("what was there before is in {}", backup.display()));
        }
        output::say("It takes effect when the client is started again, or reloads its servers.");
    }
    for note in notes(config, way, was_there, written.is_open) {
        output::note(format!("note: {note}"));
    }
    for other in config.others(written.outcome.after.as_deref()) {
        output::note(format!("note: `{other}` in the same file starts mcp-broker too: the client has it twice"));
    }
    Ok(())
}

/// What the user has to know or do besides.
fn notes(config: &Config, way: &Way, was_there: bool, is_open: bool) -> Vec<String> {
    let client = config.client;
    let mut notes = Vec::new();
    if !was_there && config.level == Level::User {
        notes.push(format!("there is no sign that {} is installed here", client.title()));
    }
    if client == Client::Codex && config.level != Level::User {
        notes.push("Codex reads a project's file only if the project is trusted".to_owned());
    }
    let Way::Http { token_file, written_out, .. } = way else { return notes };
    let token_file = token_file.display();
    match if *written_out { TokenFrom::ItsFile } else { client.token_from() } {
        TokenFrom::ItsFile if is_open => {
            let path = config.path.display();
            notes.push(format!("the broker's token is in {path}, and others can read that: `chmod 600 {path}`"));
        }
        TokenFrom::ItsFile => notes.push(format!("the broker's token is in {}", config.path.display())),
        TokenFrom::TokenFile => notes.push(format!("it reads the token from {token_file}")),
        TokenFrom::Asking => notes.push(format!("it asks for the token once; that is in {token_file}")),
        TokenFrom::Environment if client == Client::Continue => notes.push(format!(
            "it reads the token from its .env: add `MCP_BROKER_TOKEN=` and what is in {token_file} to ~/.continue/.env"
        )),
        TokenFrom::Environment => notes.push(format!(
            "it reads the token from its environment: start it with `export MCP_BROKER_TOKEN=\"$(cat {token_file})\"`, \
             or connect it with --token-in-file"
        )),
    }
    notes
}

async fn disconnect(config: &Config, change: &ChangeArgs) -> anyhow::Result<()> {
    let title = config.client.title();
    let path = config.path.display();
    if change.print {
        let (before, backup) = (file::read(&config.path)?, file::read(&file::backup_of(&config.path)?)?);
        let outcome = config.disconnected(before.as_deref(), backup.as_deref(), change.force)?;
        return show::change(config, &outcome, None);
    }
    let plan = |before: Option<&str>, backup: Option<&str>| config.disconnected(before, backup, change.force);
    let written = file::change(&config.path, false, plan).await?;
    output::say(match &written.outcome {
        outcome if !outcome.changes() => format!("{title} is not connected: there is no `{NAME}` in {path}"),
        outcome if outcome.after.is_none() => format!("{title} is disconnected: {path} held nothing else and is gone"),
        outcome if outcome.restored => format!("{title} is disconnected: {path} is what it was before"),
        _ => format!("{title} is disconnected: {path}"),
    });
    if let Some(backup) = &written.backup {
        output::say(format!("what was there before is in {}", backup.display()));
    }
    Ok(())
}

fn rows(around: &Surroundings, place: &Place, ways: &[Way]) -> anyhow::Result<Vec<Row>> {
    let current = match place.level()? {
        Level::Project(folder) => folder,
        Level::User => project_folder(&std::env::current_dir()?),
    };
    let mut rows = Vec::new();
    for &client in Client::all() {
        let levels = [
            (place.project.is_none()).then_some(Level::User),
            (!place.global).then(|| Level::Project(current.clone())),
        ];
        for level in levels.into_iter().flatten() {
            let config = match Config::of(client, level, around) {
                Ok(config) => config,
                Err(ClientError::NoProject { .. }) => continue,
                Err(error) => return Err(error.into()),
            };
            // In the home folder a user's file is also where a project's would be.
            if rows.iter().any(|row: &Row| row.config.client == client && row.config.path == config.path) {
                continue;
            }
            let (state, others) = match file::read(&config.path) {
                Ok(text) => (config.state(text.as_deref(), ways), config.others(text.as_deref())),
                Err(error) => (State::Unreadable(format!("{:#}", anyhow!(error))), Vec::new()),
            };
            rows.push(Row { installed: client.is_installed(around), config, state, others });
        }
    }
    Ok(rows)
}

/// The ways in which clients reach this broker.
struct Ways {
    started: Started,
    url: String,
    token: Option<String>,
    token_file: PathBuf,
    /// Whether somebody listens at the address.
    serves: bool,
}

impl Ways {
    /// Changes nothing: where there is no token yet, its place is shown.
    async fn known(global: &Global, settings: Settings) -> anyhow::Result<Self> {
        let started = Started::by(global, &settings)?;
        let token_file = std::path::absolute(settings.data_folder.join("token"))?;
        let token = match token_file.is_file() {
            true => Some(load_token(&settings.data_folder)?.0.reveal().to_owned()),
            false => None,
        };
        let address = match Broker::running(&settings).await {
            Some(broker) => broker.ask_once(Method::GET, "/v1/status", None).await?["url"].as_str().map(str::to_owned),
            None => None,
        };
        let serves = address.is_some();
        let base = address.unwrap_or_else(|| format!("http://{}", settings.http.listen));
        // An address that stands for all of this machine's is none to connect to.
        let base = base.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:");
        Ok(Self { started, url: format!("{base}/mcp"), token, token_file, serves })
    }

    /// Makes a token if there is none.
    async fn with_token(global: &Global, settings: Settings) -> anyhow::Result<Self> {
        if !settings.data_folder.join("token").is_file() {
            Broker::find(settings.clone()).await?.close().await;
        }
        let ways = Self::known(global, settings).await?;
        ways.token.as_ref().context("the data folder has no token: start `mcp-broker serve` once")?;
        Ok(ways)
    }

    fn http(&self, written_out: bool) -> Way {
        let token = self.token.clone().unwrap_or_else(|| TOKEN.to_owned());
        Way::Http { url: self.url.clone(), token, token_file: self.token_file.clone(), written_out }
    }

    fn all(&self) -> Vec<Way> {
        let http = [false, true].into_iter().filter(|_| self.token.is_some()).map(|written_out| self.http(written_out));
        std::iter::once(self.started.way(None)).chain(http).collect()
    }
}

/// This program as a client starts it: by its name if that finds it, and with what it was told to use.
struct Started {
    command: String,
    arguments: Vec<String>,
}

impl Started {
    fn by(global: &Global, settings: &Settings) -> anyhow::Result<Self> {
        let own = std::env::current_exe().context("could not find out where this program is")?;
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&path).map(|folder| folder.join(NAME)).find(|program| program.is_file());
        let same = |found: &PathBuf| found.canonicalize().ok() == own.canonicalize().ok();
        let command = if found.as_ref().is_some_and(same) { NAME.to_owned() } else { own.display().to_string() };
        let mut arguments = Vec::new();
        if global.data_dir.is_some() {
            arguments.push("--data-dir".to_owned());
            arguments.push(std::path::absolute(&settings.data_folder)?.display().to_string());
        }
        if let Some(config) = &global.config {
            arguments.push("--config".to_owned());
            arguments.push(std::path::absolute(config)?.display().to_string());
        }
        Ok(Self { command, arguments })
    }

    fn way(&self, session: Option<&str>) -> Way {
        let mut args = vec!["stdio".to_owned()];
        args.extend(self.arguments.clone());
        args.extend(session.into_iter().flat_map(|name| ["--session".to_owned(), name.to_owned()]));
        Way::Stdio { command: self.command.clone(), args }
    }
}
