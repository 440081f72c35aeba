//! Instances: at most one per session and server, started when it is needed, ended when it is not.
//!
//! The supervisor keeps the handles. Whoever needs a server asks for it with [`Supervisor::ensure`]; however many ask at
//! once, one is started. A server that fails to start again and again is not tried again at once. Nothing is left behind:
//! not when a session ends, not when the broker stops, and not, once it has been started again, when it was killed.

mod backing;
pub mod calls;
mod connect;
mod decode;
mod direct;
mod docker;
mod door;
mod install;
pub mod instance;
pub mod launch;
pub mod logs;
pub mod orphans;
mod oversized;
mod per_call;
mod process;
mod questions;
mod remote;
mod slot;
mod sse;
pub mod standing;
mod state;
pub mod subscription;
pub mod surface;
mod survey;
mod tail;
mod tap;
pub mod upstream;
mod wire;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

pub use docker::DockerError;
pub(crate) use docker::{MountError, permitted};
pub use install::InstallError;
pub use instance::{Instance, Start};
pub use questions::Asker;
pub use remote::RemoteError;
pub use state::{Gone, State};
pub use surface::Surface;
pub use upstream::{RequestError, Upstream};

use crate::{
    audit::Audit,
    caller::Link,
    catalog::{
        entry::{Registry, Runnable},
        foreign::displayable,
    },
    clock::SharedClock,
    config::{ContainerSettings, Limits, Settings},
    ids::{ServerName, SessionId, fingerprint},
    lifecycle::Tasks,
    store::{LearnedTool, Store},
};
use connect::Connector;
use docker::Engine;
use install::Installer;
use logs::Logs;
use slot::Slot;

/// Learned surfaces that are kept in memory.
const LEARNED_MAX: usize = 512;

/// Tools of one server that can be found, and of each so much of its name and of its description.
const TOOLS_FOUND_MAX: usize = 500;
const TOOL_CHARACTERS_MAX: usize = 400;

/// Whose instance it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// None for an instance that every session shares.
    pub session: Option<SessionId>,
    pub server: ServerName,
}

/// A server cannot be had now.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StartError {
    #[error("server `{server}` did not start: {problem}")]
    Failed { server: ServerName, problem: String },
    #[error("server `{server}` failed to start {failures} times; the next attempt is in {} s. Last time: {problem}", .wait.as_secs().max(1))]
    BackingOff { server: ServerName, failures: u32, wait: Duration, problem: String },
    #[error("the broker is stopping")]
    Stopping,
}

/// The images of a container engine.
#[derive(Clone)]
pub struct Images(Arc<Engine>);

impl Images {
    /// Has an image here. How far a pull is goes to `link`.
    ///
    /// # Errors
    ///
    /// When there is no engine, or the image cannot be had.
    pub async fn fetch(&self, image: &str, link: &Link) -> Result<(), DockerError> {
        self.0.fetch(image, link).await
    }
}

/// Every instance there is.
pub struct Supervisor {
    slots: Mutex<HashMap<Key, Slot>>,
    learned: Mutex<HashMap<String, Arc<Surface>>>,
    logs: Arc<Logs>,
    connector: Arc<Connector>,
    audit: Audit,
    store: Store,
    clock: SharedClock,
    limits: Arc<Limits>,
    data_folder: PathBuf,
    label: String,
    counter: AtomicU64,
    tasks: Tasks,
}

impl Supervisor {
    /// A supervisor with no instances.
    ///
    /// # Errors
    ///
    /// When the HTTP client for remote servers cannot be set up.
    pub fn new(
        settings: &Settings,
        audit: Audit,
        store: Store,
        clock: SharedClock,
        tasks: Tasks,
    ) -> Result<Self, RemoteError> {
        let limits = Arc::new(settings.limits.clone());
        let label = label_of(&settings.data_folder);
        let logs = Logs::new(clock.clone(), limits.stderr_bytes_max);
        let folder = (label.as_str(), settings.data_folder.as_path());
        let engine = Engine::new(settings.containers.clone(), folder, limits.install(), &tasks);
        let engine = engine.recorded_by(audit.clone());
        let connector = Connector {
            engine: Arc::new(engine),
            installer: Installer::new(&settings.data_folder, limits.install(), label.clone()),
            http: remote::client()?,
            limits: limits.clone(),
            logs: logs.clone(),
            pass_environment: settings.pass_environment.clone(),
            tasks: tasks.clone(),
        };
        Ok(Self {
            slots: Mutex::default(),
            learned: Mutex::default(),
            logs,
            connector: Arc::new(connector),
            audit,
            store,
            clock,
            limits,
            label,
            data_folder: settings.data_folder.clone(),
            counter: AtomicU64::new(0),
            tasks,
        })
    }

