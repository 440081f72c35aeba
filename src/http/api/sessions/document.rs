//! A session as a document that another broker can make one from. It holds no secret, only the names of those it had.

use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    super::ApiError,
    new::{Plan, Wanted},
};
use crate::session::{AddedServer, Session};

const FORMAT: &str = "mcp-broker session";
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    format: String,
    version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    servers: Vec<Server>,
    #[serde(default)]
    code_tools: Vec<CodeTool>,
    /// Secrets that were set in this session alone: they have to be set again.
    #[serde(default)]
    secrets: Vec<String>,
}

#[derive(Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct Server {
    name: String,
    /// Which tools are listed: `true`, `false`, or their names.
    #[serde(default = "all")]
    activate: Value,
    #[serde(default)]
    config: Map<String, Value>,
}

fn all() -> Value {
    json!(true)
}

/// A tool made of scripts.
#[derive(Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CodeTool {
    pub(super) name: String,
    servers: Vec<String>,
}

impl CodeTool {
    /// What makes it, as arguments of `code-mode`.
    pub(super) fn arguments(&self) -> Map<String, Value> {
        Map::from_iter([("name".to_owned(), json!(self.name)), ("servers".to_owned(), json!(self.servers))])
    }
}

impl Document {
    pub(super) fn of(session: &Session, secrets: Vec<String>) -> Self {
        // What comes from a Compose file comes with the file.
        let is_kept = |added: &AddedServer| !added.fixed && session.own_entry(&added.server).is_none();
        let servers = session.servers().into_iter().filter(is_kept).map(|added| Server {
            name: added.server.to_string(),
            activate: added.activate.to_value(),
            config: session.config(&added.server),
        });
        let code_tools = session
            .code_tools()
            .into_iter()
            .map(|(name, servers)| CodeTool { name, servers: servers.iter().map(ToString::to_string).collect() });
        Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            name: session.name(),
            servers: servers.collect(),
            code_tools: code_tools.collect(),
            secrets,
        }
    }

    /// The session to be made from it.
    pub(super) fn into_plan(self) -> Result<Plan, ApiError> {
        if self.format != FORMAT || self.version != VERSION {
            let message = format!(
                "this is no session of a version that this broker knows: `format` must be \"{FORMAT}\", `version` {VERSION}"
            );
            return Err(ApiError::new(StatusCode::BAD_REQUEST, message));
        }
        let servers = self.servers.into_iter().map(|server| Wanted {
            name: server.name,
            config: Value::Object(server.config),
            activate: Some(server.activate),
        });
        Ok(Plan { name: self.name, servers: servers.collect(), code_tools: self.code_tools, ..Plan::default() })
    }
}
