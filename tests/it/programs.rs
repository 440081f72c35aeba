//! Programs: a session by one request, with an MCP endpoint and a token of its own, for as long as it is wanted.

use std::time::Duration;

use http::Method;
use jiff::SignedDuration;
use mcp_broker::{
    catalog::{CatalogSettings, policy::Lists},
    ids::TokenHash,
};
use serde_json::{Value, json};

use crate::support::{Era, FixtureCatalog, TestBroker, TestClient, broker::eventually};

const SECRET: &str = "    secrets: [{name: my-notes.api_key, env: NOTES_KEY}]
    config: [{name: my-notes, type: object, properties: {time_zone: {type: string}}}]";

fn catalog() -> FixtureCatalog {
    FixtureCatalog::new()
        .entry("my-notes", &[], &[("ZONE", "{{my-notes.time_zone}}")], SECRET)
        .server("fixture", &[], &[])
        .server("broken", &[], &[("FIXTURE_EXIT_AT_START", "3")])
}

async fn make(broker: &TestBroker, query: &str, body: Value) -> (u16, Value) {
    broker.rest(Method::POST, &format!("/v1/sessions{query}"), Some(body)).await
}

async fn made(broker: &TestBroker, query: &str, body: Value) -> Value {
    let (status, made) = make(broker, query, body).await;
    assert_eq!(status, 201, "{made}");
    made
}

async fn connect(made: &Value, era: Era) -> TestClient {
    TestClient::http(made["mcp_url"].as_str().unwrap(), made["mcp_token"].as_str(), era).await
}

/// The status that a session's endpoint answers a token with.
async fn knock(url: &str, token: Option<&str>) -> u16 {
    let mut request = reqwest::Client::new()
        .post(url)
        .header("accept", "application/json, text/event-stream")
        .json(&json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}));
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn a_session_by_code_takes_names_and_keys_in_every_spelling() {
    let broker = TestBroker::with(catalog()).start().await;
    for (name, key, zone) in [
        ("my-notes", "my-notes.api_key", "time_zone"),
        ("myNotes", "apiKey", "timeZone"),
        ("my_notes", "api_key", "time_zone"),
        ("myNotes", "myNotesApiKey", "timeZone"),
    ] {
        let body =
            json!({"mcp": {name: {key: "hunter2-hunter2", zone: "Europe/Berlin"}, "fixture": {}}, "label": "by code"});
        let made = made(&broker, "?wait=ready", body).await;
        assert_eq!(made["ready"], true, "{made}");
        assert_eq!(made["servers"][0]["name"], "my-notes", "{made}");
        assert_eq!(made["servers"][0]["state"], "ready", "{made}");
        assert_eq!(made["servers"][0]["needs"], json!([]), "{made}");
        assert!(!made.to_string().contains("hunter2"), "{made}");

        let client = connect(&made, Era::Legacy).await;
        let seen = client.ok("my-notes__env", json!({"names": ["NOTES_KEY", "ZONE"]})).await;
        let seen = serde_json::to_value(&seen).unwrap().to_string();
        assert!(seen.contains("hunter2-hunter2") && seen.contains("Europe/Berlin"), "{name} {key}: {seen}");
        client.close().await;

        let id = made["id"].as_str().unwrap();
        let (_, shown) = broker.rest(Method::GET, &format!("/v1/sessions/{id}"), None).await;
        assert_eq!(shown["secrets"], json!(["my-notes.api_key"]), "{shown}");
        assert_eq!(shown["configs"]["my-notes"], json!({"time_zone": "Europe/Berlin"}), "{shown}");
        assert_eq!(shown["label"], "by code");
        assert!(!shown.to_string().contains("hunter2"), "{shown}");
    }
    broker.stop().await;
}

