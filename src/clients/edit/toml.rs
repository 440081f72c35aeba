//! TOML.

use serde_json::{Map, Value};
use toml_edit::{DocumentMut, Item, Table, TableLike, TomlError, value};

use super::{EditError, Key, Piece};

fn document(text: &str) -> Result<DocumentMut, EditError> {
    text.parse().map_err(|error: TomlError| {
        let start = error.span().map_or(0, |span| span.start).min(text.len());
        let before = text.get(..start).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
        EditError::at(line, column, error.message())
    })
}

pub(super) fn parse(text: &str) -> Result<Value, EditError> {
    Ok(json_of_table(document(text)?.as_table()))
}

pub(super) fn edit(text: &str, piece: &Piece, set: bool) -> Result<String, EditError> {
    let mut document = document(text)?;
    let shape = || EditError::Shape(format!("`{}`", piece.container));
    let Key::Name(name) = &piece.key else { return Err(EditError::Unsafe) };
    let Some(container) = document.get_mut(piece.container) else {
        return Ok(if set { appended(text, piece, name) } else { text.to_owned() });
    };
    let inline = container.is_inline_table();
    let container = container.as_table_like_mut().ok_or_else(shape)?;
    if !set {
        container.remove(name);
        return Ok(document.to_string());
    }
    match container.get_mut(name) {
        Some(entry) => update(entry.as_table_like_mut().ok_or_else(shape)?, piece),
        None if inline => _ = container.insert(name, value(inline_table(&piece.value))),
        None => {
            let mut table = Table::new();
            update(&mut table, piece);
            table.decor_mut().set_prefix("\n");
            container.insert(name, Item::Table(table));
        }
    }
    Ok(document.to_string())
}

/// The text with the entry at its end, below what comments are there.
fn appended(text: &str, piece: &Piece, name: &str) -> String {
    let mut entry = Table::new();
    update(&mut entry, piece);
    let mut container = Table::new();
    container.set_implicit(true);
    container.insert(name, Item::Table(entry));
    let mut document = DocumentMut::new();
    document.insert(piece.container, Item::Table(container));
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    let gap = if text.trim().is_empty() { "" } else { "\n" };
    format!("{text}{end}{gap}{document}")
}

fn update(entry: &mut dyn TableLike, piece: &Piece) {
    let dropped: Vec<String> = entry.iter().map(|(key, _)| key.to_owned()).filter(|key| piece.drops(key)).collect();
    for key in dropped {
        entry.remove(&key);
    }
    for (key, wanted) in &piece.value {
        match entry.get_mut(key) {
            Some(item) if json_of(item) == *wanted => {}
            Some(item) => {
                let mut new = toml_of(wanted);
                if let Some(old) = item.as_value() {
                    *new.decor_mut() = old.decor().clone();
                }
                *item = Item::Value(new);
            }
            None => _ = entry.insert(key, Item::Value(toml_of(wanted))),
        }
    }
}

fn inline_table(object: &Map<String, Value>) -> toml_edit::InlineTable {
    object.iter().map(|(key, value)| (key.as_str(), toml_of(value))).collect()
}

fn toml_of(value: &Value) -> toml_edit::Value {
    match value {
        Value::Bool(value) => (*value).into(),
        Value::Number(number) => number.as_i64().map_or_else(|| number.as_f64().unwrap_or_default().into(), Into::into),
        Value::String(text) => text.as_str().into(),
        Value::Array(items) => items.iter().map(toml_of).collect::<toml_edit::Array>().into(),
        Value::Object(object) => inline_table(object).into(),
        Value::Null => "".into(),
    }
}

fn json_of(item: &Item) -> Value {
    match item {
        Item::None => Value::Null,
        Item::Value(value) => json_of_value(value),
        Item::Table(table) => json_of_table(table),
        Item::ArrayOfTables(tables) => tables.iter().map(|table| json_of_table(table)).collect(),
    }
}

fn json_of_table(table: &dyn TableLike) -> Value {
    Value::Object(table.iter().map(|(key, item)| (key.to_owned(), json_of(item))).collect())
}

/// Numbers and dates are compared as they are written: all that counts is that they did not change.
fn json_of_value(value: &toml_edit::Value) -> Value {
    use toml_edit::Value as Toml;
    match value {
        Toml::String(text) => Value::String(text.value().clone()),
        Toml::Boolean(value) => Value::Bool(*value.value()),
        Toml::Integer(number) => Value::from(*number.value()),
        Toml::Float(number) => Value::String(format!("float {}", number.value())),
        Toml::Datetime(moment) => Value::String(format!("datetime {}", moment.value())),
        Toml::Array(items) => items.iter().map(json_of_value).collect(),
        Toml::InlineTable(table) => json_of_table(table),
    }
}
