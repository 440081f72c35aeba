//! The official registry's `server.json`, as an entry of our own format.
//!
//! What the format says and we cannot run is left out with a reason: packages of other kinds, other registries than the usual
//! ones (a package of the same name in the usual one is somebody else's), secrets on a command line, URLs with holes in them.

use serde::Deserialize;
use serde_json::{Map, Value, json};

/// A server of the registry.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServerJson {
    name: String,
    #[serde(default)]
    title: Option<String>,
    #[serde(default)]
    description: String,
    #[serde(default)]
    version: Option<String>,
    #[serde(default)]
    repository: Option<Repository>,
    #[serde(default)]
    packages: Vec<Package>,
    #[serde(default)]
    remotes: Vec<Remote>,
}

#[derive(Deserialize)]
struct Repository {
    #[serde(default)]
    url: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Package {
    registry_type: String,
    #[serde(default)]
    registry_base_url: Option<String>,
    identifier: String,
    #[serde(default)]
    version: Option<String>,
    #[serde(default)]
    transport: Option<Transport>,
    #[serde(default)]
    runtime_arguments: Vec<Input>,
    #[serde(default)]
    package_arguments: Vec<Input>,
    #[serde(default)]
    environment_variables: Vec<Input>,
}

#[derive(Deserialize)]
struct Transport {
    #[serde(default, rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Remote {
    #[serde(default, rename = "type")]
    kind: String,
    url: String,
    #[serde(default)]
    headers: Vec<Input>,
}

/// A variable, a header or an argument.
#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Input {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    value_hint: String,
    description: String,
    value: Option<Value>,
    default: Option<Value>,
    format: String,
    choices: Vec<Value>,
    is_required: bool,
    is_secret: bool,
    variables: Map<String, Value>,
}

/// An entry, and what of the server could not be taken over.
#[derive(Debug)]
pub struct Mapped {
    pub name: String,
    pub entry: Value,
    pub left_out: Vec<String>,
}

/// Turns a `server.json` into an entry.
///
/// # Errors
///
/// When it is no `server.json`.
pub fn mapped(value: Value) -> Result<Mapped, String> {
    let server: ServerJson = serde_path_to_error::deserialize(value).map_err(|error| error.to_string())?;
    let mut mapping = Mapping { root: server.name.clone(), ..Mapping::default() };
    for package in &server.packages {
        if let Err(reason) = mapping.package(package) {
            mapping.left_out.push(format!("{} {}: {reason}", package.registry_type, package.identifier));
        }
    }
    for remote in &server.remotes {
        if let Err(reason) = mapping.remote(remote) {
            mapping.left_out.push(format!("remote {}: {reason}", remote.url));
        }
    }
    let left_out = std::mem::take(&mut mapping.left_out);
    let name = server.name.clone();
    Ok(Mapped { name, entry: mapping.entry(server), left_out })
}

#[derive(Default)]
struct Mapping {
    /// What templates begin with.
    root: String,
    image: Option<(String, Vec<String>)>,
    packages: Vec<Value>,
    remote: Option<Value>,
    secrets: Vec<Value>,
    env: Vec<Value>,
    properties: Map<String, Value>,
    required: Vec<String>,
    left_out: Vec<String>,
}

