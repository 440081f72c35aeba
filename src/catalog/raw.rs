//! One entry as a catalog writes it, and what becomes of it.
//!
//! Everything here is somebody else's text. It is checked field by field, cut to size and freed of characters that do not
//! show; what cannot be understood is reported with its place, and what reads like instructions to a model is kept as the
//! data it is, and reported too.

use std::{collections::BTreeMap, sync::Arc};

use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    config_schema::ConfigSchema,
    entry::{
        CommandSpec, ContainerSpec, Entry, EntryTool, EnvSpec, PackageSpec, PerCallTool, Registry, RemoteSpec,
        RemoteTransport, Runnable, SecretSpec,
    },
    file::{Loaded, Problem, Severity},
    foreign::{displayable, instructing, unusual_name},
    git::{Command, GitUrl},
    template,
};
use crate::ids::ServerName;

/// Descriptions are other people's text: longer ones are cut.
const DESCRIPTION_CHARACTERS_MAX: usize = 4000;

const TITLE_CHARACTERS_MAX: usize = 200;

const TOOL_DESCRIPTION_CHARACTERS_MAX: usize = 2000;

/// Lists in one entry longer than this are cut.
const LISTED_MAX: usize = 2000;

const ENTRY_FIELDS: &str = "title, description, type, image, command, volumes, user, env, secrets, config, remote, \
                            packages, tools, metadata, longLived, shared, disableNetwork, allowHosts, extraHosts, oauth";

/// An entry as it is written. Fields that say nothing about running or finding the server are skipped by name, so that a
/// misspelt one is noticed.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawEntry {
    #[serde(default)]
    title: Option<String>,
    #[serde(default)]
    description: Option<String>,
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    image: Option<String>,
    #[serde(default)]
    command: Vec<String>,
    #[serde(default)]
    volumes: Vec<String>,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    env: Vec<EnvSpec>,
    #[serde(default)]
    secrets: Vec<SecretSpec>,
    #[serde(default)]
    config: Vec<Value>,
    #[serde(default)]
    remote: Option<RawRemote>,
    #[serde(default)]
    packages: Vec<PackageSpec>,
    #[serde(default)]
    tools: Vec<EntryTool>,
    #[serde(default)]
    metadata: RawMetadata,
    #[serde(default)]
    long_lived: bool,
    #[serde(default)]
    shared: bool,
    #[serde(default)]
    disable_network: bool,
    #[serde(default)]
    allow_hosts: Vec<String>,
    #[serde(default)]
    extra_hosts: Vec<String>,
    #[serde(default)]
    oauth: Option<Value>,
    /// The repository it is made from.
    #[serde(default)]
    upstream: Option<String>,
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

/// Fields of the Docker catalog that are for display or for its build, and one spelling the registry's source form uses.
const IGNORED_FIELDS: [&str; 16] = [
    "dateAdded",
    "ref",
    "readme",
    "toolsUrl",
    "source",
    "icon",
    "prompts",
    "resources",
    "dynamic",
    "name",
    "about",
    "requirement",
    "sseEndpoint",
    "prefix",
    "policy",
    "meta",
];

#[derive(Deserialize)]
struct RawRemote {
    url: String,
    #[serde(default)]
    transport_type: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
struct RawMetadata {
    #[serde(default)]
    category: Option<String>,
    #[serde(default)]
    tags: Vec<String>,
    /// What people ask for who do not know the product's name.
    #[serde(default)]
    phrases: Vec<String>,
    #[serde(default)]
    pulls: Value,
    /// The newest version that the source knows of.
    #[serde(default)]
    version: Option<String>,
    /// Versions that the source had at earlier updates, the newest first.
    #[serde(default)]
    versions: Vec<String>,
}

/// How closely entries are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Checks {
    /// Everything.
    All,
    /// What was checked before it was stored is not checked again.
    Stored,
}

/// Takes entries of one file, and notes what is wrong with them.
pub(super) struct Reader {
    pub(super) file: Arc<str>,
    pub(super) checks: Checks,
    pub(super) loaded: Loaded,
}

impl Reader {
    pub(super) fn new(file: &str, checks: Checks) -> Self {
        Self { file: file.into(), checks, loaded: Loaded::default() }
    }

