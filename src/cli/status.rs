//! `mcp-broker status`.

use std::process::ExitCode;

use http::Method;

use super::{Global, broker::Broker, output};
use crate::http::socket;

pub(super) async fn run(global: &Global) -> anyhow::Result<ExitCode> {
    let settings = global.settings()?;
    output::say(format!("data folder: {}", settings.data_folder.display()));
    if socket::connect(&settings.data_folder).await.is_err() {
        output::say("broker:      not running");
        return Ok(ExitCode::SUCCESS);
    }
    let status = Broker::find(settings).await?.ask_once(Method::GET, "/v1/status", None).await?;
    output::say(format!(
        "broker:      {} running as process {}",
        status["version"].as_str().unwrap_or("?"),
        status["pid"]
    ));
    output::say(format!("listening:   {}", status["url"].as_str().unwrap_or("unix socket only")));
    output::say(format!("since:       {}", status["started_at"].as_str().unwrap_or("?")));
    output::say(format!("sessions:    {}", status["sessions"]));
    output::say(format!("instances:   {}", status["instances"]));
    output::say(format!(
        "catalog:     {} servers, {} problems",
        status["catalog"]["servers"], status["catalog"]["problems"]
    ));
    Ok(ExitCode::SUCCESS)
}
