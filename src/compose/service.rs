//! One service: from what the file says to a [`Definition`], with everything noted that is not done.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use serde_json::{Map, Value, json};

use super::{
    Definition, Problem, Severity,
    environment::NAME_BYTES_MAX,
    keys,
    reader::{PROBLEMS_MAX, Reading},
    variables::{Filled, fill},
};
use crate::{
    audit::without_secrets,
    catalog::{entry::Word, foreign::displayable},
    ids::ServerName,
    secrets::VALUE_BYTES_MAX,
};

/// Of a name in a message.
const NAME_CHARACTERS_MAX: usize = 200;

/// The least that Docker takes.
const MEMORY_BYTES_MIN: u64 = 6 << 20;

/// A service that is being read.
pub(super) struct Service<'a> {
    pub(super) file: &'a mut Reading,
    name: &'a str,
    failed: bool,
    shown: Vec<String>,
    /// Its `environment`, as it is shown.
    pub(super) set: Vec<String>,
    /// The variables it names, whether they are set or not.
    named: BTreeSet<String>,
    pub(super) definition: Definition,
}

/// Reads a service. None if it cannot be run as the file says.
pub(super) fn read(file: &mut Reading, name: &str, fields: &Map<String, Value>) -> Option<Definition> {
    let server: ServerName = name.parse().ok()?;
    let mut service = Service {
        file,
        name,
        failed: false,
        shown: Vec::new(),
        set: Vec::new(),
        named: BTreeSet::new(),
        definition: Definition {
            name: server,
            image: String::new(),
            shown: String::new(),
            leads: Vec::new(),
            entrypoint: None,
            command: None,
            environment: BTreeMap::new(),
            secrets: BTreeMap::new(),
            values: BTreeMap::new(),
            binds: Vec::new(),
            volumes: Vec::new(),
            user: None,
            working_dir: None,
            memory_bytes: None,
            nano_cpus: None,
            disable_network: false,
        },
    };
    service.everything(fields);
    service.finish()
}

