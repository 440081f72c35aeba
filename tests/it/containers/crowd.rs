//! Many sessions at once, each with the same servers.

use std::process::{Command, Stdio};

use serde_json::json;

use super::{
    IMAGE,
    engine::{all_is_gone, docker, engine, networks},
};
use crate::support::{Era, FixtureCatalog, TestBroker, broker::eventually};

const SESSIONS: usize = 10;
const SERVERS: usize = 9;

#[tokio::test]
async fn ten_sessions_with_nine_servers_each_make_ninety_containers_and_leave_none() {
    let Some(_engine) = engine().await else { return };
    let names: Vec<String> = (0..SERVERS).map(|number| format!("server-{number}")).collect();
    let catalog = names.iter().fold(FixtureCatalog::new(), |catalog, name| catalog.image(name, IMAGE, ""));
    let broker = TestBroker::with(catalog)
        .containers(|_| ())
        .limits(|limits| (limits.start_seconds, limits.call_seconds) = (120, 120))
        .start()
        .await;
    // Followed as they happen: the engine remembers a few hundred only.
    let filters = ["--filter", "event=create", "--filter", "label=mcp-broker.folder"];
    let mut events = Command::new("docker").arg("events").args(filters).stdout(Stdio::piped()).spawn().unwrap();

    let clients = futures_util::future::join_all((0..SESSIONS).map(|_| broker.connect(Era::Legacy))).await;
    futures_util::future::join_all(clients.iter().map(async |client| {
        // Each is added twice at once, and called before it can be there: still it is started once.
        let adds = names.iter().chain(&names).map(|name| client.add(name));
        futures_util::future::join_all(adds).await;
        let calls = names.iter().map(async |name| {
            let echoed = client.ok(&format!("{name}__echo"), json!({"text": name})).await;
            assert_eq!(echoed.structured_content.unwrap()["text"], json!(name));
        });
        futures_util::future::join_all(calls).await;
    }))
    .await;

    let running = docker(&["ps", "--quiet", "--filter", "label=mcp-broker.folder"]);
    assert_eq!(running.lines().count(), SESSIONS * SERVERS);
    assert!((SESSIONS..=SESSIONS + 1).contains(&networks().len()), "one each, and one for the next session");
    events.kill().unwrap();
    let made = String::from_utf8(events.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(made.lines().count(), SESSIONS * SERVERS, "{made}");

    // Removing all of a session's servers frees its network, and one spare network is enough.
    let (first, others) = clients.split_first().unwrap();
    futures_util::future::join_all(names.iter().map(|name| first.ok("mcp-remove", json!({"name": name})))).await;
    eventually("its network is gone", async || networks().len() == others.len() + 1).await;
    broker.stop().await;
    all_is_gone();
}
