//! Which connections are awake, and which of them nobody uses.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use crate::ids::{Principal, SessionId};

/// Who a connection is for.
#[derive(Clone)]
pub(super) struct Owner {
    pub(super) session: SessionId,
    pub(super) principal: Principal,
}

struct Known {
    owner: Option<Owner>,
    /// Requests that are being answered, and open streams.
    uses: usize,
    used: Instant,
    /// rmcp holds it. One that is asleep is known while a request to it is looked at.
    awake: bool,
    /// Its client has come back to it, so that what it was opened with is in the database.
    kept: bool,
    /// Its place among those that nobody uses.
    idle: Option<u64>,
}

#[derive(Default)]
struct Book {
    known: HashMap<Arc<str>, Known>,
    /// Connections that are awake and that nobody uses, the longest unused first.
    idle: BTreeMap<u64, Arc<str>>,
    turns: u64,
    /// Connections that were put to sleep and whose end rmcp has still to report, with how often. A report that came after
    /// the client's next request would close what that one woke.
    ends_to_come: HashMap<Arc<str>, usize>,
}

/// Every connection that is awake.
#[derive(Clone)]
pub(super) struct Awake {
    book: Arc<Mutex<Book>>,
    idle_max: usize,
    /// More are idle than may be.
    crowded: Arc<Notify>,
}

/// A request or an open stream. Its connection is not put to sleep.
pub(in crate::http) struct Use {
    id: Arc<str>,
    awake: Awake,
}

impl Awake {
    pub(super) fn new(idle_max: usize) -> Self {
        Self { book: Arc::default(), idle_max, crowded: Arc::default() }
    }

    /// Notes a request to a connection, or a stream.
    pub(super) fn enter(&self, id: &Arc<str>) -> Use {
        let mut book = self.lock();
        let book = &mut *book;
        let known = book.known.entry(id.clone()).or_insert_with(|| Known::new(false));
        known.uses += 1;
        if let Some(turn) = known.idle.take() {
            book.idle.remove(&turn);
        }
        Use { id: id.clone(), awake: self.clone() }
    }

    /// rmcp holds this connection from now on.
    pub(super) fn woke(&self, id: Arc<str>) {
        self.lock().known.entry(id).or_insert_with(|| Known::new(true)).awake = true;
    }

    /// rmcp holds it no more.
    pub(super) fn ended(&self, id: &str) {
        let mut book = self.lock();
        let Some(known) = book.known.get_mut(id) else { return };
        known.awake = false;
        if known.uses == 0 {
            book.forget(id);
        }
    }

    pub(super) fn owner(&self, id: &str) -> Option<Owner> {
        self.lock().known.get(id).and_then(|known| known.owner.clone())
    }

    /// Notes whose a connection is, as the database says.
    pub(super) fn is_for(&self, id: &str, owner: Owner) {
        if let Some(known) = self.lock().known.get_mut(id) {
            known.owner = Some(owner);
            known.kept = true;
        }
    }

    /// Waits until more connections are idle than may be.
    pub(super) async fn crowded(&self) {
        self.crowded.notified().await;
    }

    /// Takes out who is to be put to sleep: who was not used for `idle_for`, and the longest unused of too many. Whoever
    /// has the answer ends them, before a request can find that they are gone.
    pub(super) fn take_sleepers(&self, idle_for: Duration) -> Vec<Arc<str>> {
        let mut book = self.lock();
        let mut sleepers = Vec::new();
        while let Some(id) = book.idle.first_key_value().map(|(_, id)| id.clone()) {
            let long = book.known.get(&id).is_none_or(|known| known.used.elapsed() > idle_for);
            if !long && book.idle.len() <= self.idle_max {
                break;
            }
            book.forget(&id);
            *book.ends_to_come.entry(id.clone()).or_default() += 1;
            sleepers.push(id);
        }
        sleepers
    }

    /// Whether this is rmcp's report that a connection that was put to sleep has ended.
    pub(super) fn is_end_of_sleeper(&self, id: &str) -> bool {
        let mut book = self.lock();
        let Some(left) = book.ends_to_come.get_mut(id) else { return false };
        *left -= 1;
        if *left == 0 {
            book.ends_to_come.remove(id);
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn new(awake: bool) -> Self {
        Self { owner: None, uses: 0, used: Instant::now(), awake, kept: false, idle: None }
    }
}

impl Book {
    fn forget(&mut self, id: &str) {
        if let Some(turn) = self.known.remove(id).and_then(|known| known.idle) {
            self.idle.remove(&turn);
        }
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        let mut book = self.awake.lock();
        let book = &mut *book;
        let Some(known) = book.known.get_mut(&self.id) else { return };
        known.uses = known.uses.saturating_sub(1);
        known.used = Instant::now();
        if known.uses > 0 {
            return;
        }
        if !known.awake {
            book.forget(&self.id);
        } else if known.kept {
            book.turns += 1;
            known.idle = Some(book.turns);
            book.idle.insert(book.turns, self.id.clone());
            if book.idle.len() > self.awake.idle_max {
                self.awake.crowded.notify_one();
            }
        }
    }
}
