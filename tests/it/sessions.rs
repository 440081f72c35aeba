//! How sessions are found, kept apart by who may use them, brought back, and ended.

use http::Method;
use mcp_broker::{
    ids::{Principal, Token},
    store::sessions::SessionKind,
};
use serde_json::{Value, json};

use crate::support::{
    Era, FixtureCatalog, TestBroker, TestClient, broker::eventually, by_hand::ByHand, client::all_capabilities,
};

async fn post(broker: &TestBroker, path: &str, token: Option<&str>, connection: Option<&str>) -> reqwest::Response {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
    let mut request = reqwest::Client::new()
        .post(format!("http://{}{path}", broker.address()))
        .header("accept", "application/json, text/event-stream")
        .json(&body);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    if let Some(connection) = connection {
        request = request.header("mcp-session-id", connection);
    }
    request.send().await.unwrap()
}

async fn made(broker: &TestBroker, body: Value) -> (String, String, String) {
    let (status, made) = broker.rest(Method::POST, "/v1/sessions", Some(body)).await;
    assert_eq!(status, 201, "{made}");
    let text = |key: &str| made[key].as_str().unwrap().to_owned();
    (text("id"), text("mcp_url"), text("mcp_token"))
}

#[tokio::test]
async fn a_token_opens_its_own_session_and_nothing_else() {
    let broker = TestBroker::start().await;
    let (id, url, token) = made(&broker, json!({"servers": {"fixture": {}}})).await;
    let (other, _, other_token) = made(&broker, json!({})).await;
    let path = format!("/s/{id}/mcp");

    assert_eq!(post(&broker, &path, None, None).await.status(), 401);
    assert_eq!(post(&broker, &path, Some("wrong-token-wrong-token"), None).await.status(), 401);
    assert_eq!(post(&broker, &path, Some(&other_token), None).await.status(), 403);
    assert_eq!(post(&broker, "/mcp", None, None).await.status(), 401);
    assert_eq!(post(&broker, &format!("/s/{}/mcp", "0".repeat(32)), Some(broker.token()), None).await.status(), 404);
    assert_eq!(post(&broker, "/s/../../etc/mcp", Some(broker.token()), None).await.status(), 404);
    let challenge = post(&broker, &path, None, None).await.headers()["www-authenticate"].to_str().unwrap().to_owned();
    assert!(challenge.starts_with("Bearer"), "{challenge}");

    let mine = TestClient::http(&url, Some(&token), Era::Modern).await;
    assert!(mine.server_tools().await.contains(&"fixture__echo".to_owned()));
    let by_token_alone = TestClient::http(&broker.url(), Some(&token), Era::Legacy).await;
    assert!(by_token_alone.server_tools().await.contains(&"fixture__echo".to_owned()));
    let theirs = TestClient::http(&broker.url(), Some(&other_token), Era::Modern).await;
    assert_eq!(theirs.server_tools().await, Vec::<String>::new());

    let url = format!("http://{}/v1/sessions", broker.address());
    let refused = reqwest::Client::new().get(url).bearer_auth(&token).send().await.unwrap();
    assert_eq!(refused.status(), 403, "a session's token is not the administrator's");
    let (status, _) = broker.rest(Method::DELETE, &format!("/v1/sessions/{other}"), None).await;
    assert_eq!(status, 204);
    assert_eq!(post(&broker, "/mcp", Some(&other_token), None).await.status(), 401);
    broker.stop().await;
}

#[tokio::test]
async fn a_connection_is_good_only_for_whom_it_was_given_to() {
    let broker = TestBroker::start().await;
    let connection = ByHand::connect(&broker.url(), broker.token()).await.connection;
    let (_, _, token) = made(&broker, json!({})).await;
    assert_eq!(post(&broker, "/mcp", Some(broker.token()), Some(&connection)).await.status(), 200);
    assert_eq!(post(&broker, "/mcp", Some(&token), Some(&connection)).await.status(), 404);
    assert_eq!(post(&broker, "/mcp", Some(broker.token()), Some("unknown")).await.status(), 404);
    broker.stop().await;
}

#[tokio::test]
async fn a_handle_is_good_only_for_whom_it_was_given_to() {
    let broker = TestBroker::start().await;
    let agent = broker.connect(Era::Modern).await;
    let handle = agent.add("fixture").await["session"].as_str().unwrap().to_owned();
    let (_, _, token) = made(&broker, json!({})).await;
    let other = TestClient::http(&broker.url(), Some(&token), Era::Modern).await;
    let stolen = other.call("mcp-list", json!({"session": handle})).await;
    insta::assert_snapshot!(stolen, @"error: this connection has its session already: leave out `session`");
    let made_up = agent.call("mcp-list", json!({"session": "0".repeat(32)})).await;
    insta::assert_snapshot!(made_up, @"error: there is no such session, or it has ended: leave out `session` to begin a new one");
    broker.stop().await;
}

