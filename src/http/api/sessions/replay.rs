//! Running a session's recorded calls again, in a fresh session, to see what differs.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{Path, State, rejection::JsonRejection},
};
use data_encoding::HEXLOWER;
use http::StatusCode;
use rmcp::model::CallToolRequestParams;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::super::{Answer, ApiError, ApiState};
use crate::{
    caller::Caller,
    ids::{Principal, SessionId},
    secrets::REDACTED,
    session::Session,
    store::{
        audit::{Query, Record},
        sessions::SessionKind,
    },
    tools::{Call, ManagementTool, Operation, Seat},
};

/// A session with more calls than this is not run again.
const CALLS_MAX: u32 = 10_000;

/// Kinds of records that are calls of tools.
const CALLS: [&str; 3] = ["management", "tool", "script"];

#[derive(Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = WantedReplay)]
pub(super) struct Wanted {
    /// Only say what would be run.
    dry_run: bool,
}

/// What a recorded call is run as.
enum Step {
    /// A tool of the broker's, or one made of scripts: by the name it has.
    Named(Option<Map<String, Value>>),
    /// A tool of a server, by the server's name for it.
    Tool(Option<Map<String, Value>>),
    Skipped(&'static str),
}

/// Runs a session's recorded calls again, in a fresh session, and says what differs.
#[utoipa::path(
    post,
    path = "/sessions/{id}/replay",
    tag = "sessions",
    operation_id = "session_replay",
    params(("id" = String, Path, description = "The session's id")),
    request_body = Wanted,
    responses((status = 200, description = "The calls and how they compare", body = Object)),
)]
pub(super) async fn replay(
    State(state): State<ApiState>,
    Extension(principal): Extension<Principal>,
    Path(session): Path<String>,
    wanted: Result<Json<Wanted>, JsonRejection>,
) -> Answer {
    let Json(Wanted { dry_run }) = wanted?;
    let id = state.inner.store.any_session(&session).await?.ok_or_else(ApiError::no_session)?;
    let recorded = state.calls_of(&id).await?;
    let steps: Vec<Step> = recorded.iter().map(Step::of).collect();
    if dry_run {
        let planned = recorded.iter().zip(&steps).map(|(record, step)| {
            let mut shown = shown(record);
            if let Step::Skipped(why) = step {
                shown["skipped"] = json!(why);
            }
            shown
        });
        return Ok(Json(json!({"session": Value::Null, "steps": planned.collect::<Vec<_>>()})));
    }
    state.clone().detached(async move { state.replay(&principal, &recorded, steps).await }).await?
}

impl Step {
    fn of(record: &Record) -> Self {
        let Ok(mut arguments) = arguments_of(record) else {
            return Self::Skipped("its arguments were not kept whole: they were too long, or held a secret");
        };
        match record.kind.as_str() {
            "script" => Self::Named(arguments),
            "tool" if record.server.is_some() => Self::Tool(arguments),
            "tool" => Self::Skipped("it named no tool of a server"),
            _ => match ManagementTool::named(&record.name) {
                None | Some(ManagementTool::Exec) => Self::Skipped("it makes sense in its own session only"),
                Some(_) => {
                    if let Some(Value::Object(config)) = arguments.as_mut().and_then(|given| given.get_mut("config")) {
                        config.retain(|_, value| *value != json!(REDACTED));
                    }
                    Self::Named(arguments)
                }
            },
        }
    }
}

/// The arguments of a call, if the log has them as they were.
fn arguments_of(record: &Record) -> Result<Option<Map<String, Value>>, ()> {
    let (Some(text), Some(hash)) = (&record.arguments, &record.arguments_hash) else {
        return if record.arguments_bytes == 0 { Ok(None) } else { Err(()) };
    };
    if HEXLOWER.encode(&Sha256::digest(text)) != *hash {
        return Err(());
    }
    serde_json::from_str(text).map(Some).map_err(|_| ())
}

