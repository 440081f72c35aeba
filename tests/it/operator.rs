//! What an operator does with a broker that runs: look at tools, call them, read what servers write.

use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::support::{
    FixtureCatalog, TestBroker,
    broker::eventually,
    process::{BrokerProcess, Home},
};

async fn broker() -> (BrokerProcess, Home) {
    let home = Home::with(&FixtureCatalog::new().server("fixture", &[], &[]).server("second", &[], &[]));
    let broker = home.serve().await;
    home.run(&["session", "new", "--name", "mine", "--server", "fixture"]).await.ok();
    (broker, home)
}

#[tokio::test]
async fn tools_are_listed_shown_and_called_with_values_of_their_types() {
    let (broker, home) = broker().await;
    let listed = home.run(&["tool", "ls", "--server", "fixture"]).await.ok();
    assert!(listed.lines().any(|line| line.starts_with("fixture__echo ")), "{listed}");
    let all: Value = serde_json::from_str(&home.run(&["tools", "ls", "--format", "json"]).await.ok()).unwrap();
    let names: Vec<&str> = all.as_array().unwrap().iter().filter_map(|tool| tool["name"].as_str()).collect();
    assert!(names.contains(&"mcp-add") && names.contains(&"fixture__slow"), "{names:?}");
    let shown = home.run(&["tool", "inspect", "stderr_flood"]).await.ok();
    assert!(shown.contains("name:        fixture__stderr_flood") && shown.contains("\"bytes\""), "{shown}");

    // The schema says that it is a number.
    assert_eq!(home.run(&["tool", "call", "stderr_flood", "bytes=30"]).await.ok(), "wrote 30 bytes to stderr\n");
    assert!(home.run(&["tool", "call", "fixture__echo", "text=3"]).await.ok().contains('3'));
    let refused = home.run(&["tool", "call", "stderr_flood", "bytes=many"]).await;
    assert_eq!(refused.code(), 1);
    assert!(refused.err().contains("`bytes` takes integer"), "{}", refused.err());
    // From standard input, and from a file.
    let called =
        home.run_with(&["tool", "call", "echo", "--json", "-", "--format", "json"], "{\"text\": \"piped\"}").await;
    let result: Value = serde_json::from_str(&called.ok()).unwrap();
    assert!(result["content"][0]["text"].as_str().unwrap().contains("piped"), "{result}");
    let file = home.path().join("text.txt");
    std::fs::write(&file, "from a file").unwrap();
    let value = format!("text=@{}", file.display());
    assert!(home.run(&["tool", "call", "echo", &value]).await.ok().contains("from a file"));
    broker.terminate().await;
}

#[tokio::test]
async fn what_servers_say_gives_the_terminal_no_orders_and_is_exact_as_json() {
    let (broker, home) = broker().await;
    let odd = json!({"text": "a\u{1b}]0;title\u{7}\u{1b}[31m\tb\r\nc\u{9b}2J"}).to_string();
    let shown = home.run(&["tool", "call", "echo", "--json", &odd]).await.ok();
    assert!(shown.contains("a ]0;title  [31m\tb\nc 2J\n"), "{shown:?}");
    assert!(shown.chars().all(|c| !c.is_control() || c == '\n' || c == '\t'), "{shown:?}");
    let exact = home.run(&["tool", "call", "echo", "--json", &odd, "--format", "json"]).await.ok();
    let exact: Value = serde_json::from_str(&exact).unwrap();
    let said = exact["content"][0]["text"].as_str().unwrap();
    assert!(said.contains("a\u{1b}]0;title\u{7}\u{1b}[31m\tb\r\nc\u{9b}2J"), "{said:?}");
    broker.terminate().await;
}

