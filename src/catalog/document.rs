//! Whatever lists servers, told by what it looks like: a Docker catalog, a page of the official registry, one `server.json`,
//! one `server.yaml`.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use serde_json::{Map, Value, json};

use super::{
    file::{self, CatalogFileError, Problem, Severity},
    server_json,
    source::noted,
};
use crate::ids::ServerName;

/// A folder with more files than this is not read.
const FILES_MAX: usize = 10_000;

/// How deep folders are looked into.
const DEPTH_MAX: usize = 4;

/// Entries as our own format has them, not yet looked at, and what could not be made one.
#[derive(Debug, Default)]
pub struct Listed {
    pub entries: BTreeMap<String, Value>,
    /// Servers that are there and of which no entry could be made.
    pub unusable: BTreeSet<String>,
    pub problems: Vec<Problem>,
}

/// Reads a file, or every YAML and JSON file of a folder. One bad file of several is a problem; a single one is an error.
///
/// # Errors
///
/// When nothing could be read.
pub fn read(path: &Path) -> Result<Listed, CatalogFileError> {
    if !path.is_dir() {
        return listed(&path.display().to_string(), &file::text_of(path)?);
    }
    let mut files = Vec::new();
    collect(path, 0, &mut files)?;
    files.sort();
    let mut all = Listed::default();
    for path in files {
        let name = path.display().to_string();
        match file::text_of(&path).and_then(|text| listed(&name, &text)) {
            Ok(mut listed) => {
                all.entries.append(&mut listed.entries);
                all.unusable.append(&mut listed.unusable);
                all.problems.append(&mut listed.problems);
            }
            Err(error) => all.problems.push(problem(&name, "", &error.to_string())),
        }
    }
    Ok(all)
}

fn collect(folder: &Path, depth: usize, files: &mut Vec<std::path::PathBuf>) -> Result<(), CatalogFileError> {
    let wrong = |source| CatalogFileError::Read { file: folder.display().to_string(), source };
    for item in std::fs::read_dir(folder).map_err(wrong)? {
        let item = item.map_err(wrong)?;
        let (path, kind) = (item.path(), item.file_type().map_err(wrong)?);
        if kind.is_dir() && depth < DEPTH_MAX {
            collect(&path, depth + 1, files)?;
        } else if kind.is_file() && path.extension().is_some_and(|end| end == "yaml" || end == "yml" || end == "json") {
            files.push(path);
        }
        if files.len() > FILES_MAX {
            let problem = format!("it has more than {FILES_MAX} files");
            return Err(CatalogFileError::Parse { file: folder.display().to_string(), problem });
        }
    }
    Ok(())
}

/// Takes a text apart.
///
/// # Errors
///
/// When it lists no servers.
pub fn listed(name: &str, text: &str) -> Result<Listed, CatalogFileError> {
    let wrong = |problem: String| CatalogFileError::Parse { file: name.to_owned(), problem };
    let document: Value = file::yaml(text).map_err(wrong)?;
    if document.get("registry").is_some_and(Value::is_object) {
        return Ok(Listed { entries: file::entries_of(name, text)?, ..Listed::default() });
    }
    if let Some(servers) = document.get("servers").and_then(Value::as_array) {
        let mut listed = Listed::default();
        for server in servers {
            listed.take(name, server.get("server").unwrap_or(server).clone());
        }
        return Ok(listed);
    }
    let server = document.get("server").filter(|server| server.is_object()).unwrap_or(&document);
    if server.get("name").is_none_or(|name| !name.is_string()) {
        let what = "it is no catalog (`registry:`), no listing (`servers`), no server.json and no server.yaml (`name`)";
        return Err(wrong(what.to_owned()));
    }
    let mut listed = Listed::default();
    let is_server_json = server.get("remotes").is_some()
        || server.get("$schema").is_some()
        || server["packages"].get(0).is_some_and(|package| package.get("registryType").is_some());
    if is_server_json {
        listed.take(name, server.clone());
    } else {
        let (server_name, entry) = of_server_yaml(server);
        listed.entries.insert(server_name, entry);
    }
    Ok(listed)
}

impl Listed {
    /// Takes a `server.json`; what it offers that is not run here is a problem only if nothing else is left.
    pub(super) fn take(&mut self, file: &str, server: Value) {
        let told = server["name"].as_str().unwrap_or_default().to_owned();
        let mapped = match file::too_large(&server) {
            Some(why) => Err(why),
            None => server_json::mapped(server),
        };
        match mapped {
            Ok(mapped) => {
                let runs = ["image", "packages", "remote"].iter().any(|way| mapped.entry.get(*way).is_some());
                if runs {
                    self.entries.insert(mapped.name, mapped.entry);
                } else {
                    let why = if mapped.left_out.is_empty() {
                        "it offers nothing".into()
                    } else {
                        mapped.left_out.join("; ")
                    };
                    self.leave_out(file, &told, &format!("there is no way to run it here: {why}"));
                }
            }
            Err(why) => self.leave_out(file, &told, &why),
        }
    }

    fn leave_out(&mut self, file: &str, name: &str, why: &str) {
        if name.parse::<ServerName>().is_ok() {
            self.unusable.insert(name.to_owned());
        }
        self.problems.push(problem(file, name, why));
    }
}

