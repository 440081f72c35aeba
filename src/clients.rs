//! Client programs: where each keeps its MCP servers, and how the broker is written down there.
//!
//! [`known`] is the table of them, with where each fact is documented; [`entry`] says what the broker's entry looks like in
//! each; [`edit`] changes a text by that entry alone; [`mod@file`] changes a file so that it is always whole. Nothing here
//! talks to a broker or prints.

pub mod edit;
pub mod entry;
pub mod file;
pub mod known;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

pub use edit::{EditError, Format, Key, Piece};
pub use entry::{TOKEN, TokenFrom, Way};
pub use file::FileError;
pub use known::{Client, Os, Surroundings};

/// What the broker is called in a client's file.
pub const NAME: &str = "mcp-broker";

/// The environment variable that clients which read one get the token from.
pub const TOKEN_VARIABLE: &str = "MCP_BROKER_TOKEN";

/// For which folders an entry counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Level {
    /// For everything the user does.
    User,
    /// In this folder.
    Project(PathBuf),
}

/// A client's file cannot be used as is asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("{client} has no file for a single project: leave --project out")]
    NoProject { client: &'static str },
    #[error("{client} takes no address in its file, only a program to start: leave --http out")]
    NoHttp { client: &'static str },
    #[error(
        "the token would be in {}, and a project's files are often shared: with --token-in-file it is written there all the same",
        path.display()
    )]
    SharedToken { path: PathBuf },
    #[error(
        "`{NAME}` in {} is not an entry that starts or reaches mcp-broker: with --force it is taken for ours",
        path.display()
    )]
    Foreign { path: PathBuf },
    #[error(
        "{} is where Continue has its config, and config.yaml beside it would take its place: move to config.yaml first",
        path.display()
    )]
    OldConfig { path: PathBuf },
    #[error("{} was left as it is: {source}", path.display())]
    Edit { path: PathBuf, source: EditError },
    #[error(transparent)]
    File(#[from] FileError),
}

/// What a client's file says of the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// There is no file, or no entry in it.
    Absent,
    /// The entry is what `connect` would write now.
    Connected,
    /// The entry is ours, and leads to another program, address or data folder.
    Stale,
    /// The entry has our name and is somebody else's.
    Foreign,
    /// The file cannot be read or understood.
    Unreadable(String),
}

/// One client's file at one level.
#[derive(Debug, Clone)]
pub struct Config {
    pub client: Client,
    pub level: Level,
    pub path: PathBuf,
}

/// What a change makes of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub before: Option<String>,
    /// Nothing where the file goes.
    pub after: Option<String>,
    /// Whether a copy of what is there is to be kept. A copy never holds an entry that is ours: that may hold a token.
    pub keep: bool,
    /// The copy is put back, and no longer needed.
    pub restored: bool,
}

impl Outcome {
    #[must_use]
    pub fn changes(&self) -> bool {
        self.before != self.after
    }
}

impl Config {
    /// The file of a client at a level.
    ///
    /// # Errors
    ///
    /// When the client has none there.
    pub fn of(client: Client, level: Level, around: &Surroundings) -> Result<Self, ClientError> {
        let path = match &level {
            Level::User => client.user_file(around),
            Level::Project(folder) => {
                client.project_file(folder).ok_or(ClientError::NoProject { client: client.title() })?
            }
        };
        Ok(Self { client, level, path })
    }

    /// What `connect` makes of a text.
    ///
    /// # Errors
    ///
    /// When the client cannot be reached in this way, or the text cannot be edited.
    pub fn connected(&self, before: Option<&str>, way: &Way, force: bool) -> Result<Outcome, ClientError> {
        self.check(way)?;
        let pieces = self.pieces(way)?;
        let format = self.format();
        let found = self.found(before, &self.client.keys())?;
        let is_foreign = self.is_foreign(&found, force)?;
        let text = before.map_or_else(|| self.heading(), str::to_owned);
        let after = format.with(&text, &pieces).map_err(|source| self.edit_error(source))?;
        let keep = is_foreign || found.iter().all(Option::is_none);
        Ok(Outcome { before: before.map(str::to_owned), after: Some(after), keep, restored: false })
    }

    /// What `disconnect` makes of a text, given the text that was there before `connect`, if that is known.
    ///
    /// Where nothing else has changed since, that is the text from before, with the entry that was replaced by force.
    ///
    /// # Errors
    ///
    /// When the entry is not ours, or the text cannot be edited.
    pub fn disconnected(
        &self,
        before: Option<&str>,
        backup: Option<&str>,
        force: bool,
    ) -> Result<Outcome, ClientError> {
        let same = before.map(str::to_owned);
        let unchanged = Outcome { before: same.clone(), after: same, keep: false, restored: false };
        let Some(text) = before else { return Ok(unchanged) };
        let keys = self.client.keys();
        let found = self.found(before, &keys)?;
        if found.iter().all(Option::is_none) {
            return Ok(unchanged);
        }
        let is_foreign = self.is_foreign(&found, force)?;
        let there = self.there(before)?;
        let format = self.format();
        let is_ours = |file: &Value| keys.iter().any(|key| key.find(file).is_some_and(entry::is_ours));
        let leads_here = |old: &str| {
            let had_none = format.parse(old).is_ok_and(|file| !is_ours(&file));
            had_none && format.with(old, &there).is_ok_and(|with| with == text)
        };
        if let Some(backup) = backup.filter(|backup| !is_foreign && leads_here(backup)) {
            return Ok(Outcome { after: Some(backup.to_owned()), restored: true, ..unchanged });
        }
        if backup.is_none() && leads_here(&self.heading()) {
            return Ok(Outcome { after: None, keep: is_foreign, ..unchanged });
        }
        let after = format.without(text, &keys).map_err(|source| self.edit_error(source))?;
        Ok(Outcome { after: Some(after), keep: is_foreign, ..unchanged })
    }

