//! A tool in one line: its name and arguments as TypeScript would write them.
//!
//! A model reads `search(query: string, limit?: number)` as well as the JSON Schema it is made from, at a fraction of the
//! length. What does not fit is left out with `…`; the whole schema is one `detail: "full"` away.

use serde_json::{Map, Value};

const SIGNATURE_CHARACTERS_MAX: usize = 400;
const DEPTH_MAX: usize = 3;
const OPTIONS_MAX: usize = 8;

/// `name(arguments)` from a tool's input schema.
#[must_use]
pub fn signature(name: &str, schema: &Map<String, Value>) -> String {
    let arguments = properties(schema, schema, 0);
    let line = format!("{name}({})", arguments.join(", "));
    if line.chars().count() <= SIGNATURE_CHARACTERS_MAX {
        return line;
    }
    shortened(name, &arguments)
}

/// A schema as a type.
#[must_use]
pub fn type_of_schema(schema: &Value) -> String {
    match schema.as_object() {
        Some(root) => type_of(schema, root, 0),
        None => "any".to_owned(),
    }
}

/// Leaves out optional arguments from the end until the line fits.
fn shortened(name: &str, arguments: &[String]) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut characters = name.chars().count() + 4;
    for argument in arguments {
        characters += argument.chars().count() + 2;
        if characters > SIGNATURE_CHARACTERS_MAX {
            kept.push("…");
            break;
        }
        kept.push(argument);
    }
    format!("{name}({})", kept.join(", "))
}

fn properties(schema: &Map<String, Value>, root: &Map<String, Value>, depth: usize) -> Vec<String> {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        return Vec::new();
    };
    let required: Vec<&str> =
        schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let is_required = |name: &str| required.contains(&name);
    let written = |name: &String, property: &Value| {
        let mark = if is_required(name) { "" } else { "?" };
        format!("{}{mark}: {}", key(name), type_of(property, root, depth + 1))
    };
    let (needed, optional): (Vec<_>, Vec<_>) = properties.iter().partition(|(name, _)| is_required(name));
    needed.into_iter().chain(optional).map(|(name, property)| written(name, property)).collect()
}

fn type_of(schema: &Value, root: &Map<String, Value>, depth: usize) -> String {
    let Some(fields) = schema.as_object() else {
        return "any".to_owned();
    };
    if let Some(options) = fields.get("enum").and_then(Value::as_array) {
        return literals(options);
    }
    if let Some(constant) = fields.get("const") {
        return constant.to_string();
    }
    if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
        return match resolve(reference, root) {
            Some(target) if depth < DEPTH_MAX => type_of(target, root, depth + 1),
            _ => "object".to_owned(),
        };
    }
    for union in ["anyOf", "oneOf"] {
        if let Some(options) = fields.get(union).and_then(Value::as_array) {
            return union_of(options.iter().map(|option| type_of(option, root, depth)));
        }
    }
    match fields.get("type") {
        Some(Value::String(kind)) => named(kind, fields, root, depth),
        Some(Value::Array(kinds)) => {
            union_of(kinds.iter().filter_map(Value::as_str).map(|kind| named(kind, fields, root, depth)))
        }
        _ if fields.contains_key("properties") => named("object", fields, root, depth),
        _ => "any".to_owned(),
    }
}

fn named(kind: &str, fields: &Map<String, Value>, root: &Map<String, Value>, depth: usize) -> String {
    match kind {
        "integer" | "number" => "number".to_owned(),
        "array" => {
            let item = fields.get("items").map_or_else(|| "any".to_owned(), |items| type_of(items, root, depth));
            if item.contains(" | ") { format!("({item})[]") } else { format!("{item}[]") }
        }
        "object" => {
            let inner = properties(fields, root, depth);
            if inner.is_empty() || depth >= DEPTH_MAX {
                "object".to_owned()
            } else {
                format!("{{{}}}", inner.join(", "))
            }
        }
        other => other.to_owned(),
    }
}

fn literals(options: &[Value]) -> String {
    let mut written: Vec<String> = options.iter().take(OPTIONS_MAX).map(ToString::to_string).collect();
    if options.len() > OPTIONS_MAX {
        written.push("…".to_owned());
    }
    written.join(" | ")
}

fn union_of(options: impl Iterator<Item = String>) -> String {
    let mut distinct: Vec<String> = Vec::new();
    for option in options {
        if !distinct.contains(&option) {
            distinct.push(option);
        }
    }
    if distinct.is_empty() { "any".to_owned() } else { distinct.join(" | ") }
}

/// Follows a reference within the same schema; others are never fetched.
fn resolve<'a>(reference: &str, root: &'a Map<String, Value>) -> Option<&'a Value> {
    let mut parts = reference.strip_prefix("#/")?.split('/').map(|part| part.replace("~1", "/").replace("~0", "~"));
    let mut value = root.get(&parts.next()?)?;
    for part in parts {
        value = value.get(&part)?;
    }
    Some(value)
}

fn key(name: &str) -> String {
    let plain = name.chars().all(|character| character.is_ascii_alphanumeric() || matches!(character, '_' | '$'))
        && !name.starts_with(|character: char| character.is_ascii_digit());
    if plain && !name.is_empty() { name.to_owned() } else { Value::String(name.to_owned()).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(schema: &Value) -> String {
        signature("t", schema.as_object().unwrap())
    }

    #[test]
    fn arguments_are_written_as_typescript_would() {
        let schema = json!({
            "type": "object", "required": ["path", "mode"],
            "properties": {
                "limit": {"type": "integer"},
                "path": {"type": "string"},
                "mode": {"enum": ["r", "w"]},
                "tags": {"type": "array", "items": {"type": "string"}},
                "edits": {"type": "array", "items": {"type": "object", "required": ["old"], "properties": {"old": {"type": "string"}, "new": {"type": "string"}}}},
                "maybe": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                "odd-name": {"type": ["number", "boolean"]},
                "ref": {"$ref": "#/$defs/point"}
            },
            "$defs": {"point": {"type": "object", "required": ["x"], "properties": {"x": {"type": "number"}}}}
        });
        assert_eq!(
            of(&schema),
            "t(path: string, mode: \"r\" | \"w\", limit?: number, tags?: string[], edits?: {old: string, new?: string}[], \
             maybe?: string | null, \"odd-name\"?: number | boolean, ref?: {x: number})"
        );
    }

    #[test]
    fn no_arguments_and_no_schema_are_empty() {
        assert_eq!(of(&json!({"type": "object"})), "t()");
        assert_eq!(of(&json!({})), "t()");
    }

    #[test]
    fn a_schema_that_refers_to_itself_ends() {
        let schema = json!({
            "type": "object",
            "properties": {"child": {"$ref": "#/$defs/node"}},
            "$defs": {"node": {"type": "object", "properties": {"child": {"$ref": "#/$defs/node"}}}}
        });
        assert!(of(&schema).len() < 200);
    }

    #[test]
    fn a_long_one_is_cut_after_what_is_required() {
        let mut properties = Map::new();
        for number in 0..100 {
            properties.insert(format!("optional_{number:03}"), json!({"type": "string"}));
        }
        properties.insert("zz_needed".into(), json!({"type": "string"}));
        let line = of(&json!({"type": "object", "properties": properties, "required": ["zz_needed"]}));
        assert!(line.contains("zz_needed: string") && line.ends_with("…)"), "{line}");
        assert!(line.chars().count() <= SIGNATURE_CHARACTERS_MAX + 4);
    }
}
