//! `mcp-broker catalog show`.

use anyhow::bail;
use serde_json::{Map, Value, json};

use super::output;
use crate::{
    catalog::{Catalog, Entry, Runnable, Snapshot, config_schema::ConfigSchema},
    ids::ServerName,
};

/// Prints everything about one server.
pub(super) fn show(catalog: &Catalog, name: &ServerName) -> anyhow::Result<()> {
    let snapshot = catalog.snapshot();
    let Some(entry) = snapshot.entry(name) else {
        let similar: Vec<String> = snapshot.suggestions(name.as_str()).iter().map(ToString::to_string).collect();
        let hint = if similar.is_empty() { String::new() } else { format!(" (similar: {})", similar.join(", ")) };
        bail!("there is no server `{name}` in the catalog{hint}");
    };
    about(&snapshot, entry);
    needs(entry);
    if !entry.tools.is_empty() {
        output::say("\ntools:");
        for tool in &entry.tools {
            output::say(format!("  {}: {}", tool.name, tool.description));
        }
    }
    usage(entry);
    Ok(())
}

fn about(snapshot: &Snapshot, entry: &Entry) {
    output::say(format!("{} ({})\n{}", entry.name, entry.title, entry.description));
    let trust = snapshot.trust(&entry.name).map_or("", crate::catalog::Trust::word);
    output::say(format!("\nfrom:      {} ({trust})", entry.source));
    for other in snapshot.replaced(&entry.name) {
        output::say(format!("           also in {}, which does not count", other.source));
    }
    if let Some(refusal) = snapshot.refusal(&entry.name) {
        output::say(format!("allowed:   no, {refusal}"));
    }
    if let Some(upstream) = &entry.upstream {
        output::say(format!("made from: {upstream}"));
    }
    if !entry.category.is_empty() {
        output::say(format!("category:  {}", entry.category));
    }
    for run in &entry.runs {
        output::say(format!("runs as:   {}", described(run)));
    }
    let versions: Vec<&str> = entry.version.iter().chain(&entry.versions).map(String::as_str).collect();
    if !versions.is_empty() {
        output::say(format!("versions:  {}", versions.join(", ")));
    }
}

fn described(run: &Runnable) -> String {
    let what = match run {
        Runnable::Container(container) => container.image.clone(),
        Runnable::ContainerPerCall(_) => "one container for each call".to_owned(),
        Runnable::Package(package) => match &package.version {
            Some(version) => format!("{} {version}", package.identifier),
            None => format!("{}, the newest", package.identifier),
        },
        Runnable::Command(command) => command.program.clone(),
        Runnable::Remote(remote) => remote.url.clone(),
    };
    format!("{} {what}", run.kind())
}

fn needs(entry: &Entry) {
    for secret in &entry.secrets {
        let optional = if secret.required { "" } else { " (can be left out)" };
        output::say(format!("secret:    {}, as {}{optional}", secret.name, secret.env));
    }
    if let Some(schema) = &entry.config {
        output::say("config:");
        for (property, kind) in schema.summary() {
            output::say(format!("  {property}: {}", kind.as_str().unwrap_or("any")));
        }
    }
}

fn usage(entry: &Entry) {
    let mut arguments = json!({"name": entry.name});
    let example = entry.config.as_ref().map(example).unwrap_or_default();
    if !example.is_empty() {
        arguments["config"] = Value::Object(example);
    }
    output::say(format!("\nan agent adds it:      mcp-add {arguments}"));
    for secret in entry.secrets.iter().filter(|secret| secret.required) {
        output::say(format!("first, the secret:     mcp-broker secret set {}", secret.name));
    }
    let client = json!({"mcpServers": {"mcp-broker": {
        "command": "mcp-broker", "args": ["stdio", "--server", entry.name]
    }}});
    output::say(format!("a client that has it:  {client}"));
}

/// A config that has what is required, with a value of each type.
fn example(schema: &ConfigSchema) -> Map<String, Value> {
    let whole = schema.as_value();
    let objects = whole.as_array().cloned().unwrap_or_else(|| vec![whole]);
    let property = |name: &str| objects.iter().find_map(|object| object["properties"].get(name).cloned());
    schema.required().into_iter().map(|name| (name.clone(), value_of(&property(&name).unwrap_or_default()))).collect()
}

fn value_of(property: &Value) -> Value {
    let chosen = property.get("default").or_else(|| property["enum"].get(0));
    match (chosen, property["type"].as_str()) {
        (Some(value), _) => value.clone(),
        (None, Some("array")) => json!([value_of(&property["items"])]),
        (None, Some("integer" | "number")) => json!(1),
        (None, Some("boolean")) => json!(true),
        (None, Some("object")) => json!({}),
        (None, _) => json!("..."),
    }
}
