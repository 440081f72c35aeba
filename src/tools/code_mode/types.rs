//! JSON Schema to TypeScript: whole types, for declarations that a script is written against.
//!
//! References within a schema are followed and written out where they stand; one that leads back to itself becomes a type
//! with a name of its own. What JSON Schema can say and TypeScript cannot is left out. A schema is somebody else's: how
//! much is written of one, and how deep, is bounded, and what is beyond is `any`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use serde_json::{Map, Value};

const DEPTH_MAX: usize = 12;
/// Schemas that are written of one tool, references followed.
const NODES_MAX: usize = 400;
/// A longer list of values becomes their type.
const OPTIONS_MAX: usize = 40;
const DOC_CHARACTERS_MAX: usize = 120;

/// A schema's type, and the types with names that it needs.
pub(super) struct Written {
    pub(super) text: String,
    /// By name; to be declared once.
    pub(super) named: BTreeMap<String, String>,
}

/// Writes `schema` as a type. `name` is what the names of its own types begin with; `with_docs`: with what the schema
/// says of each member.
pub(super) fn written(schema: &Map<String, Value>, name: &str, with_docs: bool) -> Written {
    let root = Value::Object(schema.clone());
    let mut writer = Writer {
        root: &root,
        name,
        with_docs,
        nodes: 0,
        open: Vec::new(),
        recursive: BTreeSet::new(),
        named: BTreeMap::new(),
    };
    // Once to find out which references lead back to themselves, once with names for these.
    let _ = writer.type_of(&root, 0);
    writer.nodes = 0;
    writer.named.clear();
    let text = writer.type_of(&root, 0);
    Written { text, named: writer.named }
}

/// A name as a member's: quoted unless it is an identifier.
pub(super) fn key(name: &str) -> String {
    let starts_well =
        name.starts_with(|character: char| character.is_ascii_alphabetic() || matches!(character, '_' | '$'));
    let plain = name.chars().all(|character| character.is_ascii_alphanumeric() || matches!(character, '_' | '$'));
    if starts_well && plain { name.to_owned() } else { Value::String(name.to_owned()).to_string() }
}

/// Text as the inside of a comment: one line, not too long, and not its end.
pub(super) fn remark(text: &str, characters_max: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ").replace("*/", "* /");
    let cut: String = line.chars().take(characters_max).collect();
    if cut.len() < line.len() { format!("{cut}…") } else { cut }
}

struct Writer<'a> {
    root: &'a Value,
    name: &'a str,
    with_docs: bool,
    nodes: usize,
    /// References that are being followed.
    open: Vec<String>,
    recursive: BTreeSet<String>,
    named: BTreeMap<String, String>,
}

