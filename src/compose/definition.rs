//! A service as a server, and the services of a file as a broker is offered them.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::{
    catalog::{
        Entry, Runnable,
        entry::{Agreed, Bind, ContainerSpec, FOR_WORDS, SecretSpec, Word},
    },
    ids::ServerName,
};

/// Services that are shown before anybody agreed, elsewhere than at a terminal.
const LINES_MAX: usize = 16;

/// Of each of them.
const LINE_CHARACTERS_MAX: usize = 800;

/// What entries made from Compose files have for a source.
pub(super) const SOURCE: &str = "compose";

/// A service that can be run.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    pub name: ServerName,
    pub image: String,
    /// What it would start, in a line, with variables as the file writes them: it is shown before anybody agreed. It is all
    /// there, however long it is.
    pub shown: String,
    /// Where the paths lead that `shown` has with variables or `~`. It has their values, so it is for a terminal only;
    /// whoever is not shown it has not been shown all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leads: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<Word>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<Word>>,
    /// Variables that the file itself has.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Variables whose values come from elsewhere: a file of variables, or the person's environment. They are treated as
    /// secrets, and not kept with the rest.
    #[serde(default)]
    pub secrets: BTreeMap<String, String>,
    /// Values of variables that entry point and command have, which are secrets too.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, String>,
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
        let of_words = self.values.iter().map(|(name, value)| (for_words(name), value.as_str()));
        let all = self.secrets.iter().map(|(name, value)| (name.clone(), value.as_str())).chain(of_words);
        all.map(|(variable, value)| (self.secret_name(&variable), value))
    }

    /// The same without what is a secret, for keeping.
    #[must_use]
    pub fn without_secrets(&self) -> Self {
        let without =
            |values: &BTreeMap<String, String>| values.keys().map(|name| (name.clone(), String::new())).collect();
        Self { secrets: without(&self.secrets), values: without(&self.values), ..self.clone() }
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
        let variables = self.secrets.keys().cloned().chain(self.values.keys().map(|name| for_words(name)));
        let secrets = variables.map(|variable| SecretSpec {
            name: self.secret_name(&variable),
            env: variable,
            example: String::new(),
            description: format!("A variable of the Compose file's service `{}`", self.name),
            required: true,
            by_variable: false,
        });
        Entry {
            description: format!("A service of a Compose file: {}", cut(&self.shown, LINE_CHARACTERS_MAX)),
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
    /// What it would start, a line each, and whether that is all of it: nothing is cut, and no path is shown without where
    /// it leads.
    #[must_use]
    pub fn lines(&self) -> (Vec<String>, bool) {
        let line = |definition: &Definition| format!("{}: {}", definition.name, definition.shown);
        let whole: Vec<String> = self.definitions.iter().take(LINES_MAX).map(line).collect();
        let mut lines: Vec<String> = whole.iter().map(|line| cut(line, LINE_CHARACTERS_MAX)).collect();
        let more = self.definitions.len().saturating_sub(LINES_MAX);
        let is_plain = self.definitions.iter().all(|definition| definition.leads.is_empty());
        let is_all = more == 0 && lines == whole && is_plain;
        if more > 0 {
            lines.push(format!("… and {more} more"));
        }
        (lines, is_all)
    }

    /// The command that agrees to it.
    #[must_use]
    pub fn command(&self) -> String {
        format!("mcp-broker compose trust {}", shell_words::quote(&self.file))
    }

    /// What a client is told of a file that nobody agreed to. Everything in it is the file's text, and shown as such.
    #[must_use]
    pub fn notice(&self) -> String {
        let (lines, is_all) = self.lines();
        let rest = if is_all {
            String::new()
        } else {
            format!("That is not all of it: `mcp-broker compose check {}` shows it.\n", shell_words::quote(&self.file))
        };
        format!(
            "The working folder has a Compose file that nobody has agreed to, so nothing of it runs. It would start:\n- {}\n\
             {rest}If the user wants that, they run `{}`, and the servers are there.",
            lines.join("\n- "),
            self.command()
        )
    }
}

/// A variable's name among the secrets when its value is for command lines.
fn for_words(variable: &str) -> String {
    format!("{FOR_WORDS}{variable}")
}

/// Text of at most so many characters; that something is missing shows.
fn cut(text: &str, characters_max: usize) -> String {
    match text.char_indices().nth(characters_max) {
        Some((end, _)) => format!("{} […]", &text[..end]),
        None => text.to_owned(),
    }
}
