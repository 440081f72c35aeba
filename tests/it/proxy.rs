//! What servers offer, ask and say comes through, between clients and servers of either era.

use rmcp::model::{
    ArgumentInfo, CompleteRequestParams, GetPromptRequestParams, LoggingLevel, ReadResourceRequestParams, Reference,
    SetLevelRequestParams, SubscribeRequestParams, SubscriptionFilter,
};
use serde_json::json;

use crate::support::{
    Era, FixtureCatalog, TestBroker, TestClient,
    client::{all_capabilities, text_of},
};

const ERAS: [Era; 2] = [Era::Legacy, Era::Modern];

fn both_servers() -> FixtureCatalog {
    FixtureCatalog::new().server("old", &["--era", "legacy"], &[]).server("new", &["--era", "modern"], &[])
}

/// A client with a session of its own, whatever its era, and both servers on.
async fn client_of(broker: &TestBroker, era: Era) -> TestClient {
    let servers = json!({"servers": {"old": {}, "new": {}}});
    let (status, made) = broker.rest(http::Method::POST, "/v1/sessions", Some(servers)).await;
    assert_eq!(status, 201, "{made}");
    TestClient::http(made["mcp_url"].as_str().unwrap(), made["mcp_token"].as_str(), era).await
}

#[tokio::test]
async fn questions_reach_the_client_and_answers_the_server_in_every_quadrant() {
    let broker = TestBroker::with(both_servers()).start().await;
    for era in ERAS {
        for server in ["old", "new"] {
            let client = client_of(&broker, era).await;
            let asked = client.ok(&format!("{server}__ask"), json!({"message": "May I?"})).await;
            assert!(text_of(&asked).contains("yes"), "{era:?} {server}: {asked:?}");
            assert_eq!(client.told().asked, ["May I?"], "{era:?} {server}");
            let sampled = client.ok(&format!("{server}__sample"), json!({"prompt": "Hello"})).await;
            assert!(text_of(&sampled).contains("sampled"), "{era:?} {server}: {sampled:?}");
            let roots = client.ok(&format!("{server}__roots"), json!({})).await;
            assert!(text_of(&roots).contains("file:///story"), "{era:?} {server}: {roots:?}");
            client.close().await;
        }
    }
    broker.stop().await;
}

#[tokio::test]
async fn a_client_that_cannot_be_asked_is_not() {
    let broker = TestBroker::with(both_servers()).start().await;
    for era in ERAS {
        let (_, made) =
            broker.rest(http::Method::POST, "/v1/sessions", Some(json!({"servers": {"old": {}, "new": {}}}))).await;
        let url = made["mcp_url"].as_str().unwrap();
        let client = TestClient::http_with(url, made["mcp_token"].as_str(), era, Default::default()).await;
        for server in ["old", "new"] {
            let outcome = client.call(&format!("{server}__ask"), json!({"message": "May I?"})).await;
            assert!(!outcome.is_ok(), "{era:?} {server}: {outcome}");
        }
        assert_eq!(client.told().asked, Vec::<String>::new());
        client.close().await;
    }
    broker.stop().await;
}

#[tokio::test]
async fn progress_arrives_in_order_and_before_the_answer() {
    use rmcp::model::{CallToolRequest, CallToolRequestParams, ClientRequest};
    let broker = TestBroker::with(both_servers()).start().await;
    for era in ERAS {
        for server in ["old", "new"] {
            let client = client_of(&broker, era).await;
            let mut params = CallToolRequestParams::new(format!("{server}__slow"));
            params.arguments = json!({"ms": 200, "steps": 20}).as_object().cloned();
            let request = ClientRequest::CallToolRequest(CallToolRequest::new(params));
            client.peer().send_request(request).await.unwrap();
            let seen = client.told().progress.clone();
            assert!(seen.len() >= 19, "{era:?} {server}: {seen:?}");
            assert!(seen.is_sorted(), "{era:?} {server}: {seen:?}");
            client.close().await;
        }
    }
    broker.stop().await;
}

