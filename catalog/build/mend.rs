//! Mends what the facts get wrong: templates over properties that no config offers, so that they could never be filled in,
//! and properties that are required by the name of an environment variable.

use serde_json::{Map, Value, json};

/// Makes each such property part of the config, or a secret if that is what its name says.
pub(crate) fn offer_what_templates_use(name: &str, entry: &mut Map<String, Value>) {
    let variables = entry.get("env").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut kept = Vec::new();
    for variable in variables {
        let property = property_of(name, variable["value"].as_str().unwrap_or_default());
        match property.filter(|property| !offers(entry, property)) {
            Some(property) if is_secret(property) => {
                let secret = json!({"name": format!("{name}.{property}"), "env": variable["name"]});
                list(entry, "secrets").push(secret);
            }
            Some(property) => {
                let described =
                    format!("The server's environment variable {}", variable["name"].as_str().unwrap_or(""));
                let schema = json!({"type": "string", "description": described});
                let config = list(entry, "config");
                if config.is_empty() {
                    config.push(json!({"name": name, "type": "object", "properties": {}}));
                }
                config[0]["properties"][property] = schema;
                kept.push(variable);
            }
            None => kept.push(variable),
        }
    }
    if kept.is_empty() {
        entry.shift_remove("env");
    } else {
        entry.insert("env".to_owned(), Value::Array(kept));
    }
}

/// Requires properties by their own names, and none that does not exist.
pub(crate) fn require_what_is_offered(name: &str, entry: &mut Map<String, Value>) {
    let variables = entry.get("env").and_then(Value::as_array).cloned().unwrap_or_default();
    let meant = |required: &str| {
        let variable = variables.iter().find(|variable| variable["name"] == required)?;
        property_of(name, variable["value"].as_str()?).map(str::to_owned)
    };
    for object in entry.get_mut("config").and_then(Value::as_array_mut).into_iter().flatten() {
        let properties = object["properties"].as_object().cloned().unwrap_or_default();
        let Some(required) = object.get_mut("required").and_then(Value::as_array_mut) else { continue };
        let names = required.iter().filter_map(|name| {
            let name = name.as_str()?;
            if properties.contains_key(name) { Some(name.to_owned()) } else { meant(name) }
        });
        let mut names: Vec<Value> = names.map(Value::String).collect();
        names.dedup();
        *required = names;
    }
}

fn list<'a>(entry: &'a mut Map<String, Value>, key: &str) -> &'a mut Vec<Value> {
    let value = entry.entry(key).or_insert_with(|| json!([]));
    if !value.is_array() {
        *value = json!([]);
    }
    match value {
        Value::Array(items) => items,
        _ => unreachable!("it was made an array"),
    }
}

/// The property of a value that is one plain template.
fn property_of<'a>(name: &str, value: &'a str) -> Option<&'a str> {
    let path = value.strip_prefix("{{")?.strip_suffix("}}")?.trim();
    path.strip_prefix(name)?.strip_prefix('.').filter(|property| !property.contains(['.', '|', '{']))
}

fn offers(entry: &Map<String, Value>, property: &str) -> bool {
    let objects = entry.get("config").and_then(Value::as_array);
    objects.into_iter().flatten().any(|object| object["properties"].get(property).is_some())
}

fn is_secret(property: &str) -> bool {
    ["api_key", "access_key", "token", "password", "secret"].iter().any(|ending| property.ends_with(ending))
}
