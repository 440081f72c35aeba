//! Reading one catalog file in the Docker catalog's format, and saying exactly what is wrong with it.
//!
//! The format is `{version, name, displayName, registry: {NAME: ENTRY}}`, versions 2 and 3, YAML or JSON. One addition:
//! an entry may carry `packages:` (npm, PyPI, Git), or a plain `command:` without an image, to run without containers.
//!
//! A file that cannot be read is an error. An entry that cannot be understood is left out and reported, with its file,
//! its name and the field; the rest of the file is used.

use std::{collections::BTreeMap, fmt, path::Path, sync::Arc};

use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    config_schema::ConfigSchema,
    entry::{
        CommandSpec, ContainerSpec, Entry, EntryTool, EnvSpec, PackageSpec, PerCallTool, RemoteSpec, RemoteTransport,
        Runnable, SecretSpec,
    },
    template,
};
use crate::ids::ServerName;

/// A catalog file larger than this is refused.
pub const FILE_BYTES_MAX: u64 = 64 << 20;

/// Descriptions are other people's text: longer ones are cut.
const DESCRIPTION_CHARACTERS_MAX: usize = 4000;

const ENTRY_FIELDS: &str = "title, description, type, image, command, volumes, user, env, secrets, config, remote, \
                            packages, tools, metadata, longLived, shared, disableNetwork, allowHosts, extraHosts, oauth";

/// Something in a catalog file that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub file: Arc<str>,
    /// The entry's name; empty when it is the file itself.
    pub entry: String,
    /// The field's path within the entry, as in `secrets[0].env`; empty when it is the entry itself.
    pub field: String,
    pub message: String,
    pub severity: Severity,
}

/// How bad a [`Problem`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The entry, or the whole file, is not used.
    Error,
    /// The entry is used as far as it was understood.
    Warning,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.file)?;
        if !self.entry.is_empty() {
            write!(formatter, ": {}", self.entry)?;
        }
        if !self.field.is_empty() {
            write!(formatter, ": {}", self.field)?;
        }
        write!(formatter, ": {}", self.message)
    }
}

/// The file cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum CatalogFileError {
    #[error("could not read the catalog file {file}")]
    Read {
        file: String,
        #[source]
        source: std::io::Error,
    },
    #[error("the catalog file {file} is larger than {FILE_BYTES_MAX} bytes")]
    TooLarge { file: String },
    #[error("the catalog file {file} is not a catalog: {problem}")]
    Parse { file: String, problem: String },
}

/// What one file gave.
#[derive(Debug, Default)]
pub struct Loaded {
    pub entries: Vec<Entry>,
    pub problems: Vec<Problem>,
}

/// Reads a catalog file from disk.
///
/// # Errors
///
/// When it cannot be read or is not a catalog.
pub fn read(path: &Path) -> Result<Loaded, CatalogFileError> {
    let file = path.display().to_string();
    let size = std::fs::metadata(path).map_err(|source| CatalogFileError::Read { file: file.clone(), source })?.len();
    if size > FILE_BYTES_MAX {
        return Err(CatalogFileError::TooLarge { file });
    }
    let text = std::fs::read_to_string(path).map_err(|source| CatalogFileError::Read { file: file.clone(), source })?;
    parse(&file, &text)
}

/// Parses a catalog's text; `file` is what its problems are reported under.
///
/// # Errors
///
/// When the text is not a catalog.
pub fn parse(file: &str, text: &str) -> Result<Loaded, CatalogFileError> {
    let wrong = |problem: String| CatalogFileError::Parse { file: file.to_owned(), problem };
    let document: CatalogDocument = serde_saphyr::from_str(text).map_err(|error| wrong(error.to_string()))?;
    if let Some(version) = document.version.filter(|version| !(1..=3).contains(version)) {
        return Err(wrong(format!("version {version} is not known (2 and 3 are)")));
    }
    let mut reader = Reader { file: file.into(), loaded: Loaded::default() };
    for (name, value) in document.registry {
        reader.entry(&name, value);
    }
    Ok(reader.loaded)
}

#[derive(Deserialize)]
struct CatalogDocument {
    version: Option<i64>,
    registry: BTreeMap<String, Value>,
}

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
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

/// Fields of the Docker catalog that are for display or for its build, and one spelling the registry's source form uses.
const IGNORED_FIELDS: [&str; 17] = [
    "dateAdded",
    "ref",
    "readme",
    "toolsUrl",
    "source",
    "upstream",
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
    #[serde(default)]
    phrases: Vec<String>,
    #[serde(default)]
    pulls: Option<u64>,
}

struct Reader {
    file: Arc<str>,
    loaded: Loaded,
}

impl Reader {
    fn problem(&mut self, entry: &str, field: &str, message: impl Into<String>, severity: Severity) {
        self.loaded.problems.push(Problem {
            file: self.file.clone(),
            entry: entry.escape_debug().take(120).collect(),
            field: field.to_owned(),
            message: message.into(),
            severity,
        });
    }

    fn error(&mut self, entry: &str, field: &str, message: impl Into<String>) {
        self.problem(entry, field, message, Severity::Error);
    }

