//! The broker is killed in the middle of a call. What was acknowledged is there afterwards, and nothing is left running.

use http::Method;
use serde_json::{Value, json};

use crate::support::{
    BrokerProcess, Era, FixtureCatalog, TestClient, broker::eventually, by_hand::ByHand, process::Home,
};

fn catalog() -> FixtureCatalog {
    let config = "    config:\n      - {name: C, type: object, properties: {word: {type: string}}}";
    let stubborn = [("WORD", "{{fixture.word}}"), ("FIXTURE_IGNORE_EOF", "1"), ("FIXTURE_SPAWN_CHILD", "1")];
    FixtureCatalog::new().entry("fixture", &[], &stubborn, config)
}

async fn rest(broker: &BrokerProcess, method: Method, path: &str, body: Value) -> Value {
    let url = format!("http://{}{path}", broker.address());
    let request = reqwest::Client::new().request(method, url).bearer_auth(broker.home.token()).json(&body);
    request.send().await.unwrap().json().await.unwrap()
}

#[tokio::test]
async fn a_killed_broker_comes_back_with_every_session_and_leaves_no_process() {
    let home = Home::with(&catalog());
    let broker = home.serve().await;
    let word = |word: &str| json!({"name": "fixture", "config": {"word": word}});

    let by_connection = ByHand::connect(&broker.url, &home.token()).await;
    by_connection.call("mcp-add", word("by connection")).await;
    let made = rest(&broker, Method::POST, "/v1/sessions", json!({"servers": {"fixture": {"word": "by url"}}})).await;
    let (url, token) = (made["mcp_url"].as_str().unwrap(), made["mcp_token"].as_str());
    let by_handle = broker.connect(Era::Modern).await;
    let added = by_handle.ok("mcp-add", word("by handle")).await.structured_content.unwrap();
    let handle = added["session"].as_str().unwrap().to_owned();
    let (by_name, mut process) = home.stdio(&["--session", "my-work"]).client(Era::Legacy).await;
    by_name.ok("mcp-add", word("by name")).await;

    let address = broker.address();
    let in_flight = by_handle.exec(Some(&handle), "fixture__slow", json!({"ms": 60_000, "steps": 600}));
    let killed = async {
        by_handle.wait_for("a call is under way", |told| !told.progress.is_empty()).await;
        process.kill().await.unwrap();
        broker.kill().await;
    };
    let (outcome, ()) = tokio::join!(in_flight, killed);
    assert!(!outcome.is_ok(), "{outcome}");
    assert!(home.has_processes(), "servers that ignore their input's end outlive a killed broker");

    let broker = home.serve_at(&address).await;
    assert!(!home.has_processes(), "and are ended when it starts again");
    let names = json!({"names": ["WORD"]});
    let answer = by_connection.call("fixture__env", names.clone()).await;
    assert!(answer.contains("by connection"), "{answer}");
    for era in [Era::Legacy, Era::Modern] {
        let client = TestClient::http(url, token, era).await;
        let found = client.ok("fixture__env", names.clone()).await.structured_content.unwrap();
        assert!(found.to_string().contains("by url"), "{found}");
    }
    let found = broker.connect(Era::Modern).await.exec(Some(&handle), "fixture__env", names.clone()).await.structured();
    assert!(found.to_string().contains("by handle"), "{found}");
    let (by_name, mut process) = home.stdio(&["--session", "my-work"]).client(Era::Modern).await;
    let found = by_name.ok("fixture__env", names).await.structured_content.unwrap();
    assert!(found.to_string().contains("by name"), "{found}");

    let records = rest(&broker, Method::GET, "/v1/audit?limit=1000", Value::Null).await;
    let slow = records["records"].as_array().unwrap().iter().find(|record| record["name"] == "slow").unwrap();
    assert_eq!(slow["status"], "abandoned");
    assert!(home.run(&["audit", "verify"]).await.ok().starts_with("intact"));
    process.kill().await.unwrap();
    assert_eq!(broker.terminate().await, 0);
    assert!(!home.has_processes());
}

#[tokio::test]
async fn a_client_that_follows_a_resource_goes_on_hearing_of_it_after_a_restart() {
    let home = Home::with(&catalog());
    let broker = home.serve().await;
    let (address, uri) = (broker.address(), "test://watched-resource");
    let client = ByHand::connect(&broker.url, &home.token()).await;
    client.call("mcp-add", json!({"name": "fixture"})).await;
    for (uri, method) in
        [(uri, "subscribe"), ("test://static-text", "subscribe"), ("test://static-text", "unsubscribe")]
    {
        let body = json!({"jsonrpc": "2.0", "id": 3, "method": format!("resources/{method}"), "params": {"uri": uri}});
        let answer = client.send(body).await.text().await.unwrap();
        assert!(answer.contains("\"result\""), "{answer}");
    }
    broker.kill().await;
    let broker = home.serve_at(&address).await;
    let mut stream = reqwest::Client::new()
        .get(&client.url)
        .bearer_auth(&client.token)
        .header("accept", "text/event-stream")
        .header("mcp-session-id", &client.connection)
        .send()
        .await
        .unwrap();
    for touched in ["test://static-text", uri] {
        client.call("fixture__touch", json!({"uri": touched})).await;
    }
    let mut told = String::new();
    while !told.contains(uri) {
        let chunk = tokio::time::timeout(std::time::Duration::from_secs(20), stream.chunk()).await;
        let chunk = chunk.unwrap_or_else(|_| panic!("it is told nothing but {told}"));
        told.push_str(&String::from_utf8_lossy(&chunk.unwrap().expect("the stream goes on")));
    }
    assert!(told.contains("notifications/resources/updated") && !told.contains("static-text"), "{told}");
    drop(stream);
    assert_eq!(broker.terminate().await, 0);
}

#[tokio::test]
async fn a_broker_that_is_asked_to_stop_lets_calls_finish_and_leaves_nothing() {
    let home = Home::with(&catalog());
    let broker = home.serve().await;
    let client = broker.connect(Era::Legacy).await;
    client.add("fixture").await;
    let call = tokio::spawn({
        let client = broker.connect(Era::Legacy).await;
        async move {
            client.add("fixture").await;
            client.call("fixture__slow", json!({"ms": 1500, "steps": 3})).await.to_string()
        }
    });
    eventually("the call is under way", async || {
        let records = rest(&broker, Method::GET, "/v1/audit", Value::Null).await;
        records["records"].as_array().unwrap().iter().any(|record| record["name"] == "slow")
    })
    .await;
    assert_eq!(broker.terminate().await, 0);
    let outcome = call.await.unwrap();
    assert!(outcome.starts_with("ok"), "{outcome}");
    assert!(!home.has_processes());
}
