//! Telling a caller whose arguments were wrong what would be right.

use rmcp::model::{CallToolResult, ContentBlock, ErrorCode, JsonObject};
use serde_json::Value;

use super::failure::Failure;
use crate::session::menu::MenuTool;

/// A failed call whose arguments do not fit the tool's schema gets the schema, so that one retry suffices. The server's
/// word is what counts: arguments it accepts are never looked at.
pub(super) fn explained(mut result: CallToolResult, tool: &MenuTool, arguments: Option<&JsonObject>) -> CallToolResult {
    if result.is_error == Some(true)
        && let Some(hint) = schema_hint(tool, arguments)
    {
        result.content.push(ContentBlock::text(hint));
    }
    result
}

pub(super) fn explained_failure(failure: Failure, tool: &MenuTool, arguments: Option<&JsonObject>) -> Failure {
    if failure.code() != Some(ErrorCode::INVALID_PARAMS) {
        return failure;
    }
    match schema_hint(tool, arguments) {
        Some(hint) => Failure::said(format!("{}\n{hint}", failure.text())),
        None => failure,
    }
}

fn schema_hint(tool: &MenuTool, arguments: Option<&JsonObject>) -> Option<String> {
    const PROBLEMS_MAX: usize = 5;
    const SCHEMA_BYTES_MAX: usize = 8 << 10;
    let text = Value::Object(tool.tool.input_schema.as_ref().clone()).to_string();
    if text.len() > SCHEMA_BYTES_MAX {
        return None;
    }
    let given = Value::Object(arguments.cloned().unwrap_or_default());
    let problems = tool.schema()?.problems(&given);
    let problems: Vec<String> = problems.iter().take(PROBLEMS_MAX).map(ToString::to_string).collect();
    if problems.is_empty() {
        return None;
    }
    Some(format!(
        "The arguments of {} do not fit its schema: {}.\nIts input schema is {text}",
        tool.exposed,
        problems.join("; ")
    ))
}
