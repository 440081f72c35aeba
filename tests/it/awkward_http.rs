//! A server over streamable HTTP of 2025-11-25 that does what few do: forgets sessions, breaks off streams, answers on
//! another stream. Every call has one answer, and is made once.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, Method, StatusCode},
    response::{
        IntoResponse, Response,
        sse::{Event, Sse},
    },
    routing::post,
};
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::support::{Era, FixtureCatalog, TestBroker, TestClient, broker::eventually};

/// Ids of requests that went past rmcp's client begin here.
const PAST_RMCP: i64 = 1_000_000_000;

#[derive(Default)]
struct Heard {
    sessions: usize,
    /// Names of the tools called, in order, those refused for their session too.
    calls: Vec<(String, i64)>,
    /// How many of them were taken.
    taken: usize,
    cancelled: Vec<i64>,
    /// Ids of what it asked and was refused.
    refused: Vec<Value>,
    /// What is to be said on the stream of the session.
    aside: Option<mpsc::UnboundedSender<Value>>,
    unanswered: Option<Value>,
}

type Awkward = Arc<Mutex<Heard>>;

async fn serve() -> (String, Awkward) {
    let heard = Awkward::default();
    let router = Router::new().route("/mcp", post(take).get(listen).delete(StatusCode::OK)).with_state(heard.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, router).into_future());
    (url, heard)
}

fn result(id: &Value, result: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "result": result})
}

fn said(id: &Value, text: &str) -> Value {
    result(id, &json!({"content": [{"type": "text", "text": text}]}))
}

async fn take(State(heard): State<Awkward>, headers: HeaderMap, Json(message): Json<Value>) -> Response {
    let mut heard = heard.lock().unwrap();
    let (id, params) = (&message["id"], &message["params"]);
    if message["method"] == "initialize" {
        heard.sessions += 1;
        let info = json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
            "serverInfo": {"name": "awkward", "version": "1"}});
        let session = format!("session-{}", heard.sessions);
        return ([("mcp-session-id", session)], Json(result(id, &info))).into_response();
    }
    if message["method"] == "server/discover" {
        return StatusCode::BAD_REQUEST.into_response();
    }
    let session = headers.get("mcp-session-id").and_then(|session| session.to_str().ok()).unwrap_or_default();
    let current = session == format!("session-{}", heard.sessions);
    if message["method"] == "tools/call" {
        heard.calls.push((params["name"].as_str().unwrap().to_owned(), id.as_i64().unwrap()));
    }
    if !current {
        return StatusCode::NOT_FOUND.into_response();
    }
    match message["method"].as_str() {
        Some("tools/list") => {
            let names = [
                "plain",
                "forget",
                "break",
                "break_for_good",
                "elsewhere",
                "lost_elsewhere",
                "lost",
                "refuse",
                "hang",
                "ask_nonsense",
                "string_id",
                "too_long",
            ];
            let tools = names.map(|name| json!({"name": name, "inputSchema": {"type": "object"}}));
            Json(result(id, &json!({"tools": tools}))).into_response()
        }
        Some("tools/call") => {
            heard.taken += 1;
            call(&mut heard, id, params)
        }
        Some("notifications/cancelled") => {
            heard.cancelled.push(params["requestId"].as_i64().unwrap());
            StatusCode::ACCEPTED.into_response()
        }
        None if message.get("error").is_some() => {
            heard.refused.push(id.clone());
            StatusCode::ACCEPTED.into_response()
        }
        _ => StatusCode::ACCEPTED.into_response(),
    }
}

