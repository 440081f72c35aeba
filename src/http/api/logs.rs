//! What servers wrote to their standard error.

use std::time::Duration;

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Answer, ApiError, ApiState};
use crate::{
    ids::ServerName,
    supervisor::logs::{Line, Wanted},
};

/// Lines in one answer.
const LINES_MAX: usize = 10_000;

/// How long one request waits for a line.
const WAIT_MAX: Duration = Duration::from_secs(60);

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(lines))
}

#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
struct Parameters {
    /// Its id.
    session: Option<String>,
    server: Option<String>,
    /// `last` of an earlier answer: lines that were written since.
    after: Option<u64>,
    /// With `after`: seconds to wait for the first such line.
    wait: Option<u64>,
    /// The newest so many; with `after`, the oldest so many since.
    limit: Option<usize>,
}

/// Lists what servers wrote to their standard error.
#[utoipa::path(
    get,
    path = "/logs",
    tag = "broker",
    operation_id = "broker_logs",
    params(Parameters),
    responses((status = 200, description = "The lines", body = Object)),
)]
async fn lines(State(state): State<ApiState>, parameters: Result<Query<Parameters>, QueryRejection>) -> Answer {
    let Query(parameters) = parameters?;
    let session = parameters.session.map(|id| id.parse().map_err(|_| ApiError::no_session())).transpose()?;
    let server: Option<ServerName> = match parameters.server {
        None => None,
        Some(name) => Some(
            name.parse()
                .map_err(|_| ApiError::new(StatusCode::BAD_REQUEST, format!("`{name}` is no server's name")))?,
        ),
    };
    let lines_max = parameters.limit.unwrap_or(1000).clamp(1, LINES_MAX);
    let wanted = Wanted { session, server, after: parameters.after, lines_max };
    let wait = Duration::from_secs(parameters.wait.unwrap_or(0)).min(WAIT_MAX);
    let logs = state.inner.supervisor.logs();
    let mut newest = logs.newest();
    let stopping = state.inner.tools.tasks().stopping_token();
    let deadline = tokio::time::Instant::now() + wait;
    let (last, found) = loop {
        let last = *newest.borrow_and_update();
        let found = logs.lines(&wanted);
        if !found.is_empty() || tokio::time::Instant::now() >= deadline {
            break (found.last().map_or(last.max(wanted.after.unwrap_or(0)), |line| line.number), found);
        }
        tokio::select! {
            _ = tokio::time::timeout_at(deadline, newest.changed()) => {}
            () = stopping.cancelled() => break (last, found),
        }
    };
    let shown = |line: &Line| -> Value {
        json!({
            "number": line.number,
            "at": line.at.to_string(),
            "session": line.session,
            "server": line.server,
            "text": state.inner.audit.redacted(&line.text),
        })
    };
    Ok(Json(json!({"lines": found.iter().map(shown).collect::<Vec<_>>(), "last": last})))
}
