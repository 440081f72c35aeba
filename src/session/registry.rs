//! Every session there is: made, found, changed, ended.
//!
//! Changes are committed first and take effect in memory after. A session that nobody uses is dropped from memory and read
//! again when somebody does; one that was not used for long enough has ended.

mod changes;
mod compose;
mod connections;
mod ends;
mod tend;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::{Map, Value};
use tokio::sync::Notify;

use super::{FixedServer, NewServer, Session};
use crate::{
    audit::{Audit, AuditError, Kind, Status, Subject},
    clock::SharedClock,
    config::Limits,
    ids::{Principal, ServerName, SessionId, TokenHash},
    lifecycle::Tasks,
    secrets::Secrets,
    store::{
        Store, StoreError,
        sessions::{Activation, SessionKind, SessionRow, SessionServerRow, StoredSession},
    },
    supervisor::{Supervisor, Surface},
};
pub use compose::TakeError;
pub use ends::NewSession;

/// A session cannot be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum SessionsError {
    #[error("{max} sessions are open, which is the limit: end some, or raise limits.sessions_max")]
    TooMany { max: usize },
    #[error("a session named `{name}` exists already")]
    NameTaken { name: String },
    #[error("a session's name has 1 to 200 characters, none of them control characters")]
    InvalidName,
    #[error("a session's label has 1 to 200 characters, none of them control characters")]
    InvalidLabel,
    #[error("`ttl` is in seconds, from 1 to {max}: the operator's limits allow no more for this session")]
    InvalidTtl { max: u64 },
    #[error("the session has ended")]
    Ended,
    #[error("the broker stopped, or failed, while it did this")]
    Unfinished,
    #[error("could not read or write the sessions")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Audit(#[from] AuditError),
}

/// Every session.
pub struct Sessions {
    live: Mutex<HashMap<SessionId, Arc<Session>>>,
    loading: tokio::sync::Mutex<()>,
    store: Store,
    audit: Audit,
    secrets: Arc<Secrets>,
    supervisor: Arc<Supervisor>,
    clock: SharedClock,
    limits: Limits,
    fixed: Vec<FixedServer>,
    tasks: Tasks,
    /// Told when a session ends sooner than was known.
    ends_sooner: Arc<Notify>,
}

impl Sessions {
    #[must_use]
    #[expect(clippy::too_many_arguments, reason = "what it holds is given once, where the broker is put together")]
    pub fn new(
        store: Store,
        audit: Audit,
        secrets: Arc<Secrets>,
        supervisor: Arc<Supervisor>,
        clock: SharedClock,
        limits: Limits,
        fixed: Vec<FixedServer>,
        tasks: Tasks,
    ) -> Self {
        let loading = tokio::sync::Mutex::default();
        let (live, ends_sooner) = (Mutex::default(), Arc::default());
        Self { live, loading, store, audit, secrets, supervisor, clock, limits, fixed, tasks, ends_sooner }
    }

    /// Makes a session.
    ///
    /// # Errors
    ///
    /// When there are too many, the name is taken, or it could not be committed.
    pub async fn create(
        &self,
        kind: SessionKind,
        principal: Principal,
        name: Option<String>,
        token: Option<TokenHash>,
    ) -> Result<Arc<Session>, SessionsError> {
        self.create_with(NewSession { name, token, ..NewSession::of(kind, principal) }).await
    }

    async fn create_locked(&self, new: NewSession) -> Result<Arc<Session>, SessionsError> {
        let NewSession { kind, principal, name, token, label, ttl, entries } = new;
        self.check_new(name.as_deref()).await?;
        let id = SessionId::random();
        let now = self.clock.now();
        let expires_at = ttl.map(|ttl| self.expiry(ttl, now, now)).transpose()?;
        let row = SessionRow {
            id: id.clone(),
            kind,
            principal: principal.clone(),
            name,
            token,
            created_at: now,
            used_at: now,
            expires_at,
            label,
            ended_at: None,
            end_reason: None,
        };
        self.audit.note(&subject(&id, &principal, "create"), Status::Success, None).await?;
        self.store.insert_session(row.clone(), entries.clone()).await?;
        let (servers, configs, code_tools, compose) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let session = Session::new(StoredSession { row, servers, configs, entries, code_tools, compose }, &self.fixed);
        self.lock().insert(id, session.clone());
        if session.expires_at().is_some() {
            self.ends_sooner.notify_one();
        }
        Ok(session)
    }

