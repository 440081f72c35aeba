//! YAML.

use std::str::FromStr as _;

use serde_json::{Map, Value};
use yaml_edit::{Document, Mapping, Sequence, YamlFile};

use super::{EditError, Key, Piece};

pub(super) fn parse(text: &str) -> Result<Value, EditError> {
    if has_nothing(text) {
        return Ok(Value::Null);
    }
    serde_saphyr::from_str(text).map_err(|error| {
        let said = error.without_snippet().to_string();
        // What follows is the place again, or advice to programmers.
        let ends = [" at line ", "; use from_", ", set Duplicate"];
        let end = ends.iter().filter_map(|end| said.find(end)).min().unwrap_or(said.len());
        let problem = said[..end].to_owned();
        match error.location() {
            Some(location) => EditError::at(location.line() as usize, location.column() as usize, problem),
            None => EditError::Invalid { problem },
        }
    })
}

/// Whether there are comments at most.
fn has_nothing(text: &str) -> bool {
    text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
}

pub(super) fn edit(text: &str, piece: &Piece, set: bool) -> Result<String, EditError> {
    if has_nothing(text) {
        return Ok(appended(text, piece));
    }
    let file = YamlFile::from_str(text).map_err(|_| EditError::Unsafe)?;
    let document = file.document().ok_or(EditError::Unsafe)?;
    let root = document.as_mapping().ok_or(EditError::Unsafe)?;
    let parsed = parse(text)?;
    let old = piece.find(&parsed);
    let container = parsed.get(piece.container).cloned();
    match (&piece.key, container) {
        (_, None) if set => return Ok(appended(text, piece)),
        (_, None) => {}
        (_, Some(Value::Null)) => root.set(piece.container, document_of(&contained(piece))?),
        (Key::Name(name), Some(Value::Object(_))) => {
            in_table(&root.get_mapping(piece.container).ok_or(EditError::Unsafe)?, name, piece, old, set)?;
        }
        (Key::Item { by, is }, Some(Value::Array(items))) => {
            let list = root.get_sequence(piece.container).ok_or(EditError::Unsafe)?;
            let place = items.iter().position(|item| item[by] == is.as_str());
            in_list(&list, place, piece, old, set)?;
        }
        _ => return Err(EditError::Shape(format!("`{}`", piece.container))),
    }
    Ok(file.to_string())
}

/// What an entry says now, if there is one.
type Old<'a> = Option<&'a Map<String, Value>>;

fn in_table(table: &Mapping, name: &str, piece: &Piece, old: Old<'_>, set: bool) -> Result<(), EditError> {
    match (table.get_mapping(name).zip(old), set) {
        (Some((entry, old)), true) => update(&entry, piece, old)?,
        (None, true) => table.set(name, document_of(&Value::Object(piece.value.clone()))?),
        (_, false) => _ = table.remove(name),
    }
    Ok(())
}

fn in_list(list: &Sequence, place: Option<usize>, piece: &Piece, old: Old<'_>, set: bool) -> Result<(), EditError> {
    match (place.zip(old), set) {
        (Some((place, old)), true) => {
            let entry = list.get(place).and_then(|node| node.as_mapping().cloned()).ok_or(EditError::Unsafe)?;
            update(&entry, piece, old)?;
        }
        (Some((place, _)), false) => _ = list.remove(place),
        (None, true) => list.push(document_of(&Value::Object(piece.value.clone()))?),
        (None, false) => {}
    }
    Ok(())
}

/// Changes the keys that have to be others, and leaves those of the user.
fn update(entry: &Mapping, piece: &Piece, there: &Map<String, Value>) -> Result<(), EditError> {
    for key in there.keys().filter(|key| piece.drops(key)) {
        entry.remove(key.as_str());
    }
    for (key, value) in &piece.value {
        if there.get(key) == Some(value) {
            continue;
        }
        match value {
            Value::Bool(value) => entry.set(key.as_str(), *value),
            Value::Number(number) => entry.set(key.as_str(), number.as_i64().unwrap_or_default()),
            Value::String(text) => entry.set(key.as_str(), text.as_str()),
            Value::Array(_) | Value::Object(_) => entry.set(key.as_str(), document_of(value)?),
            Value::Null => {}
        }
    }
    Ok(())
}

/// A value as a document of its own, to be put into another.
fn document_of(value: &Value) -> Result<Document, EditError> {
    YamlFile::from_str(&written(value, 0)).ok().and_then(|file| file.document()).ok_or(EditError::Unsafe)
}

/// The text with the container at its end.
fn appended(text: &str, piece: &Piece) -> String {
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    let whole = Value::Object(Map::from_iter([(piece.container.to_owned(), contained(piece))]));
    format!("{text}{end}{}", written(&whole, 0))
}

/// The container with this entry alone.
fn contained(piece: &Piece) -> Value {
    let entry = Value::Object(piece.value.clone());
    match &piece.key {
        Key::Name(name) => Value::Object(Map::from_iter([(name.clone(), entry)])),
        Key::Item { .. } => Value::Array(vec![entry]),
    }
}

/// A value in block style, as people write it.
pub(in crate::clients) fn written(value: &Value, indent: usize) -> String {
    let margin = " ".repeat(indent);
    match value {
        Value::Object(object) => object
            .iter()
            .map(|(key, value)| match value {
                Value::Object(inner) if !inner.is_empty() => {
                    format!("{margin}{}:\n{}", scalar(key), written(value, indent + 2))
                }
                Value::Array(inner) if !inner.is_empty() => {
                    format!("{margin}{}:\n{}", scalar(key), written(value, indent + 2))
                }
                _ => format!("{margin}{}: {}\n", scalar(key), plain(value)),
            })
            .collect(),
        Value::Array(items) => items
            .iter()
            .map(|item| match item {
                Value::Object(inner) if !inner.is_empty() => {
                    format!("{margin}- {}", written(item, indent + 2).trim_start())
                }
                _ => format!("{margin}- {}\n", plain(item)),
            })
            .collect(),
        _ => format!("{margin}{}\n", plain(value)),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => scalar(text),
        other => other.to_string(),
    }
}

/// Without quotes where that cannot mean anything else; JSON's quotes are YAML's too.
fn scalar(text: &str) -> String {
    let is_word = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '/')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '/' | '.'));
    let means_else = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    if is_word && !means_else.contains(&text.to_ascii_lowercase().as_str()) {
        text.to_owned()
    } else {
        Value::String(text.to_owned()).to_string()
    }
}
