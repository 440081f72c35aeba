//! What a script is written in, what it is told beforehand, and what it gives back.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Era, FixtureCatalog, TestBroker, TestClient, broker::eventually};

/// One server.
pub(crate) fn catalog() -> FixtureCatalog {
    FixtureCatalog::new().server("one", &[], &[])
}

/// A client with a server and a code tool over it.
pub(crate) async fn coder(broker: &TestBroker) -> TestClient {
    let client = broker.connect(Era::Legacy).await;
    client.add("one").await;
    client.ok("code-mode", json!({"servers": ["one"], "name": "x"})).await;
    client
}

/// What a script answers, run by that tool.
pub(crate) async fn script(client: &TestClient, source: &str) -> Value {
    client.call("code-mode-x", json!({"script": source})).await.structured()
}

#[tokio::test]
async fn typescript_runs_and_errors_keep_their_place() {
    let broker = TestBroker::with(catalog()).start().await;
    let client = coder(&broker).await;
    let typed = "interface Sum { sum: number }
        type Terms = [a: number, b: number];
        const add = async ([a, b]: Terms): Promise<number> => ((await one.add({a, b})) as Sum).sum!;
        const sums: Map<string, number> = new Map<string, number>();
        sums.set('three', await add([1, 2] satisfies Terms));
        return Object.fromEntries(sums);";
    assert_eq!(script(&client, typed).await["result"], json!({"three": 3}));

    let thrown =
        script(&client, "const a: number = 1;\nconst b: string = 'x';\n  throw new Error('here' as string);").await;
    assert_eq!(thrown["error"]["line"], 3, "{thrown}");
    let place = async |source: &str| {
        let error = script(&client, source).await["error"].clone();
        assert_eq!(error["name"], "SyntaxError", "{error}");
        (error["line"].as_u64(), error["column"].as_u64(), error["message"].to_string())
    };
    let (line, column, message) = place("const a = 1;\nconst b: = 2;").await;
    assert_eq!((line, column), (Some(2), Some(10)), "{message}");
    let (line, _, message) = place("const a = 1;\nenum Colour { Red }").await;
    assert!(line == Some(2) && message.contains("enum is not supported"), "{message}");
    // What only the engine takes is still taken.
    assert_eq!(script(&client, "with ({a: 1}) { return a }").await["result"], 1);
    broker.stop().await;
}

#[tokio::test]
async fn a_script_that_cannot_be_read_takes_nobody_down() {
    let limits = |settings: &mut mcp_broker::config::CodeModeSettings| settings.cpu_seconds = 2;
    let broker = TestBroker::with(catalog()).code_mode(limits).start().await;
    let client = coder(&broker).await;
    for nested in ["[", "(", "{", "!", "a=>", "`${", "x?y:", "Array<", "new "] {
        let outcome = script(&client, &nested.repeat(200_000 / nested.len())).await;
        let told = outcome["error"]["message"].as_str().unwrap();
        assert!(told.contains("nested too deep") || outcome["status"] == "limit", "{nested}: {outcome}");
    }
    assert_eq!(script(&client, "return 1").await["result"], 1);
    broker.stop().await;
}

