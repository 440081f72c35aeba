//! How long records are kept.

use std::time::Duration;

use jiff::SignedDuration;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::{Audit, AuditError, Kind, Status, Subject};
use crate::{
    ids::Principal,
    store::audit::{Cut, Prune},
};

/// How often it is looked whether something is due.
const EVERY: Duration = Duration::from_secs(3600);

/// What the operator wants kept. Without any of it, everything is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// Records older than this are removed.
    pub days: Option<u32>,
    /// The oldest records are removed while the database holds more.
    pub database_bytes_max: Option<u64>,
}

impl Audit {
    /// Cuts the log at its beginning, and says so in the log first. Answers with nothing if there is nothing to go.
    ///
    /// # Errors
    ///
    /// When it cannot be recorded: then nothing is removed; or cannot be committed.
    pub async fn prune(&self, principal: &Principal, prune: Prune) -> Result<Option<Cut>, AuditError> {
        let Some(cut) = self.store.audit_cut(prune).await? else { return Ok(None) };
        let name = cut.name();
        let subject = Subject {
            kind: Kind::Audit,
            parent: None,
            session: None,
            principal,
            client: None,
            server: None,
            name: &name,
            trace: None,
        };
        self.note(&subject, Status::Success, None).await?;
        self.store.prune_audit(&cut, self.clock.now()).await?;
        Ok(Some(cut))
    }

    async fn retain(&self, retention: Retention) -> Result<(), AuditError> {
        self.store.finish_pruning().await?;
        let due = retention.days.map(|days| {
            let age = SignedDuration::from_hours(24 * i64::from(days));
            Prune::Before(self.clock.now().checked_sub(age).unwrap_or(jiff::Timestamp::MIN))
        });
        let size = retention.database_bytes_max.map(|bytes| Prune::DownTo { bytes });
        for prune in due.into_iter().chain(size) {
            if let Some(cut) = self.prune(&Principal::Local, prune).await? {
                tracing::info!(events = cut.events, "removed audit events that are older than what is kept");
            }
        }
        Ok(())
    }
}

/// Keeps to `retention` until `stopping`.
pub async fn tend(audit: Audit, retention: Retention, stopping: CancellationToken) {
    loop {
        if let Err(error) = audit.retain(retention).await {
            tracing::warn!(%error, "audit events that are due were not removed");
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = stopping.cancelled() => return,
        }
    }
}
