//! Events that are brought on one thread at the same time, to be committed together.
//!
//! Most of what a commit costs is the same for one event as for ten. A thread that serves many calls at once has often read
//! what several of them wait for before it goes on with any: who is first to bring an event lets the others have their turn,
//! and commits what they have brought as well. Where there are no others nobody waits.

use std::{
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::oneshot;

use crate::store::audit::Event;

/// Threads that share a place wait for each other as calls on one thread do.
const PLACES: usize = 16;

thread_local! {
    static PLACE: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed) % PLACES
    };
}

#[derive(Default)]
pub(super) struct Gathered {
    places: [Place; PLACES],
}

type Place = Mutex<Brought>;

/// The first of them is told nothing: whoever has brought it commits them all.
type Brought = Vec<(Arc<Event>, Option<oneshot::Sender<bool>>)>;

impl Gathered {
    /// Has `commit` commit an event, with others. It says how many it has committed, from the first on; this says whether that
    /// one is among them. If who commits them is cut off, none is committed.
    pub(super) async fn bring(&self, event: &Arc<Event>, commit: impl FnOnce(&[Arc<Event>]) -> usize) -> bool {
        let place = &self.places[PLACE.with(|place| *place)];
        let outcome = {
            let mut events = lock(place);
            let (tell, outcome) = if events.is_empty() { None } else { Some(oneshot::channel()) }.unzip();
            events.push((event.clone(), tell));
            outcome
        };
        if let Some(outcome) = outcome {
            return outcome.await.unwrap_or_default();
        }
        let first = First { place };
        tokio::task::yield_now().await;
        let (events, tell): (Vec<_>, Vec<_>) = first.take().into_iter().unzip();
        let committed = commit(&events);
        for (number, tell) in tell.into_iter().enumerate() {
            if let Some(tell) = tell {
                let _ = tell.send(number < committed);
            }
        }
        committed > 0
    }
}

fn lock(place: &Place) -> MutexGuard<'_, Brought> {
    place.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Who was first at a place. When it is cut off, the others hear that nothing was committed.
struct First<'p> {
    place: &'p Place,
}

impl First<'_> {
    fn take(self) -> Brought {
        let events = mem::take(&mut *lock(self.place));
        mem::forget(self);
        events
    }
}

impl Drop for First<'_> {
    fn drop(&mut self) {
        lock(self.place).clear();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;
    use crate::store::audit::Opened;

    fn event() -> Arc<Event> {
        Arc::new(Event::Opened(Opened::example()))
    }

    #[tokio::test]
    async fn what_is_brought_at_the_same_time_is_committed_together() {
        let gathered = Gathered::default();
        let commits = Mutex::new(Vec::new());
        let commit = |events: &[Arc<Event>]| {
            commits.lock().unwrap().push(events.len());
            // All but the last, if there are several.
            events.len().max(2) - 1
        };
        let events: Vec<_> = (0..4).map(|_| event()).collect();
        let outcomes = join_all(events.iter().map(|event| gathered.bring(event, commit))).await;
        assert_eq!(outcomes, [true, true, true, false]);
        assert!(gathered.bring(&event(), commit).await);
        assert_eq!(*commits.lock().unwrap(), [4, 1]);
    }

    #[tokio::test]
    async fn nobody_waits_for_one_that_was_cut_off() {
        let gathered = Gathered::default();
        let event = event();
        let mut first = Box::pin(gathered.bring(&event, |_| unreachable!("it is cut off")));
        assert!(futures_util::poll!(&mut first).is_pending());
        let mut second = Box::pin(gathered.bring(&event, |_| unreachable!("it is not the first")));
        assert!(futures_util::poll!(&mut second).is_pending());
        drop(first);
        assert!(!second.await);
        assert!(gathered.bring(&event, <[Arc<Event>]>::len).await);
    }
}
