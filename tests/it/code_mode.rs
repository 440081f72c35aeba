//! Scripts that call tools: what they get, what they leave in the log, and what they cannot do.

use http::Method;
use serde_json::{Value, json};

use crate::support::{Era, FixtureCatalog, TestBroker, TestClient, broker::eventually, database, process::Home};

fn catalog() -> FixtureCatalog {
    FixtureCatalog::new().server("one", &[], &[]).server("two-b", &[], &[])
}

/// A client with both servers, and a code tool over them.
async fn coder(broker: &TestBroker) -> TestClient {
    let client = broker.connect(Era::Legacy).await;
    for server in ["one", "two-b"] {
        client.add(server).await;
    }
    client.ok("code-mode", json!({"servers": ["one", "two-b"], "name": "both"})).await;
    client
}

async fn script(client: &TestClient, source: &str) -> Value {
    client.call("code-mode-both", json!({"script": source})).await.structured()
}

#[tokio::test]
async fn a_script_combines_servers_and_each_call_is_a_record_below_it() {
    let broker = TestBroker::with(catalog()).start().await;
    let client = coder(&broker).await;
    assert!(client.tool_names().await.contains(&"code-mode-both".to_owned()));
    let tools = client.tools().await;
    let tool = tools.iter().find(|tool| tool.name == "code-mode-both").unwrap();
    let description = tool.description.as_deref().unwrap();
    assert!(description.contains("declare const two_b: {") && description.contains("echo("), "{description}");

    let outcome = script(
        &client,
        "const sums = await Promise.all([1, 2, 3].map((a) => one.add({a, b: 10})));
         console.log('sums', sums);
         const said = await two_b.echo({text: 'from a script'});
         return {sums: sums.map((sum) => sum.sum), said};",
    )
    .await;
    assert_eq!(outcome["status"], "completed", "{outcome}");
    assert_eq!(outcome["result"], json!({"sums": [11, 12, 13], "said": {"text": "from a script"}}));
    assert_eq!(outcome["calls"].as_array().unwrap().len(), 4);
    assert!(outcome["logs"][0].as_str().unwrap().starts_with("sums"));

    let (_, records) = broker.rest(Method::GET, "/v1/audit?limit=1000", None).await;
    let below: Vec<&Value> = records["records"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|record| record["parent"] == outcome["execution_id"])
        .collect();
    assert_eq!(below.len(), 4);
    assert!(below.iter().all(|record| record["kind"] == "tool" && record["status"] == "success"));
    broker.stop().await;
}

#[tokio::test]
async fn what_a_script_has_seen_is_in_the_log_before_anything_comes_of_it() {
    let broker = TestBroker::with(catalog()).start().await;
    let client = coder(&broker).await;
    let outcome = script(
        &client,
        "for (let i = 0; i < 30; i++) await one.echo({text: `${i}`});
         await Promise.all([1, 2, 3, 4].map((a) => one.add({a, b: 1})));
         return 'done'",
    )
    .await;
    assert_eq!(outcome["result"], "done", "{outcome}");
    let mut log = database(broker.folder()).await;
    let below = "SELECT o.seq AS opened, c.seq AS closed FROM audit_opened o JOIN audit_closed c USING (record)
                 WHERE o.parent IS NOT NULL ORDER BY o.seq";
    let rows: Vec<(i64, i64)> = sqlx::query_as(below).fetch_all(&mut log).await.unwrap();
    assert_eq!(rows.len(), 34);
    assert!(rows[..31].is_sorted_by(|one, next| one.1 < next.0), "{rows:?}");
    let script = "SELECT c.seq FROM audit_opened o JOIN audit_closed c USING (record) WHERE o.name = 'code-mode-both'";
    let ended: i64 = sqlx::query_scalar(script).fetch_one(&mut log).await.unwrap();
    assert!(rows.iter().all(|(_, closed)| *closed < ended), "{rows:?} before {ended}");
    broker.stop().await;
}

#[tokio::test]
async fn what_goes_wrong_in_a_script_is_said() {
    let broker = TestBroker::with(catalog()).start().await;
    let client = coder(&broker).await;
    let error = async |source: &str| {
        let outcome = script(&client, source).await;
        assert_eq!(outcome["status"], "error", "{outcome}");
        format!("{}: {}", outcome["error"]["name"].as_str().unwrap(), outcome["error"]["message"].as_str().unwrap())
    };
    assert!(error("return await one.nothing({})").await.contains("has no tool `nothing`"));
    assert!(error("return await one.add({a: 'x'})").await.starts_with("ToolError"));
    assert!(error("this is no script").await.starts_with("SyntaxError"));
    assert_eq!(error("throw null").await, "Error: thrown: null");
    assert!(error("await new Promise(() => {})").await.contains("waits for what will never happen"));
    assert!(error("return await import('node:fs')").await.starts_with("TypeError"));
    assert!(error("return {get x() { throw new RangeError('no') }}").await.starts_with("RangeError"));
    assert!(error("(function f() { f() })()").await.starts_with("RangeError"));

    let caught = script(&client, "try { await one.nothing({}) } catch (e) { return [e.name, e.server, e.tool] }").await;
    assert_eq!(caught["result"], json!(["ToolError", "one", "nothing"]));
    let settled = script(&client, "return await broker.settle([one.echo({text: 'a'}), one.nothing({})])").await;
    assert_eq!(settled["result"][0], json!({"ok": true, "value": {"text": "a"}}));
    assert_eq!(settled["result"][1]["ok"], false);
    let odd = script(&client, "const a = {}; a.self = a; return {a, big: 10n, f() {}, s: Symbol()}").await;
    assert_eq!(odd["result"], json!({"a": {"self": "[cycle]"}, "big": "10", "f": "[function]", "s": "[symbol]"}));
    let long = script(&client, "return 'x'.repeat(100000)").await;
    assert_eq!(long["result"]["bytes"], 100_002);
    broker.stop().await;
}

