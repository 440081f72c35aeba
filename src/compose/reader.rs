//! A file as a whole: its services, its variables, and the hash of what a person agrees to.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use data_encoding::HEXLOWER;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Map, Value};
use serde_saphyr::Spanned;
use sha2::{Digest as _, Sha256};

use super::{
    ComposeError, ComposeFile, Definition, Environment, Problem, Severity, bytes_of,
    env_file::{self, Parsed},
    is_showable, keys, service,
    variables::Room,
};
use crate::{
    catalog::{file::yaml, foreign::displayable},
    supervisor::upstream::chain,
};

/// More services are not read from one file.
const SERVICES_MAX: usize = 64;

const NAME_CHARACTERS_MAX: usize = 64;

/// What is made of a file, and of all that it reads, is no larger.
const MADE_BYTES_MAX: usize = 4 << 20;

/// Problems that are told of one file.
pub(super) const PROBLEMS_MAX: usize = 1000;

/// A file that is being read.
pub(super) struct Reading {
    pub(super) folder: PathBuf,
    pub(super) variables: Environment,
    /// The variables from elsewhere that each one of `.env` names, whether they are set or not.
    pub(super) origins: BTreeMap<String, BTreeSet<String>>,
    /// The variables of `.env` that have another one in them that looks like a secret.
    pub(super) secretive: BTreeSet<String>,
    /// Where `.env` is, if it is a link that leads out of the folder.
    pub(super) env_elsewhere: Option<PathBuf>,
    pub(super) room: Room,
    /// The volumes that the file declares and services may use.
    pub(super) volumes: BTreeSet<String>,
    pub(super) problems: Vec<Problem>,
    lines: Lines,
    hash: Sha256,
}

/// Where keys are. Says nothing of those that come from an anchor.
#[derive(Default, Deserialize)]
struct Lines {
    #[serde(default)]
    services: BTreeMap<String, BTreeMap<String, Spanned<IgnoredAny>>>,
}

/// Reads a Compose file. Nothing of it is started, and its values go nowhere.
///
/// # Errors
///
/// When it cannot be read, has a path that does not show whole, or is no Compose file at all.
pub fn read(path: &Path, environment: &Environment) -> Result<ComposeFile, ComposeError> {
    let wrong = |source| ComposeError::Read { path: path.to_owned(), source };
    let path = path.canonicalize().map_err(wrong)?;
    if !is_showable(&path) {
        return Err(ComposeError::Unshowable { shown: displayable(&path.display().to_string(), usize::MAX) });
    }
    let bytes = bytes_of(&path)?;
    let unlike = |problem: String| ComposeError::Parse { path: path.clone(), problem };
    let text = std::str::from_utf8(&bytes).map_err(|error| unlike(error.to_string()))?;
    let document: Map<String, Value> = yaml(text).map_err(unlike)?;
    let services = match document.get("services") {
        Some(Value::Object(services)) => services.clone(),
        _ => return Err(unlike("it has no `services`".to_owned())),
    };
    let mut reading = Reading {
        folder: path.parent().map(Path::to_path_buf).unwrap_or_default(),
        variables: Environment::new(),
        origins: BTreeMap::new(),
        secretive: BTreeSet::new(),
        env_elsewhere: None,
        room: Room::of(MADE_BYTES_MAX),
        volumes: BTreeSet::new(),
        problems: Vec::new(),
        lines: yaml(text).unwrap_or_default(),
        hash: Sha256::new(),
    };
    reading.note(&path, &bytes);
    reading.variables(environment);
    reading.top(&document);
    let definitions = reading.services(&services);
    Ok(reading.finish(path, definitions))
}

impl Reading {
    /// The person's variables come before those of `.env`.
    fn variables(&mut self, environment: &Environment) {
        let path = self.folder.join(".env");
        if !path.exists() {
            self.note_absent(&path);
            self.variables.clone_from(environment);
            return;
        }
        let place = path.canonicalize().unwrap_or_else(|_| path.clone());
        if !is_showable(&place) {
            let message = "is left out: where it leads has characters that do not show, or is no text";
            self.problem(".env", message, Severity::Error);
            self.variables.clone_from(environment);
            return;
        }
        self.env_elsewhere = Some(place).filter(|place| !place.starts_with(&self.folder));
        let parsed = bytes_of(&path).map_err(|error| chain(&error)).and_then(|bytes| {
            self.note(&path, &bytes);
            let text = String::from_utf8(bytes).map_err(|_| "it is not text (UTF-8)".to_owned())?;
            env_file::parse(&text, &|name| environment.get(name).cloned(), &mut self.room)
        });
        match parsed {
            Ok(Parsed { variables, named, secretive }) => {
                self.variables = variables;
                // Also of those that the person has set: what is shown is the same when they are not.
                self.origins = named;
                self.secretive = secretive;
                self.secretive.retain(|name| !environment.contains_key(name));
            }
            Err(problem) => self.problem(".env", problem, Severity::Warning),
        }
        self.variables.extend(environment.clone());
    }

