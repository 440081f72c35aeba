//! When a session ends by itself, and what is its alone.

use std::{collections::BTreeMap, sync::Arc, sync::atomic::Ordering};

use super::Session;
use crate::{
    catalog::{Entry, file},
    clock::Timestamp,
    ids::{ServerName, SessionId},
};

/// The source of entries that are one session's alone.
const SOURCE: &str = "session";

/// Reads entries as they are kept. One that cannot be read is left out: its server is then in no catalog.
pub(super) fn read_entries(
    session: &SessionId,
    entries: Vec<(ServerName, String)>,
) -> BTreeMap<ServerName, Arc<Entry>> {
    let read = |(server, text): (ServerName, String)| match file::stored(SOURCE, server.as_str(), &text) {
        Ok(entry) => Some((server, Arc::new(entry))),
        Err(problem) => {
            tracing::error!(session.id = %session, server.name = %server, problem, "a session's own server cannot be read");
            None
        }
    };
    entries.into_iter().filter_map(read).collect()
}

impl Session {
    /// When the session ends by itself, if it does.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        match self.expires_at.load(Ordering::Acquire) {
            i64::MAX => None,
            at => Timestamp::from_microsecond(at).ok(),
        }
    }

    /// Whether its time is over.
    #[must_use]
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.expires_at.load(Ordering::Acquire) <= now.as_microsecond()
    }

    pub(super) fn put_expiry(&self, at: Timestamp) {
        self.expires_at.store(at.as_microsecond(), Ordering::Release);
    }

    /// What whoever made it finds it by.
    #[must_use]
    pub fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }

    /// The entry of a server that is this session's alone, on or not.
    #[must_use]
    pub fn own_entry(&self, server: &ServerName) -> Option<Arc<Entry>> {
        let contents = self.read();
        contents.own.get(server).or_else(|| contents.compose.get(server)).cloned()
    }
}