    fn problem(&mut self, entry: &str, field: &str, message: impl Into<String>, severity: Severity) {
        self.loaded.problems.push(Problem {
            file: self.file.clone(),
            entry: entry.escape_debug().take(120).collect(),
            field: field.to_owned(),
            message: message.into(),
            severity,
        });
    }

    pub(super) fn error(&mut self, entry: &str, field: &str, message: impl Into<String>) {
        self.problem(entry, field, message, Severity::Error);
    }

    fn warning(&mut self, entry: &str, field: &str, message: impl Into<String>) {
        self.problem(entry, field, message, Severity::Warning);
    }

    /// Takes one entry, or says why not. Says whether it was taken.
    pub(super) fn entry(&mut self, name: &str, value: Value) -> bool {
        let before = self.loaded.entries.len();
        self.read(name, value);
        self.loaded.entries.len() > before
    }

    fn read(&mut self, name: &str, value: Value) {
        let server: ServerName = match name.parse() {
            Ok(server) => server,
            Err(error) => return self.error(name, "", error.to_string()),
        };
        if let Some(unusual) = unusual_name(name) {
            return self.error(name, "", unusual);
        }
        let raw: RawEntry = match serde_path_to_error::deserialize(value) {
            Ok(raw) => raw,
            Err(error) => return self.error(name, &error.path().to_string(), error.inner().to_string()),
        };
        for field in raw.others.keys().filter(|field| !IGNORED_FIELDS.contains(&field.as_str())) {
            self.warning(name, field, format!("is not a field of an entry ({ENTRY_FIELDS})"));
        }
        if let Some(entry) = self.build(server, raw) {
            if self.checks == Checks::All {
                self.check_templates(&entry);
                self.check_names(&entry);
                self.check_wording(&entry);
            }
            self.loaded.entries.push(entry);
        }
    }

    fn build(&mut self, server: ServerName, raw: RawEntry) -> Option<Entry> {
        let name = server.as_str().to_owned();
        let config = match self.checks {
            Checks::All => ConfigSchema::new(raw.config.clone()),
            Checks::Stored => Ok(ConfigSchema::stored(raw.config.clone())),
        };
        let config = match config {
            Ok(config) => config,
            Err(error) => {
                self.error(&name, "config", error.to_string());
                return None;
            }
        };
        let reported = self.loaded.problems.len();
        let runs = self.runs(&name, &raw);
        if runs.is_empty() {
            if self.loaded.problems.len() == reported {
                self.error(&name, "", "says no way to run it: needs an image, packages, a command or a remote");
            }
            return None;
        }
        let title = raw.title.filter(|title| !title.trim().is_empty()).unwrap_or_else(|| name.clone());
        Some(Entry {
            title: displayable(&title, TITLE_CHARACTERS_MAX),
            description: displayable(&raw.description.unwrap_or_default(), DESCRIPTION_CHARACTERS_MAX),
            source: self.file.clone(),
            category: displayable(&raw.metadata.category.unwrap_or_default(), TITLE_CHARACTERS_MAX),
            tags: short_list(raw.metadata.tags),
            phrases: short_list(raw.metadata.phrases),
            pulls: raw.metadata.pulls.as_u64().unwrap_or_default(),
            version: raw.metadata.version.map(|version| displayable(&version, TITLE_CHARACTERS_MAX)),
            versions: short_list(raw.metadata.versions),
            upstream: raw.upstream.filter(|url| !url.is_empty()).map(|url| displayable(&url, TITLE_CHARACTERS_MAX)),
            tools: raw.tools.into_iter().take(LISTED_MAX).map(shown).collect(),
            secrets: raw.secrets,
            env: raw.env,
            config,
            runs,
            shared: raw.shared,
            long_lived: raw.long_lived,
            name: server,
        })
    }

