//! JSON Schemas of servers and catalogs, which are somebody else's word.
//!
//! A validator goes everywhere a schema leads. A kilobyte of `$ref`s that each lead on twice is more steps than anybody can
//! wait for, and each may be a problem that is kept until the last one is found. So steps are counted first, each pair of a
//! schema and a value once, which takes no longer than their sizes allow; and what takes too many is not checked.

use std::collections::HashMap;

use jsonschema::{ValidationError, Validator};
use serde_json::{Map, Value};

/// Steps that a check may take: a fraction of a second, and some tens of megabytes if each of them finds a problem.
const STEPS_MAX: u64 = 100_000;

/// A larger schema is not worth what it takes to keep it compiled.
const BYTES_MAX: usize = 256 << 10;

/// How deep schemas may lead into each other.
const DEPTH_MAX: usize = 100;

/// A schema and what it compiles to.
#[derive(Debug, Clone)]
pub(crate) struct Schema {
    document: Value,
    validator: Validator,
}

impl Schema {
    /// None if it is no schema, is too large, or does not say plainly where its references lead.
    pub(crate) fn new(document: Value) -> Option<Self> {
        if document.to_string().len() > BYTES_MAX || has_parts_with_ids(&document) {
            return None;
        }
        let validator = jsonschema::validator_for(&document).ok()?;
        Some(Self { document, validator })
    }

    /// What of `value` does not fit. Nothing, where to find out would take too long.
    pub(crate) fn problems<'a>(&'a self, value: &'a Value) -> Vec<ValidationError<'a>> {
        let steps = Count { root: &self.document, known: HashMap::new(), visited: 0 }.steps(&self.document, value, 0);
        if steps.is_none() || self.validator.is_valid(value) {
            return Vec::new();
        }
        self.validator.iter_errors(value).collect()
    }
}

/// A part with an id of its own changes where references lead.
fn has_parts_with_ids(schema: &Value) -> bool {
    let old = schema.get("$schema").and_then(Value::as_str).is_some_and(|draft| draft.contains("draft-04"));
    let ids: &[&str] = if old { &["$id", "id"] } else { &["$id"] };
    children(schema).any(|part| has_id(part, ids))
}

fn has_id(part: &Value, ids: &[&str]) -> bool {
    ids.iter().any(|id| part.get(id).is_some_and(Value::is_string)) || children(part).any(|inner| has_id(inner, ids))
}

fn children(value: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match value {
        Value::Array(items) => Box::new(items.iter()),
        Value::Object(fields) => Box::new(fields.values()),
        _ => Box::new(std::iter::empty()),
    }
}

/// Counts the steps of a check, at most as many as it may take.
struct Count<'a> {
    root: &'a Value,
    /// By where the schema and the value are; none while they are being counted.
    known: HashMap<(*const Value, *const Value), Option<u64>>,
    visited: u64,
}

impl<'a> Count<'a> {
    /// None if there are too many, or no end of them.
    fn steps(&mut self, schema: &'a Value, value: &'a Value, depth: usize) -> Option<u64> {
        let Value::Object(keywords) = schema else { return Some(1) };
        let key = (std::ptr::from_ref(schema), std::ptr::from_ref(value));
        if let Some(known) = self.known.get(&key) {
            return *known;
        }
        self.visited += 1;
        if depth > DEPTH_MAX || self.visited > STEPS_MAX {
            return None;
        }
        self.known.insert(key, None);
        let mut steps = 1;
        for (keyword, operand) in keywords {
            steps += self.of_keyword(keyword, operand, value, depth + 1)?;
        }
        // What is evaluated already has to be found out again.
        if keywords.keys().any(|keyword| keyword.starts_with("unevaluated")) {
            steps *= 2;
        }
        let steps = Some(steps).filter(|steps| *steps <= STEPS_MAX);
        self.known.insert(key, steps);
        steps
    }

