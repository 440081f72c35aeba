//! Counting records.

use sqlx::{QueryBuilder, Row as _};

use super::Query;
use crate::store::{Store, StoreError};

/// What records are counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum StatsBy {
    Server,
    Tool,
    Session,
    Principal,
    Client,
    Status,
    /// The day in UTC.
    Day,
}

/// What is known of the records that have one thing in common. Times are microseconds.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Stats {
    /// What they have in common; nothing where they have no such thing.
    pub key: Option<String>,
    pub calls: u64,
    /// Those that did not succeed, were not cancelled, and are not open.
    pub errors: u64,
    pub p50_micros: Option<u64>,
    pub p95_micros: Option<u64>,
    pub p99_micros: Option<u64>,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

impl StatsBy {
    fn expression(self) -> &'static str {
        match self {
            Self::Server => "r.server",
            Self::Tool => "concat_ws(' ', r.server, r.name)",
            Self::Session => "r.session",
            Self::Principal => "r.principal",
            Self::Client => "r.client",
            Self::Status => "coalesce(r.status, 'open')",
            Self::Day => "strftime('%Y-%m-%d', r.opened_at / 1000000, 'unixepoch')",
        }
    }
}

impl Store {
    /// Counts the records that match. Days come in order; anything else by how many records it has.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn audit_stats(&self, query: &Query, by: StatsBy, limit: u32) -> Result<Vec<Stats>, StoreError> {
        self.writer().arrange().await?;
        let prepared = self.prepare_led(query).await?;
        if prepared.matches_nothing() {
            return Ok(Vec::new());
        }
        let mut sql = QueryBuilder::new("WITH ranked AS (SELECT ");
        sql.push(by.expression()).push(
            " AS key, r.duration, r.status, r.bytes_in, r.bytes_out,
             row_number() OVER (PARTITION BY ",
        );
        sql.push(by.expression()).push(
            " ORDER BY r.duration IS NULL, r.duration) AS rank,
             count(r.duration) OVER (PARTITION BY ",
        );
        sql.push(by.expression()).push(") AS timed FROM audit_records r");
        prepared.push_index(&mut sql);
        sql.push(" WHERE TRUE");
        prepared.push_conditions(&mut sql);
        if let Some(words) = prepared.words() {
            sql.push(" AND (r.seq IN (SELECT rowid FROM audit_words WHERE audit_words MATCH ")
                .push_bind(words.to_owned());
            sql.push(") OR r.closed IN (SELECT rowid FROM audit_words WHERE audit_words MATCH ");
            sql.push_bind(words.to_owned()).push("))");
        }
        sql.push(
            ") SELECT key, count(*) AS calls,
                 sum(status IS NOT NULL AND status NOT IN ('success', 'cancelled', 'input_required')) AS errors,
                 max(CASE WHEN rank <= (timed * 50 + 99) / 100 THEN duration END) AS p50,
                 max(CASE WHEN rank <= (timed * 95 + 99) / 100 THEN duration END) AS p95,
                 max(CASE WHEN rank <= (timed * 99 + 99) / 100 THEN duration END) AS p99,
                 sum(bytes_in) AS bytes_in, sum(coalesce(bytes_out, 0)) AS bytes_out
             FROM ranked GROUP BY key ORDER BY ",
        );
        sql.push(if by == StatsBy::Day { "key" } else { "calls DESC, key" })
            .push(" LIMIT ")
            .push_bind(i64::from(limit));
        let rows = sql.build().fetch_all(self.readers()).await?;
        let count = |row: &sqlx::sqlite::SqliteRow, column: &str| -> Result<u64, StoreError> {
            Ok(row.try_get::<i64, _>(column)?.unsigned_abs())
        };
        let time = |row: &sqlx::sqlite::SqliteRow, column: &str| -> Result<Option<u64>, StoreError> {
            Ok(row.try_get::<Option<i64>, _>(column)?.map(i64::unsigned_abs))
        };
        rows.iter()
            .map(|row| {
                Ok(Stats {
                    key: row.try_get("key")?,
                    calls: count(row, "calls")?,
                    errors: count(row, "errors")?,
                    p50_micros: time(row, "p50")?,
                    p95_micros: time(row, "p95")?,
                    p99_micros: time(row, "p99")?,
                    bytes_in: count(row, "bytes_in")?,
                    bytes_out: count(row, "bytes_out")?,
                })
            })
            .collect()
    }
}