fn problem(file: &str, entry: &str, message: &str) -> Problem {
    let entry = entry.escape_debug().take(120).collect();
    Problem { file: file.into(), entry, field: String::new(), message: noted(message), severity: Severity::Error }
}

/// A `server.yaml`: an entry that carries its own name, or the form that Docker's registry keeps its sources in.
fn of_server_yaml(server: &Value) -> (String, Value) {
    let name = server["name"].as_str().unwrap_or_default().to_owned();
    let mut entry = server.as_object().cloned().unwrap_or_default();
    entry.shift_remove("name");
    for (from, to) in [("about", "title"), ("about", "description"), ("run", "command"), ("run", "volumes")] {
        move_up(&mut entry, server, from, to);
    }
    for key in ["user", "env", "allowHosts", "disableNetwork"] {
        move_up(&mut entry, server, "run", key);
    }
    if let Some(config) = server.get("config").filter(|config| config.is_object()) {
        entry.shift_remove("config");
        let both = ["env", "secrets"].map(|key| config.get(key).cloned());
        for (key, value) in ["env", "secrets"].into_iter().zip(both) {
            if let Some(value) = value {
                entry.insert(key.to_owned(), value);
            }
        }
        if let Some(parameters) = config.get("parameters") {
            let mut schema = parameters.clone();
            schema["name"] = json!(name);
            entry.insert("config".to_owned(), json!([schema]));
        }
    }
    if let Some(meta) = server.get("meta") {
        entry.insert("metadata".to_owned(), meta.clone());
    }
    for key in ["about", "run", "source", "meta"] {
        entry.shift_remove(key);
    }
    if let Some(project) = server["source"]["project"].as_str() {
        entry.insert("upstream".to_owned(), json!(project));
    }
    (name, Value::Object(entry))
}

fn move_up(entry: &mut Map<String, Value>, server: &Value, from: &str, key: &str) {
    if let Some(value) = server.get(from).and_then(|group| group.get(key)) {
        entry.insert(key.to_owned(), value.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_document_is_told_by_its_looks() {
        let names = |text: &str| listed("x", text).unwrap().entries.into_keys().collect::<Vec<_>>();
        assert_eq!(names("registry: {a: {image: x}}"), ["a"]);
        assert_eq!(
            names(r#"{"servers": [{"server": {"name": "n/a", "remotes": [{"url": "https://x.example/"}]}}]}"#),
            ["n/a"]
        );
        assert_eq!(names(r#"{"name": "n/b", "packages": [{"registryType": "npm", "identifier": "b"}]}"#), ["n/b"]);
        assert_eq!(names("name: c\nimage: x\nabout: {title: C}"), ["c"]);
        for nothing in ["[]", "{}", "3", "name: 3"] {
            assert!(listed("x", nothing).is_err(), "{nothing}");
        }
    }

    #[test]
    fn a_server_yaml_of_dockers_registry_becomes_an_entry() {
        let text = "name: c\nimage: mcp/c\nmeta: {category: ai, tags: [x]}\nabout: {title: C, description: Does c.}\n\
                    source: {project: https://example.com/c}\nrun: {command: [go], disableNetwork: true}\n\
                    config: {secrets: [{name: c.key, env: KEY}], env: [{name: A, value: '{{c.a}}'}], \
                    parameters: {type: object, properties: {a: {type: string}}}}\n";
        let (loaded, _) = file::taken("x", listed("x", text).unwrap().entries);
        assert_eq!(loaded.problems, []);
        let entry = &loaded.entries[0];
        assert_eq!((entry.title.as_str(), entry.category.as_str()), ("C", "ai"));
        assert_eq!((entry.secrets.len(), entry.env.len()), (1, 1));
        assert!(entry.config.is_some());
    }

    #[test]
    fn a_server_that_cannot_be_used_is_still_known_to_be_there() {
        let huge = "y".repeat(2 << 20);
        let text = json!({"servers": [
            {"name": "n/nothing"},
            {"name": "n/huge", "description": huge, "remotes": [{"url": "https://x.example/"}]},
            {"name": " no name "},
        ]});
        let mut listed = Listed::default();
        for server in text["servers"].as_array().unwrap() {
            listed.take("x", server.clone());
        }
        assert_eq!(listed.entries.len(), 0);
        assert_eq!(listed.unusable.into_iter().collect::<Vec<_>>(), ["n/huge", "n/nothing"]);
        assert_eq!(listed.problems.len(), 3);
        assert!(listed.problems[1].message.contains("bytes"), "{:?}", listed.problems);
        assert_eq!(problem("x", "n/a", &"\u{e9}".repeat(5000)).message, "\u{e9}".repeat(1000));
    }

    #[test]
    fn one_bad_file_of_a_folder_is_a_problem_and_the_others_are_read() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("c")).unwrap();
        std::fs::write(folder.path().join("c/server.yaml"), "name: c\nimage: x").unwrap();
        std::fs::write(folder.path().join("bad.json"), "{").unwrap();
        let listed = read(folder.path()).unwrap();
        assert_eq!(listed.entries.into_keys().collect::<Vec<_>>(), ["c"]);
        assert!(listed.problems[0].file.ends_with("bad.json"));
    }
}