#[tokio::test]
async fn a_script_that_takes_too_much_ends_at_a_limit_and_nobody_else_notices() {
    let limits = |settings: &mut mcp_broker::config::CodeModeSettings| {
        (settings.cpu_seconds, settings.calls_max, settings.heap_bytes) = (1, 20, 32 << 20);
    };
    let broker = TestBroker::with(catalog()).code_mode(limits).start().await;
    let client = coder(&broker).await;
    let other = broker.connect(Era::Modern).await;
    let hostile = [
        ("while (true) {}", "s of CPU"),
        ("const a = []; while (true) a.push(new Array(1000).fill(1.5))", "of memory"),
        ("for (;;) one.echo({text: ''})", "more than 20 calls"),
    ];
    for (source, why) in hostile {
        let (outcome, found) = tokio::join!(script(&client, source), other.ok("mcp-find", json!({"query": "one"})));
        assert_eq!(outcome["status"], "limit", "{source}: {outcome}");
        assert!(outcome["error"]["message"].as_str().unwrap().contains(why), "{source}: {outcome}");
        assert!(found.is_error != Some(true));
    }
    client.ok("code-mode-both", json!({"script": "return 1"})).await;
    broker.stop().await;
}

#[tokio::test]
async fn a_script_that_waits_too_long_ends_with_what_it_waits_for() {
    let limits = |settings: &mut mcp_broker::config::CodeModeSettings| settings.wall_seconds = 1;
    let broker = TestBroker::with(catalog()).code_mode(limits).start().await;
    let client = coder(&broker).await;
    let outcome = script(&client, "await one.slow({ms: 60000, steps: 1})").await;
    assert_eq!(outcome["status"], "limit", "{outcome}");
    assert!(outcome["error"]["message"].as_str().unwrap().contains("it ran for 1 s"), "{outcome}");
    eventually("the call has ended", async || broker.audit().await.contains(&"slow cancelled".to_owned())).await;
    broker.stop().await;
}

#[tokio::test]
async fn a_script_reaches_nothing_but_its_tools() {
    let broker = TestBroker::with(catalog()).start().await;
    let client = coder(&broker).await;
    let attempts = [
        "return typeof Deno",
        "return typeof process",
        "return typeof require",
        "return typeof fetch",
        "return typeof WebAssembly",
        "return typeof SharedArrayBuffer",
        "return typeof globalThis.__bootstrap",
        "return typeof (await (async () => {}).constructor('return globalThis.Deno')())",
        "return typeof console.constructor",
        "return typeof one.echo.constructor('return this')().Deno",
    ];
    for attempt in attempts {
        let outcome = script(&client, attempt).await;
        assert_eq!(outcome["result"], "undefined", "{attempt}: {outcome}");
    }
    let polluted = script(
        &client,
        "Array.prototype.push = JSON.parse = JSON.stringify = Promise.prototype.then = Reflect.apply = () => { throw 1 };
         return await one.echo({text: 'still'});",
    )
    .await;
    assert_eq!(
        polluted["result"],
        json!({"text": "still"}),
        "what the host's side uses was captured before: {polluted}"
    );
    let elsewhere = script(&client, "return servers['three']").await;
    assert_eq!(elsewhere["result"], Value::Null);
    broker.stop().await;
}

#[tokio::test]
async fn a_code_tool_survives_a_restart_and_the_feature_takes_it_away_at_once() {
    let broker = TestBroker::with(catalog()).start().await;
    let client = broker.connect(Era::Modern).await;
    let added = client.ok("mcp-add", json!({"name": "one"})).await.structured_content.unwrap();
    let handle = added["session"].as_str().unwrap().to_owned();
    let made = json!({"servers": ["one"], "name": "alone", "session": handle, "script": "return await one.echo({text: 'hi'})"});
    assert_eq!(client.ok("code-mode", made).await.structured_content.unwrap()["result"], json!({"text": "hi"}));
    let wrong = client.call("code-mode", json!({"servers": ["two-b"], "name": "x", "session": handle})).await;
    assert!(wrong.to_string().contains("is not on in this session"), "{wrong}");

    let broker = broker.restart().await;
    let client = broker.connect(Era::Modern).await;
    let run = json!({"script": "return (await broker.search('echo')).length > 0"});
    let outcome = client.exec(Some(&handle), "code-mode-alone", run.clone()).await;
    assert_eq!(outcome.structured()["result"], true);
    broker.rest(Method::PUT, "/v1/features/code-mode", Some(json!({"enabled": false}))).await;
    assert!(!client.tool_names().await.contains(&"code-mode".to_owned()));
    let refused = client.exec(Some(&handle), "code-mode-alone", run).await;
    assert!(refused.to_string().contains("there is no tool"), "{refused}");
    broker.stop().await;
}

#[tokio::test]
async fn the_real_program_is_its_own_worker() {
    let home = Home::with(&catalog());
    let (client, mut process) = home.stdio(&[]).client(Era::Legacy).await;
    client.add("one").await;
    let made = json!({"servers": ["one"], "name": "x", "script": "return await one.add({a: 1, b: 2})"});
    assert_eq!(client.ok("code-mode", made).await.structured_content.unwrap()["result"], json!({"sum": 3}));
    client.close().await;
    process.wait().await.unwrap();
    assert!(!home.has_processes());
}
