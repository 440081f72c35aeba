//! A client of the older era whose messages are posted one by one: its `Mcp-Session-Id` is known, and it keeps no stream open.

use serde_json::{Value, json};

pub struct ByHand {
    pub url: String,
    pub token: String,
    pub connection: String,
}

impl ByHand {
    /// Shakes hands with the MCP endpoint at `url`.
    pub async fn connect(url: &str, token: &str) -> Self {
        let client = Self::initialize(url, token).await;
        client.send(json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await;
        client
    }

    /// Begins to, and says no more.
    pub async fn initialize(url: &str, token: &str) -> Self {
        let mut client = Self { url: url.to_owned(), token: token.to_owned(), connection: String::new() };
        let initialize = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "hand", "version": "1"}}});
        let response = client.send(initialize).await;
        client.connection = response.headers()["mcp-session-id"].to_str().unwrap().to_owned();
        client
    }

    pub async fn send(&self, message: Value) -> reqwest::Response {
        let mut request = reqwest::Client::new()
            .post(&self.url)
            .bearer_auth(&self.token)
            .header("accept", "application/json, text/event-stream")
            .json(&message);
        if !self.connection.is_empty() {
            request = request.header("mcp-session-id", &self.connection);
        }
        request.send().await.unwrap()
    }

    /// What a tool answers, as it comes.
    pub async fn call(&self, tool: &str, arguments: Value) -> String {
        let params = json!({"name": tool, "arguments": arguments});
        let response = self.send(json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params})).await;
        assert!(response.status().is_success(), "{tool}: {}", response.status());
        response.text().await.unwrap()
    }
}
