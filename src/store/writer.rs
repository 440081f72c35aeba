//! Everything that writes, one at a time.
//!
//! An audit event is committed on the thread of whoever brings it, where nobody else writes, together with others that are
//! brought there at the same time. Everything else is a job: a task takes them in order from a bounded queue. Audit events
//! that queued up while the last commit was under way share the next ones, up to so many each; every other change is a
//! transaction of its own. The caller is told only after the commit, so what was acknowledged survives the process.
//!
//! Behind all that it arranges the log for questions: when nothing was queued for a moment, when a question is asked, and
//! a little after every commit when much has piled up.
//!
//! Dropping a caller's future does not take its job back: it runs, and nobody hears of it.

mod lane;

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use futures_util::{FutureExt as _, future::BoxFuture};
use sqlx::{Connection as _, Sqlite, SqliteConnection, query::Query, sqlite::SqliteArguments};
use tokio::sync::{mpsc, oneshot, watch};

use self::lane::Lane;
use super::{
    StoreError,
    audit::{Chain, Direct, EVENTS_MAX, Event},
    transaction,
};
use crate::lifecycle::Tasks;

/// Jobs that may wait; a caller beyond that waits to be queued.
const QUEUE_MAX: usize = 1024;

/// Jobs that are taken from the queue at once.
const BATCH_MAX: usize = 512;

/// How long nothing is queued before events are arranged: longer than most calls take between their two events.
const QUIET: Duration = Duration::from_millis(50);

/// Events that may pile up before some are arranged under load too.
const BEHIND_MAX: i64 = 65_536;

/// Events that are arranged in one transaction: a commit that queues up meanwhile waits for about as long as ten do.
const ARRANGED: i64 = 256;

/// The same under load. Most of what it costs is pages of a dozen indexes, about as many for few events as for many.
const ARRANGED_UNDER_LOAD: i64 = 4096;

/// A statement with its values.
pub(super) type Statement = Query<'static, Sqlite, SqliteArguments>;

type Acknowledge = oneshot::Sender<Result<(), StoreError>>;

/// A change other than an audit event. It runs inside a transaction that is committed if it succeeds.
type Change = Box<dyn for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<(), StoreError>> + Send>;

enum Job {
    Event(Arc<Event>, Acknowledge),
    Change(Change, Acknowledge),
    /// Acknowledged when every event before it is arranged.
    Arrange(Acknowledge),
    Close,
}

/// The way to write.
#[derive(Clone)]
pub struct Writer {
    jobs: mpsc::Sender<Job>,
    lane: Arc<Lane>,
}

impl Writer {
    pub(super) async fn start(
        mut connection: SqliteConnection,
        direct: Option<Direct>,
        tasks: &Tasks,
    ) -> Result<Self, sqlx::Error> {
        let chain = Chain::load(&mut connection).await?;
        let (jobs, queue) = mpsc::channel(QUEUE_MAX);
        let lane = Arc::new(Lane::new(chain, direct));
        let work = Work { connection, lane: lane.clone(), asked: Vec::new() };
        tasks.spawn_last("store.writer", work.run(queue));
        Ok(Self { jobs, lane })
    }

    /// Commits an audit event.
    ///
    /// # Errors
    ///
    /// When it could not be committed: then it is not in the log.
    pub(super) async fn append(&self, event: Event) -> Result<(), StoreError> {
        let event = Arc::new(event);
        // What is queued was there first.
        if self.jobs.capacity() < QUEUE_MAX || !self.lane.append(&event).await {
            let (acknowledge, outcome) = oneshot::channel();
            self.jobs.send(Job::Event(event.clone(), acknowledge)).await.map_err(|_| StoreError::Closed)?;
            outcome.await.map_err(|_| StoreError::Closed)??;
        }
        self.lane.is_in_the_log(&event);
        Ok(())
    }

    /// Runs `change` in a transaction and commits it.
    ///
    /// # Errors
    ///
    /// When it fails or cannot be committed: then nothing of it has happened.
    pub(super) async fn change<F>(&self, change: F) -> Result<(), StoreError>
    where
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<(), StoreError>> + Send + 'static,
    {
        let (acknowledge, outcome) = oneshot::channel();
        self.jobs.send(Job::Change(Box::new(change), acknowledge)).await.map_err(|_| StoreError::Closed)?;
        outcome.await.map_err(|_| StoreError::Closed)?
    }
}

