//! The tools of a session, for who looks at them and tries them.

use axum::{
    Extension, Json,
    extract::{Path, State, rejection::JsonRejection},
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
    session::menu::Found,
    tools::{Call, ManagementTool, Operation, Reply, Seat},
};

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(list, call))
}

/// Every tool that can be called, the broker's own first; starts servers of which nothing is known yet.
#[utoipa::path(
    get,
    path = "/sessions/{id}/tools",
    tag = "sessions",
    operation_id = "session_tools",
    params(("id" = String, Path, description = "The session's id")),
    responses((status = 200, description = "The tools", body = Object)),
)]
async fn list(State(state): State<ApiState>, Path(id): Path<SessionId>) -> Answer {
    let tools = &state.inner.tools;
    let session = state.session(&id).await?;
    let caller = Caller::internal(session.principal().clone());
    let menu = tools.whole_menu(&session, &caller).await;
    let listed = tools.list_tools(&Seat::Fixed(session.clone()), &caller).await?;
    let own = listed.iter().filter(|tool| menu.tool(&tool.name).is_none()).map(|tool| shown(&tool.name, tool));
    let servers = menu.tools.iter().map(|tool| {
        let mut shown = shown(&tool.exposed, &tool.tool);
        shown["server"] = json!(tool.server);
        shown["listed"] = json!(tool.listed);
        shown
    });
    Ok(Json(json!({"session": id, "tools": own.chain(servers).collect::<Vec<_>>()})))
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
    let menu = state.inner.tools.whole_menu(&session, &caller).await;
    let name = match menu.find_tool(&wanted.name) {
        Found::Tool(tool) => tool.exposed.clone(),
        Found::Nothing => wanted.name,
        Found::Ambiguous(tools) => {
            let names: Vec<&str> = tools.iter().map(|tool| tool.exposed.as_str()).collect();
            let message = format!("several servers have a tool `{}`: name one of {}", wanted.name, names.join(", "));
            return Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, message));
        }
    };
    let params = Box::new(CallToolRequestParams::new(name.clone()).with_arguments(wanted.arguments));
    let operation = match ManagementTool::named(&name) {
        Some(ManagementTool::Exec) | None => Operation::Tool(params),
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