    /// What changes, before and after, each as a file that holds nothing but the broker's entry. No text of the client's file
    /// is in it: what others keep there, comments included, may be a secret.
    ///
    /// # Errors
    ///
    /// When an entry of our name cannot be written by itself.
    pub fn shown(&self, outcome: &Outcome, way: Option<&Way>) -> Result<[String; 2], ClientError> {
        let heading = if outcome.before.is_none() { self.heading() } else { String::new() };
        let alone = |start: &str, text: Option<&str>| {
            let mut there = self.there(text)?;
            for piece in &mut there {
                piece.value = self.client.shown(&piece.value, way);
            }
            self.format().with(start, &there).map_err(|source| self.edit_error(source))
        };
        Ok([alone("", outcome.before.as_deref())?, alone(&heading, outcome.after.as_deref())?])
    }

    /// What a text says of the broker.
    #[must_use]
    pub fn state(&self, text: Option<&str>, ways: &[Way]) -> State {
        let keys = self.client.keys();
        let found = match self.found(text, &keys[..1]) {
            Ok(found) => found,
            Err(error) => return State::Unreadable(error.to_string()),
        };
        match found.first() {
            None | Some(None) => State::Absent,
            Some(Some(entry)) if !entry::is_ours(entry) => State::Foreign,
            Some(Some(_)) => {
                let text = text.unwrap_or_default();
                let is_current = |way: &Way| {
                    self.pieces(way).is_ok_and(|pieces| self.format().with(text, &pieces).is_ok_and(|new| new == text))
                };
                if ways.iter().any(is_current) { State::Connected } else { State::Stale }
            }
        }
    }

    /// Other entries that start the broker, under names of their own.
    #[must_use]
    pub fn others(&self, text: Option<&str>) -> Vec<String> {
        let keys = self.client.keys();
        let (Some(key), Some(Ok(file))) = (keys.first(), text.map(|text| self.format().parse(text))) else {
            return Vec::new();
        };
        match &file[key.container] {
            Value::Object(table) => table
                .iter()
                .filter(|(name, entry)| *name != NAME && entry.as_object().is_some_and(entry::starts_broker))
                .map(|(name, _)| name.clone())
                .collect(),
            Value::Array(items) => items
                .iter()
                .filter(|item| item["name"] != NAME && item.as_object().is_some_and(entry::starts_broker))
                .filter_map(|item| item["name"].as_str().map(str::to_owned))
                .collect(),
            _ => Vec::new(),
        }
    }

    /// Whether an entry of our name is somebody else's, which is an error if it is not to be replaced all the same.
    fn is_foreign(&self, found: &[Option<Map<String, Value>>], force: bool) -> Result<bool, ClientError> {
        let is_foreign = found.iter().flatten().any(|entry| !entry::is_ours(entry));
        if is_foreign && !force {
            return Err(ClientError::Foreign { path: self.path.clone() });
        }
        Ok(is_foreign)
    }

    fn check(&self, way: &Way) -> Result<(), ClientError> {
        let unasked = matches!(way, Way::Http { written_out: false, .. });
        let is_shared = matches!(self.level, Level::Project(_)) && self.client.token_from() == TokenFrom::ItsFile;
        if unasked && is_shared {
            return Err(ClientError::SharedToken { path: self.path.clone() });
        }
        let old = self.path.with_file_name("config.json");
        if self.client == Client::Continue && self.level == Level::User && !self.path.exists() && old.exists() {
            return Err(ClientError::OldConfig { path: old });
        }
        Ok(())
    }

    fn pieces(&self, way: &Way) -> Result<Vec<Piece>, ClientError> {
        self.client.pieces(way).ok_or(ClientError::NoHttp { client: self.client.title() })
    }

    fn found(&self, text: Option<&str>, keys: &[Piece]) -> Result<Vec<Option<Map<String, Value>>>, ClientError> {
        let file = self.format().parse(text.unwrap_or_default()).map_err(|source| self.edit_error(source))?;
        Ok(keys.iter().map(|key| key.find(&file).cloned()).collect())
    }

    /// The entries that are there.
    fn there(&self, text: Option<&str>) -> Result<Vec<Piece>, ClientError> {
        let keys = self.client.keys();
        let found = self.found(text, &keys)?;
        Ok(keys.into_iter().zip(found).filter_map(|(key, entry)| Some(Piece { value: entry?, ..key })).collect())
    }

    /// What a file that is made anew begins with.
    fn heading(&self) -> String {
        self.client.heading(matches!(self.level, Level::Project(_))).to_owned()
    }

    fn format(&self) -> Format {
        self.client.format()
    }

    fn edit_error(&self, source: EditError) -> ClientError {
        ClientError::Edit { path: self.path.clone(), source }
    }
}

/// The folder that a project's files are in: the one with `.git`, or this one.
#[must_use]
pub fn project_folder(current: &Path) -> PathBuf {
    let root = current.ancestors().find(|folder| folder.join(".git").exists());
    root.unwrap_or(current).to_path_buf()
}
