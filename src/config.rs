//! Settings: read once, validated whole, then passed down as values.
//!
//! They come from one YAML file (`--config`, or `config.yaml` in the data folder if it is there) and from the command
//! line, which wins. A file is rejected with every problem it has, not with the first one.

pub mod code_mode;
pub mod containers;
pub mod limits;

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{audit::Retention, catalog::CatalogSettings, ids::ServerName, store::Durability};
pub use code_mode::CodeModeSettings;
pub use containers::{ContainerBounds, ContainerSettings, Pull, SignedImages};
pub use limits::Limits;

/// Where the broker listens unless told otherwise.
pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8811));

/// Everything an operator can set.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where everything that lasts is kept.
    pub data_folder: PathBuf,
    /// Catalog files besides the built-in one; a later file's entry replaces an earlier one's.
    pub catalogs: Vec<PathBuf>,
    /// What agents may add.
    pub catalog: CatalogSettings,
    /// Servers that every session has, whether it adds any or not.
    pub servers: Vec<ServerName>,
    /// Profiles whose servers every session has.
    pub profiles: Vec<String>,
    /// A Compose file whose services every session has, which the operator has named.
    pub compose: Option<PathBuf>,
    /// Config that servers have in every session; what a session sets comes over it.
    pub server_config: BTreeMap<ServerName, Map<String, Value>>,
    /// Features whose state the operator has decided.
    pub features: BTreeMap<String, FeatureSetting>,
    /// Names of the broker's own environment variables that servers run as processes get to see.
    pub pass_environment: Vec<String>,
    pub containers: ContainerSettings,
    pub code_mode: CodeModeSettings,
    pub http: HttpSettings,
    pub audit: AuditSettings,
    pub limits: Limits,
}

/// How the log is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditSettings {
    /// `process` (a commit survives the end of the process) or `power` (and a power failure).
    pub durability: Durability,
    pub retention: Retention,
}

/// How the HTTP listener behaves.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    pub listen: SocketAddr,
    /// `Host` header values that are answered besides loopback ones (`name` or `name:port`).
    pub allowed_hosts: Vec<String>,
    /// Browser origins that may connect besides those of loopback addresses (`https://host:port`, `:*` for any port).
    pub allowed_origins: Vec<String>,
    /// Whether requests need a bearer token. May be off on loopback only.
    pub authenticate: bool,
}

/// An operator's word on a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureSetting {
    pub enabled: bool,
    /// Whether `feature enable` and `feature disable` are refused.
    #[serde(default)]
    pub locked: bool,
}

/// The settings file as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SettingsFile {
    listen: Option<SocketAddr>,
    allowed_hosts: Vec<String>,
    allowed_origins: Vec<String>,
    catalogs: Vec<PathBuf>,
    catalog: CatalogSettings,
    servers: Vec<ServerName>,
    profiles: Vec<String>,
    server_config: BTreeMap<ServerName, Map<String, Value>>,
    features: BTreeMap<String, FeatureSetting>,
    pass_environment: Vec<String>,
    containers: ContainerSettings,
    code_mode: CodeModeSettings,
    audit: AuditSettings,
    limits: Limits,
}

/// What the command line adds to the file.
#[derive(Debug, Default, Clone)]
pub struct Overrides {
    pub config_file: Option<PathBuf>,
    pub data_folder: Option<PathBuf>,
    pub listen: Option<SocketAddr>,
    pub catalogs: Vec<PathBuf>,
    pub servers: Vec<ServerName>,
    pub profiles: Vec<String>,
    pub compose: Option<PathBuf>,
    pub allowed_hosts: Vec<String>,
    pub allowed_origins: Vec<String>,
    pub no_auth: bool,
    pub pull: Option<Pull>,
}

/// The settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("could not read the settings file {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the settings file {path} is not valid: {problem}")]
    Parse { path: PathBuf, problem: String },
    #[error("settings: {}", .0.join("; "))]
    Invalid(Vec<String>),
    #[error("no home folder is known: name the data folder with --data-dir or MCP_BROKER_DATA_DIR")]
    NoHome,
}

impl Settings {
    /// Reads the file, lays the command line over it, and checks the whole.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or parsed, or when any value is out of its range.
    pub fn load(overrides: Overrides) -> Result<Self, SettingsError> {
        let data_folder = match overrides.data_folder.clone() {
            Some(folder) => folder,
            None => default_data_folder().ok_or(SettingsError::NoHome)?,
        };
        let file = SettingsFile::read(overrides.config_file.as_deref(), &data_folder)?;
        let settings = Self::merge(data_folder, file, overrides);
        let problems = settings.problems();
        if problems.is_empty() { Ok(settings) } else { Err(SettingsError::Invalid(problems)) }
    }

