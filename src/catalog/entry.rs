//! One server of the catalog, as the rest of the broker sees it.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{config_schema::ConfigSchema, template};
use crate::ids::{ServerName, fingerprint};

/// What a catalog says about one server.
#[derive(Debug, Clone)]
pub struct Entry {
    pub name: ServerName,
    pub title: String,
    pub description: String,
    /// The file the entry came from, or `built-in`.
    pub source: Arc<str>,
    pub category: String,
    pub tags: Vec<String>,
    /// What people ask for who do not know the product's name.
    pub phrases: Vec<String>,
    /// How often it was pulled, as far as that is known; settles ties in the search.
    pub pulls: u64,
    /// The newest version its source knows of.
    pub version: Option<String>,
    /// Versions its source had before, the newest first.
    pub versions: Vec<String>,
    /// The repository it is made from.
    pub upstream: Option<String>,
    pub tools: Vec<EntryTool>,
    pub secrets: Vec<SecretSpec>,
    pub env: Vec<EnvSpec>,
    pub config: Option<ConfigSchema>,
    /// The ways to run it, in the order they are tried.
    pub runs: Vec<Runnable>,
    /// Whether one instance may serve every session.
    pub shared: bool,
    /// Whether the Docker catalog asks for one container per session rather than per call.
    pub long_lived: bool,
}

/// A tool the catalog knows of before the server has run.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct EntryTool {
    pub name: String,
    #[serde(default)]
    pub description: String,
    /// JSON Schema of the arguments; only entries that run one container per call have it.
    #[serde(default)]
    pub parameters: Option<Value>,
    #[serde(default)]
    pub container: Option<ContainerSpec>,
}

/// A secret the server needs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SecretSpec {
    pub name: String,
    pub env: String,
    #[serde(default)]
    pub example: String,
    #[serde(default)]
    pub description: String,
    #[serde(default = "yes")]
    pub required: bool,
    /// Whether what the operator keeps under the variable's name will do. Not for a third party's entry.
    #[serde(skip, default = "yes")]
    pub by_variable: bool,
}

fn yes() -> bool {
    true
}

/// An environment variable the server is given.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct EnvSpec {
    pub name: String,
    /// A template over the config, or text in which `$NAME` and `${NAME}` stand for the server's secrets.
    #[serde(deserialize_with = "text_of_scalar")]
    pub value: String,
}

/// YAML writes `value: 8080` where text is meant.
fn text_of_scalar<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::String(text) => Ok(text),
        Value::Null => Ok(String::new()),
        scalar @ (Value::Bool(_) | Value::Number(_)) => Ok(scalar.to_string()),
        _ => Err(serde::de::Error::custom("expected text, a number or a truth value")),
    }
}

/// One way to run a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Runnable {
    Container(ContainerSpec),
    /// One container for each call of these tools.
    ContainerPerCall(Vec<PerCallTool>),
    Package(PackageSpec),
    Command(CommandSpec),
    Remote(RemoteSpec),
}

impl Runnable {
    /// The images it is run from.
    #[must_use]
    pub fn images(&self) -> Vec<&str> {
        let mut images: Vec<&str> = match self {
            Self::Container(container) => vec![&container.image],
            Self::ContainerPerCall(tools) => tools.iter().map(|tool| tool.container.image.as_str()).collect(),
            Self::Package(_) | Self::Command(_) | Self::Remote(_) => Vec::new(),
        };
        images.sort_unstable();
        images.dedup();
        images
    }

    /// The word for it in answers and records.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Container(_) => "container",
            Self::ContainerPerCall(_) => "container-per-call",
            Self::Package(package) => package.registry.word(),
            Self::Command(_) => "command",
            Self::Remote(_) => "remote",
        }
    }
}

/// A container image and how it is run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerSpec {
    pub image: String,
    pub command: Vec<String>,
    pub volumes: Vec<String>,
    pub user: Option<String>,
    pub disable_network: bool,
    pub allow_hosts: Vec<String>,
    pub extra_hosts: Vec<String>,
    /// What no catalog may ask for.
    #[serde(skip)]
    pub agreed: Option<Box<Agreed>>,
}

/// What a container gets because a person agreed to the file that says so. No catalog entry has it, and nothing in it is
/// a template.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Agreed {
    /// In place of the image's.
    pub entrypoint: Option<Vec<Word>>,
    /// In place of the image's.
    pub command: Option<Vec<Word>>,
    pub environment: BTreeMap<String, String>,
    pub binds: Vec<Bind>,
    /// `name:target[:ro]`
    pub volumes: Vec<String>,
    pub user: Option<String>,
    pub working_dir: Option<String>,
    pub memory_bytes: Option<u64>,
    /// Billionths of a CPU.
    pub nano_cpus: Option<i64>,
}

