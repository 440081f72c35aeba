//! The one connection that writes.
//!
//! A task owns it and takes jobs in order from a bounded queue. Audit events that queued up while the last commit was
//! under way share the next one; a single event is committed at once, on its own. Every other change is a transaction of
//! its own. The caller is told only after the commit, so what was acknowledged survives the process.
//!
//! Dropping a caller's future does not take its job back: it runs, and nobody hears of it.

use futures_util::future::BoxFuture;
use sqlx::{Connection as _, SqliteConnection};
use tokio::sync::{mpsc, oneshot};

use super::{
    StoreError,
    audit::{Chain, Event},
};
use crate::lifecycle::Tasks;

/// Jobs that may wait; a caller beyond that waits to be queued.
const QUEUE_MAX: usize = 1024;

/// Events that share one commit at most.
const BATCH_MAX: usize = 500;

type Acknowledge = oneshot::Sender<Result<(), StoreError>>;

/// A change other than an audit event. It runs inside a transaction that is committed if it succeeds.
type Change = Box<dyn for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<(), StoreError>> + Send>;

enum Job {
    Event(Box<Event>, Acknowledge),
    Change(Change, Acknowledge),
    Close,
}

/// The way to the writing task.
#[derive(Clone)]
pub struct Writer {
    jobs: mpsc::Sender<Job>,
}

impl Writer {
    pub(super) async fn start(mut connection: SqliteConnection, tasks: &Tasks) -> Result<Self, sqlx::Error> {
        let chain = Chain::load(&mut connection).await?;
        let (jobs, queue) = mpsc::channel(QUEUE_MAX);
        tasks.spawn_last("store.writer", work(connection, chain, queue));
        Ok(Self { jobs })
    }

    /// Commits an audit event.
    ///
    /// # Errors
    ///
    /// When it could not be committed: then it is not in the log.
    pub(super) async fn append(&self, event: Event) -> Result<(), StoreError> {
        let (acknowledge, outcome) = oneshot::channel();
        self.jobs.send(Job::Event(Box::new(event), acknowledge)).await.map_err(|_| StoreError::Closed)?;
        outcome.await.map_err(|_| StoreError::Closed)?
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
    /// Has the task finish what is queued and close the database. Later jobs fail.
    pub(super) async fn close(&self) {
        let _ = self.jobs.send(Job::Close).await;
        self.jobs.closed().await;
    }
}

async fn work(mut connection: SqliteConnection, mut chain: Chain, mut queue: mpsc::Receiver<Job>) {
    let mut jobs = Vec::with_capacity(BATCH_MAX);
    'open: while queue.recv_many(&mut jobs, BATCH_MAX).await > 0 {
        let mut waiting = jobs.drain(..).peekable();
        while let Some(job) = waiting.next() {
            match job {
                Job::Close => break 'open,
                Job::Change(change, acknowledge) => {
                    let outcome = run_change(&mut connection, change).await;
                    let _ = acknowledge.send(outcome);
                }
                Job::Event(event, acknowledge) => {
                    let mut events = vec![*event];
                    let mut acknowledges = vec![acknowledge];
                    while let Some(Job::Event(event, acknowledge)) =
                        waiting.next_if(|next| matches!(next, Job::Event(..)))
                    {
                        events.push(*event);
                        acknowledges.push(acknowledge);
                    }
                    let outcome = chain.append(&mut connection, &events).await.map_err(StoreError::from);
                    for acknowledge in acknowledges {
                        let _ = acknowledge.send(outcome.clone());
                    }
                }
            }
        }
    }
    queue.close();
    if let Err(error) = connection.close().await {
        tracing::warn!(%error, "the database did not close cleanly");
    }
}

async fn run_change(connection: &mut SqliteConnection, change: Change) -> Result<(), StoreError> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    change(&mut transaction).await?;
    transaction.commit().await?;
    Ok(())
}
