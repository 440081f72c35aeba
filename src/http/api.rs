//! The REST interface, for programs and for the command line.
//!
//! JSON in and out. An error is `{"error": {"message": "…"}}` with a status that says what kind it is: 400 malformed,
//! 404 no such thing, 409 in the way of something else, 422 understood and not possible, 503 the database does not answer.

mod audit;
mod catalog;
mod compose;
mod logs;
mod openapi;
mod profiles;
mod servers;
mod sessions;
mod tools;
mod upkeep;

use std::sync::{Arc, OnceLock};

use axum::{
    Extension, Json, Router,
    extract::{Path, State},
    response::Response,
};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    audit::{Audit, Kind, Signer, Status, Subject},
    catalog::{Catalog, Sources, sources::SourceError},
    clock::{SharedClock, Timestamp},
    features::SetFeatureError,
    ids::{Principal, TokenHash},
    secrets::{Scope, Secrets, SetSecretError},
    session::SessionsError,
    store::{Store, StoreError},
    supervisor::{Supervisor, upstream::chain},
    tools::Tools,
};

/// What the interface works with. Clones share it.
#[derive(Clone)]
pub struct ApiState {
    inner: Arc<Inner>,
}

struct Inner {
    tools: Tools,
    supervisor: Arc<Supervisor>,
    catalog: Arc<Catalog>,
    sources: Arc<Sources>,
    secrets: Arc<Secrets>,
    audit: Audit,
    signer: Signer,
    store: Store,
    clock: SharedClock,
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
    pub sources: Arc<Sources>,
    pub secrets: Arc<Secrets>,
    pub audit: Audit,
    pub signer: Signer,
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
            sources: parts.sources,
            secrets: parts.secrets,
            audit: parts.audit,
            signer: parts.signer,
            store: parts.store,
            clock: parts.clock,
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
    documented().split_for_parts().0.with_state(state)
}

/// Every route with its description: a route cannot be added without one.
fn documented() -> OpenApiRouter<ApiState> {
    OpenApiRouter::with_openapi(openapi::base())
        .routes(routes!(status))
        .routes(routes!(features))
        .routes(routes!(set_feature))
        .routes(routes!(secrets))
        .routes(routes!(set_secret, remove_secret))
        .routes(routes!(openapi::document))
        .merge(sessions::router())
        .merge(servers::router())
        .merge(audit::router())
        .merge(upkeep::router())
        .merge(tools::router())
        .merge(logs::router())
        .merge(catalog::router())
        .merge(profiles::router())
        .merge(compose::router())
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
            SessionsError::InvalidName | SessionsError::InvalidLabel | SessionsError::InvalidTtl { .. } => {
                StatusCode::BAD_REQUEST
            }
            SessionsError::Ended => return Self::no_session(),
            SessionsError::Store(_) | SessionsError::Audit(_) | SessionsError::Unfinished => {
                StatusCode::SERVICE_UNAVAILABLE
            }
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

impl From<SourceError> for ApiError {
    fn from(error: SourceError) -> Self {
        let status = match &error {
            SourceError::Name(_) | SourceError::Relative(_) => StatusCode::BAD_REQUEST,
            SourceError::Unknown(_) => StatusCode::NOT_FOUND,
            SourceError::Taken(_) | SourceError::TooMany => StatusCode::CONFLICT,
            SourceError::Fetch(_)
            | SourceError::Listing(_)
            | SourceError::File(_)
            | SourceError::TooSlow(_)
            | SourceError::Nothing(_) => StatusCode::UNPROCESSABLE_ENTITY,
            SourceError::Index(_)
            | SourceError::Store(_)
            | SourceError::Disk(_)
            | SourceError::Client(_)
            | SourceError::CutOff => StatusCode::SERVICE_UNAVAILABLE,
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

/// Says what runs, and where.
#[utoipa::path(
    get,
    path = "/status",
    tag = "broker",
    operation_id = "broker_status",
    responses((status = 200, description = "The broker", body = Object)),
)]
async fn status(State(state): State<ApiState>) -> Answer {
    let inner = &state.inner;
    let snapshot = inner.catalog.snapshot();
    let running: Vec<Value> = inner
        .supervisor
        .instances()
        .iter()
        .map(|(key, state)| json!({"session": key.session, "server": key.server, "state": state}))
        .collect();
    Ok(Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "started_at": inner.started_at.to_string(),
        "url": inner.base_url.get(),
        "sessions": inner.tools.sessions().list().await?.len(),
        "instances": inner.supervisor.running(),
        "running": running,
        "catalog": {"servers": snapshot.len(), "problems": snapshot.problems().len()},
    })))
}

/// Lists the features, and which are on.
#[utoipa::path(
    get,
    path = "/features",
    tag = "features",
    operation_id = "broker_features",
    responses((status = 200, description = "The features", body = Object)),
)]
async fn features(State(state): State<ApiState>) -> Answer {
    Ok(Json(json!({"features": state.inner.tools.features().states()})))
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct FeatureChange {
    enabled: bool,
}

/// Switches a feature, for every connected client at once.
#[utoipa::path(
    put,
    path = "/features/{name}",
    tag = "features",
    operation_id = "broker_set_feature",
    params(("name" = String, Path)),
    request_body = FeatureChange,
    responses((status = 200, description = "The features", body = Object)),
)]
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

/// Lists the names of the operator's secrets.
#[utoipa::path(
    get,
    path = "/secrets",
    tag = "secrets",
    operation_id = "broker_secrets",
    responses((status = 200, description = "The names", body = Object)),
)]
async fn secrets(State(state): State<ApiState>) -> Answer {
    Ok(Json(json!({"secrets": state.inner.secrets.names()})))
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct SecretChange {
    value: String,
}

/// Keeps a secret, encrypted.
#[utoipa::path(
    put,
    path = "/secrets/{name}",
    tag = "secrets",
    operation_id = "broker_set_secret",
    params(("name" = String, Path)),
    request_body = SecretChange,
    responses((status = 200, description = "The names", body = Object)),
)]
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

/// Forgets a secret.
#[utoipa::path(
    delete,
    path = "/secrets/{name}",
    tag = "secrets",
    operation_id = "broker_remove_secret",
    params(("name" = String, Path)),
    responses((status = 200, description = "The names", body = Object)),
)]
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

impl ApiState {
    /// Runs something to its end, also when whoever asked for it hangs up: records are closed and sessions ended.
    async fn detached<T, F>(&self, work: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        self.inner.tools.tasks().spawn(work).await.map_err(|_| {
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "the broker stopped, or failed, while it did this")
        })
    }

    /// Records something that is done on a principal's word, before it is done.
    async fn recorded(&self, kind: Kind, principal: &Principal, name: &str) -> Result<(), ApiError> {
        let subject =
            Subject { kind, parent: None, session: None, principal, client: None, server: None, name, trace: None };
        self.inner.audit.note(&subject, Status::Success, None).await.map_err(|error| {
            let message = format!("nothing was done, because it could not be recorded: {}", chain(&error));
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message)
        })
    }
}
