//! What the broker's entry looks like in each client's file.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::{
    NAME, TOKEN_VARIABLE,
    edit::{Key, Piece},
    known::Client,
};
use crate::audit::without_secrets;

/// VS Code asks for the token once and keeps it itself.
const INPUT: &str = "mcp-broker-token";

/// Keys below which values are for a program's environment or a request's headers.
const HOLDERS: [&str; 7] = ["env", "envs", "environment", "headers", "http_headers", "authorization", TOKEN_VARIABLE];

/// How a client is to reach the broker.
#[derive(Debug, Clone)]
pub enum Way {
    /// It starts `mcp-broker stdio`.
    Stdio { command: String, args: Vec<String> },
    /// It connects to a broker that listens.
    Http {
        url: String,
        token: String,
        /// Where the token is, for clients that can refer to a file.
        token_file: PathBuf,
        /// Whether the token is written into the client's file although the client could refer to it.
        written_out: bool,
    },
}

/// Where a client gets the token from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenFrom {
    /// From its own file, which holds the token.
    ItsFile,
    /// From the broker's token file.
    TokenFile,
    /// From the variable [`TOKEN_VARIABLE`] of its environment, or a file that it takes for one.
    Environment,
    /// From the user, whom it asks.
    Asking,
}

impl Client {
    /// Where it gets the token from, unless that is to be written out.
    #[must_use]
    pub fn token_from(self) -> TokenFrom {
        match self {
            Self::ClaudeDesktop | Self::Zed | Self::LmStudio => TokenFrom::ItsFile,
            Self::OpenCode => TokenFrom::TokenFile,
            Self::VsCode => TokenFrom::Asking,
            _ => TokenFrom::Environment,
        }
    }

    /// How it refers to the token.
    fn reference(self, token_file: &Path) -> Option<String> {
        match self {
            Self::ClaudeCode | Self::Gemini | Self::Goose => Some(format!("${{{TOKEN_VARIABLE}}}")),
            Self::Cursor | Self::Windsurf => Some(format!("${{env:{TOKEN_VARIABLE}}}")),
            Self::Continue => Some(format!("${{{{ secrets.{TOKEN_VARIABLE} }}}}")),
            Self::VsCode => Some(format!("${{input:{INPUT}}}")),
            Self::OpenCode => Some(format!("{{file:{}}}", token_file.display())),
            Self::Codex | Self::ClaudeDesktop | Self::Zed | Self::LmStudio => None,
        }
    }

    /// The entries to write; nothing where the client cannot be reached in this way.
    pub(super) fn pieces(self, way: &Way) -> Option<Vec<Piece>> {
        let mut pieces = self.keys();
        pieces.first_mut()?.value = match way {
            Way::Stdio { command, args } => self.started(command, args),
            Way::Http { url, token, token_file, written_out } => {
                let reference = if *written_out { None } else { self.reference(token_file) };
                let bearer = format!("Bearer {}", reference.as_deref().unwrap_or(token));
                self.reached(url, &bearer, *written_out)?
            }
        };
        let asks = matches!(way, Way::Http { written_out: false, .. });
        if let Some(input) = pieces.get_mut(1)
            && asks
        {
            input.value = object(json!({
                "type": "promptString", "id": INPUT, "description": "The token of mcp-broker", "password": true,
            }));
        } else {
            pieces.truncate(1);
        }
        Some(pieces)
    }

    /// Where the entries are. What they say is left open.
    pub(super) fn keys(self) -> Vec<Piece> {
        let named = |container| Piece { container, key: Key::Name(NAME.to_owned()), value: Map::new() };
        let item =
            |container, by, is: &str| Piece { container, key: Key::Item { by, is: is.to_owned() }, value: Map::new() };
        match self {
            Self::Codex => vec![named("mcp_servers")],
            Self::VsCode => vec![named("servers"), item("inputs", "id", INPUT)],
            Self::Goose => vec![named("extensions")],
            Self::Zed => vec![named("context_servers")],
            Self::Continue => vec![item("mcpServers", "name", NAME)],
            Self::OpenCode => vec![named("mcp")],
            _ => vec![named("mcpServers")],
        }
    }