#[tokio::test]
async fn a_call_that_is_taken_back_is_taken_back_from_its_server() {
    use rmcp::{
        model::{CallToolRequest, CallToolRequestParams, ClientRequest},
        service::PeerRequestOptions,
    };
    let broker = TestBroker::with(both_servers()).start().await;
    for era in ERAS {
        for server in ["old", "new"] {
            let client = client_of(&broker, era).await;
            let mut params = CallToolRequestParams::new(format!("{server}__slow"));
            params.arguments = json!({"ms": 60_000, "steps": 600}).as_object().cloned();
            let request = ClientRequest::CallToolRequest(CallToolRequest::new(params));
            let handle =
                client.peer().send_cancellable_request(request, PeerRequestOptions::no_options()).await.unwrap();
            client.wait_for("the call is under way", |told| !told.progress.is_empty()).await;
            handle.cancel(Some("changed my mind".into())).await.unwrap();
            crate::support::broker::eventually("the record says that it was cancelled", async || {
                broker.audit().await.last().is_some_and(|last| last == "slow cancelled")
            })
            .await;
            client.close().await;
        }
    }
    broker.stop().await;
}

#[tokio::test]
async fn a_client_that_hangs_up_cancels_its_call_in_the_newer_era() {
    let broker = TestBroker::with(both_servers()).start().await;
    let client = client_of(&broker, Era::Modern).await;
    let call = client.try_call("new__slow", json!({"ms": 60_000, "steps": 600}));
    let gave_up = tokio::time::timeout(std::time::Duration::from_millis(600), call).await;
    assert!(gave_up.is_err());
    client.close().await;
    crate::support::broker::eventually("the record is closed", async || {
        broker.audit().await.last().is_some_and(|last| last == "slow cancelled")
    })
    .await;
    broker.stop().await;
}

#[tokio::test]
async fn prompts_resources_templates_and_completions_come_through_whole() {
    let pages = [("FIXTURE_PAGES", "2")];
    let catalog =
        FixtureCatalog::new().server("old", &["--era", "legacy"], &pages).server("new", &["--era", "modern"], &pages);
    let broker = TestBroker::with(catalog).start().await;
    for era in ERAS {
        let client = client_of(&broker, era).await;
        let tools = client.server_tools().await;
        let of = |server: &str| tools.iter().filter(|name| name.starts_with(server)).count();
        assert!(of("old__") > 20 && of("new__") > 20, "all pages of both: {tools:?}");

        let prompts = client.peer().list_prompts(None).await.unwrap().prompts;
        assert!(prompts.iter().any(|prompt| prompt.name == "old__test_prompt_with_arguments"));
        let mut get = GetPromptRequestParams::new("new__test_prompt_with_arguments");
        get.arguments = json!({"arg1": "one", "arg2": "two"}).as_object().cloned();
        let prompt = client.peer().get_prompt(get).await.unwrap();
        assert!(serde_json::to_string(&prompt).unwrap().contains("one"));

        let resources = client.peer().list_resources(None).await.unwrap().resources;
        let uris: Vec<&str> = resources.iter().map(|resource| resource.uri.as_str()).collect();
        assert!(uris.contains(&"test://static-text"), "{uris:?}");
        assert!(uris.contains(&"broker+new:test://static-text"), "the second server's has a name of its own: {uris:?}");
        for uri in ["test://static-text", "broker+new:test://static-text", "test://template/7/data"] {
            let read = client.peer().read_resource(ReadResourceRequestParams::new(uri)).await.unwrap();
            let shown = serde_json::to_value(&read.contents[0]).unwrap()["uri"].clone();
            assert_eq!(shown, uri, "{era:?}");
        }
        let missing = client.peer().read_resource(ReadResourceRequestParams::new("test://none")).await.unwrap_err();
        assert!(missing.to_string().contains("none"), "{missing}");

        let templates = client.peer().list_resource_templates(None).await.unwrap().resource_templates;
        assert!(templates.iter().any(|template| template.uri_template == "test://template/{id}/data"));
        let reference = Reference::for_prompt("old__test_prompt_with_arguments");
        let complete = CompleteRequestParams::new(reference, ArgumentInfo::new("arg1", "t"));
        client.peer().complete(complete).await.unwrap();
        client.close().await;
    }
    broker.stop().await;
}

