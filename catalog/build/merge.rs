//! Facts, texts, packages and our own entries to one catalog.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::{Failure, Own, Text, mend};

/// An entry in the catalog's format, or a part of one.
type Fields = Map<String, Value>;

/// Facts that are taken over as they are.
const FACTS: [&str; 12] = [
    "title",
    "type",
    "image",
    "command",
    "volumes",
    "user",
    "env",
    "longLived",
    "disableNetwork",
    "allowHosts",
    "remote",
    "oauth",
];

/// The same of `metadata`.
const METADATA_FACTS: [&str; 7] = ["category", "tags", "license", "owner", "pulls", "stars", "githubStars"];

/// Joins everything, and refuses what does not fit together.
pub(crate) fn merge(
    facts: &BTreeMap<String, Fields>,
    mut texts: BTreeMap<String, Text>,
    mut own: Own,
    mut packages: BTreeMap<String, Fields>,
) -> Result<BTreeMap<String, Value>, Failure> {
    let mut made = BTreeMap::new();
    for (name, fact) in facts {
        let text = texts.remove(name).ok_or_else(|| format!("texts/ says nothing about {name}"))?;
        let optional = own.optional_secrets.remove(name).unwrap_or_default();
        let mut entry = described(name, fact, &text)?;
        if let Some(secrets) = secrets(name, fact, &optional)? {
            entry.insert("secrets".to_owned(), secrets);
        }
        mend::require_what_is_offered(name, &mut entry);
        mend::offer_what_templates_use(name, &mut entry);
        if let Some(package) = packages.remove(name) {
            entry.insert("packages".to_owned(), json!([package_of(name, package)?]));
        }
        if let Some(ours) = own.entries.remove(name) {
            lay_over(&mut entry, ours);
        }
        made.insert(name.clone(), Value::Object(entry));
    }
    made.extend(own.entries.into_iter().map(|(name, entry)| (name, Value::Object(entry))));
    let left = texts.keys().chain(packages.keys()).chain(own.optional_secrets.keys()).collect::<BTreeSet<_>>();
    if !left.is_empty() {
        return Err(
            format!("texts, packages or optional secrets of servers that are not in the facts: {left:?}").into()
        );
    }
    Ok(made)
}

fn described(name: &str, fact: &Fields, text: &Text) -> Result<Fields, Failure> {
    let mut entry = taken(fact, &FACTS);
    entry.insert("description".to_owned(), json!(text.description));
    if let Some(upstream) = upstream(fact) {
        entry.insert("upstream".to_owned(), json!(upstream));
    }
    if let Some(config) = config(name, fact) {
        entry.insert("config".to_owned(), config);
    }
    entry.insert("tools".to_owned(), tools(name, fact, text)?);
    let mut metadata =
        fact.get("metadata").and_then(Value::as_object).map(|facts| taken(facts, &METADATA_FACTS)).unwrap_or_default();
    metadata.insert("phrases".to_owned(), json!(text.phrases));
    entry.insert("metadata".to_owned(), Value::Object(metadata));
    Ok(entry)
}

fn taken(fields: &Fields, keys: &[&str]) -> Fields {
    keys.iter().filter_map(|key| Some(((*key).to_owned(), fields.get(*key)?.clone()))).collect()
}

/// The repository the server is made from.
fn upstream(fact: &Fields) -> Option<&str> {
    let named = |key: &str| fact.get(key)?.as_str().filter(|url| !url.is_empty());
    named("upstream").or_else(|| named("source").and_then(|url| url.split("/tree/").next()))
}

/// The facts' tools with our hints. Of a tool that runs in a container of its own, the arguments are facts; sentences
/// about them are not.
fn tools(name: &str, fact: &Fields, text: &Text) -> Result<Value, Failure> {
    let mut tools = Vec::new();
    for tool in fact.get("tools").and_then(Value::as_array).into_iter().flatten() {
        let tool_name = tool["name"].as_str().ok_or_else(|| format!("{name}: a tool has no name"))?;
        let hint =
            text.tools.get(tool_name).ok_or_else(|| format!("texts/ says nothing about {name}'s {tool_name}"))?;
        let mut entry = json!({"name": tool_name, "description": hint});
        if let Some(parameters) = tool.get("parameters") {
            entry["parameters"] = without_descriptions(parameters);
        }
        if let Some(container) = tool.get("container") {
            entry["container"] = container.clone();
        }
        tools.push(entry);
    }
    if tools.len() != text.tools.len() {
        return Err(format!("texts/ has hints for tools that {name} does not have").into());
    }
    Ok(Value::Array(tools))
}