#[tokio::test]
async fn every_key_finds_its_session_after_a_restart() {
    let config = "    config:\n      - {name: C, type: object, properties: {word: {type: string}}}";
    let catalog = FixtureCatalog::new().entry("fixture", &[], &[("WORD", "{{fixture.word}}")], config);
    let broker = TestBroker::with(catalog).start().await;
    let add = |word: &str| json!({"name": "fixture", "config": {"word": word}});

    let by_connection = ByHand::connect(&broker.url(), broker.token()).await;
    by_connection.call("mcp-add", add("by connection")).await;

    let (_, url, token) = made(&broker, json!({"servers": {"fixture": {"word": "by url"}}})).await;
    let agent = broker.connect(Era::Modern).await;
    let added = agent.ok("mcp-add", add("by handle")).await.structured_content.unwrap();
    let handle = added["session"].as_str().unwrap().to_owned();
    agent.close().await;

    let broker = broker.restart().await;
    let word = json!({"names": ["WORD"]});
    let answer = by_connection.call("fixture__env", word.clone()).await;
    assert!(answer.contains("by connection"), "{answer}");
    let by_url = TestClient::http(&url, Some(&token), Era::Legacy).await;
    assert!(by_url.server_tools().await.contains(&"fixture__env".to_owned()));
    assert!(by_url.ok("fixture__env", word.clone()).await.structured_content.unwrap().to_string().contains("by url"));
    let by_token = TestClient::http(&broker.url(), Some(&token), Era::Modern).await;
    assert!(by_token.ok("fixture__env", word.clone()).await.structured_content.unwrap().to_string().contains("by url"));
    let agent = broker.connect(Era::Modern).await;
    let by_handle = agent.exec(Some(&handle), "fixture__env", word).await.structured();
    assert!(by_handle.to_string().contains("by handle"), "{by_handle}");
    broker.stop().await;
}

#[tokio::test]
async fn delete_ends_a_session_that_nothing_else_leads_to() {
    let broker = TestBroker::start().await;
    let shared = broker.connect(Era::Legacy).await;
    shared.add("fixture").await;
    let (id, url, token) = made(&broker, json!({})).await;
    let owned = TestClient::http(&url, Some(&token), Era::Legacy).await;
    shared.close().await;
    owned.close().await;
    eventually("only the session with a URL is left", async || {
        let (_, listed) = broker.rest(Method::GET, "/v1/sessions", None).await;
        let ids: Vec<_> = listed["sessions"].as_array().unwrap().iter().map(|session| session["id"].clone()).collect();
        ids == [json!(id)]
    })
    .await;
    broker.stop().await;
}

#[tokio::test]
async fn a_session_that_nobody_uses_ends() {
    let broker = TestBroker::start().await;
    let (id, ..) = made(&broker, json!({})).await;
    broker.clock.advance(jiff::SignedDuration::from_hours(23));
    broker.app().parts.tools.sessions().sweep().await.unwrap();
    assert_eq!(broker.rest(Method::GET, &format!("/v1/sessions/{id}"), None).await.0, 200);
    broker.clock.advance(jiff::SignedDuration::from_hours(25));
    broker.app().parts.tools.sessions().sweep().await.unwrap();
    assert_eq!(broker.rest(Method::GET, &format!("/v1/sessions/{id}"), None).await.0, 404);
    broker.stop().await;
}

#[tokio::test]
async fn there_are_only_so_many_sessions_and_servers() {
    let catalog = FixtureCatalog::new().server("one", &[], &[]).server("two", &[], &[]);
    let limited = TestBroker::with(catalog).limits(|limits| {
        limits.sessions_max = 2;
        limits.servers_per_session_max = 1;
    });
    let broker = limited.start().await;
    let first = broker.connect(Era::Legacy).await;
    let _second = broker.connect(Era::Legacy).await;
    let refused = TestClient::try_http(&broker.url(), Some(broker.token()), Era::Legacy, all_capabilities(), &[]).await;
    let refused = refused.err().unwrap();
    assert!(refused.contains("2 sessions are open"), "{refused}");
    first.add("one").await;
    let outcome = first.call("mcp-add", json!({"name": "two"})).await;
    insta::assert_snapshot!(outcome, @"error: this session has 1 servers, which is the limit: remove one first");
    broker.stop().await;
}

#[tokio::test]
async fn a_session_by_rest_is_made_whole_or_not_at_all() {
    let catalog = FixtureCatalog::new().server("good", &[], &[]).server("bad", &[], &[("FIXTURE_EXIT_AT_START", "3")]);
    let broker = TestBroker::with(catalog).start().await;
    let servers = json!({"servers": {"good": {}, "bad": {}, "unknown": {}}});
    let (status, answer) = broker.rest(Method::POST, "/v1/sessions", Some(servers)).await;
    assert_eq!(status, 422, "{answer}");
    let problems = answer["error"]["details"]["servers"].to_string();
    assert!(problems.contains("code 3") && problems.contains("there is no server `unknown`"), "{problems}");
    let (_, listed) = broker.rest(Method::GET, "/v1/sessions", None).await;
    assert_eq!(listed["sessions"], json!([]));
    assert_eq!(broker.rest(Method::POST, "/v1/sessions", Some(json!({"servres": {}}))).await.0, 422);
    broker.stop().await;
}

