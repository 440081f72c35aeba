//! What a script knows and the log does not yet.

use std::sync::{Arc, OnceLock};

use crate::lifecycle::{Count, Counted};

/// Outcomes of a script's calls whose closing events are being committed. Clones count together.
#[derive(Clone, Default)]
pub(super) struct Unrecorded {
    outcomes: Count,
    /// Why one was not committed.
    failure: Arc<OnceLock<String>>,
}

impl Unrecorded {
    /// One more, until it has ended.
    pub(super) fn one_more(&self) -> Closing {
        let cut_off = Err("the broker failed while it recorded its outcome; its log says how".to_owned());
        Closing { ended: cut_off, failure: self.failure.clone(), _counted: self.outcomes.one_more() }
    }

    /// Completes when the log has all of them, which is before anybody else may learn what the script knows.
    ///
    /// # Errors
    ///
    /// When it has one of them not.
    pub(super) async fn none(&self) -> Result<(), String> {
        self.outcomes.none().await;
        self.failure.get().cloned().map_or(Ok(()), Err)
    }
}

/// An outcome whose closing event is being committed.
pub(super) struct Closing {
    ended: Result<(), String>,
    failure: Arc<OnceLock<String>>,
    _counted: Counted,
}

impl Closing {
    pub(super) fn ended(mut self, how: Result<(), String>) {
        self.ended = how;
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        if let Err(why) = &self.ended {
            let _ = self.failure.set(format!("of a call that this script has made: {why}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_cut_off_is_not_in_the_log() {
        let unrecorded = Unrecorded::default();
        unrecorded.one_more().ended(Ok(()));
        assert_eq!(unrecorded.none().await, Ok(()));
        drop(unrecorded.one_more());
        unrecorded.one_more().ended(Ok(()));
        assert!(unrecorded.none().await.unwrap_err().contains("the broker failed"));
    }

    #[tokio::test]
    async fn why_is_known_when_the_last_one_has_ended() {
        let unrecorded = Unrecorded::default();
        let (first, last) = (unrecorded.one_more(), unrecorded.one_more());
        let none = unrecorded.none();
        tokio::pin!(none);
        first.ended(Ok(()));
        assert!(futures_util::poll!(&mut none).is_pending());
        last.ended(Err("full".to_owned()));
        assert!(none.await.unwrap_err().ends_with(": full"));
    }
}
