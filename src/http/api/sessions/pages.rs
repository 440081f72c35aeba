//! Listing sessions.

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
};
use data_encoding::BASE64URL_NOPAD;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{
    super::{Answer, ApiError, ApiState},
    session_value,
};
use crate::{
    clock::Timestamp,
    ids::SessionId,
    store::sessions::{Page, SessionRow},
};

const LIMIT: u32 = 100;
const LIMIT_MAX: u32 = 1000;

/// Which sessions are listed.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// Only those with this label.
    label: Option<String>,
    /// The most to list. With this, a label or a cursor, the newest session comes first; without any of them all are
    /// listed, the last used first.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Sessions, and where the next ones begin.
#[derive(ToSchema)]
#[expect(dead_code, reason = "says what the answer looks like")]
struct SessionPage {
    sessions: Vec<SessionRowShown>,
    /// For `cursor`; null on the last page.
    next_cursor: Option<String>,
}

#[derive(ToSchema)]
#[expect(dead_code, reason = "says what the answer looks like")]
struct SessionRowShown {
    id: String,
    kind: String,
    name: Option<String>,
    label: Option<String>,
    principal: String,
    created_at: String,
    used_at: String,
    expires_at: Option<String>,
}

/// Sessions that have not ended.
#[utoipa::path(
    get,
    path = "/sessions",
    tag = "sessions",
    operation_id = "session_list",
    params(Which),
    responses((status = 200, description = "A page of sessions", body = SessionPage)),
)]
pub(super) async fn list(State(state): State<ApiState>, which: Result<Query<Which>, QueryRejection>) -> Answer {
    let Query(Which { label, limit, cursor }) = which?;
    let sessions = state.inner.tools.sessions();
    if label.is_none() && limit.is_none() && cursor.is_none() {
        let rows = sessions.list().await?;
        return Ok(Json(json!({"sessions": rows.iter().map(session_value).collect::<Vec<_>>()})));
    }
    let bad = |message: String| ApiError::new(StatusCode::BAD_REQUEST, message);
    let limit = limit.unwrap_or(LIMIT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(bad(format!("`limit` is from 1 to {LIMIT_MAX}")));
    }
    let after = match &cursor {
        Some(cursor) => {
            let place = place(cursor);
            Some(place.ok_or_else(|| bad("`cursor` is not one that a list of sessions gave".to_owned()))?)
        }
        None => None,
    };
    let mut rows = sessions.page(&Page { label, after, limit: limit + 1 }).await?;
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next = rows.last().filter(|_| more).map(cursor_after);
    let listed: Vec<Value> = rows.iter().map(session_value).collect();
    Ok(Json(json!({"sessions": listed, "next_cursor": next})))
}

fn cursor_after(row: &SessionRow) -> String {
    BASE64URL_NOPAD.encode(format!("{}:{}", row.created_at.as_microsecond(), row.id).as_bytes())
}

fn place(cursor: &str) -> Option<(Timestamp, SessionId)> {
    let text = String::from_utf8(BASE64URL_NOPAD.decode(cursor.as_bytes()).ok()?).ok()?;
    let (at, id) = text.split_once(':')?;
    Some((Timestamp::from_microsecond(at.parse().ok()?).ok()?, id.parse().ok()?))
}
