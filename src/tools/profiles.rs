//! `mcp-create-profile` and `mcp-activate-profile`: a session's servers under a name, and back into a session.
//!
//! Activating is all or nothing. Everything is checked first, and every problem is told, not the first one; then all servers
//! are started at once, and only when it is known what each offers are they committed, in one transaction.

mod check;

use std::{collections::BTreeSet, sync::Arc};

use futures_util::future::join_all;
use rmcp::model::{CallToolResult, ContentBlock, JsonObject};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    Context, Reply, Tools,
    add::{Started, attach_when_ready, start},
    failure::Failure,
    needs::{GivenConfig, split},
};
use crate::{
    caller::Caller,
    catalog::Entry,
    catalog::foreign::displayable,
    ids::{ServerName, SessionId},
    profiles::{DESCRIPTION_CHARACTERS_MAX, Profile, ProfileName, ProfileServer, ProfilesError},
    session::{NewServer, Session},
    store::sessions::Activation,
    supervisor::upstream::chain,
};
pub(super) use check::ProfileProblem;

#[derive(Deserialize)]
struct CreateArguments {
    name: String,
    #[serde(default)]
    description: Option<String>,
}

#[derive(Deserialize)]
struct ActivateArguments {
    name: String,
}

impl From<ProfilesError> for Failure {
    fn from(error: ProfilesError) -> Self {
        match error {
            ProfilesError::Store(error) => error.into(),
            other => Self::refused(other.to_string()),
        }
    }
}

/// `mcp-create-profile`.
pub(super) async fn create(
    context: &Arc<Context>,
    session: &Arc<Session>,
    arguments: JsonObject,
) -> Result<Reply, Failure> {
    let arguments: CreateArguments = serde_json::from_value(Value::Object(arguments))
        .map_err(|error| Failure::said(format!("mcp-create-profile takes `name` and `description` (text): {error}")))?;
    let name: ProfileName = arguments.name.trim().parse().map_err(|error| Failure::said(format!("{error}")))?;
    let description = displayable(&arguments.description.unwrap_or_default(), DESCRIPTION_CHARACTERS_MAX);
    let (servers, left_out) = context.worth_keeping(session);
    if servers.is_empty() {
        let why = if left_out.is_empty() {
            "no server is on in this session but the operator's: add some with mcp-add".to_owned()
        } else {
            left_out.join("; ")
        };
        return Err(Failure::refused(format!("The profile `{name}` was not made: {why}.")));
    }
    let profile = Profile { name, description, servers };
    let structured = json!({
        "profile": profile.name,
        "servers": profile.servers.iter().map(|server| &server.name).collect::<Vec<_>>(),
        "left_out": left_out,
    });
    let names: Vec<&str> = profile.servers.iter().map(|server| server.name.as_str()).collect();
    let mut text = format!("The profile `{}` has the servers {}.", profile.name, names.join(", "));
    for line in &left_out {
        text.push_str(&format!("\nNot in it: {line}."));
    }
    context.profiles.create(profile).await?;
    let mut result = CallToolResult::success(vec![ContentBlock::text(text)]);
    result.structured_content = Some(structured);
    Ok(Reply::CallToolResult(result))
}

impl Context {
    /// What of a session belongs into a profile, and what does not, in words.
    fn worth_keeping(&self, session: &Session) -> (Vec<ProfileServer>, Vec<String>) {
        let (mut servers, mut left_out) = (Vec::new(), Vec::new());
        for added in session.servers().into_iter().filter(|added| !added.fixed) {
            let Some(entry) = self.catalog.entry(&added.server).filter(|_| session.own_entry(&added.server).is_none())
            else {
                left_out.push(format!("`{}`, which is this session's alone", added.server));
                continue;
            };
            let GivenConfig { mut config, .. } = split(&entry, session.config(&added.server));
            for key in check::secretive(&config) {
                config.remove(&key);
                left_out.push(format!("`{key}` of `{}`, which looks like a secret", added.server));
            }
            servers.push(ProfileServer { name: added.server, config, tools: added.activate });
        }
        (servers, left_out)
    }
}