#[tokio::test]
async fn a_server_that_changes_its_tools_changes_the_clients_list() {
    let broker = TestBroker::with(both_servers()).start().await;
    for era in ERAS {
        for server in ["old", "new"] {
            let client = client_of(&broker, era).await;
            let filter = SubscriptionFilter::builder().tools_list_changed().build();
            let mut subscription = match era {
                Era::Modern => Some(client.peer().listen(filter).await.unwrap()),
                Era::Legacy => None,
            };
            client.ok(&format!("{server}__add_tool"), json!({"name": "brand_new"})).await;
            match &mut subscription {
                Some(subscription) => {
                    let told = tokio::time::timeout(std::time::Duration::from_secs(20), subscription.next()).await;
                    assert!(told.unwrap().unwrap().is_some());
                }
                None => client.wait_for("it hears of the change", |told| told.tools_changed > 0).await,
            }
            crate::support::broker::eventually("the new tool is listed", async || {
                client.server_tools().await.contains(&format!("{server}__brand_new"))
            })
            .await;
            drop(subscription);
            client.close().await;
        }
    }
    broker.stop().await;
}

#[tokio::test]
async fn changes_of_a_followed_resource_are_told() {
    let broker = TestBroker::with(both_servers()).start().await;
    let uri = "test://watched-resource";
    for server in ["old", "new"] {
        for era in ERAS {
            let (_, made) =
                broker.rest(http::Method::POST, "/v1/sessions", Some(json!({"servers": {server: {}}}))).await;
            let client = TestClient::http(made["mcp_url"].as_str().unwrap(), made["mcp_token"].as_str(), era).await;
            let filter = SubscriptionFilter::builder().resource_subscription(uri).build();
            let mut subscription = match era {
                Era::Modern => Some(client.peer().listen(filter).await.unwrap()),
                Era::Legacy => {
                    client.peer().subscribe(SubscribeRequestParams::new(uri)).await.unwrap();
                    None
                }
            };
            client.ok(&format!("{server}__touch"), json!({"uri": uri})).await;
            match &mut subscription {
                Some(subscription) => {
                    let told = tokio::time::timeout(std::time::Duration::from_secs(20), subscription.next()).await;
                    assert!(told.unwrap().unwrap().is_some(), "{server}");
                }
                None => client.wait_for("it hears of the update", |told| told.updated == [uri]).await,
            }
            drop(subscription);
            client.close().await;
        }
    }
    broker.stop().await;
}

#[tokio::test]
async fn log_messages_come_through_at_the_level_that_was_asked_for() {
    let broker = TestBroker::with(both_servers()).start().await;
    for server in ["old", "new"] {
        let client = client_of(&broker, Era::Legacy).await;
        client.peer().set_level(SetLevelRequestParams::new(LoggingLevel::Warning)).await.unwrap();
        for (level, message) in [("info", "quiet"), ("error", "loud"), ("debug", "quieter"), ("warning", "middle")] {
            client.ok(&format!("{server}__log"), json!({"level": level, "message": message})).await;
        }
        client.wait_for("the last one arrives", |told| told.logs.iter().any(|log| log.contains("middle"))).await;
        let logs = client.told().logs.clone();
        assert!(logs.iter().any(|log| log.contains("loud")), "{server}: {logs:?}");
        assert!(!logs.iter().any(|log| log.contains("quiet")), "{server}: {logs:?}");
        client.close().await;
    }
    broker.stop().await;
}

#[tokio::test]
async fn what_a_client_says_of_itself_is_what_its_servers_hear() {
    let broker = TestBroker::with(both_servers()).start().await;
    for era in ERAS {
        let client = client_of(&broker, era).await;
        let info = client.ok("new__request_info", json!({})).await.structured_content.unwrap();
        let expected = serde_json::to_value(all_capabilities()).unwrap();
        assert!(info.to_string().contains("elicitation"), "{era:?}: {info} lacks {expected}");
        client.close().await;
    }
    broker.stop().await;
}
