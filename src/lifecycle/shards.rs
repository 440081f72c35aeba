//! Threads that each have a runtime of their own, so that what belongs together runs together.
//!
//! A call is handed from task to task a dozen times on its way to a server and back. On a runtime whose threads take
//! tasks from each other, each of these may be the waking of another thread, which takes longer than what it then does.
//! What serves one connection (its calls, the servers they start) stays on one thread instead, unless another connection has
//! begun it; connections are spread over all of them. What runs beside (the queue of what is to be written, looking after
//! sessions and catalogs) is not here and waits for none of this.

use std::{io, num::NonZeroUsize, thread};

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};

/// A bound for machines with many processors: each thread has descriptors and memory of its own.
const MAX: usize = 16;

/// The threads. They end when this is dropped, with whatever still runs on them.
pub struct Shards {
    handles: Vec<Handle>,
    _stop_with_me: DropGuard,
}

impl Shards {
    /// One for each processor this process may use.
    ///
    /// # Errors
    ///
    /// When the operating system refuses.
    pub fn start() -> io::Result<Self> {
        let count = thread::available_parallelism().map_or(1, NonZeroUsize::get).min(MAX);
        let stop = CancellationToken::new();
        let stop_with_me = stop.clone().drop_guard();
        let handles = (0..count).map(|_| start_one(stop.clone())).collect::<io::Result<_>>()?;
        Ok(Self { handles, _stop_with_me: stop_with_me })
    }

    pub(super) fn handles(&self) -> &[Handle] {
        &self.handles
    }
}

fn start_one(stop: CancellationToken) -> io::Result<Handle> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    thread::Builder::new().name("shard".to_owned()).spawn(move || {
        runtime.block_on(stop.cancelled());
        runtime.shutdown_background();
    })?;
    Ok(handle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::Tasks;

    #[tokio::test]
    async fn what_a_task_starts_stays_on_its_thread() {
        let shards = Shards::start().expect("threads can be had");
        let (tasks, _crashes) = Tasks::spread_over(&shards);
        assert!(!tasks.shards().is_empty());
        for shard in tasks.shards().iter() {
            let inner = tasks.clone();
            let outer = async move {
                let there = thread::current().id();
                let task = async {
                    tokio::task::yield_now().await;
                    thread::current().id()
                };
                (there, inner.spawn(task).await.expect("it does not panic"))
            };
            let (there, of_task) = tasks.spawn_on(shard, outer).await.expect("it does not panic");
            assert_eq!(of_task, there);
            assert_ne!(there, thread::current().id());
        }
    }

    #[tokio::test]
    async fn what_runs_on_them_ends_with_them() {
        let shards = Shards::start().expect("threads can be had");
        let task = shards.handles()[0].spawn(std::future::pending::<()>());
        drop(shards);
        assert!(task.await.expect_err("it never ends by itself").is_cancelled());
    }
}
