//! From what is to be started to a connection that works.
//!
//! A server on a byte stream is first asked `server/discover`, by hand: rmcp's own probe gives up after ten seconds and
//! then confuses a late answer with the next one. A server that does not answer it, or ends when it is asked, is started
//! again and spoken to in the older way.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use rmcp::{
    model::{ClientCapabilities, ProtocolVersion},
    service::{ClientInitializeError, ClientLifecycleMode, ClientServiceExt as _, RoleClient, RunningService},
    transport::Transport,
};
use serde_json::{Value, json};
use tokio_util::{either::Either, sync::CancellationToken};

use super::{
    backing::{Backing, Streams},
    calls::Calls,
    direct::Direct,
    docker::{DockerError, Engine, Owner},
    door::Door,
    install::{InstallError, Installer},
    launch::{ContainerLaunch, Launch, PerCallLaunch, ProcessLaunch, Program, RemoteLaunch},
    logs::Logs,
    per_call::Runner,
    process::{Executable, Process, SpawnError},
    questions::{Asker, Handler},
    remote::{self, RemoteError},
    sse::{SseConnectError, SseTransport, Surroundings},
    tail::Tail,
    tap::Tap,
    upstream::{RequestError, Upstream, chain, implementation, mirrored},
    wire::{Line, Wire},
};
use crate::{
    caller::{Era, Link},
    catalog::entry::RemoteTransport,
    config::Limits,
    ids::{ServerName, SessionId},
    lifecycle::Tasks,
};

/// How long a server may think about `server/discover` before it is taken for one that does not know it.
const PROBE_MAX: Duration = Duration::from_secs(20);

const PROBE_ID: &str = "mcp-broker-probe";

