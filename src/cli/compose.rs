//! `mcp-broker compose`: what a Compose file would start, and agreeing to it.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use clap::Subcommand;
use http::Method;
use serde_json::{Value, json};

use super::{Global, broker::Broker, encoded, output};
use crate::{
    catalog::foreign::displayable,
    compose::{self, ComposeFile, Offer},
};

/// Agree to Compose files, and look at what they would start.
///
/// `mcp-broker stdio` reads gordon-mcp.yml in the folder it is started in, and starts nothing of it until somebody has
/// agreed to it. A file that changes, or whose files of variables or mounted folders do, has to be agreed to again.
#[derive(Debug, Subcommand)]
pub(super) enum ComposeCommand {
    /// Show what a file would start, and everything in it that is not supported; exits with 1 if a service is
    /// left out, or the file is too large for a broker
    Check {
        /// The file
        #[arg(default_value = compose::FILE)]
        file: PathBuf,
    },
    /// Agree to a file as it is now
    Trust {
        /// The file
        #[arg(default_value = compose::FILE)]
        file: PathBuf,
    },
    /// Take back what was agreed to; sessions that run keep their servers
    Untrust {
        /// The file
        #[arg(default_value = compose::FILE)]
        file: PathBuf,
    },
    /// List the files that were agreed to
    #[command(visible_alias = "list")]
    Ls,
}

pub(super) async fn run(global: &Global, command: ComposeCommand) -> anyhow::Result<ExitCode> {
    match command {
        ComposeCommand::Check { file } => {
            let file = compose::read(&file, &compose::environment())?;
            let has_errors = file.has_errors();
            show(&file);
            fits(&file.offer(false))?;
            return Ok(if has_errors { ExitCode::FAILURE } else { ExitCode::SUCCESS });
        }
        ComposeCommand::Trust { file } => {
            let file = compose::read(&file, &compose::environment())?;
            show(&file);
            if file.definitions.is_empty() {
                bail!("there is no service that could be started");
            }
            let offer = file.offer(true);
            fits(&offer)?;
            let body = json!({"file": offer.file, "hash": offer.hash});
            let broker = Broker::find(global.settings()?).await?;
            let answer = broker.ask_once(Method::POST, "/v1/compose/consents", Some(body)).await?;
            let left_out = answer["left_out"].as_array().into_iter().flatten().filter_map(Value::as_str);
            for problem in left_out {
                output::note(format!("left out: {}", displayable(problem, usize::MAX)));
            }
            output::say(format!("{} is agreed to: sessions of its folder have these servers", offer.file));
        }
        ComposeCommand::Untrust { file } => {
            // It may be gone by now.
            let path = file.canonicalize().or_else(|_| std::path::absolute(&file))?;
            let path = path.display().to_string();
            let broker = Broker::find(global.settings()?).await?;
            let asked = format!("/v1/compose/consents?file={}", encoded(&path));
            let answer = broker.ask_once(Method::DELETE, &asked, None).await?;
            if answer["removed"] != json!(true) {
                bail!("{path} was not agreed to: `mcp-broker compose ls` lists what was");
            }
            output::say(format!("{path} is not agreed to any more"));
        }
        ComposeCommand::Ls => {
            let broker = Broker::find(global.settings()?).await?;
            let answer = broker.ask_once(Method::GET, "/v1/compose/consents", None).await?;
            let rows: Vec<Vec<String>> = answer["consents"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|row| {
                    let text = |key: &str| row[key].as_str().unwrap_or("-").to_owned();
                    vec![text("agreed_at"), text("hash").chars().take(12).collect(), text("file")]
                })
                .collect();
            output::table(&["AGREED", "HASH", "FILE"], &rows);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn show(file: &ComposeFile) {
    for problem in &file.problems {
        output::note(problem.to_string());
    }
    for definition in &file.definitions {
        output::say(format!("{}: {}", definition.name, definition.shown));
        // Here is who may see what a variable in a path leads to.
        for leads in &definition.leads {
            output::say(format!("  {}: that {leads}", definition.name));
        }
    }
}

/// The Compose file that a session begins with: the one that is named, which is agreed to by that, or the one that is
/// found in the working folder.
pub(super) fn offer(named: Option<&Path>) -> anyhow::Result<Option<Offer>> {
    let path = named.unwrap_or(Path::new(compose::FILE));
    if named.is_none() && !path.exists() {
        return Ok(None);
    }
    let file = match compose::read(path, &compose::environment()) {
        Ok(file) => file,
        Err(error) if named.is_some() => {
            return Err(error).context("the file given with --compose cannot be used");
        }
        Err(error) => {
            // Whoever wrote it is not to keep anybody from working.
            output::complain(&anyhow::Error::new(error).context("the Compose file in this folder is left alone"));
            return Ok(None);
        }
    };
    for problem in &file.problems {
        output::note(format!("mcp-broker: {}: {problem}", path.display()));
    }
    if file.definitions.is_empty() {
        return Ok(None);
    }
    let offer = file.offer(named.is_some());
    match fits(&offer) {
        Ok(()) => Ok(Some(offer)),
        Err(problem) if named.is_some() => Err(problem).context("the file given with --compose cannot be used"),
        Err(problem) => {
            output::complain(&problem.context("the Compose file in this folder is left alone"));
            Ok(None)
        }
    }
}

/// A broker takes no larger request.
fn fits(offer: &Offer) -> anyhow::Result<()> {
    let bytes = serde_json::to_vec(offer)?.len();
    if bytes > compose::OFFER_BYTES_MAX {
        bail!(
            "{} has {bytes} bytes with the variables of its services, and {} are the most: have fewer or shorter ones",
            offer.file,
            compose::OFFER_BYTES_MAX
        );
    }
    Ok(())
}
