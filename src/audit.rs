//! The record of everything that runs: opened before, closed after, never changed.
//!
//! [`Audit::open`] returns once the opening event is committed; if it cannot be, nothing may run. [`Audit::close`] returns
//! once the closing event is; if it cannot be, the caller is told that the outcome was not recorded. What a crash left
//! open is closed as `abandoned` by [`Audit::sweep`] at the next start. Arguments and results are kept without secrets and
//! cut to a bound, beside the size and hash of the whole.

mod checkpoint;
mod redact;
mod retention;

use std::{borrow::Cow, io, time::Duration};

use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use crate::{
    clock::{SharedClock, Timestamp},
    config::Limits,
    ids::{CallId, Principal, ServerName, SessionId},
    secrets::Redactor,
    store::{
        Store, StoreError,
        audit::{Closed, Event, Opened, Query, Record},
    },
};

pub use checkpoint::{Checkpoint, CheckpointError, Signer};
pub use redact::{Bounds, without_secrets};
pub use retention::{Retention, tend};

/// What is kept of a name, which may be whatever a caller asked for.
const NAMES: Bounds = Bounds { bytes_max: 8 << 10 };

/// What kind of thing a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A call of a server's tool.
    Tool,
    /// A call of one of the broker's own tools.
    Management,
    /// A script; the calls it makes are records below it.
    Script,
    Prompt,
    Resource,
    Completion,
    /// A server's question to the person behind the client.
    Question,
    /// A server's instance starting or ending.
    Instance,
    /// A session's beginning or end.
    Session,
    /// A feature being switched.
    Feature,
    /// A secret being set or removed.
    Secret,
    /// A source of the catalog being added, asked or removed.
    Catalog,
    /// An image being pulled.
    Pull,
    /// A profile being made or removed.
    Profile,
    /// A Compose file being agreed to or used.
    Compose,
    /// The log itself being cut or signed.
    Audit,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Tool => "tool",
            Self::Management => "management",
            Self::Script => "script",
            Self::Prompt => "prompt",
            Self::Resource => "resource",
            Self::Completion => "completion",
            Self::Question => "question",
            Self::Instance => "instance",
            Self::Session => "session",
            Self::Feature => "feature",
            Self::Secret => "secret",
            Self::Catalog => "catalog",
            Self::Pull => "pull",
            Self::Profile => "profile",
            Self::Compose => "compose",
            Self::Audit => "audit",
        }
    }
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Success,
    /// It ran and failed.
    Error,
    /// It was not let run.
    Refused,
    Cancelled,
    Timeout,
    /// It asks the client for more before it goes on.
    InputRequired,
    /// A crash left it open.
    Abandoned,
}

impl Status {
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Error => "error",
            Self::Refused => "refused",
            Self::Cancelled => "cancelled",
            Self::Timeout => "timeout",
            Self::InputRequired => "input_required",
            Self::Abandoned => "abandoned",
        }
    }
}

/// Who does what, before it is done.
#[derive(Debug, Clone)]
pub struct Subject<'a> {
    pub kind: Kind,
    pub parent: Option<CallId>,
    pub session: Option<&'a SessionId>,
    pub principal: &'a Principal,
    /// The client program's name and version.
    pub client: Option<&'a str>,
    pub server: Option<&'a ServerName>,
    /// The tool, the prompt, the resource's URI, the feature…
    pub name: &'a str,
    /// The trace-id that the client's request belongs to.
    pub trace: Option<&'a str>,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome<'a, R> {
    pub status: Status,
    pub error: Option<Cow<'a, str>>,
    pub result: Option<&'a R>,
}

impl<'a> Outcome<'a, ()> {
    /// An outcome that is not a result.
    #[must_use]
    pub fn without_result(status: Status, error: Option<Cow<'a, str>>) -> Self {
        Self { status, error, result: None }
    }
}

/// A record that is open. It has to be closed; one that is dropped stays open until the next start.
#[derive(Debug)]
#[must_use = "an open record has to be closed"]
pub struct OpenRecord {
    id: CallId,
    started: Instant,
}

impl OpenRecord {
    #[must_use]
    pub fn id(&self) -> CallId {
        self.id
    }
}