/// A word of a command line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Word {
    /// As it is written.
    Plain(String),
    /// With values in it that are kept as secrets, and filled in when the container is started.
    Filled(Vec<Piece>),
}

/// A part of a word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Piece {
    Text(String),
    /// The value of the variable of that name.
    Value(String),
}

/// What the name of a secret's variable begins with if the value is for command lines, and not for the environment: no
/// environment variable's name has it.
pub const FOR_WORDS: char = '=';

impl Word {
    /// The word with its values.
    #[must_use]
    pub fn filled(&self, value: impl Fn(&str) -> Option<String>) -> String {
        match self {
            Self::Plain(text) => text.clone(),
            Self::Filled(pieces) => pieces
                .iter()
                .map(|piece| match piece {
                    Piece::Text(text) => text.clone(),
                    Piece::Value(name) => value(name).unwrap_or_default(),
                })
                .collect(),
        }
    }
}

/// A folder or file of this machine that a container sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bind {
    /// With links followed.
    pub source: PathBuf,
    pub target: String,
    pub read_only: bool,
}

/// A tool that is a program in a container of its own. The container's templates are filled in from the call's arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PerCallTool {
    pub name: String,
    pub description: String,
    /// JSON Schema of the arguments, which are an object.
    pub parameters: Map<String, Value>,
    pub container: ContainerSpec,
}

impl PerCallTool {
    /// The value at a template's path in a call's arguments.
    #[must_use]
    pub fn lookup(arguments: &Value, path: &str) -> Option<Value> {
        value_at(arguments, path)
    }

    /// What is wrong with its templates: malformed ones, and arguments that its parameters do not offer.
    #[must_use]
    pub fn template_problems(&self) -> Vec<String> {
        let spec = &self.container;
        let offered = self.parameters.get("properties").and_then(Value::as_object);
        let mut problems = Vec::new();
        for text in spec.command.iter().chain(&spec.volumes).chain(&spec.user) {
            match template::paths(text) {
                Err(error) => problems.push(error.to_string()),
                Ok(paths) => problems.extend(
                    paths
                        .into_iter()
                        .filter(|path| {
                            let first = path.split('.').next().unwrap_or(path);
                            !offered.is_some_and(|offered| offered.contains_key(path) || offered.contains_key(first))
                        })
                        .map(|path| format!("a template uses `{path}`, which the parameters do not offer")),
                ),
            }
        }
        problems.sort();
        problems.dedup();
        problems
    }
}

/// A package that is installed once and then started directly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackageSpec {
    pub registry: Registry,
    /// The package's name in its registry, or a Git URL.
    pub identifier: String,
    /// A version, or a Git revision. Without one, the newest at the first use is installed and kept.
    #[serde(default)]
    pub version: Option<String>,
    /// The program to start when the package offers several.
    #[serde(default)]
    pub bin: Option<String>,
    /// Further requirements to install beside it, in the registry's own notation (`mcp<2`).
    #[serde(default)]
    pub with: Vec<String>,
    /// Templates for the command line.
    #[serde(default)]
    pub arguments: Vec<String>,
    /// Of a Git repository: what is run once in its clone, instead of what its files call for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub install: Option<String>,
    /// Of a Git repository: what is run in its clone to start the server, instead of a program that it installs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Environment of this way of running only.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

/// Where a package comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Registry {
    Npm,
    Pypi,
    Git,
}

impl Registry {
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Npm => "npm",
            Self::Pypi => "pypi",
            Self::Git => "git",
        }
    }
}

/// A program on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandSpec {
    pub program: String,
    pub arguments: Vec<String>,
    pub env: BTreeMap<String, String>,
}

/// A server somewhere else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteSpec {
    pub url: String,
    pub transport: RemoteTransport,
    /// Header values in which `$NAME` and `${NAME}` stand for the server's secrets.
    pub headers: BTreeMap<String, String>,
    /// Whether the entry says that it wants an OAuth sign-in.
    pub oauth: bool,
}

/// How a remote server is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoteTransport {
    StreamableHttp,
    /// HTTP with server-sent events, as in protocol revision 2024-11-05.
    Sse,
}

impl Entry {
    /// What stands for an entry whose text is gone: it has a name and cannot be run.
    #[must_use]
    pub fn unreadable(name: &ServerName) -> Self {
        Self {
            name: name.clone(),
            title: name.to_string(),
            description: String::new(),
            source: "".into(),
            category: String::new(),
            tags: Vec::new(),
            phrases: Vec::new(),
            pulls: 0,
            version: None,
            versions: Vec::new(),
            upstream: None,
            tools: Vec::new(),
            secrets: Vec::new(),
            env: Vec::new(),
            config: None,
            runs: Vec::new(),
            shared: false,
            long_lived: false,
        }
    }