impl Service<'_> {
    fn everything(&mut self, fields: &Map<String, Value>) {
        for key in fields.keys() {
            if let Some((severity, message)) = keys::unread(key) {
                self.problem(key, message, severity);
            }
        }
        match fields.get("image").filter(|image| !image.is_null()) {
            Some(image) => self.image(image),
            None if fields.contains_key("build") => {}
            None => self.error("image", "has to be there: a server is made from an image"),
        }
        self.definition.entrypoint = fields.get("entrypoint").and_then(|value| self.words("entrypoint", value));
        self.definition.command = fields.get("command").and_then(|value| self.words("command", value));
        if let Some(files) = fields.get("env_file") {
            self.env_files(files);
        }
        if let Some(environment) = fields.get("environment") {
            self.environment(environment);
        }
        if let Some(volumes) = fields.get("volumes").filter(|value| !value.is_null()) {
            self.volumes(volumes);
        }
        self.definition.user = fields.get("user").and_then(|value| self.shown_scalar("user", value));
        self.definition.working_dir =
            fields.get("working_dir").and_then(|value| self.shown_scalar("working_dir", value));
        if self.definition.working_dir.as_ref().is_some_and(|folder| !folder.starts_with('/')) {
            self.error("working_dir", "has to be an absolute path in the container");
        }
        self.bounds(fields);
        self.switches(fields);
    }

    fn image(&mut self, image: &Value) {
        let Some(written) = image.as_str() else { return self.error("image", "has to be text") };
        let Some(image) = self.scalar("image", image) else { return };
        let is_part = |letter: char| letter.is_ascii_alphanumeric() || "._-/:@+".contains(letter);
        if image.is_empty() || image.len() > 300 || image.starts_with('-') || !image.chars().all(is_part) {
            return self.error("image", "is no reference to an image");
        }
        self.definition.image = image;
        self.shows(&format!("image {written}"));
    }

    /// A command line: a list, or text that is taken apart as a shell would.
    fn words(&mut self, key: &str, value: &Value) -> Option<Vec<Word>> {
        let words: Vec<String> = match value {
            Value::Null => return None,
            Value::String(text) => match split(text) {
                Some(words) => words,
                None => {
                    self.error(key, "has a quote that does not end");
                    return None;
                }
            },
            Value::Array(items) => {
                let word = |item: &Value| match item {
                    Value::String(text) => Some(text.clone()),
                    Value::Number(_) | Value::Bool(_) => Some(item.to_string()),
                    _ => None,
                };
                match items.iter().map(word).collect() {
                    Some(words) => words,
                    None => {
                        self.error(key, "has to be a list of text");
                        return None;
                    }
                }
            }
            _ => {
                self.error(key, "has to be text or a list");
                return None;
            }
        };
        if !words.is_empty() {
            self.shows(&format!("{key} {}", words.join(" ")));
        }
        words.iter().map(|word| self.word(key, word)).collect()
    }

    /// A word of a command line. Values that came from elsewhere are kept beside it.
    fn word(&mut self, key: &str, written: &str) -> Option<Word> {
        let filled = self.fill(key, written)?;
        if filled.used.is_empty() {
            return Some(Word::Plain(filled.text));
        }
        for name in &filled.used {
            let value = self.variable(name).unwrap_or_default();
            if name.len() > NAME_BYTES_MAX {
                self.error(key, format!("the name `{}` is too long", named(name)));
            } else if value.contains('\0') || value.len() > VALUE_BYTES_MAX {
                self.error(key, format!("the value of `{name}` has a zero byte in it, or more than {VALUE_BYTES_MAX}"));
            } else if !value.is_empty() {
                self.definition.values.insert(name.clone(), value);
            }
        }
        Some(Word::Filled(filled.pieces))
    }

    fn bounds(&mut self, fields: &Map<String, Value>) {
        if let Some(limit) = fields.get("mem_limit").and_then(|value| self.shown_scalar("mem_limit", value)) {
            match bytes_in(&limit) {
                Some(bytes) if bytes >= MEMORY_BYTES_MIN => self.definition.memory_bytes = Some(bytes),
                Some(_) => self.error("mem_limit", format!("has to be at least {MEMORY_BYTES_MIN} bytes")),
                None => self.error("mem_limit", "has to be a number of bytes, or of b, k, m or g, as in 512m"),
            }
        }
        if let Some(cpus) = fields.get("cpus").and_then(|value| self.shown_scalar("cpus", value)) {
            match cpus.parse::<f64>() {
                #[expect(clippy::cast_possible_truncation, reason = "checked to be a small number of CPUs")]
                Ok(cpus) if (0.01..=1024.0).contains(&cpus) => self.definition.nano_cpus = Some((cpus * 1e9) as i64),
                _ => self.error("cpus", "has to be a number between 0.01 and 1024"),
            }
        }
    }

    /// Keys that ask for what is done anyway, or for what is not done.
    fn switches(&mut self, fields: &Map<String, Value>) {
        if fields.get("privileged").is_some_and(|value| truth(value) != Some(false)) {
            self.error("privileged", "is not supported: servers have no rights beyond their container");
        }
        match fields.get("network_mode").map(|value| value.as_str()) {
            None => {}
            Some(Some("none")) => {
                self.definition.disable_network = true;
                self.shows("network_mode none");
            }
            Some(_) => self.error("network_mode", "is not supported, but for `none`"),
        }
        let is_usual = |option: &Value| {
            option.as_str().is_some_and(|option| {
                matches!(option, "no-new-privileges" | "no-new-privileges:true" | "no-new-privileges=true")
            })
        };
        let options = fields.get("security_opt").map(|options| options.as_array().cloned().unwrap_or_default());
        if options.is_some_and(|options| !options.iter().all(is_usual)) {
            self.error("security_opt", "is not supported, but for `no-new-privileges:true`, which every server has");
        }
        for (key, why) in [("init", "servers have one"), ("stdin_open", "it is how servers are spoken to")] {
            if fields.get(key).is_some_and(|value| truth(value) != Some(true)) {
                self.warning(key, format!("is left out: {why}"));
            }
        }
    }

    fn finish(mut self) -> Option<Definition> {
        let origins = self.named.iter().filter_map(|name| self.file.origins.get(name)).flatten();
        let names: BTreeSet<&str> = self.named.iter().chain(origins).map(String::as_str).collect();
        if !names.is_empty() {
            let names = names.into_iter().collect::<Vec<_>>().join(", ");
            if let Some(place) = self.file.env_elsewhere.clone() {
                self.shows(&format!("reads variables from {}, which .env leads to", place.display()));
            }
            self.shows(&format!("is given the values of {names}"));
        }
        self.definition.shown = self.shown.join("; ");
        (!self.failed).then_some(self.definition)
    }

    /// Text or a number, with its variables filled in.
    fn scalar(&mut self, key: &str, value: &Value) -> Option<String> {
        match plain(value) {
            Some(written) => self.text(key, &written),
            None => {
                self.error(key, "has to be text or a number");
                None
            }
        }
    }

    /// The same, of a key that is shown as it is written.
    fn shown_scalar(&mut self, key: &str, value: &Value) -> Option<String> {
        let filled = self.scalar(key, value)?;
        if let Some(written) = plain(value) {
            self.shows(&format!("{key} {written}"));
        }
        Some(filled)
    }

    /// Text with its variables filled in, which is kept and shown as it is then: no place for a secret.
    pub(super) fn text(&mut self, at: &str, written: &str) -> Option<String> {
        let filled = self.fill(at, written)?;
        let what = |name: &String| {
            let has_one = self.file.secretive.contains(name);
            let is_one = looks_secret(name, &self.variable(name).unwrap_or_default());
            is_one.then_some("looks").or(has_one.then_some("has something in it that looks"))
        };
        let secret = filled.used.iter().find_map(|name| Some((name, what(name)?)));
        if let Some((name, what)) = secret {
            let why = format!(
                "uses `{name}`, which {what} like a secret and would be seen here: such values have their place in \
                 `environment`, `env_file`, `command` and `entrypoint`"
            );
            self.error(at, why);
            return None;
        }
        Some(filled.text)
    }

    pub(super) fn fill(&mut self, at: &str, written: &str) -> Option<Filled> {
        let Reading { variables, room, .. } = &mut *self.file;
        match fill(written, &|name| variables.get(name).cloned(), room) {
            Ok(filled) => {
                self.warn_of_unset(at, &filled.unset);
                self.uses(&filled.named);
                Some(filled)
            }
            Err(problem) => {
                self.error(at, problem);
                None
            }
        }
    }

    /// Notes that variables are named. All of them are shown, set or not: they may be set when the service is started.
    pub(super) fn uses(&mut self, names: &BTreeSet<String>) {
        self.named.extend(names.iter().cloned());
    }

    fn warn_of_unset(&mut self, at: &str, unset: &BTreeSet<String>) {
        for name in unset {
            self.warning(at, format!("the variable `{name}` is not set: it is empty"));
        }
    }

    pub(super) fn variable(&self, name: &str) -> Option<String> {
        self.file.variables.get(name).cloned()
    }

    pub(super) fn folder(&self) -> &Path {
        &self.file.folder
    }

    pub(super) fn declares(&self, volume: &str) -> bool {
        self.file.volumes.contains(volume)
    }

    /// Adds to what a person is shown before they agree: all of it, since who shows it may cut it.
    pub(super) fn shows(&mut self, what: &str) {
        match self.file.room.take(what.len()) {
            Ok(()) => self.shown.push(displayable(what, usize::MAX)),
            Err(problem) => self.error("", problem),
        }
    }

    /// Adds where a path leads that is shown as it is written.
    pub(super) fn leads(&mut self, what: &str) {
        match self.file.room.take(what.len()) {
            Ok(()) => self.definition.leads.push(displayable(what, usize::MAX)),
            Err(problem) => self.error("", problem),
        }
    }

    pub(super) fn error(&mut self, at: &str, message: impl Into<String>) {
        self.problem(at, message, Severity::Error);
    }

    pub(super) fn warning(&mut self, at: &str, message: impl Into<String>) {
        self.problem(at, message, Severity::Warning);
    }

    fn problem(&mut self, at: &str, message: impl Into<String>, severity: Severity) {
        self.failed |= severity == Severity::Error;
        if self.file.problems.len() >= PROBLEMS_MAX {
            return;
        }
        let key = at.split(['.', '[']).next().unwrap_or(at);
        let line = self.file.line(self.name, key);
        let at = format!("services.{}.{at}", self.name);
        let at = displayable(at.trim_end_matches('.'), NAME_CHARACTERS_MAX);
        self.file.problems.push(Problem { at, line, message: displayable(&message.into(), 1000), severity });
    }
}