    async fn check_name(&self, name: &str) -> Result<(), SessionsError> {
        if name.is_empty() || name.chars().count() > 200 || name.chars().any(char::is_control) {
            return Err(SessionsError::InvalidName);
        }
        if self.store.session_named(name).await?.is_some() {
            return Err(SessionsError::NameTaken { name: name.to_owned() });
        }
        Ok(())
    }

    async fn check_new(&self, name: Option<&str>) -> Result<(), SessionsError> {
        if let Some(name) = name {
            self.check_name(name).await?;
        }
        let max = self.limits.sessions_max;
        if self.store.count_live_sessions().await? >= max {
            return Err(SessionsError::TooMany { max });
        }
        Ok(())
    }

    /// Whether the operator puts servers into every session.
    #[must_use]
    pub fn has_fixed(&self) -> bool {
        !self.fixed.is_empty()
    }

    /// The session with that id, if it has not ended.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn get(&self, id: &SessionId) -> Result<Option<Arc<Session>>, StoreError> {
        let session = match self.in_memory(id) {
            Some(session) => Some(session),
            None => {
                let _one_at_a_time = self.loading.lock().await;
                self.load(id).await?
            }
        };
        // One whose time is over has ended, whether that was written down yet or not.
        Ok(session.filter(|session| !session.is_over(self.clock.now())))
    }

    /// The session, if it is in memory, over or not. Costs no wait.
    #[must_use]
    pub fn in_memory(&self, id: &SessionId) -> Option<Arc<Session>> {
        self.lock().get(id).cloned()
    }

    async fn load(&self, id: &SessionId) -> Result<Option<Arc<Session>>, StoreError> {
        if let Some(session) = self.in_memory(id) {
            return Ok(Some(session));
        }
        let Some(stored) = self.store.session(id).await? else { return Ok(None) };
        if stored.row.ended_at.is_some() {
            return Ok(None);
        }
        let session = Session::new(stored, &self.fixed);
        session.touch(self.clock.now());
        self.lock().insert(id.clone(), session.clone());
        Ok(Some(session))
    }

    /// Sessions that were offered a Compose file which has that hash, and wait for somebody to agree to it.
    #[must_use]
    pub fn waiting_for(&self, hash: &str) -> Vec<Arc<Session>> {
        let waits = |session: &&Arc<Session>| session.offer().is_some_and(|offer| offer.hash == hash);
        self.lock().values().filter(waits).cloned().collect()
    }

    /// The session that holds the operator's servers for a principal, if it is in memory.
    #[must_use]
    pub fn of_principal_in_memory(&self, principal: &Principal) -> Option<Arc<Session>> {
        let live = self.lock();
        let is_it =
            |session: &&Arc<Session>| session.kind() == SessionKind::Principal && session.principal() == principal;
        live.values().find(is_it).cloned()
    }

    /// The session that holds the operator's servers for a principal, made if there is none.
    ///
    /// # Errors
    ///
    /// As [`Self::create`].
    pub async fn of_principal(&self, principal: &Principal) -> Result<Arc<Session>, SessionsError> {
        if let Some(session) = self.of_principal_in_memory(principal) {
            return Ok(session);
        }
        let _one_at_a_time = self.loading.lock().await;
        if let Some(id) = self.store.session_of_principal(principal).await?
            && let Some(session) = self.load(&id).await?
        {
            return Ok(session);
        }
        self.create_locked(NewSession::of(SessionKind::Principal, principal.clone())).await
    }

    /// The session that a bearer token opens, if it has not ended.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn by_token(&self, token: &TokenHash) -> Result<Option<Arc<Session>>, StoreError> {
        match self.store.session_by_token(token).await? {
            Some(id) => self.get(&id).await,
            None => Ok(None),
        }
    }

    /// Sessions that have not ended, most recently used first.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn list(&self) -> Result<Vec<SessionRow>, StoreError> {
        let mut rows = self.store.live_sessions().await?;
        for row in &mut rows {
            if let Some(session) = self.in_memory(&row.id) {
                row.used_at = session.used_at();
            }
        }
        rows.sort_by(|a, b| b.used_at.cmp(&a.used_at).then_with(|| a.id.cmp(&b.id)));
        Ok(rows)
    }

    /// Commits that a server is on, with its config if one is given, and tells the session's clients.
    ///
    /// # Errors
    ///
    /// When it could not be committed: then nothing has changed.
    pub async fn put_server(
        &self,
        session: &Session,
        server: &ServerName,
        activate: Activation,
        config: Option<Map<String, Value>>,
        surface: Option<Arc<Surface>>,
    ) -> Result<(), StoreError> {
        let server = NewServer { name: server.clone(), activate, config, surface };
        self.put_servers(session, vec![server]).await
    }

    /// Commits that servers are on, all of them or none, and tells the session's clients.
    ///
    /// # Errors
    ///
    /// When it could not be committed: then nothing has changed.
    pub async fn put_servers(&self, session: &Session, servers: Vec<NewServer>) -> Result<(), StoreError> {
        let mut rows: Vec<SessionServerRow> = Vec::new();
        for server in &servers {
            rows.push(SessionServerRow {
                server: server.name.clone(),
                prefix: session.prefix_beside(&server.name, &rows),
                activate: server.activate.clone(),
                added_at: self.clock.now(),
            });
        }
        let kept = rows.iter().cloned().zip(servers.iter().map(|server| server.config.clone())).collect();
        self.store.put_session_servers(session.id(), kept).await?;
        for (row, server) in rows.into_iter().zip(servers) {
            if let Some(config) = server.config {
                session.put_config(&server.name, config);
            }
            session.put_server(row, server.surface);
        }
        Ok(())
    }

    /// Commits the order of a new session's servers, which were added at the same time.
    ///
    /// # Errors
    ///
    /// When it could not be committed.
    pub async fn arrange(&self, session: &Session, order: Vec<ServerName>) -> Result<(), StoreError> {
        self.store.order_session_servers(session.id(), order.clone()).await?;
        session.arrange(&order);
        Ok(())
    }

    /// Commits that a server is off, and tells the session's clients.
    ///
    /// # Errors
    ///
    /// When it could not be committed: then nothing has changed.
    pub async fn remove_server(&self, session: &Session, server: &ServerName) -> Result<(), StoreError> {
        self.store.delete_session_server(session.id(), server).await?;
        session.remove_server(server);
        Ok(())
    }

    /// Commits a server's config.
    ///
    /// # Errors
    ///
    /// When it could not be committed: then nothing has changed.
    pub async fn put_config(
        &self,
        session: &Session,
        server: &ServerName,
        config: Map<String, Value>,
    ) -> Result<(), StoreError> {
        self.store.put_session_config(session.id(), server, config.clone(), self.clock.now()).await?;
        session.put_config(server, config);
        Ok(())
    }

    /// Keeps a tool made of a script, so that it is there after a restart.
    ///
    /// # Errors
    ///
    /// When it could not be committed: then there is no such tool.
    pub async fn put_code_tool(
        &self,
        session: &Session,
        name: &str,
        servers: Vec<ServerName>,
    ) -> Result<(), StoreError> {
        self.store.put_code_tool(session.id(), name, &servers, self.clock.now()).await?;
        session.put_code_tool(name.to_owned(), servers);
        Ok(())
    }

    /// Notes that a session is being used now.
    pub fn touch(&self, session: &Session) {
        session.touch(self.clock.now());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<SessionId, Arc<Session>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn subject<'a>(id: &'a SessionId, principal: &'a Principal, name: &'a str) -> Subject<'a> {
    Subject {
        kind: Kind::Session,
        parent: None,
        session: Some(id),
        principal,
        client: None,
        server: None,
        name,
        trace: None,
    }
}
