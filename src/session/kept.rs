//! Results that were too long to be answered with, kept for a while so that they can be read page by page.
//!
//! A session's own, in memory, and gone with it: whoever made a result can make it again. How many there are, how long they
//! stay and how much memory those of all sessions take together is bounded.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use data_encoding::BASE32_DNSSEC;

use super::Session;
use crate::{clock::Timestamp, ids::random};

/// Of one session; the oldest goes when there is one more.
pub const RESULTS_MAX: usize = 8;
pub const KEPT_FOR: Duration = Duration::from_secs(15 * 60);
/// Of all sessions together.
const BYTES_MAX: usize = 64 << 20;

/// The memory that there is for results of all sessions. Clones share it.
#[derive(Clone, Default)]
pub struct Room(Arc<AtomicUsize>);

/// Room that is taken, until this is dropped.
struct Taken {
    room: Room,
    bytes: usize,
}

impl Room {
    fn take(&self, bytes: usize) -> Option<Taken> {
        let with = |used: usize| used.checked_add(bytes).filter(|used| *used <= BYTES_MAX);
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, with).ok()?;
        Some(Taken { room: self.clone(), bytes })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.room.0.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

/// What a session has kept.
#[derive(Default)]
pub struct Kept {
    results: VecDeque<Result>,
}

struct Result {
    handle: String,
    text: Arc<str>,
    at: Timestamp,
    _room: Taken,
}

impl Kept {
    /// Keeps a result, and gives the handle by which it is found; `None` when there is no room.
    pub fn put(&mut self, text: &str, room: &Room, now: Timestamp) -> Option<String> {
        self.expire(now);
        while self.results.len() >= RESULTS_MAX {
            self.results.pop_front();
        }
        let taken = loop {
            match room.take(text.len()) {
                Some(taken) => break taken,
                // The session's own older ones make way.
                None => self.results.pop_front().map(drop)?,
            }
        };
        let handle = format!("result-{}", BASE32_DNSSEC.encode(&random::<10>()));
        self.results.push_back(Result { handle: handle.clone(), text: text.into(), at: now, _room: taken });
        Some(handle)
    }

    pub fn get(&mut self, handle: &str, now: Timestamp) -> Option<Arc<str>> {
        self.expire(now);
        self.results.iter().find(|result| result.handle == handle).map(|result| result.text.clone())
    }

    /// Drops what was kept for long enough.
    pub fn expire(&mut self, now: Timestamp) {
        self.results.retain(|result| Duration::try_from(now.duration_since(result.at)).is_ok_and(|age| age < KEPT_FOR));
    }
}

impl Session {
    /// Keeps a result for a while; `None` when there is no room.
    pub(crate) fn keep_result(&self, text: &str, room: &Room) -> Option<String> {
        self.lock(&self.kept).put(text, room, self.used_at())
    }

    /// A result that was kept.
    pub(crate) fn kept_result(&self, handle: &str) -> Option<Arc<str>> {
        self.lock(&self.kept).get(handle, self.used_at())
    }

    pub(super) fn expire_results(&self, now: Timestamp) {
        self.lock(&self.kept).expire(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn a_result_is_found_until_it_is_old_or_others_came() {
        let (mut kept, room) = (Kept::default(), Room::default());
        let first = kept.put("one", &room, at(0)).unwrap();
        assert_eq!(kept.get(&first, at(1)).as_deref(), Some("one"));
        for _ in 0..RESULTS_MAX {
            kept.put("more", &room, at(2)).unwrap();
        }
        assert_eq!(kept.get(&first, at(2)), None);
        kept.expire(at(2 + 15 * 60));
        assert_eq!(room.0.load(Ordering::Acquire), 0, "what is dropped gives its room back");
    }

    #[test]
    fn sessions_share_the_room_and_only_ones_own_make_way() {
        let (mut one, mut two, room) = (Kept::default(), Kept::default(), Room::default());
        let half = "x".repeat(BYTES_MAX / 2);
        let older = one.put(&half, &room, at(0)).unwrap();
        let newer = one.put(&half, &room, at(0)).unwrap();
        assert_eq!(two.put("y", &room, at(0)), None);
        one.put("z", &room, at(0)).unwrap();
        assert!(one.get(&older, at(0)).is_none() && one.get(&newer, at(0)).is_some());
        two.put("y", &room, at(0)).unwrap();
        drop(one);
        assert_eq!(room.0.load(Ordering::Acquire), 1);
    }
}