/// `mcp-activate-profile`.
pub(super) async fn activate(
    context: &Arc<Context>,
    session: &Arc<Session>,
    caller: &Caller,
    arguments: JsonObject,
    handle: Option<SessionId>,
) -> Result<Reply, Failure> {
    let arguments: ActivateArguments = serde_json::from_value(Value::Object(arguments))
        .map_err(|error| Failure::said(format!("mcp-activate-profile takes `name` (text): {error}")))?;
    let profile = context.profiles.get(arguments.name.trim()).await?;
    let rows = context.put_profile(session, caller, &profile).await?;
    Ok(Reply::CallToolResult(answer(context, session, &profile, &rows, handle)))
}

/// A server of a profile that is not on yet, and can be.
struct Planned {
    entry: Arc<Entry>,
    server: ProfileServer,
    given: Option<GivenConfig>,
    /// The config that takes effect.
    config: Map<String, Value>,
}

impl Context {
    /// Puts a profile's servers into a session, all of them or none. Gives back each one's state.
    async fn put_profile(
        self: &Arc<Self>,
        session: &Arc<Session>,
        caller: &Caller,
        profile: &Profile,
    ) -> Result<Vec<(String, &'static str)>, Failure> {
        let _one_change_at_a_time = session.hold_servers(profile.names()).await;
        let problems = self.session_problems(session, &profile.servers);
        if !problems.is_empty() {
            return Err(not_activated(profile, &problems));
        }
        let planned = self.planned(session, &profile.servers);
        let starts = planned
            .iter()
            .map(|planned| start(self, session, caller, &planned.entry, &planned.server.tools, &planned.config));
        let started = join_all(starts).await;
        let failures: Vec<ProfileProblem> = planned
            .iter()
            .zip(&started)
            .filter_map(|(planned, started)| {
                let failure = started.as_ref().err()?;
                Some(ProfileProblem::of(&planned.server.name, failure.text()))
            })
            .collect();
        let started: Vec<(&Planned, Started)> =
            planned.iter().zip(started).filter_map(|(planned, started)| Some((planned, started.ok()?))).collect();
        if !failures.is_empty() {
            self.take_back(session, &started);
            return Err(not_activated(profile, &failures));
        }
        let servers = started.iter().map(|(planned, started)| NewServer {
            name: planned.server.name.clone(),
            activate: planned.server.tools.clone(),
            config: planned.given.as_ref().map(|given| given.config.clone()),
            surface: Some(started.surface.clone()),
        });
        if let Err(error) = self.sessions.put_servers(session, servers.collect()).await {
            self.take_back(session, &started);
            return Err(error.into());
        }
        for (planned, _) in &started {
            attach_when_ready(self, session, &planned.entry, caller);
        }
        let state = |server: &ProfileServer| {
            let new = started.iter().find(|(planned, _)| planned.server.name == server.name);
            match new {
                None => "on already",
                Some((_, started)) if started.starting => "starting",
                Some(_) => "ready",
            }
        };
        Ok(profile.servers.iter().map(|server| (server.name.to_string(), state(server))).collect())
    }

    fn take_back(&self, session: &Session, started: &[(&Planned, Started)]) {
        for (planned, started) in started {
            started.take_back(self, session, &planned.entry);
        }
    }

    /// What is to be done for the servers that are not on yet.
    fn planned(&self, session: &Session, servers: &[ProfileServer]) -> Vec<Planned> {
        let new = servers.iter().filter(|server| session.server(&server.name).is_none());
        new.filter_map(|server| {
            let entry = self.entry(session, &server.name)?;
            let given = (!server.config.is_empty()).then(|| split(&entry, server.config.clone()));
            let config = match &given {
                Some(given) => super::add::over(self, &entry, given),
                None => self.config_of(session, &entry),
            };
            Some(Planned { entry, server: server.clone(), given, config })
        })
        .collect()
    }
}