    fn of_keyword(&mut self, keyword: &str, operand: &'a Value, value: &'a Value, depth: usize) -> Option<u64> {
        match keyword {
            "$ref" => {
                let target = operand.as_str()?.strip_prefix('#').filter(|path| !path.contains('%'))?;
                self.steps(self.root.pointer(target)?, value, depth)
            }
            "$dynamicRef" | "$recursiveRef" => None,
            "not" | "if" | "then" | "else" => self.steps(operand, value, depth),
            "allOf" | "anyOf" | "oneOf" | "dependentSchemas" | "dependencies" => {
                self.sum(children(operand).map(|schema| (schema, value)), depth)
            }
            "properties" => {
                let (Some(schemas), Some(fields)) = (operand.as_object(), value.as_object()) else { return Some(0) };
                self.sum(schemas.iter().filter_map(|(name, schema)| Some((schema, fields.get(name)?))), depth)
            }
            "patternProperties" => {
                let of_each = |schema| children(value).map(move |field| (schema, field));
                self.sum(children(operand).flat_map(of_each), depth)
            }
            // Of a name nothing but itself can be looked at.
            "propertyNames" => {
                let names = value.as_object().map_or(0, Map::len);
                Some(self.steps(operand, &Value::Null, depth)?.saturating_mul(names as u64))
            }
            "prefixItems" | "items" if operand.is_array() => self.sum(children(operand).zip(children(value)), depth),
            "items" | "additionalItems" | "unevaluatedItems" | "contains" => self.of_each(operand, value, depth),
            "additionalProperties" | "unevaluatedProperties" => self.of_each(operand, value, depth),
            _ => Some(0),
        }
    }

    fn of_each(&mut self, schema: &'a Value, value: &'a Value, depth: usize) -> Option<u64> {
        self.sum(children(value).map(|inner| (schema, inner)), depth)
    }

    fn sum(&mut self, pairs: impl Iterator<Item = (&'a Value, &'a Value)>, depth: usize) -> Option<u64> {
        let mut steps = 0;
        for (schema, value) in pairs {
            steps += self.steps(schema, value, depth)?;
            if steps > STEPS_MAX {
                return None;
            }
        }
        Some(steps)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems(schema: Value, value: &Value) -> usize {
        Schema::new(schema).expect("it is a schema").problems(value).len()
    }

    #[test]
    fn ordinary_schemas_are_checked() {
        let tree = json!({
            "type": "object",
            "$defs": {"node": {"type": "object", "properties": {
                "name": {"type": "string"}, "children": {"type": "array", "items": {"$ref": "#/$defs/node"}}
            }, "required": ["name"]}},
            "properties": {"root": {"$ref": "#/$defs/node"}},
            "additionalProperties": false
        });
        let deep = (0..20).fold(json!({"name": "leaf"}), |inner, _| json!({"name": "node", "children": [inner]}));
        assert_eq!(problems(tree.clone(), &json!({"root": deep})), 0);
        assert_eq!(problems(tree, &json!({"root": {"children": [{"name": 1}]}, "more": 1})), 3);
        let many: Vec<u32> = (0..10_000).collect();
        assert_eq!(problems(json!({"items": {"type": "integer"}}), &json!(many)), 0);
        assert_eq!(problems(json!({"items": {"type": "string"}}), &json!(many)), 10_000);
    }

    #[test]
    fn what_would_take_for_ever_is_not_begun() {
        let twice = |next: String| json!({"allOf": [{"$ref": next}, {"$ref": next}]});
        let mut defs: Map<String, Value> =
            (0..60).map(|level| (level.to_string(), twice(format!("#/$defs/{}", level + 1)))).collect();
        defs.insert("60".to_owned(), json!({"type": "string"}));
        assert_eq!(problems(json!({"$defs": defs, "$ref": "#/$defs/0"}), &json!(1)), 0);

        let doubled = json!({"$defs": {"node": {"properties": {"next": twice("#/$defs/node".to_owned())}}},
            "$ref": "#/$defs/node", "type": "array"});
        let deep = |levels| (0..levels).fold(json!({}), |inner, _| json!({"next": inner}));
        assert_eq!(problems(doubled.clone(), &deep(3)), 1);
        assert_eq!(problems(doubled, &deep(60)), 0);

        let round = json!({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a", "type": "string"});
        assert_eq!(problems(round, &json!(1)), 0);
    }

    #[test]
    fn where_a_reference_leads_has_to_be_plain() {
        let hidden =
            json!({"$defs": {"a": {"$id": "other", "type": "string"}}, "properties": {"x": {"$ref": "#/$defs/a"}}});
        assert!(Schema::new(hidden).is_none());
        let named = json!({"$id": "https://example.com/root", "properties": {"$id": {"type": "string"}}});
        assert_eq!(problems(named, &json!({"$id": 1})), 1);
        let dynamic = json!({"$dynamicRef": "#meta", "$defs": {"a": {"$dynamicAnchor": "meta"}}, "type": "string"});
        assert_eq!(problems(dynamic, &json!(1)), 0);
    }
}