impl Writer<'_> {
    fn type_of(&mut self, schema: &Value, depth: usize) -> String {
        self.nodes += 1;
        if depth > DEPTH_MAX || self.nodes > NODES_MAX {
            return "any".to_owned();
        }
        let fields = match schema {
            Value::Object(fields) => fields,
            Value::Bool(false) => return "never".to_owned(),
            _ => return "any".to_owned(),
        };
        let mut parts = Vec::new();
        if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
            parts.push(self.referred(reference, depth));
        }
        if let Some(options) = fields.get("enum").and_then(Value::as_array) {
            parts.push(literals(options));
        } else if let Some(constant) = fields.get("const") {
            parts.push(constant.to_string());
        } else if let Some(kinds) = self.of_kind(fields, depth) {
            parts.push(kinds);
        }
        for union in ["anyOf", "oneOf"] {
            if let Some(options) = fields.get(union).and_then(Value::as_array) {
                let options: Vec<String> = options.iter().map(|option| self.type_of(option, depth + 1)).collect();
                // Where an option only says what is required, it says nothing that a type can.
                if !options.iter().all(|option| option == "any") {
                    parts.push(joined(options, " | "));
                }
            }
        }
        if let Some(all) = fields.get("allOf").and_then(Value::as_array) {
            let all: Vec<String> = all.iter().map(|part| self.type_of(part, depth + 1)).collect();
            parts.extend(all.into_iter().filter(|part| part != "any"));
        }
        // `object & {…}` says no more than the second.
        if parts.len() > 1 {
            parts.retain(|part| part != "object" && part != "any");
        }
        let several = parts.len() > 1;
        let parts =
            parts.into_iter().map(|part| if several && part.contains(" | ") { format!("({part})") } else { part });
        let text = joined(parts.collect(), " & ");
        let text = if text.is_empty() { "any".to_owned() } else { text };
        let nullable = fields.get("nullable") == Some(&Value::Bool(true)) && text != "any";
        if nullable { joined(vec![text, "null".to_owned()], " | ") } else { text }
    }

    fn of_kind(&mut self, fields: &Map<String, Value>, depth: usize) -> Option<String> {
        match fields.get("type") {
            Some(Value::String(kind)) => Some(self.named_kind(kind, fields, depth)),
            Some(Value::Array(kinds)) => {
                let kinds: Vec<String> =
                    kinds.iter().filter_map(Value::as_str).map(|kind| self.named_kind(kind, fields, depth)).collect();
                Some(joined(kinds, " | "))
            }
            _ if fields.contains_key("properties") => Some(self.object(fields, depth)),
            _ if fields.contains_key("items") || fields.contains_key("prefixItems") => Some(self.array(fields, depth)),
            _ => None,
        }
    }

    fn named_kind(&mut self, kind: &str, fields: &Map<String, Value>, depth: usize) -> String {
        match kind {
            "integer" | "number" => "number".to_owned(),
            "string" | "boolean" | "null" => kind.to_owned(),
            "array" => self.array(fields, depth),
            "object" => self.object(fields, depth),
            _ => "any".to_owned(),
        }
    }

    fn array(&mut self, fields: &Map<String, Value>, depth: usize) -> String {
        let tuple = fields.get("prefixItems").or_else(|| fields.get("items")).and_then(Value::as_array);
        if let Some(items) = tuple {
            let items: Vec<String> = items.iter().map(|item| self.type_of(item, depth + 1)).collect();
            return format!("[{}]", items.join(", "));
        }
        let item = fields.get("items").map_or_else(|| "any".to_owned(), |items| self.type_of(items, depth + 1));
        if item.contains(" | ") || item.contains(" & ") { format!("({item})[]") } else { format!("{item}[]") }
    }

    fn object(&mut self, fields: &Map<String, Value>, depth: usize) -> String {
        let required: Vec<&str> =
            fields.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        let mut members = Vec::new();
        for (name, property) in fields.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let mark = if required.contains(&name.as_str()) { "" } else { "?" };
            let doc = if self.with_docs { doc_of(property) } else { None };
            let doc = doc.map_or_else(String::new, |doc| format!("/** {doc} */ "));
            let of = self.type_of(property, depth + 1);
            members.push(format!("{doc}{}{mark}: {of}", key(name)));
        }
        let rest = match fields.get("additionalProperties") {
            Some(rest @ Value::Object(_)) => Some(self.type_of(rest, depth + 1)),
            _ => None,
        };
        match (members.is_empty(), rest) {
            (true, Some(rest)) => format!("Record<string, {rest}>"),
            (true, None) if fields.get("additionalProperties") == Some(&Value::Bool(false)) => "{}".to_owned(),
            (true, None) => "object".to_owned(),
            (false, rest) => {
                // What else there may be has to be said in a way that fits the members.
                members.extend(rest.map(|_| "[more: string]: any".to_owned()));
                format!("{{{}}}", members.join("; "))
            }
        }
    }

    fn referred(&mut self, reference: &str, depth: usize) -> String {
        // Others are never fetched.
        let Some(target) = reference.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer)) else {
            return "any".to_owned();
        };
        let target = target.clone();
        let name = self.name_of(reference);
        if self.open.iter().any(|open| open == reference) {
            self.recursive.insert(reference.to_owned());
            return name;
        }
        let is_named = self.recursive.contains(reference);
        if is_named && self.named.contains_key(&name) {
            return name;
        }
        self.open.push(reference.to_owned());
        let text = self.type_of(&target, if is_named { 0 } else { depth + 1 });
        self.open.pop();
        if !is_named {
            return text;
        }
        self.named.insert(name.clone(), text);
        name
    }

    fn name_of(&self, reference: &str) -> String {
        let last = reference.rsplit('/').next().unwrap_or_default().trim_start_matches('#');
        let mut name = self.name.to_owned();
        let _ = write!(name, "_{last}");
        let plain = name.chars().map(|character| if character.is_ascii_alphanumeric() { character } else { '_' });
        plain.collect::<String>().trim_end_matches('_').to_owned()
    }
}

fn doc_of(property: &Value) -> Option<String> {
    let described = property.get("description").and_then(Value::as_str).map(|text| remark(text, DOC_CHARACTERS_MAX));
    let default = property
        .get("default")
        .filter(|value| !value.is_null())
        .map(|value| format!("Default: {}", remark(&value.to_string(), 40)));
    let parts: Vec<String> = described.into_iter().chain(default).filter(|part| !part.is_empty()).collect();
    (!parts.is_empty()).then(|| parts.join(" "))
}

