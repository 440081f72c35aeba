//! What every session has: the servers that the operator names, those of profiles, and the services of a Compose file.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::OpenError;
use crate::{
    compose::{self, Definition},
    config::Settings,
    ids::ServerName,
    profiles::{ProfileServer, Profiles},
    secrets::Secrets,
    session::FixedServer,
    store::sessions::Activation,
};

/// The servers of every session.
pub(super) struct Everybody {
    pub(super) servers: Vec<FixedServer>,
    /// Those that only profiles name, which are checked when everything is there to check them with.
    pub(super) of_profiles: Vec<ProfileServer>,
    /// Servers of profiles that are named elsewhere already, whose config comes beside the one they have.
    pub(super) more_of_profiles: Vec<ProfileServer>,
    pub(super) config: BTreeMap<ServerName, Map<String, Value>>,
}

impl Everybody {
    /// Puts them together. What the settings say of a server comes over what a profile says, and a profile's over that of
    /// one that is named after it.
    ///
    /// # Errors
    ///
    /// When a profile does not exist.
    pub(super) async fn of(
        settings: &Settings,
        compose: &[Definition],
        profiles: &Profiles,
    ) -> Result<Self, OpenError> {
        let (servers, of_profiles, more_of_profiles) = (Vec::new(), Vec::new(), Vec::new());
        let mut everybody = Self { servers, of_profiles, more_of_profiles, config: settings.server_config.clone() };
        for definition in compose {
            everybody.add(definition.name.clone(), Activation::All);
        }
        for name in &settings.servers {
            everybody.add(name.clone(), Activation::All);
        }
        for name in &settings.profiles {
            for server in profiles.get(name).await?.servers {
                let is_new = everybody.add(server.name.clone(), server.tools.clone());
                let list = if is_new { &mut everybody.of_profiles } else { &mut everybody.more_of_profiles };
                list.push(server.clone());
                let config = everybody.config.entry(server.name).or_default();
                for (key, value) in server.config {
                    config.entry(key).or_insert(value);
                }
            }
        }
        Ok(everybody)
    }

    /// Says whether it was not there yet.
    fn add(&mut self, name: ServerName, activate: Activation) -> bool {
        let is_new = self.servers.iter().all(|server| server.name != name);
        if is_new {
            self.servers.push(FixedServer { name, activate });
        }
        is_new
    }
}

/// The services of the operator's Compose file. One that is named and cannot be used as it says is an error.
pub(super) fn compose(settings: &Settings) -> Result<Vec<Definition>, OpenError> {
    let Some(path) = &settings.compose else { return Ok(Vec::new()) };
    let file = compose::read(path, &compose::environment())?;
    for problem in file.problems.iter().filter(|problem| problem.severity == compose::Severity::Warning) {
        tracing::warn!(file = %file.path.display(), %problem, "the Compose file has what is left out");
    }
    if file.has_errors() {
        return Err(OpenError::Services(file.problems.iter().map(ToString::to_string).collect()));
    }
    Ok(file.definitions)
}

/// Holds the variables whose values come from elsewhere than the file.
pub(super) fn hold_variables(secrets: &Secrets, compose: &[Definition]) {
    for definition in compose {
        for (name, value) in definition.sealed_values() {
            secrets.hold(&name, value.to_owned().into());
        }
    }
}
