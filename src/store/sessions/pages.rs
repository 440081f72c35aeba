//! Sessions page by page, the newest first.

use super::{
    super::{Store, StoreError, micros},
    SessionRow, session_row,
};
use crate::{clock::Timestamp, ids::SessionId};

const OF_ANY_LABEL: &str = "
    SELECT * FROM sessions
    WHERE ended_at IS NULL AND (? IS NULL OR (created_at, id) < (?, ?))
    ORDER BY created_at DESC, id DESC LIMIT ?";

/// By the index of labels, which no condition that may be off can use.
const OF_A_LABEL: &str = "
    SELECT * FROM sessions
    WHERE label = ? AND ended_at IS NULL AND (? IS NULL OR (created_at, id) < (?, ?))
    ORDER BY created_at DESC, id DESC LIMIT ?";

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
        let query = match &page.label {
            Some(label) => sqlx::query(OF_A_LABEL).bind(label),
            None => sqlx::query(OF_ANY_LABEL),
        };
        let rows = query.bind(at).bind(at).bind(id).bind(page.limit).fetch_all(self.readers()).await?;
        rows.iter().map(session_row).collect()
    }
}

#[cfg(test)]
mod tests {
    use sqlx::{AssertSqlSafe, Row as _};

    use super::*;
    use crate::{lifecycle::Tasks, store::Durability};

    #[tokio::test]
    async fn sessions_of_a_label_are_found_by_its_index() {
        let folder = tempfile::tempdir().unwrap();
        let (tasks, _crashes) = Tasks::new();
        let store = Store::open(folder.path(), Durability::default(), &tasks).await.unwrap();
        let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {OF_A_LABEL}"));
        let none = None::<i64>;
        let query = sqlx::query(explain).bind("one").bind(none).bind(none).bind(none).bind(10);
        let plan = query.fetch_all(store.readers()).await.unwrap();
        let plan: Vec<String> = plan.iter().map(|row| row.get("detail")).collect();
        assert!(plan.iter().any(|step| step.contains("USING INDEX sessions_by_label (label=?)")), "{plan:?}");
        store.close().await;
    }
}
