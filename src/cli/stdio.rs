//! `mcp-broker stdio`: MCP on standard input and output.
//!
//! Several clients may each start one on the same data folder. The first becomes the broker, the others attach to it. When
//! that process ends, one of the others becomes the broker in its place, and their clients notice nothing: sessions are in
//! the database, and what a client said when it connected is said again on its behalf.

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use rmcp::transport::stdio_pipes;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    Global, StdioArgs, compose as folder, output,
    relay::{Ended, Relay},
};
use crate::{
    app::{App, DataFolder, FolderError},
    clock::SystemClock,
    config::Settings,
    http::{
        socket,
        stdio::{Begun, LEFT_OUT_HEADER, SESSION_HEADER, UPGRADE, WAITING_HEADER, Wanted, serve, session},
    },
    ids::SessionId,
    lifecycle::{Crashes, Signals, Tasks},
    session::Session,
};

/// How long another process gets that holds the data folder and does not listen yet.
const STARTING_MAX: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What is on its way between the relay and a broker in the same process.
const DUPLEX_BYTES: usize = 256 << 10;

/// A stream to a broker.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A broker in this process.
struct Own {
    app: App,
    crashes: Crashes,
    signals: Signals,
}

pub(super) async fn run(global: &Global, args: StdioArgs) -> anyhow::Result<ExitCode> {
    let StdioArgs { mut broker, session: name } = args;
    // What this process's own session is to have, whichever process is the broker.
    let (profiles, servers) = (std::mem::take(&mut broker.profile), std::mem::take(&mut broker.server));
    let settings = global.settings_with(&broker)?;
    let compose = folder::offer(broker.compose.as_deref())?;
    let wanted = Wanted { name, resume: None, profiles, servers, compose };
    match attach_or_become(&settings, &wanted).await? {
        Found::Own(own) => serve_own(*own, wanted).await?,
        Found::Attached(stream, session) => {
            if !broker.catalog.is_empty() || broker.pull.is_some() {
                output::note(
                    "mcp-broker: another process is the broker, whose own --catalog and --pull hold; `mcp-broker catalog add \
                     FILE` adds servers to it",
                );
            }
            relay(&settings, wanted, stream, session).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Serves the client straight from the broker in this process.
async fn serve_own(mut own: Own, wanted: Wanted) -> anyhow::Result<()> {
    let session = match begun(&own.app, wanted).await {
        Ok(session) => session,
        Err(error) => {
            own.finish().await;
            return Err(error);
        }
    };
    let parts = own.app.parts.clone();
    let serving = own.app.tasks().spawn(async move { serve(&parts, session, stdio_pipes()).await });
    tokio::select! {
        ended = serving => ended.context("serving standard input and output ended by an error")?,
        () = own.signals.next() => {}
        service = own.crashes.next() => bail!("the broker stopped because its {service} ended unasked"),
    }
    own.finish().await;
    Ok(())
}

/// Carries the client's messages to a broker in another process and, when that is lost, to the next one, which may be this.
async fn relay(
    settings: &Settings,
    mut wanted: Wanted,
    mut stream: Box<dyn Stream>,
    mut session: SessionId,
) -> anyhow::Result<()> {
    let mut relay = Relay::new();
    let mut own: Option<Own> = None;
    loop {
        wanted.resume = Some(session);
        let ended = match &mut own {
            None => relay.run(stream).await?,
            Some(own) => tokio::select! {
                ended = relay.run(stream) => ended?,
                () = own.signals.next() => Ended::Client,
                service = own.crashes.next() => bail!("the broker stopped because its {service} ended unasked"),
            },
        };
        if ended == Ended::Client {
            break;
        }
        tracing::info!("the broker is gone; looking for another, or becoming it");
        tokio::time::sleep(LOOK_EVERY).await;
        (stream, session) = match &own {
            Some(own) => within(&own.app, wanted.clone()).await?,
            None => match attach_or_become(settings, &wanted).await? {
                Found::Attached(stream, session) => (stream, session),
                Found::Own(became) => within(&own.insert(*became).app, wanted.clone()).await?,
            },
        };
    }
    if let Some(own) = own {
        own.finish().await;
    }
    Ok(())
}

enum Found {
    Attached(Box<dyn Stream>, SessionId),
    Own(Box<Own>),
}

async fn attach_or_become(settings: &Settings, wanted: &Wanted) -> anyhow::Result<Found> {
    let deadline = tokio::time::Instant::now() + STARTING_MAX;
    loop {
        if let Ok(stream) = socket::connect(&settings.data_folder).await {
            let (stream, session) = attach(stream, wanted).await?;
            return Ok(Found::Attached(Box::new(stream), session));
        }
        match DataFolder::take(&settings.data_folder) {
            Ok(folder) => return Ok(Found::Own(Box::new(become_broker(settings.clone(), folder).await?))),
            Err(FolderError::Held { .. }) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// A session in this process's own broker. What is to be said of its Compose file is said.
async fn begun(app: &App, wanted: Wanted) -> anyhow::Result<Arc<Session>> {
    let offer = wanted.compose.clone();
    let Begun { session, waiting, left_out } = session(&app.parts, wanted).await?;
    say_left_out(&left_out);
    if let Some(offer) = offer.filter(|_| waiting) {
        output::note(format!("mcp-broker: {}", offer.notice()));
    }
    Ok(session)
}

/// Says which services of a Compose file are left out, and why.
fn say_left_out(left_out: &[String]) {
    for problem in left_out {
        output::note(format!("mcp-broker: {problem}"));
    }
}

async fn attach(stream: tokio::net::UnixStream, wanted: &Wanted) -> anyhow::Result<(impl Stream + use<>, SessionId)> {
    let body = Full::<Bytes>::from(serde_json::to_vec(wanted)?);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = connection.with_upgrades();
    let asking = async move {
        let request = Request::builder()
            .method(Method::POST)
            .uri("/stdio")
            .header(header::HOST, "broker")
            .header(header::CONNECTION, "upgrade")
            .header(header::UPGRADE, UPGRADE)
            .body(body)?;
        let response = sender.send_request(request).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let body = response.into_body().collect().await?.to_bytes();
            let answer: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
            bail!("the broker refused: {}", answer["error"]["message"].as_str().unwrap_or("it did not say why"));
        }
        let session = response.headers().get(SESSION_HEADER).and_then(|id| id.to_str().ok()?.parse().ok());
        let session = session.context("the broker did not name the session: is it of another version?")?;
        if let Some(offer) = wanted.compose.as_ref().filter(|_| response.headers().contains_key(WAITING_HEADER)) {
            output::note(format!("mcp-broker: {}", offer.notice()));
        }
        let left_out: Option<Vec<String>> =
            response.headers().get(LEFT_OUT_HEADER).and_then(|told| serde_json::from_slice(told.as_bytes()).ok());
        say_left_out(&left_out.unwrap_or_default());
        let upgraded = hyper::upgrade::on(response).await?;
        Ok((TokioIo::new(upgraded), session))
    };
    // The connection is done driving as soon as it has handed its stream over, or lost it: what was asked tells which.
    let ((), asked) = tokio::join!(async { drop(connection.await) }, asking);
    asked
}

async fn become_broker(settings: Settings, folder: DataFolder) -> anyhow::Result<Own> {
    let signals = Signals::listen()?;
    let (tasks, crashes) = Tasks::new();
    let app = App::open(settings, folder, Arc::new(SystemClock), tasks).await?;
    app.serve_socket()?;
    app.start_background();
    Ok(Own { app, crashes, signals })
}

/// A stream to the broker in this process.
async fn within(app: &App, wanted: Wanted) -> anyhow::Result<(Box<dyn Stream>, SessionId)> {
    let session = begun(app, wanted).await?;
    let id = session.id().clone();
    let (ours, theirs) = tokio::io::duplex(DUPLEX_BYTES);
    let parts = app.parts.clone();
    app.tasks().spawn(async move { serve(&parts, session, tokio::io::split(theirs)).await });
    Ok((Box::new(ours), id))
}

impl Own {
    /// Goes on as the broker for as long as others are attached, then stops.
    async fn finish(mut self) {
        tokio::select! {
            () = self.app.parts.attached.none() => {}
            () = self.signals.next() => {}
        }
        self.app.stop(self.signals.next()).await;
    }
}
