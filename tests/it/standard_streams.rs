//! `mcp-broker stdio`: several at once on one data folder, and one broker among them.

use http::Method;
use serde_json::json;

use crate::support::{Era, FixtureCatalog, TestClient, broker::eventually, process::Home};

fn home() -> Home {
    Home::with(&FixtureCatalog::new().server("fixture", &[], &[]))
}

async fn sessions(home: &Home) -> usize {
    home.run(&["session", "ls"]).await.ok().lines().count() - 1
}

#[tokio::test]
async fn two_clients_of_each_era_share_a_broker_and_nothing_else() {
    let home = home();
    for (one, other) in [(Era::Legacy, Era::Legacy), (Era::Modern, Era::Modern), (Era::Modern, Era::Legacy)] {
        let (first, first_process) = home.stdio(&[]).client(one).await;
        let (second, second_process) = home.stdio(&[]).client(other).await;
        first.add("fixture").await;
        assert!(first.server_tools().await.contains(&"fixture__echo".to_owned()));
        assert_eq!(second.server_tools().await, Vec::<String>::new());
        assert!(!second.exec(None, "fixture__echo", json!({"text": "x"})).await.is_ok());
        second.close().await;
        first.close().await;
        for mut process in [second_process, first_process] {
            process.wait().await.unwrap();
        }
        assert!(!home.has_processes());
    }
    assert_eq!(sessions(&home).await, 0, "a session without a name ends with its process");
}

#[tokio::test]
async fn the_other_client_goes_on_when_the_broker_is_killed() {
    let home = home();
    let (first, mut first_process) = home.stdio(&[]).client(Era::Legacy).await;
    let (second, second_process) = home.stdio(&[]).client(Era::Legacy).await;
    second.add("fixture").await;
    let in_flight = second.call("fixture__slow", json!({"ms": 60_000, "steps": 600}));
    let outcome = tokio::join!(in_flight, async {
        second.wait_for("a call is under way", |told| !told.progress.is_empty()).await;
        first_process.kill().await.unwrap();
    })
    .0;
    assert!(outcome.to_string().contains("the broker ended during this request"), "{outcome}");
    assert!(second.call("fixture__echo", json!({"text": "still here"})).await.is_ok());
    assert!(second.server_tools().await.contains(&"fixture__echo".to_owned()));
    let changed = second.told().tools_changed;
    second.ok("mcp-remove", json!({"name": "fixture"})).await;
    second.wait_for("it is told of changes as before", |told| told.tools_changed > changed).await;
    drop(first);
    second.close().await;
    let mut process = second_process;
    process.wait().await.unwrap();
    assert!(!home.has_processes());
}

#[tokio::test]
async fn the_first_process_stays_for_those_who_attached_to_it() {
    let home = home();
    let (first, mut first_process) = home.stdio(&[]).client(Era::Legacy).await;
    let (second, mut second_process) = home.stdio(&[]).client(Era::Legacy).await;
    second.add("fixture").await;
    first.close().await;
    let outcome = second.call("fixture__echo", json!({"text": "x"})).await;
    assert!(outcome.is_ok(), "{outcome}");
    assert!(first_process.try_wait().unwrap().is_none(), "it is the broker still");
    second.close().await;
    first_process.wait().await.unwrap();
    second_process.wait().await.unwrap();
    assert!(!home.has_processes());
}

#[tokio::test]
async fn a_named_session_is_found_again_and_commands_reach_every_broker() {
    let home = home();
    let (client, mut process) = home.stdio(&["--session", "my work"]).client(Era::Legacy).await;
    client.add("fixture").await;
    assert!(home.run(&["session", "ls"]).await.ok().contains("my work"));
    home.run(&["feature", "disable", "dynamic-tools"]).await.ok();
    eventually("the tools are gone", async || !client.tool_names().await.contains(&"mcp-add".to_owned())).await;
    home.run(&["feature", "enable", "dynamic-tools"]).await.ok();
    client.close().await;
    process.wait().await.unwrap();
    let (client, mut process) = home.stdio(&["--session", "my work"]).client(Era::Modern).await;
    assert!(client.server_tools().await.contains(&"fixture__echo".to_owned()));
    assert!(client.call("fixture__echo", json!({"text": "x"})).await.is_ok());
    client.close().await;
    process.wait().await.unwrap();
}

#[tokio::test]
async fn a_stream_attaches_to_a_broker_that_serves_http() {
    let home = home();
    let broker = home.serve().await;
    let (client, mut process) = home.stdio(&[]).client(Era::Legacy).await;
    client.add("fixture").await;
    let url = format!("http://{}/v1/sessions", broker.address());
    let request = reqwest::Client::new().request(Method::GET, url).bearer_auth(home.token());
    let listed: serde_json::Value = request.send().await.unwrap().json().await.unwrap();
    assert_eq!(listed["sessions"][0]["kind"], "process");
    let over_http: TestClient = broker.connect(Era::Legacy).await;
    assert_eq!(over_http.server_tools().await, Vec::<String>::new());
    client.close().await;
    process.wait().await.unwrap();
    assert_eq!(broker.terminate().await, 0);
}

#[tokio::test]
async fn servers_given_to_a_process_are_its_own_sessions_whoever_is_the_broker() {
    let home = home();
    for is_attached in [false, true] {
        let broker = if is_attached { Some(home.serve().await) } else { None };
        let (one, mut one_process) = home.stdio(&["--server", "fixture"]).client(Era::Legacy).await;
        eventually("it is on", async || one.server_tools().await.contains(&"fixture__echo".to_owned())).await;
        let (other, mut other_process) = home.stdio(&[]).client(Era::Legacy).await;
        assert_eq!(other.server_tools().await, Vec::<String>::new());
        let refused = home.run(&["stdio", "--server", "nosuch"]).await;
        assert_eq!(refused.code(), 1, "{}", refused.err());
        assert!(refused.err().contains("nosuch"), "{}", refused.err());
        other.close().await;
        other_process.wait().await.unwrap();
        one.close().await;
        one_process.wait().await.unwrap();
        if let Some(broker) = broker {
            assert_eq!(broker.terminate().await, 0);
        }
    }
}
