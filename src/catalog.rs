//! The servers that could be added: every source merged, and searchable.
//!
//! A [`Catalog`] is a handle to one [`Snapshot`] that is replaced whole. Readers take the snapshot and keep it for as
//! long as they work with it; nobody ever sees half of an update. The index is built once per snapshot.

pub mod config_schema;
pub mod entry;
pub mod file;
pub mod template;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use arc_swap::ArcSwap;
use catalog_index::{Document, Hits, Index, IndexError, ToolDocument};

pub use entry::{Entry, Runnable};
pub use file::{CatalogFileError, Problem};

use crate::ids::ServerName;

/// The catalog that is compiled into the program.
const BUILT_IN: &str = include_str!("../catalog/builtin.yaml");

/// How far a misspelt name may be from one that is suggested instead.
const SUGGESTIONS_MAX: usize = 3;

/// All servers that could be added.
pub struct Catalog {
    current: ArcSwap<Snapshot>,
}

/// The catalog at one moment.
pub struct Snapshot {
    entries: BTreeMap<ServerName, Arc<Entry>>,
    problems: Vec<Problem>,
    index: OnceLock<Index>,
}

impl Catalog {
    /// Reads the built-in catalog and `files`, in that order; a later entry replaces an earlier one of the same name.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or is no catalog. Entries that cannot be used are left out, and reported by
    /// [`Snapshot::problems`].
    pub fn load(files: &[PathBuf]) -> Result<Self, CatalogFileError> {
        let mut snapshot = Snapshot::empty();
        snapshot.take(file::parse("built-in", BUILT_IN)?);
        for path in files {
            snapshot.take(file::read(path)?);
        }
        for problem in &snapshot.problems {
            tracing::warn!(catalog.problem = %problem, "a catalog entry has a problem");
        }
        Ok(Self { current: ArcSwap::from_pointee(snapshot) })
    }

    /// Reads one file and nothing else, not even the built-in catalog: what is measured is that file.
    ///
    /// # Errors
    ///
    /// As for [`Self::load`].
    pub fn of_file(path: &Path) -> Result<Self, CatalogFileError> {
        let mut snapshot = Snapshot::empty();
        snapshot.take(file::read(path)?);
        Ok(Self { current: ArcSwap::from_pointee(snapshot) })
    }

    /// The catalog as it is now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// The entry of that name, as it is now.
    #[must_use]
    pub fn entry(&self, name: &ServerName) -> Option<Arc<Entry>> {
        self.current.load().entries.get(name).cloned()
    }
}

impl Snapshot {
    fn empty() -> Self {
        Self { entries: BTreeMap::new(), problems: Vec::new(), index: OnceLock::new() }
    }

    fn take(&mut self, loaded: file::Loaded) {
        self.problems.extend(loaded.problems);
        for entry in loaded.entries {
            self.entries.insert(entry.name.clone(), Arc::new(entry));
        }
    }

    /// Every entry, by name.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = &Arc<Entry>> {
        self.entries.values()
    }

    /// The entry of that name.
    #[must_use]
    pub fn entry(&self, name: &ServerName) -> Option<&Arc<Entry>> {
        self.entries.get(name)
    }

    /// What is wrong with the files this was read from.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Builds the index if that has not happened yet. Takes about a hundred milliseconds for a few hundred entries, so a
    /// broker does it beside its start, not on a query's path.
    ///
    /// # Errors
    ///
    /// When the index cannot be built.
    pub fn ensure_index(&self) -> Result<&Index, IndexError> {
        self.index_from(|documents| Index::build(documents))
    }

    /// The same with a file: the index is read from there if it is that of these entries, and kept there if it is not.
    ///
    /// # Errors
    ///
    /// When the index cannot be built.
    pub fn open_index(&self, path: &Path) -> Result<&Index, IndexError> {
        self.index_from(|documents| Index::open(path, documents))
    }

    fn index_from(&self, make: impl FnOnce(&[Document]) -> Result<Index, IndexError>) -> Result<&Index, IndexError> {
        if let Some(index) = self.index.get() {
            return Ok(index);
        }
        let index = make(&self.documents())?;
        Ok(self.index.get_or_init(|| index))
    }

    /// The entries as they are indexed.
    #[must_use]
    pub fn documents(&self) -> Vec<Document> {
        self.entries.values().map(|entry| document(entry)).collect()
    }

    /// Ranks the entries for `query`.
    ///
    /// # Errors
    ///
    /// When the index cannot be built or read.
    pub fn search(&self, query: &str, limit: usize) -> Result<Hits, IndexError> {
        self.ensure_index()?.search(query, limit)
    }

    /// Ranks those entries for `query` that `wanted` lets through.
    ///
    /// # Errors
    ///
    /// When the index cannot be built or read.
    pub fn search_among(&self, query: &str, limit: usize, wanted: impl Fn(&Entry) -> bool) -> Result<Hits, IndexError> {
        let wanted =
            |name: &str| name.parse().ok().and_then(|name| self.entry(&name)).is_some_and(|entry| wanted(entry));
        self.ensure_index()?.search_among(query, limit, wanted)
    }

    /// Names that are close to one that does not exist.
    #[must_use]
    pub fn suggestions(&self, name: &str) -> Vec<ServerName> {
        let folded = name.to_lowercase();
        let mut close: Vec<ServerName> =
            self.entries.keys().filter(|known| known.as_str().to_lowercase() == folded).cloned().collect();
        for hit in self.search(name, SUGGESTIONS_MAX).unwrap_or_default().hits {
            if let Ok(known) = hit.name.parse()
                && !close.contains(&known)
            {
                close.push(known);
            }
        }
        close.truncate(SUGGESTIONS_MAX);
        close
    }
}

fn document(entry: &Entry) -> Document {
    Document {
        name: entry.name.as_str().to_owned(),
        title: entry.title.clone(),
        description: entry.description.clone(),
        category: entry.category.clone(),
        tags: entry.tags.clone(),
        phrases: entry.phrases.clone(),
        popularity: entry.pulls,
        tools: entry
            .tools
            .iter()
            .map(|tool| ToolDocument { name: tool.name.clone(), description: tool.description.clone() })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_catalog_has_no_problems() {
        let catalog = Catalog::load(&[]).unwrap();
        assert_eq!(catalog.snapshot().problems(), []);
        assert!(catalog.snapshot().entries().len() >= 8);
    }

    #[test]
    fn a_later_file_replaces_an_entry() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.yaml");
        std::fs::write(&path, "registry: {time: {title: My clock, command: [clock]}}").unwrap();
        let catalog = Catalog::load(&[path]).unwrap();
        let entry = catalog.entry(&"time".parse().unwrap()).unwrap();
        assert_eq!(entry.title, "My clock");
    }

    #[test]
    fn a_misspelt_name_gets_suggestions() {
        let catalog = Catalog::load(&[]).unwrap();
        let names: Vec<String> = catalog.snapshot().suggestions("filesytem").iter().map(ToString::to_string).collect();
        assert_eq!(names.first().map(String::as_str), Some("filesystem"));
    }
}
