//! Servers as containers, through the Docker Engine's API (Docker or Podman).
//!
//! A container is attached to before it is started, so that nothing it says is lost, and spoken to over the attached
//! streams. It has no more rights than it needs: no new privileges, no capabilities, bounded CPU, memory and processes, and
//! a network of its session's own or none. Everything that is made here is labelled with the data folder; what a broker
//! before this one left is found by that.

mod container;
mod gate;
mod image;
mod leftovers;
mod mounts;
mod network;
mod signature;

use std::{
    collections::{BTreeSet, HashMap},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bollard::{API_DEFAULT_VERSION, Docker, errors::Error as ApiError, models::VolumeCreateRequest};
use tokio::{
    sync::{OnceCell, Semaphore},
    time::{Instant, error::Elapsed, timeout_at},
};

pub(crate) use container::{Container, End};
use gate::GateError;
pub(crate) use mounts::{MountError, permitted};
use network::Networks;
use signature::SignatureError;

use super::{backing::Streams, launch::ContainerLaunch, tail::Tail};
use crate::{
    audit::{Audit, AuditError},
    caller::Link,
    config::{ContainerSettings, Pull},
    ids::{ServerName, SessionId, fingerprint},
    lifecycle::Tasks,
};

/// Labels of containers, networks and volumes.
const FOLDER: &str = "mcp-broker.folder";
const SESSION: &str = "mcp-broker.session";
const SERVER: &str = "mcp-broker.server";
/// Which run of a broker made a container or a network.
const RUN: &str = "mcp-broker.run";

/// Where engines listen unless `DOCKER_HOST` says otherwise.
const SOCKETS: [&str; 2] = ["/var/run/docker.sock", "/run/podman/podman.sock"];

const REQUEST_SECONDS_MAX: u64 = 120;

/// The longest that a pull may be given: what a clock can add to now.
const PULL_MAX: Duration = Duration::from_secs(u32::MAX as u64);

/// Containers that are started or removed at a time: an engine that is asked for more does each of them later.
const AT_ONCE_MAX: usize = 8;

/// The container engine of this machine.
pub(crate) struct Engine {
    address: Option<String>,
    connection: OnceCell<Docker>,
    settings: ContainerSettings,
    /// The label of the data folder.
    folder: String,
    /// The data folder itself, which no container sees. Empty for a command that runs no servers.
    data_folder: PathBuf,
    run: String,
    pulls: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    pull_max: Duration,
    /// Set once what an earlier broker left is removed.
    swept: OnceCell<()>,
    networks: Networks,
    starts: Semaphore,
    /// Containers that could not be removed, because the engine did not answer.
    undone: Mutex<Vec<String>>,
    /// Ended sessions whose volumes could not be removed, and when that was tried again.
    ended: Mutex<BTreeSet<SessionId>>,
    cleared: Mutex<Option<Instant>>,
    /// Names and ids of images whose signatures were found good.
    known_signed: Mutex<BTreeSet<(String, String)>>,
    /// Where pulls are recorded; a command that pulls beside a broker has none.
    audit: Option<Audit>,
    tasks: Tasks,
}

/// A container could not be had.
#[derive(Debug, thiserror::Error)]
pub enum DockerError {
    #[error(
        "there is no container engine: start Docker or Podman, or name its address with DOCKER_HOST or containers.engine"
    )]
    None,
    #[error("the container engine at {address} does not answer: is it running, and may this user use it?")]
    Unreachable {
        address: String,
        #[source]
        source: ApiError,
    },
    #[error("there is no image `{image}`, here or in its registry: check its name, or whether it needs a sign-in")]
    NoImage { image: String },
    #[error("the image `{image}` is not here, and the operator has switched pulling off (containers.pull: never)")]
    PullNever { image: String },
    #[error("could not pull the image `{image}`: {problem}")]
    Pull { image: String, problem: String },
    #[error("the image `{image}` was not pulled, because that could not be recorded")]
    Unrecorded { image: String, source: AuditError },
    #[error("the image `{image}` is for {image_platform}, and this engine runs {platform}")]
    Platform { image: String, image_platform: String, platform: String },
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error("the image `{image}` has to be signed (containers.signed), and is not run")]
    Signature { image: String, source: SignatureError },
    #[error(transparent)]
    Gate(#[from] GateError),
    #[error(
        "the container engine has no addresses left for another network: end sessions that are not used, or give the engine more (`default-address-pools` in its settings)"
    )]
    NoAddresses,
    #[error("the broker stopped while it was started")]
    Cut,
    #[error("the container engine could not {what}")]
    Api {
        what: &'static str,
        #[source]
        source: ApiError,
    },
}

