//! Whose turn it is to write.

use std::time::Duration;

use tokio::{
    sync::{Mutex, MutexGuard, Notify, watch},
    time::Instant,
};

use crate::store::audit::{Chain, Direct, Event};

/// Events that are committed on callers' threads, at most, before the writing task commits one: that is when the write-ahead
/// log is copied into the database, if it has grown enough.
const DIRECT_MAX: u32 = 1024;

/// A commit that takes longer waited for the disk. It held up whatever else its thread has to do.
const SLOW: Duration = Duration::from_millis(5);

/// How long nothing is committed on callers' threads after that, at first: one may have waited for a processor only.
const CAREFUL_MIN: Duration = Duration::from_millis(100);

/// How long it gets. Each time is twice the one before, until none has waited for this long.
const CAREFUL_MAX: Duration = Duration::from_secs(10);

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
    /// Events that were committed on callers' threads since the writing task had something to commit.
    in_a_row: u32,
    /// When the last of those was.
    last: Option<Instant>,
    careful_until: Option<Instant>,
    /// How long it was the last time.
    careful: Duration,
}

impl Lane {
    pub(super) fn new(chain: Chain, direct: Option<Direct>) -> Self {
        let (committed, _) = watch::channel(());
        let state = State { chain, direct, in_a_row: 0, last: None, careful_until: None, careful: Duration::ZERO };
        Self { state: Mutex::new(state), appended: Notify::new(), committed }
    }

    /// Commits an event on this thread if that takes no waiting, and says whether it did. If not, it is not in the log.
    pub(super) fn append(&self, event: &Event) -> bool {
        let Ok(mut state) = self.state.try_lock() else { return false };
        let begun = Instant::now();
        if state.in_a_row >= DIRECT_MAX || state.careful_until.is_some_and(|until| begun < until) {
            return false;
        }
        let State { chain, direct: Some(direct), .. } = &mut *state else { return false };
        let was_arranged = chain.behind() == 0;
        let outcome = direct.append(chain, event);
        let ended = Instant::now();
        state.took(begun, ended);
        if let Err(error) = outcome {
            // The writing task tries it again, and says why it fails.
            tracing::debug!(%error, "an event was not committed at once");
            return false;
        }
        state.in_a_row += 1;
        state.last = Some(ended);
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
        Turn { state: self.state.lock().await }
    }

    /// Tells who waits for events that some were committed.
    pub(super) fn tell(&self) {
        self.committed.send_replace(());
    }

    pub(super) fn commits(&self) -> watch::Receiver<()> {
        self.committed.subscribe()
    }
}

impl State {
    /// A commit on a caller's thread was tried.
    fn took(&mut self, begun: Instant, ended: Instant) {
        if ended - begun > SLOW {
            let lately = self.careful_until.is_some_and(|until| begun.duration_since(until) < CAREFUL_MAX);
            self.careful = if lately { (self.careful * 2).min(CAREFUL_MAX) } else { CAREFUL_MIN };
            self.careful_until = Some(ended + self.careful);
        }
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

    /// The writing task is about to commit something.
    pub(super) fn will_commit(&mut self) {
        self.state.in_a_row = 0;
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use sqlx::{ConnectOptions as _, sqlite::SqliteConnectOptions};

    use super::*;
    use crate::{
        lifecycle::Tasks,
        store::{Durability, Store, audit::Opened},
    };

    fn event() -> Event {
        Event::Opened(Opened::example())
    }

    async fn lane(folder: &Path) -> Lane {
        let (tasks, _crashes) = Tasks::new();
        Store::open(folder, Durability::Process, &tasks).await.unwrap().close().await;
        let path = folder.join("broker.sqlite");
        let mut connection = SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
        let chain = Chain::load(&mut connection).await.unwrap();
        Lane::new(chain, Some(Direct::open(&path).unwrap()))
    }

    #[tokio::test]
    async fn the_writing_task_gets_an_event_to_commit_now_and_then() {
        let folder = tempfile::tempdir().unwrap();
        let lane = lane(folder.path()).await;
        for _ in 0..DIRECT_MAX {
            // The disk of whoever runs this may be slow.
            lane.state.lock().await.careful_until = None;
            assert!(lane.append(&event()));
            // A turn in which nothing is committed.
            drop(lane.turn().await);
        }
        lane.state.lock().await.careful_until = None;
        assert!(!lane.append(&event()));
        lane.turn().await.will_commit();
        assert!(lane.append(&event()));
        lane.turn().await.close();
        assert!(!lane.append(&event()));
    }

    #[tokio::test]
    async fn after_a_commit_that_waited_for_the_disk_none_is_made_here_for_a_while() {
        let folder = tempfile::tempdir().unwrap();
        let lane = lane(folder.path()).await;
        let now = Instant::now();
        lane.state.lock().await.took(now, now + SLOW);
        assert_eq!(lane.state.lock().await.careful_until, None);
        lane.state.lock().await.took(now, now + SLOW * 2);
        assert!(!lane.append(&event()));
    }

    #[tokio::test]
    async fn who_waits_for_the_disk_again_is_careful_for_longer() {
        let folder = tempfile::tempdir().unwrap();
        let lane = lane(folder.path()).await;
        let mut state = lane.state.lock().await;
        // As soon as it is not careful any more, and `later` than that.
        let mut slow = |later: Duration| {
            let begun = state.careful_until.unwrap_or_else(Instant::now) + later;
            state.took(begun, begun + SLOW * 2);
            state.careful_until.unwrap() - (begun + SLOW * 2)
        };
        assert_eq!([(); 3].map(|()| slow(Duration::ZERO)), [1, 2, 4].map(|times| CAREFUL_MIN * times));
        for _ in 0..10 {
            slow(Duration::ZERO);
        }
        assert_eq!(slow(Duration::ZERO), CAREFUL_MAX);
        assert_eq!(slow(CAREFUL_MAX), CAREFUL_MIN);
    }
}
