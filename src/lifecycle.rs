//! How the broker stops, and who its background tasks are.
//!
//! The first signal is a request: nothing new is accepted, and what is under way may finish until a deadline. The second
//! signal, or the deadline, is an order: everything is cut. Every task is born here, so that none is forgotten and a
//! service that ends unasked is noticed.

mod count;
mod shards;

use std::{future::Future, sync::Arc, time::Duration};

use tokio::{
    runtime::Handle,
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use count::{Count, Counted};
pub use shards::Shards;

/// Work that takes more is put into a box: it is moved several times on its way into a task, and once more when it has ended.
/// Tokio itself does so from 16 KiB on, and a call takes most of that.
const MOVED_BYTES_MAX: usize = 1 << 10;

/// A handle for starting tasks and for learning that it is time to stop. Cheap to clone.
#[derive(Clone)]
pub struct Tasks {
    tracker: TaskTracker,
    last: TaskTracker,
    unanswered: Count,
    stopping: CancellationToken,
    cut: CancellationToken,
    crashed: mpsc::Sender<&'static str>,
    shards: Arc<[Handle]>,
}

impl Tasks {
    /// The handle, and the end that learns of crashes. Everything is to run on the runtime of whoever starts it.
    #[must_use]
    pub fn new() -> (Self, Crashes) {
        Self::with(Arc::new([]))
    }

    /// The same, with connections spread over these.
    #[must_use]
    pub fn spread_over(shards: &Shards) -> (Self, Crashes) {
        Self::with(shards.handles().into())
    }

    fn with(shards: Arc<[Handle]>) -> (Self, Crashes) {
        let (crashed, crashes) = mpsc::channel(1);
        let tasks = Self {
            tracker: TaskTracker::new(),
            last: TaskTracker::new(),
            unanswered: Count::default(),
            stopping: CancellationToken::new(),
            cut: CancellationToken::new(),
            crashed,
            shards,
        };
        (tasks, Crashes(crashes))
    }

    /// Starts a task that does one piece of work. It is waited for when the broker stops, until everything is cut.
    pub fn spawn<F>(&self, work: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        if size_of::<F>() > MOVED_BYTES_MAX { self.tracker.spawn(Box::pin(work)) } else { self.tracker.spawn(work) }
    }

    /// Starts a task on a shard; what it starts in turn runs there too.
    pub fn spawn_on<F>(&self, shard: &Handle, work: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tracker.spawn_on(work, shard)
    }

    /// What connections are spread over: the runtime this is called on, if there is nothing else.
    #[must_use]
    pub fn shards(&self) -> Arc<[Handle]> {
        match self.shards.is_empty() {
            true => Arc::new([Handle::current()]),
            false => self.shards.clone(),
        }
    }

    /// Starts a task that runs until the broker stops. If it ends before, the broker has crashed.
    pub fn spawn_service<F>(&self, name: &'static str, service: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let tasks = self.clone();
        self.tracker.spawn(async move {
            let guard = CrashGuard { name, tasks: &tasks };
            service.await;
            drop(guard);
        });
    }

    /// Starts a task that others write to until the very end. It is waited for after all others.
    pub fn spawn_last<F>(&self, name: &'static str, service: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let tasks = self.clone();
        self.last.spawn(async move {
            let guard = CrashGuard { name, tasks: &tasks };
            service.await;
            drop(guard);
        });
    }

    /// Calls and requests that are under way. While the broker stops they may end, until everything is cut.
    #[must_use]
    pub fn unanswered(&self) -> &Count {
        &self.unanswered
    }

    /// Completes when nothing new may be started.
    pub async fn stopping(&self) {
        self.stopping.cancelled().await;
    }

    /// Whether nothing new may be started.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// A token that is cancelled when nothing new may be started.
    #[must_use]
    pub fn stopping_token(&self) -> CancellationToken {
        self.stopping.clone()
    }

    /// A token that is cancelled when everything is to end now.
    #[must_use]
    pub fn cut_token(&self) -> CancellationToken {
        self.cut.clone()
    }

    /// Says that nothing new may be started.
    pub fn stop(&self) {
        self.stopping.cancel();
    }

    /// Says that everything is to end now.
    pub fn cut_off(&self) {
        self.stopping.cancel();
        self.cut.cancel();
    }

    /// Waits until every task but the last ones has ended, for at most `deadline`. Says whether they have.
    pub async fn wait(&self, deadline: Duration) -> bool {
        self.tracker.close();
        tokio::time::timeout(deadline, self.tracker.wait()).await.is_ok()
    }

    /// Waits until the last tasks have ended, for at most `deadline`.
    pub async fn wait_for_last(&self, deadline: Duration) -> bool {
        self.last.close();
        tokio::time::timeout(deadline, self.last.wait()).await.is_ok()
    }
}

/// Notices that a service ended, by returning or by panicking, while it was still wanted.
struct CrashGuard<'a> {
    name: &'static str,
    tasks: &'a Tasks,
}

impl Drop for CrashGuard<'_> {
    fn drop(&mut self) {
        if !self.tasks.is_stopping() {
            let _ = self.tasks.crashed.try_send(self.name);
        }
    }
}

/// Where crashes are learned of.
pub struct Crashes(mpsc::Receiver<&'static str>);

/// Why the broker is to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// A signal, or a request by command.
    Asked,
    /// A service ended that should not have.
    Crashed(&'static str),
}

impl Crashes {
    /// Waits for a service to end that should not have.
    pub async fn next(&mut self) -> &'static str {
        match self.0.recv().await {
            Some(name) => name,
            None => std::future::pending().await,
        }
    }
}

/// SIGINT and SIGTERM.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Starts listening; from here on the signals do not end the process by themselves.
    ///
    /// # Errors
    ///
    /// When the operating system refuses.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for the next one.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_service_that_ends_unasked_is_a_crash() {
        let (tasks, mut crashes) = Tasks::new();
        tasks.spawn_service("poller", async {});
        assert_eq!(crashes.next().await, "poller");
    }

    #[tokio::test]
    async fn a_service_that_ends_when_asked_is_not() {
        let (tasks, mut crashes) = Tasks::new();
        let inner = tasks.clone();
        tasks.spawn_service("poller", async move { inner.stopping().await });
        tasks.stop();
        assert!(tasks.wait(Duration::from_secs(10)).await);
        assert!(crashes.0.try_recv().is_err());
    }
}
