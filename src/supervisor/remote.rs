//! Servers that are somewhere else: streamable HTTP, and HTTP with server-sent events as in revision 2024-11-05.
//!
//! A server's era is found by asking it in the newer way first and, if it does not understand, in the older way on a fresh
//! connection. Connections are kept alive between requests; redirects are followed within one origin only.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream::BoxStream};
use http::{HeaderName, HeaderValue};
use rmcp::{
    RoleClient,
    model::ClientJsonRpcMessage,
    transport::{
        StreamableHttpClientTransport, Transport,
        streamable_http_client::{
            SseError, StreamableHttpClient, StreamableHttpClientTransportConfig, StreamableHttpError,
            StreamableHttpPostResponse,
        },
    },
};
use sse_stream::Sse;

use super::{
    decode,
    door::{Door, Way},
    launch::RemoteLaunch,
};

const CONNECT_MAX: Duration = Duration::from_secs(15);
const REDIRECTS_MAX: usize = 5;

/// Requests that may wait for the head of their response, tool calls and rmcp's own, each; rmcp's default is 16.
pub(super) const CONCURRENT_MAX: usize = 256;

/// The HTTP client cannot be used for this server.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    #[error("could not set up the HTTP client")]
    Client(#[source] reqwest::Error),
    #[error("the header `{name}` of the catalog entry is not a valid HTTP header")]
    Header { name: String },
}

/// The client that all remote servers share.
pub(crate) fn client() -> Result<reqwest::Client, RemoteError> {
    reqwest::Client::builder()
        .connect_timeout(CONNECT_MAX)
        .tcp_nodelay(true)
        .redirect(same_origin())
        .user_agent(concat!("mcp-broker/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(RemoteError::Client)
}

/// A header with a credential must not follow a redirect to somebody else.
fn same_origin() -> reqwest::redirect::Policy {
    reqwest::redirect::Policy::custom(|attempt| {
        let first = attempt.previous().first().map(reqwest::Url::origin);
        if attempt.previous().len() > REDIRECTS_MAX {
            attempt.error("too many redirects")
        } else if first == Some(attempt.url().origin()) {
            attempt.follow()
        } else {
            attempt.stop()
        }
    })
}

/// The entry's headers, marked so that they are not printed.
pub(crate) fn headers(launch: &RemoteLaunch) -> Result<HashMap<HeaderName, HeaderValue>, RemoteError> {
    let mut headers = HashMap::new();
    for (name, value) in &launch.headers {
        let wrong = || RemoteError::Header { name: name.clone() };
        let header = HeaderName::try_from(name).map_err(|_| wrong())?;
        let mut value = HeaderValue::from_str(value.reveal()).map_err(|_| wrong())?;
        value.set_sensitive(true);
        headers.insert(header, value);
    }
    Ok(headers)
}

/// A streamable HTTP transport to the server. What it learns of the way there is told to `door`.
pub(crate) fn streamable(
    client: reqwest::Client,
    headers: HashMap<HeaderName, HeaderValue>,
    door: Arc<Door>,
    message_bytes_max: usize,
) -> impl Transport<RoleClient> + 'static {
    let mut config = StreamableHttpClientTransportConfig::with_uri(door.url().clone()).custom_headers(headers);
    config.max_sse_event_size = message_bytes_max;
    config.max_concurrent_requests = CONCURRENT_MAX;
    StreamableHttpClientTransport::with_client(RepairingHttp { inner: client, door }, config)
}

/// The shared client, with bad tools taken out of lists before rmcp reads them.
#[derive(Clone)]
struct RepairingHttp {
    inner: reqwest::Client,
    door: Arc<Door>,
}

type Events = BoxStream<'static, Result<Sse, SseError>>;
type Failure = StreamableHttpError<reqwest::Error>;

impl RepairingHttp {
    fn repaired(&self, events: Events) -> Events {
        let door = self.door.clone();
        events
            .map(move |event| {
                event.map(|mut event| {
                    if let Some(text) = event.data.as_deref().and_then(|text| decode::repair_tools(text, door.server()))
                    {
                        event.data = Some(text);
                    }
                    event
                })
            })
            .boxed()
    }
}

impl StreamableHttpClient for RepairingHttp {
    type Error = reqwest::Error;

    async fn post_message(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        token: Option<String>,
        headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<StreamableHttpPostResponse, Failure> {
        self.inner.post_message(uri, message, session, token, headers).await
    }

    async fn post_message_with_max_sse_event_size(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        token: Option<String>,
        headers: HashMap<HeaderName, HeaderValue>,
        event_bytes_max: usize,
    ) -> Result<StreamableHttpPostResponse, Failure> {
        let way = Way::of(&message, session.as_ref(), &headers);
        let response = self
            .inner
            .post_message_with_max_sse_event_size(uri, message, session, token, headers, event_bytes_max)
            .await;
        self.door.posted(way, &response);
        Ok(match response? {
            StreamableHttpPostResponse::Sse(events, session) => {
                StreamableHttpPostResponse::Sse(self.repaired(events), session)
            }
            other => other,
        })
    }

    async fn delete_session(
        &self,
        uri: Arc<str>,
        session: Arc<str>,
        token: Option<String>,
        headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<(), Failure> {
        self.inner.delete_session(uri, session, token, headers).await
    }

    async fn get_stream(
        &self,
        uri: Arc<str>,
        session: Option<Arc<str>>,
        last_event: Option<String>,
        token: Option<String>,
        headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<Events, Failure> {
        self.inner.get_stream(uri, session, last_event, token, headers).await
    }

    async fn get_stream_with_max_sse_event_size(
        &self,
        uri: Arc<str>,
        session: Option<Arc<str>>,
        last_event: Option<String>,
        token: Option<String>,
        headers: HashMap<HeaderName, HeaderValue>,
        event_bytes_max: usize,
    ) -> Result<Events, Failure> {
        self.inner
            .get_stream_with_max_sse_event_size(uri, session, last_event, token, headers, event_bytes_max)
            .await
            .map(|events| self.repaired(events))
    }
}
