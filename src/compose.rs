//! Compose files: servers that a working folder brings along, as `gordon-mcp.yml`.
//!
//! A file is somebody else's text until a person has agreed to it, so reading one starts nothing. What comes of it is a
//! [`Definition`] for each service that can be run as it says, a [`Problem`] for everything else in it, and a hash over all
//! that a person agrees to: the file, where it is, its `.env` and `env_file`s, and the folders that it mounts. What is not
//! supported is named; what would be another server without it is an error for that service.
//!
//! The format is Compose's (compose-spec), read by hand from YAML: its types in Rust stop at the first thing they do not
//! know, and here everything is to be named.

mod definition;
mod env_file;
mod environment;
mod keys;
mod reader;
mod service;
mod variables;
mod volumes;

use std::{
    collections::BTreeMap,
    fmt, fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

pub use definition::{Definition, Offer};
pub use reader::read;

use crate::catalog::foreign::displayable;

/// The file that is looked for in a working folder.
pub const FILE: &str = "gordon-mcp.yml";

/// An offer that is larger is not made.
pub const OFFER_BYTES_MAX: usize = 4 << 20;

/// No file that is read here is larger.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Variables of the person who starts the broker.
pub type Environment = BTreeMap<String, String>;

/// The variables of this process that are text.
#[must_use]
pub fn environment() -> Environment {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// A Compose file that was read.
#[derive(Debug)]
pub struct ComposeFile {
    /// With links followed.
    pub path: PathBuf,
    /// Of everything that a person agrees to.
    pub hash: String,
    pub definitions: Vec<Definition>,
    pub problems: Vec<Problem>,
}

impl ComposeFile {
    /// What a broker is given of it.
    #[must_use]
    pub fn offer(self, agreed: bool) -> Offer {
        let file = self.path.display().to_string();
        Offer { file, hash: self.hash, agreed, definitions: self.definitions }
    }

    /// Whether a service cannot be run as the file says.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.problems.iter().any(|problem| problem.severity == Severity::Error)
    }
}

/// Something in a Compose file that is not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where, as in `services.fs.ports`.
    pub at: String,
    pub line: Option<u64>,
    pub message: String,
    pub severity: Severity,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The service would be another one without it, and is left out.
    Error,
    /// The service is run without it.
    Warning,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.severity == Severity::Error { "error" } else { "warning" };
        let line = self.line.map(|line| format!("line {line}: ")).unwrap_or_default();
        write!(formatter, "{kind}: {line}{}: {}", self.at, self.message)
    }
}

/// A Compose file cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum ComposeError {
    #[error("could not read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} is not a file")]
    NoFile { path: PathBuf },
    #[error("the path {shown} is not as it looks: it has characters that do not show")]
    Unshowable {
        /// What shows of it.
        shown: String,
    },
    #[error("{path} is larger than {FILE_BYTES_MAX} bytes")]
    TooLarge { path: PathBuf },
    #[error("{path} is not a Compose file: {problem}")]
    Parse { path: PathBuf, problem: String },
}

/// Whether a path is text that shows whole. One that does not can hide what a person is about to agree to: an escape
/// sequence in it moves a terminal's cursor.
fn is_showable(path: &Path) -> bool {
    path.to_str().is_some_and(|text| displayable(text, usize::MAX) == text)
}

/// The bytes of a regular file of a reasonable size: a pipe or a device would never end.
fn bytes_of(path: &Path) -> Result<Vec<u8>, ComposeError> {
    let wrong = |source| ComposeError::Read { path: path.to_owned(), source };
    if !fs::metadata(path).map_err(wrong)?.is_file() {
        return Err(ComposeError::NoFile { path: path.to_owned() });
    }
    let mut bytes = Vec::new();
    fs::File::open(path).map_err(wrong)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(wrong)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(ComposeError::TooLarge { path: path.to_owned() });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