pub(crate) fn failed(what: &'static str) -> impl FnOnce(ApiError) -> DockerError {
    move |source| DockerError::Api { what, source }
}

impl Engine {
    pub(crate) fn new(
        settings: ContainerSettings,
        (folder, data_folder): (&str, &Path),
        pull_max: Duration,
        tasks: &Tasks,
    ) -> Self {
        Self {
            address: address(&settings),
            connection: OnceCell::new(),
            settings,
            folder: folder.to_owned(),
            data_folder: data_folder.to_owned(),
            run: uuid::Uuid::now_v7().to_string(),
            pulls: Mutex::default(),
            pull_max,
            swept: OnceCell::new(),
            networks: Networks::default(),
            starts: Semaphore::new(AT_ONCE_MAX),
            undone: Mutex::default(),
            ended: Mutex::default(),
            cleared: Mutex::default(),
            known_signed: Mutex::default(),
            audit: None,
            tasks: tasks.clone(),
        }
    }

    /// An engine for a command that runs no servers, beside a broker that may do so.
    pub(crate) fn beside(settings: ContainerSettings, pull_max: Duration, tasks: &Tasks) -> Self {
        Self { swept: OnceCell::new_with(Some(())), ..Self::new(settings, ("", Path::new("")), pull_max, tasks) }
    }

    /// Records what is pulled.
    pub(crate) fn recorded_by(self, audit: Audit) -> Self {
        Self { audit: Some(audit), ..self }
    }

    /// Where the engine is, if there seems to be one.
    pub(crate) fn address(&self) -> Option<&str> {
        self.address.as_deref()
    }

    /// The connection to the engine, with the newest version of its API that both know.
    pub(crate) async fn docker(&self) -> Result<&Docker, DockerError> {
        let address = self.address().ok_or(DockerError::None)?;
        let unreachable = |source| DockerError::Unreachable { address: address.to_owned(), source };
        self.connection.get_or_try_init(|| async { connect(address).await.map_err(unreachable) }).await
    }

    /// What the engine is, in words.
    pub(crate) async fn describe(&self) -> Result<String, DockerError> {
        let version = self.docker().await?.version().await.map_err(failed("say what it is"))?;
        let name = version.components.unwrap_or_default().into_iter().next().map(|component| component.name);
        Ok(format!(
            "{} {} (API {}) at {}",
            name.unwrap_or_else(|| "Docker Engine".to_owned()),
            version.version.unwrap_or_default(),
            version.api_version.unwrap_or_default(),
            self.address().unwrap_or_default()
        ))
    }

    /// What says that something is this broker's.
    fn own_labels(&self) -> HashMap<String, String> {
        HashMap::from([(FOLDER.to_owned(), self.folder.clone()), (RUN.to_owned(), self.run.clone())])
    }

    fn labels(&self, session: Option<&SessionId>) -> HashMap<String, String> {
        let mut labels = self.own_labels();
        labels.insert(SESSION.to_owned(), session.map_or("shared", SessionId::as_str).to_owned());
        labels
    }

    /// A volume of the session's own, so that what one session's server keeps is not another's.
    async fn volume(&self, session: Option<&SessionId>, volume: &str) -> Result<String, DockerError> {
        let owner = fingerprint(session.map_or("shared", SessionId::as_str), 12);
        let name = format!("mcp-broker-{}-{owner}-{volume}", self.folder);
        let mut labels = self.labels(session);
        // It outlives the broker, and is asked for with the same labels by the next one.
        labels.remove(RUN);
        let request = VolumeCreateRequest { name: Some(name.clone()), labels: Some(labels), ..Default::default() };
        self.docker().await?.create_volume(request).await.map_err(failed("make a volume"))?;
        Ok(name)
    }

    /// An engine that cannot be reached is what went wrong, whatever was asked of it.
    fn plainly(&self, error: DockerError) -> DockerError {
        match error {
            DockerError::Api { source, .. } if is_lost(&source) => {
                DockerError::Unreachable { address: self.address().unwrap_or_default().to_owned(), source }
            }
            other => other,
        }
    }
}

/// Whether it is the connection that failed, rather than the engine that refused.
fn is_lost(error: &ApiError) -> bool {
    matches!(
        error,
        ApiError::HyperLegacyError { .. }
            | ApiError::HyperResponseError { .. }
            | ApiError::IOError { .. }
            | ApiError::RequestTimeoutError
            | ApiError::SocketNotFoundError(_)
    )
}

