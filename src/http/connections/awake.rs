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
    /// What it was opened with is in the database.
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
        let mut book = self.lock();
        let Some(known) = book.known.get_mut(id) else { return };
        known.owner = Some(owner);
        known.kept = true;
        if known.awake && known.uses == 0 && known.idle.is_none() {
            self.rests(&mut book, id);
        }
    }

    /// Gives a connection that nobody uses its place among those.
    fn rests(&self, book: &mut Book, id: &str) {
        let Some((id, _)) = book.known.get_key_value(id) else { return };
        let (id, turn) = (id.clone(), book.turns + 1);
        book.turns = turn;
        book.known.entry(id.clone()).and_modify(|known| known.idle = Some(turn));
        book.idle.insert(turn, id);
        if book.idle.len() > self.idle_max {
            self.crowded.notify_one();
        }
    }

    /// Waits until more connections are idle than may be.
    pub(super) async fn crowded(&self) {
        self.crowded.notified().await;
    }

    /// Takes out who is to be put to sleep: who was not used for `idle_for`, and the longest unused of too many. Whoever
    /// has the answer takes them from rmcp too, before a request can find that they are gone, and ends them then.
    pub(super) fn take_sleepers(&self, idle_for: Duration) -> Vec<Arc<str>> {
        let mut book = self.lock();
        // Those that could not be kept cannot come back, so that they are given the whole time.
        let unkept = |known: &Known| known.awake && !known.kept && known.uses == 0 && known.used.elapsed() > idle_for;
        let unkept = book.known.iter().filter(|(_, known)| unkept(known));
        let mut sleepers: Vec<Arc<str>> = unkept.map(|(id, _)| id.clone()).collect();
        let mut crowd = book.idle.len();
        for id in book.idle.values() {
            let long = book.known.get(id).is_none_or(|known| known.used.elapsed() > idle_for);
            if !long && crowd <= self.idle_max {
                break;
            }
            crowd -= 1;
            sleepers.push(id.clone());
        }
        for id in &sleepers {
            book.forget(id);
            *book.ends_to_come.entry(id.clone()).or_default() += 1;
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
            self.awake.rests(book, &self.id);
        }
    }
}
