//! The log, for administrators.

use std::time::Duration;

use axum::{
    Extension, Json,
    extract::{
        Query, State,
        rejection::{JsonRejection, QueryRejection},
    },
};
use data_encoding::HEXLOWER;
use http::StatusCode;
use jiff::{Span, civil, tz::TimeZone};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Answer, ApiError, ApiState};
use crate::{
    audit::{AuditError, Checkpoint, CheckpointError, Kind},
    clock::Timestamp,
    ids::Principal,
    store::audit::{Cursor, Prune, Query as AuditQuery, Record, Stats, StatsBy, Verification},
    supervisor::upstream::chain,
};

/// Records in one answer.
const RECORDS_MAX: u32 = 10_000;

/// How long one request waits for a record.
const WAIT_MAX: Duration = Duration::from_secs(60);

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(records))
        .routes(routes!(stats))
        .routes(routes!(verify, verify_against))
        .routes(routes!(checkpoint))
        .routes(routes!(prune))
}

/// The filters, and how the answer is cut into pages.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
struct Parameters {
    /// Its id or name, ended or not.
    session: Option<String>,
    server: Option<String>,
    tool: Option<String>,
    kind: Option<String>,
    status: Option<String>,
    principal: Option<String>,
    client: Option<String>,
    /// RFC 3339, a date, or how long ago (`90m`, `2 days`).
    since: Option<String>,
    until: Option<String>,
    /// Milliseconds.
    slower_than: Option<f64>,
    grep: Option<String>,
    /// Records without a parent, each followed by everything below it.
    tree: bool,
    /// `next_cursor` of an earlier answer: older records than it had.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor>,
    /// `last_seq` of an earlier answer, or the `end` of one: records that were closed since, in that order.
    after: Option<i64>,
    /// With `after`: seconds to wait for the first such record.
    wait: Option<u64>,
    limit: Option<u32>,
    /// What to count by.
    #[param(inline)]
    by: Option<StatsBy>,
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(StatusCode::BAD_REQUEST, rejection.body_text())
    }
}

impl From<JsonRejection> for ApiError {
    fn from(rejection: JsonRejection) -> Self {
        Self::new(StatusCode::BAD_REQUEST, rejection.body_text())
    }
}

impl From<AuditError> for ApiError {
    fn from(error: AuditError) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, chain(&error))
    }
}

impl From<CheckpointError> for ApiError {
    fn from(error: CheckpointError) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, chain(&error))
    }
}

/// Lists records of what was done.
#[utoipa::path(
    get,
    path = "/audit",
    tag = "audit",
    operation_id = "audit_records",
    params(Parameters),
    responses((status = 200, description = "The records", body = Object)),
)]
async fn records(State(state): State<ApiState>, parameters: Result<Query<Parameters>, QueryRejection>) -> Answer {
    let Query(parameters) = parameters?;
    let query = state.query(&parameters).await?;
    let store = &state.inner.store;
    let limit = parameters.limit.unwrap_or(100).clamp(1, RECORDS_MAX);
    if let Some(after) = parameters.after {
        let wait = Duration::from_secs(parameters.wait.unwrap_or(0)).min(WAIT_MAX);
        let end = store.audit_head().await?.0;
        let records = state.closed_after(&query, after, limit, wait).await?;
        let last = records.last().and_then(|record| record.closed_seq).unwrap_or(after);
        return Ok(Json(json!({"records": records, "last_seq": last, "end": end})));
    }
    if parameters.cursor.is_some_and(|cursor| !cursor.is_of(&query)) {
        return Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            "`cursor` goes on with the query it came from: give `grep` too",
        ));
    }
    let page = store.audit_records(&query, parameters.cursor, limit).await?;
    let mut answer = json!({"records": page.records, "next_cursor": page.next.map(|cursor| cursor.to_string())});
    if parameters.tree {
        let below: Vec<Record> = store.audit_descendants(&page.records, RECORDS_MAX).await?;
        answer["below"] = json!(below);
    }
    Ok(Json(answer))
}