fn secrets(name: &str, fact: &Fields, optional: &[String]) -> Result<Option<Value>, Failure> {
    let Some(facts) = fact.get("secrets").and_then(Value::as_array) else { return Ok(None) };
    let mut secrets = Vec::new();
    for secret in facts {
        let mut kept = json!({"name": secret["name"], "env": secret["env"]});
        if optional.iter().any(|env| secret["env"] == json!(env)) {
            kept["required"] = json!(false);
        }
        secrets.push(kept);
    }
    let known = secrets.iter().filter(|secret| secret.get("required").is_some()).count();
    if known != optional.len() {
        return Err(format!("own.yaml: {name} does not have all of the secrets {optional:?}").into());
    }
    Ok(Some(Value::Array(secrets)))
}

/// The config's schema with what the facts tell of each property: where its value ends up.
fn config(name: &str, fact: &Fields) -> Option<Value> {
    let mut objects = Vec::new();
    for object in fact.get("config")?.as_array()? {
        let mut kept = without_descriptions(object);
        kept["name"] = json!(name);
        if let Some(properties) = kept.get_mut("properties").and_then(Value::as_object_mut) {
            describe(name, "", properties, fact);
        }
        objects.push(kept);
    }
    Some(Value::Array(objects))
}

fn describe(name: &str, prefix: &str, properties: &mut Fields, fact: &Fields) {
    for (key, property) in properties {
        let path = format!("{prefix}{key}");
        if let Some(inner) = property.get_mut("properties").and_then(Value::as_object_mut) {
            describe(name, &format!("{path}."), inner, fact);
        } else if let Some(use_of) = use_of(name, &path, fact) {
            property["description"] = json!(use_of);
        }
    }
}

/// What the templates of an entry do with a property of its config.
fn use_of(name: &str, path: &str, fact: &Fields) -> Option<String> {
    let uses = |template: &Value| {
        let text = template.as_str().unwrap_or_default();
        text.match_indices("{{").any(|(at, _)| {
            let inside = text[at + 2..].split(['|', '}']).next().unwrap_or_default().trim();
            inside == format!("{name}.{path}") || inside == format!("{}.{path}", name.replace('.', "_"))
        })
    };
    let any = |key: &str| fact.get(key).and_then(Value::as_array).is_some_and(|list| list.iter().any(uses));
    if any("volumes") {
        return Some("A path on this machine that the server may use".to_owned());
    }
    let variable = fact.get("env")?.as_array()?.iter().find(|variable| uses(&variable["value"]))?;
    Some(format!("The server's environment variable {}", variable["name"].as_str()?))
}

/// A JSON Schema without the sentences in it. A property that is called `description` stays.
fn without_descriptions(schema: &Value) -> Value {
    match schema {
        Value::Object(fields) => Value::Object(
            fields
                .iter()
                .filter(|(key, value)| !(key.as_str() == "description" && value.is_string()))
                .map(|(key, value)| (key.clone(), without_descriptions(value)))
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.iter().map(without_descriptions).collect()),
        scalar => scalar.clone(),
    }
}

/// A package as the catalog has it: with an exact version, and without the proof, which is for who reads `packages.yaml`.
fn package_of(name: &str, mut package: Fields) -> Result<Value, Failure> {
    const PROOFS: [&str; 3] = ["manifest and readme", "official registry", "vendor scope"];
    let proof = package.remove("proof");
    if !proof.as_ref().and_then(Value::as_str).is_some_and(|proof| PROOFS.contains(&proof)) {
        return Err(format!("packages.yaml: {name} needs a proof: one of {PROOFS:?}").into());
    }
    if !package.get("version").is_some_and(Value::is_string) {
        return Err(format!("packages.yaml: {name} needs an exact version, in quotes").into());
    }
    Ok(Value::Object(package))
}

/// Our own fields win; lists of tools and tags are joined, ours first. The description and phrases stay those of the texts.
fn lay_over(entry: &mut Fields, ours: Fields) {
    for (key, value) in ours {
        match (key.as_str(), entry.get_mut(&key), value) {
            ("description", Some(_), _) => {}
            ("tools", Some(Value::Array(theirs)), Value::Array(mut tools)) => {
                theirs.retain(|tool| tools.iter().all(|ours| ours["name"] != tool["name"]));
                tools.append(theirs);
                *theirs = tools;
            }
            ("metadata", Some(Value::Object(theirs)), Value::Object(metadata)) => {
                for (key, value) in metadata {
                    match (theirs.get_mut(&key), value) {
                        (Some(Value::Array(theirs)), Value::Array(mut items)) => {
                            theirs.retain(|item| !items.contains(item));
                            items.append(theirs);
                            *theirs = items;
                        }
                        (_, value) => {
                            theirs.insert(key, value);
                        }
                    }
                }
            }
            (_, _, value) => {
                entry.insert(key, value);
            }
        }
    }
}