    fn runs(&mut self, name: &str, raw: &RawEntry) -> Vec<Runnable> {
        let mut runs = Vec::new();
        if raw.kind.as_deref() == Some("poci") {
            runs.extend(self.per_call(name, raw));
        } else if let Some(image) = raw.image.as_ref().filter(|image| !image.is_empty()) {
            runs.push(Runnable::Container(container(image, raw)));
        } else if let Some((program, arguments)) = raw.command.split_first() {
            runs.push(Runnable::Command(CommandSpec {
                program: program.clone(),
                arguments: arguments.to_vec(),
                env: BTreeMap::new(),
            }));
        }
        for (index, package) in raw.packages.iter().enumerate() {
            match unusable(package) {
                Some(problem) => self.error(name, &format!("packages[{index}]"), problem),
                None => runs.push(Runnable::Package(package.clone())),
            }
        }
        if let Some(remote) = &raw.remote {
            runs.extend(self.remote(name, remote, raw.oauth.is_some()).map(Runnable::Remote));
        }
        if let Some(kind) = raw.kind.as_deref().filter(|kind| !["server", "remote", "poci"].contains(kind)) {
            self.warning(name, "type", format!("`{kind}` is not a type (server, remote, poci)"));
        }
        runs
    }

    fn per_call(&mut self, name: &str, raw: &RawEntry) -> Option<Runnable> {
        let mut tools = Vec::new();
        for (index, tool) in raw.tools.iter().take(LISTED_MAX).enumerate() {
            let Some(container) = tool.container.clone().filter(|container| !container.image.is_empty()) else {
                self.warning(name, &format!("tools[{index}]"), "has no `container` with an `image`: it is left out");
                continue;
            };
            let parameters = match tool.parameters.clone() {
                None => json!({"type": "object", "properties": {}}),
                Some(parameters) => parameters,
            };
            let Some(parameters) = parameters.as_object().filter(|schema| schema.get("type") == Some(&json!("object")))
            else {
                self.warning(
                    name,
                    &format!("tools[{index}].parameters"),
                    "is not the schema of an object: the tool is left out",
                );
                continue;
            };
            let tool = PerCallTool {
                name: displayable(&tool.name, TITLE_CHARACTERS_MAX),
                description: displayable(&tool.description, TOOL_DESCRIPTION_CHARACTERS_MAX),
                parameters: parameters.clone(),
                container,
            };
            if self.checks == Checks::All {
                for problem in tool.template_problems() {
                    self.warning(name, &format!("tools[{index}].container"), problem);
                }
            }
            tools.push(tool);
        }
        if tools.is_empty() {
            self.error(name, "tools", "a poci entry needs tools, each with a `container` that has an `image`");
            return None;
        }
        Some(Runnable::ContainerPerCall(tools))
    }

    fn remote(&mut self, name: &str, raw: &RawRemote, oauth: bool) -> Option<RemoteSpec> {
        let transport = match raw.transport_type.as_deref() {
            Some("sse") => RemoteTransport::Sse,
            None | Some("http" | "streamable" | "streaming" | "streamable-http") => RemoteTransport::StreamableHttp,
            Some(other) => {
                self.error(name, "remote.transport_type", format!("`{other}` is not one of streamable-http, sse"));
                return None;
            }
        };
        let valid =
            reqwest::Url::parse(&raw.url).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        if !valid {
            self.error(name, "remote.url", format!("`{}` is not an http or https URL", raw.url));
            return None;
        }
        Some(RemoteSpec { url: raw.url.clone(), transport, headers: raw.headers.clone(), oauth })
    }

    /// Names that cannot be what they are for, and config that cannot be given.
    fn check_names(&mut self, entry: &Entry) {
        let name = entry.name.as_str();
        for (index, secret) in entry.secrets.iter().enumerate() {
            if !is_variable(&secret.env) {
                let message = format!("`{}` is not the name of an environment variable", secret.env.escape_debug());
                self.warning(name, &format!("secrets[{index}].env"), message);
            }
        }
        for (index, variable) in entry.env.iter().enumerate() {
            if !is_variable(&variable.name) {
                let message = format!("`{}` is not the name of an environment variable", variable.name.escape_debug());
                self.warning(name, &format!("env[{index}].name"), message);
            }
        }
        for required in entry.config.iter().flat_map(ConfigSchema::required_without_property) {
            self.warning(name, "config", format!("`{required}` is required and is not a property"));
        }
        let mut tools: Vec<&str> = entry.tools.iter().map(|tool| tool.name.as_str()).collect();
        tools.sort_unstable();
        let mut repeated: Vec<&str> =
            tools.windows(2).filter_map(|pair| (pair[0] == pair[1]).then_some(pair[0])).collect();
        repeated.dedup();
        for tool in repeated {
            self.warning(name, "tools", format!("`{tool}` is there more than once"));
        }
    }