/// Counts records.
#[utoipa::path(
    get,
    path = "/audit/stats",
    tag = "audit",
    operation_id = "audit_stats",
    params(Parameters),
    responses((status = 200, description = "The counts", body = Object)),
)]
async fn stats(State(state): State<ApiState>, parameters: Result<Query<Parameters>, QueryRejection>) -> Answer {
    let Query(parameters) = parameters?;
    let query = state.query(&parameters).await?;
    let by = parameters.by.unwrap_or(StatsBy::Server);
    let limit = parameters.limit.unwrap_or(100).clamp(1, RECORDS_MAX);
    let stats: Vec<Stats> = state.inner.store.audit_stats(&query, by, limit).await?;
    Ok(Json(json!({"by": by, "stats": stats})))
}

/// Checks that no event of the log was changed or taken out.
#[utoipa::path(
    get,
    path = "/audit/verify",
    tag = "audit",
    operation_id = "audit_verify",
    responses((status = 200, description = "What was found", body = Object)),
)]
async fn verify(State(state): State<ApiState>) -> Answer {
    Ok(Json(verification(&state.inner.store.verify_audit(None).await?)))
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct Against {
    checkpoint: Checkpoint,
    /// The key that it has to be signed with, in hexadecimal; without it, this broker's own.
    public_key: Option<String>,
}

/// Checks the log against a checkpoint.
#[utoipa::path(
    post,
    path = "/audit/verify",
    tag = "audit",
    operation_id = "audit_verify_against",
    request_body = Against,
    responses((status = 200, description = "What was found", body = Object)),
)]
async fn verify_against(State(state): State<ApiState>, body: Result<Json<Against>, JsonRejection>) -> Answer {
    let Json(Against { checkpoint, public_key }) = body?;
    let key = public_key.unwrap_or_else(|| state.inner.signer.public_key());
    let event = checkpoint.verified(Some(&key))?;
    Ok(Json(verification(&state.inner.store.verify_audit(Some(event)).await?)))
}

fn verification(found: &Verification) -> Value {
    match found {
        Verification::Intact { events, first, last, last_hash } => {
            json!({"intact": true, "events": events, "first": first, "last": last, "last_hash": last_hash})
        }
        Verification::Broken { seq, problem } => json!({"intact": false, "event": seq, "problem": problem}),
    }
}

/// Signs how far the log goes. The checkpoint covers the record of its own making.
#[utoipa::path(
    post,
    path = "/audit/checkpoint",
    tag = "audit",
    operation_id = "audit_checkpoint",
    responses((status = 200, description = "The checkpoint", body = Object)),
)]
async fn checkpoint(State(state): State<ApiState>, Extension(principal): Extension<Principal>) -> Answer {
    state.recorded(Kind::Audit, &principal, "checkpoint").await?;
    let (seq, hash) = state.inner.store.audit_head().await?;
    Ok(Json(json!(state.inner.signer.sign(seq, &hash, state.inner.clock.now()))))
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct PruneRequest {
    /// RFC 3339, a date, or how long ago.
    before: Option<String>,
    /// What the database may hold.
    database_bytes_max: Option<u64>,
    /// Only say what would go.
    #[serde(default)]
    dry_run: bool,
}

/// Removes the oldest records; what is left can still be verified.
#[utoipa::path(
    post,
    path = "/audit/prune",
    tag = "audit",
    operation_id = "audit_prune",
    request_body = PruneRequest,
    responses((status = 200, description = "What went", body = Object)),
)]
async fn prune(
    State(state): State<ApiState>,
    Extension(principal): Extension<Principal>,
    body: Result<Json<PruneRequest>, JsonRejection>,
) -> Answer {
    let Json(request) = body?;
    let prune = match (&request.before, request.database_bytes_max) {
        (Some(before), None) => Prune::Before(time("before", before, state.inner.clock.now())?),
        (None, Some(bytes)) => Prune::DownTo { bytes },
        _ => {
            let message = "say either `before` (records older than that go) or `database_bytes_max`";
            return Err(ApiError::new(StatusCode::BAD_REQUEST, message));
        }
    };
    let cut = if request.dry_run {
        state.inner.store.audit_cut(prune).await?
    } else {
        state.inner.audit.prune(&principal, prune).await?
    };
    Ok(Json(match cut {
        Some(cut) => json!({"events": cut.events, "last": cut.seq, "hash": HEXLOWER.encode(&cut.hash)}),
        None => json!({"events": 0}),
    }))
}

