//! Profiles: servers under a name, each with its config and choice of tools, to be put into sessions.
//!
//! They are kept in the database and belong to the operator: an agent may make one from its session, and never change one,
//! since other sessions are given what is in it. No secret's value is in a profile.

pub mod document;

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::sync::{Mutex, watch};

use crate::{
    clock::SharedClock,
    features::Features,
    ids::ServerName,
    store::{Store, StoreError, sessions::Activation},
};

/// Profiles that there may be.
const PROFILES_MAX: usize = 1000;

pub const DESCRIPTION_CHARACTERS_MAX: usize = 1000;

const NAME_CHARACTERS_MAX: usize = 64;

/// A profile's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProfileName(Box<str>);

/// The text cannot name a profile.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` cannot name a profile: 1 to {NAME_CHARACTERS_MAX} of the characters a-z A-Z 0-9 . _ -, a letter or a digit first"
)]
pub struct InvalidProfileName(String);

impl ProfileName {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ProfileName {
    type Err = InvalidProfileName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let well_formed = text.len() <= NAME_CHARACTERS_MAX
            && text.starts_with(|first: char| first.is_ascii_alphanumeric())
            && text.chars().all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-'));
        if well_formed {
            Ok(Self(text.into()))
        } else {
            Err(InvalidProfileName(text.escape_debug().take(80).collect()))
        }
    }
}

impl TryFrom<String> for ProfileName {
    type Error = InvalidProfileName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ProfileName> for String {
    fn from(name: ProfileName) -> Self {
        name.0.into()
    }
}

impl fmt::Display for ProfileName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A set of servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    pub name: ProfileName,
    pub description: String,
    pub servers: Vec<ProfileServer>,
}

/// A server of a profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileServer {
    pub name: ServerName,
    pub config: Map<String, Value>,
    pub tools: Activation,
}

impl Profile {
    /// The names of its servers.
    #[must_use]
    pub fn names(&self) -> Vec<ServerName> {
        self.servers.iter().map(|server| server.name.clone()).collect()
    }

    /// As it is shown.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let server = |server: &ProfileServer| json!({"name": server.name, "config": server.config, "tools": server.tools.to_value()});
        json!({
            "name": self.name,
            "description": self.description,
            "servers": self.servers.iter().map(server).collect::<Vec<_>>(),
        })
    }
}

/// A profile cannot be had or kept.
#[derive(Debug, thiserror::Error)]
pub enum ProfilesError {
    #[error("there is no profile `{name}`{}", there_are(.known))]
    Unknown { name: String, known: Vec<String> },
    #[error(
        "a profile named `{name}` exists already: choose another name, or remove it first (`mcp-broker profile rm {name}`)"
    )]
    Taken { name: ProfileName },
    #[error("there are {PROFILES_MAX} profiles, which is the limit: remove some")]
    TooMany,
    #[error("could not read or write the profiles")]
    Store(#[from] StoreError),
}

fn there_are(known: &[String]) -> String {
    if known.is_empty() {
        " (there is none: `mcp-broker profile create` makes one)".to_owned()
    } else {
        format!(" (there are {})", known.join(", "))
    }
}

/// Every profile of the data folder.
pub struct Profiles {
    store: Store,
    clock: SharedClock,
    features: Arc<Features>,
    /// How many there are.
    count: watch::Sender<usize>,
    /// Held from looking how many there are until that is true again.
    changing: Mutex<()>,
    max: usize,
}

impl Profiles {
    /// Looks how many there are.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn open(store: Store, clock: SharedClock, features: Arc<Features>) -> Result<Self, StoreError> {
        let count = watch::Sender::new(store.profile_names().await?.len());
        Ok(Self { store, clock, features, count, changing: Mutex::default(), max: PROFILES_MAX })
    }

    /// Whether there are any.
    #[must_use]
    pub fn any(&self) -> bool {
        *self.count.borrow() > 0
    }

    /// Every profile, by name.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn list(&self) -> Result<Vec<Profile>, ProfilesError> {
        Ok(self.store.profiles().await?)
    }

    /// The profile of that name.
    ///
    /// # Errors
    ///
    /// When there is none, or the database cannot be read.
    pub async fn get(&self, name: &str) -> Result<Profile, ProfilesError> {
        let found = match name.parse::<ProfileName>() {
            Ok(name) => self.store.profile(&name).await?,
            Err(_) => None,
        };
        match found {
            Some(profile) => Ok(profile),
            None => {
                let known = self.store.profile_names().await?;
                Err(ProfilesError::Unknown { name: name.escape_debug().take(80).collect(), known })
            }
        }
    }

    /// Keeps a new profile. Of two who make one of the same name at once, one does.
    ///
    /// # Errors
    ///
    /// When there is one of that name, or too many, or it could not be committed: then nothing has changed.
    pub async fn create(&self, profile: Profile) -> Result<(), ProfilesError> {
        let _one_at_a_time = self.changing.lock().await;
        if self.store.profile_names().await?.len() >= self.max {
            return Err(ProfilesError::TooMany);
        }
        let name = profile.name.clone();
        if !self.store.insert_profile(profile, self.clock.now()).await? {
            return Err(ProfilesError::Taken { name });
        }
        self.changed().await
    }

    /// Removes a profile. Sessions keep what they were given.
    ///
    /// # Errors
    ///
    /// When there is none of that name, or it could not be committed.
    pub async fn remove(&self, name: &str) -> Result<(), ProfilesError> {
        let _one_at_a_time = self.changing.lock().await;
        let profile = self.get(name).await?;
        self.store.delete_profile(&profile.name).await?;
        self.changed().await
    }

    /// Tools that are of use only where there are profiles appear with the first and go with the last.
    async fn changed(&self) -> Result<(), ProfilesError> {
        let before = self.any();
        self.count.send_replace(self.store.profile_names().await?.len());
        if before != self.any() {
            self.features.announce();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::SystemClock, lifecycle::Tasks, store::Durability};

    #[tokio::test]
    async fn there_are_no_more_than_the_limit_however_many_are_made_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let (tasks, _crashes) = Tasks::new();
        let store = Store::open(folder.path(), Durability::default(), &tasks).await.unwrap();
        let clock: SharedClock = Arc::new(SystemClock);
        let features = Arc::new(Features::load(&Default::default(), store.clone(), clock.clone()).await.unwrap());
        let profiles = Profiles { max: 3, ..Profiles::open(store, clock, features).await.unwrap() };
        let profile = |at: usize| Profile {
            name: format!("p{at}").parse().unwrap(),
            description: String::new(),
            servers: Vec::new(),
        };
        let made = futures_util::future::join_all((0..8).map(|at| profiles.create(profile(at)))).await;
        assert_eq!(made.iter().filter(|made| made.is_ok()).count(), 3);
        assert!(made.iter().all(|made| matches!(made, Ok(()) | Err(ProfilesError::TooMany))));
        let names: Vec<String> = profiles.list().await.unwrap().iter().map(|one| one.name.to_string()).collect();
        let gone = futures_util::future::join_all(names.iter().map(|name| profiles.remove(name))).await;
        assert!(gone.iter().all(Result::is_ok) && !profiles.any());
    }

    #[test]
    fn names_of_profiles_are_plain() {
        for text in ["work", "a", "0.1_x-Y", &"x".repeat(64)] {
            assert!(text.parse::<ProfileName>().is_ok(), "{text}");
        }
        for text in ["", "-x", ".x", "a b", "a/b", "ä", "a\n", &"x".repeat(65), "../x"] {
            assert!(text.parse::<ProfileName>().is_err(), "{text:?}");
        }
    }
}
