//! The REST interface, for programs and for the command line.
//!
//! JSON in and out. An error is `{"error": {"message": "…"}}` with a status that says what kind it is: 400 malformed,
//! 404 no such thing, 409 in the way of something else, 422 understood and not possible, 503 the database does not answer.

use std::sync::{Arc, OnceLock};

use axum::{
    Extension, Json, Router,
    extract::{Path, Query, State},
    response::{IntoResponse as _, Response},
    routing::{get, put},
};
use http::{HeaderMap, StatusCode, header};
use rmcp::model::CallToolRequestParams;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    audit::{Audit, Kind, Status, Subject},
    caller::Caller,
    catalog::Catalog,
    clock::{SharedClock, Timestamp},
    features::SetFeatureError,
    ids::{Principal, ServerName, SessionId, Token, TokenHash},
    secrets::{Scope, Secrets, SetSecretError},
    session::{Session, SessionsError},
    store::{
        Store, StoreError,
        audit::{Query as AuditQuery, Verification},
        sessions::{SessionKind, SessionRow},
    },
    supervisor::{Supervisor, upstream::chain},
    tools::{Call, ManagementTool, Operation, Reply, Seat, Tools},
};

/// Records in one answer.
const RECORDS_MAX: u32 = 10_000;

/// What the interface works with. Clones share it.
#[derive(Clone)]
pub struct ApiState {
    inner: Arc<Inner>,
}

struct Inner {
    tools: Tools,
    supervisor: Arc<Supervisor>,
    catalog: Arc<Catalog>,
    secrets: Arc<Secrets>,
    audit: Audit,
    store: Store,
    token: TokenHash,
    started_at: Timestamp,
    /// Where clients reach the HTTP listener, once there is one.
    base_url: OnceLock<String>,
}

/// What [`ApiState`] is made from.
pub struct ApiParts {
    pub tools: Tools,
    pub supervisor: Arc<Supervisor>,
    pub catalog: Arc<Catalog>,
    pub secrets: Arc<Secrets>,
    pub audit: Audit,
    pub store: Store,
    pub clock: SharedClock,
    pub token: TokenHash,
}

impl ApiState {
    #[must_use]
    pub fn new(parts: ApiParts) -> Self {
        let started_at = parts.clock.now();
        let inner = Inner {
            tools: parts.tools,
            supervisor: parts.supervisor,
            catalog: parts.catalog,
            secrets: parts.secrets,
            audit: parts.audit,
            store: parts.store,
            token: parts.token,
            started_at,
            base_url: OnceLock::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    pub(super) fn token_hash(&self) -> TokenHash {
        self.inner.token
    }

    /// Says where clients reach the HTTP listener.
    pub fn set_base_url(&self, url: String) {
        let _ = self.inner.base_url.set(url);
    }
}

pub(super) fn router(state: ApiState) -> Router {
    Router::new()
        .route("/status", get(status))
        .route("/features", get(features))
        .route("/features/{name}", put(set_feature))
        .route("/secrets", get(secrets))
        .route("/secrets/{name}", put(set_secret).delete(remove_secret))
        .route("/sessions", get(sessions).post(create_session))
        .route("/sessions/{id}", get(show_session).delete(end_session))
        .route("/audit", get(audit))
        .route("/audit/verify", get(verify_audit))
        .with_state(state)
}

/// Why a request is not done.
struct ApiError {
    status: StatusCode,
    message: String,
    details: Option<Value>,
}

impl ApiError {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), details: None }
    }

    fn no_session() -> Self {
        Self::new(StatusCode::NOT_FOUND, "there is no such session, or it has ended")
    }
}

impl axum::response::IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut error = json!({"message": self.message});
        if let Some(details) = self.details {
            error["details"] = details;
        }
        (self.status, Json(json!({"error": error}))).into_response()
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, chain(&error))
    }
}

impl From<SessionsError> for ApiError {
    fn from(error: SessionsError) -> Self {
        let status = match &error {
            SessionsError::TooMany { .. } | SessionsError::NameTaken { .. } => StatusCode::CONFLICT,
            SessionsError::InvalidName => StatusCode::BAD_REQUEST,
            SessionsError::Store(_) | SessionsError::Audit(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, chain(&error))
    }
}

impl From<SetFeatureError> for ApiError {
    fn from(error: SetFeatureError) -> Self {
        let status = match &error {
            SetFeatureError::Unknown { .. } => StatusCode::NOT_FOUND,
            SetFeatureError::Locked { .. } => StatusCode::CONFLICT,
            SetFeatureError::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, chain(&error))
    }
}

impl From<SetSecretError> for ApiError {
    fn from(error: SetSecretError) -> Self {
        let status = match &error {
            SetSecretError::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_REQUEST,
        };
        Self::new(status, chain(&error))
    }
}

type Answer = Result<Json<Value>, ApiError>;

async fn status(State(state): State<ApiState>) -> Answer {
    let inner = &state.inner;
    let snapshot = inner.catalog.snapshot();
    Ok(Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "started_at": inner.started_at.to_string(),
        "url": inner.base_url.get(),
        "sessions": inner.tools.sessions().list().await?.len(),
        "instances": inner.supervisor.running(),
        "catalog": {"servers": snapshot.entries().len(), "problems": snapshot.problems().len()},
    })))
}

