//! The way to a server over streamable HTTP, for tool calls that do not go through rmcp's transport.
//!
//! That transport has the session: it opens it, opens another when the server has forgotten it, and ends it. What it posts
//! with is noted here, and calls are posted with the same. A call's stream is read here to its answer. What else a server
//! says on it goes where it would go otherwise; a stream that breaks is resumed (2025-11-25, "Resumability and
//! Redelivery").

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt as _, stream::BoxStream};
use http::{HeaderName, HeaderValue, StatusCode};
use rmcp::{
    model::{ClientJsonRpcMessage, ClientRequest, GetExtensions as _, RequestId, ServerJsonRpcMessage, Tool},
    service::InboundStreamOrigin,
    transport::{
        common::client_side_sse::{ExponentialBackoff, SseRetryPolicy as _},
        streamable_http_client::{
            SseError, StreamableHttpClient as _, StreamableHttpError, StreamableHttpPostResponse,
        },
    },
};
use sse_stream::Sse;
use tokio::sync::{Semaphore, mpsc, watch};

use super::{
    calls::{self, Calls},
    decode::{self, Decoded},
    direct::Unanswered,
    remote::CONCURRENT_MAX,
    upstream::{RequestError, chain},
};
use crate::{
    caller::Era,
    mcp_headers::{self, ARGUMENT_PREFIX, METHOD, NAME},
};

/// Messages for rmcp that may wait for it; a stream with more is not read on until it has taken some.
const ASIDES_MAX: usize = 64;

/// How long a server may take for a refusal of what it has asked; its call's stream is not read meanwhile.
const REFUSAL_MAX: Duration = Duration::from_secs(5);

pub(crate) type Asides = mpsc::Receiver<ServerJsonRpcMessage>;

type Failure = StreamableHttpError<reqwest::Error>;
type Events = BoxStream<'static, Result<Sse, SseError>>;

/// One server, and how calls get there now.
pub(crate) struct Door {
    client: reqwest::Client,
    url: Arc<str>,
    server: Arc<str>,
    calls: Arc<Calls>,
    message_bytes_max: usize,
    /// What rmcp last posted with; nothing while the server may not know the session.
    way: watch::Sender<Option<Arc<Way>>>,
    posts: Semaphore,
    /// Tools with arguments that are to be in headers, which rmcp puts there.
    annotated: Mutex<HashSet<String>>,
    aside: mpsc::Sender<ServerJsonRpcMessage>,
}

/// What any message is sent with.
pub(crate) struct Way {
    session: Option<Arc<str>>,
    headers: HashMap<HeaderName, HeaderValue>,
}

impl Way {
    /// What `message` was sent with, but for what is its own. An `initialize` has no session yet.
    pub(super) fn of(
        message: &ClientJsonRpcMessage,
        session: Option<&Arc<str>>,
        headers: &HashMap<HeaderName, HeaderValue>,
    ) -> Option<Self> {
        if let ClientJsonRpcMessage::Request(request) = message
            && let ClientRequest::InitializeRequest(_) = request.request
        {
            return None;
        }
        let of_this_message =
            |name: &HeaderName| [METHOD, NAME].contains(name) || name.as_str().starts_with(ARGUMENT_PREFIX);
        let headers = headers.iter().filter(|(name, _)| !of_this_message(name));
        Some(Self {
            session: session.cloned(),
            headers: headers.map(|(name, value)| (name.clone(), value.clone())).collect(),
        })
    }
}

impl Door {
    pub(crate) fn new(
        client: reqwest::Client,
        url: Arc<str>,
        server: Arc<str>,
        calls: Arc<Calls>,
        message_bytes_max: usize,
    ) -> (Arc<Self>, Asides) {
        let (aside, asides) = mpsc::channel(ASIDES_MAX);
        let (way, posts, annotated) = (watch::Sender::default(), Semaphore::new(CONCURRENT_MAX), Mutex::default());
        (Arc::new(Self { client, url, server, calls, message_bytes_max, way, posts, annotated, aside }), asides)
    }

    pub(super) fn url(&self) -> &Arc<str> {
        &self.url
    }

