//! Two clients at once never see each other's servers, config or tools, whatever they connect with.

use http::Method;
use serde_json::{Value, json};
use sqlx::Connection as _;

use crate::support::{Era, FixtureCatalog, TestBroker, TestClient, database};

fn catalog() -> FixtureCatalog {
    let config = "    config:\n      - {name: C, type: object, properties: {word: {type: string}}}";
    let with_word = |name: &str| (name.to_owned(), config.to_owned());
    let (red, blue) = (with_word("red"), with_word("blue"));
    FixtureCatalog::new().entry(&red.0, &[], &[("WORD", "{{red.word}}")], &red.1).entry(
        &blue.0,
        &[],
        &[("WORD", "{{blue.word}}")],
        &blue.1,
    )
}

/// A client and, if it needs one, the handle of its session.
struct Agent {
    client: TestClient,
    handle: Option<String>,
}

impl Agent {
    async fn shared(broker: &TestBroker, era: Era) -> Self {
        Self { client: broker.connect(era).await, handle: None }
    }

    async fn with_url(broker: &TestBroker, era: Era) -> Self {
        let (status, made) = broker.rest(Method::POST, "/v1/sessions", Some(json!({}))).await;
        assert_eq!(status, 201, "{made}");
        let url = made["mcp_url"].as_str().unwrap();
        let token = made["mcp_token"].as_str().unwrap();
        Self { client: TestClient::http(url, Some(token), era).await, handle: None }
    }

    async fn add(&mut self, server: &str, word: &str) {
        let mut arguments = json!({"name": server, "config": {"word": word}});
        if let Some(handle) = &self.handle {
            arguments["session"] = json!(handle);
        }
        let added = self.client.ok("mcp-add", arguments).await.structured_content.unwrap();
        if let Some(handle) = added["session"].as_str() {
            self.handle = Some(handle.to_owned());
        }
    }

    /// The word its server was configured with.
    async fn word(&self, server: &str) -> Value {
        let outcome =
            self.client.exec(self.handle.as_deref(), &format!("{server}__env"), json!({"names": ["WORD"]})).await;
        outcome.structured()
    }

    async fn servers(&self) -> Vec<String> {
        let arguments = self.handle.as_ref().map_or_else(|| json!({}), |handle| json!({"session": handle}));
        let listed = self.client.ok("mcp-list", arguments).await.structured_content.unwrap();
        listed["servers"].as_array().unwrap().iter().map(|server| server["name"].as_str().unwrap().to_owned()).collect()
    }
}

async fn two_agents_live_apart(mut one: Agent, mut other: Agent) {
    tokio::join!(one.add("red", "mine"), other.add("blue", "yours"));
    assert_eq!(one.servers().await, ["red"]);
    assert_eq!(other.servers().await, ["blue"]);
    assert!(one.word("red").await.to_string().contains("mine"));
    assert!(other.word("blue").await.to_string().contains("yours"));
    for (agent, foreign) in [(&one, "blue__echo"), (&other, "red__echo")] {
        let outcome = agent.client.exec(agent.handle.as_deref(), foreign, json!({"text": "x"})).await;
        assert!(!outcome.is_ok(), "{outcome}");
    }
    tokio::join!(one.add("blue", "also mine"), other.add("red", "also yours"));
    let (first, second) = tokio::join!(one.word("blue"), other.word("blue"));
    assert!(first.to_string().contains("also mine") && second.to_string().contains("yours"), "{first} {second}");
    one.client.ok("mcp-remove", removal("blue", &one)).await;
    assert_eq!(one.servers().await, ["red"]);
    assert_eq!(other.servers().await, ["blue", "red"]);
}

fn removal(server: &str, agent: &Agent) -> Value {
    let mut arguments = json!({"name": server});
    if let Some(handle) = &agent.handle {
        arguments["session"] = json!(handle);
    }
    arguments
}

#[tokio::test]
async fn two_clients_of_each_era_on_the_shared_endpoint_live_apart() {
    let broker = TestBroker::with(catalog()).start().await;
    for (one, other) in [(Era::Legacy, Era::Legacy), (Era::Modern, Era::Modern), (Era::Legacy, Era::Modern)] {
        two_agents_live_apart(Agent::shared(&broker, one).await, Agent::shared(&broker, other).await).await;
    }
    broker.stop().await;
}

