//! Where an instance is in its life, and why it is no more.

use std::{fmt, sync::Arc};

use super::upstream::Upstream;

/// Where an instance is in its life.
#[derive(Debug, Clone)]
pub enum State {
    Starting,
    Ready(ReadyUpstream),
    Stopping,
    Gone(Arc<Gone>),
}

impl State {
    /// The word for it in answers.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready(_) => "ready",
            Self::Stopping => "stopping",
            Self::Gone(_) => "stopped",
        }
    }
}

/// The connection of an instance that is ready.
#[derive(Clone)]
pub struct ReadyUpstream(pub Arc<Upstream>);

impl fmt::Debug for ReadyUpstream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ReadyUpstream")
    }
}

/// Why an instance is no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gone {
    /// It never became ready.
    Failed(String),
    /// It was told to end.
    Stopped,
    /// Nobody used it.
    Idle,
    /// Its server ended by itself.
    Ended { how: String, stderr: String },
}

impl fmt::Display for Gone {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(problem) => formatter.write_str(problem),
            Self::Stopped => formatter.write_str("it was stopped"),
            Self::Idle => formatter.write_str("it was idle"),
            Self::Ended { how, stderr } if stderr.is_empty() => formatter.write_str(how),
            Self::Ended { how, stderr } => write!(formatter, "{how}; its last words were:\n{stderr}"),
        }
    }
}