    pub(super) fn server(&self) -> &str {
        &self.server
    }

    /// Takes note of what rmcp has posted, and what came of it.
    pub(super) fn posted(&self, way: Option<Way>, response: &Result<StreamableHttpPostResponse, Failure>) {
        let Some(way) = way else { return };
        match response {
            Ok(_) => drop(self.way.send_replace(Some(Arc::new(way)))),
            Err(StreamableHttpError::SessionExpired) => self.forget(way.session.as_ref()),
            Err(_) => {}
        }
    }

    /// Takes note of the tools that a server lists.
    pub(super) fn note_headers(&self, tools: &[Tool]) {
        let mut annotated = self.annotated.lock().unwrap_or_else(PoisonError::into_inner);
        for tool in tools {
            if mcp_headers::has_argument_headers(tool) {
                annotated.insert(tool.name.to_string());
            } else {
                annotated.remove(tool.name.as_ref());
            }
        }
    }

    /// How a call of `tool` is posted, unless only rmcp can do that.
    pub(super) fn way(&self, tool: &str, era: Era) -> Option<(Arc<Way>, HashMap<HeaderName, HeaderValue>)> {
        let way = self.way.borrow().clone()?;
        let mut headers = way.headers.clone();
        if era == Era::Modern {
            // What is not such a word is encoded.
            if !tool.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-./".contains(&byte))
                || self.annotated.lock().unwrap_or_else(PoisonError::into_inner).contains(tool)
            {
                return None;
            }
            headers.insert(METHOD, HeaderValue::from_static("tools/call"));
            headers.insert(NAME, HeaderValue::from_str(tool).ok()?);
        }
        Some((way, headers))
    }

    /// Posts a call and reads what comes, its answer too, which whoever waits for it is given. Ends with it.
    pub(super) async fn post(
        self: Arc<Self>,
        message: ClientJsonRpcMessage,
        id: RequestId,
        (way, headers): (Arc<Way>, HashMap<HeaderName, HeaderValue>),
    ) -> Result<(), Unanswered> {
        let (url, session, bytes_max) = (self.url.clone(), way.session.clone(), self.message_bytes_max);
        let place = self.posts.acquire().await;
        let posting = self.client.post_message_with_max_sse_event_size(url, message, session, None, headers, bytes_max);
        let posted = posting.await;
        drop(place);
        match posted {
            Ok(StreamableHttpPostResponse::Accepted) => self.answered_elsewhere(&way).await,
            Ok(StreamableHttpPostResponse::Json(message, _)) => self.only(message, &id),
            Ok(StreamableHttpPostResponse::Sse(events, _)) => self.read(events, &id, &way).await,
            Err(StreamableHttpError::SessionExpired) => {
                self.forget(way.session.as_ref());
                Err(Unanswered::NotRun)
            }
            Ok(_) => Err(RequestError::UnexpectedAnswer.into()),
            Err(error) => Err(RequestError::Send(chain(&error)).into()),
        }
    }

    /// The server answers on the stream that rmcp reads, as long as it knows this session.
    async fn answered_elsewhere(&self, way: &Way) -> Result<(), Unanswered> {
        let other = |now: &Option<Arc<Way>>| now.as_ref().is_none_or(|now| now.session != way.session);
        let _ = self.way.subscribe().wait_for(other).await;
        Err(RequestError::BrokenOff.into())
    }

    /// A response that is one message. An error in it is this call's, whatever its id: servers have none for what they could
    /// not read.
    fn only(&self, message: ServerJsonRpcMessage, id: &RequestId) -> Result<(), Unanswered> {
        match message {
            ServerJsonRpcMessage::Error(error) => Err(RequestError::Protocol(error.error).into()),
            ServerJsonRpcMessage::Response(response) if calls::is_same(&response.id, id) => {
                self.calls.arrived(ServerJsonRpcMessage::Response(response));
                Ok(())
            }
            _ => Err(RequestError::UnexpectedAnswer.into()),
        }
    }

