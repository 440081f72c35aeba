//! The tools of a session, for who looks at them and tries them.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{
        Path, Query, State,
        rejection::{JsonRejection, QueryRejection},
    },
};
use http::StatusCode;
use rmcp::model::{CallToolRequestParams, Tool};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Answer, ApiError, ApiState};
use crate::{
    caller::Caller,
    ids::{Principal, SessionId},
    session::{Session, menu::MenuTool},
    tools::{Call, ManagementTool, Operation, Reply, Seat, listing::Named},
};

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(list, call))
}

#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
struct Parameters {
    /// Only what a call of this name is for: one tool, none, or several among which it would have to choose.
    name: Option<String>,
}

/// Every tool that can be called, the broker's own first; starts servers of which nothing is known yet.
#[utoipa::path(
    get,
    path = "/sessions/{id}/tools",
    tag = "sessions",
    operation_id = "session_tools",
    params(("id" = String, Path, description = "The session's id"), Parameters),
    responses((status = 200, description = "The tools", body = Object)),
)]
async fn list(
    State(state): State<ApiState>,
    Path(id): Path<SessionId>,
    parameters: Result<Query<Parameters>, QueryRejection>,
) -> Answer {
    let Query(parameters) = parameters?;
    let session = state.session(&id).await?;
    let found = match parameters.name {
        Some(name) => named(&state, &session, &name).await,
        None => all(&state, &session).await?,
    };
    Ok(Json(json!({"session": id, "tools": found})))
}

async fn all(state: &ApiState, session: &Arc<Session>) -> Result<Vec<Value>, ApiError> {
    let tools = &state.inner.tools;
    let caller = Caller::internal(session.principal().clone());
    let menu = tools.whole_menu(session, &caller).await;
    let listed = tools.list_tools(&Seat::Fixed(session.clone()), &caller).await?;
    let own = listed.iter().filter(|tool| menu.tool(&tool.name).is_none()).map(|tool| shown(&tool.name, tool));
    Ok(own.chain(menu.tools.iter().map(of_server)).collect())
}

async fn named(state: &ApiState, session: &Arc<Session>, name: &str) -> Vec<Value> {
    let caller = Caller::internal(session.principal().clone());
    match state.inner.tools.find_tool(session, &caller, name).await {
        Named::Tool(tool) => vec![of_server(&tool)],
        Named::Several(tools) => tools.iter().map(of_server).collect(),
        Named::Nothing(_) => Vec::new(),
        Named::Own => {
            let own = state.inner.tools.own_tool(session, &caller, name).await;
            own.iter().map(|tool| shown(name, tool)).collect()
        }
    }
}

fn of_server(tool: &MenuTool) -> Value {
    let mut shown = shown(&tool.exposed, &tool.tool);
    shown["server"] = json!(tool.server);
    shown["listed"] = json!(tool.listed);
    shown
}

fn shown(name: &str, tool: &Tool) -> Value {
    json!({
        "name": name,
        "server": Value::Null,
        "listed": true,
        "title": tool.title,
        "description": tool.description,
        "inputSchema": tool.input_schema,
        "outputSchema": tool.output_schema,
        "annotations": tool.annotations,
    })
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = WantedCall)]
struct Wanted {
    /// As it is listed, or as its server calls it where only one has it.
    name: String,
    #[serde(default)]
    arguments: Map<String, Value>,
}

/// Calls a tool on the operator's behalf. Whoever hangs up takes the call back.
#[utoipa::path(
    post,
    path = "/sessions/{id}/tools",
    tag = "sessions",
    operation_id = "session_call",
    params(("id" = String, Path, description = "The session's id")),
    request_body = Wanted,
    responses((status = 200, description = "What the tool returned", body = Object)),
)]
async fn call(
    State(state): State<ApiState>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<SessionId>,
    wanted: Result<Json<Wanted>, JsonRejection>,
) -> Answer {
    let Json(wanted) = wanted?;
    let session = state.session(&id).await?;
    let caller = Caller::internal(principal);
    let (name, own) = match state.inner.tools.find_tool(&session, &caller, &wanted.name).await {
        Named::Tool(tool) => (tool.exposed, None),
        Named::Own => {
            let own = ManagementTool::named(&wanted.name).filter(|tool| *tool != ManagementTool::Exec);
            (wanted.name, own)
        }
        Named::Nothing(_) => (wanted.name, None),
        Named::Several(tools) => {
            let names: Vec<&str> = tools.iter().map(|tool| tool.exposed.as_str()).collect();
            let message = format!("several servers have a tool `{}`: name one of {}", wanted.name, names.join(", "));
            return Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, message));
        }
    };
    let params = Box::new(CallToolRequestParams::new(name.clone()).with_arguments(wanted.arguments));
    let operation = match own {
        None => Operation::Tool(params),
        Some(tool) => Operation::Management(tool, params),
    };
    let _hung_up = caller.cancelled.clone().drop_guard();
    let call = Call { seat: Seat::Fixed(session), caller, operation, parent: None };
    let tools = state.inner.tools.clone();
    match state.detached(async move { tools.dispatch(call).await }).await? {
        Ok(Reply::CallToolResult(result)) => Ok(Json(json!({"tool": name, "result": result}))),
        Ok(_) => {
            let message = "the tool asks something back, which can only be answered in a conversation with a client";
            Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, message))
        }
        Err(error) => Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, error.message)),
    }
}
