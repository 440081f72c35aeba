//! Sessions: the broker's own durable objects.
//!
//! A session holds which servers are on for one client, their config, and who may use it. It is not a connection: it is
//! found again by an `Mcp-Session-Id`, a URL, a token, a name or a handle, also after a restart, because every change is
//! committed before it takes effect here. What is in memory is a copy that can be dropped and read again.

mod clients;
mod compose;
mod ends;
mod following;
pub mod kept;
pub mod menu;
pub mod names;
mod registry;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, PoisonError, RwLock, Weak,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use rmcp::model::{LoggingLevel, LoggingMessageNotificationParam};
use serde_json::{Map, Value};
use tokio::sync::{broadcast, watch};

use crate::{
    catalog::Entry,
    clock::Timestamp,
    ids::{Principal, ServerName, SessionId, TokenHash},
    store::sessions::{Activation, SessionKind, SessionRow, SessionServerRow, StoredSession},
    supervisor::{Instance, Surface, calls::InstanceEvent},
};
use clients::Client;
use compose::{Offered, entries_of};
use following::Subscribed;
use kept::Kept;
use menu::Menu;

pub use clients::{ConnectedClient, ask_peer};
pub use following::Unsettled;
pub use registry::{NewSession, Sessions, SessionsError, TakeError};

/// Changes a slow listener may be behind by.
const CHANGES_MAX: usize = 64;

/// A server that is on in a session.
#[derive(Debug, Clone)]
pub struct AddedServer {
    pub server: ServerName,
    /// What the names of its tools begin with.
    pub prefix: String,
    pub activate: Activation,
    pub added_at: Timestamp,
    /// Whether the operator put it into every session.
    pub fixed: bool,
    /// What it offers, as far as that is known.
    pub surface: Option<Arc<Surface>>,
}

/// A server that the operator puts into every session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixedServer {
    pub name: ServerName,
    pub activate: Activation,
}

/// A server that is about to be on.
#[derive(Debug, Clone)]
pub struct NewServer {
    pub name: ServerName,
    pub activate: Activation,
    /// Replaces the one that was set, if there is one.
    pub config: Option<Map<String, Value>>,
    pub surface: Option<Arc<Surface>>,
}

/// Something a connected client wants to hear of.
#[derive(Debug, Clone)]
pub enum Change {
    Tools,
    Prompts,
    Resources,
    ResourceUpdated(String),
    Log {
        server: ServerName,
        message: LoggingMessageNotificationParam,
    },
    /// Its token is another one now.
    TokenChanged,
    /// The session has ended.
    Ended,
}