async fn features(State(state): State<ApiState>) -> Answer {
    Ok(Json(json!({"features": state.inner.tools.features().states()})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FeatureChange {
    enabled: bool,
}

async fn set_feature(
    State(state): State<ApiState>,
    Extension(principal): Extension<Principal>,
    Path(name): Path<String>,
    Json(change): Json<FeatureChange>,
) -> Answer {
    let inner = &state.inner;
    let what = format!("{} {name}", if change.enabled { "enable" } else { "disable" });
    state.recorded(Kind::Feature, &principal, &what).await?;
    inner.tools.features().set(&name, change.enabled).await?;
    features(State(state)).await
}

async fn secrets(State(state): State<ApiState>) -> Answer {
    Ok(Json(json!({"secrets": state.inner.secrets.names()})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SecretChange {
    value: String,
}

async fn set_secret(
    State(state): State<ApiState>,
    Extension(principal): Extension<Principal>,
    Path(name): Path<String>,
    Json(change): Json<SecretChange>,
) -> Answer {
    state.recorded(Kind::Secret, &principal, &format!("set {name}")).await?;
    state.inner.secrets.set(Scope::EverySession, &name, change.value.into()).await?;
    secrets(State(state)).await
}

async fn remove_secret(
    State(state): State<ApiState>,
    Extension(principal): Extension<Principal>,
    Path(name): Path<String>,
) -> Answer {
    state.recorded(Kind::Secret, &principal, &format!("remove {name}")).await?;
    if !state.inner.secrets.remove(Scope::EverySession, &name).await? {
        return Err(ApiError::new(StatusCode::NOT_FOUND, format!("there is no secret `{name}`")));
    }
    secrets(State(state)).await
}

async fn sessions(State(state): State<ApiState>) -> Answer {
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

async fn create_session(
    State(state): State<ApiState>,
    Extension(principal): Extension<Principal>,
    headers: HeaderMap,
    Json(new): Json<NewSession>,
) -> Result<Response, ApiError> {
    let inner = &state.inner;
    let token = Token::random();
    let kind = if new.name.is_some() { SessionKind::Named } else { SessionKind::Url };
    let sessions = inner.tools.sessions();
    let session = sessions.create(kind, principal.clone(), new.name, Some(token.hash())).await?;
    let order: Vec<ServerName> = new.servers.keys().filter_map(|name| name.parse().ok()).collect();
    let mut added = Vec::new();
    let mut problems = Vec::new();
    let adding = new.servers.into_iter().map(|(name, config)| state.add(&session, &principal, name, config));
    for outcome in futures_util::future::join_all(adding).await {
        match outcome {
            Ok(server) => added.push(server),
            Err(problem) => problems.push(problem),
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
        "mcp_url": state.mcp_url(&session, &headers),
        "mcp_token": token.reveal(),
        "servers": added,
    });
    Ok((StatusCode::CREATED, Json(body)).into_response())
}

async fn show_session(State(state): State<ApiState>, Path(id): Path<SessionId>) -> Answer {
    let inner = &state.inner;
    let session = inner.tools.sessions().get(&id).await?.ok_or_else(ApiError::no_session)?;
    let caller = Caller::internal(session.principal().clone());
    let listed = state.manage(&session, caller, ManagementTool::List, Map::new()).await;
    let servers = listed.map(|content| content["servers"].clone()).unwrap_or_default();
    Ok(Json(json!({
        "id": id,
        "kind": session.kind(),
        "name": session.name(),
        "principal": session.principal().to_string(),
        "created_at": session.created_at().to_string(),
        "used_at": session.used_at().to_string(),
        "connected": session.connected(),
        "servers": servers,
    })))
}

async fn end_session(State(state): State<ApiState>, Path(id): Path<SessionId>) -> Result<StatusCode, ApiError> {
    if state.inner.tools.sessions().end(&id, "ended by the operator").await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(ApiError::no_session())
    }
}

#[derive(Deserialize)]
struct AuditParameters {
    session: Option<SessionId>,
    limit: Option<u32>,
}

async fn audit(State(state): State<ApiState>, Query(parameters): Query<AuditParameters>) -> Answer {
    let limit = parameters.limit.unwrap_or(100).min(RECORDS_MAX);
    let query = AuditQuery { session: parameters.session, limit };
    let records = state.inner.store.audit_records(&query).await?;
    Ok(Json(json!({"records": records})))
}

async fn verify_audit(State(state): State<ApiState>) -> Answer {
    Ok(Json(match state.inner.store.verify_audit().await? {
        Verification::Intact { events, last_hash } => json!({"intact": true, "events": events, "last_hash": last_hash}),
        Verification::Broken { seq, problem } => json!({"intact": false, "event": seq, "problem": problem}),
    }))
}

impl ApiState {
    /// Records something that is done on a principal's word, before it is done.
    async fn recorded(&self, kind: Kind, principal: &Principal, name: &str) -> Result<(), ApiError> {
        let subject = Subject { kind, parent: None, session: None, principal, client: None, server: None, name };
        self.inner.audit.note(&subject, Status::Success, None).await.map_err(|error| {
            let message = format!("nothing was done, because it could not be recorded: {}", chain(&error));
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message)
        })
    }

    async fn add(
        &self,
        session: &Arc<Session>,
        principal: &Principal,
        name: String,
        config: Value,
    ) -> Result<Value, Value> {
        let mut arguments = Map::from_iter([("name".to_owned(), json!(name))]);
        if config.as_object().is_some_and(|config| !config.is_empty()) {
            arguments.insert("config".to_owned(), config);
        }
        let caller = Caller::internal(principal.clone());
        match self.manage(session, caller, ManagementTool::Add, arguments).await {
            Ok(content) => Ok(json!({"name": name, "state": content["state"]})),
            Err(problem) => Err(json!({"name": name, "problem": problem})),
        }
    }

    /// Has one of the broker's own tools do something, recorded as any call.
    async fn manage(
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
