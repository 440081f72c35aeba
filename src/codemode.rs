//! Code mode's machinery: the workers that scripts run in.
//!
//! A worker is this program again (`mcp-broker js-worker`), so there is one binary. Workers are started when the first
//! script runs and ended when none has run for a while. What a script may call is decided by [`crate::tools`]: every call
//! goes through the same door as a client's.

use std::{
    future::Future,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use js_runtime::{Host, Limits, Outcome, Pool, PoolError, Script};

use crate::lifecycle::Tasks;

/// The hidden command that is a worker.
pub const WORKER: &str = "js-worker";

/// Workers that wait are ended when no script has run for this long.
const IDLE: Duration = Duration::from_secs(60);

/// Runs scripts.
pub struct CodeMode {
    pool: Pool,
    tasks: Tasks,
    tended: AtomicBool,
}

impl CodeMode {
    /// Code mode with workers that are started as `program`. None is started yet.
    #[must_use]
    pub fn new(program: PathBuf, limits: Limits, tasks: Tasks) -> Self {
        Self { pool: Pool::new(program, vec![WORKER.to_owned()], limits), tasks, tended: AtomicBool::new(false) }
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
        let pool = self.pool.clone();
        self.tasks.spawn(async move { pool.fill().await });
        outcome
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
