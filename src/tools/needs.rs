//! What a server needs before it can run in a session, and what there is of it.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{Context, failure::Failure};
use crate::{
    catalog::{Entry, Runnable, config_schema::ConfigSchema, entry::SecretSpec, spelling},
    ids::{ServerName, SessionId},
    secrets::{REDACTED, SecretValue},
    session::Session,
};

/// What is missing. Nothing may be.
#[derive(Debug, Default)]
pub(super) struct Needs {
    pub(super) secrets: Vec<SecretSpec>,
    /// What is wrong with the config, a sentence each.
    pub(super) config: Vec<String>,
    /// What would have to be on this machine; empty when there is a way to run it.
    pub(super) runtime: Vec<String>,
}

impl Needs {
    pub(super) fn is_empty(&self) -> bool {
        self.secrets.is_empty() && self.config.is_empty() && self.runtime.is_empty()
    }

    /// In a few words, for a line of `mcp-find`.
    pub(super) fn brief(&self, entry: &Entry) -> Vec<String> {
        let mut brief: Vec<String> = self.secrets.iter().map(|secret| format!("secret {}", secret.name)).collect();
        if !self.config.is_empty() {
            let required = entry.config.as_ref().map(ConfigSchema::required).unwrap_or_default();
            let names = if required.is_empty() { "values".to_owned() } else { required.join(", ") };
            brief.push(format!("config {names}"));
        }
        brief.extend(self.runtime.iter().take(1).cloned());
        brief
    }

    /// As structured content.
    pub(super) fn to_value(&self, entry: &Entry) -> Value {
        let secrets: Vec<Value> = self
            .secrets
            .iter()
            .map(|secret| {
                json!({"name": secret.name, "env": secret.env, "description": secret.description, "example": secret.example})
            })
            .collect();
        let mut value = json!({"secrets": secrets, "config_problems": self.config, "runtime": self.runtime});
        if !self.config.is_empty()
            && let Some(schema) = &entry.config
        {
            value["config"] = Value::Object(schema.summary());
        }
        value
    }

    /// As sentences that say what to do.
    pub(super) fn advice(&self, entry: &Entry) -> String {
        let mut lines = Vec::new();
        for secret in &self.secrets {
            let hint = if secret.description.is_empty() { String::new() } else { format!(" ({})", secret.description) };
            lines.push(format!(
                "- the secret `{name}`{hint}: have the operator run `mcp-broker secret set {name}`, or pass it as \
                 `{name}` in `config`",
                name = secret.name
            ));
        }
        for problem in &self.config {
            lines.push(format!("- config: {problem}"));
        }
        if !self.config.is_empty()
            && let Some(schema) = &entry.config
        {
            lines.push("  config takes".to_owned());
            let properties = schema.summary().into_iter();
            lines.extend(properties.map(|(name, kind)| format!("    {name}: {}", kind.as_str().unwrap_or("any"))));
        }
        if !self.runtime.is_empty() {
            lines.push(format!("- on this machine: {}", self.runtime.join(", or ")));
        }
        lines.join("\n")
    }
}

/// A config as it was given, with what is really a secret taken out of it.
pub(super) struct GivenConfig {
    pub(super) config: Map<String, Value>,
    /// By the name of the secret.
    pub(super) secrets: Vec<(String, SecretValue)>,
    /// The names of secrets that were given as what no secret can be. They are kept nowhere.
    pub(super) unusable: Vec<String>,
}

impl GivenConfig {
    /// Itself, if each secret in it can be kept as one.
    pub(super) fn checked(self, server: &ServerName) -> Result<Self, Failure> {
        if self.unusable.is_empty() {
            return Ok(self);
        }
        let problem = |secret: &String| format!("`{secret}` {}", spelling::A_SECRET_IS_TEXT);
        let problems: Vec<String> = self.unusable.iter().map(problem).collect();
        let text = format!("The config of server `{server}` was not taken:\n- {}", problems.join("\n- "));
        Err(Failure::said_with(text, json!({"server": server, "problems": problems})))
    }
}

/// Takes out of a config what the entry calls a secret: under its name, its last part, or its variable.
pub(super) fn split(entry: &Entry, given: Map<String, Value>) -> GivenConfig {
    let mut config = Map::new();
    let mut secrets = Vec::new();
    let mut unusable = Vec::new();
    for (key, value) in given {
        let is_property = entry.config.as_ref().is_some_and(|schema| schema.summary().contains_key(&key));
        let find = || {
            let exactly = entry.secrets.iter().find(|secret| secret.name == key);
            exactly.or_else(|| entry.secrets.iter().find(|secret| names(secret, &key)))
        };
        let secret = if is_property { None } else { find() };
        let Some(secret) = secret else {
            config.insert(key, value);
            continue;
        };
        match spelling::secret_text(&value) {
            Some(text) => secrets.push((secret.name.clone(), text.into())),
            None => unusable.push(secret.name.clone()),
        }
    }
    GivenConfig { config, secrets, unusable }
}

