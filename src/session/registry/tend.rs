//! Looking after sessions: what nobody uses is dropped from memory, what was not used for long enough has ended.

use std::{
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use tokio::time::Instant;

use super::{Sessions, SessionsError};
use crate::store::{
    StoreError,
    sessions::{SessionKind, SessionRow},
};

/// How often sessions are looked through for ones to drop or end.
const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// A session with no client that was not used for this long is dropped from memory.
const FORGET_AFTER: Duration = Duration::from_secs(300);

impl Sessions {
    /// Ends what a broker before this one left open that cannot be found again: sessions of processes that are gone. Those
    /// whose streams are here, because they are new or have come back, are in memory.
    ///
    /// # Errors
    ///
    /// When the database cannot be read or written.
    pub async fn end_orphans(self: &Arc<Self>) -> Result<usize, SessionsError> {
        let rows = self.store.live_sessions().await?;
        let mut ended = 0;
        let is_gone = |row: &SessionRow| row.kind == SessionKind::Process && self.in_memory(&row.id).is_none();
        for row in rows.into_iter().filter(is_gone) {
            self.end(&row.id, "its process ended").await?;
            ended += 1;
        }
        Ok(ended)
    }

    /// Looks sessions through now and then, until the broker stops: notes their use, drops idle ones from memory, ends
    /// those that were idle for too long.
    pub async fn tend(self: Arc<Self>, stopping: tokio_util::sync::CancellationToken) {
        let weak: Weak<Self> = Arc::downgrade(&self);
        let ends_sooner = self.ends_sooner.clone();
        drop(self);
        let mut due = Instant::now() + SWEEP_EVERY;
        loop {
            let Some(sessions) = weak.upgrade() else { return };
            let first_end = Instant::now() + sessions.until_first_end().await;
            drop(sessions);
            tokio::select! {
                () = tokio::time::sleep_until(due.min(first_end)) => {}
                () = ends_sooner.notified() => continue,
                () = stopping.cancelled() => return,
            }
            due = Instant::now() + SWEEP_EVERY;
            let Some(sessions) = weak.upgrade() else { return };
            if let Err(error) = sessions.sweep().await {
                tracing::warn!(%error, "could not look through the sessions");
            }
        }
    }

    /// How long it is until the first session's time is over; never less than it takes to look once a second.
    async fn until_first_end(&self) -> Duration {
        let at = self.store.first_session_end().await.ok().flatten();
        let left = at.map(|at| Duration::try_from(at.duration_since(self.clock.now())).unwrap_or_default());
        left.unwrap_or(SWEEP_EVERY).max(Duration::from_secs(1))
    }

    /// One look through the sessions.
    ///
    /// # Errors
    ///
    /// When the database cannot be read or written.
    pub async fn sweep(self: &Arc<Self>) -> Result<(), SessionsError> {
        self.flush().await?;
        let now = self.clock.now();
        let idle = |since: crate::clock::Timestamp, limit: Duration| {
            Duration::try_from(now.duration_since(since)).is_ok_and(|idle| idle >= limit)
        };
        for row in self.store.live_sessions().await? {
            // One that is in memory may have been given more time since the row was read.
            let expires_at = self.in_memory(&row.id).map_or(row.expires_at, |session| session.expires_at());
            if expires_at.is_some_and(|at| at <= now) {
                self.end(&row.id, "expired").await?;
            } else if expires_at.is_none() && idle(row.used_at, self.limits.session_idle()) {
                self.end(&row.id, "idle").await?;
            } else if self.limits.session_age().is_some_and(|limit| idle(row.created_at, limit)) {
                self.end(&row.id, "too old").await?;
            }
        }
        self.lock().retain(|_, session| {
            session.expire_results(now);
            session.connected() > 0 || Arc::strong_count(session) > 1 || !idle(session.used_at(), FORGET_AFTER)
        });
        Ok(())
    }

    /// Writes down when sessions were last used.
    ///
    /// # Errors
    ///
    /// When it could not be committed.
    pub async fn flush(&self) -> Result<(), StoreError> {
        let used: Vec<_> = self
            .lock()
            .values()
            .filter(|session| session.flushed_at.load(Ordering::Relaxed) < session.used_at.load(Ordering::Relaxed))
            .map(|session| {
                let at = session.used_at();
                session.flushed_at.store(at.as_microsecond(), Ordering::Relaxed);
                (session.id().clone(), at)
            })
            .collect();
        if used.is_empty() { Ok(()) } else { self.store.touch_sessions(used).await }
    }
}
