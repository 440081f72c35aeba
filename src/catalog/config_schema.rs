//! What a server's config must look like, and whether a given one does.

use std::fmt;

use serde_json::{Map, Value};

use crate::schema::Schema;

/// A schema nested deeper than this is refused: it comes from a catalog, which is somebody else's file.
const DEPTH_MAX: usize = 32;

/// A schema larger than this is refused.
const BYTES_MAX: usize = 256 << 10;

/// A config larger than this is refused.
pub const CONFIG_BYTES_MAX: usize = 64 << 10;

/// How many problems one answer names.
const PROBLEMS_MAX: usize = 10;

/// The JSON Schema objects a config has to satisfy, all of them.
#[derive(Clone)]
pub struct ConfigSchema {
    objects: Vec<Value>,
}

impl fmt::Debug for ConfigSchema {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(&self.objects).finish()
    }
}

/// The catalog's `config` is not usable as a schema.
#[derive(Debug, thiserror::Error)]
pub enum ConfigSchemaError {
    #[error("is larger than {BYTES_MAX} bytes")]
    TooLarge,
    #[error("is nested deeper than {DEPTH_MAX} levels")]
    TooDeep,
    #[error("is not a JSON Schema: {0}")]
    NotASchema(String),
}

impl ConfigSchema {
    /// Takes the catalog's list of schema objects.
    ///
    /// # Errors
    ///
    /// When one of them is no JSON Schema, or is unreasonably large.
    pub fn new(objects: Vec<Value>) -> Result<Option<Self>, ConfigSchemaError> {
        let objects: Vec<Value> = objects.into_iter().filter(|object| !is_empty(object)).collect();
        if objects.is_empty() {
            return Ok(None);
        }
        if objects.iter().map(|object| object.to_string().len()).sum::<usize>() > BYTES_MAX {
            return Err(ConfigSchemaError::TooLarge);
        }
        if objects.iter().any(|object| depth(object) > DEPTH_MAX) {
            return Err(ConfigSchemaError::TooDeep);
        }
        let schema = Self { objects };
        for object in &schema.objects {
            jsonschema::validator_for(object).map_err(|error| ConfigSchemaError::NotASchema(error.to_string()))?;
        }
        Ok(Some(schema))
    }

    /// Takes what [`Self::new`] accepted before: checking a schema takes longer than everything else about an entry.
    #[must_use]
    pub fn stored(objects: Vec<Value>) -> Option<Self> {
        let objects: Vec<Value> = objects.into_iter().filter(|object| !is_empty(object)).collect();
        (!objects.is_empty()).then_some(Self { objects })
    }

    /// What is wrong with `config`; empty when nothing is.
    #[must_use]
    pub fn problems(&self, config: &Value) -> Vec<String> {
        let mut problems = Vec::new();
        for object in &self.objects {
            let Some(schema) = Schema::new(object.clone()) else { continue };
            for error in schema.problems(config) {
                let path = error.instance_path().to_string();
                let place = if path.is_empty() { String::new() } else { format!("{}: ", path.trim_start_matches('/')) };
                problems.push(format!("{place}{}", shortened(&error.masked().to_string())));
            }
        }
        problems.dedup();
        problems.truncate(PROBLEMS_MAX);
        problems
    }

    /// Each property with its type, and whether it is required: what an agent needs to fill it in.
    #[must_use]
    pub fn summary(&self) -> Map<String, Value> {
        let mut summary = Map::new();
        for object in &self.objects {
            let required: Vec<&str> =
                object["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            for (name, property) in object["properties"].as_object().into_iter().flatten() {
                summary.insert(name.clone(), Value::String(describe(property, required.contains(&name.as_str()))));
            }
        }
        summary
    }

    /// The names of the properties that must be there.
    #[must_use]
    pub fn required(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .objects
            .iter()
            .flat_map(|object| object["required"].as_array().into_iter().flatten())
            .filter_map(|name| name.as_str().map(str::to_owned))
            .collect();
        names.dedup();
        names
    }

    /// Names that have to be given and cannot be, because the schema says nothing else about them.
    pub fn required_without_property(&self) -> impl Iterator<Item = String> {
        self.required()
            .into_iter()
            .filter(|name| !self.objects.iter().any(|object| object["properties"].get(name.as_str()).is_some()))
    }

    /// Whether it may take properties that it does not name.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.objects.iter().any(is_open)
    }

    /// Whether `path`, as a template of the server `name` writes it, is a property of this schema.
    #[must_use]
    pub fn offers(&self, name: &str, path: &str) -> bool {
        let underscored = name.replace('.', "_");
        let Some(key) = [name, &underscored].into_iter().find_map(|root| path.strip_prefix(root)?.strip_prefix('.'))
        else {
            return false;
        };
        self.objects.iter().any(|object| offers_at(object, key))
    }

    /// The schema as it was written.
    #[must_use]
    pub fn as_value(&self) -> Value {
        match self.objects.as_slice() {
            [only] => only.clone(),
            several => Value::Array(several.to_vec()),
        }
    }
}

