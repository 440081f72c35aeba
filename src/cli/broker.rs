//! The broker of a data folder, for a command: the one that runs, or, if none does, this process.

use anyhow::{Context as _, anyhow, bail};
use axum::{Router, body::Body};
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tower::ServiceExt as _;

use crate::{
    app::{App, DataFolder},
    clock::SystemClock,
    config::Settings,
    http::socket,
    lifecycle::Tasks,
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// An answer larger than this is not read.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// A broker that can be asked.
pub(super) enum Broker {
    Running { data_folder: PathBuf },
    Own { app: Box<App>, router: Router },
}

impl Broker {
    /// Finds the broker that runs on the data folder, or takes the folder.
    ///
    /// Profiles that every session is to have are left alone then: commands are what a missing one is made with.
    pub(super) async fn find(mut settings: Settings) -> anyhow::Result<Self> {
        if let Some(running) = Self::running(&settings).await {
            return Ok(running);
        }
        settings.profiles.clear();
        let folder = DataFolder::take(&settings.data_folder)?;
        let (tasks, _crashes) = Tasks::new();
        let app = App::open(settings, folder, Arc::new(SystemClock), tasks).await?;
        let router = socket::router(&app.parts);
        Ok(Self::Own { app: Box::new(app), router })
    }

    /// The broker that runs on the data folder, if one does; nothing is started or made.
    pub(super) async fn running(settings: &Settings) -> Option<Self> {
        socket::connect(&settings.data_folder).await.ok()?;
        Some(Self::Running { data_folder: settings.data_folder.clone() })
    }

    /// Whether it is a process of its own.
    pub(super) fn is_running(&self) -> bool {
        matches!(self, Self::Running { .. })
    }

    /// Asks for something, and lets go of the data folder if this process held it.
    pub(super) async fn ask_once(self, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<Value> {
        let answer = self.ask(method, path, body).await;
        self.close().await;
        answer
    }

    /// Asks for something. What is no success is an error with the broker's own words.
    pub(super) async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<Value> {
        let request = request(method, path, body.as_ref())?;
        let (status, bytes) = match self {
            Self::Running { data_folder } => over_socket(data_folder, request).await?,
            Self::Own { router, .. } => {
                let response = router.clone().oneshot(request.map(Body::new)).await?;
                let status = response.status();
                (status, axum::body::to_bytes(response.into_body(), ANSWER_BYTES_MAX).await?)
            }
        };
        let answer: Value = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes)? };
        if status.is_success() {
            return Ok(answer);
        }
        match answer["error"]["message"].as_str() {
            Some(message) => Err(anyhow!("{message}{}", listed(&answer["error"]["details"]))),
            None => bail!("the broker answered {status}"),
        }
    }

    /// Lets go of the data folder.
    pub(super) async fn close(self) {
        if let Self::Own { app, .. } = self {
            app.stop(std::future::ready(())).await;
        }
    }
}

/// What the problems of a document are, line by line.
fn listed(details: &Value) -> String {
    let problems = details["problems"].as_array().into_iter().flatten().filter_map(Value::as_str);
    problems.map(|problem| format!("\n  {}", problem.trim_start_matches("- "))).collect()
}

fn request(method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Request<Full<Bytes>>> {
    let bytes = body.map(Value::to_string).unwrap_or_default();
    Ok(Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "broker")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::from(bytes))?)
}

async fn over_socket(data_folder: &Path, request: Request<Full<Bytes>>) -> anyhow::Result<(StatusCode, Bytes)> {
    let stream = socket::connect(data_folder).await.context("the broker has stopped answering")?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let asking = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let bytes = response.into_body().collect().await?.to_bytes();
        anyhow::Ok((status, bytes))
    };
    tokio::select! {
        answer = asking => answer,
        ended = connection => {
            ended?;
            bail!("the broker closed the connection")
        }
    }
}
