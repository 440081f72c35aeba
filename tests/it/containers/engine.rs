//! The engine that stories use one at a time, and what a broker has left there.

use std::{
    collections::BTreeSet,
    process::{Command, Output},
    sync::{Mutex, PoisonError},
};

const LABEL: &str = "label=mcp-broker.folder";

/// The engine for one story, which looks at everything it has, and the address of a registry.
pub(super) struct Engine {
    pub(super) registry: String,
    _one_at_a_time: tokio::sync::MutexGuard<'static, ()>,
}

/// None without an engine: then these stories cannot be told, and say so.
pub(super) async fn engine() -> Option<Engine> {
    static ENGINE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let Ok(registry) = std::env::var("MCP_BROKER_TEST_DOCKER") else {
        eprintln!("SKIPPED: no container engine is set up; `make test-docker` does that");
        return None;
    };
    let engine = Engine { registry, _one_at_a_time: ENGINE.lock().await };
    // What a story left that failed is not to fail the next one.
    for id in containers() {
        docker(&["rm", "--force", "--volumes", &id]);
    }
    for id in networks() {
        assert!(removed(&id) || is_lost(&id), "network {id} cannot be removed");
    }
    for id in volumes() {
        docker(&["volume", "rm", &id]);
    }
    Some(engine)
}

fn run(arguments: &[&str]) -> Output {
    Command::new("docker").args(arguments).output().expect("docker runs")
}

pub(super) fn docker(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("it prints text").trim().to_owned()
}

fn listed(list: &[&str]) -> Vec<String> {
    docker(&[list, &["--quiet", "--filter", LABEL]].concat()).lines().map(str::to_owned).collect()
}

fn containers() -> Vec<String> {
    listed(&["ps", "--all"])
}

fn volumes() -> Vec<String> {
    listed(&["volume", "ls"])
}

/// Networks of which the engine has lost count: it refuses to remove one, with nothing on it, until it is restarted
/// (moby/moby, issue 42119).
static LOST: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Networks that a broker has made and the engine can remove.
pub(super) fn networks() -> Vec<String> {
    let lost = LOST.lock().unwrap_or_else(PoisonError::into_inner);
    listed(&["network", "ls"]).into_iter().filter(|id| !lost.contains(id)).collect()
}

fn nothing_is_on(network: &str) -> bool {
    docker(&["network", "inspect", network, "--format", "{{len .Containers}}"]) == "0"
}

fn removed(network: &str) -> bool {
    run(&["network", "rm", network]).status.success()
}

/// Whether the engine names nothing that is on a network, and refuses to remove it nevertheless.
fn is_lost(network: &str) -> bool {
    let lost = nothing_is_on(network)
        && String::from_utf8_lossy(&run(&["network", "rm", network]).stderr).contains("has active endpoints");
    if lost {
        eprintln!("the engine does not let go of network {network}, though it names nothing that is on it");
        LOST.lock().unwrap_or_else(PoisonError::into_inner).insert(network.to_owned());
    }
    lost
}

/// Containers, networks and volumes that a broker has made.
pub(super) fn left() -> Vec<String> {
    [containers(), networks(), volumes()].concat()
}

/// The same, but for one network with nothing on it, which a broker that runs keeps for the next session.
pub(super) fn left_of_sessions() -> Vec<String> {
    let mut left = left();
    if let [spare] = &networks()[..]
        && nothing_is_on(spare)
    {
        left.retain(|id| id != spare);
    }
    left
}

/// For the end of a story, when its broker does not run any more: nothing that it made is there.
pub(super) fn all_is_gone() {
    let left: Vec<_> = left().into_iter().filter(|id| !networks().contains(id) || !is_lost(id)).collect();
    assert!(left.is_empty(), "{left:?}");
}
