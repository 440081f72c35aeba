//! A short way for plain tool calls: what is certain to be one is begun at once ([`QuickCalls`]) and answered as JSON.
//! Everything else, and everything about which rmcp might have something to say, goes to rmcp as it came.

use std::sync::Arc;

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use rmcp::model::{CallToolRequestParams, ProtocolVersion, RequestId};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::auth::CONNECTION_HEADER;
use crate::{
    caller::Era,
    endpoint::{Access, PlainCall, QuickCalls, Taken},
};

/// A larger body is read by rmcp alone, which knows the limit.
const BODY_BYTES_MAX: usize = 64 * 1024;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream");

const VERSION_HEADER: HeaderName = HeaderName::from_static("mcp-protocol-version");
const METHOD_HEADER: HeaderName = HeaderName::from_static("mcp-method");
const NAME_HEADER: HeaderName = HeaderName::from_static("mcp-name");

const CALL: &str = "tools/call";

/// A request, as far as it shows whether it is a call.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    jsonrpc: &'a str,
    id: RequestId,
    method: &'a str,
    #[serde(borrow)]
    params: &'a RawValue,
}

/// Answers a plain call, and has everything else answered.
pub(super) async fn answer(State(quick): State<Arc<QuickCalls>>, request: Request, next: Next) -> Response {
    let Some(era) = may_be_plain(&request) else { return next.run(request).await };
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, BODY_BYTES_MAX).await else {
        return (StatusCode::BAD_REQUEST, "the body could not be read").into_response();
    };
    let taken = match (plain_call(&body), era, parts.extensions.get::<Access>()) {
        (Some(call), Era::Legacy, _) => match header(&parts.headers, CONNECTION_HEADER) {
            Some(connection) => quick.on_connection(connection, call).await.ok(),
            None => None,
        },
        (Some(call), Era::Modern, Some(access)) if header(&parts.headers, NAME_HEADER) == Some(&call.params.name) => {
            quick.by_itself(access, call).await.ok()
        }
        _ => None,
    };
    let with_body = |body: Bytes| Request::from_parts(parts, Body::from(body));
    match taken {
        None => next.run(with_body(body)).await,
        Some(Taken::Answered(answer)) => match serde_json::to_vec(&answer) {
            Ok(answer) => ([(header::CONTENT_TYPE, JSON)], answer).into_response(),
            Err(error) => {
                tracing::error!(%error, "an answer could not be written as JSON");
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }
        },
        // A stream on which nothing comes.
        Some(Taken::TakenBack) => ([(header::CONTENT_TYPE, EVENTS)], Body::empty()).into_response(),
        Some(Taken::Runs(call, _begun)) => {
            let mut request = with_body(body);
            request.extensions_mut().insert(call);
            next.run(request).await
        }
    }
}

/// The era of a request whose head is that of a call and leaves nothing to check.
fn may_be_plain(request: &Request) -> Option<Era> {
    let headers = request.headers();
    let length: usize = header(headers, header::CONTENT_LENGTH)?.parse().ok()?;
    let accepted = header(headers, header::ACCEPT)?;
    let accepts = |kind: &HeaderValue| accepted.split(',').any(|accepted| accepted.trim().as_bytes() == kind);
    let is_plain = request.method() == Method::POST
        && length <= BODY_BYTES_MAX
        && headers.get(header::CONTENT_TYPE)? == JSON
        && accepts(&JSON)
        && accepts(&EVENTS);
    let has_session = headers.contains_key(CONNECTION_HEADER);
    let version = match headers.get(VERSION_HEADER) {
        Some(_) => Some(header(headers, VERSION_HEADER)?),
        None => None,
    };
    let era = match version.map(|version| version.cmp(ProtocolVersion::V_2026_07_28.as_str())) {
        None if has_session => Era::Legacy,
        Some(std::cmp::Ordering::Less) if has_session && version.is_some_and(is_known) => Era::Legacy,
        Some(std::cmp::Ordering::Equal) if !has_session && header(headers, METHOD_HEADER)? == CALL => Era::Modern,
        _ => return None,
    };
    is_plain.then_some(era)
}

fn is_known(version: &str) -> bool {
    ProtocolVersion::KNOWN_VERSIONS.iter().any(|known| known.as_str() == version)
}

/// The text of a header that is there once.
fn header(headers: &HeaderMap, name: impl header::AsHeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    let (first, further) = (values.next()?, values.next());
    if further.is_some() { None } else { first.to_str().ok() }
}

fn plain_call(body: &[u8]) -> Option<PlainCall> {
    let envelope: Envelope<'_> = serde_json::from_slice(body).ok()?;
    if envelope.jsonrpc != "2.0" || envelope.method != CALL {
        return None;
    }
    let params: CallToolRequestParams = serde_json::from_str(envelope.params.get()).ok()?;
    Some(PlainCall { id: envelope.id, params })
}
