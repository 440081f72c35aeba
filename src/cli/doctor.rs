//! `mcp-broker doctor`: what this machine has, and what is missing.

use std::process::ExitCode;

use http::Method;
use serde_json::Value;

use super::{Global, broker::Broker, output};
use crate::{
    app::OpenError,
    catalog::{Catalog, entry::Registry},
    codemode,
    lifecycle::Tasks,
    supervisor::{Supervisor, upstream::chain},
};

pub(super) async fn run(global: &Global) -> anyhow::Result<ExitCode> {
    let settings = global.settings()?;
    let mut ok = true;
    let mut report = |what: &str, outcome: Result<String, String>| {
        ok &= outcome.is_ok();
        match outcome {
            Ok(found) => output::say(format!("ok       {what}: {found}")),
            Err(missing) => output::say(format!("problem  {what}: {missing}")),
        }
    };
    report("settings", Ok("valid".to_owned()));
    let catalog = Catalog::load(&settings.catalogs);
    report(
        "catalog",
        match &catalog {
            Ok(catalog) => {
                let snapshot = catalog.snapshot();
                Ok(format!("{} servers, {} problems", snapshot.len(), snapshot.problems().len()))
            }
            Err(error) => Err(error.to_string()),
        },
    );
    for (registry, name) in
        [(Registry::Npm, "npm packages"), (Registry::Pypi, "PyPI packages"), (Registry::Git, "Git repositories")]
    {
        match Supervisor::installer(registry) {
            Ok(installer) => report(name, Ok(format!("with {installer}"))),
            Err(error) => output::say(format!("missing  {name}: {error}")),
        }
    }
    report("scripts", codemode::check(&settings.code_mode).await);
    match Supervisor::container_engine(&settings.containers, &Tasks::new().0).await {
        Ok(engine) => report("containers", Ok(format!("with {engine}"))),
        Err(error) => output::say(format!("missing  containers: {}", chain(&error))),
    }
    let folder = settings.data_folder.display().to_string();
    match Broker::find(settings).await {
        Ok(broker) => {
            let how = if broker.is_running() { "a broker is running on it" } else { "it can be used" };
            report("data folder", Ok(format!("{folder}; {how}")));
            match broker.ask(Method::GET, "/v1/integrity", None).await {
                Ok(found) => {
                    report("database", whole(&found["database"]));
                    report("audit log", intact(&found["log"]));
                }
                Err(error) => report("database", Err(format!("{error:#}"))),
            }
            broker.close().await;
        }
        // Told above.
        Err(error) if catalog.is_err() && matches!(error.downcast_ref(), Some(OpenError::Catalog(_))) => {}
        Err(error) => report(about(&error), Err(format!("{error:#}"))),
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What keeps a broker from starting on the data folder.
fn about(error: &anyhow::Error) -> &'static str {
    match error.downcast_ref() {
        Some(OpenError::UnknownServer(_)) => "servers",
        Some(OpenError::Profile(_) | OpenError::Profiles(_)) => "profiles",
        Some(OpenError::Compose(_) | OpenError::Services(_)) => "Compose file",
        Some(OpenError::Catalog(_) | OpenError::Sources(_)) => "catalog",
        _ => "data folder",
    }
}

fn whole(problems: &Value) -> Result<String, String> {
    let problems: Vec<&str> = problems.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if problems.is_empty() { Ok("whole".to_owned()) } else { Err(problems.join("; ")) }
}

fn intact(log: &Value) -> Result<String, String> {
    if log["intact"] == true {
        return Ok(format!("intact, {} events", log["events"]));
    }
    Err(format!("not intact from event {} on: {}", log["event"], log["problem"].as_str().unwrap_or_default()))
}
