//! The reference servers, from npm and PyPI, installed and run by the broker. One story, so that each is installed once.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::support::{
    Era, FixtureCatalog, TestBroker, TestClient,
    broker::eventually,
    client::{all_capabilities, text_of},
    process::program,
};

fn has(program: &str, argument: &str) -> bool {
    let has = Command::new(program).arg(argument).output().is_ok_and(|output| output.status.success());
    if !has {
        eprintln!("SKIPPED in part: there is no {program}");
    }
    has
}

async fn called(client: &TestClient, tool: &str, arguments: Value) -> String {
    text_of(&client.ok(tool, arguments).await)
}

#[tokio::test]
async fn the_reference_servers_are_added_used_and_dropped_in_one_session() {
    let broker = TestBroker::with(FixtureCatalog::new()).start().await;
    let client = broker.connect(Era::Legacy).await;
    let folder = tempfile::tempdir().unwrap();
    let work = folder.path().join("work");
    std::fs::create_dir(&work).unwrap();
    let add = async |name: &str, config: Value| {
        client.ok("mcp-add", json!({"name": name, "config": config})).await;
    };

    if has("npm", "--version") {
        add("filesystem", json!({"paths": [work.display().to_string()]})).await;
        let note = work.join("note.txt").display().to_string();
        called(&client, "filesystem__write_file", json!({"path": note, "content": "two lemons"})).await;
        assert_eq!(std::fs::read_to_string(&note).unwrap(), "two lemons");
        let refused = client.call("filesystem__read_text_file", json!({"path": "/etc/passwd"})).await;
        assert!(!refused.is_ok() && refused.to_string().contains("denied"), "{refused}");

        add("memory", json!({})).await;
        let entity = json!({"name": "lemon", "entityType": "fruit", "observations": ["sour"]});
        called(&client, "memory__create_entities", json!({"entities": [entity]})).await;
        assert!(called(&client, "memory__search_nodes", json!({"query": "sour"})).await.contains("lemon"));

        add("sequentialthinking", json!({})).await;
        add("everything", json!({})).await;
        assert!(called(&client, "everything__echo", json!({"message": "hello"})).await.contains("hello"));
        let prompts = client.peer().list_all_prompts().await.unwrap();
        assert!(prompts.iter().any(|prompt| prompt.name.starts_with("everything__")), "{prompts:?}");
    }
    if has("python3", "--version") {
        add("time", json!({"timezone": "Europe/Berlin"})).await;
        let hour = json!({"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"});
        assert!(called(&client, "time__convert_time", hour).await.contains("21:00"));

        let repository = work.display().to_string();
        let made = Command::new("git").args(["init", "--quiet", &repository]).status().unwrap();
        assert!(made.success());
        add("git", json!({"paths": [repository]})).await;
        std::fs::write(work.join("new.txt"), "new").unwrap();
        assert!(called(&client, "git__git_status", json!({"repo_path": repository})).await.contains("new.txt"));

        add("fetch", json!({})).await;
        let nowhere = client.call("fetch__fetch", json!({"url": "http://127.0.0.1:9/"})).await;
        assert!(!nowhere.is_ok(), "{nowhere}");

        add("SQLite", json!({})).await;
        called(&client, "SQLite__create_table", json!({"query": "CREATE TABLE fruit (name TEXT)"})).await;
        called(&client, "SQLite__write_query", json!({"query": "INSERT INTO fruit VALUES ('lemon')"})).await;
        let read = json!({"query": "SELECT name FROM fruit"});
        assert!(called(&client, "SQLite__read_query", read).await.contains("lemon"));
    }

    let on = client.server_tools().await;
    if COMBINED.iter().all(|server| on.iter().any(|tool| tool.starts_with(&format!("{server}__")))) {
        combine(&broker, &work).await;
    }

    let listed = client.ok("mcp-list", json!({})).await.structured_content.unwrap();
    for server in listed["servers"].as_array().unwrap() {
        assert_eq!(server["state"], "ready", "{server}");
        client.ok("mcp-remove", json!({"name": server["name"]})).await;
    }
    eventually("no tool of a server is left", async || {
        client.server_tools().await.iter().all(|name| !name.contains("__"))
    })
    .await;
    broker.stop().await;
}

/// Servers that one script uses together.
const COMBINED: [&str; 3] = ["filesystem", "memory", "time"];

/// One script combines servers, whatever its client speaks, and over what.
async fn combine(broker: &TestBroker, work: &Path) {
    for era in [Era::Legacy, Era::Modern] {
        combined(&broker.connect(era).await, work, &format!("{era:?} over HTTP")).await;
        let mut process = tokio::process::Command::new(program())
            .arg("stdio")
            .env("MCP_BROKER_DATA_DIR", broker.folder())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let streams = (process.stdout.take().unwrap(), process.stdin.take().unwrap());
        let client = TestClient::over_streams(streams, era, all_capabilities()).await.unwrap();
        combined(&client, work, &format!("{era:?} over stdio")).await;
        client.close().await;
        process.wait().await.unwrap();
    }
}

async fn combined(client: &TestClient, work: &Path, how: &str) {
    let mut session = Value::Null;
    for (server, config) in COMBINED.into_iter().zip([
        json!({"paths": [work.display().to_string()]}),
        json!({}),
        json!({"timezone": "Europe/Berlin"}),
    ]) {
        let mut arguments = json!({"name": server, "config": config});
        if !session.is_null() {
            arguments["session"] = session.clone();
        }
        let added = client.ok("mcp-add", arguments).await.structured_content.unwrap();
        if let Some(handle) = added.get("session") {
            session = handle.clone();
        }
    }
    let note = work.join(format!("{}.txt", how.replace(' ', "-"))).display().to_string();
    let script = format!(
        "type Entity = {{name: string, entityType: string, observations: string[]}};
         const lemon: Entity = {{name: 'lemon', entityType: 'fruit', observations: ['sour']}};
         await memory.create_entities({{entities: [lemon]}});
         const [found, hour] = await Promise.all([
             memory.search_nodes({{query: 'sour'}}),
             time.convert_time({{source_timezone: 'UTC', time: '12:00', target_timezone: 'Asia/Tokyo'}}),
         ]);
         const text = found.entities[0].name + ' at ' + JSON.stringify(hour).match(/21:00/)[0];
         await filesystem.write_file({{path: {note:?}, content: text}});
         const read = await filesystem.read_text_file({{path: {note:?}}});
         return read.content ?? read;"
    );
    let mut arguments = json!({"servers": COMBINED, "name": "all", "script": script});
    if !session.is_null() {
        arguments["session"] = session;
    }
    let ran = client.ok("code-mode", arguments).await.structured_content.unwrap();
    assert_eq!(ran["result"], "lemon at 21:00", "{how}: {ran}");
    assert_eq!(std::fs::read_to_string(&note).unwrap(), "lemon at 21:00", "{how}");
}