#[tokio::test]
async fn everything_that_is_wrong_is_said_at_once_and_nothing_is_left() {
    let broker = TestBroker::with(catalog()).start().await;
    let (status, refused) = make(
        &broker,
        "",
        json!({"mcp": {
            "my-notse": {},
            "myNotes": {"apiKye": "k", "time_zone": 3},
            "fixture": {"colour": "red"},
            "my-notes": [],
            "github/acme": {"runCmd": "x"},
            "github/acme/tools": {"runCmd": "node 'x", "installCmd": "", "ref": "a b"},
            "http://example.com/x.git": {"runCmd": "x"},
            "https://example.com/x.git": {},
        }}),
    )
    .await;
    assert_eq!(status, 422, "{refused}");
    insta::assert_snapshot!(refused["error"]["message"].as_str().unwrap(), @r"
    no session was made, because not all of its servers could be added:
      my-notse: there is no server of this name in the catalog (did you mean `my-notes`?)
      myNotes: `apiKye` is not known (did you mean `my-notes.api_key`?)
      fixture: `colour` is not known: this server takes no config and no secrets
      my-notes: takes an object with its config and secrets, which may be empty
      github/acme: is not a repository: write github/OWNER/REPOSITORY
      github/acme/tools: `runCmd` has a quote that is not closed
      github/acme/tools: `installCmd` is empty
      github/acme/tools: `a b` cannot be a branch, a tag or a commit
      http://example.com/x.git: is not protected on its way by `http://`: use https or ssh
      https://example.com/x.git: takes `runCmd`, and if need be `installCmd`, `ref` and `envs`: missing field `runCmd`
    ");
    assert_eq!(refused["error"]["details"]["servers"].as_array().unwrap().len(), 10, "{refused}");
    let (_, listed) = broker.rest(Method::GET, "/v1/sessions", None).await;
    assert_eq!(listed["sessions"], json!([]));
    let (status, refused) = make(&broker, "", json!({"mcp": {"fixture": {}}, "ttl": 0})).await;
    assert_eq!(status, 400, "{refused}");
    let (status, refused) = make(&broker, "", json!({"mcp": {}, "tll": 5})).await;
    assert_eq!(status, 422, "{refused}");
    let (status, refused) = make(&broker, "?wait=soon", json!({})).await;
    assert_eq!(status, 400, "{refused}");
    let (_, listed) = broker.rest(Method::GET, "/v1/sessions", None).await;
    assert_eq!(listed["sessions"], json!([]));
    broker.stop().await;
}

#[tokio::test]
async fn a_repository_that_the_operator_does_not_allow_is_not_asked() {
    let deny = Lists { servers: vec!["127.0.0.1*".to_owned()], ..Lists::default() };
    let policy = CatalogSettings { deny, ..CatalogSettings::default() };
    let broker = TestBroker::with(catalog()).policy(policy).start().await;
    let repository = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/acme/tools.git", repository.local_addr().unwrap());
    let asking = make(&broker, "", json!({"mcp": {&url: {"runCmd": "x"}}}));
    let (status, refused) = tokio::select! {
        refused = asking => refused,
        _ = repository.accept() => panic!("the repository is asked"),
    };
    assert_eq!(status, 422, "{refused}");
    let told = refused["error"]["message"].as_str().unwrap();
    assert!(told.contains("the operator does not allow this server"), "{told}");
    broker.stop().await;
}

#[tokio::test]
async fn a_server_that_lacks_a_secret_waits_for_it() {
    let broker = TestBroker::with(catalog()).start().await;
    let made = made(&broker, "?wait=ready", json!({"mcp": {"my-notes": {}, "fixture": {}}})).await;
    assert_eq!(made["ready"], false, "{made}");
    assert_eq!(made["servers"][0]["state"], "needs", "{made}");
    assert_eq!(made["servers"][0]["needs"], json!([{"kind": "secret", "what": "my-notes.api_key"}]), "{made}");
    assert_eq!(made["servers"][1]["state"], "ready", "{made}");
    let set = broker.rest(Method::PUT, "/v1/secrets/my-notes.api_key", Some(json!({"value": "hunter2-hunter2"}))).await;
    assert_eq!(set.0, 200);
    let path = format!("/v1/sessions/{}?wait=ready", made["id"].as_str().unwrap());
    let (_, shown) = broker.rest(Method::GET, &path, None).await;
    assert_eq!(shown["servers"][0]["state"], "ready", "{shown}");
    broker.stop().await;
}

#[tokio::test]
async fn a_server_that_fails_is_told_with_its_last_words() {
    let broker = TestBroker::with(catalog()).start().await;
    let (status, refused) = make(&broker, "?wait=ready", json!({"mcp": {"broken": {}, "fixture": {}}})).await;
    assert_eq!(status, 422, "{refused}");
    let problem = refused["error"]["details"]["servers"][0]["problem"].as_str().unwrap();
    assert!(problem.contains("code 3"), "{problem}");
    let (_, listed) = broker.rest(Method::GET, "/v1/sessions", None).await;
    assert_eq!(listed["sessions"], json!([]), "it ended again");

    // Who does not wait asks how it went.
    let made = made(&broker, "", json!({"mcp": {"broken": {}}})).await;
    let path = format!("/v1/sessions/{}?wait=ready&timeout=20", made["id"].as_str().unwrap());
    let (_, shown) = broker.rest(Method::GET, &path, None).await;
    assert_eq!(shown["servers"][0]["state"], "failed", "{shown}");
    assert!(shown["servers"][0]["log"].as_str().unwrap().contains("FIXTURE_EXIT_AT_START"), "{shown}");
    broker.stop().await;
}

#[tokio::test]
async fn a_token_opens_its_session_until_it_is_another_one() {
    let broker = TestBroker::with(catalog()).start().await;
    let one = made(&broker, "?wait=ready", json!({"mcp": {"fixture": {}}})).await;
    let other = made(&broker, "", json!({})).await;
    let url = one["mcp_url"].as_str().unwrap();
    assert_eq!(knock(url, None).await, 401);
    assert_eq!(knock(url, Some("nonsense")).await, 401);
    assert_eq!(knock(url, other["mcp_token"].as_str()).await, 403);
    let rest = reqwest::Client::new().get(url.replace("/mcp", "").replace("/s/", "/v1/sessions/"));
    let token = one["mcp_token"].as_str().unwrap();
    assert_eq!(rest.bearer_auth(token).send().await.unwrap().status(), 403);

    let client = connect(&one, Era::Legacy).await;
    client.ok("fixture__echo", json!({"text": "hello"})).await;
    let stream = open_stream(url, token).await;
    let path = format!("/v1/sessions/{}/token", one["id"].as_str().unwrap());
    let (status, rotated) = broker.rest(Method::POST, &path, None).await;
    assert_eq!(status, 200, "{rotated}");
    assert_eq!(knock(url, Some(token)).await, 401);
    assert!(client.try_call("fixture__echo", json!({"text": "hello"})).await.is_err());
    let ended = tokio::time::timeout(Duration::from_secs(30), stream.text()).await;
    assert!(ended.is_ok(), "a stream that the old token opened ends");
    let renewed = json!({"mcp_url": url, "mcp_token": rotated["mcp_token"]});
    connect(&renewed, Era::Legacy).await.ok("fixture__echo", json!({"text": "hello"})).await;
    broker.stop().await;
}

#[tokio::test]
async fn what_opens_a_session_is_known_without_asking_the_database() {
    let broker = TestBroker::with(catalog()).start().await;
    let made = made(&broker, "", json!({})).await;
    let (id, first) = (made["id"].as_str().unwrap(), TokenHash::of(made["mcp_token"].as_str().unwrap()));
    let broker = broker.restart().await;
    let sessions = broker.app().parts.tools.sessions();
    let session = sessions.get(&id.parse().unwrap()).await.unwrap().unwrap();
    assert!(session.is_opened_by(&first));
    let (_, other) = broker.rest(Method::POST, &format!("/v1/sessions/{id}/token"), None).await;
    let second = TokenHash::of(other["mcp_token"].as_str().unwrap());
    assert_eq!((session.is_opened_by(&first), session.is_opened_by(&second)), (false, true));
    assert!(sessions.end(session.id(), "over").await.unwrap());
    assert!(!session.is_opened_by(&second));
    broker.stop().await;
}

/// A stream of what happens in a session, as clients of the older era keep one open.
async fn open_stream(url: &str, token: &str) -> reqwest::Response {
    let client = reqwest::Client::new();
    let begin = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "story", "version": "1"}}});
    let accept = "application/json, text/event-stream";
    let answer = client.post(url).bearer_auth(token).header("accept", accept).json(&begin).send().await.unwrap();
    let connection = answer.headers()["mcp-session-id"].clone();
    let stream = client
        .get(url)
        .bearer_auth(token)
        .header("accept", "text/event-stream")
        .header("mcp-session-id", connection)
        .send()
        .await
        .unwrap();
    assert_eq!(stream.status(), 200);
    stream
}