/// The log could not take an event.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the audit log could not be written")]
pub struct AuditError(#[from] StoreError);

/// The way into the log.
#[derive(Clone)]
pub struct Audit {
    store: Store,
    clock: SharedClock,
    redactor: Redactor,
    arguments_bounds: Bounds,
    result_bounds: Bounds,
}

impl Audit {
    #[must_use]
    pub fn new(store: Store, clock: SharedClock, redactor: Redactor, limits: &Limits) -> Self {
        Self {
            store,
            clock,
            redactor,
            arguments_bounds: Bounds { bytes_max: limits.audit_arguments_bytes_max },
            result_bounds: Bounds { bytes_max: limits.audit_result_bytes_max },
        }
    }

    /// `text` without any secret's value.
    #[must_use]
    pub fn redacted<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.redactor.redact(text)
    }

    /// What takes secrets' values out.
    #[must_use]
    pub fn redactor(&self) -> Redactor {
        self.redactor.clone()
    }

    /// Commits the opening event.
    ///
    /// # Errors
    ///
    /// When it could not be committed: then what it is about must not run.
    pub async fn open(
        &self,
        subject: &Subject<'_>,
        arguments: Option<&serde_json::Map<String, serde_json::Value>>,
    ) -> Result<OpenRecord, AuditError> {
        let id = CallId::new();
        let started = Instant::now();
        let kept = arguments.map(|arguments| self.keep(arguments, &self.arguments_bounds));
        let (text, bytes, hash) = split(kept);
        let event = Opened {
            record: id,
            at: self.clock.now(),
            parent: subject.parent,
            session: subject.session.cloned(),
            principal: subject.principal.to_string(),
            client: subject.client.map(|client| NAMES.cut(client)),
            kind: subject.kind.word().into(),
            server: subject.server.map(ToString::to_string),
            name: NAMES.cut(&self.redactor.redact(subject.name)),
            arguments: text,
            arguments_bytes: bytes,
            arguments_hash: hash,
            trace: subject.trace.map(str::to_owned),
        };
        self.store.append_audit(Event::Opened(event)).await?;
        Ok(OpenRecord { id, started })
    }

    /// Commits the closing event.
    ///
    /// # Errors
    ///
    /// When it could not be committed: the record stays open, and the outcome is not in the log.
    pub async fn close<R: Serialize>(&self, record: OpenRecord, outcome: Outcome<'_, R>) -> Result<(), AuditError> {
        let (text, bytes, hash) = split(outcome.result.map(|result| self.keep(result, &self.result_bounds)));
        let error = outcome.error.map(|error| self.result_bounds.cut(&self.redactor.redact(&error)));
        let duration = record.started.elapsed();
        self.append_closed(record.id, self.clock.now(), duration, outcome.status, error, (text, bytes, hash)).await
    }

    /// Opens and closes a record of something that takes no time.
    ///
    /// # Errors
    ///
    /// When either event could not be committed.
    pub async fn note(&self, subject: &Subject<'_>, status: Status, error: Option<&str>) -> Result<(), AuditError> {
        let record = self.open(subject, None).await?;
        self.close(record, Outcome::without_result(status, error.map(Cow::Borrowed))).await
    }

    /// The newest records that match, in order of time.
    ///
    /// # Errors
    ///
    /// When the log cannot be read.
    pub async fn records(&self, query: &Query, limit: u32) -> Result<Vec<Record>, StoreError> {
        Ok(self.store.audit_records(query, None, limit).await?.records)
    }

    /// Closes, as abandoned, what an earlier process left open. Says how many records that were.
    ///
    /// # Errors
    ///
    /// When the log cannot be read or written.
    pub async fn sweep(&self) -> Result<usize, AuditError> {
        let open = self.store.open_audit_records().await?;
        let swept = open.len();
        let now = self.clock.now();
        for (id, opened_at) in open {
            let lasted = Duration::try_from(now.duration_since(opened_at)).unwrap_or_default();
            let error = "the broker ended before this did".to_owned();
            self.append_closed(id, now, lasted, Status::Abandoned, Some(error), (None, 0, None)).await?;
        }
        Ok(swept)
    }

    async fn append_closed(
        &self,
        record: CallId,
        at: Timestamp,
        duration: Duration,
        status: Status,
        error: Option<String>,
        (result, result_bytes, result_hash): Kept,
    ) -> Result<(), AuditError> {
        let event = Closed {
            record,
            at,
            duration_micros: u64::try_from(duration.as_micros()).unwrap_or(u64::MAX),
            status: status.word().into(),
            error,
            result,
            result_bytes,
            result_hash,
        };
        Ok(self.store.append_audit(Event::Closed(event)).await?)
    }

    fn keep<T: Serialize + ?Sized>(&self, value: &T, bounds: &Bounds) -> Kept {
        let mut whole = Measure::default();
        if serde_json::to_writer(&mut whole, value).is_err() {
            return (None, 0, None);
        }
        let text = redact::summary(value, whole.bytes, &self.redactor, bounds);
        (text, whole.bytes, Some(whole.digest.finalize().into()))
    }
}

type Kept = (Option<String>, u64, Option<[u8; 32]>);

fn split(kept: Option<Kept>) -> Kept {
    kept.unwrap_or((None, 0, None))
}

/// Counts and hashes what is written to it.
#[derive(Default)]
struct Measure {
    bytes: u64,
    digest: Sha256,
}

impl io::Write for Measure {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.bytes += buffer.len() as u64;
        self.digest.update(buffer);
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
