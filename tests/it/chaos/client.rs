//! A client that knows what it was told, and so what has to be true.
//!
//! By hand, so that it knows the difference between an answer and a connection that broke.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{made, random::Random};
use crate::support::BrokerProcess;

const LEGACY: &str = "2025-11-25";
const MODERN: &str = "2026-07-28";

/// How its session is found again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    /// By the `Mcp-Session-Id` of a connection.
    Connection,
    /// By a URL and a token.
    Url,
    /// By a handle, in the era that has no connections.
    Handle,
}

/// What a session is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct State {
    on: bool,
    word: String,
    tools: BTreeSet<String>,
}

/// What became of a request.
enum Answer {
    Result(Value),
    /// The broker said no.
    Refused(String),
    /// The connection broke: it may have happened or not.
    Lost,
}

pub(super) struct Client {
    door: Door,
    server: &'static str,
    http: reqwest::Client,
    url: String,
    token: String,
    connection: Option<String>,
    handle: Option<String>,
    known: State,
    /// What it is instead, if a change that was not acknowledged has happened.
    possible: Option<State>,
    answered: Vec<String>,
    refused: usize,
    random: Random,
}

impl Client {
    pub(super) async fn connect(broker: &BrokerProcess, door: Door, server: &'static str, random: Random) -> Self {
        let (url, token) = match door {
            Door::Url => made(broker).await,
            Door::Connection | Door::Handle => (broker.url.clone(), broker.home.token()),
        };
        let mut client = Self {
            door,
            server,
            http: reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap(),
            url,
            token,
            connection: None,
            handle: None,
            known: State { on: true, word: "first".to_owned(), tools: BTreeSet::new() },
            possible: None,
            answered: Vec::new(),
            refused: 0,
            random,
        };
        if door != Door::Handle {
            let initialize = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
                "protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "chaos", "version": "1"}}});
            let response = client.post(&initialize, None).await.unwrap();
            client.connection = Some(response.headers()["mcp-session-id"].to_str().unwrap().to_owned());
        }
        let added = client.must("mcp-add", json!({"name": server, "config": {"word": "first"}})).await;
        client.handle = added["session"].as_str().map(str::to_owned).filter(|_| door == Door::Handle);
        client
    }

    /// Calls one tool after another until the broker is gone or it is enough.
    pub(super) async fn work(&mut self, enough: Option<&CancellationToken>) {
        self.refused = 0;
        while !enough.is_some_and(CancellationToken::is_cancelled) {
            let answer = match self.random.below(20) {
                _ if self.possible.is_some() => self.look().await,
                0..=2 => self.set_word().await,
                3 => self.toggle().await,
                4 if self.door != Door::Handle => self.make_tool().await,
                5 => self.look().await,
                _ if self.known.on => self.echo().await,
                _ => self.toggle().await,
            };
            match answer {
                Answer::Result(_) => {}
                Answer::Lost if enough.is_none() => return,
                Answer::Lost => panic!("the broker went away"),
                Answer::Refused(text) => {
                    assert!(enough.is_some() && says_full(&text), "refused without a reason: {text}");
                    self.refused += 1;
                }
            }
        }
    }

    /// Its session is what it was said to be.
    pub(super) async fn settle(&mut self) {
        let listed = self.must("mcp-list", json!({})).await;
        let on = listed["servers"].as_array().unwrap().iter().any(|server| server["name"] == self.server);
        let tools = if self.door == Door::Handle { self.known.tools.clone() } else { self.code_tools().await };
        if !on {
            self.must("mcp-add", json!({"name": self.server})).await;
        }
        let found = self.must_at_server("env", json!({"names": ["WORD"]})).await;
        let word = found["variables"]["WORD"].as_str().unwrap().to_owned();
        let found = State { on, word, tools };
        let is_right = found == self.known || self.possible.as_ref() == Some(&found);
        assert!(is_right, "{:?}: it is {found:?}, was {:?} or {:?}", self.door, self.known, self.possible);
        self.known = State { on: true, ..found };
        self.possible = None;
    }

    pub(super) fn answered(&self) -> usize {
        self.answered.len()
    }

    pub(super) fn refused(&self) -> usize {
        self.refused
    }

    /// The traces of calls that were answered with a result.
    pub(super) fn take_answered(&mut self) -> Vec<String> {
        std::mem::take(&mut self.answered)
    }

    async fn echo(&mut self) -> Answer {
        let text = format!("{:016x}", self.random.next());
        let answer = self.call_server("echo", json!({"text": text})).await;
        if let Answer::Result(result) = &answer {
            assert!(result.to_string().contains(&text), "somebody else's answer: {result}");
        }
        answer
    }

    async fn look(&mut self) -> Answer {
        self.call("mcp-find", json!({"query": "server for tests"})).await
    }