impl Writer {
    /// Runs one statement and commits it.
    ///
    /// # Errors
    ///
    /// When it fails or cannot be committed: then nothing of it has happened.
    pub(super) async fn execute(&self, statement: Statement) -> Result<(), StoreError> {
        self.change(move |connection| {
            async move {
                statement.execute(connection).await?;
                Ok(())
            }
            .boxed()
        })
        .await
    }

    /// Runs one statement and commits it. Says whether it changed a row.
    ///
    /// # Errors
    ///
    /// When it fails or cannot be committed: then nothing of it has happened.
    pub(super) async fn changes_a_row(&self, statement: Statement) -> Result<bool, StoreError> {
        let (told, changed) = oneshot::channel();
        self.change(move |connection| {
            async move {
                let done = statement.execute(connection).await?;
                let _ = told.send(done.rows_affected() > 0);
                Ok(())
            }
            .boxed()
        })
        .await?;
        Ok(changed.await.unwrap_or(false))
    }

    /// Changes when audit events are committed.
    pub(super) fn commits(&self) -> watch::Receiver<()> {
        self.lane.commits()
    }

    /// Has every event that was committed before arranged for questions.
    ///
    /// # Errors
    ///
    /// When the database cannot be written.
    pub(super) async fn arrange(&self) -> Result<(), StoreError> {
        let (acknowledge, outcome) = oneshot::channel();
        self.jobs.send(Job::Arrange(acknowledge)).await.map_err(|_| StoreError::Closed)?;
        outcome.await.map_err(|_| StoreError::Closed)?
    }

    /// Has the task finish what is queued and close the database. Later jobs fail.
    pub(super) async fn close(&self) {
        let _ = self.jobs.send(Job::Close).await;
        self.jobs.closed().await;
    }
}

struct Work {
    connection: SqliteConnection,
    lane: Arc<Lane>,
    /// Who waits for events to be arranged, each up to which.
    asked: Vec<(i64, Acknowledge)>,
}

