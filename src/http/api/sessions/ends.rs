//! How long a session goes on.

use axum::{
    Json,
    extract::{Path, State, rejection::JsonRejection},
};
use http::HeaderMap;
use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;

use super::super::{Answer, ApiState};
use crate::ids::SessionId;

/// How much longer a session is wanted.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MoreTime {
    /// Seconds from now after which it ends by itself: later or sooner than it would have.
    #[schema(minimum = 1)]
    ttl: u64,
}

/// Gives a session a new token. The one it had opens nothing from then on, and streams that it opened end.
#[utoipa::path(
    post,
    path = "/sessions/{id}/token",
    tag = "sessions",
    operation_id = "session_token",
    params(("id" = String, Path, description = "The session's id")),
    responses((status = 200, description = "Its URL and token", body = Object)),
)]
pub(super) async fn token(state: State<ApiState>, id: Path<SessionId>, headers: HeaderMap) -> Answer {
    super::resume(state, id, headers).await
}

/// Says when a session ends by itself, counted from now.
#[utoipa::path(
    post,
    path = "/sessions/{id}/extend",
    tag = "sessions",
    operation_id = "session_extend",
    params(("id" = String, Path, description = "The session's id")),
    request_body = MoreTime,
    responses((status = 200, description = "When it ends", body = Object)),
)]
pub(super) async fn extend(
    State(state): State<ApiState>,
    Path(id): Path<SessionId>,
    body: Result<Json<MoreTime>, JsonRejection>,
) -> Answer {
    let Json(MoreTime { ttl }) = body?;
    let session = state.session(&id).await?;
    let at = state.inner.tools.sessions().extend(&session, ttl).await?;
    Ok(Json(json!({"id": id, "expires_at": at.to_string()})))
}