    async fn set_word(&mut self) -> Answer {
        let word = format!("{:016x}", self.random.next());
        let after = State { word: word.clone(), ..self.known.clone() };
        self.change(after, "mcp-config-set", json!({"server": self.server, "config": {"word": word}})).await
    }

    async fn toggle(&mut self) -> Answer {
        let after = State { on: !self.known.on, ..self.known.clone() };
        let tool = if self.known.on { "mcp-remove" } else { "mcp-add" };
        self.change(after, tool, json!({"name": self.server})).await
    }

    async fn make_tool(&mut self) -> Answer {
        if !self.known.on {
            return self.look().await;
        }
        let name = format!("tool-{}", self.random.below(4));
        let mut after = self.known.clone();
        after.tools.insert(name.clone());
        self.change(after, "code-mode", json!({"servers": [self.server], "name": name})).await
    }

    async fn change(&mut self, after: State, tool: &str, arguments: Value) -> Answer {
        self.possible = Some(after);
        let answer = self.call(tool, arguments).await;
        if let Answer::Result(_) = &answer
            && let Some(after) = self.possible.take()
        {
            self.known = after;
        }
        answer
    }

    async fn code_tools(&mut self) -> BTreeSet<String> {
        let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
        let text = self.post(&list, None).await.unwrap().text().await.unwrap();
        let listed = message(&text).expect("tools are listed");
        let names = listed["result"]["tools"].as_array().unwrap().iter().filter_map(|tool| tool["name"].as_str());
        names.filter_map(|name| name.strip_prefix("code-mode-")).map(str::to_owned).collect()
    }

    async fn must(&mut self, tool: &str, arguments: Value) -> Value {
        match self.call(tool, arguments).await {
            Answer::Result(result) => result["structuredContent"].clone(),
            Answer::Refused(text) => panic!("{tool}: {text}"),
            Answer::Lost => panic!("{tool}: the broker went away"),
        }
    }

    async fn must_at_server(&mut self, tool: &str, arguments: Value) -> Value {
        let tool = format!("{}__{tool}", self.server);
        self.must("mcp-exec", json!({"name": tool, "arguments": arguments})).await
    }

    async fn call_server(&mut self, tool: &str, arguments: Value) -> Answer {
        let tool = format!("{}__{tool}", self.server);
        match self.door {
            Door::Handle => self.call("mcp-exec", json!({"name": tool, "arguments": arguments})).await,
            Door::Connection | Door::Url => self.call(&tool, arguments).await,
        }
    }

    async fn call(&mut self, tool: &str, mut arguments: Value) -> Answer {
        if let Some(handle) = &self.handle {
            arguments["session"] = json!(handle);
        }
        let trace = format!("{:016x}{:016x}", self.random.next(), self.random.next());
        let mut meta = json!({"traceparent": format!("00-{trace}-00f067aa0ba902b7-01")});
        if self.door == Door::Handle {
            meta["io.modelcontextprotocol/protocolVersion"] = json!(MODERN);
            meta["io.modelcontextprotocol/clientCapabilities"] = json!({});
            meta["io.modelcontextprotocol/clientInfo"] = json!({"name": "chaos", "version": "1"});
        }
        let params = json!({"name": tool, "arguments": arguments, "_meta": meta});
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
        let Ok(response) = self.post(&request, Some(tool)).await else { return Answer::Lost };
        let Ok(text) = response.text().await else { return Answer::Lost };
        let Some(answer) = message(&text) else { return Answer::Lost };
        let result = &answer["result"];
        if result.is_object() && result["isError"] != json!(true) {
            self.answered.push(trace);
            return Answer::Result(result.clone());
        }
        let said = [&result["content"][0]["text"], &answer["error"]["message"]];
        Answer::Refused(said.iter().find_map(|text| text.as_str()).unwrap_or(&text).to_owned())
    }

    async fn post(&self, body: &Value, called: Option<&str>) -> reqwest::Result<reqwest::Response> {
        let mut request = self
            .http
            .post(&self.url)
            .bearer_auth(&self.token)
            .header("accept", "application/json, text/event-stream")
            .json(body);
        if let Some(connection) = &self.connection {
            request = request.header("mcp-session-id", connection).header("mcp-protocol-version", LEGACY);
        }
        if let Some(tool) = called.filter(|_| self.door == Door::Handle) {
            request = request.header("mcp-protocol-version", MODERN).header("mcp-method", "tools/call");
            request = request.header("mcp-name", tool);
        }
        request.send().await
    }
}

/// The answer in a body, which is JSON or an event stream.
fn message(body: &str) -> Option<Value> {
    let lines = body.lines().filter_map(|line| line.strip_prefix("data:")).chain([body]);
    lines.filter_map(|text| serde_json::from_str::<Value>(text.trim()).ok()).find(|message| message["id"] == 1)
}

/// The words for having no room.
fn says_full(text: &str) -> bool {
    ["could not be recorded", "full", "database"].iter().any(|word| text.contains(word))
}
