//! The composition root: the only file that knows everybody.
//!
//! Everything is opened and checked first, and served last. Stopping goes the other way: nothing new is accepted, calls in
//! flight may finish until a deadline, instances end, and the database is closed when nobody writes to it any more.

mod everybody;
mod folder;

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use everybody::Everybody;
pub use folder::{DataFolder, FolderError};

use crate::{
    audit::{self, Audit, AuditError, Signer},
    catalog::{Catalog, CatalogFileError, Sources},
    clock::SharedClock,
    codemode::CodeMode,
    compose::{ComposeError, Definition},
    config::Settings,
    endpoint::Parked,
    features::{Features, SetFeatureError},
    http::{
        ApiState, HttpParts, TokenError,
        api::ApiParts,
        socket::{self, SocketError},
    },
    ids::ServerName,
    lifecycle::{Count, Tasks},
    memory,
    profiles::{Profiles, ProfilesError},
    secrets::{OpenSecretsError, Secrets},
    session::Sessions,
    store::{OpenStoreError, Store, StoreError},
    supervisor::{RemoteError, Supervisor},
    tools::{Parts, Tools},
};

/// How long a stdio client whose broker was lost has to come to this one, before its session ends.
const REATTACH_WITHIN: Duration = Duration::from_secs(60);

const CLOSE_WITHIN: Duration = Duration::from_secs(10);

/// The broker of one data folder.
pub struct App {
    pub parts: HttpParts,
    pub catalog: Arc<Catalog>,
    pub store: Store,
    pub settings: Settings,
    sources: Arc<Sources>,
    audit: Audit,
    supervisor: Arc<Supervisor>,
    sessions: Arc<Sessions>,
    tasks: Tasks,
    /// Cancelled when open streams are to end: after calls in flight have had their time.
    streams: CancellationToken,
    /// Held until the very end.
    _folder: DataFolder,
}

