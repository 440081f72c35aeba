//! Headers that say again what a request's body says: SEP-2243, in revision 2026-07-28.

use http::HeaderName;
use rmcp::model::Tool;
use serde_json::Value;

pub(crate) const METHOD: HeaderName = HeaderName::from_static("mcp-method");
pub(crate) const NAME: HeaderName = HeaderName::from_static("mcp-name");

/// What the headers of single arguments begin with.
pub(crate) const ARGUMENT_PREFIX: &str = "mcp-param-";

/// Whether arguments of this tool are to be in headers too.
pub(crate) fn has_argument_headers(tool: &Tool) -> bool {
    tool.input_schema.values().any(is_annotated)
}

fn is_annotated(schema: &Value) -> bool {
    match schema {
        Value::Object(parts) => parts.contains_key("x-mcp-header") || parts.values().any(is_annotated),
        Value::Array(parts) => parts.iter().any(is_annotated),
        _ => false,
    }
}