#[tokio::test]
async fn a_call_starts_the_server_of_its_tool_and_no_other() {
    let slow = [("FIXTURE_START_DELAY_MS", "600000")];
    let catalog = FixtureCatalog::new().server("fixture", &[], &[]).server("slow", &[], &slow);
    let broker = TestBroker::with(catalog).start().await;
    let wanted = json!({"mcp": {"fixture": {}, "slow": {}}});
    let (_, made) = broker.rest(Method::POST, "/v1/sessions", Some(wanted)).await;
    let session = format!("/v1/sessions/{}", made["id"].as_str().unwrap());
    eventually("the first server is ready", async || {
        let (_, shown) = broker.rest(Method::GET, &session, None).await;
        shown["servers"][0]["state"] == "ready"
    })
    .await;
    let tools = format!("{session}/tools");
    let script = json!({"name": "code-mode", "arguments": {"name": "mine", "servers": ["fixture"]}});
    assert_eq!(broker.rest(Method::POST, &tools, Some(script)).await.0, 200);
    let broker = broker.restart().await;
    let running = async || {
        let (_, status) = broker.rest(Method::GET, "/v1/status", None).await;
        status["running"].as_array().unwrap().iter().map(|row| row["server"].clone()).collect::<Vec<_>>()
    };
    for (name, found) in [("echo", "fixture__echo"), ("mcp-add", "mcp-add"), ("code-mode-mine", "code-mode-mine")] {
        let (status, named) = broker.rest(Method::GET, &format!("{tools}?name={name}"), None).await;
        assert_eq!((status, &named["tools"][0]["name"]), (200, &json!(found)), "{named}");
        assert_eq!(named["tools"].as_array().map(Vec::len), Some(1), "{named}");
    }
    assert_eq!(running().await, Vec::<Value>::new());
    broker.rest(Method::PUT, "/v1/features/dynamic-tools", Some(json!({"enabled": false}))).await;
    let (_, off) = broker.rest(Method::POST, &tools, Some(json!({"name": "mcp-list"}))).await;
    assert!(off.to_string().contains("Unknown tool"), "{off}");
    broker.rest(Method::PUT, "/v1/features/dynamic-tools", Some(json!({"enabled": true}))).await;
    assert_eq!(running().await, Vec::<Value>::new(), "no server is asked about a tool of the broker's own");
    for name in ["echo", "fixture__echo"] {
        let call = json!({"name": name, "arguments": {"text": "hello"}});
        let (status, called) = broker.rest(Method::POST, &tools, Some(call)).await;
        assert_eq!((status, &called["tool"]), (200, &json!("fixture__echo")), "{called}");
    }
    let call = json!({"name": "mcp-exec", "arguments": {"name": "echo", "arguments": {"text": "hello"}}});
    assert_eq!(broker.rest(Method::POST, &tools, Some(call)).await.0, 200);
    assert_eq!(running().await, ["fixture"]);
    broker.rest(Method::PUT, "/v1/features/code-mode", Some(json!({"enabled": false}))).await;
    for name in ["code-mode", "code-mode-mine"] {
        let (_, named) = broker.rest(Method::GET, &format!("{tools}?name={name}"), None).await;
        assert_eq!(named["tools"], json!([]), "what is switched off is not there");
        let (_, called) = broker.rest(Method::POST, &tools, Some(json!({"name": name}))).await;
        assert!(called["error"]["message"].as_str().is_some_and(|why| why.contains("Unknown tool")), "{called}");
    }
    broker.stop().await;
}

#[tokio::test]
async fn a_tool_that_failed_has_an_exit_code_of_its_own_and_every_call_is_recorded() {
    let (broker, home) = broker().await;
    let failed = home.run(&["tool", "call", "fail"]).await;
    assert_eq!(failed.code(), 6, "{} {}", failed.out(), failed.err());
    assert!(!failed.out().is_empty());
    let missing = home.run(&["tool", "call", "nothing-like-it"]).await;
    assert_eq!(missing.code(), 1);
    assert!(missing.err().contains("`mcp-broker tool ls` lists"), "{}", missing.err());
    // The broker's own tools are called too, on the operator's word.
    home.run(&["tool", "call", "mcp-add", "name=second"]).await.ok();
    let several = home.run(&["tool", "call", "echo", "text=x"]).await;
    assert!(several.err().contains("name one of fixture__echo, second__echo"), "{}", several.err());
    let records = home.run(&["audit", "--session", "mine", "--format", "json"]).await.ok();
    let records: Vec<Value> = serde_json::from_str(&records).unwrap();
    let of = |name: &str| records.iter().find(|record| record["name"] == name).unwrap();
    assert_eq!((of("fail")["status"].as_str(), of("fail")["principal"].as_str()), (Some("error"), Some("local")));
    assert_eq!(of("mcp-add")["principal"], "local");
    broker.terminate().await;
}

