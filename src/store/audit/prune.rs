//! Cutting the log at its beginning, so that what is left can still be verified.
//!
//! Where it was cut, and the hash that the first event left covers, is kept in `audit_pruned`. That row alone would prove
//! nothing: the cut is also an event of the log itself, which is why [`Store::prune_audit`] takes a [`Cut`] that was
//! recorded before.

use data_encoding::HEXLOWER;
use futures_util::FutureExt as _;
use sqlx::Row as _;

use super::append::GENESIS;
use crate::{
    clock::Timestamp,
    store::{Store, StoreError, corrupt, micros},
};

/// Events that are removed in one transaction.
const EVENTS: i64 = 2_000;

/// How much of the log is to go.
#[derive(Debug, Clone, Copy)]
pub enum Prune {
    /// Records that were opened before this.
    Before(Timestamp),
    /// The oldest ones, until the database holds about this much.
    DownTo { bytes: u64 },
}

/// A place at which the log can be cut: no record has one of its events on either side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// The last event to go.
    pub seq: i64,
    pub hash: [u8; 32],
    /// How many events go.
    pub events: u64,
}

impl Cut {
    /// What the log says of it.
    #[must_use]
    pub fn name(&self) -> String {
        name(self.seq, &self.hash)
    }
}

pub(super) fn name(seq: i64, hash: &[u8; 32]) -> String {
    format!("prune to event {seq}, {}", HEXLOWER.encode(hash))
}

impl Store {
    /// Where the log would be cut; nothing if there is nothing to go.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn audit_cut(&self, prune: Prune) -> Result<Option<Cut>, StoreError> {
        self.writer().arrange().await?;
        let begin = self.audit_begin().await?.0;
        let wanted = match prune {
            Prune::Before(time) => self.last_before(time).await?,
            Prune::DownTo { bytes } => self.last_beyond(begin, bytes).await?,
        };
        // A record that goes on behind the cut moves the cut before itself.
        let row = sqlx::query(
            "SELECT min(seq) AS seq FROM audit_records WHERE seq <= ?1 AND (closed IS NULL OR closed > ?1)",
        )
        .bind(wanted)
        .fetch_one(self.readers())
        .await?;
        let seq = row.try_get::<Option<i64>, _>("seq")?.map_or(wanted, |split| split - 1);
        if seq <= begin {
            return Ok(None);
        }
        let row = sqlx::query(
            "SELECT hash FROM audit_opened WHERE seq = ?1 UNION ALL SELECT hash FROM audit_closed WHERE seq = ?1",
        )
        .bind(seq)
        .fetch_one(self.readers())
        .await?;
        let hash = row.try_get::<Vec<u8>, _>("hash")?.try_into().map_err(|_| corrupt("a hash is not 32 bytes"))?;
        Ok(Some(Cut { seq, hash, events: (seq - begin).unsigned_abs() }))
    }

    /// Where the log begins: the event before its first one, and the hash that the first one covers.
    pub(super) async fn audit_begin(&self) -> Result<(i64, [u8; 32]), StoreError> {
        let row = sqlx::query("SELECT seq, hash FROM audit_pruned ORDER BY seq DESC LIMIT 1")
            .fetch_optional(self.readers())
            .await?;
        let Some(row) = row else { return Ok((0, GENESIS)) };
        let hash = row.try_get::<Vec<u8>, _>("hash")?.try_into().map_err(|_| corrupt("a hash is not 32 bytes"))?;
        Ok((row.try_get("seq")?, hash))
    }

    async fn last_before(&self, time: Timestamp) -> Result<i64, StoreError> {
        let row = sqlx::query(
            "SELECT coalesce((SELECT min(seq) - 1 FROM audit_records WHERE opened_at >= ?),
                             (SELECT seq FROM audit_arranged)) AS seq",
        )
        .bind(micros(time))
        .fetch_one(self.readers())
        .await?;
        Ok(row.try_get("seq")?)
    }

    /// Takes every event for equally large.
    async fn last_beyond(&self, begin: i64, bytes: u64) -> Result<i64, StoreError> {
        let used = self.database_bytes().await?;
        let (end, _) = self.audit_head().await?;
        let Some(surplus) = used.checked_sub(bytes).filter(|surplus| *surplus > 0) else { return Ok(begin) };
        let share = u128::from((end - begin).unsigned_abs()) * u128::from(surplus) / u128::from(used.max(1));
        Ok(begin + i64::try_from(share).unwrap_or(0))
    }

    /// What the database holds, free pages left out.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn database_bytes(&self) -> Result<u64, StoreError> {
        let row = sqlx::query(
            "SELECT (p.page_count - f.freelist_count) * s.page_size AS bytes
             FROM pragma_page_count p, pragma_freelist_count f, pragma_page_size s",
        )
        .fetch_one(self.readers())
        .await?;
        Ok(row.try_get::<i64, _>("bytes")?.unsigned_abs())
    }

    /// Has the log begin after `cut`, of which it has to know already, and removes what was before.
    ///
    /// # Errors
    ///
    /// When it could not be committed.
    pub async fn prune_audit(&self, cut: &Cut, now: Timestamp) -> Result<(), StoreError> {
        let Cut { seq, hash, .. } = *cut;
        self.writer()
            .change(move |connection| {
                async move {
                    sqlx::query("INSERT INTO audit_pruned (seq, hash, at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING")
                        .bind(seq)
                        .bind(hash.as_slice())
                        .bind(micros(now))
                        .execute(connection)
                        .await?;
                    Ok(())
                }
                .boxed()
            })
            .await?;
        self.finish_pruning().await
    }

    /// Removes what is before the log's beginning, in steps between which calls go on; a crash may have left some of it.
    ///
    /// # Errors
    ///
    /// When it could not be committed. What was removed until then stays removed.
    pub async fn finish_pruning(&self) -> Result<(), StoreError> {
        let (begin, _) = self.audit_begin().await?;
        let row = sqlx::query(
            "SELECT min((SELECT coalesce(min(seq), ?1 + 1) FROM audit_opened),
                        (SELECT coalesce(min(seq), ?1 + 1) FROM audit_closed)) AS seq",
        )
        .bind(begin)
        .fetch_one(self.readers())
        .await?;
        let mut first: i64 = row.try_get("seq")?;
        while first <= begin {
            let last = begin.min(first + EVENTS);
            self.writer().change(move |connection| async move { remove(connection, last).await }.boxed()).await?;
            first = last + 1;
        }
        Ok(())
    }
}

async fn remove(connection: &mut sqlx::SqliteConnection, last: i64) -> Result<(), StoreError> {
    for table in [
        "DELETE FROM audit_words WHERE rowid <= ?",
        "DELETE FROM audit_records WHERE seq <= ?",
        "DELETE FROM audit_closed WHERE seq <= ?",
        "DELETE FROM audit_opened WHERE seq <= ?",
    ] {
        sqlx::query(table).bind(last).execute(&mut *connection).await?;
    }
    Ok(())
}
