//! Entries of type `poci`: a container for each call.

use http::Method;
use serde_json::{Value, json};

use super::engine::{all_is_gone, docker, engine};
use crate::support::{Era, FixtureCatalog, TestBroker, broker::eventually, client::text_of};

/// In the form of the Docker catalog's `curl`, `ffmpeg` and `docker`.
fn catalog() -> FixtureCatalog {
    let entry = "
    title: Tools
    type: poci
    tools:
      - name: run
        description: Runs a program.
        parameters: {type: object, properties: {args: {type: array, items: {type: string}}}, required: [args]}
        container: {image: \"mcp-broker-test/debian:1\", command: [\"{{args|into}}\"], disableNetwork: true}
      - name: file-exists
        parameters: {type: object, properties: {path: {type: string}}, required: [path]}
        container:
          image: \"mcp-broker-test/debian:1\"
          command: [test, -f, \"{{path}}\"]
          volumes: [\"{{path}}:{{path}}\"]
      - name: docker
        container: {image: \"mcp-broker-test/debian:1\", volumes: [\"/var/run/docker.sock:/var/run/docker.sock\"]}
    secrets: [{name: tools.key, env: KEY}]";
    FixtureCatalog::new().raw("tools", entry)
}

fn containers() -> usize {
    docker(&["ps", "--all", "--quiet", "--filter", "label=mcp-broker.folder"]).lines().count()
}

#[tokio::test]
async fn each_call_is_a_container_that_is_gone_when_it_answers() {
    let Some(_engine) = engine().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let allowed = folder.path().canonicalize().unwrap();
    let broker =
        TestBroker::with(catalog()).containers(|settings| settings.allowed_paths = vec![allowed.clone()]).start().await;
    let client = broker.connect(Era::Legacy).await;
    client.ok("mcp-add", json!({"name": "tools", "config": {"tools.key": "hunter2-hunter2"}})).await;
    let tools = client.tools().await;
    let run = tools.iter().find(|tool| tool.name == "tools__run").unwrap();
    assert_eq!(run.input_schema["required"], json!(["args"]));
    assert_eq!(containers(), 0, "nothing runs until something is called");

    let run = async |args: Value| client.call("tools__run", json!({"args": args})).await;
    let said = run(json!(["printf", "%s|", "a b", "$HOME;{{args}}", "*"])).await.to_string();
    assert_eq!(said, "ok: a b|$HOME;{{args}}|*|");
    assert_eq!(run(json!(["sh", "-c", "echo ${#KEY}; cat"])).await.to_string(), "ok: 15\n");
    let failed = run(json!(["sh", "-c", "echo out; echo why >&2; exit 3"])).await.to_string();
    assert_eq!(failed, "error: it exited with code 3\nout\n\nwhy");
    let unknown = run(json!(["no-such-program"])).await.to_string();
    assert!(unknown.starts_with("error: ") && unknown.contains("no-such-program"), "{unknown}");
    let long = text_of(&client.ok("tools__run", json!({"args": ["sh", "-c", "yes | head -c 3000000"]})).await);
    assert!(long.ends_with("[the first 1048576 of 3000000 bytes that it wrote]"), "{}", long.len());
    let missing = client.call("tools__run", json!({})).await.to_string();
    assert!(missing.contains("needs the argument `args`"), "{missing}");

    let file = allowed.join("note");
    std::fs::write(&file, "here").unwrap();
    client.ok("tools__file-exists", json!({"path": file})).await;
    let outside = client.call("tools__file-exists", json!({"path": "/usr/bin/env"})).await.to_string();
    assert!(outside.contains("is not to see /usr/bin/env"), "{outside}");
    let socket = client.call("tools__docker", json!({})).await.to_string();
    assert!(socket.contains("a container never sees"), "{socket}");

    let several = ["one", "two", "three"].map(|word| run(json!(["echo", word])));
    let said = futures_util::future::join_all(several).await;
    assert_eq!(said.iter().map(ToString::to_string).collect::<String>(), "ok: one\nok: two\nok: three\n");

    eventually("no container is left", async || containers() == 0).await;
    let records = broker.audit().await;
    assert_eq!(records.iter().filter(|record| *record == "run success").count(), 6, "{records:?}");
    assert_eq!(records.iter().filter(|record| *record == "run error").count(), 3, "{records:?}");
    let (_, log) = broker.rest(Method::GET, "/v1/audit?limit=1000", None).await;
    assert!(!log.to_string().contains("hunter2"));
    broker.stop().await;
    all_is_gone();
}

#[tokio::test]
async fn a_call_that_is_taken_back_or_too_long_ends_its_container() {
    let Some(_engine) = engine().await else { return };
    let broker = TestBroker::with(catalog()).containers(|_| ()).limits(|limits| limits.call_seconds = 3).start().await;
    let client = broker.connect(Era::Legacy).await;
    client.ok("mcp-add", json!({"name": "tools", "config": {"tools.key": "hunter2-hunter2"}})).await;

    // What writes is alive.
    let writes = json!({"args": ["sh", "-c", "for i in 1 2 3 4 5; do echo $i >&2; sleep 1; done; echo done"]});
    assert!(text_of(&client.ok("tools__run", writes).await).contains("done"));
    let silent = client.call("tools__run", json!({"args": ["sleep", "60"]})).await.to_string();
    assert!(silent.contains("neither answered nor reported progress for 3 s"), "{silent}");
    eventually("its container is gone", async || containers() == 0).await;

    let called = client.call("tools__run", json!({"args": ["sh", "-c", "trap '' TERM; sleep 60 & wait; wait"]}));
    let removed = async {
        eventually("it runs", async || containers() == 1).await;
        client.ok("mcp-remove", json!({"name": "tools"})).await;
        eventually("its container is gone", async || containers() == 0).await;
    };
    let (outcome, ()) = tokio::join!(called, removed);
    assert!(!outcome.is_ok(), "{outcome}");
    broker.stop().await;
    all_is_gone();
}
