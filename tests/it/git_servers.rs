//! Servers from Git repositories: cloned, installed once for each commit, and run; and repositories that are no good.
//!
//! The repositories are folders here, which git is told stand for those on the network.

use std::path::{Path, PathBuf};

use http::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use crate::support::{
    BrokerProcess, Era, TestClient,
    git::{Repositories, SERVER, git, possible},
};

const INSTALL: &str = "echo $(cat installed 2>/dev/null) once > installed && git log --oneline | wc -l > depth";

async fn rest(broker: &BrokerProcess, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
    let mut request = reqwest::Client::new()
        .request(method, format!("http://{}{path}", broker.address()))
        .bearer_auth(broker.home.token());
    if let Some(body) = body {
        request = request.json(&body);
    }
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap_or_default())
}

async fn session(broker: &BrokerProcess, mcp: Value) -> (u16, Value) {
    rest(broker, Method::POST, "/v1/sessions?wait=ready", Some(json!({"mcp": mcp}))).await
}

async fn connect(made: &Value) -> TestClient {
    TestClient::http(made["mcp_url"].as_str().unwrap(), made["mcp_token"].as_str(), Era::Legacy).await
}

async fn greeting(client: &TestClient, tool: &str) -> String {
    let result = client.ok(tool, json!({"name": "Ada"})).await;
    serde_json::to_value(&result).unwrap()["content"][0]["text"].as_str().unwrap().to_owned()
}

async fn ended(broker: BrokerProcess) {
    let home = broker.home.clone();
    assert_eq!(broker.terminate().await, 0);
    assert!(!home.has_processes());
}

#[tokio::test]
async fn a_custom_server_from_a_repository_is_cloned_installed_once_and_called() {
    if !possible() {
        return;
    }
    let repositories = Repositories::new();
    repositories.commit("acme/tools", &[("server.mjs", "old")]);
    let commit = repositories.commit("acme/tools", &[("server.mjs", SERVER)]);
    let broker = repositories.home().serve().await;
    let wanted = json!({"github/acme/tools": {
        "installCmd": INSTALL, "runCmd": "node server.mjs 'the clone'", "envs": {"GREETER_KEY": "hunter2-hunter2"}}});
    let (status, made) = session(&broker, wanted.clone()).await;
    assert_eq!(status, 201, "{made}");
    assert_eq!(made["servers"][0]["name"], "github/acme/tools", "{made}");
    assert_eq!(made["servers"][0]["state"], "ready", "{made}");
    assert_eq!(made["servers"][0]["commit"], commit.as_str(), "{made}");

    let client = connect(&made).await;
    assert_eq!(client.server_tools().await, ["github-acme-tools__greet"]);
    let said = greeting(&client, "github-acme-tools__greet").await;
    assert_eq!(said, "hello Ada from the clone, installed once, part nothing, key hunter2-hunter2");
    let listed = client.ok("mcp-list", json!({})).await;
    assert_eq!(listed.structured_content.unwrap()["servers"][0]["commit"], commit.as_str());

    // What came after is not what was asked for, and another session needs no other installation.
    repositories.commit("acme/tools", &[("server.mjs", "throw 1")]);
    let mut pinned = wanted;
    pinned["github/acme/tools"]["ref"] = json!(commit);
    let (status, second) = session(&broker, pinned).await;
    assert_eq!(status, 201, "{second}");
    let said = greeting(&connect(&second).await, "github-acme-tools__greet").await;
    assert!(said.contains("installed once,"), "{said}");
    let clone = clones(&broker.home.data());
    assert_eq!(clone.len(), 1, "{clone:?}");
    assert_eq!(std::fs::read_to_string(clone[0].join("source/depth")).unwrap().trim(), "1");

    // An agent has what is there, and cannot ask for more.
    let refused = client.try_call("mcp-add", json!({"name": "github/acme/other"})).await.unwrap();
    assert_eq!(refused.is_error, Some(true));
    let (_, shown) = rest(&broker, Method::GET, &format!("/v1/sessions/{}", made["id"].as_str().unwrap()), None).await;
    assert_eq!(shown["servers"][0]["log"], "the greeter is up", "{shown}");
    assert!(!shown.to_string().contains("hunter2"), "{shown}");
    let (_, audit) = rest(&broker, Method::GET, "/v1/audit?kind=catalog", None).await;
    assert!(audit.to_string().contains(&format!("pin https://github.com/acme/tools at {commit}")), "{audit}");
    let (_, audit) = rest(&broker, Method::GET, "/v1/audit", None).await;
    assert!(
        !audit["records"].as_array().unwrap().iter().any(|record| record["arguments"].to_string().contains("hunter2"))
    );

    // It is there again after a restart.
    let (home, address, url) = (broker.home.clone(), broker.address(), made["mcp_url"].clone());
    client.close().await;
    assert_eq!(broker.terminate().await, 0);
    let broker = home.serve_at(&address).await;
    let again = connect(&json!({"mcp_url": url, "mcp_token": made["mcp_token"]})).await;
    assert!(greeting(&again, "github-acme-tools__greet").await.contains("installed once,"));
    again.close().await;
    ended(broker).await;
}

