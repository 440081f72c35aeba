//! HTTP with server-sent events, as in revision 2024-11-05.
//!
//! One GET stays open and brings everything the server says; its first event, `endpoint`, names where messages are posted.
//! When the stream ends the connection has ended: this transport has no way to resume.

use std::{collections::VecDeque, io, sync::Arc};

use futures_util::StreamExt as _;
use http::{HeaderMap, StatusCode, header};
use rmcp::{
    RoleClient,
    model::{ClientJsonRpcMessage, ServerJsonRpcMessage},
    transport::Transport,
};
use sse_stream::SseStream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    calls::Calls,
    decode::{self, Decoded},
    launch::RemoteLaunch,
    remote::{self, RemoteError},
    tail::Tail,
    wire,
};
use crate::lifecycle::Tasks;

const EVENTS_MAX: usize = 64;

/// The server cannot be reached this way.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SseConnectError {
    #[error(transparent)]
    Client(#[from] RemoteError),
    #[error("could not connect to {url}")]
    Connect {
        url: String,
        #[source]
        source: reqwest::Error,
    },
    #[error("{url} answered with HTTP {status}")]
    Status { url: String, status: u16, challenge: Option<String> },
    #[error("{url} did not say where to post messages")]
    NoEndpoint { url: String },
    #[error("{url} wants messages posted to another origin ({endpoint})")]
    ForeignEndpoint { url: String, endpoint: String },
}

pub(crate) struct SseTransport {
    client: reqwest::Client,
    endpoint: reqwest::Url,
    headers: HeaderMap,
    events: mpsc::Receiver<String>,
    ready: VecDeque<ServerJsonRpcMessage>,
    calls: Arc<Calls>,
    tail: Tail,
    closed: CancellationToken,
    server: Arc<str>,
}

/// What a connection needs to know of its surroundings.
pub(crate) struct Surroundings {
    pub(crate) calls: Arc<Calls>,
    pub(crate) tail: Tail,
    pub(crate) closed: CancellationToken,
    pub(crate) server: Arc<str>,
    pub(crate) message_bytes_max: usize,
}

impl SseTransport {
    pub(crate) async fn connect(
        client: reqwest::Client,
        launch: &RemoteLaunch,
        surroundings: Surroundings,
        tasks: &Tasks,
    ) -> Result<Self, SseConnectError> {
        let headers: HeaderMap = remote::headers(launch)?.into_iter().collect();
        let url = launch.url.clone();
        let response = client
            .get(&launch.url)
            .headers(headers.clone())
            .header(header::ACCEPT, "text/event-stream")
            .send()
            .await
            .map_err(|source| SseConnectError::Connect { url: url.clone(), source })?;
        if response.status() != StatusCode::OK {
            let challenge = response.headers().get(header::WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
            let challenge = challenge.map(str::to_owned);
            return Err(SseConnectError::Status { url, status: response.status().as_u16(), challenge });
        }
        let base = response.url().clone();
        let (sender, mut events) = mpsc::channel(EVENTS_MAX);
        tasks.spawn(read(response, sender, surroundings.closed.clone(), surroundings.message_bytes_max));
        let first = events.recv().await.ok_or_else(|| SseConnectError::NoEndpoint { url: url.clone() })?;
        let endpoint = first
            .strip_prefix("endpoint\n")
            .and_then(|path| base.join(path.trim()).ok())
            .ok_or_else(|| SseConnectError::NoEndpoint { url: url.clone() })?;
        if endpoint.origin() != base.origin() {
            return Err(SseConnectError::ForeignEndpoint { url, endpoint: endpoint.to_string() });
        }
        Ok(Self {
            client,
            endpoint,
            headers,
            events,
            ready: VecDeque::new(),
            calls: surroundings.calls,
            tail: surroundings.tail,
            closed: surroundings.closed,
            server: surroundings.server,
        })
    }

    fn take(&mut self, text: &str) {
        match decode::decode(text.as_bytes(), &self.calls, &self.server) {
            Decoded::Message(message) => self.ready.extend(self.calls.arrived(*message)),
            Decoded::BadRequest(_, error) => self.tail.line(&format!("a bad request: {}", error.message)),
            Decoded::Noise(what) => self.tail.line(&what),
        }
    }
}

/// Hands the stream's events on: the first as `endpoint\n…`, messages as they are.
async fn read(
    response: reqwest::Response,
    events: mpsc::Sender<String>,
    closed: CancellationToken,
    message_bytes_max: usize,
) {
    let mut stream = SseStream::from_bytes_stream(response.bytes_stream());
    loop {
        let next = tokio::select! {
            next = stream.next() => next,
            () = closed.cancelled() => return,
        };
        let Some(Ok(event)) = next else { return };
        let Some(data) = event.data.filter(|data| data.len() <= message_bytes_max) else { continue };
        let text = if event.event.as_deref() == Some("endpoint") { format!("endpoint\n{data}") } else { data };
        if events.send(text).await.is_err() {
            return;
        }
    }
}

impl Transport<RoleClient> for SseTransport {
    type Error = io::Error;

    fn send(&mut self, message: ClientJsonRpcMessage) -> impl Future<Output = io::Result<()>> + Send + 'static {
        wire::note_sent(&message, &self.calls);
        let request = self.client.post(self.endpoint.clone()).headers(self.headers.clone()).json(&message);
        async move {
            let response = request.send().await.map_err(io::Error::other)?;
            if response.status().is_success() {
                return Ok(());
            }
            Err(io::Error::other(format!("the server answered with HTTP {}", response.status().as_u16())))
        }
    }

    async fn receive(&mut self) -> Option<ServerJsonRpcMessage> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                return Some(message);
            }
            let Some(text) = self.events.recv().await else {
                self.closed.cancel();
                return None;
            };
            self.take(&text);
        }
    }

    async fn close(&mut self) -> io::Result<()> {
        self.closed.cancel();
        Ok(())
    }
}
