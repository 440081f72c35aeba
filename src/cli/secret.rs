//! `mcp-broker secret`.

use std::{
    io::{IsTerminal as _, Read as _},
    process::ExitCode,
};

use anyhow::bail;
use clap::Subcommand;
use http::Method;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use serde_json::json;

use super::{Global, broker::Broker, output};

/// Keep secrets for servers, encrypted. They are given to the servers that need them and shown to nobody.
#[derive(Debug, Subcommand)]
pub(super) enum SecretCommand {
    /// Keep a secret; its value is read from standard input
    Set {
        /// The secret's name, as mcp-find and mcp-add give it
        name: String,
    },
    /// List the names of secrets
    #[command(visible_alias = "list")]
    Ls,
    /// Forget a secret
    Rm { name: String },
}

pub(super) async fn run(global: &Global, command: SecretCommand) -> anyhow::Result<ExitCode> {
    let settings = global.settings()?;
    match command {
        SecretCommand::Set { name } => {
            let value = read_value(&name)?;
            let broker = Broker::find(settings).await?;
            let path = format!("/v1/secrets/{}", super::encoded(&name));
            broker.ask_once(Method::PUT, &path, Some(json!({"value": value}))).await?;
            output::say(format!("secret {name} is set"));
        }
        SecretCommand::Ls => {
            let answer = Broker::find(settings).await?.ask_once(Method::GET, "/v1/secrets", None).await?;
            for name in answer["secrets"].as_array().into_iter().flatten().filter_map(|name| name.as_str()) {
                output::say(name);
            }
        }
        SecretCommand::Rm { name } => {
            let path = format!("/v1/secrets/{}", super::encoded(&name));
            Broker::find(settings).await?.ask_once(Method::DELETE, &path, None).await?;
            output::say(format!("secret {name} is removed"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// One line break at the end is the terminal's, not the secret's.
fn read_value(name: &str) -> anyhow::Result<String> {
    let mut input = std::io::stdin();
    let mut value = String::new();
    if input.is_terminal() {
        let _silent = Silent::begin()?;
        output::note(format!("value of {name}, which is not shown:"));
        input.read_line(&mut value)?;
    } else {
        input.read_to_string(&mut value)?;
    }
    let value = value.strip_suffix('\n').map_or(value.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
    if value.is_empty() {
        bail!(
            "the secret's value is read from standard input, and there was nothing: `mcp-broker secret set {name} < FILE`"
        );
    }
    Ok(value.to_owned())
}

/// Has the terminal not show what is typed, until it is dropped.
struct Silent(Termios);

impl Silent {
    fn begin() -> anyhow::Result<Self> {
        let before = tcgetattr(std::io::stdin())?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(std::io::stdin(), OptionalActions::Flush, &silent)?;
        Ok(Self(before))
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Flush, &self.0);
    }
}
