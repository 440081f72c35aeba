//! What a worker and who runs it say to each other: JSON, one message a line.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Script, ScriptError};

/// To a worker.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ToWorker {
    Start(Script),
    Answer { id: u64, outcome: Result<Value, String> },
}

/// From a worker.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FromWorker {
    /// The engine runs, and the worker is locked in.
    Ready,
    Call {
        id: u64,
        server: String,
        tool: String,
        arguments: Value,
    },
    Log(String),
    Done(Result<Value, ScriptError>),
}