/// A name in the file, as messages have it.
pub(super) fn named(name: &str) -> String {
    displayable(name, NAME_CHARACTERS_MAX)
}

/// Whether a value is named like a secret or has the form of one. A path to a secret is none.
pub(super) fn looks_secret(name: &str, value: &str) -> bool {
    !value.starts_with(['/', '.', '~']) && has_secret(name, value)
}

/// The same, of a path too.
pub(super) fn has_secret(name: &str, value: &str) -> bool {
    let alone = json!({name: value});
    without_secrets(&alone) != alone
}

pub(super) fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

pub(super) fn truth(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(truth) => Some(*truth),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

/// Compose's sizes: units are powers of 1024, and may be written with a `b` or `ib` after them.
fn bytes_in(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor = match unit.trim() {
        "" | "b" => 1_u64,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return None,
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor).filter(|bytes| i64::try_from(*bytes).is_ok());
    }
    #[expect(clippy::cast_precision_loss, reason = "a factor is a power of two")]
    let bytes = number.parse::<f64>().ok()? * factor as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to fit")]
    (0.0..9e18).contains(&bytes).then_some(bytes as u64)
}

/// Takes a command line apart, with quotes and backslashes as a shell has them, and nothing else of a shell.
fn split(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            letter if letter.is_whitespace() => words.extend(word.take()),
            '\'' => loop {
                match letters.next()? {
                    '\'' => {
                        word.get_or_insert_default();
                        break;
                    }
                    letter => word.get_or_insert_default().push(letter),
                }
            },
            '"' => loop {
                let word = word.get_or_insert_default();
                match letters.next()? {
                    '"' => break,
                    '\\' if letters.peek().is_some_and(|next| matches!(next, '"' | '\\' | '`')) => {
                        word.extend(letters.next());
                    }
                    letter => word.push(letter),
                }
            },
            '\\' => word.get_or_insert_default().push(letters.next()?),
            letter => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    Some(words)
}
