//! What scripts may use.

use std::{path::PathBuf, time::Duration};

use serde::Deserialize;

/// Bounds of one script. Durations are whole seconds, sizes bytes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CodeModeSettings {
    /// From a script's start to its end, calls included.
    pub wall_seconds: u64,
    /// Time on a CPU.
    pub cpu_seconds: u64,
    pub heap_bytes: u64,
    pub result_bytes_max: usize,
    pub log_bytes_max: usize,
    pub calls_max: usize,
    pub concurrent_calls_max: usize,
    pub script_bytes_max: usize,
    /// A longer result is answered with its beginning, and can be read page by page.
    pub answer_bytes_max: usize,
    /// Longer declarations of tools are abridged.
    pub declarations_bytes_max: usize,
    /// What workers are started as, if not as this program.
    #[serde(skip)]
    pub program: Option<PathBuf>,
}

impl Default for CodeModeSettings {
    fn default() -> Self {
        let limits = js_runtime::Limits::default();
        Self {
            wall_seconds: limits.wall.as_secs(),
            cpu_seconds: limits.cpu.as_secs(),
            heap_bytes: limits.heap_bytes,
            result_bytes_max: limits.result_bytes_max,
            log_bytes_max: limits.log_bytes_max,
            calls_max: limits.calls_max,
            concurrent_calls_max: limits.concurrent_calls_max,
            script_bytes_max: limits.script_bytes_max,
            answer_bytes_max: 24 << 10,
            declarations_bytes_max: 8 << 10,
            program: None,
        }
    }
}

impl CodeModeSettings {
    #[must_use]
    pub fn limits(&self) -> js_runtime::Limits {
        js_runtime::Limits {
            wall: Duration::from_secs(self.wall_seconds),
            cpu: Duration::from_secs(self.cpu_seconds),
            heap_bytes: self.heap_bytes,
            result_bytes_max: self.result_bytes_max,
            log_bytes_max: self.log_bytes_max,
            calls_max: self.calls_max,
            concurrent_calls_max: self.concurrent_calls_max,
            script_bytes_max: self.script_bytes_max,
        }
    }

    /// What is wrong with these values; empty when nothing is.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        /// An engine does not boot with less.
        const HEAP_BYTES_MIN: u64 = 16 << 20;
        let positive = [
            ("wall_seconds", self.wall_seconds),
            ("cpu_seconds", self.cpu_seconds),
            ("concurrent_calls_max", self.concurrent_calls_max as u64),
            ("script_bytes_max", self.script_bytes_max as u64),
            ("result_bytes_max", self.result_bytes_max as u64),
        ];
        let mut problems: Vec<String> = positive
            .into_iter()
            .filter(|(_, value)| *value == 0)
            .map(|(name, _)| format!("code_mode.{name} must be at least 1"))
            .collect();
        if self.heap_bytes < HEAP_BYTES_MIN {
            problems.push(format!("code_mode.heap_bytes must be at least {HEAP_BYTES_MIN}"));
        }
        problems
    }
}
