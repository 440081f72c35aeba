//! `mcp-broker session`, `backup` and `doctor`, and what an agent sees of its own history.

use http::Method;
use serde_json::{Value, json};
use sqlx::{Connection as _, Row as _};

use crate::support::{BrokerProcess, Era, FixtureCatalog, TestBroker, TestClient, database, process::Home};

fn catalog() -> FixtureCatalog {
    let config =
        "    config:\n      - {name: C, type: object, properties: {word: {type: string}, password: {type: string}}}";
    FixtureCatalog::new().entry("fixture", &[], &[("WORD", "{{fixture.word}}")], config)
}

/// What `session new`, `resume` and `import` print.
struct Printed {
    id: String,
    url: String,
    token: String,
}

impl Printed {
    fn of(text: &str) -> Self {
        let line = |key: &str| {
            let found = text.lines().find_map(|line| line.strip_prefix(key));
            found.unwrap_or_else(|| panic!("{key} is not in {text}")).trim().to_owned()
        };
        Self { id: line("id:"), url: line("url:"), token: line("token:") }
    }

    async fn client(&self) -> TestClient {
        TestClient::http(&self.url, Some(&self.token), Era::Legacy).await
    }

    async fn status(&self) -> u16 {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
        let request = reqwest::Client::new().post(&self.url).bearer_auth(&self.token).json(&body);
        request.header("accept", "application/json, text/event-stream").send().await.unwrap().status().as_u16()
    }
}

async fn word(client: &TestClient) -> Value {
    client.ok("fixture__env", json!({"names": ["WORD"]})).await.structured_content.unwrap()["variables"]["WORD"].clone()
}

/// A session with config, chosen tools and a tool made of scripts.
async fn furnished(home: &Home) -> (BrokerProcess, Printed) {
    let broker = home.serve().await;
    let made = Printed::of(&home.run(&["session", "new", "--name", "first"]).await.ok());
    let client = made.client().await;
    let config = json!({"word": "kept", "password": "hunter2hunter2"});
    client.ok("mcp-add", json!({"name": "fixture", "config": config, "activate": ["env"]})).await;
    client.ok("code-mode", json!({"servers": ["fixture"], "name": "mix"})).await;
    client.close().await;
    (broker, made)
}

#[tokio::test]
async fn a_session_is_made_for_a_time_and_with_a_label() {
    let home = Home::with(&catalog());
    let broker = home.serve().await;
    let made = home.run(&["session", "new", "--label", "nightly", "--ttl", "600"]).await.ok();
    assert!(made.contains("ends:  20"), "{made}");
    let url = format!("http://{}/v1/sessions?label=nightly", broker.address());
    let listed = reqwest::Client::new().get(url).bearer_auth(home.token()).send().await.unwrap();
    let listed: Value = listed.json().await.unwrap();
    assert_eq!(listed["sessions"][0]["id"], Printed::of(&made).id.as_str(), "{listed}");
    let refused = home.run(&["session", "new", "--ttl", "0"]).await;
    assert!(refused.code() == 1 && refused.err().contains("in seconds, from 1 to"), "{}", refused.err());
    assert_eq!(broker.terminate().await, 0);
}

#[tokio::test]
async fn a_session_is_exported_and_another_made_from_it() {
    let home = Home::with(&catalog());
    let (broker, _) = furnished(&home).await;
    let file = home.path().join("session.json");
    let path = file.to_str().unwrap();
    home.run(&["session", "export", "first", path]).await.ok();

    let taken = home.run(&["session", "import", path]).await;
    assert!(taken.code() == 1 && taken.err().contains("a session named `first` exists already"), "{}", taken.err());
    let copy = Printed::of(&home.run(&["session", "import", path, "--name", "second"]).await.ok());
    let client = copy.client().await;
    assert_eq!(client.server_tools().await, ["fixture__env", "code-mode-mix"]);
    assert_eq!(word(&client).await, "kept");

    let mut document: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    document["name"] = json!("third");
    document["servers"][0]["name"] = json!("fixtur");
    std::fs::write(&file, document.to_string()).unwrap();
    let refused = home.run(&["session", "import", path]).await;
    assert!(refused.code() == 1 && refused.err().contains("fixtur: there is no server"), "{}", refused.err());
    document["version"] = json!(9);
    let refused = home.run_with(&["session", "import", "-"], &document.to_string()).await;
    assert!(refused.err().contains("this is no session of a version that this broker knows"), "{}", refused.err());
    let refused = home.run_with(&["session", "import", "-"], "{\"format\": 1}").await;
    assert!(refused.code() == 1 && refused.err().contains("format"), "{}", refused.err());
    assert_eq!(
        home.run(&["session", "ls"]).await.ok().matches("named").count(),
        2,
        "nothing is left of a failed import"
    );
    broker.terminate().await;
}

