//! Looking after the data folder.

use std::{fs::Permissions, os::unix::fs::PermissionsExt as _, path::PathBuf};

use axum::{
    Extension, Json,
    extract::{State, rejection::JsonRejection},
};
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Answer, ApiError, ApiState};
use crate::{audit::Kind, ids::Principal, store::audit::Verification};

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(integrity)).routes(routes!(backup))
}

/// Whether the database is whole and the log is what was written.
#[utoipa::path(
    get,
    path = "/integrity",
    tag = "broker",
    operation_id = "broker_integrity",
    responses((status = 200, description = "What was found", body = Object)),
)]
async fn integrity(State(state): State<ApiState>) -> Answer {
    let store = &state.inner.store;
    let database = store.problems().await?;
    let log = match store.verify_audit(None).await? {
        Verification::Intact { events, .. } => json!({"intact": true, "events": events}),
        Verification::Broken { seq, problem } => json!({"intact": false, "event": seq, "problem": problem}),
    };
    Ok(Json(json!({"database": database, "log": log})))
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct Backup {
    /// An absolute path on the broker's machine.
    #[schema(value_type = String)]
    file: PathBuf,
}

/// Copies the database to a file of the broker's machine.
#[utoipa::path(
    post,
    path = "/backup",
    tag = "broker",
    operation_id = "broker_backup",
    request_body = Backup,
    responses((status = 200, description = "The file", body = Object)),
)]
async fn backup(
    State(state): State<ApiState>,
    Extension(principal): Extension<Principal>,
    wanted: Result<Json<Backup>, JsonRejection>,
) -> Answer {
    let Json(Backup { file }) = wanted?;
    let shown = file.display().to_string();
    let refused = |why: String| ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, why);
    if !file.is_absolute() {
        return Err(refused(format!("`{shown}` is not an absolute path")));
    }
    state.recorded(Kind::Audit, &principal, &format!("backup to {shown}")).await?;
    // Made here, so that nobody else can read it from the beginning on, and nothing is replaced. SQLite takes an empty
    // file for a new one.
    let made = tokio::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file).await;
    made.map_err(|error| refused(format!("could not make `{shown}`, which must not exist yet: {error}")))?;
    let (copying, to) = (state.inner.store.clone(), file.clone());
    let copied = state.detached(async move {
        let copied = copying.copy_to(&to).await;
        if copied.is_err() {
            let _ = tokio::fs::remove_file(&to).await;
        }
        copied
    });
    copied.await??;
    let wrong = |error: std::io::Error| refused(format!("the copy `{shown}` cannot be used: {error}"));
    tokio::fs::set_permissions(&file, Permissions::from_mode(0o600)).await.map_err(wrong)?;
    let bytes = tokio::fs::metadata(&file).await.map_err(wrong)?.len();
    Ok(Json(json!({"file": shown, "bytes": bytes})))
}
