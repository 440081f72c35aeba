//! MCP over a byte stream: what `mcp-broker stdio` attaches to.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, FromRequest as _, Request, State},
    response::{IntoResponse as _, Response},
    routing::post,
};
use http::{HeaderValue, StatusCode, header};
use hyper_util::rt::TokioIo;
use rmcp::{ServiceExt as _, transport::async_rw::AsyncRwTransport};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{HttpParts, answers::Answering};
use crate::{
    catalog::foreign::displayable,
    compose::Offer,
    endpoint::Endpoint,
    ids::{Principal, ServerName, SessionId},
    session::{Session, SessionsError},
    store::{StoreError, sessions::SessionKind},
    supervisor::upstream::chain,
    tools::Taken,
};

/// The protocol's name in `Upgrade`.
pub const UPGRADE: &str = "mcp-stdio";

/// The response header with the session's id.
pub const SESSION_HEADER: &str = "mcp-broker-session";

/// The response header that says that a Compose file waits for somebody to agree to it.
pub const WAITING_HEADER: &str = "mcp-broker-compose";

/// The response header with the services of a Compose file that are left out, and why: a list of text, as JSON.
pub const LEFT_OUT_HEADER: &str = "mcp-broker-compose-left-out";

/// What that header has at most, but for how many more there are.
const LEFT_OUT_BYTES_MAX: usize = 16 << 10;

/// Of each of them.
const LEFT_OUT_CHARACTERS_MAX: usize = 1000;

/// More than a request for a stream ever has.
const WANTED_BYTES_MAX: usize = 2 * crate::compose::OFFER_BYTES_MAX;

/// Which session a stream is for, and what it begins with.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Wanted {
    /// The session of this name, made if there is none.
    pub name: Option<String>,
    /// The session of this id, if it has not ended: for a stream whose broker was lost.
    pub resume: Option<SessionId>,
    /// Profiles whose servers it is to have.
    pub profiles: Vec<String>,
    /// Servers that it is to have besides.
    pub servers: Vec<ServerName>,
    /// The Compose file of the folder that the stream's process was started in. It was read there, with that process's
    /// variables: the broker may be another process, started somewhere else.
    pub compose: Option<Offer>,
}

/// A session for a stream cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    #[error(transparent)]
    Sessions(#[from] SessionsError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Begin(String),
}

/// A session for a stream, and whether a Compose file waits for somebody to agree to it.
pub struct Begun {
    pub session: Arc<Session>,
    pub waiting: bool,
    /// Services of a Compose file that are left out, and why.
    pub left_out: Vec<String>,
}

pub(super) fn router(parts: HttpParts) -> Router {
    let limit = DefaultBodyLimit::max(WANTED_BYTES_MAX);
    Router::new().route("/stdio", post(upgrade)).layer(limit).with_state(parts)
}

/// A session whose stream is not there yet. Dropping it ends a session that is the stream's alone: whoever wanted it has
/// hung up.
struct Unserved {
    parts: HttpParts,
    session: Option<Arc<Session>>,
}

impl Unserved {
    fn served(mut self) -> Option<Arc<Session>> {
        self.session.take()
    }
}

impl Drop for Unserved {
    fn drop(&mut self) {
        let Some(session) = self.session.take() else { return };
        let (tasks, parts) = (self.parts.tools.tasks().clone(), self.parts.clone());
        tasks.spawn(async move { end_with_its_stream(&parts, &session).await });
    }
}

/// The session a stream is for: a named one, one that it had before, or a new one that ends with it.
///
/// # Errors
///
/// When it cannot be had or made, or what it is to begin with cannot be used: then a new session has ended. A named one
/// stays, whether it was there before or not.
pub async fn session(parts: &HttpParts, wanted: Wanted) -> Result<Begun, StreamError> {
    let sessions = parts.tools.sessions();
    let Wanted { name, resume, profiles, servers, compose } = wanted;
    let resumed = match resume {
        Some(id) => sessions.get(&id).await?.filter(|session| *session.principal() == Principal::Local),
        None => None,
    };
    let came_back = resumed.is_some();
    let (session, is_new) = match (name, resumed) {
        (Some(name), _) => (sessions.named(&name, Principal::Local).await?, false),
        (None, Some(session)) => (session, false),
        (None, None) => (sessions.create(SessionKind::Process, Principal::Local, None, None).await?, true),
    };
    // A stream whose broker was lost goes on with what its session had.
    let begins = async {
        for profile in profiles.iter().filter(|_| !came_back) {
            parts.tools.begin_with_profile(&session, profile).await?;
        }
        if !(servers.is_empty() || came_back) {
            parts.tools.begin_with_servers(&session, &servers).await?;
        }
        match compose.filter(|_| !came_back || session.compose_entries().is_empty()) {
            Some(offer) => parts.tools.take_offer(&session, offer).await,
            None => Ok(Taken::Taken(Vec::new())),
        }
    };
    match begins.await {
        Ok(Taken::Taken(left_out)) => Ok(Begun { session, waiting: false, left_out }),
        Ok(Taken::Waiting) => Ok(Begun { session, waiting: true, left_out: Vec::new() }),
        Err(problem) => {
            if is_new {
                sessions.end(session.id(), "what it was to begin with could not be had").await?;
            }
            Err(StreamError::Begin(problem))
        }
    }
}

