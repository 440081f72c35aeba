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
        *self.lock(&self.offered) = None;
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

    /// The same, for the one who is going to ask: once.
    #[must_use]
    pub fn offer_to_ask(&self) -> Option<Arc<Offer>> {
        let mut offered = self.lock(&self.offered);
        let offered = offered.as_mut().filter(|offered| !offered.asked)?;
        offered.asked = true;
        Some(offered.offer.clone())
    }
}

pub(super) fn entries_of(definitions: &[Definition]) -> BTreeMap<ServerName, Arc<Entry>> {
    definitions.iter().map(|definition| (definition.name.clone(), Arc::new(definition.entry()))).collect()
}
