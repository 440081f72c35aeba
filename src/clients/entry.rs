//! What the broker's entry looks like in each client's file.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::{
    NAME, TOKEN_VARIABLE,
    edit::{Key, Piece},
    known::Client,
};

/// VS Code asks for the token once and keeps it itself.
const INPUT: &str = "mcp-broker-token";

/// What stands where a token is.
pub const TOKEN: &str = "<token>";

/// What stands where something is that did not come from the broker.
const NOT_SHOWN: &str = "<not shown>";

/// What an entry may start the broker with.
const ARGUMENTS: [&str; 4] = ["stdio", "--data-dir", "--config", "--session"];

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

    /// An entry of our name as it is shown: with what the broker writes, in this way and whichever way it is, and no token.
    /// All else in it is the user's, or somebody else's, and may be a secret wherever it is: only its names are shown.
    pub(super) fn shown(self, entry: &Map<String, Value>, way: Option<&Way>) -> Map<String, Value> {
        let started = Way::Stdio { command: NAME.to_owned(), args: ARGUMENTS.map(str::to_owned).to_vec() };
        let (url, token, token_file) = (String::new(), TOKEN.to_owned(), PathBuf::new());
        let reached = Way::Http { url, token, token_file, written_out: false };
        let pieces = [Some(&started), Some(&reached), way].into_iter().flatten().filter_map(|way| self.pieces(way));
        let known: Vec<Value> =
            pieces.flatten().flat_map(|piece| piece.value.into_values()).flat_map(|value| scalars(&value)).collect();
        entry.iter().map(|(key, value)| (key.clone(), self.masked(value, &known))).collect()
    }

    fn masked(self, value: &Value, known: &[Value]) -> Value {
        match value {
            Value::Array(items) => items.iter().map(|item| self.masked(item, known)).collect(),
            Value::Object(fields) => {
                Value::Object(fields.iter().map(|(key, value)| (key.clone(), self.masked(value, known))).collect())
            }
            Value::String(text) => {
                let is_program = text == NAME || (text.starts_with('/') && text.ends_with(&format!("/{NAME}")));
                match text.strip_prefix("Bearer ") {
                    Some(token) if self.refers(token) => value.clone(),
                    Some(_) => Value::from(format!("Bearer {TOKEN}")),
                    None if is_program || is_address(text) || known.contains(value) => value.clone(),
                    None => Value::from(NOT_SHOWN),
                }
            }
            Value::Number(_) if !known.contains(value) => Value::from(NOT_SHOWN),
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        }
    }

    /// Whether this stands for a token that is elsewhere, as the broker writes it.
    fn refers(self, token: &str) -> bool {
        let file = token.strip_prefix("{file:").and_then(|rest| rest.strip_suffix('}'));
        match self {
            Self::OpenCode => file.is_some_and(|file| !file.contains(['{', '}'])),
            _ => self.reference(Path::new("")).as_deref() == Some(token),
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

/// Whether this is where a broker listens, with nothing in it that could be a secret.
fn is_address(text: &str) -> bool {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let is_host = |host: &str| host.chars().all(|letter| letter.is_ascii_alphanumeric() || ".:-[]".contains(letter));
    rest.and_then(|rest| rest.split_once('/')).is_some_and(|(host, path)| path == "mcp" && is_host(host))
}

/// The words, numbers and truth values in a value.
fn scalars(value: &Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items.iter().flat_map(scalars).collect(),
        Value::Object(fields) => fields.values().flat_map(scalars).collect(),
        scalar => vec![scalar.clone()],
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}
