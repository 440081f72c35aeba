//! Every bound the broker keeps, in one place.
//!
//! Durations in a settings file are whole seconds; sizes are bytes. The unit is in the name.

use std::time::Duration;

use serde::Deserialize;

/// Bounds and deadlines. The defaults suit one machine and a handful of people.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Sessions that have not ended.
    pub sessions_max: usize,
    /// Servers one session may have on at a time.
    pub servers_per_session_max: usize,
    /// A session that nobody used for this long has ended.
    pub session_idle_seconds: u64,
    /// A session that was made this long ago has ended, used or not; there is no such limit unless it is set.
    pub session_age_seconds: Option<u64>,
    /// The longest that a session which says how long it is wanted may last, from when it says so.
    pub session_ttl_seconds_max: u64,
    /// From starting a server to its list of tools, installing not included.
    pub start_seconds: u64,
    /// Installing a package or cloning a repository.
    pub install_seconds: u64,
    /// A call that neither answers nor reports progress for this long has failed.
    pub call_seconds: u64,
    /// A call that goes on for this long has failed, progress or not.
    pub call_total_seconds: u64,
    /// How long a server gets to stop by itself, twice: after its input is closed and after SIGTERM.
    pub stop_seconds: u64,
    /// An instance that nobody used for this long is stopped, and started again by the next call.
    pub instance_idle_seconds: u64,
    /// How long a person may take to answer a question that a server asks through the client.
    pub question_seconds: u64,
    /// Questions that may be waiting for an answer, over all sessions.
    pub questions_max: usize,
    /// How long calls in flight may go on after the first signal to stop.
    pub shutdown_seconds: u64,
    /// Connections of clients of revisions up to 2025-11-25 that are held in memory though no request or stream of theirs is
    /// open. Beyond it the longest unused are put to sleep, and wake with their next request.
    pub connections_idle_max: usize,
    /// One JSON-RPC message from a server.
    pub message_bytes_max: usize,
    /// One HTTP request to the broker.
    pub request_bytes_max: usize,
    /// What is kept of a server's standard error, for error messages.
    pub stderr_bytes_max: usize,
    /// What the audit log keeps of one call's arguments.
    pub audit_arguments_bytes_max: usize,
    /// What the audit log keeps of one call's result.
    pub audit_result_bytes_max: usize,
    /// Tools, prompts, resources or templates that are taken from one server, each.
    pub listed_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sessions_max: 10_000,
            servers_per_session_max: 64,
            session_idle_seconds: 24 * 3600,
            session_age_seconds: None,
            session_ttl_seconds_max: 24 * 3600,
            start_seconds: 60,
            install_seconds: 600,
            call_seconds: 300,
            call_total_seconds: 3600,
            stop_seconds: 2,
            instance_idle_seconds: 900,
            question_seconds: 600,
            questions_max: 1000,
            shutdown_seconds: 10,
            connections_idle_max: 128,
            message_bytes_max: 16 << 20,
            request_bytes_max: 4 << 20,
            stderr_bytes_max: 8 << 10,
            audit_arguments_bytes_max: 4 << 10,
            audit_result_bytes_max: 4 << 10,
            listed_max: 2000,
        }
    }
}

impl Limits {
    /// What is wrong with these values; empty when nothing is.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let positive = [
            ("sessions_max", self.sessions_max as u64),
            ("servers_per_session_max", self.servers_per_session_max as u64),
            ("session_idle_seconds", self.session_idle_seconds),
            ("session_age_seconds", self.session_age_seconds.unwrap_or(1)),
            ("session_ttl_seconds_max", self.session_ttl_seconds_max),
            ("start_seconds", self.start_seconds),
            ("install_seconds", self.install_seconds),
            ("call_seconds", self.call_seconds),
            ("call_total_seconds", self.call_total_seconds),
            ("instance_idle_seconds", self.instance_idle_seconds),
            ("question_seconds", self.question_seconds),
            ("message_bytes_max", self.message_bytes_max as u64),
            ("request_bytes_max", self.request_bytes_max as u64),
            ("listed_max", self.listed_max as u64),
        ];
        positive
            .into_iter()
            .filter(|(_, value)| *value == 0)
            .map(|(name, _)| format!("limits.{name} must be at least 1"))
            .collect()
    }

    #[must_use]
    pub fn session_idle(&self) -> Duration {
        Duration::from_secs(self.session_idle_seconds)
    }

    #[must_use]
    pub fn session_age(&self) -> Option<Duration> {
        self.session_age_seconds.map(Duration::from_secs)
    }

    #[must_use]
    pub fn start(&self) -> Duration {
        Duration::from_secs(self.start_seconds)
    }

    #[must_use]
    pub fn install(&self) -> Duration {
        Duration::from_secs(self.install_seconds)
    }

    #[must_use]
    pub fn call(&self) -> Duration {
        Duration::from_secs(self.call_seconds)
    }

    #[must_use]
    pub fn call_total(&self) -> Duration {
        Duration::from_secs(self.call_total_seconds)
    }

    #[must_use]
    pub fn stop(&self) -> Duration {
        Duration::from_secs(self.stop_seconds)
    }

    #[must_use]
    pub fn instance_idle(&self) -> Duration {
        Duration::from_secs(self.instance_idle_seconds)
    }

    #[must_use]
    pub fn question(&self) -> Duration {
        Duration::from_secs(self.question_seconds)
    }

    #[must_use]
    pub fn shutdown(&self) -> Duration {
        Duration::from_secs(self.shutdown_seconds)
    }
}
