//! `/v1/compose`: the Compose files that were agreed to.

use axum::{
    Extension, Json,
    extract::{Query, State},
};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Answer, ApiError, ApiState};
use crate::{audit::Kind, ids::Principal};

const FILE_BYTES_MAX: usize = 8 << 10;

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(list, agree, take_back))
}

/// Lists the Compose files that were agreed to.
#[utoipa::path(
    get,
    path = "/compose/consents",
    tag = "profiles",
    operation_id = "consent_list",
    responses((status = 200, description = "The consents", body = Object)),
)]
async fn list(State(state): State<ApiState>) -> Answer {
    let consents = state.inner.store.consents().await?;
    let row = |consent: &crate::store::compose::Consent| json!({"file": consent.file, "hash": consent.hash, "agreed_at": consent.agreed_at.to_string()});
    Ok(Json(json!({"consents": consents.iter().map(row).collect::<Vec<Value>>()})))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Consent {
    /// Its path.
    file: String,
    /// What `mcp-broker compose check` found: 64 hexadecimal digits, over the file and everything it reads.
    hash: String,
}

/// A file that is agreed to.
#[derive(Serialize, ToSchema)]
struct Agreed {
    file: String,
    hash: String,
    /// Services that sessions which waited for this are not given, and why: `fs: the operator does not allow this server`.
    left_out: Vec<String>,
}

/// Agrees to a Compose file as it is now.
#[utoipa::path(
    post,
    path = "/compose/consents",
    tag = "profiles",
    operation_id = "consent_give",
    request_body = Consent,
    responses((status = 200, description = "The consent, and what is left out of sessions that waited for it", body = Agreed)),
)]
async fn agree(
    State(state): State<ApiState>,
    Extension(principal): Extension<Principal>,
    Json(Consent { file, hash }): Json<Consent>,
) -> Result<Json<Agreed>, ApiError> {
    let is_hash = hash.len() == 64 && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if !is_hash || file.is_empty() || file.len() > FILE_BYTES_MAX {
        let message = "`hash` has to be the 64 digits that `mcp-broker compose check` found, and `file` its path";
        return Err(ApiError::new(StatusCode::BAD_REQUEST, message));
    }
    let (tools, agreed) = (state.inner.tools.clone(), (hash.clone(), file.clone()));
    let left_out = state.detached(async move { tools.agree_to(&principal, &agreed.0, &agreed.1).await }).await?;
    let left_out = left_out.map_err(|problem| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, problem))?;
    Ok(Json(Agreed { file, hash, left_out }))
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct Which {
    /// Its path.
    file: String,
}

/// Takes back every consent to a file.
#[utoipa::path(
    delete,
    path = "/compose/consents",
    tag = "profiles",
    operation_id = "consent_take_back",
    params(Which),
    responses((status = 200, description = "Whether there was one", body = Object)),
)]
async fn take_back(
    State(state): State<ApiState>,
    Extension(principal): Extension<Principal>,
    Query(Which { file }): Query<Which>,
) -> Answer {
    let known = state.inner.store.consents().await?.iter().any(|consent| consent.file == file);
    if known {
        state.recorded(Kind::Compose, &principal, &format!("untrust {file}")).await?;
        state.inner.store.delete_consents(&file).await?;
    }
    Ok(Json(json!({"file": file, "removed": known})))
}
