//! One update of one source: asking, keeping what worked, writing, and putting it into the catalog.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use serde_json::{Value, json};

use super::{LIST, Progress, SourceError, Sources};
use crate::catalog::{
    Learned, ToolDocument,
    document::{self, Listed},
    fetch::{self, Marks},
    file,
    pack::Pack,
    registry,
    source::{self, PROBLEMS_KEPT, Source, SourceKind},
};

/// A source that takes longer is not waited for.
const ASK_MINUTES_MAX: u64 = 15;

/// Versions that are remembered of one server.
const VERSIONS_MAX: usize = 20;

/// What a source gave.
#[derive(Default)]
pub(super) struct Given {
    /// Entries that can be used.
    pub(super) entries: BTreeMap<String, Value>,
    /// Entries that are there and cannot be used; what there was of them before still counts.
    pub(super) unusable: BTreeSet<String>,
    /// Entries that are there no more.
    pub(super) gone: BTreeSet<String>,
    /// Whether this is everything, so that what is not in it is gone.
    pub(super) whole: bool,
    pub(super) problems: Vec<String>,
    pub(super) marks: Marks,
    pub(super) newest: Option<String>,
}

impl Given {
    fn of(source: &Source, listed: Listed, whole: bool) -> Self {
        let names: BTreeSet<String> = listed.entries.keys().cloned().collect();
        let mentioned = listed.problems.iter().map(|problem| problem.entry.clone()).filter(|entry| !entry.is_empty());
        let (loaded, entries) = file::taken(&source.name, listed.entries);
        let unusable = names.into_iter().chain(mentioned).filter(|name| !entries.contains_key(name)).collect();
        let problems = listed.problems.iter().chain(&loaded.problems).map(ToString::to_string).collect();
        Self { entries, unusable, whole, problems, ..Self::default() }
    }
}

impl Sources {
    /// Asks a source, the how-manieth of how many. None when it has not changed.
    pub(super) async fn ask(&self, source: &Source, place: (usize, usize)) -> Result<Option<Given>, SourceError> {
        let _told = Telling(self);
        self.tell_of(source, 0, place);
        let limit = Duration::from_secs(60 * ASK_MINUTES_MAX);
        let asked = tokio::time::timeout(limit, self.asked(source, place)).await;
        asked.unwrap_or(Err(SourceError::TooSlow(ASK_MINUTES_MAX)))
    }

    fn tell_of(&self, source: &Source, servers: usize, (number, of): (usize, usize)) {
        self.tell(Some(Progress { source: source.name.clone(), servers, number, of }));
    }

    async fn asked(&self, source: &Source, place: (usize, usize)) -> Result<Option<Given>, SourceError> {
        match source.kind {
            SourceKind::Path | SourceKind::Imported => {
                let (path, about) = (source.location.clone(), source.clone());
                let read = move || document::read(Path::new(&path)).map(|listed| Given::of(&about, listed, true));
                Ok(Some(blocking(read).await??))
            }
            SourceKind::Url => {
                let url = fetch::address(&source.location)?;
                let fetched = fetch::get(&self.client()?, &url, &source.marks).await?;
                let Some(text) = fetched.text else { return Ok(None) };
                let about = source.clone();
                let read = move || document::listed(url.as_str(), &text).map(|listed| Given::of(&about, listed, true));
                Ok(Some(Given { marks: fetched.marks, ..blocking(read).await?? }))
            }
            SourceKind::Registry => {
                let url = registry::listing(fetch::address(&source.location)?);
                // What is not in the data folder any more is asked for again.
                let has_entries = self.kept().packs.contains_key(&source.name);
                let since = source.newest.as_deref().filter(|_| has_entries);
                let told = |servers| self.tell_of(source, servers, place);
                let changes = registry::changes(&self.client()?, &url, since, &told).await?;
                let (gone, newest, about) = (changes.gone, changes.newest, source.clone());
                let (whole, listed) =
                    (since.is_none(), Listed { entries: changes.entries, problems: changes.problems });
                let given = blocking(move || Given::of(&about, listed, whole)).await?;
                Ok(Some(Given { gone, newest, ..given }))
            }
        }
    }

    pub(super) async fn update_one(&self, source: Source, place: (usize, usize)) -> Source {
        let outcome = match self.ask(&source, place).await {
            Ok(None) => Ok(self.checked(source.clone(), None)),
            Ok(Some(given)) => self.take(source.clone(), given).await,
            Err(error) => Err(error),
        };
        outcome.unwrap_or_else(|error| {
            let problem = told(&error);
            tracing::warn!(
                catalog.source = source.name,
                problem,
                "a catalog source was not updated and keeps its entries"
            );
            self.checked(source, Some(problem))
        })
    }

    /// Notes that a source was asked, with what went wrong.
    fn checked(&self, mut source: Source, error: Option<String>) -> Source {
        source.checked_at = Some(self.clock.now().to_string());
        source.error = error;
        let mut kept = self.kept();
        if let Some(known) = kept.sources.iter_mut().find(|known| known.name == source.name) {
            known.clone_from(&source);
        }
        if let Err(error) = source::write(&self.folder.join(LIST), &kept.sources) {
            tracing::warn!(%error, "when catalog sources were asked was not noted");
        }
        source
    }

