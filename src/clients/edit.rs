//! Edits of a text that change one entry and leave every other byte as it is.
//!
//! An editor for each format works on the text without its byte order mark and with plain line breaks; what it changed is
//! then carried over to the text as it was, line by line. Afterwards both texts are parsed, and the edit counts only if
//! they differ by the entry and by nothing else: an editor that does not understand an odd file cannot spoil it.

mod json;
mod toml;
mod yaml;

use serde_json::{Map, Value};
use similar::{ChangeTag, TextDiff};

/// Keys that say how a client reaches a server. Those of the way it was reached before go when the way changes; all other
/// keys of an entry are the user's and stay.
const WAYS: [&str; 15] = [
    "type",
    "command",
    "args",
    "cmd",
    "uri",
    "url",
    "httpUrl",
    "serverUrl",
    "headers",
    "http_headers",
    "env_http_headers",
    "bearer_token_env_var",
    "requestOptions",
    "env_keys",
    "source",
];

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Json,
    /// JSON with comments and trailing commas.
    Jsonc,
    Toml,
    Yaml,
}

/// One entry: where in the file it is, and what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The table or list at the file's top.
    pub container: &'static str,
    pub key: Key,
    pub value: Map<String, Value>,
}

/// How an entry is found in its container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// A table's key.
    Name(String),
    /// The item of a list that has this value under that key.
    Item { by: &'static str, is: String },
}

/// A text is not edited.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    #[error("it is not valid: {problem}")]
    Invalid { problem: String },
    #[error("it holds something else than the client expects, at {0}")]
    Shape(String),
    #[error("it is written in a way that cannot be edited without changing more than the entry of mcp-broker")]
    Unsafe,
}

impl EditError {
    fn at(line: usize, column: usize, problem: impl std::fmt::Display) -> Self {
        Self::Invalid { problem: format!("line {line}, column {column}: {problem}") }
    }
}

impl Piece {
    /// The entry of this key in a parsed file.
    pub fn find<'a>(&self, file: &'a Value) -> Option<&'a Map<String, Value>> {
        let container = file.get(self.container)?;
        match &self.key {
            Key::Name(name) => container.get(name)?.as_object(),
            Key::Item { by, is } => {
                container.as_array()?.iter().find(|item| item[by] == is.as_str()).and_then(Value::as_object)
            }
        }
    }

    /// What the entry is to be, given what it is.
    fn merged(&self, old: Option<&Map<String, Value>>) -> Map<String, Value> {
        let mut merged = old.cloned().unwrap_or_default();
        merged.retain(|key, _| !self.drops(key));
        for (key, value) in &self.value {
            merged.insert(key.clone(), value.clone());
        }
        merged
    }

    /// A container with nothing in it is as good as none.
    fn trimmed(&self, mut file: Value) -> Value {
        let is_empty = match &file[self.container] {
            Value::Null => true,
            Value::Object(table) => table.is_empty(),
            Value::Array(items) => items.is_empty(),
            _ => false,
        };
        if let Some(root) = file.as_object_mut().filter(|_| is_empty) {
            root.shift_remove(self.container);
        }
        if file.as_object().is_some_and(Map::is_empty) { Value::Null } else { file }
    }

    fn drops(&self, key: &str) -> bool {
        WAYS.contains(&key) && !self.value.contains_key(key)
    }

    /// The parsed file with the entry, or without it.
    fn applied(&self, file: &Value, set: bool) -> Value {
        let mut file = if file.is_null() { Value::Object(Map::new()) } else { file.clone() };
        let empty = match self.key {
            Key::Name(_) => Value::Object(Map::new()),
            Key::Item { .. } => Value::Array(Vec::new()),
        };
        let merged = set.then(|| Value::Object(self.merged(self.find(&file))));
        let Some(root) = file.as_object_mut() else { return file };
        if !set && !root.contains_key(self.container) {
            return file;
        }
        let container = root.entry(self.container).or_insert(Value::Null);
        if container.is_null() {
            *container = empty;
        }
        match (&self.key, container) {
            (Key::Name(name), Value::Object(table)) => match merged {
                Some(merged) => _ = table.insert(name.clone(), merged),
                None => _ = table.shift_remove(name),
            },
            (Key::Item { by, is }, Value::Array(items)) => {
                let place = items.iter().position(|item| item[by] == is.as_str());
                match (place, merged) {
                    (Some(place), Some(merged)) => items[place] = merged,
                    (Some(place), None) => _ = items.remove(place),
                    (None, Some(merged)) => items.push(merged),
                    (None, None) => {}
                }
            }
            _ => {}
        }
        file
    }
}

