//! How containers are run.

mod signed;

use std::{collections::BTreeMap, path::PathBuf};

use serde::Deserialize;

use crate::ids::ServerName;
pub use signed::SignedImages;

/// When an image is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Pull {
    /// At every start.
    Always,
    /// When it is not here.
    #[default]
    Missing,
    /// Not at all.
    Never,
}

/// What containers may do and use.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ContainerSettings {
    /// The engine's address (`unix://…` or `tcp://…`), or `none`. Without it, `DOCKER_HOST` or a socket in a usual place.
    pub engine: Option<String>,
    pub pull: Pull,
    /// CPUs one container may use.
    pub cpus: f64,
    /// Memory one container may use; it has no swap.
    pub memory_bytes: u64,
    /// Processes and threads in one container.
    pub pids_max: u32,
    /// Folders that containers may see, read-only.
    pub allowed_paths: Vec<PathBuf>,
    /// Folders that containers may write.
    pub writable_paths: Vec<PathBuf>,
    /// Whether containers have no network.
    pub block_network: bool,
    /// Which images need a signature, and whose.
    pub signed: Vec<SignedImages>,
    /// What is different for single servers.
    pub servers: BTreeMap<ServerName, ServerBounds>,
}

/// Bounds of one server that are not the usual ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerBounds {
    cpus: Option<f64>,
    memory_bytes: Option<u64>,
    pids_max: Option<u32>,
}

/// What one container may use.
#[derive(Debug, Clone, Copy)]
pub struct ContainerBounds {
    pub cpus: f64,
    pub memory_bytes: u64,
    pub pids_max: u32,
}

impl Default for ContainerSettings {
    fn default() -> Self {
        Self {
            engine: None,
            pull: Pull::default(),
            cpus: 1.0,
            memory_bytes: 2 << 30,
            pids_max: 256,
            allowed_paths: Vec::new(),
            writable_paths: Vec::new(),
            block_network: false,
            signed: Vec::new(),
            servers: BTreeMap::new(),
        }
    }
}

impl ContainerBounds {
    /// In the engine's unit, billionths of a CPU.
    #[must_use]
    pub fn nano_cpus(&self) -> i64 {
        #[expect(clippy::cast_possible_truncation, reason = "checked to be a small number of CPUs")]
        let nano = (self.cpus * 1e9) as i64;
        nano
    }
}

impl ContainerSettings {
    /// What a container of `server` may use: what is set for it here, else what it was given with, else the usual.
    #[must_use]
    pub fn bounds(&self, server: &ServerName, memory_bytes: Option<u64>, nano_cpus: Option<i64>) -> ContainerBounds {
        let own = self.servers.get(server).copied().unwrap_or_default();
        #[expect(clippy::cast_precision_loss, reason = "a small number of CPUs")]
        let cpus = nano_cpus.map(|nano| nano as f64 / 1e9);
        ContainerBounds {
            cpus: own.cpus.or(cpus).unwrap_or(self.cpus),
            memory_bytes: own.memory_bytes.or(memory_bytes).unwrap_or(self.memory_bytes),
            pids_max: own.pids_max.unwrap_or(self.pids_max),
        }
    }

    /// What is wrong with these values; empty when nothing is.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        const CPUS: std::ops::RangeInclusive<f64> = 0.01..=1024.0;
        /// The least that Docker takes.
        const MEMORY_BYTES_MIN: u64 = 6 << 20;
        let own =
            self.servers.keys().map(|server| (format!("containers.servers.{server}"), self.bounds(server, None, None)));
        let usual = ContainerBounds { cpus: self.cpus, memory_bytes: self.memory_bytes, pids_max: self.pids_max };
        let mut problems = Vec::new();
        for (at, bounds) in std::iter::once(("containers".to_owned(), usual)).chain(own) {
            if !CPUS.contains(&bounds.cpus) {
                problems.push(format!("{at}.cpus must be between 0.01 and 1024"));
            }
            if bounds.memory_bytes < MEMORY_BYTES_MIN {
                problems.push(format!("{at}.memory_bytes must be at least {MEMORY_BYTES_MIN}"));
            }
            if bounds.pids_max == 0 {
                problems.push(format!("{at}.pids_max must be at least 1"));
            }
        }
        problems.extend(self.signed.iter().flat_map(SignedImages::problems));
        let relative = self.allowed_paths.iter().chain(&self.writable_paths).filter(|path| path.is_relative());
        problems.extend(relative.map(|path| format!("containers: {} is not an absolute path", path.display())));
        problems
    }
}
