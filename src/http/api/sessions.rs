//! Sessions, for programs that make them and people who look at them.

mod document;
mod ends;
mod new;
mod pages;
mod replay;

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{
        Path, Query, State,
        rejection::{JsonRejection, QueryRejection},
    },
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, StatusCode, header};
use rmcp::model::CallToolRequestParams;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Answer, ApiError, ApiState};
use crate::{
    audit::without_secrets,
    caller::Caller,
    ids::{Principal, SessionId, Token},
    session::Session,
    store::{
        audit::Query as Records,
        sessions::{SessionKind, SessionRow},
    },
    tools::{Call, ManagementTool, Operation, Reply, Seat},
};

use document::Document;
use new::{SessionMade, Wait};

/// Records that are shown with a session.
const CALLS_SHOWN: u32 = 10;

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(pages::list, new::create))
        .routes(routes!(import))
        .routes(routes!(show, rename, end))
        .routes(routes!(resume))
        .routes(routes!(ends::token))
        .routes(routes!(ends::extend))
        .routes(routes!(export))
        .routes(routes!(replay::replay))
}

/// Shows a session: its servers and how they stand, their config without secrets, its last calls.
#[utoipa::path(
    get,
    path = "/sessions/{id}",
    tag = "sessions",
    operation_id = "session_show",
    params(("id" = String, Path, description = "The session's id"), Wait),
    responses((status = 200, description = "The session", body = Object)),
)]
async fn show(
    State(state): State<ApiState>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<SessionId>,
    headers: HeaderMap,
    wait: Result<Query<Wait>, QueryRejection>,
) -> Answer {
    let Query(wait) = wait?;
    let inner = &state.inner;
    let session = state.session(&id).await?;
    if let Some(limit) = wait.limit()? {
        inner.tools.bring_up(&session, &Caller::internal(principal), limit).await;
    }
    let caller = Caller::internal(session.principal().clone());
    let listed = state.manage(&session, caller, ManagementTool::List, Map::new()).await;
    let mut servers = listed.map(|content| content["servers"].clone()).unwrap_or_default();
    for standing in inner.tools.standings(&session) {
        let row = servers.as_array_mut().into_iter().flatten().find(|row| row["name"] == *standing.name);
        if let (Some(Value::Object(row)), Ok(Value::Object(standing))) = (row, serde_json::to_value(standing)) {
            row.extend(standing);
        }
    }
    let configs: Map<String, Value> = session
        .configs()
        .into_iter()
        .map(|(server, config)| (server.to_string(), without_secrets(&Value::Object(config))))
        .collect();
    let of_session = Records { session: Some(id.clone()), ..Records::default() };
    let calls = inner.audit.records(&of_session, CALLS_SHOWN).await?;
    Ok(Json(json!({
        "id": id,
        "kind": session.kind(),
        "name": session.name(),
        "label": session.label(),
        "principal": session.principal().to_string(),
        "created_at": session.created_at().to_string(),
        "used_at": session.used_at().to_string(),
        "expires_at": session.expires_at().map(|at| at.to_string()),
        "mcp_url": state.mcp_url(&session, &headers),
        "connected": session.connected(),
        "servers": servers,
        "configs": configs,
        "secrets": inner.secrets.names_of(&id),
        "code_tools": session.code_tools(),
        "calls": calls,
    })))
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct Renamed {
    name: String,
}

/// Gives a session a name.
#[utoipa::path(
    patch,
    path = "/sessions/{id}",
    tag = "sessions",
    operation_id = "session_rename",
    params(("id" = String, Path, description = "The session's id")),
    request_body = Renamed,
    responses((status = 200, description = "Its name", body = Object)),
)]
async fn rename(State(state): State<ApiState>, Path(id): Path<SessionId>, Json(renamed): Json<Renamed>) -> Answer {
    let session = state.session(&id).await?;
    state.inner.tools.sessions().rename(&session, renamed.name).await?;
    Ok(Json(json!({"id": id, "name": session.name()})))
}

/// Says how to go on with a session, with a new token: the one it had is kept as a hash only.
#[utoipa::path(
    post,
    path = "/sessions/{id}/resume",
    tag = "sessions",
    operation_id = "session_resume",
    params(("id" = String, Path, description = "The session's id")),
    responses((status = 200, description = "Its URL and token", body = Object)),
)]
async fn resume(State(state): State<ApiState>, Path(id): Path<SessionId>, headers: HeaderMap) -> Answer {
    let session = state.session(&id).await?;
    if session.kind() == SessionKind::Process {
        let message = "the session ends with the process it belongs to: nothing else can go on with it";
        return Err(ApiError::new(StatusCode::CONFLICT, message));
    }
    let token = Token::random();
    state.inner.tools.sessions().give_token(&session, token.hash()).await?;
    Ok(Json(json!({
        "id": id,
        "mcp_url": state.mcp_url(&session, &headers),
        "mcp_token": token.reveal(),
        "expires_at": session.expires_at().map(|at| at.to_string()),
    })))
}

/// Writes a session down, without secrets, for another broker.
#[utoipa::path(
    get,
    path = "/sessions/{id}/export",
    tag = "sessions",
    operation_id = "session_export",
    params(("id" = String, Path, description = "The session's id")),
    responses((status = 200, description = "The document", body = Document)),
)]
async fn export(State(state): State<ApiState>, Path(id): Path<SessionId>) -> Result<Json<Document>, ApiError> {
    let session = state.session(&id).await?;
    Ok(Json(Document::of(&session, state.inner.secrets.names_of(&id))))
}

/// Makes a session from what was exported.
#[utoipa::path(
    post,
    path = "/sessions/import",
    tag = "sessions",
    operation_id = "session_import",
    request_body = Document,
    responses((status = 201, description = "The session", body = SessionMade)),
)]
async fn import(
    State(state): State<ApiState>,
    Extension(principal): Extension<Principal>,
    headers: HeaderMap,
    document: Result<Json<Document>, JsonRejection>,
) -> Result<Response, ApiError> {
    let Json(document) = document?;
    let plan = document.into_plan()?;
    let made = state.make(principal, plan).await?;
    Ok((StatusCode::CREATED, Json(made.answer(&headers))).into_response())
}

/// Ends a session: its servers stop, its history stays.
#[utoipa::path(
    delete,
    path = "/sessions/{id}",
    tag = "sessions",
    operation_id = "session_end",
    params(("id" = String, Path, description = "The session's id")),
    responses((status = 204, description = "It has ended")),
)]
async fn end(State(state): State<ApiState>, Path(id): Path<SessionId>) -> Result<StatusCode, ApiError> {
    if state.inner.tools.sessions().end(&id, "ended by the operator").await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(ApiError::no_session())
    }
}

impl ApiState {
    pub(super) async fn session(&self, id: &SessionId) -> Result<Arc<Session>, ApiError> {
        self.inner.tools.sessions().get(id).await?.ok_or_else(ApiError::no_session)
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
        self.outcome(Call { seat: Seat::Fixed(session.clone()), caller, operation, parent: None }).await
    }

    async fn outcome(&self, call: Call) -> Result<Value, String> {
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
        "label": row.label,
        "principal": row.principal.to_string(),
        "created_at": row.created_at.to_string(),
        "used_at": row.used_at.to_string(),
        "expires_at": row.expires_at.map(|at| at.to_string()),
    })
}