async fn upgrade(State(parts): State<HttpParts>, mut request: Request) -> Response {
    let asks = request.headers().get(header::UPGRADE).is_some_and(|protocol| protocol == UPGRADE);
    if !asks {
        let message = format!("this path is a stream: ask for it with `Upgrade: {UPGRADE}`");
        return (StatusCode::UPGRADE_REQUIRED, Json(json!({"error": {"message": message}}))).into_response();
    }
    let upgraded = hyper::upgrade::on(&mut request);
    let body = match Bytes::from_request(request, &()).await {
        Ok(body) => body,
        Err(rejection) => {
            let status = rejection.status();
            let message = if status == StatusCode::PAYLOAD_TOO_LARGE {
                format!("what the stream begins with has more than {WANTED_BYTES_MAX} bytes")
            } else {
                format!("what the stream is for could not be read: {}", rejection.body_text())
            };
            return (status, Json(json!({"error": {"message": message}}))).into_response();
        }
    };
    let wanted: Wanted = match serde_json::from_slice(&body) {
        Ok(wanted) => wanted,
        Err(error) => {
            let message = format!("what the stream is for cannot be understood; is it of another version? {error}");
            return (StatusCode::BAD_REQUEST, Json(json!({"error": {"message": message}}))).into_response();
        }
    };
    // What was begun is finished when who asked hangs up.
    let begun = {
        let (tasks, parts) = (parts.tools.tasks().clone(), parts.clone());
        let beginning = async move {
            let Begun { session, waiting, left_out } = session(&parts, wanted).await?;
            let id = session.id().clone();
            Ok((id, Unserved { parts, session: Some(session) }, waiting, left_out))
        };
        tasks.spawn(beginning).await
    };
    let begun = begun.unwrap_or_else(|_| Err(StreamError::Begin("the broker is stopping".to_owned())));
    let (id, unserved, waiting, left_out) = match begun {
        Ok(begun) => begun,
        Err(error) => {
            let message = chain(&error);
            return (StatusCode::CONFLICT, Json(json!({"error": {"message": message}}))).into_response();
        }
    };
    for problem in &left_out {
        tracing::warn!(problem, "a service of a Compose file is left out");
    }
    let tasks = parts.tools.tasks().clone();
    tasks.spawn(async move {
        match upgraded.await {
            Ok(stream) => {
                if let Some(session) = unserved.served() {
                    serve(&parts, session, tokio::io::split(TokioIo::new(stream))).await;
                }
            }
            Err(error) => tracing::warn!(%error, "a stdio stream was not taken up"),
        }
    });
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static(UPGRADE));
    if waiting {
        headers.insert(WAITING_HEADER, HeaderValue::from_static("waiting"));
    }
    if let Some(left_out) = left_out_header(&left_out) {
        headers.insert(LEFT_OUT_HEADER, left_out);
    }
    if let Ok(id) = HeaderValue::from_str(id.as_str()) {
        headers.insert(SESSION_HEADER, id);
    }
    response
}

/// What is left out, as a header has it: nothing if it is nothing.
fn left_out_header(left_out: &[String]) -> Option<HeaderValue> {
    let mut told: Vec<String> = Vec::new();
    let mut bytes = 0;
    for problem in left_out {
        let problem = displayable(problem, LEFT_OUT_CHARACTERS_MAX);
        bytes += serde_json::to_string(&problem).ok()?.len() + 1;
        if bytes > LEFT_OUT_BYTES_MAX {
            break;
        }
        told.push(problem);
    }
    if told.len() < left_out.len() {
        told.push(format!("and {} more", left_out.len() - told.len()));
    }
    if told.is_empty() { None } else { HeaderValue::from_bytes(&serde_json::to_vec(&told).ok()?).ok() }
}

/// Serves MCP on a stream until it ends; a session that was its alone ends with it.
pub async fn serve<R, W>(parts: &HttpParts, session: Arc<Session>, (read, write): (R, W))
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin + 'static,
{
    let _counted = parts.attached.one_more();
    let endpoint = Endpoint::for_stream(parts.tools.clone(), parts.parked.clone(), session.clone());
    let cut = parts.tools.tasks().cut_token().child_token();
    let transport = Answering::new(AsyncRwTransport::new(read, write), parts.tools.tasks().unanswered().clone());
    match endpoint.serve_with_ct(transport, cut).await {
        Ok(service) => {
            let _ = service.waiting().await;
        }
        Err(error) => tracing::debug!(%error, "a stdio stream ended before it began"),
    }
    end_with_its_stream(parts, &session).await;
}

async fn end_with_its_stream(parts: &HttpParts, session: &Session) {
    let stopping = parts.tools.tasks().is_stopping();
    if session.kind() == SessionKind::Process && !stopping {
        let sessions = parts.tools.sessions();
        if let Err(error) = sessions.end(session.id(), "its process ended").await {
            tracing::warn!(%error, "the session of a process was not ended");
        }
    }
}