impl Work {
    async fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let lane = self.lane.clone();
        let mut jobs = Vec::with_capacity(BATCH_MAX);
        // Whether there are events to arrange, as far as this task has heard.
        let mut behind = true;
        loop {
            let quiet = if self.asked.is_empty() { QUIET } else { Duration::ZERO };
            let rested = tokio::select! {
                biased;
                received = queue.recv_many(&mut jobs, BATCH_MAX) => {
                    if received == 0 { break }
                    false
                }
                () = tokio::time::sleep(quiet), if behind => true,
                () = lane.appended(), if !behind => {
                    behind = true;
                    continue;
                }
            };
            let mut turn = lane.turn().await;
            if !jobs.is_empty() {
                turn.will_commit();
            }
            let many = jobs.len() > 1;
            if self.run_jobs(turn.chain(), &mut jobs).await.is_break() {
                turn.close();
                break;
            }
            if many {
                // Who was told gets to queue what comes next, so that it shares a commit again.
                tokio::task::yield_now().await;
            }
            if turn.chain().behind() > BEHIND_MAX {
                self.arrange(turn.chain(), ARRANGED_UNDER_LOAD).await;
            } else if (rested && turn.quiet_for() >= quiet) || !self.asked.is_empty() {
                self.arrange(turn.chain(), ARRANGED).await;
            }
            behind = turn.chain().behind() > 0;
        }
        queue.close();
        if let Err(error) = self.connection.close().await {
            tracing::warn!(%error, "the database did not close cleanly");
        }
    }

    async fn run_jobs(&mut self, chain: &mut Chain, jobs: &mut Vec<Job>) -> ControlFlow<()> {
        let mut waiting = jobs.drain(..).peekable();
        while let Some(job) = waiting.next() {
            match job {
                Job::Close => return ControlFlow::Break(()),
                Job::Arrange(acknowledge) => self.asked.push((chain.end(), acknowledge)),
                Job::Change(change, acknowledge) => {
                    let outcome = run_change(&mut self.connection, change).await;
                    let _ = acknowledge.send(outcome);
                }
                Job::Event(event, acknowledge) => {
                    let mut events = vec![event];
                    let mut acknowledges = vec![acknowledge];
                    while events.len() < EVENTS_MAX
                        && let Some(Job::Event(event, acknowledge)) =
                            waiting.next_if(|next| matches!(next, Job::Event(..)))
                    {
                        events.push(event);
                        acknowledges.push(acknowledge);
                    }
                    let outcome = chain.append(&mut self.connection, &events).await.map_err(StoreError::from);
                    for acknowledge in acknowledges {
                        let _ = acknowledge.send(outcome.clone());
                    }
                    self.lane.tell();
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// Arranges some events, and tells who waited for no more than those.
    async fn arrange(&mut self, chain: &mut Chain, events_max: i64) {
        if chain.behind() > 0
            && let Err(error) = chain.arrange(&mut self.connection, events_max).await
        {
            tracing::debug!(%error, "events were not arranged for questions");
            let error = StoreError::from(error);
            for (_, acknowledge) in self.asked.drain(..) {
                let _ = acknowledge.send(Err(error.clone()));
            }
            return;
        }
        let arranged = chain.arranged();
        for (_, acknowledge) in self.asked.extract_if(.., |(end, _)| *end <= arranged) {
            let _ = acknowledge.send(Ok(()));
        }
    }
}

async fn run_change(connection: &mut SqliteConnection, change: Change) -> Result<(), StoreError> {
    transaction::begin(connection).await?;
    let outcome = change(connection).await;
    transaction::end(connection, outcome).await
}

#[cfg(test)]
mod tests {
    use sqlx::{ConnectOptions as _, Row as _, sqlite::SqliteConnectOptions};

    use super::*;
    use crate::store::{
        Durability, Store,
        audit::{Opened, Verification},
    };

    fn event() -> Event {
        Event::Opened(Opened::example())
    }

    async fn assert_whole(store: &Store, expected: u64) {
        let found = store.verify_audit(None).await.unwrap();
        assert!(matches!(found, Verification::Intact { events, .. } if events == expected), "{found:?}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn events_are_one_chain_whoever_commits_them() {
        let folder = tempfile::tempdir().unwrap();
        let (tasks, _crashes) = Tasks::new();
        let store = Store::open(folder.path(), Durability::Process, &tasks).await.unwrap();
        let mut callers = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let store = store.clone();
            callers.spawn(async move {
                for _ in 0..300 {
                    store.append_audit(event()).await.unwrap();
                }
            });
        }
        callers.join_all().await;
        assert_whole(&store, 2400).await;
        store.close().await;
        assert!(matches!(store.append_audit(event()).await, Err(StoreError::Closed)));
    }

    #[tokio::test]
    async fn an_event_waits_for_another_program_that_writes() {
        let folder = tempfile::tempdir().unwrap();
        let (tasks, _crashes) = Tasks::new();
        let store = Store::open(folder.path(), Durability::Process, &tasks).await.unwrap();
        let path = folder.path().join("broker.sqlite");
        let mut other = SqliteConnectOptions::new().filename(path).connect().await.unwrap();
        transaction::begin(&mut other).await.unwrap();
        let appending = store.append_audit(event());
        tokio::pin!(appending);
        assert!(futures_util::poll!(&mut appending).is_pending());
        transaction::end(&mut other, Ok::<_, sqlx::Error>(())).await.unwrap();
        appending.await.unwrap();
        assert_whole(&store, 1).await;
        store.close().await;
    }

    #[tokio::test]
    async fn events_are_arranged_when_it_is_quiet() {
        let folder = tempfile::tempdir().unwrap();
        let (tasks, _crashes) = Tasks::new();
        let store = Store::open(folder.path(), Durability::Process, &tasks).await.unwrap();
        for expected in [1_i64, 2] {
            store.append_audit(event()).await.unwrap();
            let arranged = async || {
                let row = sqlx::query("SELECT seq FROM audit_arranged").fetch_one(store.readers()).await.unwrap();
                row.get::<i64, _>("seq")
            };
            let waiting = async {
                while arranged().await < expected {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(Duration::from_secs(30), waiting).await.unwrap();
        }
        store.close().await;
    }
}
