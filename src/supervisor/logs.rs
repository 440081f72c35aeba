//! What servers wrote to their standard error, for who looks after them: the newest lines of each, also after it ended.
//!
//! It is in memory and bounded, and gone with the session. Who follows is woken by a line, and need not ask again and again.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::watch;

use super::{Key, tail::LINE_BYTES};
use crate::{
    clock::{SharedClock, Timestamp},
    ids::{ServerName, SessionId},
};

/// Servers whose lines are kept; those that were silent for longest go first.
const SERVERS_MAX: usize = 256;

/// A line that a server wrote.
#[derive(Debug, Clone)]
pub struct Line {
    /// Lines of all servers are numbered together, from 1.
    pub number: u64,
    pub at: Timestamp,
    pub session: Option<SessionId>,
    pub server: ServerName,
    pub text: String,
}

/// Whose lines are wanted.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    pub session: Option<SessionId>,
    pub server: Option<ServerName>,
    /// Lines with higher numbers only.
    pub after: u64,
    /// The newest so many.
    pub lines_max: usize,
}

/// The lines of every server.
pub struct Logs {
    kept: Mutex<HashMap<Key, Kept>>,
    newest: watch::Sender<u64>,
    clock: SharedClock,
    bytes_max: usize,
}

#[derive(Default)]
struct Kept {
    lines: VecDeque<(u64, Timestamp, String)>,
    bytes: usize,
}

/// Where one server's lines go.
#[derive(Clone)]
pub(crate) struct Sink {
    logs: Arc<Logs>,
    key: Key,
}

impl std::fmt::Debug for Sink {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Sink").field(&self.key).finish()
    }
}

impl Logs {
    /// `bytes_max` is for each server.
    pub(super) fn new(clock: SharedClock, bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { kept: Mutex::default(), newest: watch::Sender::new(0), clock, bytes_max })
    }

    pub(super) fn of(self: &Arc<Self>, session: Option<&SessionId>, server: &ServerName) -> Sink {
        Sink { logs: self.clone(), key: Key { session: session.cloned(), server: server.clone() } }
    }

    /// The lines that are wanted, the oldest first.
    #[must_use]
    pub fn lines(&self, wanted: &Wanted) -> Vec<Line> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let is_wanted = |key: &Key| {
            wanted.session.as_ref().is_none_or(|session| key.session.as_ref() == Some(session))
                && wanted.server.as_ref().is_none_or(|server| key.server == *server)
        };
        let mut lines: Vec<Line> = kept
            .iter()
            .filter(|(key, _)| is_wanted(key))
            .flat_map(|(key, kept)| kept.lines.iter().map(move |line| (key, line)))
            .filter(|(_, (number, ..))| *number > wanted.after)
            .map(|(key, (number, at, text))| Line {
                number: *number,
                at: *at,
                session: key.session.clone(),
                server: key.server.clone(),
                text: text.clone(),
            })
            .collect();
        lines.sort_unstable_by_key(|line| line.number);
        let skipped = lines.len().saturating_sub(wanted.lines_max);
        lines.split_off(skipped)
    }

    /// Changes with every line; its value is the newest line's number.
    #[must_use]
    pub fn newest(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    pub(super) fn forget(&self, session: &SessionId) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|key, _| key.session.as_ref() != Some(session));
    }
}

impl Sink {
    pub(super) fn line(&self, text: &str) {
        let at = self.logs.clock.now();
        let mut kept = self.logs.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= SERVERS_MAX && !kept.contains_key(&self.key) {
            let silent = kept.iter().min_by_key(|(_, kept)| kept.lines.back().map(|line| line.0));
            if let Some(silent) = silent.map(|(key, _)| key.clone()) {
                kept.remove(&silent);
            }
        }
        // Numbered while the lock is held, so that whoever has read up to a number has missed none below it.
        let number = *self.logs.newest.borrow() + 1;
        let own = kept.entry(self.key.clone()).or_default();
        own.bytes += text.len() + LINE_BYTES;
        own.lines.push_back((number, at, text.to_owned()));
        while own.bytes > self.logs.bytes_max {
            match own.lines.pop_front() {
                Some((.., old)) => own.bytes -= old.len() + LINE_BYTES,
                None => break,
            }
        }
        self.logs.newest.send_replace(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    fn texts(logs: &Logs, wanted: Wanted) -> Vec<String> {
        logs.lines(&Wanted { lines_max: 100, ..wanted }).into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn lines_of_all_servers_are_in_one_order_and_bounded_for_each() {
        let logs = Logs::new(Arc::new(SystemClock), 2 * (2 + LINE_BYTES));
        let (a, b): (ServerName, ServerName) = ("a".parse().unwrap(), "b".parse().unwrap());
        for (server, text) in [(&a, "a1"), (&b, "b1"), (&a, "a2"), (&a, "a3")] {
            logs.of(None, server).line(text);
        }
        assert_eq!(texts(&logs, Wanted::default()), ["b1", "a2", "a3"]);
        assert_eq!(texts(&logs, Wanted { server: Some(b), ..Wanted::default() }), ["b1"]);
        assert_eq!(texts(&logs, Wanted { after: 3, ..Wanted::default() }), ["a3"]);
        assert_eq!(*logs.newest().borrow(), 4);
    }

    #[test]
    fn the_most_silent_server_makes_room() {
        let logs = Logs::new(Arc::new(SystemClock), 100);
        for number in 0..=SERVERS_MAX {
            logs.of(None, &format!("s{number}").parse().unwrap()).line("x");
        }
        let lines = logs.lines(&Wanted { lines_max: 1000, ..Wanted::default() });
        assert_eq!((lines.len(), lines[0].server.as_str()), (SERVERS_MAX, "s1"));
    }
}