#[tokio::test]
async fn two_clients_of_each_era_with_urls_of_their_own_live_apart() {
    let broker = TestBroker::with(catalog()).start().await;
    for (one, other) in [(Era::Legacy, Era::Modern), (Era::Modern, Era::Modern)] {
        two_agents_live_apart(Agent::with_url(&broker, one).await, Agent::with_url(&broker, other).await).await;
    }
    two_agents_live_apart(Agent::with_url(&broker, Era::Modern).await, Agent::shared(&broker, Era::Modern).await).await;
    broker.stop().await;
}

#[tokio::test]
async fn only_the_session_that_changed_is_told() {
    let broker = TestBroker::with(catalog()).start().await;
    let (one, other) = (broker.connect(Era::Legacy).await, broker.connect(Era::Legacy).await);
    one.add("red").await;
    one.wait_for("the one that added hears of it", |told| told.tools_changed > 0).await;
    other.add("blue").await;
    other.wait_for("the other hears of its own", |told| told.tools_changed > 0).await;
    assert_eq!(other.server_tools().await.iter().filter(|name| name.starts_with("red")).count(), 0);
    broker.stop().await;
}

#[tokio::test]
async fn two_clients_of_one_session_share_it() {
    let broker = TestBroker::with(catalog()).start().await;
    let (_, made) = broker.rest(Method::POST, "/v1/sessions", Some(json!({}))).await;
    let (url, token) = (made["mcp_url"].as_str().unwrap(), made["mcp_token"].as_str());
    let legacy = TestClient::http(url, token, Era::Legacy).await;
    let modern = TestClient::http(url, token, Era::Modern).await;
    modern.add("red").await;
    legacy.wait_for("the other client is told", |told| told.tools_changed > 0).await;
    assert!(legacy.server_tools().await.contains(&"red__echo".to_owned()));
    assert!(modern.server_tools().await.contains(&"red__echo".to_owned()));
    let pids = (legacy.ok("red__pid", json!({})).await, modern.ok("red__pid", json!({})).await);
    assert_eq!(pids.0.content, pids.1.content, "one instance serves the session");
    broker.stop().await;
}

#[tokio::test]
async fn a_shared_server_runs_once_and_gets_no_sessions_config() {
    let broker = TestBroker::with(FixtureCatalog::new().entry("common", &[], &[], "    shared: true")).start().await;
    let (one, other) = (broker.connect(Era::Legacy).await, broker.connect(Era::Legacy).await);
    one.add("common").await;
    other.add("common").await;
    let (first, second) = (one.ok("common__pid", json!({})).await, other.ok("common__pid", json!({})).await);
    assert_eq!(first.content, second.content);
    let refused = one.call("mcp-config-set", json!({"server": "common", "config": {}})).await;
    insta::assert_snapshot!(refused, @"error: server `common` is shared by all sessions: its config is the operator's");
    broker.stop().await;
}

#[tokio::test]
async fn a_shared_server_goes_on_for_others_when_it_cannot_be_put_on() {
    let broker = TestBroker::with(FixtureCatalog::new().entry("common", &[], &[], "    shared: true")).start().await;
    let wanted = json!({"mcp": {"common": {}}});
    let (_, made) = broker.rest(Method::POST, "/v1/sessions?wait=ready", Some(wanted.clone())).await;
    let url = made["mcp_url"].as_str().unwrap();
    let client = TestClient::http(url, made["mcp_token"].as_str(), Era::Modern).await;
    let pid = async || client.ok("common__pid", json!({})).await.structured_content;
    let before = pid().await;

    let mut disk = database(broker.folder()).await;
    let full = "CREATE TRIGGER full BEFORE INSERT ON session_servers BEGIN SELECT RAISE(ABORT, 'disk full'); END";
    sqlx::raw_sql(full).execute(&mut disk).await.unwrap();
    let (status, refused) = broker.rest(Method::POST, "/v1/sessions", Some(wanted)).await;
    assert_eq!(status, 422, "{refused}");
    assert_eq!(pid().await, before);
    disk.close().await.unwrap();
    client.close().await;
    broker.stop().await;
}
