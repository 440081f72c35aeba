//! Servers that do not start, do not answer, say nonsense or die. Each is a clear error, and nobody else's business.

use serde_json::json;

use crate::support::{Era, FixtureCatalog, TestBroker, broker::eventually};

fn broken(name: &str, environment: &[(&str, &str)]) -> FixtureCatalog {
    FixtureCatalog::new().server(name, &[], environment).server("well", &[], &[])
}

#[tokio::test]
async fn a_server_that_exits_at_once_is_not_added_and_says_why() {
    let broker = TestBroker::with(broken("ill", &[("FIXTURE_EXIT_AT_START", "3")])).start().await;
    let client = broker.connect(Era::Legacy).await;
    let outcome = client.call("mcp-add", json!({"name": "ill"})).await;
    let text = outcome.to_string();
    assert!(
        text.starts_with("error: Server `ill` was not added: server `ill` did not start: it exited with code 3"),
        "{text}"
    );
    assert!(text.contains("its last words were"), "{text}");
    assert_eq!(client.ok("mcp-list", json!({})).await.structured_content.unwrap()["servers"], json!([]));
    client.add("well").await;
    assert!(client.call("well__echo", json!({"text": "x"})).await.is_ok());
    broker.stop().await;
}

#[tokio::test]
async fn a_server_that_keeps_failing_is_left_alone_for_a_while() {
    let broker = TestBroker::with(broken("ill", &[("FIXTURE_EXIT_AT_START", "3")])).start().await;
    let client = broker.connect(Era::Legacy).await;
    let mut last = String::new();
    for _ in 0..3 {
        last = client.call("mcp-add", json!({"name": "ill"})).await.to_string();
    }
    assert!(last.contains("failed to start") && last.contains("the next attempt is in"), "{last}");
    broker.stop().await;
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up_on() {
    let catalog = broken("mute", &[("FIXTURE_NEVER_ANSWER", "1")]);
    let broker = TestBroker::with(catalog).limits(|limits| limits.start_seconds = 1).start().await;
    let client = broker.connect(Era::Legacy).await;
    let outcome = client.call("mcp-add", json!({"name": "mute"})).await.to_string();
    assert!(outcome.contains("not ready within 1 s"), "{outcome}");
    broker.stop().await;
}

#[tokio::test]
async fn a_banner_before_the_protocol_is_passed_over() {
    let broker = TestBroker::with(broken("chatty", &[("FIXTURE_GARBAGE_START", "1")])).start().await;
    let client = broker.connect(Era::Legacy).await;
    client.add("chatty").await;
    assert!(client.call("chatty__garbage", json!({})).await.is_ok());
    broker.stop().await;
}

#[tokio::test]
async fn a_server_that_dies_in_a_call_fails_that_call_and_comes_back_with_the_next() {
    let broker = TestBroker::with(broken("frail", &[])).start().await;
    let (client, other) = (broker.connect(Era::Legacy).await, broker.connect(Era::Legacy).await);
    client.add("frail").await;
    client.add("well").await;
    other.add("frail").await;
    let (died, slow) = tokio::join!(
        client.call("frail__crash", json!({"code": 137, "after_ms": 200})),
        client.call("well__slow", json!({"ms": 600})),
    );
    let text = died.to_string();
    assert!(text.starts_with("error: server `frail` ended during the call: it exited with code 137"), "{text}");
    assert!(slow.is_ok(), "{slow}");
    assert!(other.call("frail__echo", json!({"text": "unaffected"})).await.is_ok());
    assert_eq!(client.call("frail__echo", json!({"text": "back"})).await.to_string(), "ok: back");
    broker.stop().await;
}

#[tokio::test]
async fn a_call_that_hangs_ends_at_its_deadline() {
    let broker = TestBroker::with(broken("stuck", &[])).limits(|limits| limits.call_seconds = 1).start().await;
    let client = broker.connect(Era::Legacy).await;
    client.add("stuck").await;
    let outcome = client.call("stuck__hang", json!({})).await;
    insta::assert_snapshot!(outcome, @"error: server `stuck`: the server neither answered nor reported progress for 1 s");
    assert!(client.call("stuck__echo", json!({"text": "x"})).await.is_ok());
    assert_eq!(broker.audit().await, ["mcp-add success", "hang timeout", "echo success"]);
    broker.stop().await;
}

#[tokio::test]
async fn a_call_that_reports_progress_outlives_the_deadline() {
    let broker = TestBroker::with(broken("busy", &[])).limits(|limits| limits.call_seconds = 1).start().await;
    let client = broker.connect(Era::Legacy).await;
    client.add("busy").await;
    let outcome = client.call("busy__slow", json!({"ms": 2500, "steps": 10})).await;
    assert!(outcome.is_ok(), "{outcome}");
    broker.stop().await;
}

#[tokio::test]
async fn an_answer_that_is_too_long_fails_its_call_only() {
    let broker =
        TestBroker::with(broken("wordy", &[])).limits(|limits| limits.message_bytes_max = 1 << 20).start().await;
    let client = broker.connect(Era::Legacy).await;
    client.add("wordy").await;
    let (long, short) = tokio::join!(
        client.call("wordy__big", json!({"bytes": 20_000_000})),
        client.call("wordy__echo", json!({"text": "short"})),
    );
    assert!(long.to_string().contains("longer than 1048576 bytes"), "{long}");
    assert_eq!(short.to_string(), "ok: short");
    broker.stop().await;
}

#[tokio::test]
async fn a_flood_on_standard_error_is_read_and_bounded() {
    let broker = TestBroker::with(broken("loud", &[])).start().await;
    let client = broker.connect(Era::Legacy).await;
    client.add("loud").await;
    assert!(client.call("loud__stderr_flood", json!({"bytes": 5_000_000})).await.is_ok());
    assert!(client.call("loud__echo", json!({"text": "x"})).await.is_ok());
    broker.stop().await;
}

#[tokio::test]
async fn a_bad_tool_is_left_out_of_the_list() {
    for kind in ["1", "invalid"] {
        let broker = TestBroker::with(broken("odd", &[("FIXTURE_BAD_TOOL", kind)])).start().await;
        let client = broker.connect(Era::Legacy).await;
        client.add("odd").await;
        assert!(client.call("odd__echo", json!({"text": "x"})).await.is_ok());
        broker.stop().await;
    }
}

#[tokio::test]
async fn a_server_that_will_not_stop_is_stopped_with_all_it_started() {
    let environment = [("FIXTURE_IGNORE_EOF", "1"), ("FIXTURE_IGNORE_TERM", "1"), ("FIXTURE_SPAWN_CHILD", "inherit")];
    let broker = TestBroker::with(broken("stubborn", &environment)).start().await;
    let client = broker.connect(Era::Legacy).await;
    client.add("stubborn").await;
    client.ok("mcp-remove", json!({"name": "stubborn"})).await;
    let label = mcp_broker::supervisor::label_of(broker.folder());
    eventually("nothing of it is left", async || mcp_broker::supervisor::orphans::labelled(&label).is_empty()).await;
    broker.stop().await;
}

#[tokio::test]
async fn an_idle_server_stops_and_comes_back_unnoticed() {
    let broker =
        TestBroker::with(broken("sleepy", &[])).limits(|limits| limits.instance_idle_seconds = 1).start().await;
    let client = broker.connect(Era::Legacy).await;
    client.add("sleepy").await;
    let pid = client.ok("sleepy__pid", json!({})).await;
    let label = mcp_broker::supervisor::label_of(broker.folder());
    eventually("it has stopped", async || mcp_broker::supervisor::orphans::labelled(&label).is_empty()).await;
    assert!(client.server_tools().await.contains(&"sleepy__echo".to_owned()), "its tools stay listed");
    let again = client.ok("sleepy__pid", json!({})).await;
    assert_ne!(pid.content, again.content);
    broker.stop().await;
}

#[tokio::test]
async fn a_call_that_comes_while_its_server_stops_is_for_the_next_one() {
    let environment = [("FIXTURE_IGNORE_EOF", "1"), ("FIXTURE_IGNORE_TERM", "1")];
    let broker =
        TestBroker::with(broken("slow", &environment)).limits(|limits| limits.instance_idle_seconds = 1).start().await;
    let client = broker.connect(Era::Legacy).await;
    client.add("slow").await;
    let pid = client.ok("slow__pid", json!({})).await;
    eventually("it is about to stop", async || {
        let listed = client.ok("mcp-list", json!({})).await.structured_content.unwrap();
        listed["servers"][0]["state"] == "stopping"
    })
    .await;
    let (again, another) = tokio::join!(client.ok("slow__pid", json!({})), client.ok("slow__pid", json!({})));
    assert!(again.content == another.content && again.content != pid.content, "{again:?}, {another:?}");
    broker.stop().await;
}

#[tokio::test]
async fn many_callers_wait_for_one_start() {
    let broker =
        TestBroker::with(FixtureCatalog::new().server("slow", &[], &[("FIXTURE_START_DELAY_MS", "300")])).start().await;
    let client = broker.connect(Era::Legacy).await;
    client.add("slow").await;
    let broker = broker.restart().await;
    let client = broker.connect(Era::Legacy).await;
    client.add("slow").await;
    let calls = (0..20).map(|_| client.ok("slow__pid", json!({})));
    let pids: Vec<_> = futures_util::future::join_all(calls).await.into_iter().map(|result| result.content).collect();
    assert!(pids.iter().all(|pid| *pid == pids[0]));
    broker.stop().await;
}

#[tokio::test]
async fn a_server_sees_its_own_environment_and_nothing_of_the_brokers() {
    let entry = "    secrets:\n      - {name: plain.key, env: API_KEY}";
    let broker =
        TestBroker::with(FixtureCatalog::new().entry("plain", &[], &[("GREETING", "hello")], entry)).start().await;
    let put = broker.rest(http::Method::PUT, "/v1/secrets/plain.key", Some(json!({"value": "hunter2-hunter2"}))).await;
    assert_eq!(put.0, 200, "{}", put.1);
    let client = broker.connect(Era::Legacy).await;
    client.add("plain").await;
    let environment = client.ok("plain__env", json!({})).await.structured_content.unwrap().to_string();
    assert!(environment.contains("hunter2-hunter2") && environment.contains("GREETING"), "{environment}");
    for foreign in ["CARGO_", "RUST_BACKTRACE", "MCP_BROKER_MASTER_KEY"] {
        assert!(!environment.contains(foreign), "{foreign} in {environment}");
    }
    let (_, records) = broker.rest(http::Method::GET, "/v1/audit?limit=1000", None).await;
    assert!(!records.to_string().contains("hunter2"), "a secret is in the log");
    broker.stop().await;
}
