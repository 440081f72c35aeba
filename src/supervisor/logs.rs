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
    pub after: Option<u64>,
    /// The newest so many; with `after` the oldest so many, for whoever reads on from there.
    pub lines_max: usize,
}

/// The lines of every server.
pub struct Logs {
    kept: Mutex<HashMap<Key, Kept>>,
    newest: watch::Sender<u64>,
    clock: SharedClock,
    bytes_max: usize,
}

type KeptLine = (u64, Timestamp, String);

#[derive(Default)]
struct Kept {
    lines: VecDeque<KeptLine>,
    bytes: usize,
}

impl Kept {
    /// Looks at no line up to that number: whoever follows asks at every line.
    fn after(&self, number: u64) -> impl Iterator<Item = &KeptLine> {
        let seen = self.lines.partition_point(|line| line.0 <= number);
        self.lines.range(seen..)
    }
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
        let after = wanted.after.unwrap_or(0);
        let mut found: Vec<(&Key, &KeptLine)> = kept
            .iter()
            .filter(|(key, _)| is_wanted(key))
            .flat_map(|(key, kept)| kept.after(after).map(move |line| (key, line)))
            .collect();
        found.sort_unstable_by_key(|(_, line)| line.0);
        let skipped = match wanted.after {
            None => found.len().saturating_sub(wanted.lines_max),
            Some(_) => 0,
        };
        let line = |(key, (number, at, text)): (&Key, &KeptLine)| Line {
            number: *number,
            at: *at,
            session: key.session.clone(),
            server: key.server.clone(),
            text: text.clone(),
        };
        found.into_iter().skip(skipped).take(wanted.lines_max).map(line).collect()
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
        assert_eq!(texts(&logs, Wanted { after: Some(3), ..Wanted::default() }), ["a3"]);
        assert_eq!(*logs.newest().borrow(), 4);
    }

    #[test]
    fn who_reads_on_is_given_every_line_whatever_the_limit() {
        let logs = Logs::new(Arc::new(SystemClock), 10_000);
        let (a, b): (ServerName, ServerName) = ("a".parse().unwrap(), "b".parse().unwrap());
        (1..=9).for_each(|number| logs.of(None, if number % 2 == 0 { &a } else { &b }).line(&number.to_string()));
        let numbers = |after, lines_max| -> Vec<u64> {
            let wanted = Wanted { after, lines_max, ..Wanted::default() };
            logs.lines(&wanted).iter().map(|line| line.number).collect()
        };
        assert_eq!(numbers(None, 4), [6, 7, 8, 9]);
        assert_eq!(numbers(Some(0), 4), [1, 2, 3, 4]);
        assert_eq!(numbers(Some(4), 4), [5, 6, 7, 8]);
        assert_eq!(numbers(Some(8), 4), [9]);
        assert!(numbers(Some(9), 4).is_empty());
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