    fn top(&mut self, document: &Map<String, Value>) {
        for key in document.keys() {
            if let Some((severity, message)) = keys::unread_at_top(key) {
                self.problem(key, message, severity);
            }
        }
        for (name, volume) in document.get("volumes").and_then(Value::as_object).into_iter().flatten() {
            let of_its_own = |key: &&String| !matches!(key.as_str(), "name" | "labels") && !key.starts_with("x-");
            match volume.as_object().and_then(|volume| volume.keys().find(of_its_own)) {
                Some(key) => {
                    let message = format!("`{key}` is not supported: services that use the volume are left out");
                    self.problem(&format!("volumes.{name}"), message, Severity::Warning);
                }
                None => {
                    self.volumes.insert(name.clone());
                }
            }
        }
    }

    fn services(&mut self, services: &Map<String, Value>) -> Vec<Definition> {
        if services.is_empty() {
            self.problem("services", "has none", Severity::Warning);
        }
        let mut definitions = Vec::new();
        for (at, (name, fields)) in services.iter().enumerate() {
            let at_name = format!("services.{name}");
            if at >= SERVICES_MAX {
                let message = format!("has more than {SERVICES_MAX}: the others are left out");
                self.problem("services", message, Severity::Error);
                break;
            }
            let is_name = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-');
            if name.is_empty() || name.len() > NAME_CHARACTERS_MAX || !name.chars().all(is_name) {
                let message =
                    format!("cannot name a service: 1 to {NAME_CHARACTERS_MAX} of the letters a-z A-Z 0-9 . _ -");
                self.problem(&at_name, message, Severity::Error);
                continue;
            }
            match fields.as_object() {
                Some(fields) => definitions.extend(service::read(self, name, fields)),
                None => self.problem(&at_name, "says nothing: a service has to have an image", Severity::Error),
            }
        }
        definitions
    }

    /// What is agreed to are the services that can be run, as they are shown: a variable that is set later must not bring
    /// another one along. Folders are part of it, since a link in the working folder may be changed to lead elsewhere.
    fn finish(mut self, path: PathBuf, definitions: Vec<Definition>) -> ComposeFile {
        for definition in &definitions {
            self.part(b"name", definition.name.as_str().as_bytes());
            self.part(b"show", definition.shown.as_bytes());
            for bind in &definition.binds {
                self.part(b"bind", bind.source.as_os_str().as_encoded_bytes());
            }
        }
        if self.problems.len() >= PROBLEMS_MAX {
            let message = format!("has more than {PROBLEMS_MAX} problems, which are not all told");
            self.problems.push(Problem { at: "services".into(), line: None, message, severity: Severity::Error });
        }
        let hash = HEXLOWER.encode(&self.hash.finalize());
        self.problems.sort_by_key(|problem| problem.line);
        ComposeFile { path, hash, definitions, problems: self.problems }
    }

    /// Has a file count: where it is and what is in it.
    pub(super) fn note(&mut self, path: &Path, bytes: &[u8]) {
        self.part(b"file", path.as_os_str().as_encoded_bytes());
        self.part(b"with", bytes);
    }

    /// Has it count that a file is not there.
    pub(super) fn note_absent(&mut self, path: &Path) {
        self.part(b"none", path.as_os_str().as_encoded_bytes());
    }

    /// Lengths keep one part from passing for two.
    fn part(&mut self, what: &[u8; 4], bytes: &[u8]) {
        self.hash.update(what);
        self.hash.update((bytes.len() as u64).to_be_bytes());
        self.hash.update(bytes);
    }

    pub(super) fn line(&self, service: &str, key: &str) -> Option<u64> {
        let line = self.lines.services.get(service)?.get(key)?.referenced.line();
        (line > 0).then_some(line)
    }

    fn problem(&mut self, at: &str, message: impl Into<String>, severity: Severity) {
        if self.problems.len() >= PROBLEMS_MAX {
            return;
        }
        let message = displayable(&message.into(), 1000);
        self.problems.push(Problem { at: displayable(at, 200), line: None, message, severity });
    }
}