    /// Sentences that are addressed to a model. They stay what they are, data; who reads the report can decide.
    fn check_wording(&mut self, entry: &Entry) {
        let name = entry.name.as_str();
        let description = instructing(&entry.description).or_else(|| instructing(&entry.title));
        if let Some(suspicious) = description {
            self.warning(name, "description", suspicious);
        }
        let suspicious: Vec<String> = entry
            .tools
            .iter()
            .filter_map(|tool| Some(format!("tool `{}` {}", tool.name, instructing(&tool.description)?)))
            .collect();
        for message in suspicious {
            self.warning(name, "tools", message);
        }
    }

    fn check_templates(&mut self, entry: &Entry) {
        let name = entry.name.as_str();
        for (index, variable) in entry.env.iter().enumerate() {
            if let Err(error) = template::paths(&variable.value) {
                self.warning(name, &format!("env[{index}].value"), error.to_string());
            }
        }
        for path in entry.unknown_template_paths() {
            self.warning(name, "config", format!("a template uses `{path}`, which the config does not offer"));
        }
    }
}

fn container(image: &str, raw: &RawEntry) -> ContainerSpec {
    ContainerSpec {
        image: image.to_owned(),
        command: raw.command.clone(),
        volumes: raw.volumes.clone(),
        user: raw.user.clone(),
        disable_network: raw.disable_network,
        allow_hosts: raw.allow_hosts.clone(),
        extra_hosts: raw.extra_hosts.clone(),
        agreed: None,
    }
}

fn short_list(items: Vec<String>) -> Vec<String> {
    items.into_iter().take(LISTED_MAX).map(|item| displayable(&item, TITLE_CHARACTERS_MAX)).collect()
}

fn shown(tool: EntryTool) -> EntryTool {
    EntryTool {
        name: displayable(&tool.name, TITLE_CHARACTERS_MAX),
        description: displayable(&tool.description, TOOL_DESCRIPTION_CHARACTERS_MAX),
        ..tool
    }
}

/// Why a package is not installed: what an installer would take for an option, or for a file of this machine, is no package.
fn unusable(package: &PackageSpec) -> Option<String> {
    let parts = std::iter::once(&package.identifier).chain(&package.version).chain(&package.with).chain(&package.bin);
    for part in parts {
        let bad =
            part.is_empty() || part.starts_with('-') || part.chars().any(|letter| letter.is_control() || letter == ' ');
        if bad {
            return Some(format!("`{}` cannot name a package, a version or a program", part.escape_debug()));
        }
    }
    let commands = [("install", &package.install), ("run", &package.run)];
    for (what, command) in commands.into_iter().filter_map(|(what, command)| Some((what, command.as_ref()?))) {
        if package.registry != Registry::Git {
            return Some(format!("`{what}` is for packages of git only"));
        }
        if let Err(problem) = Command::parse(command) {
            return Some(format!("`{what}` {problem}"));
        }
    }
    if package.run.is_some() && (package.bin.is_some() || !package.with.is_empty()) {
        return Some("`bin` and `with` say nothing beside `run`".to_owned());
    }
    if !package.arguments.is_empty()
        && matches!(package.run.as_deref().map(Command::parse), Some(Ok(Command::Shell(_))))
    {
        return Some("`arguments` cannot be added to a `run` that only a shell understands".to_owned());
    }
    let identifier = package.identifier.as_str();
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "@/._-+~[],".contains(letter);
    let named = match package.registry {
        Registry::Git => !identifier.contains("::") && (package.run.is_none() || identifier.parse::<GitUrl>().is_ok()),
        Registry::Npm => {
            identifier.chars().all(plain) && !identifier.starts_with(['.', '/']) && !identifier.contains("..")
        }
        Registry::Pypi => identifier.chars().all(plain) && !identifier.contains('/') && !identifier.starts_with('.'),
    };
    (!named).then(|| format!("`{}` cannot name a package of {}", identifier.escape_debug(), package.registry.word()))
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'=')
}