#[tokio::test]
async fn the_login_of_the_brokers_user_is_for_git_and_not_for_what_is_installed() {
    if !possible() {
        return;
    }
    let repositories = Repositories::new();
    repositories.commit("acme/tools", &[("server.mjs", SERVER)]);
    let home = repositories.home();
    let asked = home.path().join("asked");
    let ssh = format!("sh -c 'echo agent $SSH_AUTH_SOCK >> {}; exit 1' --", asked.display());
    let broker = home.variable("SSH_AUTH_SOCK", "/run/the-agent").variable("GIT_SSH_COMMAND", &ssh).serve().await;
    let (status, refused) = session(&broker, json!({"ssh://git@example.com/acme/far": {"runCmd": "x"}})).await;
    assert_eq!(status, 422, "{refused}");
    assert!(std::fs::read_to_string(&asked).unwrap().contains("agent /run/the-agent"));

    let install = "echo agent $SSH_AUTH_SOCK > installed";
    let wanted = json!({"github/acme/tools": {"installCmd": install, "runCmd": "node server.mjs x"}});
    let (status, made) = session(&broker, wanted).await;
    assert_eq!(status, 201, "{made}");
    let said = greeting(&connect(&made).await, "github-acme-tools__greet").await;
    assert_eq!(said, "hello Ada from x, installed agent, part nothing, key undefined");
    ended(broker).await;
}

fn clones(data: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(data.join("packages")).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

#[tokio::test]
async fn a_repository_brings_its_submodules() {
    if !possible() {
        return;
    }
    let repositories = Repositories::new();
    repositories.commit("acme/part", &[("part", "of it")]);
    repositories.commit("acme/whole", &[("server.mjs", SERVER)]);
    let whole = repositories.path("acme/whole");
    git(&whole, &["submodule", "--quiet", "add", "--", "../part", "part"]);
    git(&whole, &["config", "--file=.gitmodules", "submodule.part.url", "https://github.com/acme/part"]);
    repositories.commit("acme/whole", &[]);
    git(&whole, &["tag", "v1"]);
    let broker = repositories.home().serve().await;
    let (status, made) =
        session(&broker, json!({"github/acme/whole": {"run_cmd": "exec node server.mjs x", "ref": "v1"}})).await;
    assert_eq!(status, 201, "{made}");
    let said = greeting(&connect(&made).await, "github-acme-whole__greet").await;
    assert_eq!(said, "hello Ada from x, installed nothing, part of it, key undefined");
    ended(broker).await;
}

#[tokio::test]
async fn a_repository_that_is_no_good_is_told_and_leaves_nothing() {
    if !possible() {
        return;
    }
    let repositories = Repositories::new();
    repositories.commit("acme/tools", &[("server.mjs", SERVER)]);
    let locked = a_repository_behind_a_login().await;
    let home = repositories.home();
    std::fs::create_dir_all(home.data()).unwrap();
    std::fs::write(home.data().join("config.yaml"), "limits: {install_seconds: 4}\n").unwrap();
    let broker = home.serve().await;
    let run = "node server.mjs";
    let cases = [
        ("github/acme/nothing", json!({"runCmd": run}), "there is no repository"),
        (&format!("{locked}/private.git"), json!({"runCmd": run}), "needs a login"),
        ("github/acme/tools", json!({"runCmd": run, "ref": "v9"}), "no branch and no tag `v9`"),
        ("github/acme/tools", json!({"runCmd": run, "ref": "0123456789012345678901234567890123456789"}), "not our ref"),
        ("github/acme/tools", json!({"runCmd": run, "installCmd": "echo it is broken; exit 7"}), "it is broken"),
        ("github/acme/tools", json!({"runCmd": run, "installCmd": "sleep 1000"}), "took longer than 4 s"),
        (
            "github/acme/tools",
            json!({"runCmd": run, "installCmd": "setsid sleep 1000 & sleep 1000"}),
            "took longer than 4 s",
        ),
        (
            "github/acme/tools",
            json!({"runCmd": run, "installCmd": "yes | head -c 9000000; echo the end; exit 1"}),
            "the end",
        ),
        ("github/acme/tools", json!({"runCmd": run, "installCmd": "no-such-installer"}), "no-such-installer"),
        ("github/acme/tools", json!({"runCmd": "no-such-program x"}), "no-such-program"),
        ("github/acme/tools", json!({"runCmd": "node 'server.mjs"}), "a quote that is not closed"),
        ("github/acme/tools", json!({"installCmd": "true"}), "runCmd"),
    ];
    for (key, server, problem) in cases {
        let (status, refused) = session(&broker, json!({key: server, "fixture": {}})).await;
        assert_eq!(status, 422, "{key} {server}: {refused}");
        let told = refused["error"]["message"].as_str().unwrap();
        assert!(told.contains(problem), "{key} {server}: {told}");
        assert!(told.len() < 12_000, "{}", told.len());
        let (_, listed) = rest(&broker, Method::GET, "/v1/sessions", None).await;
        assert_eq!(listed["sessions"], json!([]), "{key} {server}");
    }
    // What could not be installed is not kept; a clone that only could not be started is.
    let kept = clones(&broker.home.data()).len();
    assert_eq!(kept, 1);
    ended(broker).await;
}

/// Something that answers every request of git's with a question for a password.
async fn a_repository_behind_a_login() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            let answer = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    format!("http://{address}")
}

