//! Sessions that say how long they are wanted, and the pages they are listed in.

use std::{sync::Arc, time::Duration};

use super::{Sessions, SessionsError};
use crate::{
    clock::Timestamp,
    ids::{Principal, ServerName, TokenHash},
    session::Session,
    store::{
        StoreError,
        sessions::{Page, SessionKind, SessionRow},
    },
};

/// What a session is made from.
pub struct NewSession {
    pub kind: SessionKind,
    pub principal: Principal,
    pub name: Option<String>,
    pub token: Option<TokenHash>,
    pub label: Option<String>,
    /// Seconds after which it ends by itself.
    pub ttl: Option<u64>,
    /// Servers that are its alone, as a catalog would have them.
    pub entries: Vec<(ServerName, String)>,
}

impl NewSession {
    /// A session that nothing is known of but who wants it, and how it is found again.
    #[must_use]
    pub fn of(kind: SessionKind, principal: Principal) -> Self {
        Self { kind, principal, name: None, token: None, label: None, ttl: None, entries: Vec::new() }
    }
}

impl Sessions {
    /// Makes a session.
    ///
    /// # Errors
    ///
    /// When there are too many, its name, label or time cannot be, or it could not be committed.
    pub async fn create_with(&self, new: NewSession) -> Result<Arc<Session>, SessionsError> {
        let label = new.label.as_deref();
        if label
            .is_some_and(|label| label.is_empty() || label.chars().count() > 200 || label.chars().any(char::is_control))
        {
            return Err(SessionsError::InvalidLabel);
        }
        let _one_at_a_time = self.loading.lock().await;
        self.create_locked(new).await
    }

    /// When a session that was made at `created_at` ends, if it goes on for `ttl` seconds from `now`.
    pub(super) fn expiry(&self, ttl: u64, created_at: Timestamp, now: Timestamp) -> Result<Timestamp, SessionsError> {
        let lived = Duration::try_from(now.duration_since(created_at)).unwrap_or_default();
        let left = self.limits.session_age().map_or(u64::MAX, |age| age.saturating_sub(lived).as_secs());
        let max = self.limits.session_ttl_seconds_max.min(left);
        if !(1..=max).contains(&ttl) {
            return Err(SessionsError::InvalidTtl { max });
        }
        now.checked_add(Duration::from_secs(ttl)).map_err(|_| SessionsError::InvalidTtl { max })
    }

    /// One page of the sessions that have not ended, the newest first.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn page(&self, page: &Page) -> Result<Vec<SessionRow>, StoreError> {
        let mut rows = self.store.session_page(page).await?;
        for row in &mut rows {
            if let Some(session) = self.in_memory(&row.id) {
                row.used_at = session.used_at();
            }
        }
        Ok(rows)
    }
}
