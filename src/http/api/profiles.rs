//! `/v1/profiles`: profiles, and putting one into a session.

use axum::{
    Extension, Json, Router,
    extract::{Path, State},
    routing::{get, post},
};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Answer, ApiError, ApiState};
use crate::{
    audit::Kind,
    caller::Caller,
    ids::{Principal, SessionId},
    profiles::{Profile, ProfilesError, document::Draft},
    supervisor::upstream::chain,
    tools::ManagementTool,
};

pub(super) fn router() -> Router<ApiState> {
    Router::new()
        .route("/profiles", get(list).post(create))
        .route("/profiles/import", post(import))
        .route("/profiles/{name}", get(show).delete(remove))
        .route("/profiles/{name}/export", get(export))
        .route("/profiles/{name}/apply", post(apply))
}

impl From<ProfilesError> for ApiError {
    fn from(error: ProfilesError) -> Self {
        let status = match &error {
            ProfilesError::Unknown { .. } => StatusCode::NOT_FOUND,
            ProfilesError::Taken { .. } | ProfilesError::TooMany => StatusCode::CONFLICT,
            ProfilesError::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, chain(&error))
    }
}

async fn list(State(state): State<ApiState>) -> Answer {
    let profiles = state.inner.tools.profiles().list().await?;
    Ok(Json(json!({"profiles": profiles.iter().map(Profile::to_value).collect::<Vec<_>>()})))
}

async fn show(State(state): State<ApiState>, Path(name): Path<String>) -> Answer {
    let profile = state.inner.tools.profiles().get(&name).await?;
    let mut value = profile.to_value();
    value["secrets"] = json!(state.inner.tools.secrets_of(&profile.servers));
    Ok(Json(value))
}

async fn export(State(state): State<ApiState>, Path(name): Path<String>) -> Answer {
    let profile = state.inner.tools.profiles().get(&name).await?;
    Ok(Json(profile.to_document(&state.inner.tools.secrets_of(&profile.servers))))
}

/// Makes one of named servers, or (`session`) of those of a session.
async fn create(
    State(state): State<ApiState>,
    Extension(principal): Extension<Principal>,
    Json(request): Json<Value>,
) -> Answer {
    if let Some(session) = request.get("session") {
        return of_session(&state, &principal, session, &request).await;
    }
    keep(&state, &principal, Draft::of_request(&request)).await
}

async fn import(
    State(state): State<ApiState>,
    Extension(principal): Extension<Principal>,
    Json(document): Json<Value>,
) -> Answer {
    keep(&state, &principal, Draft::of_document(&document)).await
}

/// Keeps a profile, or tells everything that is wrong with it.
async fn keep(state: &ApiState, principal: &Principal, draft: Draft) -> Answer {
    let tools = &state.inner.tools;
    let mut problems = draft.problems;
    problems.extend(tools.profile_problems(&draft.servers).iter().map(ToString::to_string));
    let profile = match draft.name {
        Some(name) if problems.is_empty() => Profile { name, description: draft.description, servers: draft.servers },
        _ => {
            let message = "no profile was made".to_owned();
            let details = Some(json!({"problems": problems}));
            return Err(ApiError { status: StatusCode::UNPROCESSABLE_ENTITY, message, details });
        }
    };
    state.recorded(Kind::Profile, principal, &format!("create {}", profile.name)).await?;
    let mut value = profile.to_value();
    value["secrets"] = json!(tools.secrets_of(&profile.servers));
    tools.profiles().create(profile).await?;
    Ok(Json(value))
}

async fn of_session(state: &ApiState, principal: &Principal, session: &Value, request: &Value) -> Answer {
    let id: Option<SessionId> = session.as_str().and_then(|id| id.parse().ok());
    let session = state.session(&id.ok_or_else(ApiError::no_session)?).await?;
    let given = request.as_object().into_iter().flatten().filter(|(key, _)| *key != "session");
    let arguments: Map<String, Value> = given.map(|(key, value)| (key.clone(), value.clone())).collect();
    let caller = Caller::internal(principal.clone());
    let (state, managing) = (state.clone(), ManagementTool::CreateProfile);
    let made = state.clone().detached(async move { state.manage(&session, caller, managing, arguments).await }).await?;
    made.map(Json).map_err(|problem| ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, problem))
}

async fn remove(
    State(state): State<ApiState>,
    Extension(principal): Extension<Principal>,
    Path(name): Path<String>,
) -> Result<StatusCode, ApiError> {
    state.recorded(Kind::Profile, &principal, &format!("remove {name}")).await?;
    state.inner.tools.profiles().remove(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Application {
    session: SessionId,
}

/// Puts a profile's servers into a session, all or none of them.
async fn apply(
    State(state): State<ApiState>,
    Extension(principal): Extension<Principal>,
    Path(name): Path<String>,
    Json(application): Json<Application>,
) -> Answer {
    let session = state.session(&application.session).await?;
    let arguments = Map::from_iter([("name".to_owned(), json!(name))]);
    let caller = Caller::internal(principal);
    let managing = ManagementTool::ActivateProfile;
    let applied =
        state.clone().detached(async move { state.manage(&session, caller, managing, arguments).await }).await?;
    applied.map(Json).map_err(|problem| ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, problem))
}