#[tokio::test]
async fn a_session_is_handed_over_renamed_and_shown() {
    let home = Home::with(&catalog());
    let (broker, made) = furnished(&home).await;
    let resumed = Printed::of(&home.run(&["session", "resume", "first"]).await.ok());
    assert_eq!((&resumed.id, &resumed.url), (&made.id, &made.url));
    assert_eq!(made.status().await, 401, "the old token is void");
    assert_eq!(word(&resumed.client().await).await, "kept");

    home.run(&["session", "rename", "first", "renamed"]).await.ok();
    let gone = home.run(&["session", "show", "first"]).await;
    assert!(gone.code() == 1 && gone.err().contains("there is no session `first`"), "{}", gone.err());
    let shown = home.run(&["session", "show", "renamed"]).await.ok();
    for expected in [
        "name: renamed",
        "server fixture: ready, 1 tools listed",
        "\"word\":\"kept\"",
        "tool code-mode-mix: scripts that call fixture",
        "fixture: env: success",
    ] {
        assert!(shown.contains(expected), "{expected} is not in {shown}");
    }
    assert!(!shown.contains("hunter2"), "{shown}");
    broker.terminate().await;

    let (by_name, mut process) = home.stdio(&["--session", "renamed"]).client(Era::Modern).await;
    assert_eq!(word(&by_name).await, "kept");
    process.kill().await.unwrap();
}

#[tokio::test]
async fn a_session_is_run_again_and_what_differs_is_shown() {
    let home = Home::with(&catalog());
    let broker = home.serve().await;
    let made = Printed::of(&home.run(&["session", "new", "--name", "first"]).await.ok());
    let client = made.client().await;
    client.ok("mcp-add", json!({"name": "fixture", "config": {"word": "kept"}})).await;
    client.ok("fixture__echo", json!({"text": "the same"})).await;
    assert_eq!(word(&client).await, "kept");
    client.ok("code-mode", json!({"servers": ["fixture"], "name": "mix"})).await;
    let script = "return (await fixture.echo({text: 'scripted'}))";
    client.ok("code-mode-mix", json!({"script": script})).await;
    client.close().await;
    let path = ["session", "replay", "first"];
    let again = home.run(&path).await.ok();
    assert_eq!(again.matches("same     ").count(), 5, "{again}");

    let client = made.client().await;
    client.ok("fixture__pid", json!({})).await;
    client.ok("fixture__echo", json!({"text": "long ".repeat(2000)})).await;
    client.ok("fixture__echo", json!({"text": "x", "token": "ghp_0123456789012345678901234567890123"})).await;
    home.run(&["session", "end", "first"]).await.ok();
    let again = home.run(&path).await;
    assert_eq!(again.code(), 5, "{}", again.err());
    let said = again.out();
    assert!(said.contains("differs  fixture: pid {}\n  then   success: "), "{said}");
    assert_eq!(said.matches("skipped  fixture: echo").count(), 2, "{said}");
    assert_eq!(home.run(&["session", "ls"]).await.ok().lines().count(), 1, "the fresh session has ended");

    let before = home.run(&["audit", "--limit", "1000"]).await.ok().lines().count();
    let planned = home.run(&["session", "replay", "first", "--dry-run"]).await.ok();
    assert_eq!((planned.matches("would    ").count(), planned.matches("skipped  ").count()), (6, 2), "{planned}");
    assert_eq!(home.run(&["audit", "--limit", "1000"]).await.ok().lines().count(), before, "nothing was run");
    broker.terminate().await;
}

#[tokio::test]
async fn an_agent_sees_the_history_of_its_own_session() {
    let broker = TestBroker::with(catalog()).start().await;
    let (mine, other) = (broker.connect(Era::Legacy).await, broker.connect(Era::Legacy).await);
    other.add("fixture").await;
    other.ok("fixture__echo", json!({"text": "not yours"})).await;
    mine.add("fixture").await;
    mine.ok("fixture__echo", json!({"text": "first"})).await;
    assert!(!mine.call("fixture__echo", json!({"text": 3})).await.is_ok());
    let listed = mine.ok("mcp-list", json!({"history": 2})).await.structured_content.unwrap();
    let history = listed["history"].as_array().unwrap();
    let of = |key: &str| history.iter().map(|record| record[key].clone()).collect::<Vec<_>>();
    assert_eq!(of("name"), ["echo", "echo"], "{listed}");
    assert_eq!(of("status"), ["success", "error"], "{listed}");
    assert!(history[0]["arguments"].as_str().unwrap().contains("first"), "{listed}");
    let all = mine.ok("mcp-list", json!({"history": 100})).await.structured_content.unwrap();
    assert!(!all.to_string().contains("not yours"), "{all}");
    assert!(mine.ok("mcp-list", json!({})).await.structured_content.unwrap()["history"].is_null());
    let refused = mine.call("mcp-list", json!({"history": "all"})).await.to_string();
    assert!(refused.contains("mcp-list takes `history` (a number)"), "{refused}");
    let shared = broker.connect(Era::Modern).await;
    let refused = shared.call("mcp-list", json!({"history": 5})).await.to_string();
    assert!(refused.contains("give `session`, as mcp-add returned it"), "{refused}");
    broker.stop().await;
}

