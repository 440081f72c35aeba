//! `mcp-broker profile`.

use std::{
    io::Read,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, anyhow, bail};
use clap::Subcommand;
use http::Method;
use serde_json::{Value, json};

use super::{
    Global,
    broker::Broker,
    encoded,
    output::{self, items},
    session,
};

/// A document larger than this is not read.
const DOCUMENT_BYTES_MAX: u64 = 1 << 20;

/// Keep profiles: servers under a name, to be put into sessions.
#[derive(Debug, Subcommand)]
pub(super) enum ProfileCommand {
    /// Make a profile, of servers of the catalog or of those of a session
    Create {
        /// Its name: letters, digits, . _ -
        name: String,
        /// What it is for
        #[arg(long, default_value = "")]
        description: String,
        /// A server
        #[arg(long, value_name = "NAME", required_unless_present = "session")]
        server: Vec<String>,
        /// A server's config, as JSON
        #[arg(long, value_name = "SERVER={…}", conflicts_with = "session")]
        server_config: Vec<String>,
        /// The tools of a server that are listed; all can be called
        #[arg(long, value_name = "SERVER=TOOL,…", conflicts_with = "session")]
        tools: Vec<String>,
        /// The servers of this session, by its id or name, with their config and tools
        #[arg(long, value_name = "SESSION", conflicts_with = "server")]
        session: Option<String>,
    },
    /// List profiles
    #[command(visible_alias = "list")]
    Ls,
    /// Show a profile, and the names of the secrets that its servers need
    Show {
        /// Its name
        name: String,
    },
    /// Put a profile's servers into a session, all or none of them
    Apply {
        /// Its name
        name: String,
        /// The session's id or name; without it a new one is made, and its URL and token printed once
        #[arg(long, value_name = "SESSION")]
        session: Option<String>,
    },
    /// Write a profile down, for `import`: never a secret's value
    Export {
        /// Its name
        name: String,
        /// Where to, instead of standard output; JSON if it ends with .json, else YAML
        file: Option<PathBuf>,
    },
    /// Make a profile from what `export` wrote; every problem of it is told at once
    Import {
        /// The file, YAML or JSON, or - for standard input
        file: PathBuf,
        /// A name in place of the one in the file
        #[arg(long)]
        name: Option<String>,
    },
    /// Remove a profile; sessions keep what they were given
    #[command(visible_alias = "remove")]
    Rm {
        /// Its name
        name: String,
    },
}

pub(super) async fn run(global: &Global, command: ProfileCommand) -> anyhow::Result<ExitCode> {
    let broker = Broker::find(global.settings()?).await?;
    let outcome = answer(&broker, command).await;
    broker.close().await;
    outcome.map(|()| ExitCode::SUCCESS)
}

async fn answer(broker: &Broker, command: ProfileCommand) -> anyhow::Result<()> {
    match command {
        ProfileCommand::Create { name, description, server, server_config, tools, session } => {
            let body = match session {
                Some(session) => {
                    let id = session::id_of(broker, &session).await?;
                    json!({"name": name, "description": description, "session": id})
                }
                None => {
                    json!({"name": name, "description": description, "servers": servers(&server, &server_config, &tools)?})
                }
            };
            let made = broker.ask(Method::POST, "/v1/profiles", Some(body)).await?;
            output::say(format!("profile {name} has {}", names(&made["servers"])));
            for left_out in items(&made["left_out"]).filter_map(Value::as_str) {
                output::note(format!("not in it: {left_out}"));
            }
            say_secrets(&made);
        }
        ProfileCommand::Ls => {
            let answer = broker.ask(Method::GET, "/v1/profiles", None).await?;
            let row = |profile: &Value| {
                let text = |key: &str| profile[key].as_str().unwrap_or("-").to_owned();
                vec![text("name"), names(&profile["servers"]), text("description")]
            };
            let rows: Vec<Vec<String>> = items(&answer["profiles"]).map(row).collect();
            output::table(&["NAME", "SERVERS", "DESCRIPTION"], &rows);
        }
        ProfileCommand::Show { name } => {
            let profile = broker.ask(Method::GET, &path(&name), None).await?;
            output::say(format!("name: {}", profile["name"].as_str().unwrap_or("-")));
            output::say(format!("description: {}", profile["description"].as_str().unwrap_or_default()).trim_end());
            for server in items(&profile["servers"]) {
                let tools = match &server["tools"] {
                    Value::Bool(true) => "all tools listed".to_owned(),
                    Value::Bool(false) => "no tools listed".to_owned(),
                    some => format!("tools {}", names(some)),
                };
                output::say(format!(
                    "server {}: {tools}; config {}",
                    server["name"].as_str().unwrap_or("-"),
                    server["config"]
                ));
            }
            say_secrets(&profile);
        }
        ProfileCommand::Apply { name, session } => apply(broker, &name, session).await?,
        ProfileCommand::Export { name, file } => {
            let document = broker.ask(Method::GET, &format!("{}/export", path(&name)), None).await?;
            let is_json = file.as_ref().is_some_and(|file| file.extension().is_some_and(|end| end == "json"));
            let written = if is_json {
                serde_json::to_string_pretty(&document)? + "\n"
            } else {
                serde_saphyr::to_string(&document)?
            };
            match file {
                None => output::say(written.trim_end()),
                Some(file) => {
                    std::fs::write(&file, written).with_context(|| format!("could not write {}", file.display()))?;
                }
            }
        }
        ProfileCommand::Import { file, name } => {
            let mut document = read(&file)?;
            if let (Some(name), Some(fields)) = (name, document.as_object_mut()) {
                fields.insert("name".to_owned(), json!(name));
            }
            let made = broker.ask(Method::POST, "/v1/profiles/import", Some(document)).await?;
            let name = made["name"].as_str().unwrap_or("-");
            output::say(format!("profile {name} has {}", names(&made["servers"])));
            say_secrets(&made);
        }
        ProfileCommand::Rm { name } => {
            broker.ask(Method::DELETE, &path(&name), None).await?;
            output::say(format!("profile {name} is removed"));
        }
    }
    Ok(())
}