/// One session.
pub struct Session {
    id: SessionId,
    kind: SessionKind,
    principal: Principal,
    name: Mutex<Option<String>>,
    /// What opens it; nothing does once it has ended.
    token: Mutex<Option<TokenHash>>,
    label: Option<String>,
    created_at: Timestamp,
    /// When it ends by itself, in microseconds; the end of time if it does not.
    expires_at: AtomicI64,
    used_at: AtomicI64,
    flushed_at: AtomicI64,
    contents: RwLock<Contents>,
    menus: Mutex<HashMap<bool, (u64, Arc<Menu>)>>,
    changes: broadcast::Sender<Change>,
    clients: Mutex<Vec<Client>>,
    client_numbers: AtomicU64,
    log_level: Mutex<Option<LoggingLevel>>,
    locks: Mutex<HashMap<ServerName, Arc<tokio::sync::Mutex<()>>>>,
    attached: Mutex<HashMap<ServerName, Weak<Instance>>>,
    subscriptions: Mutex<HashMap<String, Subscribed>>,
    /// Results that were too long to be answered with.
    kept: Mutex<Kept>,
    /// Subscriptions that are being made.
    settling: watch::Sender<usize>,
    /// A Compose file that nobody has agreed to yet.
    offered: Mutex<Option<Offered>>,
    taking: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Contents {
    servers: Vec<AddedServer>,
    configs: BTreeMap<ServerName, Map<String, Value>>,
    code_tools: BTreeMap<String, Vec<ServerName>>,
    /// Servers from a Compose file, which are this session's alone.
    compose: BTreeMap<ServerName, Arc<Entry>>,
    /// Servers that came with the session, and are its alone.
    own: BTreeMap<ServerName, Arc<Entry>>,
    /// Counts changes, so that a menu knows whether it is still true.
    version: u64,
}

impl Session {
    fn new(stored: StoredSession, fixed: &[FixedServer]) -> Arc<Self> {
        let row: SessionRow = stored.row;
        let mut servers: Vec<AddedServer> = Vec::new();
        for FixedServer { name, activate } in fixed {
            let prefix = names::prefix(name, |taken| servers.iter().any(|added| added.prefix == taken));
            servers.push(AddedServer {
                server: name.clone(),
                prefix,
                activate: activate.clone(),
                added_at: row.created_at,
                fixed: true,
                surface: None,
            });
        }
        for added in stored.servers {
            if fixed.iter().all(|server| server.name != added.server) {
                servers.push(AddedServer {
                    server: added.server,
                    prefix: added.prefix,
                    activate: added.activate,
                    added_at: added.added_at,
                    fixed: false,
                    surface: None,
                });
            }
        }
        let used_at = row.used_at.as_microsecond();
        let own = ends::read_entries(&row.id, stored.entries);
        Arc::new(Self {
            id: row.id,
            kind: row.kind,
            principal: row.principal,
            name: Mutex::new(row.name),
            token: Mutex::new(row.token),
            label: row.label,
            created_at: row.created_at,
            expires_at: AtomicI64::new(row.expires_at.map_or(i64::MAX, Timestamp::as_microsecond)),
            used_at: AtomicI64::new(used_at),
            flushed_at: AtomicI64::new(used_at),
            contents: RwLock::new(Contents {
                servers,
                configs: stored.configs.into_iter().collect(),
                code_tools: stored.code_tools.into_iter().collect(),
                compose: entries_of(&stored.compose),
                own,
                version: 0,
            }),
            menus: Mutex::default(),
            changes: broadcast::Sender::new(CHANGES_MAX),
            clients: Mutex::default(),
            client_numbers: AtomicU64::new(0),
            log_level: Mutex::default(),
            locks: Mutex::default(),
            attached: Mutex::default(),
            subscriptions: Mutex::default(),
            kept: Mutex::default(),
            settling: watch::Sender::new(0),
            offered: Mutex::default(),
            taking: tokio::sync::Mutex::default(),
        })
    }

    #[must_use]
    pub fn id(&self) -> &SessionId {
        &self.id
    }

    #[must_use]
    pub fn kind(&self) -> SessionKind {
        self.kind
    }

    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    #[must_use]
    pub fn name(&self) -> Option<String> {
        self.lock(&self.name).clone()
    }

    fn put_name(&self, name: String) {
        *self.lock(&self.name) = Some(name);
    }

    /// Whether it is the token that opens the session now.
    #[must_use]
    pub fn is_opened_by(&self, token: &TokenHash) -> bool {
        self.lock(&self.token).as_ref() == Some(token)
    }

    /// Takes over a token that has been committed.
    fn put_token(&self, token: TokenHash) {
        *self.lock(&self.token) = Some(token);
        self.announce(Change::TokenChanged);
    }

    /// Nothing opens it from here on.
    fn close(&self) {
        *self.lock(&self.token) = None;
        self.announce(Change::Ended);
    }

    #[must_use]
    pub fn created_at(&self) -> Timestamp {
        self.created_at
    }

    /// Notes that the session is being used.
    pub fn touch(&self, now: Timestamp) {
        self.used_at.fetch_max(now.as_microsecond(), Ordering::Relaxed);
    }

    #[must_use]
    pub fn used_at(&self) -> Timestamp {
        Timestamp::from_microsecond(self.used_at.load(Ordering::Relaxed)).unwrap_or(self.created_at)
    }