#[tokio::test]
async fn the_operator_adds_a_server_of_their_own() {
    if !possible() {
        return;
    }
    let repositories = Repositories::new();
    let first = repositories.commit("acme/tools", &[("server.mjs", SERVER)]);
    let home = repositories.home();
    let add = ["server", "add", "greeter", "--git", "github/acme/tools", "--install", "echo once > installed"];
    let run = ["--run", "node server.mjs x", "--secret", "GREETER_KEY"];
    let added = home.run(&[&add[..], &run[..]].concat()).await.ok();
    assert!(added.contains(&first) && added.contains("secret set greeter:GREETER_KEY"), "{added}");
    let taken = home.run(&[&add[..], &run[..]].concat()).await;
    assert!(taken.code() == 1 && taken.err().contains("already"), "{}", taken.err());
    home.run_with(&["secret", "set", "greeter:GREETER_KEY"], "hunter2-hunter2").await.ok();

    let broker = home.serve().await;
    let client = TestClient::http(&broker.url, Some(&home.token()), Era::Legacy).await;
    client.add("greeter").await;
    let said = greeting(&client, "greeter__greet").await;
    assert_eq!(said, "hello Ada from x, installed once, part nothing, key hunter2-hunter2");

    // A newer commit is taken when the operator says so.
    let second = repositories.commit("acme/tools", &[("more", "x")]);
    assert!(home.run(&["server", "ls"]).await.ok().contains(&first));
    let replaced = home.run(&[&add[..], &run[..], &["--replace"]].concat()).await.ok();
    assert!(replaced.contains(&second), "{replaced}");
    let listed = home.run(&["server", "ls"]).await.ok();
    assert!(listed.contains(&second) && listed.contains("https://github.com/acme/tools"), "{listed}");
    home.run(&["server", "rm", "greeter"]).await.ok();
    assert!(!home.run(&["server", "ls"]).await.ok().contains("greeter"));
    let again = home.run(&["server", "rm", "greeter"]).await;
    assert_eq!(again.code(), 1);
    let bad = home.run(&["server", "add", "x", "--git", "ext::sh -c x", "--run", "node 'x"]).await;
    assert!(bad.code() == 1 && bad.err().contains("not the address of a Git repository"), "{}", bad.err());
    client.close().await;
    ended(broker).await;
}

#[tokio::test]
async fn a_catalog_entry_says_how_its_repository_is_installed_and_started() {
    if !possible() {
        return;
    }
    let repositories = Repositories::new();
    let commit = repositories.commit("acme/tools", &[("server.mjs", SERVER)]);
    let home = repositories.home();
    let catalog = home.path().join("team.yaml");
    let package = "{registry: git, identifier: \"https://github.com/acme/tools\", version: main, \
                   install: \"echo once > installed\", run: \"node server.mjs\", arguments: [\"{{greeter.who}}\"]}";
    let config = "[{name: greeter, type: object, properties: {who: {type: string}}}]";
    std::fs::write(&catalog, format!("registry: {{greeter: {{packages: [{package}], config: {config}}}}}")).unwrap();
    let broker = home.serve_with("127.0.0.1:0", &["--catalog", &catalog.display().to_string()]).await;
    let (status, made) = session(&broker, json!({"greeter": {"who": "a team"}})).await;
    assert_eq!(status, 201, "{made}");
    assert_eq!(made["servers"][0]["commit"], commit.as_str(), "{made}");
    let said = greeting(&connect(&made).await, "greeter__greet").await;
    assert_eq!(said, "hello Ada from a team, installed once, part nothing, key undefined");

    for (wrong, told) in [
        ("run: \"node 'x\"", "a quote that is not closed"),
        ("run: \"a && b\", arguments: [x]", "only a shell understands"),
        ("run: x, bin: other", "say nothing beside"),
    ] {
        let package = format!("{{registry: git, identifier: \"https://github.com/acme/tools\", {wrong}}}");
        std::fs::write(&catalog, format!("registry: {{greeter: {{packages: [{package}]}}}}")).unwrap();
        let validated = home.run(&["catalog", "validate", &catalog.display().to_string()]).await;
        assert!(validated.code() == 1 && validated.out().contains(told), "{wrong}: {}", validated.out());
    }
    ended(broker).await;
}