#[tokio::test]
async fn a_session_that_has_ended_is_not_changed_by_who_still_holds_it() {
    let broker = TestBroker::start().await;
    let (id, ..) = made(&broker, json!({})).await;
    let sessions = broker.app().parts.tools.sessions();
    let held = sessions.get(&id.parse().unwrap()).await.unwrap().unwrap();
    assert!(sessions.end(held.id(), "over").await.unwrap());
    assert!(sessions.extend(&held, 60).await.is_err());
    assert!(sessions.rename(&held, "late".to_owned()).await.is_err());
    assert!(sessions.give_token(&held, Token::random().hash()).await.is_err());
    assert_eq!((held.expires_at(), held.name()), (None, None));
    broker.stop().await;
}

#[tokio::test]
async fn a_session_whose_process_is_gone_is_ended_and_one_whose_process_is_there_is_not() {
    let broker = TestBroker::start().await;
    let process = async |broker: &TestBroker| {
        let sessions = broker.app().parts.tools.sessions();
        sessions.create(SessionKind::Process, Principal::Local, None, None).await.unwrap()
    };
    let (gone, back) = (process(&broker).await.id().clone(), process(&broker).await.id().clone());
    let broker = broker.restart().await;
    let sessions = broker.app().parts.tools.sessions();
    let (_new, _back) = (process(&broker).await, sessions.get(&back).await.unwrap().unwrap());
    assert_eq!(sessions.end_orphans().await.unwrap(), 1);
    assert!(sessions.get(&gone).await.unwrap().is_none());
    assert_eq!(sessions.list().await.unwrap().len(), 2);
    broker.stop().await;
}

#[tokio::test]
async fn more_connections_than_are_held_in_memory_all_go_on() {
    const AWAKE: usize = 3;
    let fixture = FixtureCatalog::new().server("fixture", &[], &[]);
    let broker = TestBroker::with(fixture).limits(|limits| limits.connections_idle_max = AWAKE).start().await;
    let mut clients = Vec::new();
    for number in 0..8 {
        let client = ByHand::connect(&broker.url(), broker.token()).await;
        if number != 7 {
            client.call("mcp-add", json!({"name": "fixture"})).await;
        }
        clients.push(client);
    }
    let (_, listed) = broker.rest(Method::GET, "/v1/sessions", None).await;
    assert_eq!(listed["sessions"].as_array().unwrap().len(), 8, "{listed}");
    eventually("the rest sleeps", async || awake(&broker).await <= AWAKE as u64).await;

    // A call that runs keeps its connection awake, whoever else comes.
    let slow = clients[0].call("fixture__slow", json!({"ms": 500, "steps": 2}));
    let others = async {
        for round in 0..3 {
            for (number, client) in clients.iter().enumerate().skip(1).take(6) {
                let text = format!("round {round} of {number}");
                let answer = client.call("fixture__echo", json!({"text": text})).await;
                assert!(answer.contains(&text), "{answer}");
            }
        }
    };
    let (slow, ()) = tokio::join!(slow, others);
    assert!(slow.contains("\"result\"") && !slow.contains("\"isError\":true"), "{slow}");
    let without = clients[7].call("fixture__echo", json!({"text": "not mine"})).await;
    assert!(without.contains("error"), "each has its own servers still: {without}");
    let at_once = futures_util::future::join_all(clients.iter().map(|client| client.call("mcp-list", json!({})))).await;
    assert!(at_once.iter().take(7).all(|list| list.contains("fixture")), "{at_once:?}");
    for client in &clients {
        client.call("mcp-list", json!({})).await;
    }
    eventually("they sleep again", async || awake(&broker).await <= AWAKE as u64).await;
    broker.stop().await;
}

#[tokio::test]
async fn connections_that_are_opened_and_never_used_are_not_held_in_memory_either() {
    const AWAKE: usize = 3;
    let fixture = FixtureCatalog::new().server("fixture", &[], &[]);
    let broker = TestBroker::with(fixture).limits(|limits| limits.connections_idle_max = AWAKE).start().await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(ByHand::initialize(&broker.url(), broker.token()).await);
    }
    eventually("the rest sleeps", async || awake(&broker).await <= AWAKE as u64).await;
    for client in &clients {
        client.send(json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await;
        assert!(client.call("mcp-list", json!({})).await.contains("\"result\""), "it goes on where it was");
    }
    broker.stop().await;
}

/// How many connections the broker holds in memory.
async fn awake(broker: &TestBroker) -> u64 {
    let (_, listed) = broker.rest(Method::GET, "/v1/sessions", None).await;
    let mut awake = 0;
    for session in listed["sessions"].as_array().unwrap() {
        let path = format!("/v1/sessions/{}", session["id"].as_str().unwrap());
        awake += broker.rest(Method::GET, &path, None).await.1["connected"].as_u64().unwrap();
    }
    awake
}
