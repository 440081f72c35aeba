//! What the listener lets in: by token, `Host`, `Origin` and size.

use std::pin::pin;

use futures_util::poll;
use http::{Method, StatusCode};
use serde_json::json;
use sqlx::Connection as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};

use crate::support::{Era, FixtureCatalog, TestBroker, broker::eventually, database, docker_catalog, process::Home};

fn initialize() -> serde_json::Value {
    json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "door", "version": "1"}}})
}

fn request(broker: &TestBroker, method: Method) -> reqwest::RequestBuilder {
    reqwest::Client::new().request(method, broker.url()).header("accept", "application/json, text/event-stream")
}

#[tokio::test]
async fn a_request_needs_a_token_a_host_and_an_origin_that_are_allowed() {
    let broker = TestBroker::start().await;
    let post = || request(&broker, Method::POST).json(&initialize());

    let nobody = post().send().await.unwrap();
    assert_eq!(nobody.status(), StatusCode::UNAUTHORIZED);
    assert!(nobody.headers()["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
    assert_eq!(post().bearer_auth("wrong").send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    let rebound = post().bearer_auth(broker.token()).header("host", "evil.example:80").send().await.unwrap();
    assert_eq!(rebound.status(), StatusCode::FORBIDDEN);
    let page = post().bearer_auth(broker.token()).header("origin", "https://evil.example").send().await.unwrap();
    assert_eq!(page.status(), StatusCode::FORBIDDEN);
    let local = post().bearer_auth(broker.token()).header("origin", "http://localhost:6274").send().await.unwrap();
    assert_eq!(local.status(), StatusCode::OK);
    assert_eq!(local.headers()["access-control-allow-origin"], "http://localhost:6274");
    broker.stop().await;
}

#[tokio::test]
async fn a_page_of_an_allowed_origin_may_use_every_header_of_the_protocol() {
    let broker = TestBroker::start().await;
    let asked = "authorization,content-type,mcp-protocol-version,mcp-session-id,mcp-method,mcp-name";
    let preflight = request(&broker, Method::OPTIONS)
        .header("origin", "http://127.0.0.1:6274")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", asked)
        .send()
        .await
        .unwrap();
    assert!(preflight.status().is_success());
    assert_eq!(preflight.headers()["access-control-allow-headers"], asked);
    let methods = preflight.headers()["access-control-allow-methods"].to_str().unwrap();
    assert!(["GET", "POST", "DELETE"].iter().all(|method| methods.contains(method)), "{methods}");
    broker.stop().await;
}

#[tokio::test]
async fn a_request_that_is_too_large_is_refused_and_nothing_else() {
    let broker = TestBroker::with(FixtureCatalog::new().server("fixture", &[], &[]))
        .limits(|limits| limits.request_bytes_max = 10_000)
        .start()
        .await;
    let client = broker.connect(Era::Modern).await;
    let large = request(&broker, Method::POST).bearer_auth(broker.token()).body("x".repeat(10_001));
    let refused = large.header("content-type", "application/json").send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::PAYLOAD_TOO_LARGE);
    client.ok("mcp-find", json!({"query": "fixture"})).await;
    broker.stop().await;
}

/// A request for a stream of MCP, to the broker's socket.
async fn ask_for_a_stream(broker: &TestBroker, body: &str) -> UnixStream {
    let mut socket = UnixStream::connect(broker.folder().join("broker.sock")).await.unwrap();
    let head = format!(
        "POST /stdio HTTP/1.1\r\nHost: broker\r\nConnection: upgrade\r\nUpgrade: mcp-stdio\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    socket
}

#[tokio::test]
async fn who_hangs_up_while_a_stream_begins_leaves_no_session() {
    let broker = TestBroker::start().await;
    // Nothing can be committed until it is let go.
    let mut holder = database(broker.folder()).await;
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut holder).await.unwrap();
    let asking = ask_for_a_stream(&broker, "{}").await;
    let under_way = broker.app().tasks().unanswered();
    eventually("it is asked for", async || poll!(pin!(under_way.none())).is_pending()).await;
    drop(asking);
    eventually("who asked is gone", async || poll!(pin!(under_way.none())).is_ready()).await;
    assert_eq!(broker.rest(Method::GET, "/v1/sessions", None).await.1, json!({"sessions": []}));
    sqlx::raw_sql("COMMIT").execute(&mut holder).await.unwrap();
    holder.close().await.unwrap();
    eventually("the session was made and ended", async || {
        let (_, audit) = broker.rest(Method::GET, "/v1/audit?kind=session", None).await;
        let (_, left) = broker.rest(Method::GET, "/v1/sessions", None).await;
        audit.to_string().contains("\"create\"") && left == json!({"sessions": []})
    })
    .await;
    broker.stop().await;
}

#[tokio::test]
async fn a_stream_that_is_asked_for_at_too_great_length_is_refused_as_that() {
    let broker = TestBroker::start().await;
    let too_long = ("413", "what the stream begins with has more than 8388608 bytes");
    let malformed = ("400", "what the stream is for cannot be understood");
    for (body, (status, message)) in [(" ".repeat((8 << 20) + 1), too_long), ("{".to_owned(), malformed)] {
        let mut asking = ask_for_a_stream(&broker, &body).await;
        // To the end of the answer, and not of the connection, which may go on.
        let mut answer = Vec::new();
        while !answer.ends_with(b"\"}}") {
            assert_ne!(asking.read_buf(&mut answer).await.unwrap(), 0, "{}", String::from_utf8_lossy(&answer));
        }
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(message), "{answer}");
    }
    broker.stop().await;
}

#[tokio::test]
async fn the_docker_catalog_loads_whole() {
    let Some(path) = docker_catalog() else { return };
    let home = Home::with(&FixtureCatalog::new());
    let validated = home.run(&["catalog", "validate", path.to_str().unwrap()]).await;
    let entries = std::fs::read_to_string(&path).unwrap();
    let declared = entries.lines().filter(|line| is_entry(line)).count();
    assert!(
        validated.out().contains(&format!("{declared} servers")),
        "{declared}: {}{}",
        validated.out(),
        validated.err()
    );
}

/// A key two spaces below `registry:`.
fn is_entry(line: &str) -> bool {
    line.starts_with("  ") && !line.starts_with("   ") && line.trim_end().ends_with(':') && !line.contains("- ")
}
