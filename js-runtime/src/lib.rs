//! Runs one script in a process of its own, which can call tools and do nothing else.
//!
//! ```text
//! Pool ─ take ─→ Worker (the same program, started again) ─ start ─→ script
//!                  │ ←──────────── call, log, done ────────────────┘
//!                  └─ Host::call ──→ answer ──→
//! ```
//!
//! A worker is started, boots its JavaScript engine, locks itself in (see `worker/sandbox.rs`) and waits for one script. It
//! is used once. What it says is taken for hostile: every line is bounded and parsed, and only calls, lines of log and one
//! outcome are understood. What it may use is bounded twice: by the engine, so that a script gets an error where it can,
//! and from outside, by the kernel and by whoever waits for it.
//!
//! This crate knows nothing of MCP, sessions or the network: who runs a script passes a [`Host`].

mod message;
mod patience;
mod pool;
mod run;
pub mod worker;

use std::{future::Future, pin::Pin, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

pub use pool::{Pool, PoolError};

/// The engine that scripts run on.
pub const ENGINE: &str = if cfg!(feature = "v8") { "V8" } else { "QuickJS" };

/// What a script may call.
pub trait Host: Send + Sync {
    /// Calls a tool, once this is awaited. Dropping the future takes the call back.
    ///
    /// `arguments` are better parsed then as well: many calls may wait for their turn.
    fn call(&self, server: String, tool: String, arguments: Box<RawValue>) -> CallFuture;
}

/// A call on its way.
pub type CallFuture = Pin<Box<dyn Future<Output = Result<Value, CallError>> + Send>>;

/// Why a call gave nothing. A script gets it as a `ToolError`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CallError {
    pub message: String,
    /// What the arguments have to be, where they were not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Value>,
}

impl From<String> for CallError {
    fn from(message: String) -> Self {
        Self { message, schema: None }
    }
}

/// A script and what it may name.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Script {
    /// The body of an async function.
    pub source: String,
    /// Servers, by the name they have in the script, with the names of their tools.
    pub servers: Vec<(String, Vec<String>)>,
}

/// What one run may use.
#[derive(Debug, Clone)]
pub struct Limits {
    /// From the start to the outcome, calls included.
    pub wall: Duration,
    /// Time on a CPU.
    pub cpu: Duration,
    /// The engine's heap.
    pub heap_bytes: u64,
    /// The result, as JSON.
    pub result_bytes_max: usize,
    /// Everything that was logged.
    pub log_bytes_max: usize,
    pub calls_max: usize,
    /// Calls at once; more wait for their turn.
    pub concurrent_calls_max: usize,
    pub script_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            wall: Duration::from_secs(60),
            cpu: Duration::from_secs(10),
            heap_bytes: 128 << 20,
            result_bytes_max: 8 << 20,
            log_bytes_max: 64 << 10,
            calls_max: 200,
            concurrent_calls_max: 8,
            script_bytes_max: 256 << 10,
        }
    }
}

/// What came of a script.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    pub ending: Ending,
    pub logs: Vec<String>,
    pub calls: Vec<CallRecord>,
}

/// One call of a script, in the order in which they were made.
#[derive(Debug, Clone, Serialize)]
pub struct CallRecord {
    pub server: String,
    pub tool: String,
    pub ms: u64,
    pub ok: bool,
}

/// How a script ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum Ending {
    Completed(Value),
    /// It threw, or could not be parsed.
    Error(ScriptError),
    Limit(Limit),
    Cancelled,
    /// The worker ended by itself, in a way that no limit explains.
    Lost(String),
}

/// What a script threw.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScriptError {
    pub name: String,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stack: Option<String>,
}

impl ScriptError {
    /// An error that is not one of the script's own.
    pub(crate) fn told(message: &str) -> Self {
        Self { name: "Error".to_owned(), message: message.to_owned(), line: None, column: None, stack: None }
    }
}

/// Which limit a script has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Limit {
    Wall,
    Cpu,
    Heap,
    Result,
    Calls,
    Script,
}