    fn merge(data_folder: PathBuf, file: SettingsFile, overrides: Overrides) -> Self {
        Self {
            data_folder,
            catalogs: joined(file.catalogs, overrides.catalogs),
            catalog: file.catalog,
            servers: joined(file.servers, overrides.servers),
            profiles: joined(file.profiles, overrides.profiles),
            compose: overrides.compose,
            server_config: file.server_config,
            features: file.features,
            pass_environment: file.pass_environment,
            containers: ContainerSettings { pull: overrides.pull.unwrap_or(file.containers.pull), ..file.containers },
            code_mode: file.code_mode,
            http: HttpSettings {
                listen: overrides.listen.or(file.listen).unwrap_or(DEFAULT_LISTEN),
                allowed_hosts: joined(file.allowed_hosts, overrides.allowed_hosts),
                allowed_origins: joined(file.allowed_origins, overrides.allowed_origins),
                authenticate: !overrides.no_auth,
            },
            audit: file.audit,
            limits: file.limits,
        }
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = self.limits.problems();
        problems.extend(self.containers.problems());
        problems.extend(self.code_mode.problems());
        if !self.http.authenticate && !self.http.listen.ip().is_loopback() {
            problems.push(format!(
                "--no-auth is for loopback addresses only, and {} is not one: leave the token on, or listen on 127.0.0.1",
                self.http.listen
            ));
        }
        for origin in &self.http.allowed_origins {
            if !origin.contains("://") {
                problems.push(format!("allowed origin `{origin}` needs a scheme, as in `https://{origin}:*`"));
            }
        }
        problems
    }
}

impl SettingsFile {
    fn read(named: Option<&Path>, data_folder: &Path) -> Result<Self, SettingsError> {
        let path = named.map_or_else(|| data_folder.join("config.yaml"), Path::to_path_buf);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            // A data folder that is not a folder is reported by who takes it.
            Err(error)
                if named.is_none()
                    && matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) =>
            {
                return Ok(Self::default());
            }
            Err(source) => return Err(SettingsError::Read { path, source }),
        };
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        serde_saphyr::from_str(&text).map_err(|error| SettingsError::Parse { path, problem: error.to_string() })
    }
}

fn joined<T>(mut first: Vec<T>, second: Vec<T>) -> Vec<T> {
    first.extend(second);
    first
}

/// `$XDG_DATA_HOME/mcp-broker`, or `~/.local/share/mcp-broker`.
fn default_data_folder() -> Option<PathBuf> {
    let named = |variable: &str| std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    named("XDG_DATA_HOME")
        .filter(|path| path.is_absolute())
        .or_else(|| named("HOME").map(|home| home.join(".local/share")))
        .map(|folder| folder.join("mcp-broker"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(yaml: &str, overrides: Overrides) -> Result<Settings, SettingsError> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.yaml"), yaml).unwrap();
        Settings::load(Overrides { data_folder: Some(folder.path().to_path_buf()), ..overrides })
    }

    #[test]
    fn without_a_file_everything_has_a_default() {
        let folder = tempfile::tempdir().unwrap();
        let overrides = Overrides { data_folder: Some(folder.path().to_path_buf()), ..Default::default() };
        let settings = Settings::load(overrides).unwrap();
        assert_eq!(settings.http.listen, DEFAULT_LISTEN);
        assert!(settings.http.authenticate);
    }

    #[test]
    fn the_command_line_wins() {
        let listen = "127.0.0.1:9".parse().unwrap();
        let settings =
            load("listen: 127.0.0.1:1\nservers: [time]\n", Overrides { listen: Some(listen), ..Default::default() })
                .unwrap();
        assert_eq!(settings.http.listen, listen);
        assert_eq!(settings.servers.len(), 1);
    }

    #[test]
    fn an_unknown_setting_is_named() {
        let error = load("lisen: 127.0.0.1:1\n", Overrides::default()).unwrap_err();
        assert!(error.to_string().contains("lisen"), "{error}");
    }

    #[test]
    fn every_problem_is_reported() {
        let yaml = "listen: 0.0.0.0:1\nallowed_origins: [example.com]\nlimits: {sessions_max: 0}\n";
        let error = load(yaml, Overrides { no_auth: true, ..Default::default() }).unwrap_err().to_string();
        for part in ["--no-auth", "example.com", "sessions_max"] {
            assert!(error.contains(part), "{error}");
        }
    }
}
