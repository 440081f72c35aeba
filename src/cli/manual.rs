//! What packages bring besides the program: completions for shells, and manual pages.

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::{Cli, output};

#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell they are for
    shell: Shell,
}

#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// The folder to write to
    folder: PathBuf,
}

pub(super) fn completions(args: &CompletionsArgs) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "mcp-broker", &mut script);
    output::say(String::from_utf8_lossy(&script).trim_end());
    ExitCode::SUCCESS
}

/// Writes a page for the program and one for each of its commands.
pub(super) fn man(args: &ManArgs) -> anyhow::Result<ExitCode> {
    fs::create_dir_all(&args.folder).with_context(|| format!("could not make {}", args.folder.display()))?;
    clap_mangen::generate_to(Cli::command(), &args.folder)
        .with_context(|| format!("could not write to {}", args.folder.display()))?;
    Ok(ExitCode::SUCCESS)
}
