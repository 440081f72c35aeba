//! A profile as a document, to be handed on. One that somebody sent is read with every problem it has, not with the first.

use serde_json::{Map, Value, json};

use super::{DESCRIPTION_CHARACTERS_MAX, Profile, ProfileName, ProfileServer};
use crate::{catalog::foreign::displayable, ids::ServerName, store::sessions::Activation};

const VERSION: u64 = 1;

/// A profile as it was written, as far as it could be understood.
#[derive(Debug, Default)]
pub struct Draft {
    pub name: Option<ProfileName>,
    pub description: String,
    pub servers: Vec<ProfileServer>,
    pub problems: Vec<String>,
}

impl Profile {
    /// The document for it; `secrets` are the names of those that its servers need.
    #[must_use]
    pub fn to_document(&self, secrets: &[String]) -> Value {
        let mut document = json!({"version": VERSION});
        if let (Some(document), Value::Object(profile)) = (document.as_object_mut(), self.to_value()) {
            document.extend(profile);
            document.insert("secrets".to_owned(), json!(secrets));
        }
        document
    }
}

impl Draft {
    /// Reads a document.
    #[must_use]
    pub fn of_document(document: &Value) -> Self {
        let mut draft = Self::default();
        let Some(fields) = document.as_object() else {
            draft.problems.push("it is no profile: it has to have `version`, `name` and `servers`".to_owned());
            return draft;
        };
        draft.only(fields, &["version", "name", "description", "servers", "secrets"], "");
        if fields.get("version").and_then(Value::as_u64) != Some(VERSION) {
            draft.problems.push(format!("`version` has to be {VERSION}: this broker knows no other"));
        }
        draft.fields(fields);
        draft
    }

    /// Reads what a program asks for.
    #[must_use]
    pub fn of_request(request: &Value) -> Self {
        let mut draft = Self::default();
        let Some(fields) = request.as_object() else {
            draft.problems.push("a profile is an object with `name` and `servers`".to_owned());
            return draft;
        };
        draft.only(fields, &["name", "description", "servers"], "");
        draft.fields(fields);
        draft
    }

    fn fields(&mut self, fields: &Map<String, Value>) {
        match fields.get("name").and_then(Value::as_str).map(str::parse) {
            Some(Ok(name)) => self.name = Some(name),
            Some(Err(error)) => self.problems.push(error.to_string()),
            None => self.problems.push("`name` has to be there, and text".to_owned()),
        }
        match fields.get("description") {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) if text.chars().count() <= DESCRIPTION_CHARACTERS_MAX => {
                self.description = displayable(text, DESCRIPTION_CHARACTERS_MAX);
            }
            Some(_) => self
                .problems
                .push(format!("`description` has to be text of at most {DESCRIPTION_CHARACTERS_MAX} characters")),
        }
        match fields.get("servers") {
            Some(Value::Array(servers)) if !servers.is_empty() => {
                for (at, server) in servers.iter().enumerate() {
                    self.server(at, server);
                }
            }
            _ => self.problems.push("`servers` has to be a list with at least one server".to_owned()),
        }
        let secrets = fields.get("secrets");
        if secrets.is_some_and(|names| !names.as_array().is_some_and(|names| names.iter().all(Value::is_string))) {
            self.problems.push("`secrets` has to be a list of names, never of values".to_owned());
        }
    }

    fn server(&mut self, at: usize, server: &Value) {
        let at = format!("servers[{at}]");
        let fields = match server {
            Value::String(name) => Map::from_iter([("name".to_owned(), json!(name))]),
            Value::Object(fields) => fields.clone(),
            _ => return self.problems.push(format!("{at} has to be an object with `name`, `config` and `tools`")),
        };
        self.only(&fields, &["name", "config", "tools"], &at);
        let name = match fields.get("name").and_then(Value::as_str).map(str::parse::<ServerName>) {
            Some(Ok(name)) => Some(name),
            Some(Err(error)) => {
                self.problems.push(format!("{at}: {error}"));
                None
            }
            None => {
                self.problems.push(format!("{at}: `name` has to be there, and text"));
                None
            }
        };
        let config = match fields.get("config") {
            None | Some(Value::Null) => Some(Map::new()),
            Some(Value::Object(config)) => Some(config.clone()),
            Some(_) => {
                self.problems.push(format!("{at}: `config` has to be an object"));
                None
            }
        };
        let tools = match fields.get("tools") {
            None | Some(Value::Null) => Some(Activation::All),
            Some(tools) => Activation::from_value(tools),
        };
        if tools.is_none() {
            self.problems.push(format!("{at}: `tools` has to be true, false, or a list of names"));
        }
        if let (Some(name), Some(config), Some(tools)) = (name, config, tools) {
            if self.servers.iter().any(|server| server.name == name) {
                self.problems.push(format!("{at}: `{name}` is there already"));
            }
            self.servers.push(ProfileServer { name, config, tools });
        }
    }

    fn only(&mut self, fields: &Map<String, Value>, known: &[&str], at: &str) {
        let at = if at.is_empty() { String::new() } else { format!("{at}: ") };
        for key in fields.keys().filter(|key| !known.contains(&key.as_str())) {
            let key = displayable(key, 80);
            self.problems.push(format!("{at}`{key}` is not known ({})", known.join(", ")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let profile = Profile {
            name: "work".parse().unwrap(),
            description: "For work".to_owned(),
            servers: vec![ProfileServer {
                name: "time".parse().unwrap(),
                config: Map::from_iter([("zone".to_owned(), json!("UTC"))]),
                tools: Activation::Only(vec!["now".to_owned()]),
            }],
        };
        let draft = Draft::of_document(&profile.to_document(&["time.key".to_owned()]));
        assert_eq!(draft.problems, Vec::<String>::new());
        assert_eq!(draft.name.as_ref(), Some(&profile.name));
        assert_eq!((draft.description, draft.servers), (profile.description, profile.servers));
    }

    #[test]
    fn every_problem_of_a_document_is_told() {
        let document = json!({
            "version": 2, "name": "a b", "description": 3, "extra": 1, "secrets": {"key": "value"},
            "servers": ["one", "one", {"name": "", "config": [], "tools": "all", "run": "rm"}, 7, {}],
        });
        insta::assert_snapshot!(Draft::of_document(&document).problems.join("\n"), @r"
        `extra` is not known (version, name, description, servers, secrets)
        `version` has to be 1: this broker knows no other
        `a b` cannot name a profile: 1 to 64 of the characters a-z A-Z 0-9 . _ -, a letter or a digit first
        `description` has to be text of at most 1000 characters
        servers[1]: `one` is there already
        servers[2]: `run` is not known (name, config, tools)
        servers[2]: `` cannot name a server: 1 to 200 bytes, no control characters, no spaces at the ends
        servers[2]: `config` has to be an object
        servers[2]: `tools` has to be true, false, or a list of names
        servers[3] has to be an object with `name`, `config` and `tools`
        servers[4]: `name` has to be there, and text
        `secrets` has to be a list of names, never of values
        ");
        for document in [json!(null), json!([]), json!("x")] {
            assert_eq!(Draft::of_document(&document).problems.len(), 1);
        }
    }
}
