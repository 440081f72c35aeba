//! Tool calls to a server, past rmcp's client.
//!
//! rmcp takes a request through a queue and two tasks on its way out, over HTTP through four, and its answer back through as
//! many. A tool call needs none of it: it is written to the server's stream, or posted, by whoever makes it, and its answer is
//! given to them as it comes off the wire. Everything else is rmcp's: the handshake and the session, lists, what a server
//! asks and announces, and a call whose HTTP session has expired.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use rmcp::{
    Peer, RoleClient,
    model::{
        CancelledNotificationParam, ClientJsonRpcMessage, ClientRequest, GetMeta as _, ProgressToken, ProtocolVersion,
        RequestId, RequestMetaObject, ServerResult,
    },
};

use super::{
    calls::{Activity, Calls, OnBehalfOf, Waiting},
    door::Door,
    upstream::{RequestError, implementation},
    wire::Outgoing,
};
use crate::{
    caller::{Caller, Era},
    lifecycle::Tasks,
};

/// The first of our ids. rmcp counts its own from zero, and servers may have no more than 32 bits for one.
const IDS_FROM: i64 = 1_000_000_000;

/// How long the end of a stream may take after its answer. A connection is used again only if it was read to the end.
const DRAIN_MAX: Duration = Duration::from_millis(50);

/// Sends calls on one connection.
pub(crate) struct Direct {
    to: To,
    calls: Arc<Calls>,
    next: AtomicI64,
}

enum To {
    Streams(Outgoing),
    Http(Arc<Door>, Tasks),
}

/// Why a call has no result.
pub(crate) enum Unanswered {
    Failed(RequestError),
    /// The server has not taken it: it can be sent again.
    NotRun,
}

impl From<RequestError> for Unanswered {
    fn from(error: RequestError) -> Self {
        Self::Failed(error)
    }
}

type Sending = Pin<Box<dyn Future<Output = Result<(), Unanswered>> + Send>>;

impl Direct {
    pub(crate) fn over_streams(outgoing: Outgoing, calls: Arc<Calls>) -> Self {
        Self { to: To::Streams(outgoing), calls, next: AtomicI64::new(IDS_FROM) }
    }

    pub(crate) fn over_http(door: Arc<Door>, calls: Arc<Calls>, tasks: Tasks) -> Self {
        Self { to: To::Http(door, tasks), calls, next: AtomicI64::new(IDS_FROM) }
    }

    /// Begins `request`, if it is a tool call that can go this way. Over HTTP it is posted when its answer is awaited.
    pub(crate) fn begin(
        &self,
        request: &ClientRequest,
        caller: &Caller,
        era: Era,
        meta: &RequestMetaObject,
    ) -> Option<Underway> {
        let ClientRequest::CallToolRequest(call) = request else {
            return None;
        };
        let id = RequestId::Number(self.next.fetch_add(1, Ordering::Relaxed));
        let mut request = request.clone();
        let all = request.get_meta_mut();
        if era == Era::Modern {
            all.set_protocol_version(ProtocolVersion::V_2026_07_28);
            all.set_client_info(implementation());
        }
        all.extend(meta.clone());
        all.set_progress_token(ProgressToken(id.clone()));
        let behalf = OnBehalfOf::caller(caller);
        let activity = behalf.activity.clone();
        let waiting = self.calls.sent_past_rmcp(&request, id.clone(), behalf);
        let message = ClientJsonRpcMessage::request(request, id.clone());
        let (sending, tasks): (Sending, _) = match &self.to {
            To::Streams(outgoing) => {
                let line = serde_json::to_vec(&message).map_err(|error| RequestError::Send(error.to_string()));
                let written = line.map(|line| outgoing.write_line(line));
                let written = async move {
                    written?.await.map_err(|error| Unanswered::Failed(RequestError::Send(error.to_string())))
                };
                (Box::pin(written), None)
            }
            To::Http(door, tasks) => {
                let way = door.way(&call.params.name, era)?;
                (Box::pin(door.clone().post(message, id, way)), Some(tasks.clone()))
            }
        };
        Some(Underway { waiting, activity, sending: Some(sending), tasks, cancels: self.cancels(era) })
    }

    /// Whether a call is taken back by saying so. In the newer era over HTTP, to hang up is enough.
    fn cancels(&self, era: Era) -> bool {
        matches!(self.to, To::Streams(_)) || era == Era::Legacy
    }
}

/// A call on its way. It is forgotten when this is dropped.
pub(crate) struct Underway {
    waiting: Waiting,
    activity: Arc<Activity>,
    /// Ends when nothing more is to be sent, or read for this call.
    sending: Option<Sending>,
    /// Where the end of its HTTP stream is read.
    tasks: Option<Tasks>,
    cancels: bool,
}

impl Underway {
    pub(crate) fn activity(&self) -> Arc<Activity> {
        self.activity.clone()
    }

    /// What comes of it.
    pub(crate) async fn answer(&mut self) -> Result<ServerResult, Unanswered> {
        if let Some(sending) = &mut self.sending {
            tokio::select! {
                biased;
                answer = self.waiting.answer() => return answered(answer),
                sent = sending => {
                    self.sending = None;
                    sent?;
                }
            }
        }
        answered(self.waiting.answer().await)
    }

    /// Lets its HTTP connection be used again.
    pub(crate) fn over(&mut self) {
        if let (Some(sending), Some(tasks)) = (self.sending.take(), self.tasks.take()) {
            tasks.spawn(async move {
                let _ = tokio::time::timeout(DRAIN_MAX, sending).await;
            });
        }
    }

    /// Gives it up, and says so to the server.
    pub(crate) async fn take_back(mut self, peer: &Peer<RoleClient>, reason: String) {
        self.sending = None;
        if self.cancels {
            let id = self.waiting.id().clone();
            let _ = Box::pin(peer.notify_cancelled(CancelledNotificationParam::new(Some(id), Some(reason)))).await;
        }
    }
}

fn answered(answer: Option<Result<ServerResult, rmcp::model::ErrorData>>) -> Result<ServerResult, Unanswered> {
    Ok(answer.ok_or(RequestError::Closed)?.map_err(RequestError::Protocol)?)
}