fn call(heard: &mut Heard, id: &Value, params: &Value) -> Response {
    match params["name"].as_str().unwrap() {
        "forget" => {
            // As if it were started again: the next request finds no session.
            heard.sessions += 1;
            Json(said(id, "forgotten")).into_response()
        }
        "break" => {
            heard.unanswered = Some(said(id, "resumed"));
            let primed = Event::default().id("event-1").retry(Duration::from_millis(10)).data("");
            events(vec![primed])
        }
        "break_for_good" => events(vec![Event::default().comment("nothing to resume from")]),
        "elsewhere" => {
            heard.aside.as_ref().unwrap().send(said(id, "from elsewhere")).unwrap();
            StatusCode::ACCEPTED.into_response()
        }
        "lost_elsewhere" => StatusCode::ACCEPTED.into_response(),
        "lost" => {
            heard.sessions += 1;
            events(vec![Event::default().id("event-0").retry(Duration::from_millis(10)).data("")])
        }
        "string_id" => {
            let text = json!(id.to_string());
            events(vec![Event::default().data(said(&text, "by a string").to_string())])
        }
        "too_long" => {
            let primed = Event::default().id("event-0").retry(Duration::from_millis(10)).data("");
            events(vec![primed, Event::default().data(said(id, &"long ".repeat(1 << 20)).to_string())])
        }
        "refuse" => {
            let error = json!({"jsonrpc": "2.0", "id": null, "error": {"code": -32600, "message": "Not like this"}});
            (StatusCode::BAD_REQUEST, Json(error)).into_response()
        }
        "hang" => {
            let begun = Event::default().comment("wait");
            Sse::new(stream::iter([Ok::<_, Infallible>(begun)]).chain(stream::pending())).into_response()
        }
        "ask_nonsense" => {
            let nonsense = json!({"jsonrpc": "2.0", "id": "q", "method": "sampling/createMessage", "params": 7});
            let other = said(&json!(7), "for a request that nobody made");
            let messages = [nonsense, other, said(id, "in the end")];
            events(messages.iter().map(|message| Event::default().data(message.to_string())).collect())
        }
        _ => Json(said(id, "plain")).into_response(),
    }
}

fn events(events: Vec<Event>) -> Response {
    Sse::new(stream::iter(events.into_iter().map(Ok::<_, Infallible>))).into_response()
}

/// The stream of the session, or the rest of one that broke off.
async fn listen(State(heard): State<Awkward>, headers: HeaderMap) -> Response {
    let mut heard = heard.lock().unwrap();
    let current = format!("session-{}", heard.sessions);
    if headers.get("mcp-session-id").is_none_or(|session| *session != current) {
        return StatusCode::NOT_FOUND.into_response();
    }
    if headers.get("last-event-id").is_some_and(|id| id == "event-1") {
        let rest = heard.unanswered.take().map(|answer| Event::default().id("event-2").data(answer.to_string()));
        return events(rest.into_iter().collect());
    }
    let (sender, receiver) = mpsc::unbounded_channel();
    heard.aside = Some(sender);
    let messages = stream::unfold(receiver, async |mut receiver: mpsc::UnboundedReceiver<Value>| {
        let message = receiver.recv().await?;
        Some((Ok::<_, Infallible>(Event::default().data(message.to_string())), receiver))
    });
    Sse::new(messages).into_response()
}

async fn broker() -> (TestBroker, Awkward) {
    let (url, heard) = serve().await;
    let entry = format!("{{description: Awkward, remote: {{url: \"{url}\", transport_type: streamable-http}}}}");
    let broker = TestBroker::with(FixtureCatalog::new().raw("odd", &entry));
    (broker.limits(|limits| limits.message_bytes_max = 2 << 20).start().await, heard)
}

/// A client in a session of its own with the server on.
async fn client_of(broker: &TestBroker, era: Era) -> TestClient {
    let (status, made) = broker.rest(Method::POST, "/v1/sessions", Some(json!({"servers": {"odd": {}}}))).await;
    assert_eq!(status, 201, "{made}");
    TestClient::http(made["mcp_url"].as_str().unwrap(), made["mcp_token"].as_str(), era).await
}

async fn called(heard: &Awkward, tool: &str) {
    eventually("it is called", async || heard.lock().unwrap().calls.iter().any(|(name, _)| name == tool)).await;
}

