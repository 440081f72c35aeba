//! The programs in `examples/`, run as their readers would run them, and the description of the interface they use.

use std::{path::PathBuf, process::Output};

use axum::{Json, Router, routing::post};
use serde_json::{Value, json};
use tokio::{net::TcpListener, process::Command};

use crate::support::{BrokerProcess, FixtureCatalog, process::Home};

/// Where `make clients` has put the official clients. Without them these stories cannot be told, and say so.
fn clients(needed: &str) -> Option<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/clients");
    if folder.join(needed).exists() {
        return Some(folder);
    }
    eprintln!("SKIPPED: {needed} is not installed; `make clients` does that");
    None
}

fn example(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples").join(path)
}

async fn serve() -> BrokerProcess {
    Home::with(&FixtureCatalog::new().server("fixture", &[], &[])).serve().await
}

/// Runs an example to its end. Gives back what it printed.
async fn run(broker: &BrokerProcess, command: &mut Command) -> String {
    let ran = command
        .env("MCP_BROKER_URL", format!("http://{}", broker.address()))
        .env("MCP_BROKER_TOKEN", broker.home.token())
        .kill_on_drop(true)
        .output();
    let Output { status, stdout, stderr } = ran.await.expect("the example runs");
    let (out, err) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{err}{out}");
    out.into_owned()
}

async fn rest(broker: &BrokerProcess, path: &str) -> Value {
    let request = reqwest::Client::new().get(format!("http://{}{path}", broker.address()));
    request.bearer_auth(broker.home.token()).send().await.unwrap().json().await.unwrap()
}

/// The example ended its session, and its call is in the log.
async fn is_over(broker: BrokerProcess) {
    assert_eq!(rest(&broker, "/v1/sessions").await["sessions"], json!([]));
    let called = rest(&broker, "/v1/audit?kind=tool&tool=echo&status=success").await;
    assert_eq!(called["records"].as_array().unwrap().len(), 1, "{called}");
    assert_eq!(broker.terminate().await, 0);
}

const ECHO: [&str; 3] = ["fixture", "echo", r#"{"text": "hello from an example"}"#];

#[tokio::test]
async fn the_example_in_python_runs() {
    let Some(clients) = clients("python-v2/bin/python") else { return };
    let broker = serve().await;
    let said =
        run(&broker, Command::new(clients.join("python-v2/bin/python")).arg(example("python/session.py")).args(ECHO))
            .await;
    assert!(said.contains("fixture__echo\n") && said.contains("hello from an example"), "{said}");
    is_over(broker).await;
}

#[tokio::test]
async fn the_example_in_typescript_runs() {
    let Some(clients) = clients("node24") else { return };
    let broker = serve().await;
    // Modules are looked for beside the script that asks for them.
    let folder = tempfile::tempdir_in(&clients).unwrap();
    let script = folder.path().join("session.ts");
    std::fs::copy(example("typescript/session.ts"), &script).unwrap();
    let said = run(&broker, Command::new(clients.join("node24")).arg(&script).args(ECHO)).await;
    assert!(said.contains("fixture__echo\n") && said.contains("hello from an example"), "{said}");
    is_over(broker).await;
}

#[tokio::test]
async fn the_example_with_curl_runs() {
    let has = |program: &str| std::process::Command::new(program).arg("--version").output().is_ok();
    if !has("curl") || !has("python3") {
        eprintln!("SKIPPED: curl and python3 are needed");
        return;
    }
    let broker = serve().await;
    let said = run(&broker, Command::new("sh").arg(example("curl/session.sh")).args(ECHO)).await;
    assert!(said.contains("\"fixture__echo\"") && said.contains("hello from an example"), "{said}");
    is_over(broker).await;
}

/// Plays a model: it asks for the fixture's `echo` once, and then repeats what came of it.
async fn a_model() -> String {
    async fn answer(Json(request): Json<Value>) -> Json<Value> {
        let said = request["messages"].as_array().into_iter().flatten().rfind(|message| message["role"] == "tool");
        let message = match said {
            Some(said) => json!({"role": "assistant", "content": format!("It says: {}", said["content"])}),
            None => {
                let tools = request["tools"].as_array().unwrap();
                let name = tools
                    .iter()
                    .map(|tool| &tool["function"]["name"])
                    .find(|name| name.as_str().unwrap().ends_with("__echo"));
                let function = json!({"name": name.unwrap(), "arguments": ECHO[2]});
                json!({"role": "assistant", "content": null, "tool_calls": [{"id": "1", "type": "function", "function": function}]})
            }
        };
        let reason = if message["content"].is_null() { "tool_calls" } else { "stop" };
        Json(json!({
            "id": "1", "object": "chat.completion", "created": 1, "model": "played",
            "choices": [{"index": 0, "message": message, "finish_reason": reason}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }))
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/v1/chat/completions", post(answer));
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}/v1")
}

#[tokio::test]
async fn the_example_with_the_agents_sdk_runs() {
    let Some(clients) = clients("agents/bin/python") else { return };
    let broker = serve().await;
    let mut command = Command::new(clients.join("agents/bin/python"));
    command.arg(example("python/agent.py")).args(["fixture", "What does it say?"]);
    command.env("OPENAI_BASE_URL", a_model().await).env("OPENAI_API_KEY", "none");
    let said = run(&broker, &mut command).await;
    assert!(said.contains("It says:") && said.contains("hello from an example"), "{said}");
    is_over(broker).await;
}

#[tokio::test]
async fn the_interface_describes_itself_as_openapi_has_it() {
    let broker = serve().await;
    let url = format!("http://{}/v1/openapi.json", broker.address());
    assert_eq!(reqwest::get(&url).await.unwrap().status(), 401);
    let document = rest(&broker, "/v1/openapi.json").await;
    assert_eq!(document["openapi"], "3.1.0");
    // Every operation is there: what is not known to it is asked for in vain.
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            assert!(operation["responses"]["401"].is_object(), "{method} {path}");
            let method: reqwest::Method = method.to_uppercase().parse().unwrap();
            let at = format!("http://{}{}", broker.address(), path.replace(['{', '}'], ""));
            let status = reqwest::Client::new().request(method.clone(), at).send().await.unwrap().status();
            assert_eq!(status, 401, "{method} {path}");
        }
    }
    if let Some(clients) = clients("openapi/bin/python") {
        let file = broker.home.path().join("openapi.json");
        std::fs::write(&file, document.to_string()).unwrap();
        let mut command = Command::new(clients.join("openapi/bin/python"));
        let said = run(&broker, command.args(["-m", "openapi_spec_validator"]).arg(&file)).await;
        assert!(said.contains("OK"), "{said}");
    }
    assert_eq!(broker.terminate().await, 0);
}
