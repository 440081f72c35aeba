//! Servers as containers, through the Docker Engine's API (Docker or Podman).
//!
//! A container is attached to before it is started, so that nothing it says is lost, and spoken to over the attached
//! streams. It has no more rights than it needs: no new privileges, no capabilities, bounded CPU, memory and processes, and
//! a network of its session's own or none. Everything that is made here is labelled with the data folder; what a broker
//! before this one left is found by that.

mod container;
mod gate;
mod image;
mod mounts;
mod network;
mod signature;

use std::{
    collections::{BTreeSet, HashMap},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bollard::{
    API_DEFAULT_VERSION, Docker,
    errors::Error as ApiError,
    models::VolumeCreateRequest,
    query_parameters::{
        ListContainersOptions, ListNetworksOptions, ListVolumesOptions, RemoveContainerOptions, RemoveVolumeOptions,
    },
};
use tokio::{
    sync::{OnceCell, Semaphore},
    time::{Instant, error::Elapsed, timeout_at},
};

pub(crate) use container::{Container, End};
use gate::GateError;
use mounts::MountError;
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

/// How long the end of a session waits for an engine that was not spoken to yet.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Sessions that are remembered because what they left could not be removed.
const ENDED_MAX: usize = 1000;

/// Containers that are started or removed at a time: an engine that is asked for more does each of them later.
const AT_ONCE_MAX: usize = 8;

/// The container engine of this machine.
pub(crate) struct Engine {
    address: Option<String>,
    connection: OnceCell<Docker>,
    settings: ContainerSettings,
    folder: String,
    run: String,
    pulls: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    pull_max: Duration,
    /// Set once what an earlier broker left is removed.
    swept: OnceCell<()>,
    networks: Networks,
    starts: Semaphore,
    /// Containers that could not be removed, because the engine did not answer.
    undone: Mutex<Vec<String>>,
    /// Ended sessions whose networks and volumes could not be removed, for the same reason.
    ended: Mutex<BTreeSet<SessionId>>,
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
    pub(crate) fn new(settings: ContainerSettings, folder: &str, pull_max: Duration, tasks: &Tasks) -> Self {
        Self {
            address: address(&settings),
            connection: OnceCell::new(),
            settings,
            folder: folder.to_owned(),
            run: uuid::Uuid::now_v7().to_string(),
            pulls: Mutex::default(),
            pull_max,
            swept: OnceCell::new(),
            networks: Networks::default(),
            starts: Semaphore::new(AT_ONCE_MAX),
            undone: Mutex::default(),
            ended: Mutex::default(),
            known_signed: Mutex::default(),
            audit: None,
            tasks: tasks.clone(),
        }
    }

    /// An engine for a command that runs no servers, beside a broker that may do so.
    pub(crate) fn beside(settings: ContainerSettings, pull_max: Duration, tasks: &Tasks) -> Self {
        Self { swept: OnceCell::new_with(Some(())), ..Self::new(settings, "", pull_max, tasks) }
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

    fn labels(&self, session: Option<&SessionId>) -> HashMap<String, String> {
        HashMap::from([
            (FOLDER.to_owned(), self.folder.clone()),
            (RUN.to_owned(), self.run.clone()),
            (SESSION.to_owned(), session.map_or("shared", SessionId::as_str).to_owned()),
        ])
    }

    /// What a session's network and volumes are called.
    fn name(&self, session: Option<&SessionId>, what: &str) -> String {
        let owner = fingerprint(session.map_or("shared", SessionId::as_str), 12);
        format!("mcp-broker-{}-{owner}{what}", self.folder)
    }

    /// A volume of the session's own, so that what one session's server keeps is not another's.
    async fn volume(&self, session: Option<&SessionId>, volume: &str) -> Result<String, DockerError> {
        let name = self.name(session, &format!("-{volume}"));
        let mut labels = self.labels(session);
        // It outlives the broker, and is asked for with the same labels by the next one.
        labels.remove(RUN);
        let request = VolumeCreateRequest { name: Some(name.clone()), labels: Some(labels), ..Default::default() };
        self.docker().await?.create_volume(request).await.map_err(failed("make a volume"))?;
        Ok(name)
    }

    /// Removes the network and the volumes of a session that has ended. Its containers are gone already.
    ///
    /// If the engine does not answer, the session is remembered, and what it left is removed when the engine does.
    pub(crate) async fn end_session(&self, session: &SessionId) {
        if self.address.is_none() {
            return;
        }
        // An engine may never have been needed, and may hang: that is not to hold up the end of a session.
        match tokio::time::timeout(CONNECT_MAX, self.docker()).await {
            Ok(Ok(_)) => {
                self.clear(session).await;
            }
            Ok(Err(_)) | Err(_) => self.remember(session),
        }
    }

    /// Removes what an ended session left, or remembers the session. Says whether it could.
    async fn clear(&self, session: &SessionId) -> bool {
        let filter = format!("{SESSION}={}", session.as_str());
        match self.remove(&filter, Extent::Session).await {
            Ok(_) => true,
            Err(error) => {
                tracing::warn!(%error, "what a session's containers left was not removed; it will be tried again");
                self.remember(session);
                false
            }
        }
    }

    fn remember(&self, session: &SessionId) {
        let mut ended = self.ended();
        if ended.len() < ENDED_MAX {
            ended.insert(session.clone());
        } else if !ended.contains(session) {
            tracing::warn!(session.id = session.as_str(), "what a session's containers left stays with the engine");
        }
    }

    fn ended(&self) -> std::sync::MutexGuard<'_, BTreeSet<SessionId>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to remove what a broker before this one left. Nobody waits for it but the first container: an engine that is
    /// slow to answer does not keep the broker from starting.
    pub(crate) fn sweep(self: &Arc<Self>) {
        if self.address.is_none() {
            return;
        }
        let (engine, stopping) = (self.clone(), self.tasks.stopping_token());
        drop(self.tasks.spawn(async move {
            tokio::select! {
                () = engine.swept() => {}
                () = stopping.cancelled() => {}
            }
        }));
    }

    /// Completes when what an earlier broker left has been removed, or could not be: then the next caller tries again.
    async fn swept(&self) {
        // Why it could not is in the log. Whether the caller gets what it wants is for the engine to say.
        let _ = self.swept.get_or_try_init(|| self.clean_up_earlier()).await;
    }

    /// Removes what an earlier broker left. Containers of this one may run already, if it could not be done before.
    async fn clean_up_earlier(&self) -> Result<(), DockerError> {
        self.docker().await?;
        // A container that is being started may be about to use a network that is found here.
        let all = u32::try_from(AT_ONCE_MAX).unwrap_or(u32::MAX);
        let _none_starts = self.starts.acquire_many(all).await;
        self.clean_up(Extent::Earlier).await
    }

    /// Removes containers and networks of this data folder.
    async fn clean_up(&self, extent: Extent) -> Result<(), DockerError> {
        let removed = self.remove(&format!("{FOLDER}={}", self.folder), extent).await;
        match &removed {
            Ok(0) | Err(DockerError::Unreachable { .. } | DockerError::None) => {}
            Ok(containers) => tracing::info!(containers, "removed containers that were left running"),
            Err(error) => tracing::warn!(%error, "containers that were left were not removed"),
        }
        removed.map(drop)
    }

    /// Removes networks, and containers that are left, when the broker stops. Volumes stay: sessions go on.
    pub(crate) async fn close(&self) {
        if self.connection.get().is_some() && self.clean_up(Extent::Folder).await.is_ok() {
            self.clear_ended().await;
        }
    }

    /// Removes a container, whatever state it is in. One that is gone already is fine.
    async fn discard(&self, id: &str) {
        let options = RemoveContainerOptions { v: true, force: true, link: false };
        let removed = match self.docker().await {
            Ok(docker) => docker.remove_container(id, Some(options)).await,
            Err(_) => return,
        };
        match removed {
            // Gone, or being removed.
            Ok(()) | Err(ApiError::DockerResponseServerError { status_code: 404 | 409, .. }) => {}
            Err(error) => {
                tracing::warn!(%error, container.id = id, "a container was not removed; it will be tried again");
                self.undone().push(id.to_owned());
            }
        }
    }

    /// Removes what could not be removed before.
    async fn discard_undone(&self) {
        let undone = std::mem::take(&mut *self.undone());
        futures_util::future::join_all(undone.iter().map(|id| self.discard(id))).await;
        let any_ended = !self.ended().is_empty();
        if any_ended && self.docker().await.is_ok() {
            self.clear_ended().await;
        }
    }

    /// Removes what sessions left that have ended, until the engine fails.
    async fn clear_ended(&self) {
        let mut ended = std::mem::take(&mut *self.ended());
        while let Some(session) = ended.pop_first() {
            if !self.clear(&session).await {
                break;
            }
        }
        self.ended().append(&mut ended);
    }

    fn undone(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.undone.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Removes what has a label. Says how many containers that were.
    async fn remove(&self, label: &str, extent: Extent) -> Result<usize, DockerError> {
        let docker = self.docker().await?;
        let filters = || {
            let labels = vec![format!("{FOLDER}={}", self.folder), label.to_owned()];
            Some(HashMap::from([("label".to_owned(), labels)]))
        };
        let options = ListContainersOptions { all: true, filters: filters(), ..Default::default() };
        let mut containers = docker.list_containers(Some(options)).await.map_err(failed("list containers"))?;
        containers.retain(|container| extent.covers(container.labels.as_ref(), &self.run));
        let ids: Vec<String> = containers.iter().filter_map(|container| container.id.clone()).collect();
        for some in ids.chunks(AT_ONCE_MAX) {
            futures_util::future::join_all(some.iter().map(|id| self.discard(id))).await;
        }
        let names: Vec<&str> =
            containers.iter().flat_map(|container| container.names.iter().flatten()).map(String::as_str).collect();
        let mut networks = docker
            .list_networks(Some(ListNetworksOptions { filters: filters() }))
            .await
            .map_err(failed("list networks"))?;
        networks.retain(|network| extent.covers(network.labels.as_ref(), &self.run));
        for network in networks.into_iter().filter_map(|network| network.name) {
            self.remove_network(&network, &names).await;
        }
        if extent == Extent::Session {
            let found = docker
                .list_volumes(Some(ListVolumesOptions { filters: filters() }))
                .await
                .map_err(failed("list volumes"))?;
            for volume in found.volumes.unwrap_or_default() {
                if let Err(error) = docker.remove_volume(&volume.name, None::<RemoveVolumeOptions>).await {
                    tracing::warn!(%error, volume.name, "a volume was not removed");
                }
            }
        }
        Ok(ids.len())
    }
}

/// How much is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// Containers and networks that an earlier broker made.
    Earlier,
    /// Containers and networks.
    Folder,
    /// Containers, networks and volumes.
    Session,
}

impl Extent {
    /// Whether it covers what has these labels, when this broker's run is `run`.
    fn covers(self, labels: Option<&HashMap<String, String>>, run: &str) -> bool {
        self != Self::Earlier || labels.and_then(|labels| labels.get(RUN)).is_none_or(|made_by| made_by != run)
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
        let (engine, mut launch, link) = (self.clone(), launch.clone(), link.clone());
        let starting = self.tasks.spawn(async move {
            launch.image = engine.fetched(&launch.image, engine.settings.pull, &link).await?;
            engine.run(&launch, &owner, tail).await
        });
        starting.await.unwrap_or_else(|_| Err(DockerError::Cut)).map_err(|error| self.plainly(error))
    }

    /// Starts a container whose image was fetched before; if it is gone since, it is pulled again.
    pub(crate) async fn start_again(
        self: &Arc<Self>,
        mut launch: ContainerLaunch,
        owner: Owner,
        tail: Tail,
    ) -> Result<(Container, Streams), DockerError> {
        let engine = self.clone();
        let starting = self.tasks.spawn(async move {
            let pull = if engine.settings.pull == Pull::Never { Pull::Never } else { Pull::Missing };
            launch.image = engine.fetched(&launch.image, pull, &Link::closed()).await?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_an_engine_that_does_not_answer_keeps_is_not_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let address = format!("unix://{}", folder.path().join("engine.sock").display());
        let settings = ContainerSettings { engine: Some(address), ..ContainerSettings::default() };
        let (tasks, _crashes) = Tasks::new();
        let engine = Engine::new(settings, "folder", Duration::from_secs(1), &tasks);
        engine.swept().await;
        assert!(engine.swept.get().is_none());
        let session = SessionId::random();
        engine.end_session(&session).await;
        engine.discard_undone().await;
        assert!(engine.ended().contains(&session));
    }

    #[test]
    fn a_late_sweep_spares_what_this_broker_made() {
        let labels = |run: &str| HashMap::from([(RUN.to_owned(), run.to_owned())]);
        assert!(!Extent::Earlier.covers(Some(&labels("this")), "this"));
        assert!(Extent::Earlier.covers(Some(&labels("another")), "this"));
        assert!(Extent::Earlier.covers(None, "this"));
        assert!(Extent::Folder.covers(Some(&labels("this")), "this"));
    }
}
