//! A short way for plain tool calls: what is certain to be one is begun at once ([`QuickCalls`]) and answered as JSON.
//! Everything else, and everything about which rmcp might have something to say, goes to rmcp as it came.

use std::{cmp::Ordering, sync::Arc};

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
    mcp_headers,
};

/// A larger body is read by rmcp alone.
const BODY_BYTES_MAX: usize = 64 * 1024;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream");

const VERSION_HEADER: HeaderName = HeaderName::from_static("mcp-protocol-version");

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
    let bytes_max = BODY_BYTES_MAX.min(quick.request_bytes_max());
    let Some(era) = era_of_plain(request.method(), request.headers(), bytes_max) else {
        return next.run(request).await;
    };
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, bytes_max).await else {
        return (StatusCode::BAD_REQUEST, "the body could not be read").into_response();
    };
    let taken = match (plain_call(&body), era, parts.extensions.get::<Access>()) {
        (Some(call), Era::Legacy, Some(access)) => match header(&parts.headers, CONNECTION_HEADER) {
            Some(connection) => quick.on_connection(access, connection, call).await,
            None => None,
        },
        (Some(call), Era::Modern, Some(access))
            if header(&parts.headers, mcp_headers::NAME) == Some(&call.params.name) =>
        {
            quick.by_itself(access, call).await
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
fn era_of_plain(method: &Method, headers: &HeaderMap, bytes_max: usize) -> Option<Era> {
    let length: usize = header(headers, header::CONTENT_LENGTH)?.parse().ok()?;
    let accepted = header(headers, header::ACCEPT)?;
    let accepts = |kind: &HeaderValue| accepted.split(',').any(|accepted| accepted.trim().as_bytes() == kind);
    let is_plain = *method == Method::POST
        && length <= bytes_max
        && JSON == header(headers, header::CONTENT_TYPE)?
        && !accepted.contains('"')
        && accepts(&JSON)
        && accepts(&EVENTS);
    let connection = header(headers, CONNECTION_HEADER);
    let version = match headers.contains_key(VERSION_HEADER) {
        true => Some(header(headers, VERSION_HEADER)?),
        false => None,
    };
    let era = match version.map(|version| version.cmp(ProtocolVersion::V_2026_07_28.as_str())) {
        None if connection.is_some() => Era::Legacy,
        Some(Ordering::Less) if connection.is_some() && version.is_some_and(is_known) => Era::Legacy,
        Some(Ordering::Equal)
            if !headers.contains_key(CONNECTION_HEADER) && header(headers, mcp_headers::METHOD)? == CALL =>
        {
            Era::Modern
        }
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

/// The call in a body. What is derived reads arrays as well as objects, and rmcp does not.
fn plain_call(body: &[u8]) -> Option<PlainCall> {
    if !body.trim_ascii_start().starts_with(b"{") {
        return None;
    }
    let envelope: Envelope<'_> = serde_json::from_slice(body).ok()?;
    if envelope.jsonrpc != "2.0" || envelope.method != CALL || !envelope.params.get().starts_with('{') {
        return None;
    }
    let params: CallToolRequestParams = serde_json::from_str(envelope.params.get()).ok()?;
    Some(PlainCall { id: envelope.id, params })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEGACY: [(&str, &str); 4] = [
        ("content-length", "100"),
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
        ("mcp-session-id", "s"),
    ];
    const MODERN: [(&str, &str); 5] = [
        ("content-length", "100"),
        ("content-type", "application/json"),
        ("accept", "text/event-stream,application/json"),
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tools/call"),
    ];

    fn era(head: &[(&'static str, &'static str)], change: &[(&'static str, &'static str)]) -> Option<Era> {
        let mut headers = HeaderMap::new();
        for (name, value) in head {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        for (name, value) in change {
            match *value {
                "" => drop(headers.remove(*name)),
                value => drop(headers.append(*name, HeaderValue::from_static(value))),
            }
        }
        era_of_plain(&Method::POST, &headers, 100)
    }

    #[test]
    fn a_head_that_leaves_nothing_to_check_has_an_era() {
        assert_eq!(era(&LEGACY, &[]), Some(Era::Legacy));
        assert_eq!(era(&LEGACY, &[("mcp-protocol-version", "2025-06-18")]), Some(Era::Legacy));
        assert_eq!(era(&MODERN, &[]), Some(Era::Modern));
        let of_neither = [
            (&LEGACY[..], &[("mcp-session-id", "")][..]),
            (&LEGACY, &[("mcp-session-id", "another")]),
            (&LEGACY, &[("content-length", "")]),
            (&LEGACY, &[("content-length", ""), ("content-length", "101")]),
            (&LEGACY, &[("content-type", "application/json")]),
            (&LEGACY, &[("content-type", ""), ("content-type", "text/plain")]),
            (&LEGACY, &[("accept", ""), ("accept", "application/json")]),
            (&LEGACY, &[("accept", ""), ("accept", "application/json, text/event-stream;q=0")]),
            (&LEGACY, &[("accept", ""), ("accept", "text/x;a=\", application/json, text/event-stream, \"")]),
            (&LEGACY, &[("mcp-protocol-version", "2025-01-01")]),
            (&LEGACY, &[("mcp-protocol-version", "2099-01-01")]),
            (&LEGACY, &[("mcp-protocol-version", "2025-06-18"), ("mcp-protocol-version", "2025-06-18")]),
            (&MODERN, &[("mcp-session-id", "s")]),
            (&MODERN, &[("mcp-method", "")]),
            (&MODERN, &[("mcp-method", ""), ("mcp-method", "tools/list")]),
            (&MODERN, &[("mcp-protocol-version", ""), ("mcp-protocol-version", "2026-07-29")]),
        ];
        for (head, change) in of_neither {
            assert_eq!(era(head, change), None, "{change:?}");
        }
        let headers = HeaderMap::from_iter(
            LEGACY.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))),
        );
        assert_eq!(era_of_plain(&Method::DELETE, &headers, 100), None);
        assert_eq!(era_of_plain(&Method::POST, &headers, 99), None);
    }

    #[test]
    fn a_body_is_a_call_only_as_rmcp_reads_it() {
        let call =
            plain_call(br#" {"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":"x","_meta":{"k":1}}}"#);
        let call = call.expect("it is one");
        assert!(call.params.name == "x" && call.params.meta.is_some_and(|meta| meta.contains_key("k")));
        for other in [
            r#"["2.0",1,"tools/call",{"name":"x"}]"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":[null,"x",{},null,null]}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"name":"x"}}"#,
            r#"{"jsonrpc":"1.0","id":1,"method":"tools/call","params":{"name":"x"}}"#,
            r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"x"}}"#,
            r#"{"jsonrpc":"2.0","id":null,"method":"tools/call","params":{"name":"x"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"arguments":{}}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x","name":"y"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x"},"more":1}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x"}"#,
        ] {
            assert!(plain_call(other.as_bytes()).is_none(), "{other}");
        }
    }
}