/// Lines of standard error in an error message.
const TAIL_LINES: usize = 12;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error(transparent)]
    Install(#[from] InstallError),
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    #[error(transparent)]
    Docker(#[from] DockerError),
    #[error("it exited with {status} before it was ready{}", said(.stderr))]
    Exited { status: String, stderr: String },
    #[error("it was not ready within {} s{}", .limit.as_secs(), said(.stderr))]
    Timeout { limit: Duration, stderr: String },
    #[error("it closed the connection before it was ready")]
    Closed,
    #[error("it did not complete the handshake: {problem}{}", said(.stderr))]
    Handshake { problem: String, stderr: String },
    #[error("{url} wants authorization ({challenge}): set the secret it needs, or add a header to its catalog entry")]
    Unauthorized { url: String, challenge: String },
    #[error(transparent)]
    Remote(#[from] RemoteError),
    #[error("{}", chain(.0))]
    Sse(#[from] SseConnectError),
}

fn said(stderr: &str) -> String {
    if stderr.is_empty() { String::new() } else { format!("; its last words were:\n{stderr}") }
}

/// A server that runs, as far as this broker runs it.
pub(crate) struct Connected {
    pub(crate) upstream: Arc<Upstream>,
    /// What it stands on, if that is ours.
    pub(crate) backing: Option<Backing>,
}

impl Connected {
    /// Ends the connection, and what it stands on. Says how that ended.
    pub(crate) async fn stop(self, grace: Duration) -> Option<String> {
        self.upstream.close().await;
        match self.backing {
            Some(backing) => Some(backing.stop(grace).await),
            None => None,
        }
    }
}

/// What a connection is made with.
pub(crate) struct Connector {
    pub(crate) installer: Installer,
    pub(crate) engine: Arc<Engine>,
    pub(crate) http: reqwest::Client,
    pub(crate) limits: Arc<Limits>,
    pub(crate) logs: Arc<Logs>,
    pub(crate) pass_environment: Vec<String>,
    pub(crate) tasks: Tasks,
}

/// One attempt's particulars.
pub(crate) struct Attempt<'a> {
    pub(crate) server: &'a ServerName,
    pub(crate) launch: &'a Launch,
    pub(crate) label: String,
    pub(crate) session: Option<&'a SessionId>,
    /// The way to the client that has this started: for how far a download is.
    pub(crate) link: &'a Link,
    /// What is declared to the server on behalf of whoever started it.
    pub(crate) capabilities: &'a ClientCapabilities,
    pub(crate) asker: Weak<dyn Asker>,
    /// What it writes to its standard error is kept here.
    pub(crate) tail: &'a Tail,
    /// The server's era, if it is known.
    pub(crate) era: Option<Era>,
}

impl Connector {
    pub(crate) async fn connect(&self, attempt: &Attempt<'_>) -> Result<Connected, ConnectError> {
        match attempt.launch {
            Launch::Process(launch) => {
                let executable = self.executable(&launch.program).await?;
                self.over_streams(attempt, &Run::Process(launch, &executable)).await
            }
            Launch::Container(launch) => self.over_streams(attempt, &Run::Container(launch)).await,
            Launch::PerCall(launch) => {
                let run = Run::PerCall(launch);
                self.started(attempt, &run, Some(Era::Legacy)).await.map_err(Probed::into_error)
            }
            Launch::Remote(launch) => match launch.transport {
                RemoteTransport::StreamableHttp => self.streamable(attempt, launch).await,
                RemoteTransport::Sse => self.sse(attempt, launch).await,
            },
        }
    }

    async fn executable(&self, program: &Program) -> Result<Executable, InstallError> {
        match program {
            Program::Command(program) => Ok(Executable { program: program.into(), leading: Vec::new(), folder: None }),
            Program::Package(package) => self.installer.executable(package).await,
        }
    }

    async fn over_streams(&self, attempt: &Attempt<'_>, run: &Run<'_>) -> Result<Connected, ConnectError> {
        match self.started(attempt, run, attempt.era).await {
            Err(Probed::Unanswered) => {
                tracing::debug!(server.name = %attempt.server, "the server does not know server/discover");
                self.started(attempt, run, Some(Era::Legacy)).await.map_err(Probed::into_error)
            }
            outcome => outcome.map_err(Probed::into_error),
        }
    }

    async fn start(
        &self,
        attempt: &Attempt<'_>,
        run: &Run<'_>,
        tail: Tail,
    ) -> Result<(Backing, Streams), ConnectError> {
        match run {
            Run::Process(launch, executable) => {
                let (process, stdout, stdin) = Process::spawn(
                    executable,
                    launch,
                    &self.pass_environment,
                    attempt.label.clone(),
                    tail,
                    &self.tasks,
                    attempt.server.as_str().into(),
                )?;
                Ok((Backing::Process(process), (Either::Left(stdout), Box::new(stdin))))
            }
            Run::PerCall(launch) => {
                for image in launch.images() {
                    self.engine.fetch(image, attempt.link).await?;
                }
                let owner = Owner { session: attempt.session.cloned(), server: attempt.server.clone() };
                let (runner, streams) = Runner::start(self.engine.clone(), owner, (*launch).clone(), tail);
                Ok((Backing::PerCall(runner), streams))
            }
            Run::Container(launch) => {
                let owner = Owner { session: attempt.session.cloned(), server: attempt.server.clone() };
                let (container, streams) = self.engine.start(launch, owner, tail, attempt.link).await?;
                Ok((Backing::Container(container), streams))
            }
        }
    }

    async fn started(&self, attempt: &Attempt<'_>, run: &Run<'_>, era: Option<Era>) -> Result<Connected, Probed> {
        let server: Arc<str> = attempt.server.as_str().into();
        let sink = self.logs.of(attempt.session, attempt.server);
        let tail = attempt.tail.clone().told_to(sink);
        tail.clear();
        let (backing, streams) = self.start(attempt, run, tail.clone()).await?;
        let (calls, closed) = (Calls::new(), CancellationToken::new());
        let mut wire =
            Wire::new(streams, calls.clone(), tail, closed.clone(), server, self.limits.message_bytes_max, &self.tasks);
        let limit = self.limits.start();
        let handshake = async {
            let era = match era {
                Some(era) => era,
                None => probe(&mut wire).await?,
            };
            let direct = Direct::over_streams(wire.outgoing(), calls.clone());
            self.handshake(attempt, wire, era, (calls, closed), Some(direct)).await.map_err(Probed::Failed)
        };
        let outcome = tokio::time::timeout(limit, handshake).await;
        let problem = match outcome {
            Ok(Ok(upstream)) => return Ok(Connected { upstream: Arc::new(upstream), backing: Some(backing) }),
            Ok(Err(Probed::Unanswered)) => {
                backing.stop(self.limits.stop()).await;
                return Err(Probed::Unanswered);
            }
            Ok(Err(Probed::Failed(error))) => Some(error),
            Err(_) => None,
        };
        Err(Probed::Failed(self.explain(backing, problem, limit).await))
    }

    /// Ends what did not become a connection, and says why in its own words.
    async fn explain(&self, mut backing: Backing, problem: Option<ConnectError>, limit: Duration) -> ConnectError {
        const LAST_WORDS: Duration = Duration::from_millis(500);
        let closed = matches!(&problem, Some(ConnectError::Closed));
        let exited = if closed { backing.exited(LAST_WORDS).await } else { None };
        let tail = backing.tail().clone();
        backing.stop(self.limits.stop()).await;
        let stderr = tail.last(TAIL_LINES);
        match (exited, problem) {
            (None, Some(ConnectError::Closed)) => {
                ConnectError::Handshake { problem: "it closed its output".to_owned(), stderr }
            }
            (Some(status), _) => ConnectError::Exited { status, stderr },
            (None, Some(ConnectError::Handshake { problem, .. })) => ConnectError::Handshake { problem, stderr },
            (None, Some(other)) => other,
            (None, None) => ConnectError::Timeout { limit, stderr },
        }
    }

    async fn streamable(&self, attempt: &Attempt<'_>, launch: &RemoteLaunch) -> Result<Connected, ConnectError> {
        let limit = self.limits.start();
        let eras: &[Era] = match attempt.era {
            Some(Era::Legacy) => &[Era::Legacy],
            Some(Era::Modern) | None => &[Era::Modern, Era::Legacy],
        };
        let mut last = None;
        for era in eras {
            match tokio::time::timeout(limit, self.streamable_once(attempt, launch, *era)).await {
                Ok(Err(error @ (ConnectError::Unauthorized { .. } | ConnectError::Remote(_)))) => return Err(error),
                Ok(Err(error)) => last = Some(error),
                Ok(connected) => return connected,
                Err(_) => last = Some(ConnectError::Timeout { limit, stderr: String::new() }),
            }
        }
        Err(last.unwrap_or(ConnectError::Timeout { limit, stderr: String::new() }))
    }

    async fn streamable_once(
        &self,
        attempt: &Attempt<'_>,
        launch: &RemoteLaunch,
        era: Era,
    ) -> Result<Connected, ConnectError> {
        let (calls, closed) = (Calls::new(), CancellationToken::new());
        let server: Arc<str> = attempt.server.as_str().into();
        let headers = remote::headers(launch)?;
        let bytes_max = self.limits.message_bytes_max;
        let (door, aside) =
            Door::new(self.http.clone(), launch.url.as_str().into(), server.clone(), calls.clone(), bytes_max);
        let transport = remote::streamable(self.http.clone(), headers, door.clone(), bytes_max);
        let tap = Tap::new(transport, calls.clone(), closed.clone(), server, (door.clone(), aside));
        let direct = Direct::over_http(door, calls.clone(), self.tasks.clone());
        let upstream = self
            .handshake(attempt, tap, era, (calls, closed), Some(direct))
            .await
            .map_err(|error| at(error, &launch.url))?;
        Ok(Connected { upstream: Arc::new(upstream), backing: None })
    }

    async fn sse(&self, attempt: &Attempt<'_>, launch: &RemoteLaunch) -> Result<Connected, ConnectError> {
        let limit = self.limits.start();
        let (calls, closed) = (Calls::new(), CancellationToken::new());
        let sink = self.logs.of(attempt.session, attempt.server);
        let tail = attempt.tail.clone().told_to(sink);
        let surroundings = Surroundings {
            calls: calls.clone(),
            tail: tail.clone(),
            closed: closed.clone(),
            server: attempt.server.as_str().into(),
            message_bytes_max: self.limits.message_bytes_max,
        };
        let connecting = async {
            let transport = SseTransport::connect(self.http.clone(), launch, surroundings, &self.tasks).await;
            let transport = transport.map_err(|error| unauthorized(error, &launch.url))?;
            self.handshake(attempt, transport, Era::Legacy, (calls, closed.clone()), None).await
        };
        match tokio::time::timeout(limit, connecting).await {
            Ok(Ok(upstream)) => Ok(Connected { upstream: Arc::new(upstream), backing: None }),
            Ok(Err(error)) => {
                closed.cancel();
                Err(error)
            }
            Err(_) => {
                closed.cancel();
                Err(ConnectError::Timeout { limit, stderr: tail.last(TAIL_LINES) })
            }
        }
    }

    async fn handshake<T: Transport<RoleClient> + 'static>(
        &self,
        attempt: &Attempt<'_>,
        transport: T,
        era: Era,
        (calls, closed): (Arc<Calls>, CancellationToken),
        direct: Option<Direct>,
    ) -> Result<Upstream, ConnectError> {
        let handler = Handler {
            capabilities: mirrored(attempt.capabilities),
            calls: calls.clone(),
            asker: attempt.asker.clone(),
            question_max: self.limits.question(),
        };
        let lifecycle = match era {
            Era::Legacy => ClientLifecycleMode::Initialize,
            Era::Modern => ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] },
        };
        let service: RunningService<RoleClient, Handler> =
            handler.serve_with_lifecycle(transport, lifecycle).await.map_err(|error| handshake_error(&error))?;
        Upstream::new(service, era, (calls, closed), direct, self.limits.clone()).map_err(|error: RequestError| {
            ConnectError::Handshake { problem: error.to_string(), stderr: String::new() }
        })
    }
}

