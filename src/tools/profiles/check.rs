//! What is wrong with a profile: all of it, before anything is done.

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};

use super::{super::add::over, Context, Tools, split};
use crate::{
    audit::without_secrets,
    catalog::{Entry, config_schema::CONFIG_BYTES_MAX},
    ids::ServerName,
    profiles::ProfileServer,
    session::Session,
};

/// Something that is in the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProfileProblem {
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<ServerName>,
    problem: String,
}

impl ProfileProblem {
    pub(super) fn of(server: &ServerName, problem: impl Into<String>) -> Self {
        Self { server: Some(server.clone()), problem: problem.into() }
    }
}

impl fmt::Display for ProfileProblem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.server {
            Some(server) => write!(formatter, "- {server}: {}", self.problem),
            None => write!(formatter, "- {}", self.problem),
        }
    }
}

impl Tools {
    /// What is wrong with servers that are to be kept as a profile. What they still need (secrets, an engine) is not wrong.
    #[must_use]
    pub fn profile_problems(&self, servers: &[ProfileServer]) -> Vec<ProfileProblem> {
        servers.iter().flat_map(|server| self.context.lasting_problems(None, server)).collect()
    }

    /// What is in the way of putting a profile's servers into every session, where `all` are put with those that the
    /// settings name. Of servers that are named there (`more`) only the config is looked at, which is made of both.
    #[must_use]
    pub fn fixed_problems(&self, new: &[ProfileServer], more: &[ProfileServer], all: usize) -> Vec<ProfileProblem> {
        let context = &self.context;
        let mut problems = Vec::new();
        for server in new {
            problems.extend(context.lasting_problems(None, server));
            problems.extend(context.needed(None, &ProfileServer { config: Map::new(), ..server.clone() }));
        }
        for server in more {
            problems.extend(context.lasting_problems(None, server));
            problems.extend(context.everybodys_config_problems(&server.name));
        }
        let max = context.limits.servers_per_session_max;
        if !(new.is_empty() && more.is_empty()) && all > max {
            problems.push(too_many(all, max));
        }
        // One setting may be wrong in the profile, and in what is made of it and the settings.
        let mut told: Vec<ProfileProblem> = Vec::new();
        for problem in problems {
            if !told.contains(&problem) {
                told.push(problem);
            }
        }
        told
    }

    /// The names of the secrets that servers need, for who is given a profile.
    #[must_use]
    pub fn secrets_of(&self, servers: &[ProfileServer]) -> Vec<String> {
        let entries = servers.iter().filter_map(|server| self.context.catalog.entry(&server.name));
        let mut names: Vec<String> = entries
            .flat_map(|entry| entry.secrets.iter().map(|secret| secret.name.clone()).collect::<Vec<_>>())
            .collect();
        names.sort();
        names.dedup();
        names
    }
}

impl Context {
    /// What is in the way of putting a profile's servers into a session. Those that are on already stay as they are.
    pub(super) fn session_problems(&self, session: &Session, servers: &[ProfileServer]) -> Vec<ProfileProblem> {
        let mut problems = Vec::new();
        let mut new = 0;
        for server in servers.iter().filter(|server| session.server(&server.name).is_none()) {
            new += 1;
            problems.extend(self.lasting_problems(Some(session), server));
            problems.extend(self.needed(Some(session), server));
        }
        let max = self.limits.servers_per_session_max;
        if session.server_count() + new > max {
            problems.push(too_many(session.server_count() + new, max));
        }
        problems
    }

    /// What is wrong whatever this machine has and whichever secrets are set.
    fn lasting_problems(&self, session: Option<&Session>, server: &ProfileServer) -> Vec<ProfileProblem> {
        let name = &server.name;
        let Some(entry) = self.entry_in(session, name) else {
            let similar: Vec<String> =
                self.catalog.snapshot().suggestions(name.as_str()).iter().map(ToString::to_string).collect();
            let hint = if similar.is_empty() { String::new() } else { format!(" (similar: {})", similar.join(", ")) };
            return vec![ProfileProblem::of(name, format!("is not in the catalog{hint}"))];
        };
        let mut problems = Vec::new();
        let mut say = |problem: String| problems.push(ProfileProblem::of(name, problem));
        if let Some(refusal) = self.refusal(&entry) {
            say(refusal);
        }
        if entry.shared && !server.config.is_empty() {
            say("is shared by all sessions: its config is the operator's".to_owned());
        }
        if Value::Object(server.config.clone()).to_string().len() > CONFIG_BYTES_MAX {
            say(format!("its config is larger than {CONFIG_BYTES_MAX} bytes"));
        }
        let given = split(&entry, server.config.clone());
        for secret in given.secrets.iter().map(|(name, _)| name).chain(&given.unusable) {
            say(format!("its config has the secret `{secret}`: set it with `mcp-broker secret set {secret}` instead"));
        }
        for key in secretive(&given.config) {
            say(format!("its config has `{key}`, which looks like a secret: a profile holds none"));
        }
        if !server.config.is_empty()
            && let Some(schema) = &entry.config
        {
            let whole = Value::Object(over(self, &entry, &given));
            for problem in schema.problems(&whole) {
                say(format!("config: {problem}"));
            }
        }
        problems
    }

    /// What a server still needs to run.
    fn needed(&self, session: Option<&Session>, server: &ProfileServer) -> Vec<ProfileProblem> {
        let Some(entry) = self.entry_in(session, &server.name) else { return Vec::new() };
        let given = split(&entry, server.config.clone());
        let config = match session {
            Some(session) if server.config.is_empty() => self.config_of(session, &entry),
            _ => over(self, &entry, &given),
        };
        let mut needs = self.needs(session.map(Session::id), &entry, &config, &[]);
        if !server.config.is_empty() {
            // Told already.
            needs.config.clear();
        }
        let mut problems = Vec::new();
        let mut say = |problem: String| problems.push(ProfileProblem::of(&server.name, problem));
        for secret in &needs.secrets {
            say(format!("needs the secret `{0}`: `mcp-broker secret set {0}`", secret.name));
        }
        for problem in needs.config {
            say(format!("config: {problem}"));
        }
        if !needs.runtime.is_empty() {
            say(format!("needs on this machine: {}", needs.runtime.join(", or ")));
        }
        problems
    }

    /// What is wrong with the config that a server has in every session.
    fn everybodys_config_problems(&self, name: &ServerName) -> Vec<ProfileProblem> {
        let Some(schema) = self.catalog.entry(name).and_then(|entry| entry.config.clone()) else { return Vec::new() };
        let config = Value::Object(self.server_config.get(name).cloned().unwrap_or_default());
        let problems = schema.problems(&config);
        problems.iter().map(|problem| ProfileProblem::of(name, format!("config: {problem}"))).collect()
    }

    fn entry_in(&self, session: Option<&Session>, name: &ServerName) -> Option<std::sync::Arc<Entry>> {
        match session {
            Some(session) => self.entry(session, name),
            None => self.catalog.entry(name),
        }
    }
}

fn too_many(servers: usize, max: usize) -> ProfileProblem {
    let problem =
        format!("that would be {servers} servers, and a session may have {max} (limits.servers_per_session_max)");
    ProfileProblem { server: None, problem }
}

/// The keys of a config whose values may be secrets, whatever the catalog calls them.
pub(super) fn secretive(config: &Map<String, Value>) -> Vec<String> {
    let changed = |key: &String, value: &Value| {
        let alone = Value::Object(Map::from_iter([(key.clone(), value.clone())]));
        without_secrets(&alone) != alone
    };
    config.iter().filter(|(key, value)| changed(key, value)).map(|(key, _)| key.clone()).collect()
}
