//! Tool calls over HTTP that are answered at once, and those that cannot be: whichever way a call goes, its client and the
//! log see the same.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{FixtureCatalog, TestBroker, broker::eventually, by_hand::ByHand};

/// Takes one way or the other: what is no plain JSON is left to rmcp.
const JSON: &str = "application/json";
const LONG_WAY: &str = "application/json; charset=utf-8";

async fn broker() -> TestBroker {
    TestBroker::with(FixtureCatalog::new().server("fixture", &[], &[])).start().await
}

fn call(id: u64, tool: &str, arguments: &Value, meta: &Value) -> Value {
    let params = json!({"name": tool, "arguments": arguments, "_meta": meta});
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params})
}

/// The kind of an answer, and the messages in it.
async fn read(response: reqwest::Response) -> (String, Vec<Value>) {
    let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
    let text = response.text().await.unwrap();
    let messages = match kind.as_str() {
        JSON => vec![serde_json::from_str(&text).unwrap()],
        _ => {
            let data = text.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim);
            data.filter(|data| !data.is_empty()).map(|data| serde_json::from_str(data).unwrap()).collect()
        }
    };
    (kind, messages)
}

async fn statuses(broker: &TestBroker, tool: &str) -> Vec<String> {
    let (_, found) = broker.rest(Method::GET, &format!("/v1/audit?kind=tool&tool={tool}"), None).await;
    let records = found["records"].as_array().unwrap();
    records.iter().map(|record| record["status"].as_str().unwrap_or("open").to_owned()).collect()
}

/// Waits until so many slow calls have a record, which is as long as it takes for one to begin.
async fn begun(broker: &TestBroker, calls: usize) {
    eventually("the call has begun", async || statuses(broker, "slow").await.len() == calls).await;
}

/// A call that was taken back does not go on, and nothing comes of it.
async fn ends_without_result(answer: impl Future<Output = (String, Vec<Value>)>) {
    let answer = tokio::time::timeout(Duration::from_secs(30), answer).await;
    let (kind, messages) = answer.expect("it does not go on");
    assert_eq!(kind, "text/event-stream");
    assert!(messages.iter().all(|message| message.get("result").is_none()), "{messages:?}");
}

/// What a call is answered with that is answered soon enough to need no stream. A busy machine may have to try again.
async fn without_stream(send: impl AsyncFn() -> reqwest::Response) -> Vec<Value> {
    let mut answer = Vec::new();
    eventually("an answer needs no stream", async || {
        let (kind, messages) = read(send().await).await;
        answer = messages;
        kind == JSON
    })
    .await;
    answer
}

/// Posts with other headers than the client's own.
async fn post(client: &ByHand, kind: &str, headers: &[(&str, &str)], message: &Value) -> reqwest::Response {
    let mut request = reqwest::Client::new()
        .post(&client.url)
        .bearer_auth(&client.token)
        .header("accept", "application/json, text/event-stream")
        .header("content-type", kind)
        .body(message.to_string());
    if !client.connection.is_empty() {
        request = request.header("mcp-session-id", &client.connection);
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.unwrap()
}

#[tokio::test]
async fn a_call_that_only_has_an_answer_needs_no_stream() {
    let broker = broker().await;
    let client = ByHand::connect(&broker.url(), broker.token()).await;
    client.call("mcp-add", json!({"name": "fixture"})).await;
    let hello = call(3, "fixture__echo", &json!({"text": "hello"}), &json!({}));
    let short = without_stream(async || post(&client, JSON, &[], &hello).await).await;
    let (kind, long) = read(post(&client, LONG_WAY, &[], &hello).await).await;
    assert_eq!((kind.as_str(), &short), ("text/event-stream", &long));

    let slow = call(4, "fixture__slow", &json!({"ms": 200, "steps": 4}), &json!({"progressToken": "mine"}));
    let (kind, messages) = read(client.send(slow).await).await;
    assert_eq!(kind, "text/event-stream");
    let (answer, progress) = messages.split_last().unwrap();
    let done: Vec<_> = progress.iter().map(|message| message["params"]["progress"].as_f64().unwrap()).collect();
    assert_eq!(done, [1.0, 2.0, 3.0, 4.0]);
    assert!(progress.iter().all(|message| message["params"]["progressToken"] == "mine"), "{progress:?}");
    assert!(answer["id"] == 4 && answer["result"]["content"][0]["text"] == "slept 200 ms in 4 steps", "{answer}");

    let unknown = call(5, "fixture__nothing", &json!({}), &json!({}));
    let short = read(post(&client, JSON, &[], &unknown).await).await;
    assert_eq!(short, read(post(&client, LONG_WAY, &[], &unknown).await).await);
    let echoes = statuses(&broker, "echo").await;
    assert!(echoes.len() >= 2 && echoes.iter().all(|status| status == "success"), "{echoes:?}");
    assert_eq!(statuses(&broker, "slow").await, ["success"]);
    broker.stop().await;
}

#[tokio::test]
async fn a_call_can_be_taken_back_at_any_time() {
    let broker = broker().await;
    let client = ByHand::connect(&broker.url(), broker.token()).await;
    client.call("mcp-add", json!({"name": "fixture"})).await;
    let take_back =
        || client.send(json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}}));
    let slow = || client.send(call(7, "fixture__slow", &json!({"ms": 60_000}), &json!({})));
    // As soon as it runs, and at instants about that at which it is handed over, which nothing shows outside.
    for (calls, wait) in [0, 95, 100, 105].into_iter().enumerate() {
        let taken_back = async {
            begun(&broker, calls + 1).await;
            tokio::time::sleep(Duration::from_millis(wait)).await;
            take_back().await;
        };
        tokio::join!(ends_without_result(async { read(slow().await).await }), taken_back);
    }
    // When it has been: then there is a stream.
    let stream = slow().await;
    take_back().await;
    ends_without_result(read(stream)).await;
    assert_eq!(statuses(&broker, "slow").await, ["cancelled"; 5]);

    // Who has hung up can do so too.
    tokio::select! {
        answered = slow() => panic!("{answered:?}"),
        () = begun(&broker, 6) => {}
    }
    take_back().await;
    eventually("the call is over", async || statuses(&broker, "slow").await == ["cancelled"; 6]).await;
    let hello = call(8, "fixture__echo", &json!({"text": "hello"}), &json!({}));
    without_stream(async || client.send(hello.clone()).await).await;
    broker.stop().await;
}

