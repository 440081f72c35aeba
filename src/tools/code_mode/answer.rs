//! What came of a script, as its caller is told; and what was too long to be told at once.

use js_runtime::{CallRecord, Ending, Limit, Limits, Outcome};
use rmcp::model::{CallToolResult, ContentBlock, JsonObject};
use serde::Deserialize;
use serde_json::{Value, json};

use super::shape::Shape;
use crate::{
    audit::Status,
    ids::CallId,
    session::{
        Session,
        kept::{KEPT_FOR, RESULTS_MAX},
    },
    tools::{Context, Reply, failure::Failure},
};

/// The tool that reads what was too long, page by page. It is called through `mcp-exec`.
pub(in crate::tools) const READ_RESULT: &str = "broker__read-result";

/// How much of a result that is too long is shown at once.
const PREVIEW_BYTES: usize = 4 << 10;
const PAGE_BYTES: usize = 16 << 10;
const TYPE_CHARACTERS_MAX: usize = 2000;

/// Calls in an answer; the audit log has them all.
const CALLS_SHOWN_MAX: usize = 50;

pub(super) fn answer(context: &Context, session: &Session, outcome: Outcome, record: CallId) -> Result<Reply, Failure> {
    let Outcome { ending, logs, calls } = outcome;
    let mut structured = json!({
        "execution_id": record,
        "logs": logs,
        "calls": calls.iter().take(CALLS_SHOWN_MAX).map(call).collect::<Vec<_>>(),
    });
    if calls.len() > CALLS_SHOWN_MAX {
        structured["calls_left_out"] = json!(calls.len() - CALLS_SHOWN_MAX);
    }
    let completed = matches!(ending, Ending::Completed(_));
    match ending {
        Ending::Completed(result) => {
            structured["status"] = json!("completed");
            structured["result"] = shown(context, session, result);
        }
        Ending::Error(error) => {
            structured["status"] = json!("error");
            structured["error"] = json!(error);
        }
        Ending::Limit(limit) => {
            structured["status"] = json!("limit");
            structured["error"] =
                json!({"name": "LimitError", "message": limit_text(limit, context.code_mode.limits())});
        }
        Ending::Cancelled => return Err(Failure::said("the script was cancelled").with_status(Status::Cancelled)),
        Ending::Lost(how) => {
            structured["status"] = json!("error");
            structured["error"] =
                json!({"name": "WorkerError", "message": format!("{how}; nothing else is affected: run it again")});
        }
    }
    Ok(reply(structured, completed))
}

fn reply(structured: Value, is_ok: bool) -> Reply {
    let text = ContentBlock::text(structured.to_string());
    let mut result = if is_ok { CallToolResult::success(vec![text]) } else { CallToolResult::error(vec![text]) };
    result.structured_content = Some(structured);
    Reply::CallToolResult(result)
}

fn call(call: &CallRecord) -> Value {
    json!({"server": call.server, "tool": call.tool, "ms": call.ms, "ok": call.ok})
}

/// The result, or, where it is too long to be read, its beginning, what it looks like and how to read the rest.
fn shown(context: &Context, session: &Session, result: Value) -> Value {
    let text = result.to_string();
    if text.len() <= context.code_mode.answer_bytes_max() {
        return result;
    }
    let preview = &text[..text.floor_char_boundary(PREVIEW_BYTES)];
    let mut shown = json!({
        "preview": preview,
        "type": Shape::of(&result).to_type().chars().take(TYPE_CHARACTERS_MAX).collect::<String>(),
        "bytes": text.len(),
        "left_out": text.len() - preview.len(),
    });
    match session.keep_result(&text, &context.results) {
        Some(handle) => {
            shown["hint"] = json!(format!(
                "The result is too long to be shown. Return only what you need of it, or read on with mcp-exec: \
                 {{\"name\": \"{READ_RESULT}\", \"arguments\": {{\"handle\": \"{handle}\", \"offset\": {}}}}}",
                preview.len()
            ));
            shown["handle"] = json!(handle);
        }
        None => {
            shown["hint"] = json!(
                "The result is too long to be shown, and there is no room to keep it: return only what you need of it."
            );
        }
    }
    shown
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    handle: String,
    #[serde(default)]
    offset: usize,
}

/// A page of a result that was too long.
pub(in crate::tools) fn read_result(session: &Session, arguments: JsonObject) -> Result<Reply, Failure> {
    let Page { handle, offset } = serde_json::from_value(Value::Object(arguments)).map_err(|error| {
        Failure::said(format!("{READ_RESULT} takes `handle` and, if you like, `offset` (a number of bytes): {error}"))
    })?;
    let Some(text) = session.kept_result(&handle) else {
        let handle: String = handle.chars().take(60).collect();
        return Err(Failure::said(format!(
            "this session has no result `{handle}`: the last {RESULTS_MAX} are kept, for {} minutes at most, and a restart \
             of the broker drops them. Run the script again, and return less of it.",
            KEPT_FOR.as_secs() / 60
        )));
    };
    if offset >= text.len() {
        return Err(Failure::said(format!("`offset` must be less than {}, the length of the result", text.len())));
    }
    let start = text.floor_char_boundary(offset);
    let end = text.floor_char_boundary((start + PAGE_BYTES).min(text.len()));
    let mut structured = json!({"handle": handle, "offset": start, "bytes": text.len(), "text": &text[start..end], "done": end == text.len()});
    if end < text.len() {
        structured["next_offset"] = json!(end);
    }
    Ok(reply(structured, true))
}

fn limit_text(limit: Limit, limits: &Limits) -> String {
    let raise = |setting: &str| format!("do less in one script, or have the operator raise code_mode.{setting}");
    match limit {
        Limit::Wall => format!("it ran for {} s: {}", limits.wall.as_secs(), raise("wall_seconds")),
        Limit::Cpu => format!("it used {} s of CPU: {}", limits.cpu.as_secs(), raise("cpu_seconds")),
        Limit::Heap => format!("it used {} MiB of memory: {}", limits.heap_bytes >> 20, raise("heap_bytes")),
        Limit::Result => {
            format!("its result is longer than {} bytes: {}", limits.result_bytes_max, raise("result_bytes_max"))
        }
        Limit::Calls => format!("it made more than {} calls: {}", limits.calls_max, raise("calls_max")),
        Limit::Script => {
            format!("it is longer than {} bytes: {}", limits.script_bytes_max, raise("script_bytes_max"))
        }
    }
}