impl ApiState {
    async fn query(&self, parameters: &Parameters) -> Result<AuditQuery, ApiError> {
        let now = self.inner.clock.now();
        let moment = |name, text: &Option<String>| text.as_deref().map(|text| time(name, text, now)).transpose();
        let one_of = |name: &str, text: &Option<String>, words: &[&str]| match text {
            Some(text) if !words.contains(&text.as_str()) => {
                let message = format!("`{name}` is none of {}", words.join(", "));
                Err(ApiError::new(StatusCode::BAD_REQUEST, message))
            }
            _ => Ok(text.clone()),
        };
        let statuses = "success error refused cancelled timeout input_required abandoned open";
        let kinds = "tool management script prompt resource completion question instance session feature secret catalog audit pull profile compose";
        let words = |list: &'static str| list.split(' ').collect::<Vec<_>>();
        let session = match &parameters.session {
            Some(session) => Some(self.inner.store.any_session(session).await?.ok_or_else(|| {
                ApiError::new(StatusCode::NOT_FOUND, format!("there is and was no session `{session}`"))
            })?),
            None => None,
        };
        Ok(AuditQuery {
            session,
            server: parameters.server.clone(),
            name: parameters.tool.clone(),
            kind: one_of("kind", &parameters.kind, &words(kinds))?,
            status: one_of("status", &parameters.status, &words(statuses))?,
            principal: parameters.principal.clone(),
            client: parameters.client.clone(),
            since: moment("since", &parameters.since)?,
            until: moment("until", &parameters.until)?,
            slower_than_micros: parameters.slower_than.map(|ms| (ms * 1000.0) as u64),
            grep: parameters.grep.clone(),
            roots: parameters.tree,
        })
    }

    /// Waits for the first record, up to `wait`.
    async fn closed_after(
        &self,
        query: &AuditQuery,
        after: i64,
        limit: u32,
        wait: Duration,
    ) -> Result<Vec<Record>, ApiError> {
        let store = &self.inner.store;
        let deadline = tokio::time::Instant::now() + wait;
        let mut commits = store.commits();
        loop {
            commits.mark_unchanged();
            let records = store.audit_closed_after(query, after, limit).await?;
            if !records.is_empty() {
                return Ok(records);
            }
            match tokio::time::timeout_at(deadline, commits.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Ok(records),
            }
        }
    }
}

/// A moment: RFC 3339, a date in UTC, or how long before `now`.
fn time(name: &str, text: &str, now: Timestamp) -> Result<Timestamp, ApiError> {
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Ok(timestamp);
    }
    if let Ok(date) = text.parse::<civil::Date>()
        && let Ok(midnight) = date.to_zoned(TimeZone::UTC)
    {
        return Ok(midnight.timestamp());
    }
    if let Ok(span) = text.parse::<Span>()
        && let Ok(before) = now.to_zoned(TimeZone::UTC).checked_sub(span.abs())
    {
        return Ok(before.timestamp());
    }
    let message = format!(
        "`{name}` is a moment: 2026-11-21T10:00:00Z, 2026-11-21 (midnight UTC), or how long ago, like `90m` or `2 days`"
    );
    Err(ApiError::new(StatusCode::BAD_REQUEST, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_time_a_date_or_an_age() {
        let now: Timestamp = "2026-11-21T10:00:00Z".parse().unwrap();
        let at = |text| time("since", text, now).map_err(|error| error.message).unwrap().to_string();
        assert_eq!(at("2026-11-20T09:00:00+02:00"), "2026-11-20T07:00:00Z");
        assert_eq!(at("2026-11-20"), "2026-11-20T00:00:00Z");
        assert_eq!(at("90m"), "2026-11-21T08:30:00Z");
        assert_eq!(at("2 days"), "2026-11-19T10:00:00Z");
        for bad in ["", "yesterday", "0", "2026-13-01", "5 parsecs"] {
            assert!(time("since", bad, now).is_err(), "{bad}");
        }
    }
}
