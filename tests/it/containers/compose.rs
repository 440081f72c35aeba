//! The two Compose files everybody begins with, with the images they name, and what a file may ask of a container.

use std::process::Stdio;

use rmcp::model::ClientCapabilities;
use serde_json::{Value, json};

use super::{
    IMAGE,
    engine::{docker, engine, left},
};
use crate::support::{Era, FixtureCatalog, TestClient, broker::eventually, client::text_of, process::Home};

const TIME: &str = "services:\n  time:\n    image: mcp/time\n";
const FS: &str = "  fs:\n    image: mcp/filesystem\n    command:\n      - /rootfs\n    volumes:\n      - .:/rootfs\n";

/// A folder that somebody works in.
fn work(home: &Home, file: &str) -> std::path::PathBuf {
    let folder = home.path().join("work");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("gordon-mcp.yml"), file).unwrap();
    folder
}

async fn client(home: &Home, folder: &std::path::Path, more: &[&str]) -> (TestClient, tokio::process::Child) {
    let mut child = home
        .command(&[&["stdio"][..], more].concat())
        .current_dir(folder)
        .env("OUTSIDE_TOKEN", "hunter2-from-outside")
        .env("OUTSIDE_ERA", "legacy")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let streams = (child.stdout.take().unwrap(), child.stdin.take().unwrap());
    let client = TestClient::over_streams(streams, Era::Legacy, ClientCapabilities::default()).await.unwrap();
    (client, child)
}

#[tokio::test]
async fn time_and_the_files_of_the_folder_are_there_once_they_are_agreed_to() {
    let Some(_engine) = engine().await else { return };
    docker(&["tag", "mcp-broker-test/time:1", "mcp/time"]);
    docker(&["tag", "mcp-broker-test/filesystem:1", "mcp/filesystem"]);
    let home = Home::with(&FixtureCatalog::new());
    let folder = work(&home, &format!("{TIME}{FS}"));
    std::fs::write(folder.join("notes.txt"), "what is written here").unwrap();
    let (stranger, mut process) = client(&home, &folder, &[]).await;
    assert_eq!(stranger.server_tools().await, Vec::<String>::new());
    stranger.close().await;
    process.wait().await.unwrap();
    assert!(left().is_empty(), "nobody has agreed: {:?}", left());

    home.run(&["compose", "trust", folder.join("gordon-mcp.yml").to_str().unwrap()]).await.ok();
    let (agent, mut process) = client(&home, &folder, &[]).await;
    eventually("both are listed", async || {
        let tools = agent.server_tools().await;
        ["time__convert_time", "fs__read_text_file"].iter().all(|tool| tools.contains(&(*tool).to_owned()))
    })
    .await;
    let hour = json!({"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"});
    assert!(text_of(&agent.ok("time__convert_time", hour).await).contains("21:00"));
    let read = agent.ok("fs__read_text_file", json!({"path": "/rootfs/notes.txt"})).await;
    assert!(text_of(&read).contains("what is written here"));
    agent.ok("fs__write_file", json!({"path": "/rootfs/new.txt", "content": "and here"})).await;
    assert_eq!(std::fs::read_to_string(folder.join("new.txt")).unwrap(), "and here");

    // The broker's own tools come and go; what the person agreed to stays.
    home.run(&["feature", "disable", "dynamic-tools"]).await.ok();
    agent.wait_for("it is told", |told| told.tools_changed > 0).await;
    eventually("the broker's own tools are gone", async || {
        !agent.tool_names().await.iter().any(|name| name.starts_with("mcp-"))
    })
    .await;
    assert!(agent.call("fs__read_text_file", json!({"path": "/rootfs/new.txt"})).await.is_ok());
    home.run(&["feature", "enable", "dynamic-tools"]).await.ok();
    eventually("they are back", async || agent.tool_names().await.contains(&"mcp-add".to_owned())).await;
    agent.close().await;
    process.wait().await.unwrap();
    eventually("nothing is left", async || left().is_empty()).await;
    docker(&["rmi", "mcp/time", "mcp/filesystem"]);
}