#[tokio::test]
async fn a_call_finds_its_answer_wherever_it_comes() {
    let (broker, heard) = broker().await;
    for era in [Era::Legacy, Era::Modern] {
        let client = client_of(&broker, era).await;
        client.ok("odd__plain", json!({})).await;
        eventually("the session's stream is open", async || heard.lock().unwrap().aside.is_some()).await;
        for (tool, answer) in [
            ("plain", "ok: plain"),
            ("break", "ok: resumed"),
            ("elsewhere", "ok: from elsewhere"),
            ("ask_nonsense", "ok: in the end"),
            ("string_id", "ok: by a string"),
            ("plain", "ok: plain"),
        ] {
            heard.lock().unwrap().calls.clear();
            assert_eq!(client.call(&format!("odd__{tool}"), json!({})).await.to_string(), answer, "{era:?}");
            let heard = heard.lock().unwrap();
            assert!(matches!(&heard.calls[..], [(name, id)] if name == tool && *id >= PAST_RMCP), "{:?}", heard.calls);
        }
        assert_eq!(
            std::mem::take(&mut heard.lock().unwrap().refused),
            [json!("q")],
            "it was told that it asked nonsense"
        );
        for (tool, problem) in [
            ("refuse", "Not like this"),
            ("break_for_good", "before the answer was on it"),
            ("too_long", "is longer than 2097152 bytes"),
            ("lost", "before the answer was on it"),
        ] {
            let failed = client.call(&format!("odd__{tool}"), json!({})).await;
            assert!(!failed.is_ok() && failed.to_string().contains(problem), "{era:?} {tool}: {failed}");
        }
        client.ok("odd__plain", json!({})).await;
        client.close().await;
    }
    broker.stop().await;
}

#[tokio::test]
async fn a_session_that_is_forgotten_is_opened_again() {
    let (broker, heard) = broker().await;
    let client = client_of(&broker, Era::Legacy).await;
    client.ok("odd__plain", json!({})).await;
    for _ in 0..2 {
        client.ok("odd__forget", json!({})).await;
        let before = heard.lock().unwrap().sessions;
        heard.lock().unwrap().taken = 0;
        let answers = futures_util::future::join_all((0..5).map(|_| client.call("odd__plain", json!({})))).await;
        assert!(answers.iter().all(|answer| answer.to_string() == "ok: plain"));
        assert_eq!(heard.lock().unwrap().sessions, before + 1, "one session, for all calls that found none");
        assert_eq!(heard.lock().unwrap().taken, 5, "each was made once");
        heard.lock().unwrap().calls.clear();
        client.ok("odd__plain", json!({})).await;
        let calls = heard.lock().unwrap().calls.clone();
        assert!(matches!(&calls[..], [(_, id)] if *id >= PAST_RMCP), "once, the short way again: {calls:?}");
    }
    broker.stop().await;
}

#[tokio::test]
async fn a_call_that_is_taken_back_is_taken_back_from_the_server() {
    let (broker, heard) = broker().await;
    let client = client_of(&broker, Era::Modern).await;
    let begun = called(&heard, "hang");
    tokio::select! {
        answer = client.try_call("odd__hang", json!({})) => panic!("it hangs, and yet: {answer:?}"),
        () = begun => {}
    }
    client.close().await;
    eventually("the server is told", async || {
        let heard = heard.lock().unwrap();
        let call = heard.calls.iter().find(|(name, _)| name == "hang");
        call.is_some_and(|(_, id)| *id >= PAST_RMCP && heard.cancelled == [*id])
    })
    .await;
    broker.stop().await;
}

#[tokio::test]
async fn a_call_whose_session_is_forgotten_does_not_wait_for_its_answer() {
    let (broker, heard) = broker().await;
    let client = client_of(&broker, Era::Legacy).await;
    client.ok("odd__plain", json!({})).await;
    let lost = client.call("odd__lost_elsewhere", json!({}));
    let forgotten = async {
        called(&heard, "lost_elsewhere").await;
        client.ok("odd__forget", json!({})).await;
        client.ok("odd__plain", json!({})).await;
    };
    let (lost, ()) = tokio::join!(lost, forgotten);
    assert!(lost.to_string().contains("before the answer was on it"), "{lost}");
    broker.stop().await;
}