fn literals(options: &[Value]) -> String {
    if options.len() <= OPTIONS_MAX {
        return joined(options.iter().map(ToString::to_string).collect(), " | ");
    }
    let kind = |value: &Value| match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) | Value::Object(_) => "any",
    };
    joined(options.iter().map(|option| kind(option).to_owned()).collect(), " | ")
}

/// Each part once.
fn joined(parts: Vec<String>, between: &str) -> String {
    let mut distinct: Vec<String> = Vec::new();
    for part in parts {
        if !distinct.contains(&part) {
            distinct.push(part);
        }
    }
    if between == " | " && distinct.iter().any(|part| part == "any") {
        "any".to_owned()
    } else {
        distinct.join(between)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(schema: &Value) -> String {
        written(schema.as_object().unwrap(), "t", false).text
    }

    #[test]
    fn every_kind_of_schema_has_a_type() {
        let cases = [
            (
                json!({"type": "object", "required": ["a"], "properties": {"a": {"type": "string"}, "b-c": {"type": ["integer", "null"]}}}),
                "{a: string; \"b-c\"?: number | null}",
            ),
            (json!({"type": "array", "items": {"enum": ["r", "w", null]}}), "(\"r\" | \"w\" | null)[]"),
            (json!({"type": "array", "prefixItems": [{"type": "string"}, {"type": "number"}]}), "[string, number]"),
            (
                json!({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
                "string | string[]",
            ),
            (json!({"type": "object", "additionalProperties": {"type": "number"}}), "Record<string, number>"),
            (json!({"type": "object", "additionalProperties": false}), "{}"),
            (
                json!({"type": "object", "properties": {"a": {"const": 1}}, "additionalProperties": {"type": "string"}}),
                "{a?: 1; [more: string]: any}",
            ),
            (
                json!({"allOf": [{"$ref": "#/$defs/a"}, {"properties": {"b": {"type": "boolean"}}}], "$defs": {"a": {"type": "object", "properties": {"a": {"type": "string"}}}}}),
                "{a?: string} & {b?: boolean}",
            ),
            (json!({"type": "string", "nullable": true}), "string | null"),
            (
                json!({"type": "object", "properties": {"a": {}}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]}),
                "{a?: any}",
            ),
            (json!({"$ref": "other.json"}), "any"),
            (
                json!({"type": "object", "properties": {"a": {"type": "array"}, "b": true, "c": false, "1": {"type": "file"}}}),
                "{a?: any[]; b?: any; c?: never; \"1\"?: any}",
            ),
        ];
        for (schema, expected) in cases {
            assert_eq!(of(&schema), expected, "{schema}");
        }
    }

    #[test]
    fn what_leads_back_to_itself_has_a_name() {
        let schema = json!({
            "type": "object", "properties": {"tree": {"$ref": "#/$defs/node"}, "other": {"$ref": "#/$defs/node"}},
            "$defs": {"node": {"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#/$defs/node"}}}}}
        });
        let written = written(schema.as_object().unwrap(), "one_grow", false);
        assert_eq!(written.text, "{tree?: one_grow_node; other?: one_grow_node}");
        assert_eq!(written.named["one_grow_node"], "{children?: one_grow_node[]}");
        assert_eq!(of(&json!({"$ref": "#"})), "t");
        assert_eq!(of(&json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}})), "t_a");
    }

    #[test]
    fn docs_stand_before_members_and_cannot_end_early() {
        let schema = json!({"type": "object", "properties": {"a": {"type": "number", "description": "one */ two\nthree", "default": 5}}});
        let text = written(schema.as_object().unwrap(), "t", true).text;
        assert_eq!(text, "{/** one * / two three Default: 5 */ a?: number}");
    }

    #[test]
    fn a_schema_that_explodes_is_cut() {
        let mut definitions = Map::new();
        for level in 0..30 {
            let next = json!({"$ref": format!("#/$defs/d{}", level + 1)});
            definitions.insert(
                format!("d{level}"),
                json!({"type": "object", "properties": {"a": next, "b": next, "c": next}}),
            );
        }
        let schema = json!({"$ref": "#/$defs/d0", "$defs": definitions});
        assert!(of(&schema).len() < 20_000);
        let many: Vec<Value> = (0..1000).map(|n| json!(format!("v{n}"))).collect();
        assert_eq!(of(&json!({"enum": many})), "string");
    }
}