#[tokio::test]
async fn a_service_that_is_gone_from_the_file_is_stopped() {
    let Some(_engine) = engine().await else { return };
    let home = Home::with(&FixtureCatalog::new());
    let service = |name: &str| format!("  {name}:\n    image: {IMAGE}\n    command: [--era, \"${{OUTSIDE_ERA}}\"]\n");
    let folder = work(&home, &format!("services:\n{}{}", service("stays"), service("goes")));
    let named = ["--session", "mine", "--compose", "gordon-mcp.yml"];
    let (agent, mut process) = client(&home, &folder, &named).await;
    let running = |name: &str| docker(&["ps", "--quiet", "--filter", &format!("label=mcp-broker.server={name}")]);
    eventually("both run", async || !running("stays").is_empty() && !running("goes").is_empty()).await;
    let inspected: Value = serde_json::from_str(&docker(&["inspect", &running("stays")])).unwrap();
    assert_eq!(inspected[0]["Config"]["Cmd"], json!(["--era", "legacy"]), "a word is filled in");
    assert!(!inspected[0]["Config"]["Env"].to_string().contains("OUTSIDE"), "nor more of what is outside");
    let before = running("stays");
    work(&home, &format!("services:\n{}", service("stays")));
    let (other, mut second) = client(&home, &folder, &named).await;
    eventually("it is stopped", async || running("goes").is_empty()).await;
    assert_eq!(running("stays"), before, "what is the same goes on");
    for client in [other, agent] {
        client.close().await;
    }
    second.wait().await.unwrap();
    process.wait().await.unwrap();
    home.run(&["session", "end", "mine"]).await.ok();
    eventually("nothing is left", async || left().is_empty()).await;
}

#[tokio::test]
async fn a_container_is_as_the_file_says() {
    let Some(_engine) = engine().await else { return };
    let home = Home::with(&FixtureCatalog::new());
    let file = format!(
        "services:\n  box:\n    image: {IMAGE}\n    entrypoint: [/fixture-server]\n    command: stdio\n    \
         environment:\n      PLAIN: as it is {{{{x}}}} $$HOME\n      TOKEN: ${{OUTSIDE_TOKEN}}\n    env_file: more.env\n    \
         volumes: [\"./data:/data:ro\", \"notes:/notes\"]\n    user: \"1000:1000\"\n    working_dir: /data\n    \
         mem_limit: 256m\n    cpus: 0.5\n    network_mode: none\nvolumes: {{notes: {{}}}}\n"
    );
    let folder = work(&home, &file);
    std::fs::create_dir_all(folder.join("data")).unwrap();
    std::fs::write(folder.join("more.env"), "MORE='of the file'\n").unwrap();
    let (agent, mut process) = client(&home, &folder, &["--compose", "gordon-mcp.yml"]).await;
    let seen =
        agent.ok("mcp-exec", json!({"name": "box__env", "arguments": {"names": ["PLAIN", "TOKEN", "MORE"]}})).await;
    let seen = text_of(&seen);
    for expected in ["as it is {{x}} $HOME", "hunter2-from-outside", "of the file"] {
        assert!(seen.contains(expected), "{seen}");
    }
    let id = docker(&["ps", "--quiet", "--filter", "label=mcp-broker.server=box"]);
    let inspected: Value = serde_json::from_str(&docker(&["inspect", &id])).unwrap();
    let (config, host) = (&inspected[0]["Config"], &inspected[0]["HostConfig"]);
    assert_eq!((&config["Entrypoint"], &config["Cmd"]), (&json!(["/fixture-server"]), &json!(["stdio"])));
    assert_eq!((&config["User"], &config["WorkingDir"]), (&json!("1000:1000"), &json!("/data")));
    assert_eq!((&host["Memory"], &host["NanoCpus"]), (&json!(256 << 20), &json!(500_000_000)));
    assert_eq!((&host["NetworkMode"], &host["CapDrop"]), (&json!("none"), &json!(["ALL"])));
    let mounts = inspected[0]["Mounts"].as_array().unwrap();
    let of = |target: &str| mounts.iter().find(|mount| mount["Destination"] == target).unwrap();
    let source = folder.join("data").canonicalize().unwrap().display().to_string();
    assert_eq!((&of("/data")["Source"], &of("/data")["RW"]), (&json!(source), &json!(false)));
    assert_eq!((&of("/notes")["Type"], &of("/notes")["RW"]), (&json!("volume"), &json!(true)));
    let log = home.run(&["audit", "--limit", "1000", "--format", "jsonl"]).await.ok();
    assert!(!log.contains("hunter2"), "{log}");

    // A folder that leads elsewhere since is not mounted.
    agent.ok("mcp-remove", json!({"name": "box"})).await;
    std::fs::rename(folder.join("data"), folder.join("other")).unwrap();
    std::os::unix::fs::symlink(folder.join("other"), folder.join("data")).unwrap();
    let moved = agent.call("mcp-add", json!({"name": "box"})).await;
    let moved = if moved.is_ok() {
        // It was known what it offers, so that the call finds out.
        agent.exec(None, "box__pid", json!({})).await.to_string()
    } else {
        moved.to_string()
    };
    assert!(moved.contains("leads to another place"), "{moved}");
    agent.close().await;
    process.wait().await.unwrap();
    eventually("nothing is left", async || left().is_empty()).await;
}
