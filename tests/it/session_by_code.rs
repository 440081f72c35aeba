//! What a program does with a sandbox's MCP gateway, from beginning to end, with the broker as its users run it: a session
//! by code, clients from outside, discovery by provider, a custom server from GitHub, and doors that stay shut.

use std::collections::BTreeMap;

use http::Method;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::{
    BrokerProcess, Era, TestClient,
    git::{Repositories, SERVER, possible},
};

async fn rest(broker: &BrokerProcess, token: &str, method: Method, path: &str, body: Value) -> (u16, Value) {
    let url = format!("http://{}{path}", broker.address());
    let response = reqwest::Client::new().request(method, url).bearer_auth(token).json(&body).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap_or_default())
}

/// The status that a session's endpoint answers a first request with.
async fn knock(session: &Value, token: Option<&str>) -> u16 {
    let begin = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "story", "version": "1"}}});
    let request = reqwest::Client::new()
        .post(session["mcp_url"].as_str().unwrap())
        .header("accept", "application/json, text/event-stream")
        .json(&begin);
    let request = match token {
        Some(token) => request.bearer_auth(token),
        None => request,
    };
    request.send().await.unwrap().status().as_u16()
}

/// Lists the tools of a session with an official client, and calls one.
async fn from_outside(session: &Value, tool: &str) -> Option<Vec<String>> {
    let clients = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target/clients");
    if !clients.join("node24").exists() || !clients.join("walk.mjs").exists() {
        eprintln!("SKIPPED: the official clients are not installed; `make clients` does that");
        return None;
    }
    let folder = tempfile::tempdir_in(&clients).unwrap();
    let typescript = folder.path().join("outside.mjs");
    let code = r#"
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
const [url, token, tool] = process.argv.slice(2);
const client = new Client({ name: "outside", version: "1" });
const headers = { authorization: `Bearer ${token}` };
await client.connect(new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers } }));
const result = await client.callTool({ name: tool, arguments: { name: "Ada" } });
console.log(result.content[0].text);
await client.close();
"#;
    std::fs::write(&typescript, code).unwrap();
    let python = r#"
import sys, anyio, httpx2, mcp
from mcp.client.streamable_http import streamable_http_client
async def main():
    url, token, tool = sys.argv[1:4]
    async with httpx2.AsyncClient(headers={"authorization": f"Bearer {token}"}, timeout=60) as http:
        async with mcp.Client(streamable_http_client(url, http_client=http)) as client:
            print((await client.call_tool(tool, {"name": "Ada"})).content[0].text)
anyio.run(main)
"#;
    let arguments = [session["mcp_url"].as_str()?, session["mcp_token"].as_str()?, tool];
    let mut said = Vec::new();
    let mut in_typescript = Command::new(clients.join("node24"));
    in_typescript.arg(&typescript);
    let mut in_python = Command::new(clients.join("python-v2/bin/python"));
    in_python.args(["-c", python]);
    for command in [&mut in_typescript, &mut in_python] {
        let ran = command.args(arguments).kill_on_drop(true).output().await.expect("the client runs");
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        said.push(String::from_utf8_lossy(&ran.stdout).trim().to_owned());
    }
    Some(said)
}

#[tokio::test]
async fn a_program_walks_from_a_session_by_code_to_a_custom_server() {
    if !possible() {
        return;
    }
    let repositories = Repositories::new();
    let commit = repositories.commit("acme/tools", &[("server.mjs", SERVER)]);
    let broker = repositories.home().serve().await;
    let administrator = broker.home.token();

    // A session by code, with a server of the catalog and one from GitHub.
    let wanted = json!({
        "mcp": {
            "Fixture": {},
            "github/acme/tools": {"installCmd": "echo once > installed && true", "runCmd": "node server.mjs 'GitHub'"},
        },
        "ttl": 3600,
        "label": "walk",
    });
    let path = "/v1/sessions?wait=ready";
    let (status, session) = rest(&broker, &administrator, Method::POST, path, wanted).await;
    assert_eq!(status, 201, "{session}");
    assert_eq!(session["ready"], true, "{session}");
    assert!(session["expires_at"].is_string(), "{session}");
    let servers: Vec<(&str, &str)> = session["servers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|server| (server["name"].as_str().unwrap(), server["state"].as_str().unwrap()))
        .collect();
    assert_eq!(servers, [("fixture", "ready"), ("github/acme/tools", "ready")]);
    assert_eq!(session["servers"][1]["commit"], commit.as_str());

    // Discovery: tools by their providers.
    let token = session["mcp_token"].as_str().unwrap();
    let client = TestClient::http(session["mcp_url"].as_str().unwrap(), Some(token), Era::Modern).await;
    let mut providers: BTreeMap<String, usize> = BTreeMap::new();
    for name in client.server_tools().await {
        let (provider, _) = name.split_once("__").expect("a tool has its provider's name");
        *providers.entry(provider.to_owned()).or_default() += 1;
    }
    assert_eq!(providers.keys().collect::<Vec<_>>(), ["fixture", "github-acme-tools"]);
    assert!(providers["fixture"] > 1 && providers["github-acme-tools"] == 1, "{providers:?}");
    client.close().await;

    // The custom server, with the official clients from outside.
    let greeting = "hello Ada from GitHub, installed once, part nothing, key undefined";
    if let Some(said) = from_outside(&session, "github-acme-tools__greet").await {
        assert_eq!(said, [greeting, greeting]);
    }

    // Doors: nobody, a stranger, another session, and the administrator's interface.
    let (_, other) = rest(&broker, &administrator, Method::POST, "/v1/sessions", json!({})).await;
    assert_eq!(knock(&session, None).await, 401);
    assert_eq!(knock(&session, Some("stranger")).await, 401);
    assert_eq!(knock(&session, other["mcp_token"].as_str()).await, 403);
    assert_eq!(knock(&session, Some(token)).await, 200);
    assert_eq!(rest(&broker, token, Method::GET, "/v1/sessions", json!({})).await.0, 403);

    // It ends, and its token with it.
    let path = format!("/v1/sessions/{}", session["id"].as_str().unwrap());
    assert_eq!(rest(&broker, &administrator, Method::DELETE, &path, json!({})).await.0, 204);
    assert_eq!(knock(&session, Some(token)).await, 401);
    let home = broker.home.clone();
    assert_eq!(broker.terminate().await, 0);
    assert!(!home.has_processes());
}