#[tokio::test]
async fn a_session_ends_when_its_time_is_over_and_not_before() {
    let broker = TestBroker::with(catalog()).limits(|limits| limits.session_idle_seconds = 60).start().await;
    let made = made(&broker, "?wait=ready", json!({"mcp": {"fixture": {}}, "ttl": 3600})).await;
    let (id, url, token) =
        (made["id"].as_str().unwrap(), made["mcp_url"].as_str().unwrap(), made["mcp_token"].as_str());
    let extend = format!("/v1/sessions/{id}/extend");
    for ttl in [0, 86401] {
        let (status, refused) = broker.rest(Method::POST, &extend, Some(json!({"ttl": ttl}))).await;
        assert_eq!(status, 400, "{refused}");
        assert!(refused["error"]["message"].as_str().unwrap().contains("86400"), "{refused}");
    }
    // Longer than a session may be idle, and after a restart.
    broker.clock.advance(SignedDuration::from_secs(3000));
    let broker = broker.restart().await;
    broker.sweep().await;
    assert_ne!(knock(url, token).await, 401);
    let (status, extended) = broker.rest(Method::POST, &extend, Some(json!({"ttl": 1000}))).await;
    assert_eq!(status, 200, "{extended}");
    assert_ne!(extended["expires_at"], made["expires_at"]);
    let broker = broker.restart().await;
    broker.clock.advance(SignedDuration::from_secs(999));
    assert_ne!(knock(url, token).await, 401);
    broker.clock.advance(SignedDuration::from_secs(1));
    assert_eq!(knock(url, token).await, 401, "at once, whether somebody has looked through the sessions or not");
    assert_eq!(broker.rest(Method::POST, &extend, Some(json!({"ttl": 1000}))).await.0, 404);
    broker.sweep().await;
    let (_, listed) = broker.rest(Method::GET, "/v1/sessions", None).await;
    assert_eq!(listed["sessions"], json!([]));
    broker.stop().await;
}

