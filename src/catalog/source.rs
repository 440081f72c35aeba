//! What is kept about a source of the catalog, besides its entries.

use std::{io, path::Path};

use serde::{Deserialize, Serialize};

use super::{fetch::Marks, pack::Trust};

/// Problems that are kept of one update; more are counted only.
pub const PROBLEMS_KEPT: usize = 20;

const PROBLEM_CHARACTERS_MAX: usize = 1000;

/// Where entries come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// What it goes by, which is also its file's name.
    pub name: String,
    pub kind: SourceKind,
    /// An address or a path.
    pub location: String,
    /// Whether its entries may replace built-in ones.
    #[serde(default)]
    pub replace: bool,
    #[serde(default)]
    pub marks: Marks,
    /// The newest change of a registry that is here.
    #[serde(default)]
    pub newest: Option<String>,
    /// When it last gave its entries.
    #[serde(default)]
    pub updated_at: Option<String>,
    /// When it was last asked.
    #[serde(default)]
    pub checked_at: Option<String>,
    #[serde(default)]
    pub entries: usize,
    #[serde(default)]
    pub problem_count: usize,
    #[serde(default)]
    pub problems: Vec<String>,
    /// Why the last update failed; its entries are those of an earlier one.
    #[serde(default)]
    pub error: Option<String>,
}

/// How a source is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    /// A document at an address.
    Url,
    /// The official registry's listing.
    Registry,
    /// A file or folder of this machine.
    Path,
    /// Entries that were copied once.
    Imported,
}

impl SourceKind {
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Url => "url",
            Self::Registry => "registry",
            Self::Path => "path",
            Self::Imported => "imported",
        }
    }
}

impl Source {
    #[must_use]
    pub fn new(name: String, kind: SourceKind, location: String, replace: bool) -> Self {
        Self {
            name,
            kind,
            location,
            replace,
            marks: Marks::default(),
            newest: None,
            updated_at: None,
            checked_at: None,
            entries: 0,
            problem_count: 0,
            problems: Vec::new(),
            error: None,
        }
    }

    /// Whether it may have changed since.
    #[must_use]
    pub fn can_be_asked(&self) -> bool {
        self.kind != SourceKind::Imported
    }

    /// Whose word it is: a file of the operator's machine is the operator's own.
    #[must_use]
    pub fn trust(&self) -> Trust {
        match self.kind {
            SourceKind::Path | SourceKind::Imported => Trust::Operator,
            SourceKind::Url | SourceKind::Registry if self.replace => Trust::Operator,
            SourceKind::Url | SourceKind::Registry => Trust::ThirdParty,
        }
    }
}

/// Whether `name` can be a source's: it is a file's name too.
#[must_use]
pub fn is_source_name(name: &str) -> bool {
    let letters = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    letters && (1..=40).contains(&name.len()) && !name.starts_with('-') && name != super::BUILT_IN_SOURCE
}

/// `location` as it may be noted: without what may be a password or a token.
#[must_use]
pub fn shown(location: &str) -> String {
    let shown = match reqwest::Url::parse(location) {
        Ok(url) => {
            let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
            format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
        }
        Err(_) => match location.split_once("://") {
            // Meant as an address.
            Some((scheme, rest)) => {
                let bare = rest.split(['?', '#']).next().unwrap_or_default();
                format!("{scheme}://{}", bare.rsplit('@').next().unwrap_or_default())
            }
            None => location.to_owned(),
        },
    };
    shown.escape_debug().take(200).collect()
}

/// What went wrong, as it may be noted: whoever it is about has a say in it, so what is longer is cut.
#[must_use]
pub fn noted(problem: &str) -> String {
    problem.chars().take(PROBLEM_CHARACTERS_MAX).collect()
}

/// A name for what is at `location`.
#[must_use]
pub fn name_for(location: &str) -> String {
    let bare = location.split_once("://").map_or(location, |(_, rest)| rest);
    let bare = if bare == location { bare.trim_end_matches('/').rsplit('/').next().unwrap_or(bare) } else { bare };
    let stem = bare.split(['?', '#']).next().unwrap_or(bare);
    let dashed: String = stem
        .to_lowercase()
        .chars()
        .map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' })
        .take(40)
        .collect();
    let words: Vec<&str> = dashed.split('-').filter(|word| !word.is_empty()).collect();
    let name = words.join("-");
    if is_source_name(&name) { name } else { "source".to_owned() }
}

/// Reads what is kept. A file that is not whole is put aside, so that the broker starts with what else there is.
///
/// # Errors
///
/// When it is there and cannot be read.
pub fn read(path: &Path) -> io::Result<Vec<Source>> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    match serde_json::from_slice(&text) {
        Ok(sources) => Ok(sources),
        Err(error) => {
            tracing::error!(%error, path = %path.display(), "the list of catalog sources is not readable and was put aside");
            std::fs::rename(path, path.with_extension("unreadable"))?;
            Ok(Vec::new())
        }
    }
}

/// Keeps the list, whole or not at all.
///
/// # Errors
///
/// When the disk does not take it.
pub fn write(path: &Path, sources: &[Source]) -> io::Result<()> {
    let aside = path.with_extension("new");
    let text = serde_json::to_vec_pretty(sources).map_err(io::Error::other)?;
    std::fs::write(&aside, text)?;
    std::fs::File::open(&aside)?.sync_all()?;
    std::fs::rename(&aside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_a_name_that_is_a_files_too() {
        assert_eq!(name_for("https://example.com/v3/catalog.yaml"), "example-com-v3-catalog-yaml");
        assert_eq!(name_for("/srv/My Team.yaml"), "my-team-yaml");
        for bad in ["", "../x", "A", "-a", "built-in", "a b"] {
            assert!(!is_source_name(bad), "{bad}");
        }
    }

    #[test]
    fn what_is_noted_of_an_address_has_no_password() {
        assert_eq!(shown("https://me:pw@example.com:1/c.yaml?key=k#x"), "https://example.com:1/c.yaml");
        assert_eq!(shown("https://me:pw@example.com:x/c.yaml?key=k"), "https://example.com:x/c.yaml");
        assert_eq!(shown("/srv/c.yaml"), "/srv/c.yaml");
    }

    #[test]
    fn a_list_that_is_not_whole_is_put_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sources.json");
        write(&path, &[Source::new("a".into(), SourceKind::Url, "https://example.com/".into(), false)]).unwrap();
        assert_eq!(read(&path).unwrap().len(), 1);
        std::fs::write(&path, "[{").unwrap();
        assert!(read(&path).unwrap().is_empty());
        assert!(folder.path().join("sources.unreadable").exists());
    }
}
