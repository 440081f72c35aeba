//! Servers that are reached by URL: streamable HTTP in both eras, server-sent events, and ones that want a token.

use std::process::Stdio;

use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

use crate::support::{Era, FixtureCatalog, TestBroker, catalog::fixture_server};

/// A fixture server on a port of its own, ended with the test.
struct Remote {
    url: String,
    _child: Child,
}

impl Remote {
    async fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(fixture_server())
            .args(arguments)
            .args(["--port", "0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.next_line().await.unwrap().unwrap();
        let url = line.strip_prefix("listening on ").unwrap().to_owned();
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { url, _child: child }
    }
}

fn entry(url: &str, transport: &str, more: &str) -> String {
    format!("{{description: Far away, remote: {{url: \"{url}\", transport_type: {transport}{more}}}}}")
}

#[tokio::test]
async fn remote_servers_of_every_kind_are_added_and_used() {
    let old = Remote::start(&["http", "--era", "legacy"]).await;
    let new = Remote::start(&["http", "--era", "modern"]).await;
    let both = Remote::start(&["http", "--json"]).await;
    let sse = Remote::start(&["sse"]).await;
    let catalog = FixtureCatalog::new()
        .raw("old", &entry(&old.url, "streamable-http", ""))
        .raw("new", &entry(&new.url, "streamable-http", ""))
        .raw("both", &entry(&both.url, "http", ""))
        .raw("sse", &entry(&sse.url, "sse", ""));
    let broker = TestBroker::with(catalog).start().await;
    for era in [Era::Legacy, Era::Modern] {
        let (status, made) = broker
            .rest(
                http::Method::POST,
                "/v1/sessions",
                Some(json!({"servers": {"old": {}, "new": {}, "both": {}, "sse": {}}})),
            )
            .await;
        assert_eq!(status, 201, "{made}");
        let url = made["mcp_url"].as_str().unwrap();
        let client = crate::support::TestClient::http(url, made["mcp_token"].as_str(), era).await;
        for server in ["old", "new", "both", "sse"] {
            let echoed = client.call(&format!("{server}__echo"), json!({"text": server})).await;
            assert_eq!(echoed.to_string(), format!("ok: {server}"), "{era:?}");
            let asked = client.call(&format!("{server}__ask"), json!({"message": "Well?"})).await;
            assert!(asked.is_ok(), "{era:?} {server}: {asked}");
            let slow = client.call(&format!("{server}__slow"), json!({"ms": 100, "steps": 5})).await;
            assert!(slow.is_ok(), "{era:?} {server}: {slow}");
        }
        assert!(client.server_tools().await.contains(&"new__test_x_mcp_header".to_owned()));
        let mirrored = client.call("new__test_x_mcp_header", json!({"region": "north"})).await;
        assert!(mirrored.to_string().contains("north"), "{era:?}: {mirrored}");
        client.close().await;
    }
    broker.stop().await;
}

#[tokio::test]
async fn a_remote_server_gets_the_secret_its_header_names() {
    let guarded = Remote::start(&["http", "--token", "far-away-token-1"]).await;
    let headers = ", headers: {Authorization: \"Bearer ${FAR_TOKEN}\"}";
    let yaml = format!(
        "{{description: Far away, secrets: [{{name: far.token, env: FAR_TOKEN}}], remote: {{url: \"{}\"{headers}}}}}",
        guarded.url
    );
    let catalog = FixtureCatalog::new().raw("far", &yaml).raw("open", &entry(&guarded.url, "http", ""));
    let broker = TestBroker::with(catalog).start().await;
    let client = broker.connect(Era::Legacy).await;
    let missing = client.call("mcp-add", json!({"name": "far"})).await.to_string();
    assert!(missing.contains("the secret `far.token`"), "{missing}");
    client.ok("mcp-add", json!({"name": "far", "config": {"token": "far-away-token-1"}})).await;
    assert!(client.call("far__echo", json!({"text": "x"})).await.is_ok());
    let refused = client.call("mcp-add", json!({"name": "open"})).await.to_string();
    assert!(refused.contains("wants authorization"), "{refused}");
    broker.stop().await;
}

#[tokio::test]
async fn a_remote_server_that_is_not_there_says_so() {
    let catalog = FixtureCatalog::new()
        .raw("nobody", &entry("http://127.0.0.1:9/mcp", "http", ""))
        .raw("nothing", &entry("http://127.0.0.1:9/sse", "sse", ""));
    let broker = TestBroker::with(catalog).start().await;
    let client = broker.connect(Era::Legacy).await;
    for server in ["nobody", "nothing"] {
        let outcome = client.call("mcp-add", json!({"name": server})).await.to_string();
        assert!(outcome.contains("was not added") && outcome.contains("127.0.0.1:9"), "{outcome}");
    }
    broker.stop().await;
}

#[tokio::test]
async fn a_remote_server_that_comes_back_is_used_again() {
    let first = Remote::start(&["http"]).await;
    let port = first.url.rsplit(':').next().unwrap().split('/').next().unwrap().to_owned();
    let broker = TestBroker::with(FixtureCatalog::new().raw("far", &entry(&first.url, "http", ""))).start().await;
    let client = broker.connect(Era::Legacy).await;
    client.add("far").await;
    assert!(client.call("far__echo", json!({"text": "x"})).await.is_ok());
    drop(first);
    let lost = client.call("far__echo", json!({"text": "x"})).await;
    assert!(!lost.is_ok(), "{lost}");
    let mut child = Command::new(fixture_server())
        .args(["http", "--port", &port])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.next_line().await.unwrap();
    crate::support::broker::eventually("it works again", async || {
        client.call("far__echo", json!({"text": "back"})).await.is_ok()
    })
    .await;
    broker.stop().await;
}