impl Format {
    /// What a text means; nothing where it is empty.
    ///
    /// # Errors
    ///
    /// When it is not valid; the error says where.
    pub fn parse(self, text: &str) -> Result<Value, EditError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        match self {
            Self::Json | Self::Jsonc => json::parse(text, self == Self::Jsonc),
            Self::Toml => toml::parse(text),
            Self::Yaml => yaml::parse(text),
        }
    }

    /// The text with these entries. It is the same text if it has them.
    ///
    /// # Errors
    ///
    /// When the text is not valid, or cannot be edited.
    pub fn with(self, text: &str, pieces: &[Piece]) -> Result<String, EditError> {
        pieces.iter().try_fold(text.to_owned(), |text, piece| self.change(&text, piece, true))
    }

    /// The text without these entries.
    ///
    /// # Errors
    ///
    /// When the text is not valid, or cannot be edited.
    pub fn without(self, text: &str, pieces: &[Piece]) -> Result<String, EditError> {
        pieces.iter().try_fold(text.to_owned(), |text, piece| self.change(&text, piece, false))
    }

    fn change(self, text: &str, piece: &Piece, set: bool) -> Result<String, EditError> {
        let before = self.parse(text)?;
        if !(before.is_object() || before.is_null()) {
            return Err(EditError::Shape("its top".to_owned()));
        }
        let wanted = piece.applied(&before, set);
        let there = piece.find(&before);
        let is_done = if set { there == Some(&piece.merged(there)) } else { there.is_none() };
        if is_done {
            return Ok(text.to_owned());
        }
        let plain = Plain::of(text);
        let edited = match self {
            Self::Json | Self::Jsonc => json::edit(&plain.text, piece, set, self == Self::Jsonc),
            Self::Toml => toml::edit(&plain.text, piece, set),
            Self::Yaml => yaml::edit(&plain.text, piece, set),
        }?;
        let after = plain.carried(&edited);
        let found = self.parse(&after).map_err(|_| EditError::Unsafe)?;
        if piece.trimmed(found) == piece.trimmed(wanted) { Ok(after) } else { Err(EditError::Unsafe) }
    }
}

/// A text as the editors get it, and what it takes to put it back.
struct Plain<'a> {
    original: &'a str,
    text: String,
}

impl<'a> Plain<'a> {
    fn of(original: &'a str) -> Self {
        let text = original.strip_prefix('\u{feff}').unwrap_or(original).replace("\r\n", "\n");
        Self { original, text }
    }

    /// The original text with what became of the plain one. New lines end as most lines did.
    fn carried(&self, edited: &str) -> String {
        let mark = if self.original.starts_with('\u{feff}') { "\u{feff}" } else { "" };
        let lines: Vec<&str> = self.original[mark.len()..].split_inclusive('\n').collect();
        let windows = lines.iter().filter(|line| line.ends_with("\r\n")).count() * 2 > lines.len();
        let mut carried = mark.to_owned();
        // Cut as `lines` is, so that lines of the two have the same numbers.
        let (old, new): (Vec<&str>, Vec<&str>) =
            (self.text.split_inclusive('\n').collect(), edited.split_inclusive('\n').collect());
        for change in TextDiff::from_slices(&old, &new).iter_all_changes() {
            match (change.tag(), change.old_index().and_then(|index| lines.get(index))) {
                (ChangeTag::Equal, Some(line)) => carried.push_str(line),
                (ChangeTag::Insert, _) if windows => carried.push_str(&change.value().replace('\n', "\r\n")),
                (ChangeTag::Insert, _) => carried.push_str(change.value()),
                _ => {}
            }
        }
        carried
    }
}

#[cfg(test)]
mod tests;
