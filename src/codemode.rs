//! Code mode's machinery: the workers that scripts run in.
//!
//! A worker is this program again (`mcp-broker js-worker`), so there is one binary. Workers are started when the first
//! script runs and ended when none has run for a while. What a script may call is decided by [`crate::tools`]: every call
//! goes through the same door as a client's.

use std::{
    future::Future,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use js_runtime::{CallFuture, Ending, Host, Limits, Outcome, Pool, PoolError, Script};
use serde_json::value::RawValue;

use crate::{config::CodeModeSettings, lifecycle::Tasks, supervisor::upstream::chain};

/// The hidden command that is a worker.
pub const WORKER: &str = "js-worker";

/// Workers that wait are ended when no script has run for this long.
const IDLE: Duration = Duration::from_secs(60);

/// How long workers that have run a script wait to be replaced, while calls are under way.
const ANSWER_MAX: Duration = Duration::from_millis(20);

/// Runs scripts.
pub struct CodeMode {
    pool: Pool,
    settings: CodeModeSettings,
    tasks: Tasks,
    tended: AtomicBool,
}

impl CodeMode {
    /// Code mode with workers that are this program, or what the settings name. None is started yet.
    #[must_use]
    pub fn new(settings: CodeModeSettings, tasks: Tasks) -> Self {
        Self { pool: pool(&settings), settings, tasks, tended: AtomicBool::new(false) }
    }

    /// A longer result is answered with its beginning.
    #[must_use]
    pub fn answer_bytes_max(&self) -> usize {
        self.settings.answer_bytes_max
    }

    /// Longer declarations are abridged.
    #[must_use]
    pub fn declarations_bytes_max(&self) -> usize {
        self.settings.declarations_bytes_max
    }

    #[must_use]
    pub fn limits(&self) -> &Limits {
        self.pool.limits()
    }

    /// Runs a script to its end, or until `cancelled`.
    ///
    /// # Errors
    ///
    /// When no worker can be had.
    pub async fn run(
        &self,
        script: Script,
        host: &dyn Host,
        cancelled: impl Future<Output = ()> + Send,
    ) -> Result<Outcome, PoolError> {
        if !self.tended.swap(true, Ordering::AcqRel) {
            self.tasks.spawn(tend(self.pool.clone(), self.tasks.clone()));
        }
        let outcome = self.pool.run(script, host, cancelled).await;
        let (pool, unanswered) = (self.pool.clone(), self.tasks.unanswered().clone());
        self.tasks.spawn(async move {
            // The outcome goes first: to end a worker and to start another keeps a processor busy.
            let _ = tokio::time::timeout(ANSWER_MAX, unanswered.none()).await;
            pool.fill().await;
        });
        outcome
    }
}

fn pool(settings: &CodeModeSettings) -> Pool {
    let program = settings.program.clone().or_else(this_program).unwrap_or_else(|| "mcp-broker".into());
    Pool::new(program, vec![WORKER.to_owned()], settings.limits())
}

/// This program, as long as it runs: what has replaced its file by then may speak otherwise.
fn this_program() -> Option<PathBuf> {
    let running = Path::new("/proc/self/exe");
    if running.exists() { Some(running.to_owned()) } else { std::env::current_exe().ok() }
}

/// Boots a worker, has it run a script, and says what holds it; or what went wrong.
///
/// # Errors
///
/// When no worker can be had, or it does not run the script.
pub async fn check(settings: &CodeModeSettings) -> Result<String, String> {
    let script = Script { source: "const sum: number = 1 + 1; return sum".to_owned(), servers: Vec::new() };
    let outcome = pool(settings).run(script, &Nothing, std::future::pending()).await;
    let ending = outcome.map_err(|error| chain(&error))?.ending;
    if ending != Ending::Completed(2.into()) {
        return Err(format!("a worker was started, and the script it was given did not run: {ending:?}"));
    }
    let (held, lacking): (Vec<_>, Vec<_>) = js_runtime::worker::sandbox::offered().into_iter().partition(|(_, is)| *is);
    let names =
        |parts: Vec<(&'static str, bool)>| parts.into_iter().map(|(name, _)| name).collect::<Vec<_>>().join(", ");
    let mut text = format!("a worker ran a script on {}; it is held by {}", js_runtime::ENGINE, names(held));
    if !lacking.is_empty() {
        text.push_str(&format!("; this kernel has no {}", names(lacking)));
    }
    Ok(text)
}

/// No tools at all.
struct Nothing;

impl Host for Nothing {
    fn call(&self, _server: String, _tool: String, _arguments: Box<RawValue>) -> CallFuture {
        Box::pin(async { Err("there is nothing to call".to_owned().into()) })
    }
}

/// Ends workers that nobody needs any more, and all of them when the broker stops.
async fn tend(pool: Pool, tasks: Tasks) {
    let stopping = tasks.stopping_token();
    loop {
        let used = pool.used();
        tokio::select! {
            () = tokio::time::sleep(IDLE) => if pool.used() == used {
                pool.drain().await;
            },
            () = stopping.cancelled() => {
                pool.close().await;
                return;
            }
        }
    }
}
