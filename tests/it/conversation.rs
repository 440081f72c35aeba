//! The main job: an agent finds, adds, configures, uses and drops a server in the middle of a conversation.

use serde_json::json;

use crate::support::{Era, FixtureCatalog, TestBroker};

#[tokio::test]
async fn an_agent_finds_adds_uses_and_drops_a_server() {
    let broker = TestBroker::start().await;
    for era in [Era::Legacy, Era::Modern] {
        let client = broker.connect(era).await;
        assert_eq!(client.server_tools().await, Vec::<String>::new());

        let found = client.ok("mcp-find", json!({"query": "the fixture"})).await;
        assert_eq!(found.structured_content.unwrap()["servers"][0]["name"], "fixture");

        let added = client.add("fixture").await;
        let session = added["session"].as_str().map(str::to_owned);
        assert_eq!(session.is_some(), era == Era::Modern, "a handle is for those who have no session otherwise");
        let echo = added["tools"].as_array().unwrap().iter().find(|tool| tool["name"] == "fixture__echo").unwrap();
        assert_eq!(echo["signature"], "fixture__echo(text: string)");

        if era == Era::Legacy {
            client.wait_for("the client hears of new tools", |told| told.tools_changed > 0).await;
            assert!(client.server_tools().await.contains(&"fixture__echo".to_owned()));
            let echoed = client.ok("fixture__echo", json!({"text": "hello"})).await;
            assert_eq!(echoed.structured_content.unwrap(), json!({"text": "hello"}));
        } else {
            assert_eq!(client.server_tools().await, Vec::<String>::new(), "a list may not change by itself");
        }
        let session = session.as_deref();
        assert_eq!(
            client.exec(session, "fixture__echo", json!({"text": "full name"})).await.to_string(),
            "ok: full name"
        );
        assert_eq!(client.exec(session, "echo", json!({"text": "bare name"})).await.to_string(), "ok: bare name");

        let mut remove = json!({"name": "fixture"});
        let mut list = json!({});
        if let Some(session) = session {
            remove["session"] = json!(session);
            list["session"] = json!(session);
        }
        client.ok("mcp-remove", remove).await;
        let listed = client.ok("mcp-list", list).await.structured_content.unwrap();
        assert_eq!(listed["servers"], json!([]));
        assert!(!client.exec(session, "echo", json!({"text": "gone"})).await.is_ok());
        client.close().await;
    }
    broker.stop().await;
}

#[tokio::test]
async fn the_second_session_need_not_wait_for_a_start() {
    let broker =
        TestBroker::with(FixtureCatalog::new().server("slow", &[], &[("FIXTURE_START_DELAY_MS", "700")])).start().await;
    let first = broker.connect(Era::Legacy).await;
    assert_eq!(first.add("slow").await["state"], "ready");
    let second = broker.connect(Era::Legacy).await;
    let added = second.add("slow").await;
    assert_eq!(added["state"], "starting");
    assert!(added["tools"].as_array().unwrap().len() > 10);
    assert_eq!(second.call("slow__echo", json!({"text": "hi"})).await.to_string(), "ok: hi");
    broker.stop().await;
}
