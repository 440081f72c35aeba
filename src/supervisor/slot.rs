//! The place of one instance, and how often it could not be filled.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    StartError,
    instance::Instance,
    state::{Gone, State},
    tail::Tail,
};
use crate::ids::ServerName;

/// The longest a failing server is left alone.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// An instance that ends sooner than this after it was started counts as a failed start.
const SHORT_LIFE: Duration = Duration::from_secs(10);

/// One key's instance.
#[derive(Default)]
pub(super) struct Slot {
    pub(super) instance: Option<(Arc<Instance>, Instant)>,
    pub(super) failures: u32,
    pub(super) retry_at: Option<Instant>,
    pub(super) problem: String,
    /// What the last instance wrote to its standard error.
    pub(super) tail: Option<Tail>,
}

impl Slot {
    /// Takes notice of an instance that has ended.
    pub(super) fn settle(&mut self) {
        let Some((instance, started)) = &self.instance else { return };
        let State::Gone(gone) = instance.state() else { return };
        let failed = match &*gone {
            // One that was told to stop while it started is no failure.
            Gone::Failed(_) => !instance.was_stopped(),
            Gone::Ended { .. } => started.elapsed() < SHORT_LIFE,
            Gone::Stopped | Gone::Idle => false,
        };
        self.instance = None;
        if failed {
            self.failures += 1;
            self.problem = gone.to_string();
            self.retry_at = Some(Instant::now() + backoff(self.failures));
        } else {
            (self.failures, self.retry_at) = (0, None);
        }
    }

    pub(super) fn may_start(&self, server: &ServerName) -> Result<(), StartError> {
        let wait = self.retry_at.map(|at| at.saturating_duration_since(Instant::now())).unwrap_or_default();
        if wait.is_zero() {
            return Ok(());
        }
        Err(StartError::BackingOff {
            server: server.clone(),
            failures: self.failures,
            wait,
            problem: self.problem.clone(),
        })
    }
}

/// Nothing after the first failure, then one second, doubling.
fn backoff(failures: u32) -> Duration {
    match failures.checked_sub(2) {
        None => Duration::ZERO,
        Some(doublings) => Duration::from_secs(1u64 << doublings.min(6)).min(BACKOFF_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failing_servers_are_left_alone_for_longer_and_longer() {
        let waits: Vec<u64> = (0..10).map(|failures| backoff(failures).as_secs()).collect();
        assert_eq!(waits, [0, 0, 1, 2, 4, 8, 16, 32, 60, 60]);
    }
}
