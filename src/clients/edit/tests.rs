//! Awkward texts. What is checked of each: the entry is in it, everything else is there in its order, a second time changes
//! nothing, and without the entry it means what it meant.

mod json;
mod toml;
mod yaml;

use serde_json::json;

use super::*;

fn named(container: &'static str, value: &Value) -> Piece {
    Piece { container, key: Key::Name("mcp-broker".to_owned()), value: value.as_object().cloned().unwrap() }
}

fn item(container: &'static str, by: &'static str, value: &Value) -> Piece {
    Piece { container, key: Key::Item { by, is: "mcp-broker".to_owned() }, value: value.as_object().cloned().unwrap() }
}

fn server() -> Piece {
    named("mcpServers", &json!({"command": "mcp-broker", "args": ["stdio"]}))
}

fn extension() -> Piece {
    named("extensions", &json!({"type": "stdio", "cmd": "mcp-broker", "args": ["stdio"], "enabled": true}))
}

fn listed() -> Piece {
    item("mcpServers", "name", &json!({"name": "mcp-broker", "command": "mcp-broker", "args": ["stdio"]}))
}

/// The text with the entry, with what cannot be seen made visible.
fn with(format: Format, before: &str, piece: &Piece) -> String {
    let pieces = std::slice::from_ref(piece);
    let after = match format.with(before, pieces) {
        Ok(after) => after,
        Err(error) => return format!("error: {error}"),
    };
    assert_eq!(format.with(&after, pieces).as_ref(), Ok(&after), "a second time changes nothing");
    let mut rest = after.chars();
    for kept in before.chars().filter(|c| !c.is_whitespace()) {
        assert!(rest.any(|new| new == kept), "{kept:?} is not where it was in {after:?}");
    }
    let without = format.without(&after, pieces).unwrap();
    let meant = |text: &str| piece.trimmed(format.parse(text).unwrap());
    assert_eq!(meant(&without), meant(before));
    after.replace('\r', "␍").replace('\t', "→").replace('\u{feff}', "BOM")
}
