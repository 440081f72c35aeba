//! Getting at a server: the connection to its instance, started if it is not running.

use std::sync::{Arc, Weak};

use rmcp::model::ClientCapabilities;
use serde_json::{Map, Value};
use tokio::sync::broadcast::error::RecvError;

use super::Context;
use crate::{
    caller::{Caller, Era},
    catalog::{Entry, Runnable},
    ids::{ServerName, canonical, fingerprint},
    session::Session,
    supervisor::{
        Asker, Instance, Key, Start, StartError, Upstream,
        calls::InstanceEvent,
        instance::Using,
        launch::{self, Inputs, LaunchError},
    },
};

/// A server that can be called, kept from being stopped as idle.
pub(super) struct Reached {
    pub(super) upstream: Arc<Upstream>,
    pub(super) instance: Arc<Instance>,
    _using: Using,
}

/// A server cannot be called.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReachError {
    #[error("server `{0}` is no longer in the catalog: remove it, or ask the operator to add the catalog it came from")]
    NotInCatalog(ServerName),
    #[error("server `{server}` cannot run now; it still needs:\n{advice}")]
    Needs { server: ServerName, advice: String },
    #[error("server `{server}` cannot be started: {problem}")]
    Launch { server: ServerName, problem: String },
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("the client cancelled the call")]
    Cancelled,
}

impl From<(&Entry, LaunchError)> for ReachError {
    fn from((entry, error): (&Entry, LaunchError)) -> Self {
        let problem = crate::supervisor::upstream::chain(&error);
        Self::Launch { server: entry.name.clone(), problem }
    }
}

impl Context {
    /// The server of that name as a session has it: its own, else the catalog's.
    pub(super) fn entry(&self, session: &Session, server: &ServerName) -> Option<Arc<Entry>> {
        session.own_entry(server).or_else(|| self.catalog.entry(server))
    }

    /// Why a session may not have a server; nothing if it may.
    pub(super) fn refusal(&self, entry: &Entry) -> Option<String> {
        self.catalog.refusal_of(entry)
    }

    /// The connection to `server` in `session`. Waits for it to start, until the caller takes the call back.
    pub(super) async fn reach(
        &self,
        session: &Arc<Session>,
        server: &ServerName,
        caller: &Caller,
    ) -> Result<Reached, ReachError> {
        let entry = self.entry(session, server).ok_or_else(|| ReachError::NotInCatalog(server.clone()))?;
        let key = key_of(session, &entry);
        let mut reached = self.ensure_running(session, &entry, &key, caller).await?;
        if !entry.shared && reached.instance.undersells(&caller.capabilities) {
            reached.instance.stop();
            reached.instance.gone().await;
            reached = self.ensure_running(session, &entry, &key, caller).await?;
        }
        self.attach(session, &entry, &reached.instance, &reached.upstream, caller).await;
        Ok(reached)
    }

    /// The instance that is there, or a new one, when it is ready.
    async fn ensure_running(
        &self,
        session: &Arc<Session>,
        entry: &Arc<Entry>,
        key: &Key,
        caller: &Caller,
    ) -> Result<Reached, ReachError> {
        let instance = match self.supervisor.lasting(key) {
            Some(instance) => instance,
            None => {
                let config = self.config_of(session, entry);
                let needs = self.needs(Some(session.id()), entry, &config, &[]);
                if !needs.is_empty() {
                    return Err(ReachError::Needs { server: entry.name.clone(), advice: needs.advice(entry) });
                }
                self.start(session, entry, &config, caller).await?
            }
        };
        let using = instance.using();
        let upstream = tokio::select! {
            ready = self.supervisor.ready(key, &instance) => ready?,
            () = caller.cancelled.cancelled() => return Err(ReachError::Cancelled),
        };
        Ok(Reached { upstream, instance, _using: using })
    }

