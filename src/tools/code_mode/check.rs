//! Arguments of a script's calls, held against the tools' input schemas before anything is called.
//!
//! A client's calls are not checked (servers disagree with their own schemas, and the server's word is what counts). A
//! script's are: it makes many at once, and the whole run is what has to be repeated when one is wrong.

use js_runtime::CallError;
use serde_json::Value;

use crate::{session::menu::MenuTool, tools::signature::signature};

const PROBLEMS_MAX: usize = 5;
const PROBLEM_CHARACTERS_MAX: usize = 300;

/// What is wrong with the arguments of a call, if anything is. Then the call is not made, and has no record. A tool whose
/// schema cannot be used is not checked.
pub(super) fn problem(tool: &MenuTool, arguments: &Value) -> Option<CallError> {
    let problems = tool.schema()?.problems(arguments);
    if problems.is_empty() {
        return None;
    }
    let problems: Vec<String> = problems
        .iter()
        .take(PROBLEMS_MAX)
        .map(|error| {
            let place = error.instance_path().to_string();
            let problem: String = error.to_string().chars().take(PROBLEM_CHARACTERS_MAX).collect();
            if place.is_empty() { problem } else { format!("{problem} (at {place})") }
        })
        .collect();
    let name = &tool.tool.name;
    Some(CallError {
        message: format!(
            "`{name}` was not called, because its arguments do not fit: {}. It is {}; the error's `schema` says all",
            problems.join("; "),
            signature(name, &tool.tool.input_schema),
        ),
        schema: Some(Value::Object(tool.tool.input_schema.as_ref().clone())),
    })
}
