//! JSON, with comments where the client reads them.

use jsonc_parser::{
    ParseOptions,
    cst::{CstArray, CstInputValue, CstNode, CstObject, CstRootNode},
    errors::ParseError,
};
use serde_json::{Map, Value};

use super::{EditError, Key, Piece};

impl From<ParseError> for EditError {
    fn from(error: ParseError) -> Self {
        Self::at(error.line_display(), error.column_display(), error.kind())
    }
}

/// JSON as every parser reads it, or with comments and trailing commas.
fn options(comments: bool) -> ParseOptions {
    ParseOptions {
        allow_comments: comments,
        allow_trailing_commas: comments,
        allow_loose_object_property_names: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    }
}

pub(super) fn parse(text: &str, comments: bool) -> Result<Value, EditError> {
    if !comments && !text.trim().is_empty() {
        // The editor's parser reads comments whether they are allowed or not.
        return serde_json::from_str(text).map_err(|error| {
            let problem = error.to_string();
            let problem = problem.rsplit_once(" at line").map_or(problem.as_str(), |(problem, _)| problem).to_owned();
            EditError::at(error.line(), error.column(), problem)
        });
    }
    let root = CstRootNode::parse(text, &options(comments))?;
    match root.value() {
        Some(_) => root.to_serde_value().ok_or(EditError::Unsafe),
        None => Ok(Value::Null),
    }
}

pub(super) fn edit(text: &str, piece: &Piece, set: bool, comments: bool) -> Result<String, EditError> {
    let root = CstRootNode::parse(text, &options(comments))?;
    let was_empty = root.value().is_none();
    let object = root.object_value_or_create().ok_or_else(|| EditError::Shape("its top".to_owned()))?;
    match &piece.key {
        Key::Name(name) => {
            let table = object.object_value_or_create(piece.container).ok_or_else(|| shape(piece))?;
            in_table(&table, name, piece, set)?;
        }
        Key::Item { by, is } => {
            let list = object.array_value_or_create(piece.container).ok_or_else(|| shape(piece))?;
            in_list(&list, by, is, piece, set)?;
        }
    }
    let edited = root.to_string();
    Ok(if was_empty && !edited.ends_with('\n') { edited + "\n" } else { edited })
}

fn in_table(table: &CstObject, name: &str, piece: &Piece, set: bool) -> Result<(), EditError> {
    match (table.get(name), set) {
        (Some(entry), true) => update(&entry.object_value().ok_or_else(|| shape(piece))?, piece),
        (Some(entry), false) => entry.remove(),
        (None, true) => _ = table.append(name, input_object(&piece.value)),
        (None, false) => {}
    }
    Ok(())
}

fn in_list(list: &CstArray, by: &str, is: &str, piece: &Piece, set: bool) -> Result<(), EditError> {
    let found = list.elements().into_iter().find(|element| element.to_serde_value().is_some_and(|item| item[by] == is));
    match (found, set) {
        (Some(element), true) => update(&element.as_object().ok_or_else(|| shape(piece))?, piece),
        (Some(element), false) => element.remove(),
        (None, true) => _ = list.append(input_object(&piece.value)),
        (None, false) => {}
    }
    Ok(())
}

/// Changes the keys that have to be others, and leaves those of the user.
fn update(entry: &CstObject, piece: &Piece) {
    for property in entry.properties() {
        if property.decoded_name().is_some_and(|name| piece.drops(&name)) {
            property.remove();
        }
    }
    for (key, value) in &piece.value {
        match entry.get(key) {
            Some(property) if property.value().as_ref().and_then(CstNode::to_serde_value).as_ref() == Some(value) => {}
            Some(property) => property.set_value(input(value)),
            None => _ = entry.append(key, input(value)),
        }
    }
}

fn shape(piece: &Piece) -> EditError {
    EditError::Shape(format!("`{}`", piece.container))
}

fn input(value: &Value) -> CstInputValue {
    match value {
        Value::Null => CstInputValue::Null,
        Value::Bool(value) => CstInputValue::Bool(*value),
        Value::Number(value) => CstInputValue::Number(value.to_string()),
        Value::String(value) => CstInputValue::String(value.clone()),
        Value::Array(items) => CstInputValue::Array(items.iter().map(input).collect()),
        Value::Object(object) => input_object(object),
    }
}

fn input_object(object: &Map<String, Value>) -> CstInputValue {
    CstInputValue::Object(object.iter().map(|(key, value)| (key.clone(), input(value))).collect())
}