/// What is run to have a server's streams.
enum Run<'a> {
    Process(&'a ProcessLaunch, &'a Executable),
    Container(&'a ContainerLaunch),
    PerCall(&'a PerCallLaunch),
}

/// A failed attempt, or one that is to be made again in the older way.
enum Probed {
    Unanswered,
    Failed(ConnectError),
}

impl From<ConnectError> for Probed {
    fn from(error: ConnectError) -> Self {
        Self::Failed(error)
    }
}

impl Probed {
    fn into_error(self) -> ConnectError {
        match self {
            Self::Failed(error) => error,
            Self::Unanswered => {
                ConnectError::Handshake { problem: "it answers nothing".to_owned(), stderr: String::new() }
            }
        }
    }
}

/// Asks `server/discover` and waits for the answer to it, passing over everything else.
async fn probe<R>(wire: &mut Wire<R>) -> Result<Era, Probed>
where
    R: tokio::io::AsyncRead + Send + Unpin,
{
    let question = json!({
        "jsonrpc": "2.0", "id": PROBE_ID, "method": "server/discover",
        "params": {"_meta": {
            "io.modelcontextprotocol/protocolVersion": ProtocolVersion::V_2026_07_28.as_str(),
            "io.modelcontextprotocol/clientInfo": implementation(),
            "io.modelcontextprotocol/clientCapabilities": {},
        }},
    });
    let asked = wire.write_line(question.to_string().into_bytes());
    let answer = async {
        asked.await.map_err(|_| Probed::Unanswered)?;
        loop {
            match wire.read_line().await {
                Some(Line::Whole(line)) => {
                    if let Some(era) = probe_answer(&line) {
                        return Ok(era);
                    }
                    wire.noise(&line);
                }
                Some(Line::Oversized(_)) => {}
                None => return Err(Probed::Unanswered),
            }
        }
    };
    tokio::time::timeout(PROBE_MAX, answer).await.unwrap_or(Err(Probed::Unanswered))
}

fn probe_answer(line: &[u8]) -> Option<Era> {
    let answer: Value = serde_json::from_slice(line).ok()?;
    if answer["id"] != PROBE_ID || answer.get("method").is_some() {
        return None;
    }
    let listed = answer["result"]["supportedVersions"]
        .as_array()
        .is_some_and(|versions| versions.iter().any(|version| version == ProtocolVersion::V_2026_07_28.as_str()));
    Some(if listed { Era::Modern } else { Era::Legacy })
}

fn handshake_error(error: &ClientInitializeError) -> ConnectError {
    if error.is_authorization_required() {
        let challenge = error.auth_challenge().unwrap_or("HTTP 401").to_owned();
        return ConnectError::Unauthorized { url: String::new(), challenge };
    }
    let problem = match error {
        ClientInitializeError::JsonRpcError(data) => data.message.to_string(),
        ClientInitializeError::ConnectionClosed(_) => return ConnectError::Closed,
        ClientInitializeError::TransportError { error, .. } if error.error.is::<std::io::Error>() => {
            return ConnectError::Closed;
        }
        other => chain(other),
    };
    ConnectError::Handshake { problem, stderr: String::new() }
}

fn at(error: ConnectError, url: &str) -> ConnectError {
    match error {
        ConnectError::Unauthorized { challenge, .. } => ConnectError::Unauthorized { url: url.to_owned(), challenge },
        other => other,
    }
}

fn unauthorized(error: SseConnectError, url: &str) -> ConnectError {
    match error {
        SseConnectError::Status { status: 401 | 403, challenge, .. } => ConnectError::Unauthorized {
            url: url.to_owned(),
            challenge: challenge.unwrap_or_else(|| "no challenge given".to_owned()),
        },
        other => ConnectError::Sse(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_tells_the_eras_apart() {
        let answer = |text: &str| probe_answer(text.as_bytes());
        let modern = r#"{"jsonrpc":"2.0","id":"mcp-broker-probe","result":{"supportedVersions":["2026-07-28"]}}"#;
        assert_eq!(answer(modern), Some(Era::Modern));
        let unknown = r#"{"jsonrpc":"2.0","id":"mcp-broker-probe","error":{"code":-32601,"message":"no"}}"#;
        assert_eq!(answer(unknown), Some(Era::Legacy));
        assert_eq!(answer(r#"{"jsonrpc":"2.0","method":"notifications/message"}"#), None);
        assert_eq!(answer("Listening on stdio"), None);
    }
}
