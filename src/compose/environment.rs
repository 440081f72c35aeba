//! A service's variables: its `environment`, and the files that `env_file` names.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    ComposeError, bytes_of,
    env_file::{self, Parsed},
    is_showable,
    reader::Reading,
    service::{Service, has_secret, named, plain, truth},
};
use crate::secrets::{REDACTED, VALUE_BYTES_MAX};

/// Files of variables that one service may have.
const FILES_MAX: usize = 16;

/// With the service's name and what is between them, what a secret's name may have.
pub(super) const NAME_BYTES_MAX: usize = 128;

impl Service<'_> {
    pub(super) fn env_files(&mut self, value: &Value) {
        let files = match value {
            Value::Array(files) => files.clone(),
            Value::Null => return,
            other => vec![other.clone()],
        };
        if files.len() > FILES_MAX {
            return self.error("env_file", format!("has more than {FILES_MAX} files"));
        }
        for (at, file) in files.iter().enumerate() {
            let at = format!("env_file[{at}]");
            let (path, required) = match file {
                Value::String(path) => (Some(path.as_str()), true),
                Value::Object(fields) => {
                    if let Some(key) = fields.keys().find(|key| !matches!(key.as_str(), "path" | "required")) {
                        self.error(&at, format!("`{}` is not supported", key.escape_debug()));
                        continue;
                    }
                    let required = fields.get("required").map_or(Some(true), truth);
                    let Some(required) = required else {
                        self.error(&at, "`required` has to be true or false");
                        continue;
                    };
                    (fields.get("path").and_then(Value::as_str), required)
                }
                _ => (None, true),
            };
            let Some(path) = path else {
                self.error(&at, "has to be a path, or path and required");
                continue;
            };
            let written = path;
            if let Some(path) = self.text(&at, written) {
                self.env_file(&at, written, &path, required);
            }
        }
    }

    /// Reads a file of variables. Until somebody has agreed to it no value in it is told, and of one that is not in the
    /// folder only how many variables it has, which other ones it names, and what is wrong with a line: the message of a
    /// `${NAME:?message}` is the file's text.
    fn env_file(&mut self, at: &str, written: &str, path: &str, required: bool) {
        let path = self.file.folder.join(path);
        if !required && !path.exists() {
            self.file.note_absent(&path);
            return;
        }
        // What a path has from variables is not told either.
        let said = if written.contains('$') { written.to_owned() } else { path.display().to_string() };
        let place = path.canonicalize().unwrap_or_else(|_| path.clone());
        if !is_showable(&place) {
            return self.error(at, format!("{said} has characters that do not show, or is no text"));
        }
        let read = bytes_of(&path).map_err(|error| match &error {
            ComposeError::Read { source, .. } => format!("could not read {said}: {source}"),
            ComposeError::TooLarge { .. } => format!("{said} is too large"),
            _ => format!("{said} is not a file"),
        });
        let text = read.and_then(|bytes| {
            self.file.room.take(bytes.len())?;
            self.file.note(&path, &bytes);
            String::from_utf8(bytes).map_err(|_| format!("{said} is not text (UTF-8)"))
        });
        let parsed = text.and_then(|text| {
            let Reading { variables, room, .. } = &mut *self.file;
            env_file::parse(&text, &|name| variables.get(name).cloned(), room)
                .map_err(|problem| format!("{said}: {problem}"))
        });
        let Parsed { variables, named, .. } = match parsed {
            Ok(parsed) => parsed,
            Err(problem) => return self.error(at, problem),
        };
        for names in named.values() {
            self.uses(names);
        }
        if written.contains('$') {
            self.leads(&format!("reads variables from {}", place.display()));
        }
        if place.starts_with(&self.file.folder) {
            self.shows(&format!("reads variables from {written}"));
            self.uses(&named.keys().cloned().collect());
        } else {
            let place = if written.contains('$') { written.to_owned() } else { place.display().to_string() };
            let what = format!("reads variables from {place}, which is outside the folder ({} of them)", named.len());
            self.shows(&what);
        }
        for (name, value) in variables {
            self.variable_of(&name, value, true);
        }
    }

    pub(super) fn environment(&mut self, value: &Value) {
        self.variables_of(value);
        if !self.set.is_empty() {
            let set = std::mem::take(&mut self.set).join(" ");
            self.shows(&format!("environment {set}"));
        }
    }

    fn variables_of(&mut self, value: &Value) {
        match value {
            Value::Null => {}
            Value::Object(variables) => {
                for (name, value) in variables {
                    let at = format!("environment.{}", named(name));
                    match value {
                        Value::Null => self.pass(name),
                        value => {
                            if let Some(written) = plain(value) {
                                self.set(&at, name, &written);
                            } else {
                                self.error(&at, "has to be text, a number or a truth value");
                            }
                        }
                    }
                }
            }
            Value::Array(items) => {
                for (at, item) in items.iter().enumerate() {
                    let at = format!("environment[{at}]");
                    match item.as_str().map(|item| item.split_once('=').ok_or(item)) {
                        Some(Ok((name, value))) => self.set(&at, name, value),
                        Some(Err(name)) => self.pass(name),
                        None => self.error(&at, "has to be NAME=value, or NAME"),
                    }
                }
            }
            _ => self.error("environment", "has to be NAME: value, or a list of NAME=value"),
        }
    }

    fn set(&mut self, at: &str, name: &str, written: &str) {
        if let Some(filled) = self.fill(at, written) {
            // A token in the file itself is not for those who are shown what it would start, an agent for one. Whether
            // it is one does not depend on what is set: what is shown is the same then.
            let mut texts = filled.literals.iter().map(String::as_str).chain([written]);
            let is_token = !filled.literals.is_empty() && texts.any(|text| has_secret(name, text));
            self.set.push(format!("{name}={}", if is_token { REDACTED } else { written }));
            self.variable_of(name, filled.text, !filled.used.is_empty());
        }
    }

    /// A variable that is passed on as it is where the broker was started.
    fn pass(&mut self, name: &str) {
        self.uses(&BTreeSet::from([name.to_owned()]));
        if let Some(value) = self.variable(name) {
            self.variable_of(name, value, true);
        }
    }

    fn variable_of(&mut self, name: &str, value: String, from_outside: bool) {
        if let Err(problem) = self.file.room.take(name.len() + value.len()) {
            return self.error("environment", problem);
        }
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'=') {
            return self.error("environment", format!("`{}` is no variable's name", named(name)));
        }
        if name.len() > NAME_BYTES_MAX {
            return self.error("environment", format!("the name `{}` is too long", named(name)));
        }
        if value.contains('\0') {
            return self.error("environment", format!("the value of `{name}` has a zero byte in it"));
        }
        self.definition.environment.remove(name);
        self.definition.secrets.remove(name);
        if !from_outside || value.is_empty() {
            self.definition.environment.insert(name.to_owned(), value);
        } else if value.len() > VALUE_BYTES_MAX {
            self.error("environment", format!("the value of `{name}` is longer than {VALUE_BYTES_MAX} bytes"));
        } else {
            self.definition.secrets.insert(name.to_owned(), value);
        }
    }
}