impl Mapping {
    fn package(&mut self, package: &Package) -> Result<(), String> {
        if package.transport.as_ref().is_some_and(|transport| !matches!(transport.kind.as_str(), "stdio" | "")) {
            return Err("it does not speak over standard input and output".to_owned());
        }
        if !usual_registry(package) {
            return Err("it is in a registry of its own, and the usual one's package of that name is not it".to_owned());
        }
        if package.runtime_arguments.iter().any(|argument| argument.is_required && argument.value.is_none()) {
            return Err("it needs arguments for what runs it".to_owned());
        }
        let kind = package.registry_type.as_str();
        if !matches!(kind, "npm" | "pypi" | "oci") {
            return Err("it is of a kind that is not run here".to_owned());
        }
        if kind == "oci" && self.image.is_some() {
            return Err("one image is enough".to_owned());
        }
        let arguments = self.arguments(&package.package_arguments)?;
        for variable in &package.environment_variables {
            self.variable(variable);
        }
        let version = package.version.as_deref().filter(|version| !matches!(*version, "" | "latest"));
        if kind == "oci" {
            let image = match version {
                Some(version) if !has_tag(&package.identifier) => format!("{}:{version}", package.identifier),
                _ => package.identifier.clone(),
            };
            self.image = Some((image, arguments));
            return Ok(());
        }
        let mut entry = json!({"registry": kind, "identifier": package.identifier, "arguments": arguments});
        if let Some(version) = version {
            entry["version"] = json!(version);
        }
        self.packages.push(entry);
        Ok(())
    }

    fn arguments(&mut self, inputs: &[Input]) -> Result<Vec<String>, String> {
        let secret = |input: &&Input| input.is_secret || holes(input).any(|(_, hole)| hole["isSecret"] == json!(true));
        if inputs.iter().any(|input| secret(&input) && input.is_required) {
            return Err("it wants a secret on its command line, where others can read it".to_owned());
        }
        let mut arguments = Vec::new();
        for input in inputs.iter().filter(|input| !secret(input)) {
            let flag = (input.kind == "named").then(|| input.name.clone());
            let fixed = input.value.as_ref().map(text).filter(|value| !value.contains(['{', '}']));
            match (flag, fixed) {
                (flag, Some(value)) => arguments.extend(flag.into_iter().chain([value])),
                // What need not be said is not: a flag without its value would be wrong.
                (Some(_), None) if !input.is_required => {}
                (flag, None) => {
                    let named = if input.kind == "named" { &input.name } else { &input.value_hint };
                    let property = property_name(named, arguments.len());
                    self.property(&property, input);
                    arguments.extend(flag.into_iter().chain([self.template(&property, input)]));
                }
            }
        }
        Ok(arguments)
    }

    fn variable(&mut self, variable: &Input) {
        let known = |list: &[Value], key: &str| list.iter().any(|item| item[key] == json!(variable.name));
        if known(&self.env, "name") || known(&self.secrets, "env") {
            return;
        }
        let fixed = variable.value.as_ref().map(text).filter(|value| !value.contains(['{', '}', '$']));
        if variable.is_secret {
            self.secret(&variable.name, variable);
        } else if let Some(value) = fixed {
            self.env.push(json!({"name": variable.name, "value": value}));
        } else {
            self.property(&variable.name, variable);
            let template = self.template(&variable.name, variable);
            self.env.push(json!({"name": variable.name, "value": template}));
        }
    }

    fn secret(&mut self, variable: &str, input: &Input) {
        if self.secrets.iter().any(|secret| secret["env"] == json!(variable)) {
            return;
        }
        self.secrets.push(json!({
            "name": format!("{}.{}", self.root, variable.to_lowercase()),
            "env": variable,
            "description": input.description,
            "required": input.is_required,
        }));
    }

    fn property(&mut self, name: &str, input: &Input) {
        let kind = match input.format.as_str() {
            "number" => "number",
            "boolean" => "boolean",
            _ => "string",
        };
        let mut schema = json!({"type": kind});
        if !input.description.is_empty() {
            schema["description"] = json!(input.description);
        }
        if !input.choices.is_empty() && kind == "string" {
            schema["enum"] = json!(input.choices);
        }
        if input.is_required && input.default.is_none() && !self.required.contains(&name.to_owned()) {
            self.required.push(name.to_owned());
        }
        self.properties.insert(name.to_owned(), schema);
    }

    fn template(&self, property: &str, input: &Input) -> String {
        let default = input.default.as_ref().map(text).filter(|text| !text.is_empty());
        match default.filter(|text| !text.contains(['|', '{', '}', '[', '"', '\''])) {
            Some(default) => format!("{{{{{}.{property}|or:{default}}}}}", self.root),
            None => format!("{{{{{}.{property}}}}}", self.root),
        }
    }