    /// Every server that is on, in the order in which they were added.
    #[must_use]
    pub fn servers(&self) -> Vec<AddedServer> {
        self.read().servers.clone()
    }

    /// The server of that name, if it is on.
    #[must_use]
    pub fn server(&self, server: &ServerName) -> Option<AddedServer> {
        self.read().servers.iter().find(|added| added.server == *server).cloned()
    }

    /// How many servers are on.
    #[must_use]
    pub fn server_count(&self) -> usize {
        self.read().servers.len()
    }

    /// The config that was set for a server, on or not.
    #[must_use]
    pub fn config(&self, server: &ServerName) -> Map<String, Value> {
        self.read().configs.get(server).cloned().unwrap_or_default()
    }

    /// Every config that was set, also of servers that are not on.
    #[must_use]
    pub fn configs(&self) -> BTreeMap<ServerName, Map<String, Value>> {
        self.read().configs.clone()
    }

    /// The prefix a server has, or would get beside others that are about to be on.
    fn prefix_beside(&self, server: &ServerName, others: &[SessionServerRow]) -> String {
        let contents = self.read();
        let is_taken = |prefix: &str| {
            contents.servers.iter().any(|added| added.prefix == prefix)
                || others.iter().any(|other| other.prefix == prefix)
        };
        match contents.servers.iter().find(|added| added.server == *server) {
            Some(added) => added.prefix.clone(),
            None => names::prefix(server, is_taken),
        }
    }

    /// Takes over a server that has been committed.
    fn put_server(&self, row: SessionServerRow, surface: Option<Arc<Surface>>) {
        let known = self.server(&row.server).and_then(|added| added.surface);
        {
            let surface = surface.clone();
            let mut contents = self.write();
            match contents.servers.iter_mut().find(|added| added.server == row.server) {
                Some(added) => {
                    added.activate = row.activate;
                    if surface.is_some() {
                        added.surface = surface;
                    }
                }
                None => contents.servers.push(AddedServer {
                    server: row.server,
                    prefix: row.prefix,
                    activate: row.activate,
                    added_at: row.added_at,
                    fixed: false,
                    surface,
                }),
            }
        }
        self.announce_lists(&[known, surface]);
    }

    /// Puts its servers into the given order.
    fn arrange(&self, order: &[ServerName]) {
        let place = |server: &ServerName| order.iter().position(|named| named == server);
        self.write().servers.sort_by_key(|added| (!added.fixed, place(&added.server)));
    }

    fn remove_server(&self, server: &ServerName) {
        let known = self.server(server).and_then(|added| added.surface);
        self.write().servers.retain(|added| added.server != *server || added.fixed);
        self.lock(&self.subscriptions).retain(|_, subscribed| subscribed.server != *server);
        self.announce_lists(&[known]);
    }

    fn put_config(&self, server: &ServerName, config: Map<String, Value>) {
        self.write().configs.insert(server.clone(), config);
    }

    /// Takes over what a server says it offers; says whether that is news.
    pub fn put_surface(&self, server: &ServerName, surface: Arc<Surface>) -> bool {
        let is_same = |added: &AddedServer| {
            added.server == *server && added.surface.as_ref().is_some_and(|known| Arc::ptr_eq(known, &surface))
        };
        if self.read().servers.iter().any(is_same) {
            return false;
        }
        let mut contents = self.write();
        let Some(added) = contents.servers.iter_mut().find(|added| added.server == *server) else {
            return false;
        };
        let known = added.surface.replace(surface.clone());
        drop(contents);
        if known.as_ref() == Some(&surface) {
            return false;
        }
        self.announce_lists(&[known, Some(surface)]);
        true
    }

    /// Announces the lists that have to do with what was there and what is there now.
    fn announce_lists(&self, surfaces: &[Option<Arc<Surface>>]) {
        let any = |has: fn(&Surface) -> bool| surfaces.iter().flatten().any(|surface| has(surface));
        self.announce(Change::Tools);
        if any(|surface| !surface.prompts.is_empty()) {
            self.announce(Change::Prompts);
        }
        if any(|surface| !surface.resources.is_empty() || !surface.resource_templates.is_empty()) {
            self.announce(Change::Resources);
        }
    }