    /// Ends what a broker on this data folder left behind. Only the one that holds the folder may call it.
    pub async fn clean_up(&self) -> usize {
        let label = format!("{}/", self.label);
        self.connector.engine.sweep();
        tokio::task::spawn_blocking(move || orphans::kill_labelled(&label)).await.unwrap_or(0)
    }

    /// Whether this machine and this broker can run it, and if not, what is missing.
    ///
    /// # Errors
    ///
    /// A sentence on what is missing.
    pub fn usable(&self, run: &Runnable) -> Result<(), String> {
        match run {
            Runnable::Container(_) | Runnable::ContainerPerCall(_) => match self.connector.engine.address() {
                Some(_) => Ok(()),
                None => Err("container engine (Docker or Podman)".to_owned()),
            },
            Runnable::Package(package) => {
                if self.connector.installer.is_installed(package) {
                    return Ok(());
                }
                install::installer_for(package.registry).map(|_| ()).map_err(|error| match error {
                    InstallError::NoInstaller { needed, .. } => needed.to_owned(),
                    other => other.to_string(),
                })
            }
            Runnable::Command(command) => match process::find_program(&command.program) {
                Some(_) => Ok(()),
                None => Err(format!("the program `{}`", command.program)),
            },
            Runnable::Remote(_) => Ok(()),
        }
    }

    /// Refuses a folder that no container of this broker ever sees.
    pub(crate) fn permits(&self, folder: &Path) -> Result<(), MountError> {
        permitted(folder, Some(&self.data_folder))
    }