#[tokio::test]
async fn the_only_session_is_meant_and_among_several_one_has_to_be_named() {
    let home = Home::with(&FixtureCatalog::new().server("fixture", &[], &[]));
    let broker = home.serve().await;
    let none = home.run(&["tool", "ls"]).await;
    assert!(none.err().contains("`mcp-broker session new --server NAME` makes one"), "{}", none.err());
    for name in ["one", "two"] {
        home.run(&["session", "new", "--name", name, "--server", "fixture"]).await.ok();
    }
    let several = home.run(&["tool", "ls"]).await;
    assert_eq!(several.code(), 1);
    assert!(several.err().contains("--session") && several.err().contains("one") && several.err().contains("two"));
    assert!(home.run(&["tool", "ls", "--session", "two"]).await.ok().contains("fixture__echo"));
    let unknown = home.run(&["tool", "ls", "--session", "three"]).await;
    assert!(unknown.err().contains("there is no session `three`"), "{}", unknown.err());

    let status: Value = serde_json::from_str(&home.run(&["status", "--format", "json"]).await.ok()).unwrap();
    assert_eq!((status["sessions"].as_u64(), status["servers"].as_array().map(Vec::len)), (Some(2), Some(2)));
    let table = home.run(&["status", "--session", "one"]).await.ok();
    assert_eq!(table.lines().filter(|line| line.starts_with("fixture")).count(), 1, "{table}");
    assert!(table.contains("ready"), "{table}");
    broker.terminate().await;
    let status: Value = serde_json::from_str(&home.run(&["status", "--format", "json"]).await.ok()).unwrap();
    assert_eq!(status["running"], json!(false));
}

#[tokio::test]
async fn what_servers_write_is_followed_as_they_write_it() {
    let (broker, home) = broker().await;
    let mut command = home.command(&["logs", "fixture", "--follow", "--session", "mine"]);
    let mut following = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines();
    let first = lines.next_line().await.unwrap().unwrap();
    assert!(first.ends_with("fixture: [start]"), "{first}");
    home.run(&["tool", "call", "stderr_flood", "bytes=30"]).await.ok();
    let written = lines.next_line().await.unwrap().unwrap();
    assert!(written.contains(" fixture: "), "{written}");
    // Its end is told too, and what it wrote can still be read.
    home.run(&["tool", "call", "crash"]).await;
    let mut ended = String::new();
    while !ended.contains("[exit") {
        ended = lines.next_line().await.unwrap().expect("the end of the server is told");
    }
    let kept = home.run(&["logs", "--format", "jsonl"]).await.ok();
    let texts: Vec<Value> = kept.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(texts.iter().any(|line| line["text"].is_string() && line["server"] == "fixture"), "{kept}");
    assert_eq!(home.run(&["logs", "second"]).await.ok(), "");
    following.kill().await.unwrap();
    broker.terminate().await;
    let nothing = home.run(&["logs", "--follow"]).await;
    assert_eq!(nothing.code(), 1);
    assert!(nothing.err().contains("no broker is running"), "{}", nothing.err());
}

#[tokio::test]
async fn shells_complete_and_manual_pages_name_every_command() {
    let home = Home::with(&FixtureCatalog::new());
    for shell in ["bash", "zsh", "fish"] {
        let script = home.run(&["completions", shell]).await.ok();
        assert!(script.contains("connect"), "{shell}");
        // fish is not told what an argument can be.
        assert!(script.contains("claude-code") || shell == "fish", "{shell}");
    }
    let folder = home.path().join("man");
    home.run(&["man", folder.to_str().unwrap()]).await.ok();
    let page = std::fs::read_to_string(folder.join("mcp-broker-tool-call.1")).unwrap();
    assert!(page.contains("Exits with 6"), "{page}");
    assert!(folder.join("mcp-broker.1").exists() && !folder.join("mcp-broker-js-worker.1").exists());
}