    fn remote(&mut self, remote: &Remote) -> Result<(), String> {
        if self.remote.is_some() {
            return Err("one URL is enough".to_owned());
        }
        if remote.url.contains(['{', '}']) {
            return Err("its URL has to be filled in".to_owned());
        }
        let mut headers = Map::new();
        for header in &remote.headers {
            if let Some(value) = self.header(header) {
                headers.insert(header.name.clone(), json!(value));
            }
        }
        self.remote = Some(json!({"url": remote.url, "transport_type": remote.kind, "headers": headers}));
        Ok(())
    }

    /// A header's value, in which `${NAME}` stands for a secret.
    fn header(&mut self, header: &Input) -> Option<String> {
        let fixed = header.value.as_ref().map(text);
        let Some(pattern) = fixed.filter(|value| !header.is_secret || value.contains('{')) else {
            if !header.is_secret && !header.is_required {
                return None;
            }
            let variable = variable_name(&header.name);
            self.secret(&variable, header);
            return Some(format!("${{{variable}}}"));
        };
        let mut value = String::new();
        let mut rest = pattern.as_str();
        while let Some((before, after)) = rest.split_once('{') {
            let Some((hole, after)) = after.split_once('}') else { break };
            value.push_str(before.trim_end_matches('$'));
            let variable = variable_name(hole);
            let told = header.variables.get(hole).and_then(|told| Input::deserialize(told).ok());
            let is_required = header.is_required || told.as_ref().is_some_and(|told| told.is_required);
            let description = told.map_or_else(|| header.description.clone(), |told| told.description);
            self.secret(&variable, &Input { is_required, description, ..Input::default() });
            value.push_str(&format!("${{{variable}}}"));
            rest = after;
        }
        value.push_str(rest);
        Some(value)
    }

    fn entry(self, server: ServerJson) -> Value {
        let mut entry = Map::new();
        let last = server.name.rsplit('/').next().unwrap_or(&server.name);
        entry.insert("title".to_owned(), json!(server.title.as_deref().unwrap_or(last)));
        entry.insert("description".to_owned(), json!(server.description));
        if let Some((image, command)) = self.image {
            entry.insert("image".to_owned(), json!(image));
            entry.insert("command".to_owned(), json!(command));
        }
        let lists = [("packages", self.packages), ("secrets", self.secrets), ("env", self.env)];
        entry.extend(
            lists.into_iter().filter(|(_, list)| !list.is_empty()).map(|(key, list)| (key.to_owned(), json!(list))),
        );
        if let Some(remote) = self.remote {
            entry.insert("remote".to_owned(), remote);
        }
        if !self.properties.is_empty() {
            let schema = json!([{
                "name": server.name, "type": "object", "properties": self.properties, "required": self.required
            }]);
            entry.insert("config".to_owned(), schema);
        }
        if let Some(url) = server.repository.and_then(|repository| repository.url) {
            entry.insert("upstream".to_owned(), json!(url));
        }
        if let Some(version) = server.version {
            entry.insert("metadata".to_owned(), json!({"version": version}));
        }
        Value::Object(entry)
    }
}