#[tokio::test]
async fn arguments_that_do_not_fit_fail_before_anything_is_called() {
    let broker = TestBroker::with(catalog()).start().await;
    let client = coder(&broker).await;
    let outcome =
        script(&client, "try { await one.add({a: 'x'}) } catch (e) { return [e.name, e.message, e.schema.required] }")
            .await;
    assert_eq!(outcome["result"][0], "ToolError", "{outcome}");
    let message = outcome["result"][1].as_str().unwrap();
    for part in ["was not called", "(at /a)", "\"b\" is a required property", "add(a: number, b: number)"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert_eq!(outcome["result"][2], json!(["a", "b"]));
    assert_eq!(outcome["calls"][0]["ok"], false);
    assert!(script(&client, "await one.echo('text')").await["error"]["message"].to_string().contains("was not called"));
    assert!(!broker.audit().await.iter().any(|record| record.starts_with("add") || record.starts_with("echo")));
    // What a client calls by itself is the server's business.
    client.call("one__add", json!({"a": "x"})).await;
    assert!(broker.audit().await.contains(&"add error".to_owned()));
    broker.stop().await;
}

#[tokio::test]
async fn calls_and_answers_that_are_longer_than_a_pipe_pass_each_other() {
    let broker = TestBroker::with(catalog()).start().await;
    let client = coder(&broker).await;
    let source = "const text = 'x'.repeat(200_000);
        const answers = await Promise.all(Array.from({length: 40}, (_, id) => one.echo({text: id + text})));
        return answers.filter((answer, id) => answer.text === id + text).length";
    let outcome = tokio::time::timeout(Duration::from_secs(60), script(&client, source)).await.expect("it goes on");
    assert_eq!(outcome["result"], 40, "{outcome}");
    broker.stop().await;
}

#[tokio::test]
async fn calls_that_wait_cannot_fill_the_memory() {
    let broker = TestBroker::with(catalog()).start().await;
    let client = coder(&broker).await;
    let source = "const text = 'x'.repeat(22 << 20);
        for (let calls = 0; calls < 2; calls++) one.hang({text});
        const refused = await one.echo({text}).catch((error) => error);
        return [refused.name, refused.message, (await one.echo({text: 'less'})).text]";
    let outcome = script(&client, source).await;
    let refused = "calls without an answer have more than 64 MiB of arguments together: await some of them first";
    assert_eq!(outcome["result"], json!(["ToolError", refused, "less"]), "{outcome}");
    broker.stop().await;
}

#[tokio::test]
async fn what_tools_return_is_learned_from_what_they_returned() {
    let broker = TestBroker::with(catalog()).start().await;
    let client = coder(&broker).await;
    let declared = async |client: &TestClient| {
        let tools = client.tools().await;
        let tool = tools.iter().find(|tool| tool.name == "code-mode-x").unwrap();
        let description = tool.description.clone().unwrap();
        description.lines().find(|line| line.contains(" pid(")).unwrap().trim().to_owned()
    };
    assert_eq!(declared(&client).await, "pid(args?: {}): Promise<any>;");
    script(&client, "return await one.pid({})").await;
    eventually("the type is learned", async || declared(&client).await == "pid(args?: {}): Promise<{pid: number}>;")
        .await;
    // A call outside of a script is learned from as well, and a failed one is not.
    client.ok("one__touch", json!({})).await;
    client.call("one__fail", json!({"message": "no"})).await;
    let describe =
        "return [(await broker.describe('one.touch')).declaration, (await broker.describe('one.fail')).declaration]";
    eventually("another type is learned", async || {
        script(&client, describe).await["result"][0]
            .as_str()
            .unwrap()
            .contains("Promise<{touches: number, uri: string}>")
    })
    .await;
    assert!(script(&client, describe).await["result"][1].as_str().unwrap().contains("Promise<any>"));

    let broker = broker.restart().await;
    assert_eq!(declared(&coder(&broker).await).await, "pid(args?: {}): Promise<{pid: number}>;");
    broker.stop().await;
}

#[tokio::test]
async fn a_result_that_is_too_long_is_read_page_by_page() {
    let broker = TestBroker::with(catalog()).start().await;
    let (client, other) = (coder(&broker).await, coder(&broker).await);
    let long = "return Array.from({length: 3000}, (_, id) => ({id, name: 'ö'.repeat(10)}))";
    let outcome = script(&client, long).await;
    let shown = &outcome["result"];
    assert_eq!((&outcome["status"], &shown["type"]), (&json!("completed"), &json!("{id: number, name: string}[]")));
    assert!(outcome.to_string().len() < 8 << 10 && shown["preview"].as_str().unwrap().starts_with("[{\"id\":0"));
    let handle = shown["handle"].as_str().unwrap();
    let page = async |client: &TestClient, offset: usize| {
        let arguments = json!({"handle": handle, "offset": offset});
        client.exec(None, "broker__read-result", arguments).await
    };
    let (mut text, mut next) = (String::new(), Some(0));
    while let Some(offset) = next {
        let read = page(&client, offset).await.structured();
        text.push_str(read["text"].as_str().unwrap());
        next = read["next_offset"].as_u64().map(|next| usize::try_from(next).unwrap());
        assert_eq!(read["done"], next.is_none());
    }
    assert_eq!(text.len(), shown["bytes"]);
    let whole: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(whole[2999], json!({"id": 2999, "name": "ö".repeat(10)}));

    assert!(page(&client, 10_000_000).await.to_string().contains("`offset` must be less than"));
    let theirs = page(&other, 0).await.to_string();
    assert!(theirs.contains("this session has no result") && theirs.contains("Run the script again"), "{theirs}");
    broker.clock.advance(jiff::SignedDuration::from_mins(16));
    assert!(page(&client, 0).await.to_string().contains("this session has no result"));
    broker.stop().await;
}

#[tokio::test]
async fn declarations_that_are_too_long_are_asked_for() {
    let limits = |settings: &mut mcp_broker::config::CodeModeSettings| settings.declarations_bytes_max = 600;
    let broker = TestBroker::with(catalog()).code_mode(limits).start().await;
    let client = coder(&broker).await;
    let tools = client.tools().await;
    let description = tools.iter().find(|tool| tool.name == "code-mode-x").unwrap().description.clone().unwrap();
    assert!(description.contains(" more: ask broker.search") && description.len() < 2500, "{description}");
    let found = script(
        &client,
        "const [hit] = await broker.search('adds numbers'); return [hit.tool, hit.signature, await broker.describe(hit.tool)]",
    )
    .await;
    assert_eq!(found["result"][0], "one.add", "{found}");
    assert_eq!(found["result"][1], "add(a: number, b: number)");
    let declaration = found["result"][2]["declaration"].as_str().unwrap();
    assert!(declaration.contains("add(args: {a: number; b: number}): Promise<{sum: number}>;"), "{declaration}");
    let none = script(&client, "return await broker.describe('one.none')").await;
    assert!(none["error"]["message"].as_str().unwrap().contains("use broker.search"), "{none}");
    let by_name = script(&client, "return await broker.call('one', 'add', {a: 1, b: 2})").await;
    assert_eq!(by_name["result"], json!({"sum": 3}));
    broker.stop().await;
}