#[tokio::test]
async fn a_connection_that_was_closed_answers_nobody() {
    let broker = broker().await;
    let (_, session) = broker.rest(Method::POST, "/v1/sessions", Some(json!({"servers": {"fixture": {}}}))).await;
    let url = session["mcp_url"].as_str().unwrap();
    let client = ByHand::connect(url, broker.token()).await;
    let slow = client.send(call(2, "fixture__slow", &json!({"ms": 60_000}), &json!({})));
    let closed = async {
        begun(&broker, 1).await;
        let delete = reqwest::Client::new().delete(url).bearer_auth(broker.token());
        assert!(delete.header("mcp-session-id", &client.connection).send().await.unwrap().status().is_success());
        let hello = client.send(call(3, "fixture__echo", &json!({"text": "hello"}), &json!({}))).await;
        assert_eq!(hello.status(), StatusCode::NOT_FOUND);
    };
    tokio::select! {
        () = closed => {}
        _ = async { slow.await; std::future::pending::<()>().await } => {}
    }
    assert!(statuses(&broker, "echo").await.is_empty());
    broker.stop().await;
}

#[tokio::test]
async fn a_call_of_the_newer_era_goes_either_way_with_one_answer() {
    let broker = broker().await;
    let (_, session) = broker.rest(Method::POST, "/v1/sessions", Some(json!({"servers": {"fixture": {}}}))).await;
    let url = session["mcp_url"].as_str().unwrap().to_owned();
    let client = ByHand { url, token: broker.token().to_owned(), connection: String::new() };
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "hand", "version": "1"},
    });
    let headers = |name| [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call"), ("mcp-name", name)];
    let echo = headers("fixture__echo");
    let hello = call(1, "fixture__echo", &json!({"text": "hello"}), &meta);
    let short = read(post(&client, JSON, &echo, &hello).await).await;
    assert_eq!(short, read(post(&client, LONG_WAY, &echo, &hello).await).await);
    assert_eq!(short.1[0]["result"]["resultType"], "complete");

    // What rmcp refuses is refused, and nothing runs.
    for (headers, message) in [
        (headers("fixture__add"), hello),
        (echo, call(2, "fixture__echo", &json!({"text": "hello"}), &json!({}))),
        (headers("fixture__test_x_mcp_header"), call(3, "fixture__test_x_mcp_header", &json!({"region": "eu"}), &meta)),
    ] {
        let refused = post(&client, JSON, &headers, &message).await;
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST, "{message}");
    }
    let unknown = call(4, "fixture__nothing", &json!({}), &meta);
    let nothing = headers("fixture__nothing");
    let (short, long) =
        (post(&client, JSON, &nothing, &unknown).await, post(&client, LONG_WAY, &nothing, &unknown).await);
    assert_eq!(short.status(), long.status());
    assert_eq!(read(short).await, read(long).await);
    assert_eq!(statuses(&broker, "echo").await, ["success", "success"]);
    assert!(statuses(&broker, "test_x_mcp_header").await.is_empty());

    // Who hangs up takes the call back.
    let slow = call(5, "fixture__slow", &json!({"ms": 60_000}), &meta);
    let heads = headers("fixture__slow");
    tokio::select! {
        answered = post(&client, JSON, &heads, &slow) => panic!("{answered:?}"),
        () = begun(&broker, 1) => {}
    }
    eventually("the call is over", async || statuses(&broker, "slow").await == ["cancelled"]).await;
    broker.stop().await;
}