impl ApiState {
    /// The calls that clients made in a session, the oldest first.
    async fn calls_of(&self, id: &SessionId) -> Result<Vec<Record>, ApiError> {
        let query = Query { session: Some(id.clone()), roots: true, ..Query::default() };
        let page = self.inner.store.audit_records(&query, None, CALLS_MAX).await?;
        if page.next.is_some() {
            let message = format!("the session has more than {CALLS_MAX} records, which is more than is run again");
            return Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, message));
        }
        Ok(page.records.into_iter().filter(|record| CALLS.contains(&record.kind.as_str())).collect())
    }

    /// Runs the calls in a fresh session, which ends with them, and compares.
    async fn replay(&self, principal: &Principal, recorded: &[Record], steps: Vec<Step>) -> Answer {
        let sessions = self.inner.tools.sessions();
        let session = sessions.create(SessionKind::Url, principal.clone(), None, None).await?;
        let ran = self.run(&session, principal, recorded, steps).await;
        let made = self.calls_of(session.id()).await;
        sessions.end(session.id(), "its replay is over").await?;
        let mut made = made?.into_iter();
        let mut compared = Vec::new();
        for (record, ran) in recorded.iter().zip(ran) {
            let mut shown = shown(record);
            match ran {
                Some(why) => shown["skipped"] = json!(why),
                None => {
                    let now = made.next().ok_or_else(|| {
                        let message = "a call that was run again could not be recorded";
                        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message)
                    })?;
                    let same = record.status == now.status && outcome(record) == outcome(&now);
                    shown["same"] = json!(same);
                    if !same {
                        shown["then"] = told(record);
                        shown["now"] = told(&now);
                    }
                }
            }
            compared.push(shown);
        }
        Ok(Json(json!({"session": session.id(), "steps": compared})))
    }

    /// Runs one after another. Says of each why it was not run, if it was not.
    async fn run(
        &self,
        session: &Arc<Session>,
        principal: &Principal,
        recorded: &[Record],
        steps: Vec<Step>,
    ) -> Vec<Option<&'static str>> {
        let tools = &self.inner.tools;
        let mut ran = Vec::new();
        for (record, step) in recorded.iter().zip(steps) {
            let caller = Caller::internal(principal.clone());
            let operation = match step {
                Step::Skipped(why) => {
                    ran.push(Some(why));
                    continue;
                }
                // As an agent's call, so that what agents may not do now is not done either.
                Step::Named(arguments) => Operation::Tool(Box::new(params(record.name.clone(), arguments))),
                Step::Tool(arguments) => {
                    let server = record.server.as_deref().unwrap_or_default();
                    let Some(name) = tools.exposed(session, &caller, server, &record.name).await else {
                        ran.push(Some("the server is not on, or has no such tool any more"));
                        continue;
                    };
                    Operation::Tool(Box::new(params(name, arguments)))
                }
            };
            let call = Call { seat: Seat::Fixed(session.clone()), caller, operation, parent: None };
            // What comes of it is read from the log, as what came of it the first time is.
            let _ = tools.dispatch(call).await;
            ran.push(None);
        }
        ran
    }
}

fn params(name: String, arguments: Option<Map<String, Value>>) -> CallToolRequestParams {
    let mut params = CallToolRequestParams::new(name);
    params.arguments = arguments;
    params
}

/// What is compared: the result's hash, and of a script what it returned, because the rest has times and ids in it.
fn outcome(record: &Record) -> Value {
    let whole = record.result.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok());
    match whole {
        Some(result) if record.kind == "script" && result["structuredContent"].is_object() => {
            let answer = &result["structuredContent"];
            json!([answer["status"], answer["result"], answer["error"]["message"]])
        }
        _ => json!([record.result_hash, record.error]),
    }
}

fn shown(record: &Record) -> Value {
    json!({
        "record": record.record,
        "kind": record.kind,
        "server": record.server,
        "name": record.name,
        "arguments": record.arguments,
    })
}

fn told(record: &Record) -> Value {
    json!({"status": record.status, "error": record.error, "result": record.result})
}
