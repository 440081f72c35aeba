//! A session's rows.

use serde_json::{Map, Value};

use crate::{
    clock::Timestamp,
    compose::Definition,
    ids::{Principal, ServerName, SessionId, TokenHash},
};

/// How a session is found again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionKind {
    Connection,
    Url,
    Process,
    Named,
    Handle,
    Principal,
}

impl SessionKind {
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Url => "url",
            Self::Process => "process",
            Self::Named => "named",
            Self::Handle => "handle",
            Self::Principal => "principal",
        }
    }

    pub(super) fn from_word(word: &str) -> Option<Self> {
        [Self::Connection, Self::Url, Self::Process, Self::Named, Self::Handle, Self::Principal]
            .into_iter()
            .find(|kind| kind.word() == word)
    }
}

/// A session's row.
#[derive(Debug, Clone)]
pub struct SessionRow {
    pub id: SessionId,
    pub kind: SessionKind,
    pub principal: Principal,
    pub name: Option<String>,
    pub token: Option<TokenHash>,
    pub created_at: Timestamp,
    pub used_at: Timestamp,
    /// When it ends by itself, used or not.
    pub expires_at: Option<Timestamp>,
    /// What whoever made it finds it by.
    pub label: Option<String>,
    pub ended_at: Option<Timestamp>,
    pub end_reason: Option<String>,
}

/// Which of a server's tools are listed. All can be called, listed or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Activation {
    All,
    None,
    Only(Vec<String>),
}

impl Activation {
    #[must_use]
    pub fn lists(&self, tool: &str) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::Only(tools) => tools.iter().any(|listed| listed == tool),
        }
    }

    /// As it is written in arguments and kept: `true`, `false`, or the names.
    #[must_use]
    pub fn to_value(&self) -> Value {
        match self {
            Self::All => Value::Bool(true),
            Self::None => Value::Bool(false),
            Self::Only(tools) => tools.iter().cloned().map(Value::String).collect(),
        }
    }

    /// The reverse of [`Self::to_value`].
    #[must_use]
    pub fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Bool(true) => Some(Self::All),
            Value::Bool(false) => Some(Self::None),
            Value::Array(tools) => {
                tools.iter().map(|tool| tool.as_str().map(str::to_owned)).collect::<Option<_>>().map(Self::Only)
            }
            _ => None,
        }
    }
}

/// A server that is on in a session.
#[derive(Debug, Clone)]
pub struct SessionServerRow {
    pub server: ServerName,
    pub prefix: String,
    pub activate: Activation,
    pub added_at: Timestamp,
}

/// A session with everything that belongs to it.
#[derive(Debug, Clone)]
pub struct StoredSession {
    pub row: SessionRow,
    pub servers: Vec<SessionServerRow>,
    pub configs: Vec<(ServerName, Map<String, Value>)>,
    /// Servers that are this session's alone, as a catalog would have them.
    pub entries: Vec<(ServerName, String)>,
    /// Names and servers of its code tools.
    pub code_tools: Vec<(String, Vec<ServerName>)>,
    /// Services of Compose files that are its servers.
    pub compose: Vec<Definition>,
}
