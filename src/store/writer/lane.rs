//! Whose turn it is to write.

use std::time::Duration;

use tokio::{
    sync::{Mutex, MutexGuard, Notify, watch},
    time::Instant,
};

use crate::store::audit::{Chain, Direct, Event};

/// Events that are committed between two turns of the writing task, at most: it copies the write-ahead log into the database,
/// and arranges what has piled up.
const BETWEEN_TURNS: u32 = 1024;

/// A commit that takes longer waited for the disk. It held up whatever else its thread has to do.
const SLOW: Duration = Duration::from_millis(5);

/// How long nothing is committed on callers' threads after that.
const CAREFUL: Duration = Duration::from_secs(10);

pub(super) struct Lane {
    state: Mutex<State>,
    /// Told when an event is the first that is to be arranged.
    appended: Notify,
    /// Changes when audit events are committed.
    committed: watch::Sender<()>,
}

struct State {
    chain: Chain,
    /// None if commits wait for the disk, and when the database is closed.
    direct: Option<Direct>,
    /// Events that were committed on callers' threads since the last turn.
    between: u32,
    /// When the last of those was.
    last: Option<Instant>,
    careful_until: Option<Instant>,
}

impl Lane {
    pub(super) fn new(chain: Chain, direct: Option<Direct>) -> Self {
        let (committed, _) = watch::channel(());
        let state = State { chain, direct, between: 0, last: None, careful_until: None };
        Self { state: Mutex::new(state), appended: Notify::new(), committed }
    }

    /// Commits an event on this thread if that takes no waiting, and says whether it did. If not, it is not in the log.
    pub(super) fn append(&self, event: &Event) -> bool {
        let Ok(mut state) = self.state.try_lock() else { return false };
        let State { chain, direct: Some(direct), between, last, careful_until } = &mut *state else { return false };
        let begun = Instant::now();
        if *between >= BETWEEN_TURNS || careful_until.is_some_and(|until| begun < until) {
            return false;
        }
        let was_arranged = chain.behind() == 0;
        let outcome = direct.append(chain, event);
        let ended = Instant::now();
        if ended - begun > SLOW {
            *careful_until = Some(ended + CAREFUL);
        }
        if let Err(error) = outcome {
            // The writing task tries it again, and says why it fails.
            tracing::debug!(%error, "an event was not committed at once");
            return false;
        }
        *between += 1;
        *last = Some(ended);
        drop(state);
        if was_arranged {
            self.appended.notify_one();
        }
        self.tell();
        true
    }

    /// Waits until there is something to arrange.
    pub(super) async fn appended(&self) {
        self.appended.notified().await;
    }

    /// Waits for the writing task's turn.
    pub(super) async fn turn(&self) -> Turn<'_> {
        let mut state = self.state.lock().await;
        state.between = 0;
        Turn { state }
    }

    /// Tells who waits for events that some were committed.
    pub(super) fn tell(&self) {
        self.committed.send_replace(());
    }

    pub(super) fn commits(&self) -> watch::Receiver<()> {
        self.committed.subscribe()
    }
}

/// While it lasts, nobody else writes.
pub(super) struct Turn<'l> {
    state: MutexGuard<'l, State>,
}

impl Turn<'_> {
    pub(super) fn chain(&mut self) -> &mut Chain {
        &mut self.state.chain
    }

    /// How long ago the last event was committed on a caller's thread.
    pub(super) fn quiet_for(&self) -> Duration {
        self.state.last.map_or(Duration::MAX, |last| last.elapsed())
    }

    /// Nothing is written on callers' threads any more, and their connection is closed.
    pub(super) fn close(&mut self) {
        self.state.direct = None;
    }
}
