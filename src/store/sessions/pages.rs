//! Sessions page by page, the newest first.

use super::{
    super::{Store, StoreError, micros},
    SessionRow, session_row,
};
use crate::{clock::Timestamp, ids::SessionId};

/// Which sessions are listed.
#[derive(Debug, Default, Clone)]
pub struct Page {
    pub label: Option<String>,
    /// The last of the page before.
    pub after: Option<(Timestamp, SessionId)>,
    pub limit: u32,
}

impl Store {
    /// One page of the sessions that have not ended, the newest first.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn session_page(&self, page: &Page) -> Result<Vec<SessionRow>, StoreError> {
        let (at, id) = page.after.as_ref().map(|(at, id)| (micros(*at), id.as_str())).unzip();
        let rows = sqlx::query(
            "SELECT * FROM sessions
             WHERE ended_at IS NULL AND (?1 IS NULL OR label = ?1)
               AND (?2 IS NULL OR (created_at, id) < (?2, ?3))
             ORDER BY created_at DESC, id DESC LIMIT ?4",
        )
        .bind(&page.label)
        .bind(at)
        .bind(id)
        .bind(page.limit)
        .fetch_all(self.readers())
        .await?;
        rows.iter().map(session_row).collect()
    }
}