fn not_activated(profile: &Profile, problems: &[ProfileProblem]) -> Failure {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let text =
        format!("The profile `{}` was not activated, and nothing was changed:\n{}", profile.name, lines.join("\n"));
    let structured = json!({"profile": profile.name, "state": "not activated", "problems": problems});
    Failure::said_with(text, structured)
}

fn answer(
    context: &Context,
    session: &Session,
    profile: &Profile,
    rows: &[(String, &'static str)],
    handle: Option<SessionId>,
) -> CallToolResult {
    let menu = session.menu(context.with_prefixes());
    let mut text = format!("The profile `{}` is active.", profile.name);
    let mut servers = Vec::new();
    for (name, state) in rows {
        let of_server = menu.tools.iter().filter(|tool| tool.server.as_str() == name);
        let tools: Vec<&str> = of_server.map(|tool| tool.exposed.as_str()).collect();
        text.push_str(&format!("\n- {name} ({state}): {}", tools.join(", ")));
        servers.push(json!({"name": name, "state": state, "tools": tools}));
    }
    let mut structured = json!({"profile": profile.name, "state": "active", "servers": servers});
    match handle {
        Some(handle) => {
            text.push_str(&format!(
                "\nCall the tools with mcp-exec, and give `session`: \"{handle}\" with every call of the broker's own tools."
            ));
            structured["session"] = json!(handle);
        }
        None => text.push_str("\nIf your client does not list the tools, call them with mcp-exec."),
    }
    let mut result = CallToolResult::success(vec![ContentBlock::text(text)]);
    result.structured_content = Some(structured);
    result
}

impl Tools {
    /// Puts a profile's servers into a session that has just begun, without starting them: they are started as soon as a
    /// client is there, so that it need not wait to be connected.
    ///
    /// # Errors
    ///
    /// Every problem there is, in words. Then nothing has changed.
    pub async fn begin_with_profile(&self, session: &Arc<Session>, name: &str) -> Result<(), String> {
        let profile = self.context.profiles.get(name).await.map_err(|error| chain(&error))?;
        let problems = self.begin_with(session, &profile.servers).await?;
        if problems.is_empty() { Ok(()) } else { Err(not_activated(&profile, &problems).text().to_owned()) }
    }

    /// The same with servers by their names.
    ///
    /// # Errors
    ///
    /// Every problem there is, in words. Then nothing has changed.
    pub async fn begin_with_servers(&self, session: &Arc<Session>, names: &[ServerName]) -> Result<(), String> {
        let names: BTreeSet<&ServerName> = names.iter().collect();
        let server =
            |name: &ServerName| ProfileServer { name: name.clone(), config: Map::new(), tools: Activation::All };
        let servers: Vec<ProfileServer> = names.into_iter().map(server).collect();
        let problems = self.begin_with(session, &servers).await?;
        if problems.is_empty() {
            return Ok(());
        }
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        Err(format!("The session was not given the servers it is to begin with:\n{}", lines.join("\n")))
    }

    /// Gives back the problems there are. Then nothing has changed.
    async fn begin_with(
        &self,
        session: &Arc<Session>,
        servers: &[ProfileServer],
    ) -> Result<Vec<ProfileProblem>, String> {
        let context = &self.context;
        let names = servers.iter().map(|server| server.name.clone());
        let _one_change_at_a_time = session.hold_servers(names.collect()).await;
        let problems = context.session_problems(session, servers);
        if problems.is_empty() {
            let servers = context.planned(session, servers).into_iter().map(|planned| NewServer {
                name: planned.server.name,
                activate: planned.server.tools,
                config: planned.given.map(|given| given.config),
                surface: None,
            });
            context.sessions.put_servers(session, servers.collect()).await.map_err(|error| chain(&error))?;
        }
        Ok(problems)
    }
}
