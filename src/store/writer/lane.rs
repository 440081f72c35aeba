//! Whose turn it is to write.

mod gathered;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Mutex, MutexGuard, Notify, watch},
    time::Instant,
};

use self::gathered::Gathered;
use crate::store::audit::{Chain, Direct, EVENTS_MAX, Event};

/// Events that are committed on callers' threads, at most, before the writing task commits one: that is when the write-ahead
/// log is copied into the database, if it has grown enough.
const DIRECT_MAX: u32 = 1024;

/// Records that are open, from which on events are committed together: a call, one that it makes, and another.
const SHARED_MIN: usize = 3;

/// A commit that takes longer waited for the disk. It held up whatever else its thread has to do.
const SLOW: Duration = Duration::from_millis(5);

/// How long nothing is committed on callers' threads after that, at first: one may have waited for a processor only.
const CAREFUL_MIN: Duration = Duration::from_millis(100);

/// How long it gets. Each time is twice the one before, until none has waited for this long.
const CAREFUL_MAX: Duration = Duration::from_secs(10);

pub(super) struct Lane {
    state: Mutex<State>,
    gathered: Gathered,
    /// Records that are open.
    open: AtomicUsize,
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
        Self {
            state: Mutex::new(state),
            gathered: Gathered::default(),
            open: AtomicUsize::new(0),
            appended: Notify::new(),
            committed,
        }
    }

    /// Commits an event on this thread if that takes no waiting for others that write, and says whether it did. If not, it is
    /// not in the log. While calls are under way, what else on the thread is about to bring an event does so first, and they
    /// share a commit.
    pub(super) async fn append(&self, event: &Arc<Event>) -> bool {
        if self.open.load(Ordering::Relaxed) < SHARED_MIN {
            return self.commit(std::slice::from_ref(event)) > 0;
        }
        self.gathered.bring(event, |events| self.commit(events)).await
    }

    /// An event was committed, here or by the writing task.
    pub(super) fn is_in_the_log(&self, event: &Event) {
        let _ = self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| match event {
            Event::Opened(_) => Some(open + 1),
            // A broker closes those of an earlier one too.
            Event::Closed(_) => open.checked_sub(1),
        });
    }

    /// How many of these events are committed, from the first on.
    fn commit(&self, events: &[Arc<Event>]) -> usize {
        let Ok(mut state) = self.state.try_lock() else { return 0 };
        let was_arranged = state.chain.behind() == 0;
        let mut committed = 0;
        for some in events.chunks(EVENTS_MAX) {
            if !state.commit(some) {
                break;
            }
            committed += some.len();
        }
        drop(state);
        if committed > 0 {
            if was_arranged {
                self.appended.notify_one();
            }
            self.tell();
        }
        committed
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
    /// Commits events if that takes no waiting, and says whether it did.
    fn commit(&mut self, events: &[Arc<Event>]) -> bool {
        let begun = Instant::now();
        if self.in_a_row >= DIRECT_MAX || self.careful_until.is_some_and(|until| begun < until) {
            return false;
        }
        let Some(direct) = &mut self.direct else { return false };
        let outcome = direct.append(&mut self.chain, events);
        let ended = Instant::now();
        self.took(begun, ended);
        if let Err(error) = outcome {
            // The writing task tries it again, and says why it fails.
            tracing::debug!(%error, "events were not committed at once");
            return false;
        }
        self.in_a_row += events.len() as u32;
        self.last = Some(ended);
        true
    }

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

    use jiff::Timestamp;
    use sqlx::{ConnectOptions as _, sqlite::SqliteConnectOptions};

    use super::*;
    use crate::{
        ids::CallId,
        lifecycle::Tasks,
        store::{
            Durability, Store,
            audit::{Closed, Opened, Verification},
        },
    };

    fn event() -> Arc<Event> {
        Arc::new(Event::Opened(Opened::example()))
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
            assert!(lane.append(&event()).await);
            // A turn in which nothing is committed.
            drop(lane.turn().await);
        }
        lane.state.lock().await.careful_until = None;
        assert!(!lane.append(&event()).await);
        lane.turn().await.will_commit();
        assert!(lane.append(&event()).await);
        lane.turn().await.close();
        assert!(!lane.append(&event()).await);
    }

    #[tokio::test]
    async fn events_that_share_a_commit_are_all_in_the_log_or_none_is() {
        let folder = tempfile::tempdir().unwrap();
        let lane = lane(folder.path()).await;
        let known = event();
        for (events, committed) in [
            (vec![event(), known.clone(), event()], 3),
            // A record is opened once.
            (vec![event(), known], 0),
            (vec![event(), event()], 2),
        ] {
            lane.state.lock().await.careful_until = None;
            assert_eq!(lane.commit(&events), committed);
        }
        drop(lane);
        let (tasks, _crashes) = Tasks::new();
        let store = Store::open(folder.path(), Durability::Process, &tasks).await.unwrap();
        let found = store.verify_audit(None).await.unwrap();
        assert!(matches!(found, Verification::Intact { events: 5, last: 5, .. }), "{found:?}");
        store.close().await;
    }

    #[tokio::test]
    async fn who_is_alone_waits_for_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let lane = lane(folder.path()).await;
        let opened = event();
        let closed = Event::Closed(Closed {
            record: CallId::new(),
            at: Timestamp::UNIX_EPOCH,
            duration_micros: 0,
            status: "success".into(),
            error: None,
            result: None,
            result_bytes: 0,
            result_hash: None,
        });
        for is_alone in [true, true, true, false] {
            assert_eq!(futures_util::poll!(std::pin::pin!(lane.append(&opened))).is_ready(), is_alone);
            lane.is_in_the_log(&opened);
        }
        for _ in 0..3 {
            lane.is_in_the_log(&closed);
        }
        assert!(futures_util::poll!(std::pin::pin!(lane.append(&opened))).is_ready());
    }

    #[tokio::test]
    async fn after_a_commit_that_waited_for_the_disk_none_is_made_here_for_a_while() {
        let folder = tempfile::tempdir().unwrap();
        let lane = lane(folder.path()).await;
        let now = Instant::now();
        lane.state.lock().await.took(now, now + SLOW);
        assert_eq!(lane.state.lock().await.careful_until, None);
        lane.state.lock().await.took(now, now + SLOW * 2);
        assert!(!lane.append(&event()).await);
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