fn offers_at(schema: &Value, key: &str) -> bool {
    let Some(properties) = schema["properties"].as_object() else {
        return false;
    };
    properties.contains_key(key)
        || key
            .match_indices('.')
            .any(|(dot, _)| properties.get(&key[..dot]).is_some_and(|inner| offers_at(inner, &key[dot + 1..])))
}

fn is_open(schema: &Value) -> bool {
    let further = schema.get("additionalProperties").is_some_and(|further| *further != Value::Bool(false));
    let mut parts =
        ["allOf", "anyOf", "oneOf"].into_iter().flat_map(|kind| schema[kind].as_array().into_iter().flatten());
    further
        || ["patternProperties", "$ref"].iter().any(|word| schema.get(word).is_some())
        || parts.any(|part| part.get("properties").is_some() || is_open(part))
}

fn describe(property: &Value, required: bool) -> String {
    let kind = match property["type"].as_str() {
        Some("array") => format!("{}[]", property["items"]["type"].as_str().unwrap_or("any")),
        Some(kind) => kind.to_owned(),
        None => "any".to_owned(),
    };
    let mut text = kind;
    if let Some(options) = property["enum"].as_array() {
        let options: Vec<String> = options.iter().take(8).map(ToString::to_string).collect();
        text = options.join(" | ");
    }
    if required {
        text.push_str(" (required)");
    }
    if let Some(description) = property["description"].as_str() {
        text.push_str(" - ");
        text.extend(description.chars().take(100));
    }
    text
}

fn is_empty(object: &Value) -> bool {
    object.as_object().is_none_or(|fields| {
        !["properties", "required", "anyOf", "oneOf", "allOf", "$ref"].iter().any(|key| fields.contains_key(*key))
    })
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn shortened(text: &str) -> String {
    const CHARACTERS_MAX: usize = 200;
    if text.chars().count() <= CHARACTERS_MAX {
        return text.to_owned();
    }
    text.chars().take(CHARACTERS_MAX).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn paths_schema() -> ConfigSchema {
        let object = json!({
            "name": "filesystem", "type": "object",
            "properties": {"paths": {"type": "array", "items": {"type": "string"}}}, "required": ["paths"]
        });
        ConfigSchema::new(vec![object]).unwrap().unwrap()
    }

    #[test]
    fn a_config_that_fits_has_no_problems() {
        assert!(paths_schema().problems(&json!({"paths": ["/tmp"]})).is_empty());
    }

    #[test]
    fn problems_name_the_place_and_never_the_value() {
        let problems = paths_schema().problems(&json!({"paths": "hunter2"}));
        assert_eq!(problems.len(), 1);
        assert!(problems[0].starts_with("paths: "), "{problems:?}");
        assert!(!problems[0].contains("hunter2"), "{problems:?}");
        assert!(paths_schema().problems(&json!({}))[0].contains("paths"));
    }

    #[test]
    fn the_summary_says_type_and_need() {
        assert_eq!(paths_schema().summary()["paths"], "string[] (required)");
    }

    #[test]
    fn what_a_schema_leaves_open_may_be_given() {
        let open = |more: Value| {
            let mut object = json!({"type": "object", "properties": {"paths": {}}});
            object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            ConfigSchema::new(vec![object]).unwrap().unwrap().is_open()
        };
        assert!(!open(json!({})) && !open(json!({"additionalProperties": false})));
        assert!(!open(json!({"anyOf": [{"required": ["paths"]}, {"required": ["path"]}]})));
        assert!(open(json!({"additionalProperties": {"type": "string"}})));
        assert!(open(json!({"patternProperties": {"^x": {}}})));
        assert!(open(json!({"oneOf": [{"properties": {"url": {}}}]})));
    }

    #[test]
    fn nonsense_and_bombs_are_refused() {
        let mut deep = json!({"type": "object", "properties": {}});
        for _ in 0..100 {
            deep = json!({"type": "object", "properties": {"x": deep}});
        }
        assert!(matches!(ConfigSchema::new(vec![deep]), Err(ConfigSchemaError::TooDeep)));
        let wrong = json!({"type": "nonsense", "properties": {}});
        assert!(matches!(ConfigSchema::new(vec![wrong]), Err(ConfigSchemaError::NotASchema(_))));
        assert!(ConfigSchema::new(vec![json!({"name": "x"})]).unwrap().is_none());
    }

    #[test]
    fn a_remote_reference_is_not_followed() {
        let remote = json!({"type": "object", "properties": {"a": {"$ref": "http://127.0.0.1:1/x.json"}}});
        assert!(matches!(ConfigSchema::new(vec![remote]), Err(ConfigSchemaError::NotASchema(_))));
    }
}
