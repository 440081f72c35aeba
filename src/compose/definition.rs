//! A service as a server, and the services of a file as a broker is offered them.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::{
    catalog::{
        Entry, Runnable,
        entry::{Agreed, Bind, ContainerSpec, SecretSpec},
    },
    ids::ServerName,
};

/// Services that are shown before anybody agreed.
const LINES_MAX: usize = 16;

/// What entries made from Compose files have for a source.
pub(super) const SOURCE: &str = "compose";

/// A service that can be run.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    pub name: ServerName,
    pub image: String,
    /// What it would start, in a line, with variables as the file writes them: it is shown before anybody agreed.
    pub shown: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Variables that the file itself has.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Variables whose values come from elsewhere: a file of variables, or the person's environment. They are treated as
    /// secrets, and not kept with the rest.
    #[serde(default)]
    pub secrets: BTreeMap<String, String>,
    #[serde(default)]
    pub binds: Vec<Bind>,
    #[serde(default)]
    pub volumes: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nano_cpus: Option<i64>,
    #[serde(default)]
    pub disable_network: bool,
}

impl fmt::Debug for Definition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Definition")
            .field("name", &self.name)
            .field("image", &self.image)
            .field("entrypoint", &self.entrypoint)
            .field("command", &self.command)
            .field("environment", &self.environment.keys().collect::<Vec<_>>())
            .field("secrets", &self.secrets.keys().collect::<Vec<_>>())
            .field("binds", &self.binds)
            .field("volumes", &self.volumes)
            .finish_non_exhaustive()
    }
}

impl Definition {
    /// The name that a variable from elsewhere has among the secrets.
    #[must_use]
    pub fn secret_name(&self, variable: &str) -> String {
        format!("{}:{variable}", self.name)
    }

    /// The values that came from elsewhere, under the names that they are kept by.
    pub fn sealed_values(&self) -> impl Iterator<Item = (String, &str)> {
        self.secrets.iter().map(|(variable, value)| (self.secret_name(variable), value.as_str()))
    }

    /// The same without what is a secret, for keeping.
    #[must_use]
    pub fn without_secrets(&self) -> Self {
        let secrets = self.secrets.keys().map(|name| (name.clone(), String::new())).collect();
        Self { secrets, ..self.clone() }
    }

    /// The server it is.
    #[must_use]
    pub fn entry(&self) -> Entry {
        let agreed = Agreed {
            entrypoint: self.entrypoint.clone(),
            command: self.command.clone(),
            environment: self.environment.clone(),
            binds: self.binds.clone(),
            volumes: self.volumes.clone(),
            user: self.user.clone(),
            working_dir: self.working_dir.clone(),
            memory_bytes: self.memory_bytes,
            nano_cpus: self.nano_cpus,
        };
        let container = ContainerSpec {
            image: self.image.clone(),
            disable_network: self.disable_network,
            agreed: Some(Box::new(agreed)),
            ..ContainerSpec::default()
        };
        let secrets = self.secrets.keys().map(|variable| SecretSpec {
            name: self.secret_name(variable),
            env: variable.clone(),
            example: String::new(),
            description: format!("A variable of the Compose file's service `{}`", self.name),
            required: true,
            by_variable: false,
        });
        Entry {
            description: format!("A service of a Compose file: {}", self.shown),
            source: SOURCE.into(),
            secrets: secrets.collect(),
            runs: vec![Runnable::Container(container)],
            ..Entry::unreadable(&self.name)
        }
    }
}

/// The services of one file, as a broker is offered them for a session.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    pub file: String,
    pub hash: String,
    /// Whether the file was named by the person who started the process.
    pub agreed: bool,
    pub definitions: Vec<Definition>,
}

impl Offer {
    /// What it would start, a line each.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let line = |definition: &Definition| format!("{}: {}", definition.name, definition.shown);
        let mut lines: Vec<String> = self.definitions.iter().take(LINES_MAX).map(line).collect();
        let more = self.definitions.len().saturating_sub(LINES_MAX);
        if more > 0 {
            lines.push(format!("and {more} more"));
        }
        lines
    }

    /// The command that agrees to it.
    #[must_use]
    pub fn command(&self) -> String {
        format!("mcp-broker compose trust {}", quoted(&self.file))
    }

    /// What a client is told of a file that nobody agreed to. Everything in it is the file's text, and shown as such.
    #[must_use]
    pub fn notice(&self) -> String {
        format!(
            "The working folder has a Compose file that nobody has agreed to, so nothing of it runs. It would start:\n- {}\n\
             If the user wants that, they run `{}`, and the servers are there.",
            self.lines().join("\n- "),
            self.command()
        )
    }
}

/// A path as one word for a shell.
fn quoted(path: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-+@%:,=".contains(letter);
    if !path.is_empty() && path.chars().all(plain) {
        path.to_owned()
    } else {
        format!("'{}'", path.replace('\'', r"'\''"))
    }
}
