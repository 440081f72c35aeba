//! What is done for the catalog beside serving: asking sources again, and indexing what servers say of their tools.

use std::{sync::Arc, time::Duration};

use jiff::SignedDuration;
use tokio_util::sync::CancellationToken;

use super::{Source, Sources};

/// A source that failed is asked again after this long, if not earlier.
const RETRY_AFTER: Duration = Duration::from_secs(3600);

/// Between two looks at what is due: a machine that sleeps stops the clock that waits, not the one that tells.
const LOOK_EVERY: Duration = Duration::from_secs(600);

/// Several servers that are started together are indexed together.
const GATHER: Duration = Duration::from_millis(500);

impl Sources {
    /// Indexes what there is, and then keeps it current until it is time to stop. Sources are asked when what is known of
    /// them is older than `refresh`; without it, never.
    pub async fn tend(self: Arc<Self>, refresh: Option<Duration>, stopping: CancellationToken) {
        let tended = async {
            self.reindex().await;
            tokio::join!(self.index_what_is_learned(), self.ask_what_is_due(refresh))
        };
        tokio::select! {
            _ = tended => {}
            () = stopping.cancelled() => {}
        }
    }

    async fn reindex(&self) {
        if let Err(error) = self.swap().await {
            tracing::error!(%error, "the catalog could not be indexed");
        }
    }

    async fn index_what_is_learned(&self) {
        loop {
            self.catalog.learning().await;
            tokio::time::sleep(GATHER).await;
            self.reindex().await;
        }
    }

    async fn ask_what_is_due(&self, refresh: Option<Duration>) {
        let Some(refresh) = refresh else { return std::future::pending().await };
        loop {
            {
                let _one_change_at_a_time = self.changing.lock().await;
                self.update_those(|source| self.due_in(source, refresh).is_zero()).await;
            }
            let next = self
                .list()
                .iter()
                .filter(|source| source.can_be_asked())
                .map(|source| self.due_in(source, refresh))
                .min();
            match next {
                Some(next) => tokio::select! {
                    () = tokio::time::sleep(next.min(LOOK_EVERY)) => {}
                    () = self.changed.notified() => {}
                },
                None => self.changed.notified().await,
            }
        }
    }

    /// How long what is known of a source is good for.
    fn due_in(&self, source: &Source, refresh: Duration) -> Duration {
        let good_for = if source.error.is_some() { refresh.min(RETRY_AFTER) } else { refresh };
        let checked = source.checked_at.as_deref().and_then(|at| at.parse().ok());
        let Some(checked) = checked else { return Duration::ZERO };
        let age = self.clock.now().duration_since(checked).max(SignedDuration::ZERO).unsigned_abs();
        good_for.saturating_sub(age)
    }
}
