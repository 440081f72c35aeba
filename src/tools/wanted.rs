//! The servers that a program wants in a new session, checked before anything is made.

use futures_util::future::join_all;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{Context, Tools, needs::split};
use crate::{
    catalog::{
        file,
        git::{self, GitServer, GitUrl},
        spelling,
    },
    ids::ServerName,
};

/// A server that can be put on.
#[derive(Debug, Clone)]
pub struct WantedServer {
    pub name: ServerName,
    /// Properties and secrets, by the entry's own names.
    pub config: Map<String, Value>,
    /// What a catalog would say of it, if it is the session's alone.
    pub own: Option<OwnServer>,
}

/// A server from a Git repository that is in no catalog.
#[derive(Debug, Clone)]
pub struct OwnServer {
    pub entry: String,
    pub url: String,
    pub commit: String,
}

/// Why a server cannot be put on.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct WantedProblem {
    /// As it was asked for.
    pub name: String,
    pub problem: String,
}

/// A repository that has to be asked for its commit.
struct Repository {
    key: String,
    name: ServerName,
    url: GitUrl,
    server: GitServer,
}

impl Tools {
    /// Checks servers by their names, with their config and secrets, or how to run them from a repository.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with them.
    pub async fn wanted(&self, mcp: &Map<String, Value>) -> Result<Vec<WantedServer>, Vec<WantedProblem>> {
        let context = &self.context;
        let (mut wanted, mut repositories, mut problems): (Vec<WantedServer>, Vec<Repository>, Vec<WantedProblem>) =
            (Vec::new(), Vec::new(), Vec::new());
        for (key, value) in mcp {
            let mut wrong = |problem: String| problems.push(problem_of(key, problem));
            if git::is_repository(key) {
                match context.repository(key, value) {
                    Ok(repository) => repositories.push(repository),
                    Err(several) => several.into_iter().for_each(wrong),
                }
                continue;
            }
            match context.of_catalog(key, value) {
                Ok(server) if wanted.iter().any(|known| known.name == server.name) => {
                    wrong(format!("is there twice: it is another spelling of `{}`", server.name));
                }
                Ok(server) => wanted.push(server),
                Err(several) => several.into_iter().for_each(wrong),
            }
        }
        let max = context.limits.servers_per_session_max;
        if mcp.len() > max {
            problems.push(problem_of("", format!("{} servers are wanted, and {max} are the most", mcp.len())));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        for outcome in join_all(repositories.into_iter().map(|repository| context.pinned(repository))).await {
            match outcome {
                Ok(server) if wanted.iter().any(|known| known.name == server.name) => {
                    problems.push(problem_of(server.name.as_str(), "is there twice".to_owned()));
                }
                Ok(server) => wanted.push(server),
                Err(problem) => problems.push(problem),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(wanted)
    }
}

fn problem_of(key: &str, problem: String) -> WantedProblem {
    WantedProblem { name: key.escape_debug().take(200).collect(), problem }
}

fn object(value: &Value) -> Result<Map<String, Value>, Vec<String>> {
    match value {
        Value::Null => Ok(Map::new()),
        Value::Object(object) => Ok(object.clone()),
        _ => Err(vec!["takes an object with its config and secrets, which may be empty".to_owned()]),
    }
}

impl Context {
    fn of_catalog(&self, key: &str, value: &Value) -> Result<WantedServer, Vec<String>> {
        let snapshot = self.catalog.snapshot();
        let name = spelling::server(&snapshot, key).map_err(|problem| vec![problem])?;
        if let Some(refusal) = snapshot.refusal(&name) {
            return Err(vec![format!("cannot be added: {refusal}")]);
        }
        let entry = snapshot.entry(&name).ok_or_else(|| vec!["cannot be read".to_owned()])?;
        let config = spelling::config(entry, &object(value)?)?;
        if entry.shared && !config.is_empty() {
            return Err(vec!["is shared by all sessions: its config is the operator's".to_owned()]);
        }
        let mut whole = self.server_config.get(&name).cloned().unwrap_or_default();
        whole.extend(split(entry, config.clone()).config);
        let problems = entry.config.as_ref().map(|schema| schema.problems(&Value::Object(whole))).unwrap_or_default();
        if !problems.is_empty() {
            return Err(problems.into_iter().map(|problem| format!("config: {problem}")).collect());
        }
        Ok(WantedServer { name, config, own: None })
    }

    fn repository(&self, key: &str, value: &Value) -> Result<Repository, Vec<String>> {
        let (name, url) = git::repository(key).map_err(|problem| vec![problem])?;
        if self.catalog.entry(&name).is_some() {
            return Err(vec![format!("the catalog has a server `{name}` already: name that")]);
        }
        let server: GitServer = serde_json::from_value(Value::Object(object(value)?))
            .map_err(|error| vec![format!("takes `runCmd`, and if need be `installCmd`, `ref` and `envs`: {error}")])?;
        let problems = server.problems();
        if !problems.is_empty() {
            return Err(problems);
        }
        // As it will be read again, but for the commit, which is not asked for what is not allowed.
        let entry = server.entry(&name, &url, "HEAD").to_string();
        let entry = file::stored("session", name.as_str(), &entry).map_err(|problem| vec![problem])?;
        if let Some(refusal) = self.refusal(&entry) {
            return Err(vec![format!("cannot be added: {refusal}")]);
        }
        Ok(Repository { key: key.to_owned(), name, url, server })
    }

    async fn pinned(&self, repository: Repository) -> Result<WantedServer, WantedProblem> {
        let Repository { key, name, url, server } = repository;
        let resolved = self.supervisor.resolve(url.as_str(), server.reference.as_deref()).await;
        let commit = resolved.map_err(|error| problem_of(&key, error.to_string()))?;
        let entry = server.entry(&name, &url, &commit).to_string();
        let config = server.secrets(&name);
        let own = OwnServer { entry, url: url.as_str().to_owned(), commit };
        Ok(WantedServer { name, config, own: Some(own) })
    }
}
