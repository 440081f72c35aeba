//! One script from its start to its outcome, seen from outside the worker.

use std::{pin::pin, sync::Arc, time::Duration};

use serde_json::{Value, value::RawValue};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::Instant,
};

use crate::{
    CallError, CallRecord, Ending, Host, Limit, Limits, Outcome, Script, ScriptError,
    message::{FromWorker, ToWorker},
    patience::Patience,
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

/// What calls that have no answer yet may have as arguments, together.
const UNANSWERED_BYTES_MAX: usize = 64 << 20;

/// What the arguments of calls under way may take of the memory together, as [`mebibytes`] reckons it. One call that takes
/// more by itself is made alone.
const PARSED_MEBIBYTES_MAX: u32 = 256;

/// About what a value of a parsed text takes beside the text.
const VALUE_BYTES: usize = 128;

/// How long a script is awaited without sleep that has no call under way.
const GOES_ON: Duration = Duration::from_micros(50);

pub(crate) async fn run(
    worker: &mut Worker,
    script: Script,
    host: &dyn Host,
    limits: &Limits,
    cancelled: impl Future<Output = ()> + Send,
) -> Outcome {
    let mut state = Progress { is_read: false, logs: Vec::new(), log_bytes: 0, calls: Vec::new(), unanswered_bytes: 0 };
    let ending = watch(worker, script, host, limits, cancelled, &mut state).await;
    Outcome { ending, logs: state.logs, calls: state.calls }
}

struct Progress {
    /// Whether the script has been read.
    is_read: bool,
    logs: Vec<String>,
    log_bytes: usize,
    calls: Vec<CallRecord>,
    /// What the calls without an answer have as arguments.
    unanswered_bytes: usize,
}

struct Answered {
    /// The worker's number for it, and that of its record.
    id: u64,
    record: usize,
    arguments_bytes: usize,
    outcome: Result<Value, CallError>,
    took: Duration,
    /// The next call begins when the worker is told of this one.
    _turn: [Option<OwnedSemaphorePermit>; 2],
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
    let room = Arc::new(Semaphore::new(PARSED_MEBIBYTES_MAX as usize));
    // Dropped with this, and with it every call on its way.
    let mut calls: JoinSet<Answered> = JoinSet::new();
    let mut patience = Patience::new(GOES_ON, Duration::MAX);
    loop {
        let Worker { input, output, .. } = worker;
        // With what it was told, the script is about to make its next call or to end.
        let goes_on = calls.is_empty() && input.is_written() && state.is_read;
        let message = async { if goes_on { patience.wait(output.receive()).await } else { output.receive().await } };
        let message = tokio::select! {
            biased;
            () = &mut cancelled => return Ending::Cancelled,
            () = &mut deadline => return Ending::Limit(Limit::Wall),
            // All answers that are there are written at once, and before what the worker has to say meanwhile.
            Some(answered) = calls.join_next(), if input.has_room() && !calls.is_empty() => {
                let Ok(answered) = answered else { continue };
                state.answered(&answered);
                if worker.input.tell(&ToWorker::Answer { id: answered.id, outcome: answered.outcome }).is_err() {
                    return lost(worker).await;
                }
                continue;
            }
            written = input.write(), if !input.is_written() => {
                if written.is_err() {
                    return lost(worker).await;
                }
                continue;
            }
            message = message => message,
        };
        match message {
            Some(FromWorker::Call { id, server, tool, arguments }) => {
                if state.calls.len() >= limits.calls_max {
                    return Ending::Limit(Limit::Calls);
                }
                let arguments_bytes = arguments.get().len();
                let record = state.call(&server, &tool);
                if state.unanswered_bytes.saturating_add(arguments_bytes) > UNANSWERED_BYTES_MAX {
                    if worker.input.tell(&ToWorker::Answer { id, outcome: Err(crowded()) }).is_err() {
                        return lost(worker).await;
                    }
                    continue;
                }
                state.unanswered_bytes += arguments_bytes;
                let (turns, room, takes) = (turns.clone(), room.clone(), mebibytes(&arguments));
                let call = host.call(server, tool, arguments);
                calls.spawn(async move {
                    let turn = [turns.acquire_owned().await.ok(), room.acquire_many_owned(takes).await.ok()];
                    let start = Instant::now();
                    let outcome = call.await;
                    Answered { id, record, arguments_bytes, outcome, took: start.elapsed(), _turn: turn }
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

fn crowded() -> CallError {
    let most = UNANSWERED_BYTES_MAX >> 20;
    format!("calls without an answer have more than {most} MiB of arguments together: await some of them first").into()
}

/// What arguments take of the memory once they are parsed, about.
fn mebibytes(arguments: &RawValue) -> u32 {
    let text = arguments.get();
    let values = text.bytes().filter(|byte| matches!(byte, b',' | b'[' | b'{')).count();
    let mebibytes = text.len().saturating_add(values.saturating_mul(VALUE_BYTES)) >> 20;
    u32::try_from(mebibytes).unwrap_or(u32::MAX).min(PARSED_MEBIBYTES_MAX)
}

fn done(outcome: Result<Box<RawValue>, ScriptError>, limits: &Limits) -> Ending {
    match outcome {
        Ok(result) if result.get().len() > limits.result_bytes_max => Ending::Limit(Limit::Result),
        Ok(result) => match serde_json::from_str(result.get()) {
            Ok(result) => Ending::Completed(result),
            Err(error) => Ending::Error(ScriptError::told(&format!("the result cannot be read: {error}"))),
        },
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

    /// Records a call, and gives the record's number.
    fn call(&mut self, server: &str, tool: &str) -> usize {
        self.calls.push(CallRecord { server: server.to_owned(), tool: tool.to_owned(), ms: 0, ok: false });
        self.calls.len() - 1
    }

    fn answered(&mut self, answered: &Answered) {
        self.unanswered_bytes = self.unanswered_bytes.saturating_sub(answered.arguments_bytes);
        if let Some(call) = self.calls.get_mut(answered.record) {
            call.ms = u64::try_from(answered.took.as_millis()).unwrap_or(u64::MAX);
            call.ok = answered.outcome.is_ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arguments_take_grows_with_their_values() {
        let takes = |text: String| mebibytes(&RawValue::from_string(text).unwrap());
        assert_eq!(takes("{}".to_owned()), 0);
        assert_eq!(takes(format!("[\"{}\"]", "x".repeat(10 << 20))), 10);
        assert_eq!(takes(format!("[{}0]", "0,".repeat(1 << 20))), 130);
        assert_eq!(takes(format!("[{}0]", "[],".repeat(10 << 20))), PARSED_MEBIBYTES_MAX, "it is made alone");
    }
}