    /// Tools made of scripts: their names without `code-mode-`, and the servers that they may call.
    #[must_use]
    pub fn code_tools(&self) -> BTreeMap<String, Vec<ServerName>> {
        self.read().code_tools.clone()
    }

    /// The servers that a tool made of a script may call, if there is such a tool.
    #[must_use]
    pub fn code_tool(&self, name: &str) -> Option<Vec<ServerName>> {
        self.read().code_tools.get(name).cloned()
    }

    /// Takes over a tool made of a script.
    pub(super) fn put_code_tool(&self, name: String, servers: Vec<ServerName>) {
        self.write().code_tools.insert(name, servers);
        self.announce(Change::Tools);
    }

    /// What the session offers now.
    #[must_use]
    pub fn menu(&self, with_prefixes: bool) -> Arc<Menu> {
        let mut menus = self.lock(&self.menus);
        let contents = self.read();
        if let Some((version, menu)) = menus.get(&with_prefixes)
            && *version == contents.version
        {
            return menu.clone();
        }
        let menu = Arc::new(Menu::of(&contents.servers, with_prefixes));
        menus.insert(with_prefixes, (contents.version, menu.clone()));
        menu
    }

    /// What happens in the session, for whoever serves a client of it.
    #[must_use]
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    /// Tells everybody who listens.
    pub fn announce(&self, change: Change) {
        let _ = self.changes.send(change);
    }

    /// A lock that is held while a server is added, configured or removed.
    #[must_use]
    pub fn server_lock(&self, server: &ServerName) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.lock(&self.locks);
        locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        locks.entry(server.clone()).or_default().clone()
    }

    /// Holds the locks of several servers. They are taken in one order, so that no two wait for each other's.
    pub async fn hold_servers(&self, mut servers: Vec<ServerName>) -> Vec<tokio::sync::OwnedMutexGuard<()>> {
        servers.sort();
        servers.dedup();
        let mut held = Vec::new();
        for server in &servers {
            held.push(self.server_lock(server).lock_owned().await);
        }
        held
    }

    /// Notes that the session listens to an instance; says whether it did not before.
    pub fn attach(&self, instance: &Arc<Instance>) -> bool {
        let mut attached = self.lock(&self.attached);
        let known = attached.get(instance.server()).and_then(Weak::upgrade);
        if known.is_some_and(|known| Arc::ptr_eq(&known, instance)) {
            return false;
        }
        attached.insert(instance.server().clone(), Arc::downgrade(instance));
        true
    }

    /// Passes on what happened at an instance.
    pub fn happened(&self, instance: &Instance, event: InstanceEvent) {
        if let Some(surface) = instance.surface() {
            self.put_surface(instance.server(), surface);
        }
        match event {
            InstanceEvent::ToolsChanged | InstanceEvent::PromptsChanged | InstanceEvent::ResourcesChanged => {}
            InstanceEvent::ResourceUpdated(uri) => self.announce(Change::ResourceUpdated(uri)),
            InstanceEvent::Log(message) => {
                self.announce(Change::Log { server: instance.server().clone(), message });
            }
        }
    }

    /// The level of log messages its clients asked for (revisions up to 2025-11-25).
    #[must_use]
    pub fn log_level(&self) -> Option<LoggingLevel> {
        *self.lock(&self.log_level)
    }

    pub fn set_log_level(&self, level: LoggingLevel) {
        *self.lock(&self.log_level) = Some(level);
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Contents> {
        self.contents.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that is written may show in a menu.
    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Contents> {
        let mut contents = self.contents.write().unwrap_or_else(PoisonError::into_inner);
        contents.version += 1;
        contents
    }

    #[expect(clippy::unused_self, reason = "reads better at the call")]
    fn lock<'a, T>(&self, mutex: &'a Mutex<T>) -> std::sync::MutexGuard<'a, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