    /// The container engine that would be used, in words.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub async fn container_engine(settings: &ContainerSettings, tasks: &Tasks) -> Result<String, DockerError> {
        Engine::beside(settings.clone(), Duration::ZERO, tasks).describe().await
    }

    /// The images of this machine's engine, for who wants them there before anything runs.
    #[must_use]
    pub fn images(settings: &Settings, tasks: &Tasks) -> Images {
        Images(Arc::new(Engine::beside(settings.containers.clone(), settings.limits.install(), tasks)))
    }

    /// What packages of a registry would be installed with on this machine.
    ///
    /// # Errors
    ///
    /// What is missing.
    pub fn installer(registry: Registry) -> Result<&'static str, InstallError> {
        install::installer_for(registry)
    }

    /// The instance of `key`, if there is one: running, starting or about to end.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<Arc<Instance>> {
        let slots = self.slots();
        let (instance, _) = slots.get(key)?.instance.as_ref()?;
        (!matches!(instance.state(), State::Gone(_))).then(|| instance.clone())
    }

    /// The instance of `key`, if it is not about to end.
    #[must_use]
    pub fn lasting(&self, key: &Key) -> Option<Arc<Instance>> {
        self.get(key).filter(|instance| !matches!(instance.state(), State::Stopping))
    }

    /// The instance of `key`: the one that is there, or a new one made from `start` when the one before has ended.
    ///
    /// # Errors
    ///
    /// When the server failed too often and too recently, or the broker is stopping.
    pub async fn ensure(&self, key: &Key, start: impl FnOnce() -> Start) -> Result<Arc<Instance>, StartError> {
        loop {
            let stopping = {
                let mut slots = self.slots();
                let slot = slots.entry(key.clone()).or_default();
                slot.settle();
                match &slot.instance {
                    Some((instance, _)) if matches!(instance.state(), State::Stopping) => instance.clone(),
                    Some((instance, _)) => return Ok(instance.clone()),
                    None => {
                        slot.may_start(&key.server)?;
                        if self.tasks.is_stopping() {
                            return Err(StartError::Stopping);
                        }
                        let instance = self.start(key, start());
                        slot.tail = Some(instance.tail.clone());
                        slot.instance = Some((instance.clone(), Instant::now()));
                        return Ok(instance);
                    }
                }
            };
            stopping.gone().await;
        }
    }

    fn start(&self, key: &Key, start: Start) -> Arc<Instance> {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let owner = key.session.as_ref().map_or("shared", SessionId::as_str);
        let label = format!("{}/{owner}/{}/{number}", self.label, fingerprint(key.server.as_str(), 12));
        Instance::start(start, label, self.connector.clone(), self.audit.clone(), self.limits.instance_idle())
    }

    /// Waits until an instance can be called; notes a failure for the next attempt.
    ///
    /// # Errors
    ///
    /// When it did not become ready.
    pub async fn ready(&self, key: &Key, instance: &Instance) -> Result<Arc<Upstream>, StartError> {
        let outcome = instance.ready().await;
        if outcome.is_err() {
            self.slots().entry(key.clone()).or_default().settle();
        } else if let Some(slot) = self.slots().get_mut(key) {
            slot.problem.clear();
        }
        outcome.map_err(|gone| StartError::Failed { server: key.server.clone(), problem: gone.to_string() })
    }

    /// Has the instance of `key` end, if there is one. Returns at once.
    pub fn stop(&self, key: &Key) -> Option<Arc<Instance>> {
        let slots = self.slots();
        let (instance, _) = slots.get(key)?.instance.as_ref()?;
        instance.stop();
        Some(instance.clone())
    }

    /// Forgets the failures of `key`, because something was changed that may mend them.
    pub fn forgive(&self, key: &Key) {
        if let Some(slot) = self.slots().get_mut(key) {
            slot.settle();
            (slot.failures, slot.retry_at) = (0, None);
        }
    }

    /// Ends every instance of a session, removes their folders, and waits until that is done.
    pub async fn end_session(&self, session: &SessionId) {
        let instances: Vec<_> = {
            let mut slots = self.slots();
            let keys: Vec<Key> = slots.keys().filter(|key| key.session.as_ref() == Some(session)).cloned().collect();
            keys.iter().filter_map(|key| slots.remove(key)?.instance).collect()
        };
        for (instance, _) in &instances {
            instance.stop();
        }
        for (instance, _) in &instances {
            instance.gone().await;
        }
        self.connector.engine.end_session(session).await;
        self.logs.forget(session);
        let folder = self.session_folder(Some(session));
        let _ = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(folder)).await;
    }

    /// Ends every instance and waits until that is done.
    pub async fn stop_all(&self) {
        let instances: Vec<_> = self.slots().drain().filter_map(|(_, slot)| slot.instance).collect();
        for (instance, _) in &instances {
            instance.stop();
        }
        for (instance, _) in &instances {
            instance.gone().await;
        }
        self.connector.engine.close().await;
    }

    /// The folder that belongs to the instance of `key`, whether it runs or not.
    #[must_use]
    pub fn folder(&self, key: &Key) -> PathBuf {
        let name: String = key
            .server
            .as_str()
            .chars()
            .map(|character| if character.is_ascii_alphanumeric() || character == '-' { character } else { '_' })
            .take(40)
            .collect();
        self.session_folder(key.session.as_ref()).join(format!("{name}-{}", fingerprint(key.server.as_str(), 8)))
    }

    fn session_folder(&self, session: Option<&SessionId>) -> PathBuf {
        match session {
            Some(session) => self.data_folder.join("sessions").join(session.as_str()),
            None => self.data_folder.join("shared"),
        }
    }

    /// What a server said it offers when it last ran, if it ran in the same way.
    pub async fn learned(&self, learned_as: &str) -> Option<Arc<Surface>> {
        if let Some(surface) = self.learned_cache().get(learned_as) {
            return Some(surface.clone());
        }
        let text = match self.store.learned_surface(learned_as).await {
            Ok(text) => text?,
            Err(error) => {
                tracing::warn!(%error, "could not read what was learned of a server");
                return None;
            }
        };
        let surface: Arc<Surface> = Arc::new(serde_json::from_str(&text).ok()?);
        self.remember(learned_as, surface.clone());
        Some(surface)
    }

    /// Keeps what a server says it offers.
    pub async fn learn(&self, learned_as: &str, server: &ServerName, surface: &Arc<Surface>) {
        if self.learned_cache().get(learned_as).is_some_and(|known| known == surface) {
            return;
        }
        self.remember(learned_as, surface.clone());
        let Ok(text) = serde_json::to_string(surface.as_ref()) else { return };
        if let Err(error) = self.store.learn_surface(learned_as.to_owned(), server, text, self.clock.now()).await {
            tracing::warn!(%error, "could not keep what was learned of a server");
        }
    }

    /// Keeps what a server's tools do, in its words, for everybody to find. Says whether that was not known.
    pub async fn learn_tools(&self, server: &ServerName, surface: &Surface) -> bool {
        let said = |text: &str| displayable(&self.audit.redacted(text), TOOL_CHARACTERS_MAX);
        let tools = surface.tools.iter().map(|tool| LearnedTool {
            name: said(&tool.name),
            description: said(tool.description.as_deref().unwrap_or_default()),
        });
        let kept = self.store.learn_tools(server, tools.take(TOOLS_FOUND_MAX).collect(), self.clock.now()).await;
        kept.unwrap_or_else(|error| {
            tracing::warn!(%error, "could not keep what was learned of a server's tools");
            false
        })
    }

    fn remember(&self, learned_as: &str, surface: Arc<Surface>) {
        let mut learned = self.learned_cache();
        if learned.len() >= LEARNED_MAX {
            learned.clear();
        }
        learned.insert(learned_as.to_owned(), surface);
    }

    fn learned_cache(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Surface>>> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What marks this data folder's processes.
#[must_use]
pub fn label_of(data_folder: &Path) -> String {
    let folder = data_folder.canonicalize().unwrap_or_else(|_| data_folder.to_owned());
    fingerprint(&folder.display().to_string(), 16)
}
