//! Who a request is from, and whether it may be where it is.
//!
//! The broker's token opens everything. A session's token opens that session and nothing else: 401 says that a token is
//! missing or unknown (RFC 6750), 403 that it is somebody else's. An `Mcp-Session-Id` is good only for whom it was given to.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Json,
    body::Body,
    extract::{Path, Request, State as AxumState},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use futures_util::StreamExt as _;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::json;
use subtle::ConstantTimeEq as _;
use tokio::sync::broadcast::error::RecvError;

use super::{HttpParts, connections::Connections};
use crate::{
    endpoint::Access,
    ids::{Principal, SessionId, TokenHash},
    session::{Change, Session},
    store::StoreError,
    tools::Tools,
};

pub(super) const CONNECTION_HEADER: &str = "mcp-session-id";

/// Knows the tokens.
pub(super) struct Authentication {
    broker: TokenHash,
    tools: Tools,
    required: bool,
}

#[derive(Clone)]
pub(super) struct State {
    pub(super) authentication: Arc<Authentication>,
    pub(super) connections: Arc<Connections>,
}

/// Whose token it was.
enum Bearer {
    Broker,
    Session(Arc<Session>),
    /// None was needed, and none was given.
    Nobody,
}

/// Why a request is not let in.
pub(super) enum Denied {
    /// A token is missing or unknown.
    Unauthorized(&'static str),
    /// The token is good, but not for this.
    Forbidden(&'static str),
    NotFound(&'static str),
    Unavailable,
}

impl From<StoreError> for Denied {
    fn from(error: StoreError) -> Self {
        tracing::error!(error = %crate::supervisor::upstream::chain(&error), "the database does not answer");
        Self::Unavailable
    }
}

impl Denied {
    fn into_response(self) -> Response {
        let (status, message) = match self {
            Self::Unauthorized(message) => (StatusCode::UNAUTHORIZED, message),
            Self::Forbidden(message) => (StatusCode::FORBIDDEN, message),
            Self::NotFound(message) => (StatusCode::NOT_FOUND, message),
            Self::Unavailable => {
                (StatusCode::SERVICE_UNAVAILABLE, "the broker's database does not answer: see its log")
            }
        };
        let mut response = (status, Json(json!({"error": {"message": message}}))).into_response();
        if status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"mcp-broker\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

impl Authentication {
    pub(super) fn new(parts: &HttpParts, required: bool) -> Self {
        Self { broker: parts.api.token_hash(), tools: parts.tools.clone(), required }
    }

    async fn bearer(&self, headers: &HeaderMap) -> Result<Bearer, Denied> {
        let Some(token) = bearer_token(headers) else {
            return if self.required {
                Err(Denied::Unauthorized("a bearer token is needed: `Authorization: Bearer …`"))
            } else {
                Ok(Bearer::Nobody)
            };
        };
        let hash = TokenHash::of(token);
        if bool::from(hash.as_bytes().ct_eq(self.broker.as_bytes())) {
            return Ok(Bearer::Broker);
        }
        match self.tools.sessions().by_token(&hash).await? {
            Some(session) => Ok(Bearer::Session(session)),
            None if self.required => Err(Denied::Unauthorized("this token is not known, or its session has ended")),
            None => Ok(Bearer::Nobody),
        }
    }

    async fn access(&self, headers: &HeaderMap, session: Option<&str>) -> Result<Access, Denied> {
        let bearer = self.bearer(headers).await?;
        let Some(named) = session else {
            return Ok(match bearer {
                Bearer::Broker => Access::Shared(Principal::Administrator),
                Bearer::Nobody => Access::Shared(Principal::Anonymous),
                Bearer::Session(session) => of_its_own(session),
            });
        };
        match bearer {
            Bearer::Session(session) if session.id().as_str() == named => Ok(of_its_own(session)),
            Bearer::Session(_) => Err(Denied::Forbidden("this token is for another session")),
            Bearer::Broker => Ok(Access::Session(self.named(named).await?, Principal::Administrator)),
            Bearer::Nobody => Ok(Access::Session(self.named(named).await?, Principal::Anonymous)),
        }
    }

    async fn named(&self, id: &str) -> Result<Arc<Session>, Denied> {
        let unknown = || Denied::NotFound("there is no such session, or it has ended");
        let id: SessionId = id.parse().map_err(|_| unknown())?;
        self.tools.sessions().get(&id).await?.ok_or_else(unknown)
    }
}

fn of_its_own(session: Arc<Session>) -> Access {
    let principal = Principal::Session(session.id().clone());
    Access::Session(session, principal)
}

/// RFC 6750, section 2.1; the scheme's name is case-insensitive (RFC 9110, section 11.1).
fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Lets a request to an MCP endpoint through, with its [`Access`].
pub(super) async fn for_mcp(
    AxumState(state): AxumState<State>,
    path: Option<Path<HashMap<String, String>>>,
    mut request: Request,
    next: Next,
) -> Response {
    let token = request.headers().get(header::AUTHORIZATION).cloned();
    let session = path.as_ref().and_then(|Path(parameters)| parameters.get("session")).map(String::as_str);
    let access = match state.authentication.access(request.headers(), session).await {
        Ok(access) => access,
        Err(denied) => return denied.into_response(),
    };
    let _using = match request.headers().get(CONNECTION_HEADER).and_then(|id| id.to_str().ok()) {
        None => None,
        Some(id) => match state.connections.enter(id, &access).await {
            Ok(Some(using)) => Some(using),
            Ok(None) => return Denied::NotFound("there is no such MCP session: initialize again").into_response(),
            Err(error) => return Denied::from(error).into_response(),
        },
    };
    request.extensions_mut().insert(access.clone());
    let by_its_token = match &access {
        Access::Session(session, Principal::Session(_)) => Some(session.clone()),
        _ => None,
    };
    let response = access.scope(next.run(request)).await;
    match (by_its_token, token) {
        (Some(session), Some(token)) if is_stream(&response) => {
            while_it_opens(response, &session, token, state.authentication).await
        }
        _ => response,
    }
}

fn is_stream(response: &Response) -> bool {
    response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

/// Has a stream end when the token that opened it opens its session no more.
async fn while_it_opens(
    response: Response,
    session: &Session,
    token: HeaderValue,
    authentication: Arc<Authentication>,
) -> Response {
    let mut changes = session.changes();
    let headers = HeaderMap::from_iter([(header::AUTHORIZATION, token)]);
    // It may have become another one since it was looked at.
    if let Err(denied) = authentication.bearer(&headers).await {
        return denied.into_response();
    }
    let void = async move {
        loop {
            match changes.recv().await {
                Ok(Change::TokenChanged | Change::Ended) | Err(RecvError::Closed) => return,
                Ok(_) => {}
                Err(RecvError::Lagged(_)) if authentication.bearer(&headers).await.is_ok() => {}
                Err(RecvError::Lagged(_)) => return,
            }
        }
    };
    response.map(|body| Body::from_stream(body.into_data_stream().take_until(Box::pin(void))))
}

/// Lets a request to the REST interface through: it is the administrator's.
pub(super) async fn for_api(
    AxumState(authentication): AxumState<Arc<Authentication>>,
    mut request: Request,
    next: Next,
) -> Response {
    let principal = match authentication.bearer(request.headers()).await {
        Ok(Bearer::Broker) => Principal::Administrator,
        Ok(Bearer::Nobody) => Principal::Anonymous,
        Ok(Bearer::Session(_)) => {
            return Denied::Forbidden("a session's token opens its MCP endpoint only").into_response();
        }
        Err(denied) => return denied.into_response(),
    };
    request.extensions_mut().insert(principal);
    next.run(request).await
}