    /// Takes what a source gave, on disk and then for everybody.
    pub(super) async fn take(&self, mut source: Source, given: Given) -> Result<Source, SourceError> {
        let old = self.kept().values(&source.name);
        let (problem_count, problems) = (given.problems.len(), given.problems.clone());
        let (marks, newest) = (given.marks.clone(), given.newest.clone());
        let entries = merged(old.clone(), given);
        if entries.is_empty() {
            return Err(SourceError::Nothing(problems));
        }
        let is_news = entries != old;
        std::fs::create_dir_all(&self.folder)?;
        let path = self.pack_of(&source.name);
        let (name, trust) = (source.name.clone(), source.trust());
        source.entries = entries.len();
        let pack = blocking(move || {
            if is_news {
                Pack::write(&path, &entries)?;
            }
            Pack::open(&path, &name, trust)
        });
        let pack = pack.await??;
        source.marks = marks;
        source.newest = newest.or(source.newest);
        source.problem_count = problem_count;
        source.problems = problems.into_iter().take(PROBLEMS_KEPT).collect();
        let now = self.clock.now().to_string();
        source.updated_at = Some(now.clone());
        source.checked_at = Some(now);
        source.error = None;
        {
            let mut kept = self.kept();
            kept.packs.insert(source.name.clone(), Arc::new(pack));
            match kept.sources.iter_mut().find(|known| known.name == source.name) {
                Some(known) => known.clone_from(&source),
                None => kept.sources.push(source.clone()),
            }
            source::write(&self.folder.join(LIST), &kept.sources)?;
        }
        if is_news {
            self.swap().await?;
        }
        Ok(source)
    }

    pub(super) async fn forget(&self, source: &Source) -> Result<(), SourceError> {
        {
            let mut kept = self.kept();
            kept.sources.retain(|known| known.name != source.name);
            kept.packs.remove(&source.name);
            source::write(&self.folder.join(LIST), &kept.sources)?;
        }
        let _ = std::fs::remove_file(self.pack_of(&source.name));
        self.swap().await
    }

    /// Makes a snapshot of what there is now, indexes it, and lets everybody see it.
    pub(super) async fn swap(&self) -> Result<(), SourceError> {
        // Or an older one could come after a newer one.
        let _one_at_a_time = self.swapping.lock().await;
        let mut learned = Learned::new();
        for (server, tool) in self.store.learned_tools().await? {
            let Ok(server) = server.parse() else { continue };
            let tool = ToolDocument { name: tool.name, description: tool.description };
            learned.entry(server).or_default().push(tool);
        }
        let (catalog, packs, index) = (self.catalog.clone(), self.kept().in_order(), self.index.clone());
        let prepared = blocking(move || {
            let snapshot = catalog.prepare(&packs).with_learned(learned);
            snapshot.open_index(&index).map(|_| ())?;
            Ok::<_, SourceError>(snapshot)
        });
        self.catalog.put(prepared.await??);
        Ok(())
    }
}

/// Ends what is told of an update's progress, however the update ends.
struct Telling<'a>(&'a Sources);

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        self.0.tell(None);
    }
}

/// What there is after an update: nothing that worked is lost because what came instead of it does not.
fn merged(mut old: BTreeMap<String, Value>, given: Given) -> BTreeMap<String, Value> {
    let mut entries = given.entries;
    for (name, entry) in &mut entries {
        if let Some(before) = old.get(name) {
            remember_version(entry, before);
        }
    }
    if given.whole && !entries.is_empty() {
        old.retain(|name, _| given.unusable.contains(name));
    } else if given.whole {
        // A source that has nothing at all any more has more likely gone wrong than given up.
        return BTreeMap::new();
    }
    old.retain(|name, _| !given.gone.contains(name));
    old.append(&mut entries);
    old
}

/// Keeps the version that an entry had before among those that were seen.
fn remember_version(entry: &mut Value, before: &Value) {
    let (now, was) = (&entry["metadata"]["version"], &before["metadata"]["version"]);
    let mut versions: Vec<Value> = before["metadata"]["versions"].as_array().cloned().unwrap_or_default();
    if was.is_string() && was != now && !versions.contains(was) {
        versions.insert(0, was.clone());
    }
    versions.truncate(VERSIONS_MAX);
    if !versions.is_empty()
        && let Some(entry) = entry.as_object_mut()
    {
        let metadata = entry.entry("metadata").or_insert_with(|| json!({}));
        if let Some(metadata) = metadata.as_object_mut() {
            metadata.insert("versions".to_owned(), json!(versions));
        }
    }
}

/// The error with what caused it.
fn told(error: &(dyn std::error::Error + 'static)) -> String {
    match error.source().map(told) {
        Some(cause) if cause != error.to_string() => format!("{error}: {cause}"),
        _ => error.to_string(),
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, SourceError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| SourceError::CutOff)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(of: &[(&str, &str)]) -> BTreeMap<String, Value> {
        of.iter().map(|(name, version)| ((*name).to_owned(), json!({"metadata": {"version": version}}))).collect()
    }

    #[test]
    fn what_came_instead_and_does_not_work_does_not_replace_what_did() {
        let given = Given {
            entries: entries(&[("a", "2")]),
            unusable: ["b".to_owned()].into(),
            whole: true,
            ..Given::default()
        };
        let now = merged(entries(&[("a", "1"), ("b", "1"), ("c", "1")]), given);
        assert_eq!(now.keys().collect::<Vec<_>>(), ["a", "b"], "c was taken out by the source");
        assert_eq!(now["a"]["metadata"]["versions"], json!(["1"]));
    }

    #[test]
    fn a_part_leaves_the_rest() {
        let given = Given { entries: entries(&[("b", "1")]), gone: ["a".to_owned()].into(), ..Given::default() };
        assert_eq!(merged(entries(&[("a", "1"), ("c", "1")]), given).keys().collect::<Vec<_>>(), ["b", "c"]);
    }

    #[test]
    fn nothing_at_all_is_no_update() {
        let given = Given { whole: true, ..Given::default() };
        assert!(merged(entries(&[("a", "1")]), given).is_empty(), "which `take` refuses");
    }
}
