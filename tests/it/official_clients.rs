//! The official SDKs' clients and the Inspector, over HTTP and stdio, in every era they speak.
//!
//! `tests/clients/walk.mjs` says what each does: it looks, finds, adds a server, waits to be told of its tools, calls one,
//! calls it by name through `mcp-exec`, and removes the server.

use std::{path::PathBuf, process::Output};

use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::{
    BrokerProcess, FixtureCatalog,
    process::{Home, program},
};

/// An official client and the era it is to speak.
#[derive(Clone, Copy)]
struct Walk {
    name: &'static str,
    program: &'static str,
    script: &'static str,
    era: &'static str,
    /// What it says it has agreed on.
    revision: &'static str,
}

const WALKS: [Walk; 6] = [
    Walk { name: "TypeScript v1", program: "node24", script: "walk-ts-v1.mjs", era: "legacy", revision: "2025-11-25" },
    Walk { name: "TypeScript v2", program: "node24", script: "walk-ts-v2.mjs", era: "legacy", revision: "2025-11-25" },
    Walk { name: "TypeScript v2", program: "node24", script: "walk-ts-v2.mjs", era: "modern", revision: "2026-07-28" },
    Walk {
        name: "Python v1",
        program: "python-v1/bin/python",
        script: "walk.py",
        era: "legacy",
        revision: "2025-11-25",
    },
    Walk {
        name: "Python v2",
        program: "python-v2/bin/python",
        script: "walk.py",
        era: "legacy",
        revision: "2025-11-25",
    },
    Walk {
        name: "Python v2",
        program: "python-v2/bin/python",
        script: "walk.py",
        era: "modern",
        revision: "2026-07-28",
    },
];

const MANAGEMENT: [&str; 7] =
    ["code-mode", "mcp-add", "mcp-config-set", "mcp-exec", "mcp-find", "mcp-list", "mcp-remove"];

/// Where `make clients` has put the official clients. Without them these stories cannot be told, and say so.
fn clients() -> Option<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/clients");
    if folder.join("node24").exists() && folder.join("walk.mjs").exists() {
        return Some(folder);
    }
    eprintln!("SKIPPED: the official clients are not installed; `make clients` does that");
    None
}

impl Walk {
    async fn go(&self, target: &Value) -> Value {
        let clients = clients().expect("they are installed");
        let script = match self.script.strip_suffix(".py") {
            Some(_) => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(self.script),
            None => clients.join(self.script),
        };
        let arguments = [target.to_string(), "fixture".into(), "echo".into(), json!({"text": "hello"}).to_string()];
        let output = Command::new(clients.join(self.program))
            .arg(script)
            .args(arguments)
            .env("ERA", self.era)
            .kill_on_drop(true)
            .output()
            .await
            .expect("the client runs");
        let Output { status, stdout, stderr } = output;
        let (out, err) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        assert!(status.success(), "{} ({}): {err}", self.name, self.era);
        serde_json::from_str(out.trim()).unwrap_or_else(|error| panic!("{}: {error}: {out}", self.name))
    }

    /// Goes, and checks what it saw where its list of tools changes with its servers.
    async fn goes_well(&self, target: &Value) {
        let saw = self.go(target).await;
        let who = format!("{} ({}) saw {saw}", self.name, self.era);
        if saw["revision"] != "legacy" {
            assert_eq!(saw["revision"], self.revision, "{who}");
        }
        assert_eq!(saw["before"], json!(MANAGEMENT), "{who}");
        assert_eq!(saw["found"][0], "fixture", "{who}");
        assert_eq!(saw["handle"], false, "{who}");
        assert!(saw["added"].to_string().contains("\"fixture__echo\""), "{who}");
        assert!(saw["called"].as_str().unwrap().contains("hello"), "{who}");
        assert!(saw["executed"].as_str().unwrap().contains("hello"), "{who}");
        assert_eq!(saw["after"], json!(MANAGEMENT), "{who}");
    }
}

fn home() -> Home {
    Home::with(&FixtureCatalog::new().server("fixture", &[], &[]))
}

async fn new_session(broker: &BrokerProcess) -> Value {
    let request = reqwest::Client::new().post(format!("http://{}/v1/sessions", broker.address()));
    let made: Value =
        request.bearer_auth(broker.home.token()).json(&json!({})).send().await.unwrap().json().await.unwrap();
    json!({"url": made["mcp_url"], "token": made["mcp_token"]})
}

#[tokio::test]
async fn every_official_client_walks_through_a_session_of_its_own_url() {
    if clients().is_none() {
        return;
    }
    let broker = home().serve().await;
    for walk in WALKS {
        walk.goes_well(&new_session(&broker).await).await;
    }
    let home = broker.home.clone();
    assert_eq!(broker.terminate().await, 0);
    assert!(!home.has_processes());
}

#[tokio::test]
async fn every_official_client_walks_on_the_shared_endpoint() {
    if clients().is_none() {
        return;
    }
    let broker = home().serve().await;
    let target = json!({"url": broker.url, "token": broker.home.token()});
    for walk in WALKS {
        if walk.era == "legacy" {
            walk.goes_well(&target).await;
            continue;
        }
        let saw = walk.go(&target).await;
        let who = format!("{} saw {saw}", walk.name);
        assert_eq!((&saw["before"], &saw["after"]), (&json!(MANAGEMENT), &json!(MANAGEMENT)), "{who}");
        assert_eq!(saw["handle"], true, "{who}");
        assert!(saw["executed"].as_str().unwrap().contains("hello"), "{who}");
    }
    assert_eq!(broker.terminate().await, 0);
}

#[tokio::test]
async fn every_official_client_walks_over_standard_streams() {
    if clients().is_none() {
        return;
    }
    let home = home();
    let (data, catalog) = (home.data(), home.path().join("fixtures.yaml"));
    let command = json!({"command": [program(), "stdio", "--data-dir", data, "--catalog", catalog]});
    for walk in WALKS {
        walk.goes_well(&command).await;
    }
    assert!(!home.has_processes());
}

async fn inspect(arguments: &[&str]) -> Value {
    let clients = clients().expect("they are installed");
    let launcher = "node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js";
    let output = Command::new(clients.join("node24"))
        .arg(clients.join(launcher))
        .arg("--cli")
        .args(arguments)
        .args(["--format", "json"])
        .kill_on_drop(true)
        .output()
        .await
        .expect("the Inspector runs");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{err}{out}");
    serde_json::from_str(out.trim()).unwrap_or_else(|error| panic!("{error}: {out}"))
}

#[tokio::test]
async fn the_inspector_lists_and_calls_and_finds_schemas_portable() {
    if clients().is_none() {
        return;
    }
    let broker = home().serve().await;
    let header = format!("Authorization: Bearer {}", broker.home.token());
    let base = [broker.url.as_str(), "--transport", "http", "--header", header.as_str()];
    let listed = &inspect(&[&base[..], &["--method", "tools/list", "--strict"]].concat()).await["result"];
    let names: Vec<&str> =
        listed["tools"].as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["mcp-find", "mcp-add", "mcp-config-set", "mcp-remove", "mcp-exec", "mcp-list", "code-mode"]);
    let call =
        ["--method", "tools/call", "--tool-name", "mcp-find", "--tool-args-json", r#"{"query": "what time is it"}"#];
    let found = &inspect(&[&base[..], &call[..]].concat()).await["result"];
    assert_eq!(found["structuredContent"]["servers"][0]["name"], "time");
    assert_eq!(broker.terminate().await, 0);
}
