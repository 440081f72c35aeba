//! What runs, for who looks after the broker.

use super::{Key, State, Supervisor, logs::Logs};

impl Supervisor {
    /// How many instances have not ended.
    #[must_use]
    pub fn running(&self) -> usize {
        self.instances().len()
    }

    /// Every instance that has not ended, and the word for its state.
    #[must_use]
    pub fn instances(&self) -> Vec<(Key, &'static str)> {
        let slots = self.slots();
        let states = slots.iter().filter_map(|(key, slot)| Some((key, slot.instance.as_ref()?.0.state())));
        let mut alive: Vec<(Key, &'static str)> = states
            .filter(|(_, state)| !matches!(state, State::Gone(_)))
            .map(|(key, state)| (key.clone(), state.word()))
            .collect();
        alive.sort_by(|(one, _), (other, _)| (&one.session, &one.server).cmp(&(&other.session, &other.server)));
        alive
    }

    /// What servers wrote to their standard error.
    #[must_use]
    pub fn logs(&self) -> &Logs {
        &self.logs
    }
}