#[tokio::test]
async fn sessions_are_listed_by_label_and_page() {
    let broker = TestBroker::with(catalog()).start().await;
    for number in 0..5 {
        let label = if number % 2 == 0 { "even" } else { "odd" };
        made(&broker, "", json!({"name": format!("session {number}"), "label": label})).await;
        broker.clock.advance(SignedDuration::from_secs(1));
    }
    let names = |page: &Value| -> Vec<String> {
        page["sessions"].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect()
    };
    let (_, first) = broker.rest(Method::GET, "/v1/sessions?label=even&limit=2", None).await;
    assert_eq!(names(&first), ["session 4", "session 2"]);
    let cursor = first["next_cursor"].as_str().unwrap();
    let (_, second) = broker.rest(Method::GET, &format!("/v1/sessions?label=even&limit=2&cursor={cursor}"), None).await;
    assert_eq!(names(&second), ["session 0"]);
    assert_eq!(second["next_cursor"], Value::Null);
    for bad in ["cursor=x", "limit=0", "limit=5000", "lable=x"] {
        assert_eq!(broker.rest(Method::GET, &format!("/v1/sessions?{bad}"), None).await.0, 400, "{bad}");
    }
    broker.stop().await;
}

#[tokio::test]
async fn tools_are_found_by_the_prefix_of_their_provider() {
    let broker = TestBroker::with(catalog()).start().await;
    let body = json!({"mcp": {"my-notes": {"apiKey": "hunter2-hunter2"}, "fixture": {}}});
    let made = made(&broker, "?wait=ready", body).await;
    for era in [Era::Legacy, Era::Modern] {
        let client = connect(&made, era).await;
        let mut providers: Vec<String> = Vec::new();
        for name in client.server_tools().await {
            let (provider, tool) = name.split_once("__").expect("every tool has a provider");
            assert!(!tool.is_empty());
            if providers.last().is_none_or(|last| last != provider) {
                providers.push(provider.to_owned());
            }
        }
        assert_eq!(providers, ["my-notes", "fixture"], "each provider's tools stand together");
        client.close().await;
    }
    broker.stop().await;
}

#[tokio::test]
async fn an_answer_that_waited_long_enough_says_how_far_the_servers_are() {
    let slow =
        FixtureCatalog::new().server("slow", &[], &[("FIXTURE_START_DELAY_MS", "600000")]).server("fixture", &[], &[]);
    let broker = TestBroker::with(slow).start().await;
    let made = made(&broker, "?wait=ready&timeout=1", json!({"mcp": {"slow": {}}})).await;
    assert_eq!((&made["ready"], &made["servers"][0]["state"]), (&json!(false), &json!("starting")), "{made}");
    let path = format!("/v1/sessions/{}?wait=ready&timeout=1", made["id"].as_str().unwrap());
    let (status, shown) = broker.rest(Method::GET, &path, None).await;
    assert_eq!((status, &shown["servers"][0]["state"]), (200, &json!("starting")), "{shown}");
    for bad in ["timeout=0", "timeout=601", "wait=ready&timeout=x"] {
        assert_eq!(make(&broker, &format!("?{bad}"), json!({})).await.0, 400, "{bad}");
    }
    broker.stop().await;
}

#[tokio::test]
async fn a_program_that_hangs_up_while_it_waits_leaves_no_session() {
    let slow = FixtureCatalog::new().server("slow", &[], &[("FIXTURE_START_DELAY_MS", "600000")]);
    let broker = TestBroker::with(slow).start().await;
    let url = format!("http://{}/v1/sessions?wait=ready", broker.address());
    let asking =
        reqwest::Client::new().post(url).bearer_auth(broker.token()).json(&json!({"mcp": {"slow": {}}})).send();
    let sessions = async || {
        let (_, listed) = broker.rest(Method::GET, "/v1/sessions", None).await;
        listed["sessions"].as_array().unwrap().len()
    };
    tokio::select! {
        answer = asking => panic!("it answered: {answer:?}"),
        () = eventually("the session is there", async || sessions().await == 1) => {}
    }
    eventually("the session is gone", async || sessions().await == 0).await;
    broker.stop().await;
}
