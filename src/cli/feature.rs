//! `mcp-broker feature`.

use std::process::ExitCode;

use clap::Subcommand;
use http::Method;
use serde_json::{Value, json};

use super::{Global, broker::Broker, output};
use crate::features::FeatureState;

/// Switch features on and off. It takes effect at once, for every connected client, and is kept.
#[derive(Debug, Subcommand)]
pub(super) enum FeatureCommand {
    /// Show every feature and whether it is on
    #[command(visible_alias = "list")]
    Ls,
    /// Switch a feature on
    Enable { name: String },
    /// Switch a feature off
    Disable { name: String },
}

pub(super) async fn run(global: &Global, command: FeatureCommand) -> anyhow::Result<ExitCode> {
    let broker = Broker::find(global.settings()?).await?;
    let answer = match command {
        FeatureCommand::Ls => broker.ask_once(Method::GET, "/v1/features", None).await?,
        FeatureCommand::Enable { name } => set(broker, &name, true).await?,
        FeatureCommand::Disable { name } => set(broker, &name, false).await?,
    };
    let states: Vec<FeatureState> = serde_json::from_value(answer["features"].clone())?;
    let rows: Vec<Vec<String>> = states
        .into_iter()
        .map(|state| {
            let on = if state.enabled { "enabled" } else { "disabled" };
            let locked = if state.locked { " (locked)" } else { "" };
            vec![state.name, format!("{on}{locked}"), state.description]
        })
        .collect();
    output::table(&["FEATURE", "STATE", "DESCRIPTION"], &rows);
    Ok(ExitCode::SUCCESS)
}

async fn set(broker: Broker, name: &str, enabled: bool) -> anyhow::Result<Value> {
    broker
        .ask_once(Method::PUT, &format!("/v1/features/{}", super::encoded(name)), Some(json!({"enabled": enabled})))
        .await
}