impl Context {
    /// The arguments of `mcp-add` and `mcp-config-set` as the log keeps them: without what the entry calls a secret. Of a
    /// server that is not in the catalog nothing is known, so no value is kept.
    pub(super) fn recordable(&self, session: Option<&Session>, arguments: &Map<String, Value>) -> Map<String, Value> {
        let mut kept = arguments.clone();
        let named = ["name", "server"].iter().find_map(|key| arguments.get(*key)).and_then(Value::as_str);
        let entry = named.and_then(|name| name.trim().parse().ok()).and_then(|name| match session {
            Some(session) => self.entry(session, &name),
            None => self.catalog.entry(&name),
        });
        if let Some(Value::Object(config)) = kept.get_mut("config") {
            for (key, value) in config.iter_mut() {
                let is_secret = entry.as_ref().is_none_or(|entry| is_secret(entry, key));
                if is_secret {
                    *value = Value::String(REDACTED.to_owned());
                }
            }
        }
        kept
    }
}

fn is_secret(entry: &Entry, key: &str) -> bool {
    let is_property = entry.config.as_ref().is_some_and(|schema| schema.summary().contains_key(key));
    !is_property && entry.secrets.iter().any(|secret| names(secret, key))
}

fn names(secret: &SecretSpec, key: &str) -> bool {
    let folded = |text: &str| text.to_lowercase().replace(['_', '-', '.'], "");
    // What stands before a colon is the entry's own name.
    let plain = secret.name.rsplit(':').next().unwrap_or(&secret.name);
    let last = plain.rsplit('.').next().unwrap_or(plain);
    [secret.name.as_str(), plain, last, secret.env.as_str()].iter().any(|name| folded(name) == folded(key))
}

impl Context {
    /// The config a server runs with in a session: the operator's, and over it what was set in the session.
    pub(super) fn config_of(&self, session: &Session, entry: &Entry) -> Map<String, Value> {
        let mut config = self.server_config.get(&entry.name).cloned().unwrap_or_default();
        if !entry.shared {
            config.extend(session.config(&entry.name));
        }
        config
    }

    /// What is missing for `entry` to run with `config`, beside `given` secrets.
    pub(super) fn needs(
        &self,
        session: Option<&SessionId>,
        entry: &Entry,
        config: &Map<String, Value>,
        given: &[(String, SecretValue)],
    ) -> Needs {
        let secrets = entry
            .secrets
            .iter()
            .filter(|secret| secret.required)
            .filter(|secret| !given.iter().any(|(name, _)| *name == secret.name))
            .filter(|secret| self.secret(session, secret).is_none())
            .cloned()
            .collect();
        let config =
            entry.config.as_ref().map(|schema| schema.problems(&Value::Object(config.clone()))).unwrap_or_default();
        let runtime = match self.run_for(entry) {
            Ok(_) => Vec::new(),
            Err(missing) => missing,
        };
        Needs { secrets, config, runtime }
    }

    /// The first way to run `entry` that works here, or what each would need.
    pub(super) fn run_for<'a>(&self, entry: &'a Entry) -> Result<&'a Runnable, Vec<String>> {
        let mut missing = Vec::new();
        for run in &entry.runs {
            match self.supervisor.usable(run) {
                Ok(()) => return Ok(run),
                Err(what) if missing.contains(&what) => {}
                Err(what) => missing.push(what),
            }
        }
        Err(missing)
    }

    /// Values for an entry's secrets, by environment variable.
    pub(super) fn secret_values(&self, session: Option<&SessionId>, entry: &Entry) -> BTreeMap<String, SecretValue> {
        entry.secrets.iter().filter_map(|secret| Some((secret.env.clone(), self.secret(session, secret)?))).collect()
    }

    /// Whether a server of the session, run with `config`, is what any other session would get. What a server says with a
    /// session's own config or secrets is that session's alone.
    pub(super) fn is_everybodys(&self, session: &Session, entry: &Entry, config: &Map<String, Value>) -> bool {
        if session.own_entry(&entry.name).is_some() {
            return false;
        }
        let same = |secret: &SecretSpec| {
            let [own, general] = [Some(session.id()), None].map(|whose| self.secret(whose, secret));
            own.as_ref().map(SecretValue::reveal) == general.as_ref().map(SecretValue::reveal)
        };
        let general = self.server_config.get(&entry.name).cloned().unwrap_or_default();
        entry.shared || (general == *config && entry.secrets.iter().all(same))
    }

    fn secret(&self, session: Option<&SessionId>, secret: &SecretSpec) -> Option<SecretValue> {
        let by_variable = || self.secrets.get(session, &secret.env).filter(|_| secret.by_variable);
        self.secrets.get(session, &secret.name).or_else(by_variable)
    }
}
