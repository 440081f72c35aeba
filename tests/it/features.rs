//! Switches take effect at once and are kept; what the operator fixed stays.

use http::Method;
use serde_json::json;

use crate::support::{Era, FixtureCatalog, TestBroker};

async fn set(broker: &TestBroker, feature: &str, enabled: bool) {
    let (status, answer) =
        broker.rest(Method::PUT, &format!("/v1/features/{feature}"), Some(json!({"enabled": enabled}))).await;
    assert_eq!(status, 200, "{answer}");
}

#[tokio::test]
async fn disabling_dynamic_tools_takes_them_from_every_client_at_once() {
    let catalog = FixtureCatalog::new().server("fixed", &[], &[]).server("added", &[], &[]);
    let broker = TestBroker::with(catalog).fixed("fixed").start().await;
    let legacy = broker.connect(Era::Legacy).await;
    let modern = broker.connect(Era::Modern).await;
    legacy.add("added").await;
    let before = legacy.told().tools_changed;
    set(&broker, "dynamic-tools", false).await;
    legacy.wait_for("it is told", |told| told.tools_changed > before).await;
    for client in [&legacy, &modern] {
        let names = client.tool_names().await;
        assert!(!names.iter().any(|name| name.starts_with("mcp-")), "{names:?}");
        assert!(names.contains(&"fixed__echo".to_owned()), "what is fixed stays: {names:?}");
        assert!(client.call("fixed__echo", json!({"text": "x"})).await.is_ok());
        let refused = client.call("mcp-add", json!({"name": "added"})).await.to_string();
        assert!(refused.starts_with("protocol error -32602: Unknown tool: mcp-add"), "{refused}");
    }
    let broker = broker.restart().await;
    let client = broker.connect(Era::Legacy).await;
    assert!(!client.tool_names().await.iter().any(|name| name.starts_with("mcp-")), "kept across a restart");
    set(&broker, "dynamic-tools", true).await;
    client.wait_for("it is told again", |told| told.tools_changed > 0).await;
    assert!(client.tool_names().await.contains(&"mcp-add".to_owned()));
    broker.stop().await;
}

#[tokio::test]
async fn fixed_servers_are_in_every_session_and_cannot_be_removed() {
    let broker = TestBroker::with(FixtureCatalog::new().server("fixed", &[], &[])).fixed("fixed").start().await;
    let client = broker.connect(Era::Legacy).await;
    assert!(client.server_tools().await.contains(&"fixed__echo".to_owned()));
    let outcome = client.call("mcp-remove", json!({"name": "fixed"})).await;
    insta::assert_snapshot!(outcome, @"error: server `fixed` was put into every session by the operator and stays");
    let pid = client.ok("fixed__pid", json!({})).await;
    let other = broker.connect(Era::Legacy).await;
    assert_ne!(other.ok("fixed__pid", json!({})).await.content, pid.content, "each session has its own instance");
    broker.stop().await;
}

#[tokio::test]
async fn static_tools_leave_the_newer_era_the_management_tools() {
    let broker = TestBroker::start().await;
    let (_, made) = broker.rest(Method::POST, "/v1/sessions", Some(json!({"servers": {"fixture": {}}}))).await;
    let connect =
        |era| crate::support::TestClient::http(made["mcp_url"].as_str().unwrap(), made["mcp_token"].as_str(), era);
    set(&broker, "static-tools", true).await;
    let modern = connect(Era::Modern).await;
    assert_eq!(modern.server_tools().await, Vec::<String>::new());
    assert!(modern.exec(None, "fixture__echo", json!({"text": "x"})).await.is_ok());
    assert!(connect(Era::Legacy).await.server_tools().await.len() > 10);
    broker.stop().await;
}

#[tokio::test]
async fn without_prefixes_tools_have_their_own_names_until_two_are_the_same() {
    let catalog = FixtureCatalog::new().server("one", &[], &[]).server("two", &[], &[]);
    let broker = TestBroker::with(catalog).feature("tool-name-prefix", false).start().await;
    let client = broker.connect(Era::Legacy).await;
    client.add("one").await;
    assert!(client.server_tools().await.contains(&"echo".to_owned()));
    client.add("two").await;
    let names = client.server_tools().await;
    assert!(names.contains(&"echo".to_owned()) && names.contains(&"two__echo".to_owned()), "{names:?}");
    broker.stop().await;
}

#[tokio::test]
async fn an_unknown_feature_is_named() {
    let broker = TestBroker::start().await;
    let (status, answer) = broker.rest(Method::PUT, "/v1/features/nonsense", Some(json!({"enabled": true}))).await;
    assert_eq!(status, 404);
    assert!(answer["error"]["message"].as_str().unwrap().contains("dynamic-tools"), "{answer}");
    broker.stop().await;
}
