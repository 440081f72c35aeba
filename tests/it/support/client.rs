//! A client of either era, on rmcp, that remembers what it was told and answers what it is asked.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{HeaderName, HeaderValue};
use rmcp::{
    ClientHandler, Peer, RoleClient,
    model::{
        CallToolRequestParams, CallToolResult, ClientCapabilities, ClientConfig, CreateMessageRequestParams,
        CreateMessageResult, ElicitRequestParams, ElicitResult, ElicitationAction, ErrorData, Implementation,
        JsonObject, ListRootsResult, LoggingMessageNotificationParam, ProgressNotificationParam, ProtocolVersion,
        ResourceUpdatedNotificationParam, Root, SamplingMessage, Tool,
    },
    service::{
        ClientLifecycleMode, ClientServiceExt as _, NotificationContext, RequestContext, RunningService, ServiceError,
    },
    transport::{
        IntoTransport, StreamableHttpClientTransport, Transport,
        streamable_http_client::StreamableHttpClientTransportConfig,
    },
};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};

use super::broker::eventually;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Era {
    Legacy,
    Modern,
}

/// What a client was told, in order.
#[derive(Default)]
pub struct Told {
    pub progress: Vec<f64>,
    pub logs: Vec<String>,
    pub tools_changed: usize,
    pub prompts_changed: usize,
    pub resources_changed: usize,
    pub updated: Vec<String>,
    pub asked: Vec<String>,
}

#[derive(Clone)]
pub struct Handler {
    told: Arc<Mutex<Told>>,
    capabilities: ClientCapabilities,
}

impl Handler {
    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.told.lock().unwrap()
    }
}

impl ClientHandler for Handler {
    fn get_info(&self) -> ClientConfig {
        ClientConfig::new(self.capabilities.clone(), Implementation::new("story", "1.0"))
    }

    async fn on_progress(&self, params: ProgressNotificationParam, _: NotificationContext<RoleClient>) {
        self.told().progress.push(params.progress);
    }

    async fn on_logging_message(&self, params: LoggingMessageNotificationParam, _: NotificationContext<RoleClient>) {
        let text = params.data.as_str().map_or_else(|| params.data.to_string(), str::to_owned);
        self.told().logs.push(text);
    }

    async fn on_tool_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.told().tools_changed += 1;
    }

    async fn on_prompt_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.told().prompts_changed += 1;
    }

    async fn on_resource_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.told().resources_changed += 1;
    }

    async fn on_resource_updated(&self, params: ResourceUpdatedNotificationParam, _: NotificationContext<RoleClient>) {
        self.told().updated.push(params.uri);
    }

    async fn create_elicitation(
        &self,
        request: ElicitRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        let message = serde_json::to_value(&request).unwrap()["message"].as_str().unwrap_or_default().to_owned();
        self.told().asked.push(message);
        let properties = serde_json::to_value(&request).unwrap()["requestedSchema"]["properties"].clone();
        let answers: serde_json::Map<String, Value> =
            properties.as_object().into_iter().flatten().map(|(name, _)| (name.clone(), json!("yes"))).collect();
        Ok(ElicitResult::new(ElicitationAction::Accept).with_content(Value::Object(answers)))
    }

    async fn create_message(
        &self,
        _: CreateMessageRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<CreateMessageResult, ErrorData> {
        self.told().asked.push("sampling".to_owned());
        Ok(CreateMessageResult::new(SamplingMessage::assistant_text("sampled"), "test-model".to_owned()))
    }

    async fn list_roots(&self, _: RequestContext<RoleClient>) -> Result<ListRootsResult, ErrorData> {
        self.told().asked.push("roots".to_owned());
        Ok(ListRootsResult::new(vec![Root::new("file:///story")]))
    }
}

/// A connected client.
pub struct TestClient {
    service: RunningService<RoleClient, Handler>,
    told: Arc<Mutex<Told>>,
}

/// Everything a client can be asked.
pub fn all_capabilities() -> ClientCapabilities {
    serde_json::from_value(json!({"roots": {"listChanged": true}, "sampling": {}, "elicitation": {}})).unwrap()
}

impl TestClient {
    pub async fn http(url: &str, token: Option<&str>, era: Era) -> Self {
        Self::http_with(url, token, era, all_capabilities()).await
    }

    pub async fn http_with(url: &str, token: Option<&str>, era: Era, capabilities: ClientCapabilities) -> Self {
        Self::try_http(url, token, era, capabilities, &[]).await.expect("the client connects")
    }

