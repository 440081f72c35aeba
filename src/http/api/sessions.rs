//! Sessions, for programs that make them and people who look at them.

mod document;
mod replay;

use std::sync::Arc;

use axum::{
    Extension, Json, Router,
    extract::{Path, State, rejection::JsonRejection},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use http::{HeaderMap, StatusCode, header};
use rmcp::model::CallToolRequestParams;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Answer, ApiError, ApiState};
use crate::{
    audit::without_secrets,
    caller::Caller,
    ids::{Principal, ServerName, SessionId, Token},
    session::Session,
    store::{
        audit::Query,
        sessions::{SessionKind, SessionRow},
    },
    tools::{Call, ManagementTool, Operation, Reply, Seat},
};

use document::{CodeTool, Document};

/// Records that are shown with a session.
const CALLS_SHOWN: u32 = 10;

pub(super) fn router() -> Router<ApiState> {
    Router::new()
        .route("/sessions", get(list).post(create))
        .route("/sessions/import", post(import))
        .route("/sessions/{id}", get(show).patch(rename).delete(end))
        .route("/sessions/{id}/resume", post(resume))
        .route("/sessions/{id}/export", get(export))
        .route("/sessions/{id}/replay", post(replay::replay))
}

async fn list(State(state): State<ApiState>) -> Answer {
    let rows = state.inner.tools.sessions().list().await?;
    Ok(Json(json!({"sessions": rows.iter().map(session_value).collect::<Vec<_>>()})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct NewSession {
    name: Option<String>,
    /// Each server's config, by the server's name.
    servers: Map<String, Value>,
}

async fn create(
    State(state): State<ApiState>,
    Extension(principal): Extension<Principal>,
    headers: HeaderMap,
    Json(new): Json<NewSession>,
) -> Result<Response, ApiError> {
    let servers = new.servers.into_iter().map(|(name, config)| Wanted { name, config, activate: None }).collect();
    let plan = Plan { name: new.name, servers, code_tools: Vec::new() };
    state.clone().detached(async move { state.create(&principal, &headers, plan).await }).await?
}

async fn show(State(state): State<ApiState>, Path(id): Path<SessionId>) -> Answer {
    let inner = &state.inner;
    let session = state.session(&id).await?;
    let caller = Caller::internal(session.principal().clone());
    let listed = state.manage(&session, caller, ManagementTool::List, Map::new()).await;
    let servers = listed.map(|content| content["servers"].clone()).unwrap_or_default();
    let configs: Map<String, Value> = session
        .configs()
        .into_iter()
        .map(|(server, config)| (server.to_string(), without_secrets(&Value::Object(config))))
        .collect();
    let of_session = Query { session: Some(id.clone()), ..Query::default() };
    let calls = inner.audit.records(&of_session, CALLS_SHOWN).await?;
    Ok(Json(json!({
        "id": id,
        "kind": session.kind(),
        "name": session.name(),
        "principal": session.principal().to_string(),
        "created_at": session.created_at().to_string(),
        "used_at": session.used_at().to_string(),
        "connected": session.connected(),
        "servers": servers,
        "configs": configs,
        "secrets": inner.secrets.names_of(&id),
        "code_tools": session.code_tools(),
        "calls": calls,
    })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Renamed {
    name: String,
}

async fn rename(State(state): State<ApiState>, Path(id): Path<SessionId>, Json(renamed): Json<Renamed>) -> Answer {
    let session = state.session(&id).await?;
    state.inner.tools.sessions().rename(&session, renamed.name).await?;
    Ok(Json(json!({"id": id, "name": session.name()})))
}

/// Says how to go on with a session, with a new token: the one it had is kept as a hash only.
async fn resume(State(state): State<ApiState>, Path(id): Path<SessionId>, headers: HeaderMap) -> Answer {
    let session = state.session(&id).await?;
    if session.kind() == SessionKind::Process {
        let message = "the session ends with the process it belongs to: nothing else can go on with it";
        return Err(ApiError::new(StatusCode::CONFLICT, message));
    }
    let token = Token::random();
    state.inner.tools.sessions().give_token(&session, token.hash()).await?;
    Ok(Json(json!({"id": id, "mcp_url": state.mcp_url(&session, &headers), "mcp_token": token.reveal()})))
}

async fn export(State(state): State<ApiState>, Path(id): Path<SessionId>) -> Result<Json<Document>, ApiError> {
    let session = state.session(&id).await?;
    Ok(Json(Document::of(&session, state.inner.secrets.names_of(&id))))
}

async fn import(
    State(state): State<ApiState>,
    Extension(principal): Extension<Principal>,
    headers: HeaderMap,
    document: Result<Json<Document>, JsonRejection>,
) -> Result<Response, ApiError> {
    let Json(document) = document?;
    let plan = document.into_plan()?;
    state.clone().detached(async move { state.create(&principal, &headers, plan).await }).await?
}

async fn end(State(state): State<ApiState>, Path(id): Path<SessionId>) -> Result<StatusCode, ApiError> {
    if state.inner.tools.sessions().end(&id, "ended by the operator").await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(ApiError::no_session())
    }
}

/// What a new session is to be.
struct Plan {
    name: Option<String>,
    servers: Vec<Wanted>,
    code_tools: Vec<CodeTool>,
}

/// A server that a new session is to have.
struct Wanted {
    name: String,
    config: Value,
    activate: Option<Value>,
}

impl ApiState {
    pub(super) async fn session(&self, id: &SessionId) -> Result<Arc<Session>, ApiError> {
        self.inner.tools.sessions().get(id).await?.ok_or_else(ApiError::no_session)
    }

    /// Makes a session with these servers and code tools, or none at all.
    async fn create(&self, principal: &Principal, headers: &HeaderMap, plan: Plan) -> Result<Response, ApiError> {
        let Plan { name, servers, code_tools } = plan;
        let token = Token::random();
        let kind = if name.is_some() { SessionKind::Named } else { SessionKind::Url };
        let sessions = self.inner.tools.sessions();
        let session = sessions.create(kind, principal.clone(), name, Some(token.hash())).await?;
        let order: Vec<ServerName> = servers.iter().filter_map(|wanted| wanted.name.parse().ok()).collect();
        let mut added = Vec::new();
        let mut problems = Vec::new();
        let adding = servers.into_iter().map(|wanted| self.add(&session, principal, wanted));
        for outcome in futures_util::future::join_all(adding).await {
            match outcome {
                Ok(server) => added.push(server),
                Err(problem) => problems.push(problem),
            }
        }
        // Their servers have to be on.
        let code_tools = if problems.is_empty() { code_tools } else { Vec::new() };
        for tool in code_tools {
            let caller = Caller::internal(principal.clone());
            let arguments = tool.arguments();
            if let Err(problem) = self.manage(&session, caller, ManagementTool::CodeMode, arguments).await {
                problems.push(json!({"name": format!("code-mode-{}", tool.name), "problem": problem}));
            }
        }
        if !problems.is_empty() {
            sessions.end(session.id(), "its servers could not be added").await?;
            let message = "no session was made, because not all of its servers could be added".to_owned();
            let details = Some(json!({"servers": problems}));
            return Err(ApiError { status: StatusCode::UNPROCESSABLE_ENTITY, message, details });
        }
        sessions.arrange(&session, order).await?;
        let body = json!({
            "id": session.id(),
            "mcp_url": self.mcp_url(&session, headers),
            "mcp_token": token.reveal(),
            "servers": added,
        });
        Ok((StatusCode::CREATED, Json(body)).into_response())
    }

    async fn add(&self, session: &Arc<Session>, principal: &Principal, wanted: Wanted) -> Result<Value, Value> {
        let Wanted { name, config, activate } = wanted;
        let mut arguments = Map::from_iter([("name".to_owned(), json!(name))]);
        if config.as_object().is_some_and(|config| !config.is_empty()) {
            arguments.insert("config".to_owned(), config);
        }
        if let Some(activate) = activate {
            arguments.insert("activate".to_owned(), activate);
        }
        let caller = Caller::internal(principal.clone());
        match self.manage(session, caller, ManagementTool::Add, arguments).await {
            Ok(content) => Ok(json!({"name": name, "state": content["state"]})),
            Err(problem) => Err(json!({"name": name, "problem": problem})),
        }
    }

    /// Has one of the broker's own tools do something, recorded as any call.
    pub(super) async fn manage(
        &self,
        session: &Arc<Session>,
        caller: Caller,
        tool: ManagementTool,
        arguments: Map<String, Value>,
    ) -> Result<Value, String> {
        let params = CallToolRequestParams::new(tool.name()).with_arguments(arguments);
        let operation = Operation::Management(tool, Box::new(params));
        let call = Call { seat: Seat::Fixed(session.clone()), caller, operation, parent: None };
        match self.inner.tools.dispatch(call).await {
            Ok(Reply::CallToolResult(result)) if result.is_error == Some(true) => {
                let text = result.content.iter().find_map(|block| block.as_text()).map(|text| text.text.clone());
                Err(text.unwrap_or_else(|| "it failed without saying why".to_owned()))
            }
            Ok(Reply::CallToolResult(result)) => Ok(result.structured_content.unwrap_or_default()),
            Ok(_) => Err("it answered with something unexpected".to_owned()),
            Err(error) => Err(error.message.into_owned()),
        }
    }

    /// Where a client reaches the session: by the address this request came to, or the listener's own.
    fn mcp_url(&self, session: &Session, headers: &HeaderMap) -> Option<String> {
        let configured = self.inner.base_url.get().cloned();
        let asked = headers.get(header::HOST).and_then(|host| host.to_str().ok()).map(|host| format!("http://{host}"));
        let base = if configured.is_some() { asked.filter(|url| url != "http://broker").or(configured) } else { None };
        base.map(|base| format!("{base}/s/{}/mcp", session.id()))
    }
}

fn session_value(row: &SessionRow) -> Value {
    json!({
        "id": row.id,
        "kind": row.kind,
        "name": row.name,
        "principal": row.principal.to_string(),
        "created_at": row.created_at.to_string(),
        "used_at": row.used_at.to_string(),
    })
}
