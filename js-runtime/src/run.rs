//! One script from its start to its outcome, seen from outside the worker.

use std::{collections::HashMap, pin::pin, sync::Arc, time::Duration};

use serde_json::Value;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::Instant,
};

use crate::{
    CallError, CallRecord, Ending, Host, Limit, Limits, Outcome, Script, ScriptError,
    message::{FromWorker, ToWorker},
    pool::{Death, Worker},
};

/// Signals by which the kernel enforces a limit, and by which an engine gives up.
const SIGXCPU: i32 = 24;
const SIGKILL: i32 = 9;
const SIGABRT: i32 = 6;
const SIGILL: i32 = 4;
const SIGTRAP: i32 = 5;
const SIGSEGV: i32 = 11;
const SIGSYS: i32 = 31;

/// A line of log that is longer is cut.
const LOG_LINE_BYTES_MAX: usize = 4 << 10;

pub(crate) async fn run(
    worker: &mut Worker,
    script: Script,
    host: &dyn Host,
    limits: &Limits,
    cancelled: impl Future<Output = ()> + Send,
) -> Outcome {
    let mut state =
        Progress { is_read: false, logs: Vec::new(), log_bytes: 0, calls: Vec::new(), numbers: HashMap::new() };
    let ending = watch(worker, script, host, limits, cancelled, &mut state).await;
    Outcome { ending, logs: state.logs, calls: state.calls }
}

struct Progress {
    /// Whether the script has been read.
    is_read: bool,
    logs: Vec<String>,
    log_bytes: usize,
    calls: Vec<CallRecord>,
    /// Which record a call of the worker's numbering is.
    numbers: HashMap<u64, usize>,
}

struct Answered {
    id: u64,
    outcome: Result<Value, CallError>,
    took: Duration,
    /// The next call begins when the worker is told of this one.
    _turn: Option<OwnedSemaphorePermit>,
}

async fn watch(
    worker: &mut Worker,
    script: Script,
    host: &dyn Host,
    limits: &Limits,
    cancelled: impl Future<Output = ()> + Send,
    state: &mut Progress,
) -> Ending {
    if worker.input.tell(&ToWorker::Start(script)).is_err() {
        return lost(worker).await;
    }
    let mut cancelled = pin!(cancelled);
    let mut deadline = pin!(tokio::time::sleep(limits.wall));
    let turns = Arc::new(Semaphore::new(limits.concurrent_calls_max));
    // Dropped with this, and with it every call on its way.
    let mut calls: JoinSet<Answered> = JoinSet::new();
    loop {
        let message = tokio::select! {
            message = worker.output.receive() => message,
            written = worker.input.write(), if !worker.input.is_written() => {
                if written.is_err() {
                    return lost(worker).await;
                }
                continue;
            }
            Some(answered) = calls.join_next(), if worker.input.has_room() && !calls.is_empty() => {
                let Ok(answered) = answered else { continue };
                state.answered(&answered);
                if worker.input.tell(&ToWorker::Answer { id: answered.id, outcome: answered.outcome }).is_err() {
                    return lost(worker).await;
                }
                continue;
            }
            () = &mut deadline => return Ending::Limit(Limit::Wall),
            () = &mut cancelled => return Ending::Cancelled,
        };
        match message {
            Some(FromWorker::Call { id, server, tool, arguments }) => {
                if state.calls.len() >= limits.calls_max {
                    return Ending::Limit(Limit::Calls);
                }
                state.call(id, &server, &tool);
                let (call, turns) = (host.call(server, tool, arguments), turns.clone());
                calls.spawn(async move {
                    let turn = turns.acquire_owned().await.ok();
                    let start = Instant::now();
                    let outcome = call.await;
                    Answered { id, outcome, took: start.elapsed(), _turn: turn }
                });
            }
            Some(FromWorker::Log(line)) => state.log(line, limits.log_bytes_max),
            Some(FromWorker::Done(outcome)) => return done(outcome, limits),
            Some(FromWorker::Read) if !state.is_read => state.is_read = true,
            Some(FromWorker::Ready | FromWorker::Read | FromWorker::Unable(_)) => {
                return Ending::Lost("the worker said what it has no business to".to_owned());
            }
            None if !state.is_read => return unread(worker).await,
            None => return lost(worker).await,
        }
    }
}

fn done(outcome: Result<Value, ScriptError>, limits: &Limits) -> Ending {
    match outcome {
        Ok(result) if result.to_string().len() > limits.result_bytes_max => Ending::Limit(Limit::Result),
        Ok(result) => Ending::Completed(result),
        // The engine ends what has reached the heap's limit.
        Err(error) if is_full_heap(&error) => Ending::Limit(Limit::Heap),
        Err(error) => Ending::Error(error),
    }
}

/// Whether this is how an engine says that the heap is full: an error of its own kind, or the end of the script. What a
/// tool says of its memory is not.
fn is_full_heap(error: &ScriptError) -> bool {
    let thrown = error.name == "InternalError" && error.message == "out of memory";
    thrown || (error.stack.is_none() && error.message.ends_with("execution terminated"))
}

/// A worker that ended while it read a script: what is nested too deep takes more stack than there is.
async fn unread(worker: &mut Worker) -> Ending {
    match lost(worker).await {
        Ending::Limit(Limit::Heap) => Ending::Error(ScriptError {
            name: "SyntaxError".to_owned(),
            message: "the script is nested too deep to be read: write it with fewer levels".to_owned(),
            line: None,
            column: None,
            stack: None,
        }),
        other => other,
    }
}

async fn lost(worker: &mut Worker) -> Ending {
    let Some(Death { signal, last_words }) = worker.ended().await else {
        return Ending::Lost("the worker ended by itself".to_owned());
    };
    match signal {
        SIGXCPU => Ending::Limit(Limit::Cpu),
        // Memory that is not given, or a stack that is too deep.
        SIGABRT | SIGSEGV => Ending::Limit(Limit::Heap),
        // How V8 ends itself, for this reason or another.
        SIGILL | SIGTRAP if last_words.contains("out of memory") => Ending::Limit(Limit::Heap),
        SIGSYS => Ending::Lost("the script made its worker do what it must not".to_owned()),
        SIGKILL => Ending::Lost("the worker was killed, by somebody or by a kernel without memory".to_owned()),
        signal => Ending::Lost(format!("the worker was ended by signal {signal}")),
    }
}

impl Progress {
    fn log(&mut self, mut line: String, bytes_max: usize) {
        if line.len() > LOG_LINE_BYTES_MAX {
            let end = line.floor_char_boundary(LOG_LINE_BYTES_MAX);
            line.truncate(end);
            line.push('…');
        }
        let before = self.log_bytes;
        self.log_bytes = self.log_bytes.saturating_add(line.len());
        if self.log_bytes <= bytes_max {
            self.logs.push(line);
        } else if before <= bytes_max {
            self.logs.push(format!("[more than {bytes_max} bytes: the rest is left out]"));
        }
    }

    fn call(&mut self, id: u64, server: &str, tool: &str) {
        self.numbers.insert(id, self.calls.len());
        self.calls.push(CallRecord { server: server.to_owned(), tool: tool.to_owned(), ms: 0, ok: false });
    }

    fn answered(&mut self, answered: &Answered) {
        if let Some(call) = self.numbers.get(&answered.id).and_then(|number| self.calls.get_mut(*number)) {
            call.ms = u64::try_from(answered.took.as_millis()).unwrap_or(u64::MAX);
            call.ok = answered.outcome.is_ok();
        }
    }
}