async fn connect(address: &str) -> Result<Docker, ApiError> {
    let docker = match address.strip_prefix("unix://") {
        Some(path) => Docker::connect_with_unix(path, REQUEST_SECONDS_MAX, API_DEFAULT_VERSION),
        None => Docker::connect_with_http(address, REQUEST_SECONDS_MAX, API_DEFAULT_VERSION),
    }?;
    docker.negotiate_version().await
}

fn address(settings: &ContainerSettings) -> Option<String> {
    let named = settings.engine.clone().or_else(|| std::env::var("DOCKER_HOST").ok()).filter(|host| !host.is_empty());
    if named.as_deref() == Some("none") {
        return None;
    }
    named.or_else(|| {
        let users = std::env::var("XDG_RUNTIME_DIR").ok().map(|folder| format!("{folder}/podman/podman.sock"));
        let mut sockets = SOCKETS.into_iter().map(str::to_owned).chain(users);
        sockets.find(|path| Path::new(path).exists()).map(|path| format!("unix://{path}"))
    })
}

/// Whose container it is.
#[derive(Clone)]
pub(crate) struct Owner {
    pub(crate) session: Option<SessionId>,
    pub(crate) server: ServerName,
}

impl Engine {
    /// Starts a container, its image pulled if it has to be.
    ///
    /// Whoever waits for this may stop waiting: what is on its way then is finished, so that nothing is made that nobody
    /// knows of, and removed.
    pub(crate) async fn start(
        self: &Arc<Self>,
        launch: &ContainerLaunch,
        owner: Owner,
        tail: Tail,
        link: &Link,
    ) -> Result<(Container, Streams), DockerError> {
        self.start_with(launch.clone(), owner, tail, link.clone(), self.settings.pull).await
    }

    /// Starts a container whose image was fetched before; if it is gone since, it is pulled again.
    pub(crate) async fn start_again(
        self: &Arc<Self>,
        launch: ContainerLaunch,
        owner: Owner,
        tail: Tail,
    ) -> Result<(Container, Streams), DockerError> {
        let pull = if self.settings.pull == Pull::Never { Pull::Never } else { Pull::Missing };
        self.start_with(launch, owner, tail, Link::closed(), pull).await
    }

    async fn start_with(
        self: &Arc<Self>,
        mut launch: ContainerLaunch,
        owner: Owner,
        tail: Tail,
        link: Link,
        pull: Pull,
    ) -> Result<(Container, Streams), DockerError> {
        let engine = self.clone();
        let starting = self.tasks.spawn(async move {
            launch.image = engine.fetched(&launch.image, pull, &link).await?;
            engine.run(&launch, &owner, tail).await
        });
        starting.await.unwrap_or_else(|_| Err(DockerError::Cut)).map_err(|error| self.plainly(error))
    }

    /// Has an image here, pulled if the operator's settings say so. It goes on when nobody waits for it any more.
    pub(crate) async fn fetch(self: &Arc<Self>, image: &str, link: &Link) -> Result<(), DockerError> {
        let (engine, image, link) = (self.clone(), image.to_owned(), link.clone());
        let fetching = self.tasks.spawn(async move { engine.fetched(&image, engine.settings.pull, &link).await });
        fetching.await.unwrap_or(Err(DockerError::Cut)).map(drop).map_err(|error| self.plainly(error))
    }

    /// Has an image here, and says what is to be run for it.
    async fn fetched(&self, image: &str, pull: Pull, link: &Link) -> Result<String, DockerError> {
        self.swept().await;
        self.discard_undone().await;
        // A record of a pull has to be closed, so the limit is around each step, and not around them all.
        let deadline = Instant::now() + self.pull_max.min(PULL_MAX);
        self.image(image, pull, link, deadline).await?;
        self.in_time(image, timeout_at(deadline, self.signed(image)).await)
    }

    /// What came of a step of having an image here, which may have been cut.
    fn in_time<T>(&self, image: &str, step: Result<Result<T, DockerError>, Elapsed>) -> Result<T, DockerError> {
        step.unwrap_or_else(|_| Err(self.late(image)))
    }

    fn late(&self, image: &str) -> DockerError {
        let problem = format!("it was not there within {} s", self.pull_max.as_secs());
        DockerError::Pull { image: image.to_owned(), problem }
    }

    fn pull_lock(&self, image: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut pulls = self.pulls.lock().unwrap_or_else(PoisonError::into_inner);
        pulls.retain(|_, lock| Arc::strong_count(lock) > 1);
        pulls.entry(image.to_owned()).or_default().clone()
    }
}
