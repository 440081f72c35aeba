//! Finding entries: what of them is indexed, when the index is made, and what is close to a name that is none.

use std::path::Path;

use catalog_index::{Document, Hits, Index, IndexError, ToolDocument};

use super::{Snapshot, entry::Entry};
use crate::{ids::ServerName, memory};

/// How far a misspelt name may be from one that is suggested instead.
const SUGGESTIONS_MAX: usize = 3;

impl Snapshot {
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
        // To make it took many times what is kept.
        memory::give_back();
        Ok(self.index.get_or_init(|| index))
    }

    /// The entries as they are indexed.
    #[must_use]
    pub fn documents(&self) -> Vec<Document> {
        let learned = |entry: &Entry| self.learned.get(&entry.name).map(Vec::as_slice).unwrap_or_default();
        self.entries().map(|entry| document(&entry, learned(&entry))).collect()
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
            self.offered().filter(|known| known.as_str().to_lowercase() == folded).cloned().collect();
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

/// The catalog's words for a tool come first, and then the server's, which may promise anything.
fn document(entry: &Entry, learned: &[ToolDocument]) -> Document {
    let said = |name: &str| learned.iter().find(|tool| tool.name == name).map_or("", |tool| tool.description.as_str());
    let known = entry.tools.iter().map(|tool| ToolDocument {
        name: tool.name.clone(),
        description: format!("{} {}", tool.description, said(&tool.name)).trim().to_owned(),
    });
    let new = learned.iter().filter(|tool| entry.tools.iter().all(|known| known.name != tool.name));
    Document {
        name: entry.name.as_str().to_owned(),
        title: entry.title.clone(),
        description: entry.description.clone(),
        category: entry.category.clone(),
        tags: entry.tags.clone(),
        phrases: entry.phrases.clone(),
        popularity: entry.pulls,
        tools: known.chain(new.cloned()).collect(),
    }
}
