//! What a client can call, and the one door everything goes through.
//!
//! [`Tools::dispatch`] resolves a call, has the audit log open a record, runs it, closes the record, and answers. Nothing
//! reaches a server but through it. The management tools are a file each; [`definitions`] is how clients see them.

mod add;
mod code_mode;
mod compose;
mod config_set;
pub mod definitions;
mod dispatch;
mod explain;
mod failure;
mod find;
pub mod follow;
mod history;
mod list;
pub mod listing;
mod needs;
mod profiles;
mod reach;
mod remove;
mod rounds;
mod route;
pub mod signature;
pub mod standing;
pub mod wanted;

use std::{collections::BTreeMap, sync::Arc};

use rmcp::model::{
    CallToolRequestParams, CompleteRequestParams, GetPromptRequestParams, ReadResourceRequestParams, ServerResult,
};
use serde_json::{Map, Value};

use crate::{
    audit::Audit,
    caller::Caller,
    catalog::Catalog,
    clock::SharedClock,
    codemode::CodeMode,
    config::Limits,
    features::{Feature, Features},
    ids::{CallId, Principal, ServerName},
    lifecycle::Tasks,
    profiles::Profiles,
    secrets::Secrets,
    session::{Session, Sessions, kept::Room},
    store::Store,
    supervisor::Supervisor,
};
use rounds::Rounds;

pub(crate) use code_mode::Learning;
pub use compose::Taken;
pub use definitions::ManagementTool;

/// How a client's session is known.
#[derive(Clone)]
pub enum Seat {
    /// By what it connected with.
    Fixed(Arc<Session>),
    /// By the handle that its calls carry; without one it has the operator's servers and nothing else.
    Handle(Principal),
}

/// What is to be done.
#[derive(Debug)]
pub enum Operation {
    Tool(Box<CallToolRequestParams>),
    /// One of the broker's own tools, on the operator's behalf: whether agents have it or not.
    Management(ManagementTool, Box<CallToolRequestParams>),
    /// `mcp-add` on the operator's behalf, which answers before the server is up, and also when it cannot be yet.
    PutOn(Box<CallToolRequestParams>),
    Prompt(GetPromptRequestParams),
    Resource(ReadResourceRequestParams),
    Completion(CompleteRequestParams),
}

/// What is to be done, for whom.
pub struct Call {
    pub seat: Seat,
    pub caller: Caller,
    pub operation: Operation,
    /// The record of the script that makes it.
    pub parent: Option<CallId>,
}

/// What came of it. Always the kind of result that the operation has.
pub type Reply = ServerResult;

/// What the tools work with.
pub(crate) struct Context {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) supervisor: Arc<Supervisor>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) features: Arc<Features>,
    pub(crate) profiles: Arc<Profiles>,
    pub(crate) store: Store,
    pub(crate) clock: SharedClock,
    pub(crate) secrets: Arc<Secrets>,
    pub(crate) audit: Audit,
    pub(crate) limits: Limits,
    /// Config that the operator gives servers in every session.
    pub(crate) server_config: BTreeMap<ServerName, Map<String, Value>>,
    pub(crate) tasks: Tasks,
    pub(crate) code_mode: CodeMode,
    pub(crate) learning: Learning,
    /// For results of scripts that are too long to be answered with.
    pub(crate) results: Room,
    rounds: Rounds,
}

/// Everything a client can call. Clones are handles.
#[derive(Clone)]
pub struct Tools {
    context: Arc<Context>,
}

/// What [`Tools`] are made from.
pub struct Parts {
    pub catalog: Arc<Catalog>,
    pub supervisor: Arc<Supervisor>,
    pub sessions: Arc<Sessions>,
    pub features: Arc<Features>,
    pub profiles: Arc<Profiles>,
    pub secrets: Arc<Secrets>,
    pub audit: Audit,
    pub limits: Limits,
    pub server_config: BTreeMap<ServerName, Map<String, Value>>,
    pub tasks: Tasks,
    pub code_mode: CodeMode,
    pub store: Store,
    pub clock: SharedClock,
}

impl Tools {
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let learning = Learning::new(parts.store.clone(), parts.clock.clone(), parts.secrets.redactor());
        let rounds = Rounds::new(parts.secrets.derive_key("request-state"), parts.limits.question());
        Self {
            context: Arc::new(Context {
                catalog: parts.catalog,
                supervisor: parts.supervisor,
                sessions: parts.sessions,
                features: parts.features,
                profiles: parts.profiles,
                store: parts.store,
                clock: parts.clock,
                secrets: parts.secrets,
                audit: parts.audit,
                limits: parts.limits,
                server_config: parts.server_config,
                tasks: parts.tasks,
                code_mode: parts.code_mode,
                learning,
                results: Room::default(),
                rounds,
            }),
        }
    }

    #[must_use]
    pub fn sessions(&self) -> &Arc<Sessions> {
        &self.context.sessions
    }

    #[must_use]
    pub fn features(&self) -> &Arc<Features> {
        &self.context.features
    }

    #[must_use]
    pub fn profiles(&self) -> &Arc<Profiles> {
        &self.context.profiles
    }

    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.context.limits
    }

    #[must_use]
    pub fn tasks(&self) -> &Tasks {
        &self.context.tasks
    }
}

impl Context {
    pub(crate) fn with_prefixes(&self) -> bool {
        self.features.enabled(Feature::ToolNamePrefix)
    }
}