    /// What a file begins with that is made for the entry.
    pub(super) fn heading(self, project: bool) -> &'static str {
        match (self, project) {
            (Self::Continue, false) => "name: Local Config\nversion: 1.0.0\nschema: v1\n",
            (Self::Continue, true) => "name: mcp-broker\nversion: 0.0.1\nschema: v1\n",
            _ => "",
        }
    }

    fn started(self, command: &str, args: &[String]) -> Map<String, Value> {
        object(match self {
            Self::ClaudeCode | Self::VsCode => json!({"type": "stdio", "command": command, "args": args}),
            Self::Goose => json!({
                "name": NAME, "description": "Finds, adds and uses MCP servers", "type": "stdio",
                "cmd": command, "args": args, "enabled": true, "timeout": 300,
            }),
            Self::Continue => json!({"name": NAME, "type": "stdio", "command": command, "args": args}),
            Self::OpenCode => {
                let whole: Vec<&str> = std::iter::once(command).chain(args.iter().map(String::as_str)).collect();
                json!({"type": "local", "command": whole, "enabled": true})
            }
            _ => json!({"command": command, "args": args}),
        })
    }

    fn reached(self, url: &str, bearer: &str, written_out: bool) -> Option<Map<String, Value>> {
        let headers = json!({"Authorization": bearer});
        Some(object(match self {
            Self::ClaudeDesktop => return None,
            Self::ClaudeCode | Self::VsCode => json!({"type": "http", "url": url, "headers": headers}),
            Self::Codex if written_out => json!({"url": url, "http_headers": headers}),
            Self::Codex => json!({"url": url, "bearer_token_env_var": TOKEN_VARIABLE}),
            Self::Cursor | Self::Zed | Self::LmStudio => json!({"url": url, "headers": headers}),
            Self::Gemini => json!({"httpUrl": url, "headers": headers}),
            Self::Goose => json!({
                "name": NAME, "description": "Finds, adds and uses MCP servers", "type": "streamable_http",
                "uri": url, "headers": headers, "env_keys": if written_out { vec![] } else { vec![TOKEN_VARIABLE] },
                "enabled": true, "timeout": 300,
            }),
            Self::Windsurf => json!({"serverUrl": url, "headers": headers}),
            Self::Continue => json!({
                "name": NAME, "type": "streamable-http", "url": url, "requestOptions": {"headers": headers},
            }),
            Self::OpenCode => json!({"type": "remote", "url": url, "headers": headers, "enabled": true}),
        }))
    }
}

/// Whether an entry of our name starts or reaches a broker, or asks for its token.
pub(super) fn is_ours(entry: &Map<String, Value>) -> bool {
    let address = ["url", "httpUrl", "serverUrl", "uri"].iter().find_map(|key| entry.get(*key)?.as_str());
    let is_input = entry.get("id").is_some_and(|id| id == INPUT);
    is_input || starts_broker(entry) || address.is_some_and(|url| url.ends_with("/mcp"))
}

/// Whether an entry starts `mcp-broker stdio`.
pub(super) fn starts_broker(entry: &Map<String, Value>) -> bool {
    let Some(command) = entry.get("command").or_else(|| entry.get("cmd")) else { return false };
    let texts = |value: &Value| match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(items) => items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect(),
        _ => Vec::new(),
    };
    let mut line = texts(command);
    line.extend(entry.get("args").map(texts).unwrap_or_default());
    let name = line.first().and_then(|program| program.rsplit('/').next());
    name == Some(NAME) && line.iter().any(|word| word == "stdio")
}

/// The values that are written out in a file and are not for showing, wherever they are: what is held for a program or a
/// server, what comes after `Bearer`, and what has the form of a secret.
pub(super) fn tokens(value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    collect(value, false, &mut found);
    found
}

fn collect(value: &Value, is_held: bool, found: &mut Vec<String>) {
    match value {
        Value::String(text) => {
            let token = bearer(text);
            if is_held || token.is_some() || without_secrets(value) != *value {
                found.extend(written_out(token.unwrap_or(text)));
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, is_held, found)),
        Value::Object(fields) => {
            for (name, value) in fields {
                let holds = HOLDERS.iter().any(|holder| name.eq_ignore_ascii_case(holder));
                collect(value, is_held || holds, found);
            }
        }
        _ => {}
    }
}

/// What comes after `Bearer`.
fn bearer(text: &str) -> Option<&str> {
    const SCHEME: &str = "bearer ";
    text.to_ascii_lowercase().find(SCHEME).map(|at| &text[at + SCHEME.len()..])
}

/// A token, if the text is one and does not stand for one that is elsewhere.
fn written_out(text: &str) -> Option<String> {
    let text = text.trim();
    let refers = ["${", "{file:", "{env:"].iter().any(|start| text.starts_with(start));
    let is_switch = matches!(text, "true" | "false" | "0" | "1");
    (!text.is_empty() && !refers && !is_switch).then(|| text.to_owned())
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}