    /// Connects with further headers, as one that comes back with its `Mcp-Session-Id` does.
    pub async fn try_http(
        url: &str,
        token: Option<&str>,
        era: Era,
        capabilities: ClientCapabilities,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, String> {
        let mut config = StreamableHttpClientTransportConfig::with_uri(url);
        if let Some(token) = token {
            config = config.auth_header(token);
        }
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
            .collect();
        let transport = StreamableHttpClientTransport::from_config(config.custom_headers(headers));
        Self::over(transport, era, capabilities).await
    }

    /// Connects over any transport.
    pub async fn over<T>(transport: T, era: Era, capabilities: ClientCapabilities) -> Result<Self, String>
    where
        T: Transport<RoleClient> + 'static,
    {
        let told = Arc::new(Mutex::new(Told::default()));
        let handler = Handler { told: told.clone(), capabilities };
        let lifecycle = match era {
            Era::Legacy => ClientLifecycleMode::Initialize,
            Era::Modern => ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] },
        };
        let service = handler.serve_with_lifecycle(transport, lifecycle).await.map_err(|error| error.to_string())?;
        Ok(Self { service, told })
    }

    /// Connects over a pair of byte streams.
    pub async fn over_streams<R, W>(streams: (R, W), era: Era, capabilities: ClientCapabilities) -> Result<Self, String>
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let transport = IntoTransport::<RoleClient, _, _>::into_transport(streams);
        Self::over(transport, era, capabilities).await
    }

    pub fn peer(&self) -> &Peer<RoleClient> {
        self.service.peer()
    }

    pub fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.told.lock().unwrap()
    }

    pub async fn tools(&self) -> Vec<Tool> {
        self.peer().list_tools(None).await.expect("tools are listed").tools
    }

    pub async fn tool_names(&self) -> Vec<String> {
        self.tools().await.into_iter().map(|tool| tool.name.into_owned()).collect()
    }

    /// The names of tools that are not the broker's own.
    pub async fn server_tools(&self) -> Vec<String> {
        self.tool_names().await.into_iter().filter(|name| !name.starts_with("mcp-") && name != "code-mode").collect()
    }

    /// Calls a tool, answering whatever it asks.
    pub async fn try_call(&self, name: &str, arguments: Value) -> Result<CallToolResult, ServiceError> {
        let mut params = CallToolRequestParams::new(name.to_owned());
        params.arguments = Some(object(arguments));
        self.service.call_tool(params).await
    }

    pub async fn call(&self, name: &str, arguments: Value) -> Outcome {
        Outcome(self.try_call(name, arguments).await)
    }

    /// Calls a tool and takes it for granted that it works.
    pub async fn ok(&self, name: &str, arguments: Value) -> CallToolResult {
        let outcome = self.call(name, arguments).await;
        match outcome.0 {
            Ok(result) if result.is_error != Some(true) => result,
            other => panic!("{name}: {}", Outcome(other)),
        }
    }

    /// Adds a server and gives back the structured answer.
    pub async fn add(&self, server: &str) -> Value {
        self.ok("mcp-add", json!({"name": server})).await.structured_content.unwrap()
    }

    /// Calls a tool of a session that is known by its handle.
    pub async fn exec(&self, session: Option<&str>, tool: &str, arguments: Value) -> Outcome {
        let mut exec = json!({"name": tool, "arguments": arguments});
        if let Some(session) = session {
            exec["session"] = json!(session);
        }
        self.call("mcp-exec", exec).await
    }

    pub async fn wait_for(&self, what: &str, check: impl Fn(&Told) -> bool) {
        eventually(what, async || check(&self.told())).await;
    }

    pub async fn close(self) {
        let _ = tokio::time::timeout(Duration::from_secs(10), self.service.cancel()).await;
    }
}

pub fn object(value: Value) -> JsonObject {
    match value {
        Value::Object(fields) => fields,
        other => panic!("{other} is no object"),
    }
}

/// A call's outcome, readable in a snapshot.
pub struct Outcome(pub Result<CallToolResult, ServiceError>);

impl Outcome {
    pub fn is_ok(&self) -> bool {
        self.0.as_ref().is_ok_and(|result| result.is_error != Some(true))
    }

    pub fn structured(self) -> Value {
        self.0.expect("the call is answered").structured_content.unwrap_or_default()
    }
}

pub fn text_of(result: &CallToolResult) -> String {
    result
        .content
        .iter()
        .filter_map(|block| block.as_text())
        .map(|text| text.text.as_str())
        .collect::<Vec<_>>()
        .join("\n")
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Ok(result) if result.is_error == Some(true) => write!(formatter, "error: {}", text_of(result)),
            Ok(result) => write!(formatter, "ok: {}", text_of(result)),
            Err(ServiceError::McpError(error)) => {
                write!(formatter, "protocol error {}: {}", error.code.0, error.message)
            }
            Err(other) => write!(formatter, "failed: {other}"),
        }
    }
}