    fn warning(&mut self, entry: &str, field: &str, message: impl Into<String>) {
        self.problem(entry, field, message, Severity::Warning);
    }

    fn entry(&mut self, name: &str, value: Value) {
        let server: ServerName = match name.parse() {
            Ok(server) => server,
            Err(error) => return self.error(name, "", error.to_string()),
        };
        let raw: RawEntry = match serde_path_to_error::deserialize(value) {
            Ok(raw) => raw,
            Err(error) => return self.error(name, &error.path().to_string(), error.inner().to_string()),
        };
        for field in raw.others.keys().filter(|field| !IGNORED_FIELDS.contains(&field.as_str())) {
            self.warning(name, field, format!("is not a field of an entry ({ENTRY_FIELDS})"));
        }
        if let Some(entry) = self.build(server, raw) {
            self.check_templates(&entry);
            self.loaded.entries.push(entry);
        }
    }

    fn build(&mut self, server: ServerName, raw: RawEntry) -> Option<Entry> {
        let name = server.as_str().to_owned();
        let config = match ConfigSchema::new(raw.config.clone()) {
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
            title: displayable(&title, 200),
            description: displayable(&raw.description.unwrap_or_default(), DESCRIPTION_CHARACTERS_MAX),
            source: self.file.clone(),
            category: raw.metadata.category.unwrap_or_default(),
            tags: raw.metadata.tags,
            phrases: raw.metadata.phrases,
            pulls: raw.metadata.pulls.unwrap_or_default(),
            tools: raw.tools,
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
        runs.extend(raw.packages.iter().cloned().map(Runnable::Package));
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
        for (index, tool) in raw.tools.iter().enumerate() {
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
                name: tool.name.clone(),
                description: displayable(&tool.description, DESCRIPTION_CHARACTERS_MAX),
                parameters: parameters.clone(),
                container,
            };
            for problem in tool.template_problems() {
                self.warning(name, &format!("tools[{index}].container"), problem);
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
    }
}

/// Other people's text without control characters (line breaks become spaces), cut to `characters_max`.
fn displayable(text: &str, characters_max: usize) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).take(characters_max).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(yaml: &str) -> Vec<String> {
        parse("c.yaml", yaml).unwrap().problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_problem_names_file_entry_and_field() {
        let yaml = r#"
registry:
  good: {command: [server]}
  nothing: {title: Nothing}
  bad-secret: {image: x, secrets: [{name: a}]}
  bad-transport: {remote: {url: "https://example.com", transport_type: carrier-pigeon}}
  bad-url: {remote: {url: "ftp://example.com"}}
  typo: {image: x, secrtes: []}
  template: {image: x, command: ["{{template.none}}"]}
  no-tools: {type: poci, tools: [{name: a}]}
  tools: {type: poci, tools: [{name: a, parameters: {type: array}, container: {image: x}}, {name: b, container: {image: x, command: ["{{args|into}}"]}}]}
  "": {image: x}
"#;
        insta::assert_snapshot!(problems(yaml).join("\n"), @r"
        c.yaml: `` cannot name a server: 1 to 200 bytes, no control characters, no spaces at the ends
        c.yaml: bad-secret: secrets[0]: missing field `env`
        c.yaml: bad-transport: remote.transport_type: `carrier-pigeon` is not one of streamable-http, sse
        c.yaml: bad-url: remote.url: `ftp://example.com` is not an http or https URL
        c.yaml: no-tools: tools[0]: has no `container` with an `image`: it is left out
        c.yaml: no-tools: tools: a poci entry needs tools, each with a `container` that has an `image`
        c.yaml: nothing: says no way to run it: needs an image, packages, a command or a remote
        c.yaml: template: config: a template uses `template.none`, which the config does not offer
        c.yaml: tools: tools[0].parameters: is not the schema of an object: the tool is left out
        c.yaml: tools: tools[1].container: a template uses `args`, which the parameters do not offer
        c.yaml: typo: secrtes: is not a field of an entry (title, description, type, image, command, volumes, user, env, secrets, config, remote, packages, tools, metadata, longLived, shared, disableNetwork, allowHosts, extraHosts, oauth)
        ");
        assert_eq!(parse("c.yaml", yaml).unwrap().entries.len(), 4);
    }

    #[test]
    fn what_is_no_catalog_is_an_error() {
        for text in ["", "[]", "registry: 3", "{", "version: 99\nregistry: {}", "\u{0}"] {
            assert!(parse("c.yaml", text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_yaml_bomb_is_refused() {
        let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x]\n");
        for level in 1..12 {
            let previous = level - 1;
            bomb.push_str(&format!("a{level}: &a{level} [{}]\n", vec![format!("*a{previous}"); 9].join(",")));
        }
        bomb.push_str("registry: {}\n");
        assert!(parse("bomb.yaml", &bomb).is_err());
    }

    #[test]
    fn control_characters_do_not_reach_a_description() {
        let loaded = parse("c.yaml", "registry: {a: {image: x, description: \"one\\u001b[31mtwo\\nthree\"}}").unwrap();
        assert_eq!(loaded.entries[0].description, "one [31mtwo three");
    }
}
