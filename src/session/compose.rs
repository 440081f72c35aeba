//! A session's servers that come from a Compose file, and a file that waits for somebody to agree to it.

use std::{collections::BTreeMap, sync::Arc};

use super::Session;
use crate::{
    catalog::Entry,
    compose::{Definition, Offer},
    ids::ServerName,
};

/// A file that nobody has agreed to yet.
pub(super) struct Offered {
    offer: Arc<Offer>,
    /// Whether the person behind the client was asked.
    asked: bool,
}

impl Session {
    /// The servers from a Compose file.
    #[must_use]
    pub fn compose_entries(&self) -> Vec<Arc<Entry>> {
        self.read().compose.values().cloned().collect()
    }

    /// Takes over definitions that have been committed.
    pub(super) fn put_compose(&self, definitions: &[Definition]) {
        self.write().compose = entries_of(definitions);
    }

    /// Held while a file's services become the session's servers.
    pub async fn taking(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.taking.lock().await
    }

    /// Keeps a file until somebody agrees to it, as long as the session is in memory: whoever offers it is connected.
    pub fn put_offer(&self, offer: Offer) {
        *self.lock(&self.offered) = Some(Offered { offer: Arc::new(offer), asked: false });
    }

    /// The file that nobody has agreed to yet.
    #[must_use]
    pub fn offer(&self) -> Option<Arc<Offer>> {
        self.lock(&self.offered).as_ref().map(|offered| offered.offer.clone())
    }

    /// The file that nobody has agreed to yet, if it is the one that has that hash: an answer is to what was asked.
    #[must_use]
    pub fn offer_of(&self, hash: &str) -> Option<Arc<Offer>> {
        self.offer().filter(|offer| offer.hash == hash)
    }

    /// Says whether a person may be asked about an offer now: once, and only if it is still the one that waits.
    #[must_use]
    pub fn begins_to_ask(&self, shown: &Arc<Offer>) -> bool {
        let mut offered = self.lock(&self.offered);
        match offered.as_mut().filter(|offered| Arc::ptr_eq(&offered.offer, shown) && !offered.asked) {
            Some(offered) => {
                offered.asked = true;
                true
            }
            None => false,
        }
    }

    /// Notes that a file is the session's now. Another one that was offered since goes on waiting.
    pub fn settle_offer(&self, hash: &str) {
        self.lock(&self.offered).take_if(|offered| offered.offer.hash == hash);
    }
}

pub(super) fn entries_of(definitions: &[Definition]) -> BTreeMap<ServerName, Arc<Entry>> {
    definitions.iter().map(|definition| (definition.name.clone(), Arc::new(definition.entry()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::Timestamp,
        ids::{Principal, SessionId},
        store::sessions::{SessionKind, SessionRow, StoredSession},
    };

    fn session() -> Arc<Session> {
        let now = Timestamp::UNIX_EPOCH;
        let row = SessionRow {
            id: SessionId::random(),
            kind: SessionKind::Process,
            principal: Principal::Local,
            name: None,
            token: None,
            created_at: now,
            used_at: now,
            expires_at: None,
            label: None,
            ended_at: None,
            end_reason: None,
        };
        let (servers, configs, code_tools) = (Vec::new(), Vec::new(), Vec::new());
        let stored =
            StoredSession { row, servers, configs, code_tools, entries: Default::default(), compose: Vec::new() };
        Session::new(stored, &[])
    }

    fn offer(hash: &str) -> Offer {
        Offer { file: "/srv/project/gordon-mcp.yml".into(), hash: hash.into(), agreed: false, definitions: Vec::new() }
    }

    #[test]
    fn an_answer_is_to_the_file_that_was_shown_and_to_no_other() {
        let session = session();
        session.put_offer(offer("shown"));
        let shown = session.offer().unwrap();
        session.put_offer(offer("another"));
        assert!(!session.begins_to_ask(&shown), "what waits now is not what the question is about");
        assert!(session.offer_of("shown").is_none(), "an answer takes nothing else");
        session.settle_offer("shown");
        let waiting = session.offer().unwrap();
        assert_eq!(waiting.hash, "another", "what was offered since goes on waiting");
        assert!(session.begins_to_ask(&waiting));
        assert!(!session.begins_to_ask(&waiting), "a person is asked once");
        session.settle_offer("another");
        assert!(session.offer().is_none());
    }
}
