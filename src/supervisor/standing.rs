//! How a server stands, for people and programs who look at a session.

use super::{InstallError, Key, State, Supervisor};
use crate::catalog::entry::Runnable;

/// Lines of a server's standard error that are shown.
const LOG_LINES: usize = 40;

/// How a server stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// `starting`, `ready`, `stopping`, `stopped`, or `failed` with the problem.
    pub state: &'static str,
    pub problem: Option<String>,
    /// The last of what it wrote to its standard error, without secrets.
    pub log: String,
}

impl Supervisor {
    /// The commit that a branch or tag of a Git repository is now; without one, that of its default branch.
    ///
    /// # Errors
    ///
    /// When it cannot be asked, or has no such branch or tag.
    pub async fn resolve(&self, url: &str, reference: Option<&str>) -> Result<String, InstallError> {
        self.connector.installer.resolve(url, reference).await
    }

    /// The commit that a server from a Git repository runs, as far as that is known.
    #[must_use]
    pub fn commit_of(&self, run: &Runnable) -> Option<String> {
        match run {
            Runnable::Package(package) => self.connector.installer.commit(package),
            _ => None,
        }
    }

    /// How the server of `key` stands. Starts nothing.
    #[must_use]
    pub fn standing(&self, key: &Key) -> Standing {
        let mut slots = self.slots();
        let Some(slot) = slots.get_mut(key) else {
            return Standing { state: "stopped", problem: None, log: String::new() };
        };
        slot.settle();
        let state = match &slot.instance {
            Some((instance, _)) => match instance.state() {
                State::Gone(_) => "stopped",
                other => other.word(),
            },
            None if slot.failures > 0 => "failed",
            None => "stopped",
        };
        let problem = (state == "failed").then(|| self.audit.redacted(&slot.problem).into_owned());
        let log =
            slot.tail.as_ref().map(|tail| self.audit.redacted(&tail.last(LOG_LINES)).into_owned()).unwrap_or_default();
        Standing { state, problem, log }
    }
}
