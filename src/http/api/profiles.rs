//! `/v1/profiles`: profiles, and putting one into a session.

use std::borrow::Cow;

use axum::{
    Extension, Json,
    extract::{Path, State},
};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Answer, ApiError, ApiState};
use crate::{
    audit::{AuditError, Kind, Outcome, Status, Subject},
    caller::Caller,
    catalog::foreign::displayable,
    ids::{Principal, SessionId},
    profiles::{Profile, ProfilesError, document::Draft},
    supervisor::upstream::chain,
    tools::ManagementTool,
};

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(import))
        .routes(routes!(show, remove))
        .routes(routes!(export))
        .routes(routes!(apply))
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

/// Lists profiles.
#[utoipa::path(
    get,
    path = "/profiles",
    tag = "profiles",
    operation_id = "profile_list",
    responses((status = 200, description = "The profiles", body = Object)),
)]
async fn list(State(state): State<ApiState>) -> Answer {
    let profiles = state.inner.tools.profiles().list().await?;
    Ok(Json(json!({"profiles": profiles.iter().map(Profile::to_value).collect::<Vec<_>>()})))
}

/// Shows a profile, with the secrets that it needs.
#[utoipa::path(
    get,
    path = "/profiles/{name}",
    tag = "profiles",
    operation_id = "profile_show",
    params(("name" = String, Path, description = "The profile's name")),
    responses((status = 200, description = "The profile", body = Object)),
)]
async fn show(State(state): State<ApiState>, Path(name): Path<String>) -> Answer {
    let profile = state.inner.tools.profiles().get(&name).await?;
    let mut value = profile.to_value();
    value["secrets"] = json!(state.inner.tools.secrets_of(&profile.servers));
    Ok(Json(value))
}

/// Writes a profile as a document.
#[utoipa::path(
    get,
    path = "/profiles/{name}/export",
    tag = "profiles",
    operation_id = "profile_export",
    params(("name" = String, Path, description = "The profile's name")),
    responses((status = 200, description = "The document", body = Object)),
)]
async fn export(State(state): State<ApiState>, Path(name): Path<String>) -> Answer {
    let profile = state.inner.tools.profiles().get(&name).await?;
    Ok(Json(profile.to_document(&state.inner.tools.secrets_of(&profile.servers))))
}

/// Makes one of named servers, or (`session`) of those of a session.
#[utoipa::path(
    post,
    path = "/profiles",
    tag = "profiles",
    operation_id = "profile_create",
    request_body = Object,
    responses((status = 200, description = "The profile", body = Object)),
)]
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

/// Makes a profile from a document, or tells everything that is wrong with it.
#[utoipa::path(
    post,
    path = "/profiles/import",
    tag = "profiles",
    operation_id = "profile_import",
    request_body = Object,
    responses((status = 200, description = "The profile", body = Object)),
)]
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
    let mut value = profile.to_value();
    value["secrets"] = json!(tools.secrets_of(&profile.servers));
    let (what, tools) = (format!("create {}", profile.name), tools.clone());
    changed(state, principal, what, async move { tools.profiles().create(profile).await }).await?;
    Ok(Json(value))
}

/// Changes profiles, between the two events of a record, to its end also when whoever asked hangs up.
async fn changed<F>(state: &ApiState, principal: &Principal, what: String, change: F) -> Result<(), ApiError>
where
    F: Future<Output = Result<(), ProfilesError>> + Send + 'static,
{
    let (audit, principal) = (state.inner.audit.clone(), principal.clone());
    let unrecorded = |what: &str, error: &AuditError| {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, format!("{what}: {}", chain(error)))
    };
    let changing = async move {
        let (kind, principal, name) = (Kind::Profile, &principal, what.as_str());
        let subject =
            Subject { kind, parent: None, session: None, principal, client: None, server: None, name, trace: None };
        let record = audit
            .open(&subject, None)
            .await
            .map_err(|error| unrecorded("nothing was done, because it could not be recorded", &error))?;
        let outcome = change.await;
        let status = match &outcome {
            Ok(()) => Status::Success,
            Err(ProfilesError::Store(_)) => Status::Error,
            Err(_) => Status::Refused,
        };
        let error = outcome.as_ref().err().map(|error| Cow::Owned(chain(error)));
        let closed = audit.close(record, Outcome::without_result(status, error)).await;
        outcome?;
        closed.map_err(|error| unrecorded("it was done, and what came of it could not be recorded", &error))
    };
    state.detached(changing).await?
}

async fn of_session(state: &ApiState, principal: &Principal, session: &Value, request: &Value) -> Answer {
    let fields = request.as_object().into_iter().flatten();
    let unknown: Vec<String> = fields
        .filter(|(key, _)| !matches!(key.as_str(), "session" | "name" | "description"))
        .map(|(key, _)| format!("`{}` has no place beside `session` (name, description)", displayable(key, 80)))
        .collect();
    if !unknown.is_empty() {
        let (message, details) = ("no profile was made".to_owned(), Some(json!({"problems": unknown})));
        return Err(ApiError { status: StatusCode::UNPROCESSABLE_ENTITY, message, details });
    }
    let id: Option<SessionId> = session.as_str().and_then(|id| id.parse().ok());
    let session = state.session(&id.ok_or_else(ApiError::no_session)?).await?;
    let given = request.as_object().into_iter().flatten().filter(|(key, _)| *key != "session");
    let arguments: Map<String, Value> = given.map(|(key, value)| (key.clone(), value.clone())).collect();
    let caller = Caller::internal(principal.clone());
    let (state, managing) = (state.clone(), ManagementTool::CreateProfile);
    let made = state.clone().detached(async move { state.manage(&session, caller, managing, arguments).await }).await?;
    made.map(Json).map_err(|problem| ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, problem))
}

/// Removes a profile; sessions keep what it put into them.
#[utoipa::path(
    delete,
    path = "/profiles/{name}",
    tag = "profiles",
    operation_id = "profile_remove",
    params(("name" = String, Path, description = "The profile's name")),
    responses((status = 204, description = "It is gone")),
)]
async fn remove(
    State(state): State<ApiState>,
    Extension(principal): Extension<Principal>,
    Path(name): Path<String>,
) -> Result<StatusCode, ApiError> {
    let (what, tools) = (format!("remove {name}"), state.inner.tools.clone());
    changed(&state, &principal, what, async move { tools.profiles().remove(&name).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Application {
    /// Its id.
    #[schema(value_type = String)]
    session: SessionId,
}

/// Puts a profile's servers into a session, all or none of them.
#[utoipa::path(
    post,
    path = "/profiles/{name}/apply",
    tag = "profiles",
    operation_id = "profile_apply",
    params(("name" = String, Path, description = "The profile's name")),
    request_body = Application,
    responses((status = 200, description = "What is on now", body = Object)),
)]
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