/// The broker cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error(transparent)]
    Catalog(#[from] CatalogFileError),
    #[error("the list of catalog sources in the data folder cannot be read")]
    Sources(#[source] std::io::Error),
    #[error(
        "the server `{0}` is not in the catalog: check the name given with --server or in the settings file, or add its \
         catalog with --catalog"
    )]
    UnknownServer(ServerName),
    #[error(transparent)]
    Profile(#[from] ProfilesError),
    #[error("the profiles that every session is to have cannot be used:\n{}", .0.join("\n"))]
    Profiles(Vec<String>),
    #[error(transparent)]
    Compose(#[from] ComposeError),
    #[error("the Compose file cannot be used:\n{}", .0.join("\n"))]
    Services(Vec<String>),
    #[error("could not look at the database")]
    Read(#[from] StoreError),
    #[error(transparent)]
    Store(#[from] OpenStoreError),
    #[error(transparent)]
    Secrets(#[from] OpenSecretsError),
    #[error(transparent)]
    Features(#[from] SetFeatureError),
    #[error(transparent)]
    Remote(#[from] RemoteError),
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error("the key that audit checkpoints are signed with cannot be used")]
    Signer(#[from] aws_lc_rs::error::KeyRejected),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    Socket(#[from] SocketError),
}

impl App {
    /// Opens everything. Nothing is served yet.
    ///
    /// # Errors
    ///
    /// When anything is not as it has to be, with a sentence on what to do.
    pub async fn open(
        settings: Settings,
        folder: DataFolder,
        clock: SharedClock,
        tasks: Tasks,
    ) -> Result<Self, OpenError> {
        let compose = everybody::compose(&settings)?;
        let services = compose.iter().map(Definition::entry).collect();
        let catalog = Arc::new(Catalog::beside(&settings.catalogs, services, settings.catalog.clone())?);
        let store = Store::open(folder.path(), settings.audit.durability, &tasks).await?;
        let sources = Sources::open(folder.path(), catalog.clone(), store.clone(), clock.clone());
        let sources = Arc::new(sources.map_err(OpenError::Sources)?);
        check_servers(&catalog, &settings)?;
        let (token, _) = crate::http::load_token(folder.path())?;
        let secrets = Arc::new(Secrets::open(folder.path(), store.clone(), clock.clone()).await?);
        let features = Arc::new(Features::load(&settings.features, store.clone(), clock.clone()).await?);
        everybody::hold_variables(&secrets, &compose);
        let profiles = Arc::new(Profiles::open(store.clone(), clock.clone(), features.clone()).await?);
        let everybody = Everybody::of(&settings, &compose, &profiles).await?;
        let limits = settings.limits.clone();
        let audit = Audit::new(store.clone(), clock.clone(), secrets.redactor(), &limits);
        let supervisor =
            Arc::new(Supervisor::new(&settings, audit.clone(), store.clone(), clock.clone(), tasks.clone())?);
        let sessions = Arc::new(Sessions::new(
            store.clone(),
            audit.clone(),
            secrets.clone(),
            supervisor.clone(),
            clock.clone(),
            limits.clone(),
            everybody.servers.clone(),
            tasks.clone(),
        ));
        let tools = Tools::new(Parts {
            catalog: catalog.clone(),
            supervisor: supervisor.clone(),
            sessions: sessions.clone(),
            features,
            profiles,
            secrets: secrets.clone(),
            audit: audit.clone(),
            limits: limits.clone(),
            server_config: everybody.config,
            tasks: tasks.clone(),
            code_mode: CodeMode::new(settings.code_mode.clone(), tasks.clone()),
            store: store.clone(),
            clock: clock.clone(),
        });
        let (new, more) = (&everybody.of_profiles, &everybody.more_of_profiles);
        let problems = tools.fixed_problems(new, more, everybody.servers.len());
        if !problems.is_empty() {
            return Err(OpenError::Profiles(problems.iter().map(ToString::to_string).collect()));
        }
        let secrets_seed = secrets.derive_key("audit checkpoints");
        let api = ApiState::new(ApiParts {
            tools: tools.clone(),
            supervisor: supervisor.clone(),
            sources: sources.clone(),
            catalog: catalog.clone(),
            secrets,
            audit: audit.clone(),
            signer: Signer::from_seed(&secrets_seed)?,
            store: store.clone(),
            clock,
            token: token.hash(),
        });
        let parked = Arc::new(Parked::new(limits.questions_max, limits.question()));
        recover(&audit, &supervisor).await?;
        Ok(Self {
            parts: HttpParts { tools, parked, api, attached: Count::default() },
            catalog,
            store,
            settings,
            sources,
            audit,
            supervisor,
            sessions,
            tasks,
            streams: CancellationToken::new(),
            _folder: folder,
        })
    }

    /// Starts what runs beside serving: looking after the catalog, the log and sessions.
    pub fn start_background(&self) {
        let refresh = self.settings.catalog.refresh();
        let tending = self.sources.clone().tend(refresh, self.tasks.stopping_token());
        self.tasks.spawn_service("catalog", tending);
        let retention = self.settings.audit.retention;
        if retention != audit::Retention::default() {
            let tending = audit::tend(self.audit.clone(), retention, self.tasks.stopping_token());
            self.tasks.spawn_service("audit retention", tending);
        }
        self.tasks.spawn_service("sessions", self.sessions.clone().tend(self.tasks.stopping_token()));
        let (calls, stopping) = (self.store.commits(), self.tasks.stopping_token());
        self.tasks.spawn_service("memory", async move {
            stopping.run_until_cancelled(memory::tend(calls)).await;
        });
        let (sessions, stopping) = (self.sessions.clone(), self.tasks.stopping_token());
        self.tasks.spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(REATTACH_WITHIN) => {
                    if let Err(error) = sessions.end_orphans().await {
                        tracing::warn!(%error, "sessions of processes that are gone were not ended");
                    }
                }
                () = stopping.cancelled() => {}
            }
        });
    }

    /// Starts serving the unix socket.
    ///
    /// # Errors
    ///
    /// When the socket cannot be made.
    pub fn serve_socket(&self) -> Result<(), SocketError> {
        let listener = socket::listen(self.settings_folder())?;
        let serving = socket::serve(listener, self.parts.clone(), self.tasks.stopping_token());
        self.tasks.spawn_service("socket", serving);
        Ok(())
    }

    /// Starts serving HTTP.
    pub fn serve_http(&self, listener: crate::http::Listener) {
        self.parts.api.set_base_url(format!("http://{}", listener.address()));
        let serving = listener.serve(self.parts.clone(), self.tasks.stopping_token(), self.streams.clone());
        self.tasks.spawn_service("http", serving);
    }

    #[must_use]
    pub fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    fn settings_folder(&self) -> &std::path::Path {
        &self.settings.data_folder
    }

    /// Stops in order. `cut` ends the time that calls in flight have.
    pub async fn stop(self, cut: impl Future<Output = ()>) {
        self.tasks.stop();
        let limit = self.settings.limits.shutdown();
        tokio::select! {
            () = self.tasks.unanswered().none() => {}
            () = tokio::time::sleep(limit) => tracing::warn!("calls in flight were cut off"),
            () = cut => {}
        }
        self.streams.cancel();
        self.supervisor.stop_all().await;
        self.tasks.cut_off();
        if let Err(error) = self.sessions.flush().await {
            tracing::warn!(%error, "when sessions were last used was not noted");
        }
        if !self.tasks.wait(CLOSE_WITHIN).await {
            tracing::warn!("some tasks did not end");
        }
        self.store.close().await;
        let _ = self.tasks.wait_for_last(CLOSE_WITHIN).await;
        let _ = std::fs::remove_file(socket::path(self.settings_folder()));
    }
}

fn check_servers(catalog: &Catalog, settings: &Settings) -> Result<(), OpenError> {
    match settings.servers.iter().find(|server| catalog.entry(server).is_none()) {
        Some(unknown) => Err(OpenError::UnknownServer(unknown.clone())),
        None => Ok(()),
    }
}

/// Takes care of what a broker before this one left behind, because it was killed.
async fn recover(audit: &Audit, supervisor: &Supervisor) -> Result<(), AuditError> {
    let killed = supervisor.clean_up().await;
    if killed > 0 {
        tracing::info!(processes = killed, "ended servers that an earlier broker left running");
    }
    let abandoned = audit.sweep().await?;
    if abandoned > 0 {
        tracing::info!(records = abandoned, "closed records that an earlier broker left open");
    }
    Ok(())
}