    /// Makes its secrets its own. A third party writes any name it likes into an entry, for one that of a secret which the
    /// operator keeps for another server. No other secret has a name with its own and a colon before it.
    pub(super) fn keep_secrets_apart(&mut self) {
        for secret in &mut self.secrets {
            secret.name = format!("{}:{}", self.name, secret.name);
            secret.by_variable = false;
        }
    }

    /// What changes when something else would be started: stored tool lists are kept under it.
    #[must_use]
    pub fn fingerprint(&self, run: &Runnable) -> String {
        fingerprint(&format!("{}\u{0}{run:?}\u{0}{:?}", self.name, self.env), 24)
    }

    /// Looks a template's path up: `{{<server>.key}}` in `config`, `{{broker.folder}}` in what the broker offers.
    ///
    /// A server's name is written in templates as it is, or with `.` as `_`.
    #[must_use]
    pub fn lookup(&self, config: &Value, folder: &str, path: &str) -> Option<Value> {
        if path == "broker.folder" {
            return Some(Value::String(folder.to_owned()));
        }
        let name = self.name.as_str();
        let underscored = name.replace('.', "_");
        let key = [name, underscored.as_str()]
            .into_iter()
            .find_map(|root| path.strip_prefix(root).and_then(|rest| rest.strip_prefix('.')))?;
        value_at(config, key)
    }

    /// The properties that templates of this entry use but its config schema does not offer.
    #[must_use]
    pub fn unknown_template_paths(&self) -> Vec<String> {
        let offered = |path: &str| {
            path == "broker.folder"
                || self.config.as_ref().is_some_and(|config| config.offers(self.name.as_str(), path))
        };
        let mut unknown: Vec<String> = self
            .templates()
            .filter_map(|text| template::paths(text).ok())
            .flatten()
            .filter(|path| !offered(path))
            .collect();
        unknown.sort();
        unknown.dedup();
        unknown
    }

    fn templates(&self) -> impl Iterator<Item = &str> {
        let env = self.env.iter().map(|variable| variable.value.as_str());
        let runs = self.runs.iter().flat_map(|run| match run {
            Runnable::Container(container) => {
                container.command.iter().chain(&container.volumes).map(String::as_str).collect::<Vec<_>>()
            }
            Runnable::Package(package) => {
                package.arguments.iter().chain(package.env.values()).map(String::as_str).collect()
            }
            Runnable::Command(command) => {
                command.arguments.iter().chain(command.env.values()).map(String::as_str).collect()
            }
            Runnable::Remote(_) | Runnable::ContainerPerCall(_) => Vec::new(),
        });
        env.chain(runs)
    }
}

/// Follows a dotted path; a property whose own name has dots is found as well.
fn value_at(config: &Value, path: &str) -> Option<Value> {
    let object = config.as_object()?;
    if let Some(value) = object.get(path) {
        return Some(value.clone());
    }
    path.match_indices('.').find_map(|(dot, _)| {
        let inner = object.get(&path[..dot])?;
        value_at(inner, &path[dot + 1..])
    })
}

/// Replaces `$NAME` and `${NAME}` with what `lookup` knows; a name it does not know becomes empty.
#[must_use]
pub fn expand_variables(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        let (name, remaining) = variable_name(after);
        match name {
            Some(name) => expanded.push_str(&lookup(name).unwrap_or_default()),
            None => expanded.push('$'),
        }
        rest = remaining;
    }
    expanded.push_str(rest);
    expanded
}

fn variable_name(after: &str) -> (Option<&str>, &str) {
    if let Some((name, rest)) = after.strip_prefix('{').and_then(|braced| braced.split_once('}')) {
        return (Some(name), rest);
    }
    let end =
        after.find(|character: char| !character.is_ascii_alphanumeric() && character != '_').unwrap_or(after.len());
    let starts_well = after.starts_with(|character: char| character.is_ascii_alphabetic() || character == '_');
    if starts_well { (Some(&after[..end]), &after[end..]) } else { (None, after) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn dotted_paths_and_dotted_names_are_found() {
        let config = json!({"a": {"b": 1}, "c.d": 2, "e": {"f.g": 3}});
        assert_eq!(value_at(&config, "a.b"), Some(json!(1)));
        assert_eq!(value_at(&config, "c.d"), Some(json!(2)));
        assert_eq!(value_at(&config, "e.f.g"), Some(json!(3)));
        assert_eq!(value_at(&config, "a.x"), None);
    }

    #[test]
    fn variables_are_expanded_in_both_notations() {
        let lookup = |name: &str| (name == "KEY").then(|| "s3cret".to_owned());
        assert_eq!(expand_variables("Bearer ${KEY}", &lookup), "Bearer s3cret");
        assert_eq!(expand_variables("$KEY-$OTHER.$", &lookup), "s3cret-.$");
        assert_eq!(expand_variables("costs 5$ or $5", &lookup), "costs 5$ or $5");
    }
}
