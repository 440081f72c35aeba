//! The log, read beside the broker.

use std::collections::HashMap;

use sqlx::{ConnectOptions as _, Row as _, SqliteConnection, sqlite::SqliteConnectOptions};

use super::client::Client;
use crate::support::process::Home;

pub(super) struct Log {
    connection: SqliteConnection,
    /// The newest event that was looked at.
    seen: i64,
}

impl Log {
    pub(super) async fn open(home: &Home) -> Self {
        let options = SqliteConnectOptions::new().filename(home.data().join("broker.sqlite")).read_only(true);
        Self { connection: options.connect().await.unwrap(), seen: 0 }
    }

    /// Every record since the last look is closed, and every call that a client has an answer to is there.
    pub(super) async fn check(&mut self, clients: &mut [Client]) {
        let rows = sqlx::query(
            "SELECT opened.seq, opened.trace, opened.name, closed.status
             FROM audit_opened AS opened LEFT JOIN audit_closed AS closed USING (record)
             WHERE opened.seq > ? ORDER BY opened.seq",
        )
        .bind(self.seen)
        .fetch_all(&mut self.connection)
        .await
        .unwrap();
        let mut statuses: HashMap<String, (String, String)> = HashMap::new();
        for row in rows {
            let (name, status): (String, Option<String>) = (row.get("name"), row.get("status"));
            let status = status.unwrap_or_else(|| panic!("`{name}` was left open"));
            if let Some(trace) = row.get::<Option<String>, _>("trace") {
                statuses.insert(trace, (name, status));
            }
            self.seen = row.get("seq");
        }
        for client in clients {
            for trace in client.take_answered() {
                let kept = statuses.get(&trace);
                let is_right = kept.is_some_and(|(_, status)| status == "success");
                assert!(is_right, "a call was answered, and the log says {kept:?} of it ({trace})");
            }
        }
    }
}
