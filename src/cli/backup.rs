//! `mcp-broker backup`.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::Args;
use http::Method;
use serde_json::json;

use super::{Global, broker::Broker, output};

/// Copy the database to a file, also while a broker is running on it.
///
/// The file holds sessions, their history and the sealed secrets. The key that opens those (`master.key` in the data
/// folder) is not in it: keep a copy of that elsewhere.
#[derive(Debug, Args)]
pub(super) struct BackupArgs {
    /// Where to; the file must not exist
    file: PathBuf,
}

pub(super) async fn run(global: &Global, arguments: BackupArgs) -> anyhow::Result<ExitCode> {
    let file =
        std::path::absolute(&arguments.file).with_context(|| format!("`{}` is no path", arguments.file.display()))?;
    let broker = Broker::find(global.settings()?).await?;
    let made = broker.ask_once(Method::POST, "/v1/backup", Some(json!({"file": file}))).await?;
    output::say(format!("{}: {} bytes", file.display(), made["bytes"]));
    Ok(ExitCode::SUCCESS)
}