    /// Reads a call's stream to its end, and what is left of it if it breaks off before the answer.
    async fn read(&self, mut events: Events, id: &RequestId, way: &Way) -> Result<(), Unanswered> {
        let (mut last, mut pause) = (None, None);
        loop {
            let broken = loop {
                let event = match events.next().await {
                    Some(Ok(event)) => event,
                    Some(Err(error)) => break Some(error),
                    None => break None,
                };
                last = event.id.or(last);
                pause = event.retry.map(Duration::from_millis).or(pause);
                if let (None | Some("" | "message"), Some(text)) = (event.event.as_deref(), event.data)
                    && !text.is_empty()
                {
                    self.heard(&text, id, way).await;
                }
            };
            if !self.calls.is_awaited(id) {
                return Ok(());
            }
            if broken.is_some_and(|error| is_too_long(&error)) {
                return Err(RequestError::MessageTooLong(self.message_bytes_max).into());
            }
            let last = last.as_deref().ok_or(RequestError::BrokenOff)?;
            events = self.resumed(way, last, pause.take()).await?;
        }
    }

    /// What is left of a call's stream, as soon as the server gives it; first after a pause.
    async fn resumed(&self, way: &Way, last: &str, mut pause: Option<Duration>) -> Result<Events, Unanswered> {
        for failures in 0.. {
            let backoff = ExponentialBackoff::default().retry(failures).unwrap_or_default();
            tokio::time::sleep(pause.take().unwrap_or(backoff)).await;
            let (url, session, bytes_max) = (self.url.clone(), way.session.clone(), self.message_bytes_max);
            let (last, headers) = (Some(last.to_owned()), way.headers.clone());
            match self.client.get_stream_with_max_sse_event_size(url, session, last, None, headers, bytes_max).await {
                Ok(events) => return Ok(events),
                Err(
                    error @ (StreamableHttpError::ServerDoesNotSupportSse
                    | StreamableHttpError::AuthRequired(_)
                    | StreamableHttpError::InsufficientScope(_)),
                ) => return Err(RequestError::Send(chain(&error)).into()),
                Err(StreamableHttpError::Client(error)) if error.status() == Some(StatusCode::NOT_FOUND) => {
                    self.forget(way.session.as_ref());
                    break;
                }
                Err(error) => {
                    tracing::debug!(server.name = %self.server, %error, "a call's stream could not be resumed");
                }
            }
        }
        Err(RequestError::BrokenOff.into())
    }

    /// Takes one message off the stream of the call `id`.
    async fn heard(&self, text: &str, id: &RequestId, way: &Way) {
        let message = match decode::decode(text.as_bytes(), &self.calls, &self.server) {
            Decoded::Message(message) => *message,
            Decoded::BadRequest(request, error) => {
                let refusal = ClientJsonRpcMessage::error(error, Some(request));
                let (url, session) = (self.url.clone(), way.session.clone());
                let posting = self.client.post_message(url, refusal, session, None, way.headers.clone());
                if !matches!(tokio::time::timeout(REFUSAL_MAX, posting).await, Ok(Ok(_))) {
                    tracing::debug!(server.name = %self.server, "a refusal could not be sent");
                }
                return;
            }
            Decoded::Noise(_) => {
                tracing::debug!(server.name = %self.server, "a server said what nobody waits for");
                return;
            }
        };
        if let Some(mut message) = self.calls.arrived(message) {
            if let ServerJsonRpcMessage::Request(request) = &mut message {
                request.request.extensions_mut().insert(InboundStreamOrigin::OutboundRequest(id.clone()));
            }
            let _ = self.aside.send(message).await;
        }
    }

    /// The server does not know this session any more. rmcp opens another one at its next request.
    fn forget(&self, session: Option<&Arc<str>>) {
        self.way.send_if_modified(|way| way.take_if(|way| way.session.as_ref() == session).is_some());
    }
}

/// Whether an event was given up for its length: rmcp has a type for it, and keeps it to itself.
fn is_too_long(error: &SseError) -> bool {
    matches!(error, SseError::Body(cause) if cause.to_string().starts_with("SSE event exceeded"))
}