async fn apply(broker: &Broker, name: &str, session: Option<String>) -> anyhow::Result<()> {
    // A name that is wrong is not to leave a session behind.
    broker.ask(Method::GET, &path(name), None).await?;
    let (id, made) = match session {
        Some(session) => (session::id_of(broker, &session).await?, None),
        None => {
            let made = broker.ask(Method::POST, "/v1/sessions", Some(json!({}))).await?;
            (made["id"].as_str().unwrap_or_default().to_owned(), Some(made))
        }
    };
    let applied = broker.ask(Method::POST, &format!("{}/apply", path(name)), Some(json!({"session": id}))).await;
    let applied = match applied {
        Ok(applied) => applied,
        Err(error) => {
            if made.is_some() {
                let _ = broker.ask(Method::DELETE, &format!("/v1/sessions/{id}"), None).await;
            }
            return Err(error);
        }
    };
    for server in items(&applied["servers"]) {
        let text = |key: &str| server[key].as_str().unwrap_or("-").to_owned();
        output::say(format!("{}: {}, {} tools", text("name"), text("state"), items(&server["tools"]).count()));
    }
    if let Some(made) = made {
        session::say_how_to_connect(&made);
    }
    Ok(())
}

/// Servers as they are asked for.
pub(super) fn servers(names: &[String], configs: &[String], tools: &[String]) -> anyhow::Result<Value> {
    let mut servers: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
    for given in configs {
        let (server, config) = of_server(&mut servers, "--server-config", given)?;
        server["config"] = serde_json::from_str(config).map_err(|error| anyhow!("--server-config {given}: {error}"))?;
    }
    for given in tools {
        let (server, tools) = of_server(&mut servers, "--tools", given)?;
        server["tools"] = tools.split(',').filter(|tool| !tool.is_empty()).collect();
    }
    Ok(Value::Array(servers))
}

/// The server that an option is about, and what it says of it.
fn of_server<'s, 'g>(
    servers: &'s mut [Value],
    option: &str,
    given: &'g str,
) -> anyhow::Result<(&'s mut Value, &'g str)> {
    let about = |server: &Value| given.strip_prefix(server["name"].as_str()?)?.strip_prefix('=');
    let found = servers.iter_mut().find_map(|server| about(server).map(|value| (server, value)));
    found.with_context(|| format!("{option} has to begin with a server that is named with --server, and `=`: {given}"))
}

fn read(file: &Path) -> anyhow::Result<Value> {
    let from = || format!("could not read {}", file.display());
    let mut source: Box<dyn Read> = if file == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(file).with_context(from)?)
    };
    // What never ends is not read for ever.
    let mut written = Vec::new();
    source.by_ref().take(DOCUMENT_BYTES_MAX + 1).read_to_end(&mut written).with_context(from)?;
    if written.len() as u64 > DOCUMENT_BYTES_MAX {
        bail!("{} is larger than {DOCUMENT_BYTES_MAX} bytes: it is no profile", file.display());
    }
    let written = String::from_utf8(written).with_context(from)?;
    crate::catalog::file::yaml(&written).map_err(|problem| anyhow!("{} is no profile: {problem}", file.display()))
}

fn say_secrets(profile: &Value) {
    let secrets = names(&profile["secrets"]);
    if !secrets.is_empty() {
        output::note(format!("its servers use the secrets {secrets} (`mcp-broker secret set NAME`)"));
    }
}

fn path(name: &str) -> String {
    format!("/v1/profiles/{}", encoded(name))
}

/// Names, or the names of what has one, in a line.
fn names(list: &Value) -> String {
    let names: Vec<&str> = items(list).filter_map(|item| item.as_str().or_else(|| item["name"].as_str())).collect();
    names.join(", ")
}