fn holes(input: &Input) -> impl Iterator<Item = (&String, &Value)> {
    input.variables.iter()
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Whether the package is where npm, pip or uv look without being told.
fn usual_registry(package: &Package) -> bool {
    let Some(base) = package.registry_base_url.as_deref().filter(|base| !base.is_empty()) else { return true };
    let wanted = match package.registry_type.as_str() {
        "npm" => "npmjs",
        "pypi" => "pypi",
        _ => return true,
    };
    let url = reqwest::Url::parse(base).ok();
    url.as_ref().and_then(reqwest::Url::host_str).is_some_and(|host| host.split('.').any(|label| label == wanted))
}

/// Whether an image's name says which version.
fn has_tag(image: &str) -> bool {
    image.contains('@') || image.rsplit('/').next().is_some_and(|last| last.contains(':'))
}

fn property_name(named: &str, position: usize) -> String {
    let plain = named.trim_start_matches('-').replace(|letter: char| !letter.is_ascii_alphanumeric(), "_");
    if plain.is_empty() { format!("argument_{position}") } else { plain }
}

fn variable_name(text: &str) -> String {
    text.to_uppercase().replace(|letter: char| !letter.is_ascii_alphanumeric(), "_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Runnable, file};

    fn entry(server: Value) -> (crate::catalog::Entry, Vec<String>) {
        let mapped = mapped(server).unwrap();
        let (mut loaded, _) = file::taken("r", [(mapped.name, mapped.entry)].into());
        assert_eq!(loaded.problems, []);
        (loaded.entries.remove(0), mapped.left_out)
    }

    #[test]
    fn packages_images_and_remotes_become_ways_to_run() {
        let (entry, left_out) = entry(json!({
            "name": "io.github.a/b", "description": "B.", "version": "1.2.0",
            "packages": [
                {"registryType": "npm", "identifier": "@a/b", "version": "1.2.0", "transport": {"type": "stdio"},
                 "packageArguments": [
                    {"type": "positional", "value": "run"},
                    {"type": "named", "name": "--level", "description": "How much"},
                    {"type": "named", "name": "--port", "isRequired": true, "format": "number", "default": 80}],
                 "environmentVariables": [
                    {"name": "KEY", "isSecret": true, "isRequired": true},
                    {"name": "MODE", "choices": ["x", "y"], "default": "x"}]},
                {"registryType": "oci", "identifier": "docker.io/a/b", "version": "1.2.0"},
                {"registryType": "nuget", "identifier": "B"}],
            "remotes": [{"type": "streamable-http", "url": "https://example.com/mcp",
                "headers": [{"name": "Authorization", "value": "Bearer {token}", "isRequired": true}]}]
        }));
        let kinds: Vec<&str> = entry.runs.iter().map(Runnable::kind).collect();
        assert_eq!(kinds, ["container", "npm", "remote"]);
        let Runnable::Package(package) = &entry.runs[1] else { panic!() };
        assert_eq!(package.arguments, ["run", "--port", "{{io.github.a/b.port|or:80}}"]);
        let secrets: Vec<(&str, bool)> =
            entry.secrets.iter().map(|secret| (secret.env.as_str(), secret.required)).collect();
        assert_eq!(secrets, [("KEY", true), ("TOKEN", true)]);
        let Runnable::Remote(remote) = &entry.runs[2] else { panic!() };
        assert_eq!(remote.headers["Authorization"], "Bearer ${TOKEN}");
        assert_eq!(entry.version.as_deref(), Some("1.2.0"));
        assert!(left_out[0].starts_with("nuget B"), "{left_out:?}");
    }

    #[test]
    fn a_package_of_another_registry_is_not_taken_from_the_usual_one() {
        let server = json!({"name": "a/b", "packages": [
            {"registryType": "npm", "registryBaseUrl": "https://npm.corp.example", "identifier": "b", "version": "1.0.0"}
        ]});
        let mapped = mapped(server).unwrap();
        assert!(mapped.entry.get("packages").is_none() && mapped.left_out[0].contains("registry of its own"));
    }

    #[test]
    fn what_an_installer_would_take_for_an_option_is_no_package() {
        let server = json!({"name": "a/b", "packages": [{"registryType": "pypi", "identifier": "--index-url=x"}]});
        let mapped = mapped(server).unwrap();
        let (loaded, kept) = file::taken("r", [(mapped.name, mapped.entry)].into());
        assert!(loaded.entries.is_empty() && kept.is_empty());
    }

    #[test]
    fn a_secret_is_not_put_on_a_command_line() {
        let server = json!({"name": "a/b", "packages": [{"registryType": "npm", "identifier": "b",
            "packageArguments": [{"type": "named", "name": "--token", "isSecret": true, "isRequired": true}]}]});
        assert!(mapped(server).unwrap().left_out[0].contains("command line"));
    }
}