#[tokio::test]
async fn a_session_that_is_too_old_has_ended() {
    let broker = TestBroker::with(catalog()).limits(|limits| limits.session_age_seconds = Some(3600)).start().await;
    let (_, made) = broker.rest(Method::POST, "/v1/sessions", Some(json!({}))).await;
    let id = made["id"].as_str().unwrap();
    broker.clock.advance(jiff::SignedDuration::from_secs(3599));
    broker.sweep().await;
    assert_eq!(broker.rest(Method::GET, &format!("/v1/sessions/{id}"), None).await.0, 200);
    broker.clock.advance(jiff::SignedDuration::from_secs(2));
    broker.sweep().await;
    let (status, answer) = broker.rest(Method::GET, &format!("/v1/sessions/{id}"), None).await;
    assert_eq!(status, 404, "{answer}");
    let (_, log) = broker.rest(Method::GET, "/v1/audit?kind=session", None).await;
    assert!(log.to_string().contains("too old"), "{log}");
    broker.stop().await;
}

#[tokio::test]
async fn a_copy_of_the_database_is_a_database() {
    let home = Home::with(&catalog());
    let (broker, _) = furnished(&home).await;
    let file = home.path().join("copy.sqlite");
    let copied = home.run(&["backup", file.to_str().unwrap()]).await.ok();
    assert!(copied.contains("copy.sqlite") && copied.contains("bytes"), "{copied}");
    let again = home.run(&["backup", file.to_str().unwrap()]).await;
    assert!(again.code() == 1 && again.err().contains("must not exist yet"), "{}", again.err());

    let other = Home::with(&catalog());
    std::fs::create_dir_all(other.data()).unwrap();
    std::fs::copy(&file, other.data().join("broker.sqlite")).unwrap();
    std::fs::copy(home.data().join("master.key"), other.data().join("master.key")).unwrap();
    assert!(other.run(&["session", "ls"]).await.ok().contains("first"));
    assert!(other.run(&["audit", "verify"]).await.ok().starts_with("intact"));
    broker.terminate().await;
}

#[tokio::test]
async fn servers_of_a_new_session_have_the_config_they_are_given() {
    let home = Home::with(&catalog());
    let broker = home.serve().await;
    let new = async |config: &str| {
        let twice = ["--server", "fixture", "--server", "fixture", "--server-config", config];
        home.run(&[&["session", "new", "--name", "mine"], &twice[..]].concat()).await
    };
    for wrong in ["other={}", "fixture", "fixture={word: 1}"] {
        let refused = new(wrong).await;
        assert!(refused.code() == 1 && refused.err().contains("--server-config"), "{wrong}: {}", refused.err());
    }
    let made = new(r#"fixture={"word": "hello", "wrod": "bye"}"#).await;
    assert!(made.err().contains("of fixture, `wrod` is not known (did you mean `word`?)"), "{}", made.err());
    let shown = home.run(&["session", "show", "mine"]).await.ok();
    assert!(shown.contains(r#"config fixture: {"word":"hello","wrod":"bye"}"#), "{shown}");
    broker.terminate().await;
}

#[tokio::test]
async fn the_doctor_says_what_keeps_a_broker_from_starting() {
    let home = Home::with(&catalog());
    let settings = home.path().join("wrong.yaml");
    std::fs::write(&settings, "servers: [nosuch]").unwrap();
    let said = home.run(&["doctor", "--config", settings.to_str().unwrap()]).await;
    assert!(said.code() == 1 && said.out().contains("problem  servers: the server `nosuch`"), "{}", said.out());
    std::fs::write(&settings, "catalogs: [nosuch.yaml]").unwrap();
    let said = home.run(&["doctor", "--config", settings.to_str().unwrap()]).await.out();
    let lines: Vec<&str> = said.lines().filter(|line| line.contains("nosuch.yaml")).collect();
    assert!(matches!(lines[..], [line] if line.starts_with("problem  catalog: ")), "{said}");
}

#[tokio::test]
async fn the_doctor_looks_at_the_database_and_the_log() {
    let home = Home::with(&catalog());
    let (broker, _) = furnished(&home).await;
    let said = home.run(&["doctor"]).await.out();
    assert!(said.contains("ok       database: whole") && said.contains("ok       audit log: intact"), "{said}");
    broker.terminate().await;
    // The page that an index begins at is overwritten.
    let mut connection = database(&home.data()).await;
    let row = sqlx::query("SELECT rootpage FROM sqlite_schema WHERE name = 'sessions_by_use'");
    let page: i64 = row.fetch_one(&mut connection).await.unwrap().get(0);
    connection.close().await.unwrap();
    let path = home.data().join("broker.sqlite");
    let mut bytes = std::fs::read(&path).unwrap();
    let begin = (usize::try_from(page).unwrap() - 1) * 4096;
    bytes[begin..begin + 4096].fill(0x5a);
    std::fs::write(&path, bytes).unwrap();
    let said = home.run(&["doctor"]).await;
    assert!(said.code() == 1 && said.out().contains("problem  database: "), "{}{}", said.out(), said.err());
}