    /// Starts a server that has all it needs. Returns at once, with the instance starting.
    pub(super) async fn start(
        &self,
        session: &Arc<Session>,
        entry: &Arc<Entry>,
        config: &Map<String, Value>,
        caller: &Caller,
    ) -> Result<Arc<Instance>, ReachError> {
        let run = self.run_for(entry).map_err(|missing| ReachError::Launch {
            server: entry.name.clone(),
            problem: format!("this machine has no {}", missing.join(", and no ")),
        })?;
        let key = key_of(session, entry);
        let folder = self.supervisor.folder(&key);
        let secrets = self.secret_values(key.session.as_ref(), entry);
        let inputs = Inputs { config: &Value::Object(config.clone()), folder: &folder, secrets: &secrets };
        let launch = launch::plan(entry, run, &inputs).map_err(|error| ReachError::from((entry.as_ref(), error)))?;
        let capabilities = if entry.shared { ClientCapabilities::default() } else { caller.capabilities.clone() };
        let learned = self.supervisor.learned(&learned_key(entry, run, config, &capabilities)).await;
        let era = learned.map(|surface| if surface.modern { Era::Modern } else { Era::Legacy });
        let asker: Weak<dyn Asker> =
            if entry.shared { Weak::<Session>::new() } else { Arc::downgrade(session) as Weak<dyn Asker> };
        let start = || Start {
            server: entry.name.clone(),
            session: key.session.clone(),
            principal: caller.principal.clone(),
            kind: run.kind(),
            launch,
            link: caller.link.clone(),
            capabilities,
            asker,
            era,
        };
        Ok(self.supervisor.ensure(&key, start).await?)
    }

    /// Has the session listen to an instance, and the instance know what the session's clients asked for.
    pub(super) async fn attach(
        &self,
        session: &Arc<Session>,
        entry: &Arc<Entry>,
        instance: &Arc<Instance>,
        upstream: &Arc<Upstream>,
        caller: &Caller,
    ) {
        if let Some(surface) = instance.surface() {
            session.put_surface(instance.server(), surface);
        }
        if !session.attach(instance) {
            return;
        }
        self.listen(session, instance);
        if let (Some(surface), Ok(run)) = (instance.surface(), self.run_for(entry)) {
            let config = self.config_of(session, entry);
            let capabilities = if entry.shared { ClientCapabilities::default() } else { caller.capabilities.clone() };
            let learned_as = learned_key(entry, run, &config, &capabilities);
            self.supervisor.learn(&learned_as, &entry.name, &surface).await;
            if self.is_everybodys(session, entry, &config) && self.supervisor.learn_tools(&entry.name, &surface).await {
                self.catalog.has_learned();
            }
        }
        if let Some(level) = session.log_level() {
            upstream.set_log_level(level).await;
        }
        for uri in session.followed(instance.server()) {
            match upstream.subscribe(&uri).await {
                Ok(subscription) => session.refollow(&uri, subscription),
                Err(error) => tracing::debug!(%error, "a server did not take a subscription again"),
            }
        }
    }

    fn listen(&self, session: &Arc<Session>, instance: &Arc<Instance>) {
        let mut events = instance.events();
        let session = Arc::downgrade(session);
        let instance = instance.clone();
        self.tasks.spawn(async move {
            loop {
                let event = tokio::select! {
                    event = events.recv() => event,
                    _ = instance.gone() => return,
                };
                let Some(session) = session.upgrade() else { return };
                match event {
                    Ok(event) => session.happened(&instance, event),
                    Err(RecvError::Lagged(_)) => session.happened(&instance, InstanceEvent::ToolsChanged),
                    Err(RecvError::Closed) => return,
                }
            }
        });
    }

    /// Fills in what is known of servers from an earlier run, without starting anything.
    pub(super) async fn recall(&self, session: &Session, caller: &Caller) {
        for added in session.servers().into_iter().filter(|added| added.surface.is_none()) {
            let Some(entry) = self.entry(session, &added.server) else { continue };
            let Ok(run) = self.run_for(&entry) else { continue };
            let config = self.config_of(session, &entry);
            let capabilities = if entry.shared { ClientCapabilities::default() } else { caller.capabilities.clone() };
            if let Some(surface) = self.supervisor.learned(&learned_key(&entry, run, &config, &capabilities)).await {
                session.put_surface(&added.server, surface);
            }
        }
    }
}

/// Whose instance serves an entry in a session.
pub(super) fn key_of(session: &Session, entry: &Entry) -> Key {
    Key { session: (!entry.shared).then(|| session.id().clone()), server: entry.name.clone() }
}

/// What a server offers may depend on how it is run, on its config, and on what its client says it can do.
pub(super) fn learned_key(
    entry: &Entry,
    run: &Runnable,
    config: &Map<String, Value>,
    capabilities: &ClientCapabilities,
) -> String {
    let can = format!(
        "{}{}{}",
        u8::from(capabilities.roots.is_some()),
        u8::from(capabilities.sampling.is_some()),
        u8::from(capabilities.elicitation.is_some())
    );
    let config = fingerprint(&canonical(config), 16);
    format!("{}-{config}-{can}", entry.fingerprint(run))
}
