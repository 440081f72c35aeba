//! Calls that wait for a client of revision 2026-07-28 to answer a question.
//!
//! A server of an older revision asks in the middle of a call, and waits. A client of the newer one can only be asked by
//! answering its request with `input_required`; it sends the request again with the answer. Between the two the call is
//! parked here, under a random name that the client carries in `requestState` and that only its principal can use.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use data_encoding::BASE64URL_NOPAD;
use rmcp::model::{ErrorData, InputRequest, InputRequests, InputRequiredResult, InputResponses};
use serde_json::Value;
use tokio::{sync::oneshot, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    caller::{ClientSide, Question},
    ids::{Principal, random},
    tools::Reply,
};

/// Begins the state of a parked call; other states are the servers' own.
const PREFIX: &str = "parked.";

/// The key the one question of a parked call has.
const KEY: &str = "question";

/// A call that runs, and the client's end of its link.
pub(super) struct Running {
    pub(super) call: JoinHandle<Result<Reply, ErrorData>>,
    pub(super) side: ClientSide,
    pub(super) cancelled: CancellationToken,
}

struct ParkedCall {
    running: Running,
    request: InputRequest,
    answer: oneshot::Sender<Result<Value, ErrorData>>,
    principal: Principal,
    what: String,
    until: Instant,
}

/// Every parked call.
pub struct Parked {
    calls: Mutex<HashMap<String, ParkedCall>>,
    calls_max: usize,
    valid_for: Duration,
}

/// What came of a client's second request.
pub(super) enum Resumed {
    /// The answer has been passed on and the call goes on.
    Running(Running),
    /// The answer was missing: the question stands.
    AskedAgain(InputRequiredResult),
}

impl Parked {
    #[must_use]
    pub fn new(calls_max: usize, valid_for: Duration) -> Self {
        Self { calls: Mutex::default(), calls_max, valid_for }
    }

    /// Whether a state names a parked call.
    pub(super) fn is_name(state: &str) -> bool {
        state.starts_with(PREFIX)
    }

    /// Parks a call whose server asks something. Gives back what the client is told.
    pub(super) fn park(
        &self,
        running: Running,
        question: Question,
        principal: Principal,
        what: String,
    ) -> Result<InputRequiredResult, ErrorData> {
        let mut calls = self.lock();
        let now = Instant::now();
        calls.retain(|_, call| call.until > now && !call.running.call.is_finished());
        if calls.len() >= self.calls_max {
            running.cancelled.cancel();
            return Err(ErrorData::internal_error("too many calls are waiting for answers: try again later", None));
        }
        let name = format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&random::<16>()));
        let request = question.request.clone();
        let parked = ParkedCall {
            running,
            request: request.clone(),
            answer: question.answer,
            principal,
            what,
            until: now + self.valid_for,
        };
        calls.insert(name.clone(), parked);
        Ok(asking(request, name))
    }

    /// Takes a parked call up again with what the client answered.
    pub(super) fn resume(
        &self,
        name: &str,
        responses: Option<&InputResponses>,
        principal: &Principal,
        what: &str,
    ) -> Result<Resumed, ErrorData> {
        let mut calls = self.lock();
        let unknown = || {
            ErrorData::invalid_params(
                "requestState names no call that waits for an answer: call again without it",
                None,
            )
        };
        let parked = calls.get(name).ok_or_else(unknown)?;
        if parked.principal != *principal || parked.what != what {
            return Err(unknown());
        }
        let Some(answer) = responses.and_then(|responses| responses.get(KEY)).filter(|answer| answer.is_object())
        else {
            return Ok(Resumed::AskedAgain(asking(parked.request.clone(), name.to_owned())));
        };
        let answer = answer.clone();
        let parked = calls.remove(name).ok_or_else(unknown)?;
        let _ = parked.answer.send(Ok(answer));
        Ok(Resumed::Running(parked.running))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, ParkedCall>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn asking(request: InputRequest, name: String) -> InputRequiredResult {
    InputRequiredResult::new(Some(InputRequests::from([(KEY.to_owned(), request)])), Some(name))
}
