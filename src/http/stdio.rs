//! MCP over a byte stream: what `mcp-broker stdio` attaches to.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Query, Request, State},
    response::{IntoResponse as _, Response},
    routing::get,
};
use http::{HeaderValue, StatusCode, header};
use hyper_util::rt::TokioIo;
use rmcp::{ServiceExt as _, transport::async_rw::AsyncRwTransport};
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{HttpParts, answers::Answering};
use crate::{
    endpoint::Endpoint,
    ids::{Principal, SessionId},
    session::{Session, SessionsError},
    store::sessions::SessionKind,
};

/// The protocol's name in `Upgrade`.
pub const UPGRADE: &str = "mcp-stdio";

/// The response header with the session's id.
pub const SESSION_HEADER: &str = "mcp-broker-session";

/// Which session a stream is for.
#[derive(Debug, Default, Clone, Deserialize)]
pub struct Wanted {
    /// The session of this name, made if there is none.
    pub name: Option<String>,
    /// The session of this id, if it has not ended: for a stream whose broker was lost.
    pub resume: Option<SessionId>,
}

pub(super) fn router(parts: HttpParts) -> Router {
    Router::new().route("/stdio", get(upgrade)).with_state(parts)
}

/// The session a stream is for: a named one, one that it had before, or a new one that ends with it.
///
/// # Errors
///
/// When it cannot be had or made.
pub async fn session(parts: &HttpParts, wanted: Wanted) -> Result<Arc<Session>, SessionsError> {
    let sessions = parts.tools.sessions();
    if let Some(name) = wanted.name {
        return sessions.named(&name, Principal::Local).await;
    }
    if let Some(id) = wanted.resume
        && let Some(session) = sessions.get(&id).await?
        && *session.principal() == Principal::Local
    {
        return Ok(session);
    }
    sessions.create(SessionKind::Process, Principal::Local, None, None).await
}

async fn upgrade(State(parts): State<HttpParts>, Query(wanted): Query<Wanted>, mut request: Request) -> Response {
    let asks = request.headers().get(header::UPGRADE).is_some_and(|protocol| protocol == UPGRADE);
    if !asks {
        let message = format!("this path is a stream: ask for it with `Upgrade: {UPGRADE}`");
        return (StatusCode::UPGRADE_REQUIRED, Json(json!({"error": {"message": message}}))).into_response();
    }
    let session = match session(&parts, wanted).await {
        Ok(session) => session,
        Err(error) => {
            let message = crate::supervisor::upstream::chain(&error);
            return (StatusCode::CONFLICT, Json(json!({"error": {"message": message}}))).into_response();
        }
    };
    let id = session.id().clone();
    let upgraded = hyper::upgrade::on(&mut request);
    let tasks = parts.tools.tasks().clone();
    tasks.spawn(async move {
        match upgraded.await {
            Ok(stream) => serve(&parts, session, tokio::io::split(TokioIo::new(stream))).await,
            Err(error) => tracing::warn!(%error, "a stdio stream was not taken up"),
        }
    });
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static(UPGRADE));
    if let Ok(id) = HeaderValue::from_str(id.as_str()) {
        headers.insert(SESSION_HEADER, id);
    }
    response
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
    let stopping = parts.tools.tasks().is_stopping();
    if session.kind() == SessionKind::Process && !stopping {
        let sessions = parts.tools.sessions();
        if let Err(error) = sessions.end(session.id(), "its process ended").await {
            tracing::warn!(%error, "the session of a process was not ended");
        }
    }
}
