//! What a worker and who runs it say to each other: JSON, one message a line.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{CallError, Script, ScriptError};

/// To a worker. Who runs it has values, and the worker passes texts on.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ToWorker<V> {
    Start(Script),
    Answer { id: u64, outcome: Result<V, CallError> },
}

/// From a worker.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FromWorker {
    /// The engine runs, and the worker is locked in.
    Ready,
    /// The worker cannot work, and why.
    Unable(String),
    /// The script has been read; from here on it is what says things.
    Read,
    Call {
        id: u64,
        server: String,
        tool: String,
        /// As text: parsed, it may take many times the memory.
        arguments: Box<RawValue>,
    },
    Log(String),
    /// The result as text, for the same reason.
    Done(Result<Box<RawValue>, ScriptError>),
}
