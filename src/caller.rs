//! Who makes a call, and how to reach them while it runs.
//!
//! A call runs in a task of its own. What it has to tell the client that made it (progress, log messages) and to ask it
//! (elicitation, sampling, roots) goes through a [`Link`] to whoever serves that client, and ends there if the client is
//! gone: a report is dropped, a question is answered with an error. The other end is a [`ClientSide`].

use std::sync::Arc;

use rmcp::model::{
    ClientCapabilities, ErrorCode, ErrorData, InputRequest, LoggingLevel, LoggingMessageNotificationParam, MetaObject,
    ProgressNotificationParam, RequestMetaObject,
};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::ids::Principal;

/// Reports that may wait for a slow client; more are dropped.
const REPORTS_MAX: usize = 64;

/// Which of the protocol's two eras a peer speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Era {
    /// Revisions up to 2025-11-25: `initialize`, and requests in both directions.
    Legacy,
    /// Revision 2026-07-28: every request stands alone, and questions are answered by asking again.
    Modern,
}

/// Who makes a call.
#[derive(Debug, Clone)]
pub struct Caller {
    pub principal: Principal,
    /// The client program's name and version.
    pub client: Option<Arc<str>>,
    pub era: Era,
    /// What the client declared that it can do: for this request, or when it connected.
    pub capabilities: ClientCapabilities,
    /// The level of log messages that this one request asked for (2026-07-28 only).
    pub log_level: Option<LoggingLevel>,
    /// Whether the client asked for progress.
    pub wants_progress: bool,
    /// W3C trace context and whatever else of the request's `_meta` is to go along.
    pub meta: MetaObject,
    /// Cancelled when the client takes the call back.
    pub cancelled: CancellationToken,
    pub link: Link,
}

impl Caller {
    /// A caller that is the broker itself: it can be told and asked nothing.
    #[must_use]
    pub fn internal(principal: Principal) -> Self {
        Self {
            principal,
            client: None,
            era: Era::Legacy,
            capabilities: ClientCapabilities::default(),
            log_level: None,
            wants_progress: false,
            meta: MetaObject::new(),
            cancelled: CancellationToken::new(),
            link: Link::closed(),
        }
    }

    /// The `_meta` for a request to a server on this caller's behalf.
    #[must_use]
    pub fn request_meta(&self) -> RequestMetaObject {
        let mut meta = RequestMetaObject::new();
        for (key, value) in self.meta.iter() {
            meta.insert(key.clone(), value.clone());
        }
        meta
    }

    /// The trace-id of the request's `traceparent` (W3C trace context), if it is a valid one.
    #[must_use]
    pub fn trace(&self) -> Option<&str> {
        let mut parts = self.meta.get("traceparent")?.as_str()?.split('-');
        let (version, id) = (parts.next()?, parts.next()?);
        let is_id = id.len() == 32 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        (version.len() == 2 && is_id && id.bytes().any(|byte| byte != b'0')).then_some(id)
    }

    /// Whether this caller can be asked `request`.
    #[must_use]
    pub fn can_answer(&self, request: &InputRequest) -> bool {
        match request {
            InputRequest::CreateMessage(_) => self.capabilities.sampling.is_some(),
            InputRequest::Elicitation(_) => self.capabilities.elicitation.is_some(),
            InputRequest::ListRoots(_) => self.capabilities.roots.is_some(),
            _ => false,
        }
    }
}

/// What a call tells its client.
#[derive(Debug)]
pub enum Report {
    /// The token in it is the server's; whoever forwards it puts the client's own.
    Progress(ProgressNotificationParam),
    Log(LoggingMessageNotificationParam),
    Question(Question),
}

/// What a server asks the client, and where the answer goes.
#[derive(Debug)]
pub struct Question {
    pub request: InputRequest,
    pub answer: oneshot::Sender<Result<Value, ErrorData>>,
}

/// A call's way to its client. Clones lead to the same client.
#[derive(Debug, Clone)]
pub struct Link(mpsc::Sender<Report>);

/// The client's end of a [`Link`].
#[derive(Debug)]
pub struct ClientSide {
    reports: mpsc::Receiver<Report>,
    /// One that was received and given back.
    ahead: Option<Report>,
}

impl Link {
    /// A link and its other end.
    #[must_use]
    pub fn new() -> (Self, ClientSide) {
        let (sender, receiver) = mpsc::channel(REPORTS_MAX);
        (Self(sender), ClientSide { reports: receiver, ahead: None })
    }

    /// A link that leads nowhere.
    #[must_use]
    pub fn closed() -> Self {
        Self(mpsc::channel(1).0)
    }

    /// Tells the client something, unless it is gone or too slow.
    pub fn report(&self, report: Report) {
        let _ = self.0.try_send(report);
    }

    /// Asks the client, and waits for its answer for as long as the caller of this waits.
    ///
    /// # Errors
    ///
    /// When the client is gone, or answers with an error.
    pub async fn ask(&self, request: InputRequest) -> Result<Value, ErrorData> {
        let (answer, answered) = oneshot::channel();
        let gone = || ErrorData::new(ErrorCode::INTERNAL_ERROR, "the client that could answer is gone", None);
        self.0.send(Report::Question(Question { request, answer })).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

impl ClientSide {
    /// The next report; `None` when the call is over.
    pub async fn next(&mut self) -> Option<Report> {
        match self.ahead.take() {
            Some(report) => Some(report),
            None => self.reports.recv().await,
        }
    }

    /// A report that is there already.
    pub fn ready(&mut self) -> Option<Report> {
        self.ahead.take().or_else(|| self.reports.try_recv().ok())
    }

    /// Whether a report is there already.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ahead.is_some() || !self.reports.is_empty()
    }

    /// Makes a report the next one again.
    pub fn give_back(&mut self, report: Report) {
        self.ahead = Some(report);
    }
}

/// The error for a question that a client did not say it can answer.
#[must_use]
pub fn cannot_answer(request: &InputRequest) -> ErrorData {
    let what = match request {
        InputRequest::CreateMessage(_) => "sampling",
        InputRequest::Elicitation(_) => "elicitation",
        InputRequest::ListRoots(_) => "roots",
        _ => "this",
    };
    ErrorData::new(ErrorCode::METHOD_NOT_FOUND, format!("the client does not support {what}"), None)
}
