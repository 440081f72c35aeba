//! The reference servers, from npm and PyPI, installed and run by the broker. One story, so that each is installed once.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Era, FixtureCatalog, TestBroker, TestClient, broker::eventually, client::text_of};

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
    if ["filesystem__", "memory__", "time__"].iter().all(|server| on.iter().any(|tool| tool.starts_with(server))) {
        let note = work.join("note.txt").display().to_string();
        let script = format!(
            "const [note, found, hour] = await Promise.all([
                 filesystem.read_text_file({{path: {note:?}}}),
                 memory.search_nodes({{query: 'sour'}}),
                 time.convert_time({{source_timezone: 'UTC', time: '12:00', target_timezone: 'Asia/Tokyo'}}),
             ]);
             return [note.content ?? note, found.entities[0].name, JSON.stringify(hour).includes('21:00')];"
        );
        let servers = ["filesystem", "memory", "time"];
        let ran = client.ok("code-mode", json!({"servers": servers, "name": "all", "script": script})).await;
        assert_eq!(ran.structured_content.unwrap()["result"], json!(["two lemons", "lemon", true]));
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
