//! One update of one source: asking, keeping what worked, writing, and putting it into the catalog.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
    sync::Arc,
    time::Duration,
};

use serde_json::{Value, json};

use super::{LIST, Progress, SourceError, Sources};
use crate::{
    catalog::{
        Learned, ToolDocument,
        document::{self, Listed},
        fetch::{self, Marks},
        file,
        pack::Pack,
        registry,
        source::{self, PROBLEMS_KEPT, Source, SourceKind, noted},
    },
    ids::ServerName,
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
    /// The first of its problems.
    pub(super) problems: Vec<String>,
    pub(super) problem_count: usize,
    pub(super) marks: Marks,
    pub(super) newest: Option<String>,
}

impl Given {
    fn of(source: &Source, listed: Listed, whole: bool) -> Self {
        let names: Vec<String> = listed.entries.keys().cloned().chain(listed.unusable).collect();
        let (loaded, entries) = file::taken(&source.name, listed.entries);
        let unusable = names.into_iter().filter(|name| !entries.contains_key(name)).collect();
        let problem_count = listed.problems.len() + loaded.problems.len();
        let first = listed.problems.iter().chain(&loaded.problems).take(PROBLEMS_KEPT);
        let problems = first.map(|problem| noted(&problem.to_string())).collect();
        Self { entries, unusable, whole, problems, problem_count, ..Self::default() }
    }

    /// One entry, beside those that are there.
    pub(super) fn one(source: &Source, server: &ServerName, entry: Value) -> Self {
        let entries = [(server.to_string(), entry)].into();
        Self::of(source, Listed { entries, ..Listed::default() }, false)
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
                let (name, about) = (source::shown(&source.location), source.clone());
                let read = move || document::listed(&name, &text).map(|listed| Given::of(&about, listed, true));
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
                let (whole, listed) = (since.is_none(), changes.listed);
                let given = blocking(move || Given::of(&about, listed, whole)).await?;
                let problem_count = given.problem_count + changes.more_problems;
                Ok(Some(Given { gone, newest, problem_count, ..given }))
            }
        }
    }

    pub(super) async fn update_one(&self, source: Source, place: (usize, usize)) -> Source {
        let outcome = match self.ask(&source, place).await {
            Ok(None) => self.catch_up().await.map(|()| self.checked(source.clone(), None)),
            Ok(Some(given)) => self.take(source.clone(), given).await,
            Err(error) => Err(error),
        };
        outcome.unwrap_or_else(|error| {
            let problem = noted(&told(&error));
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
        // In memory even if the disk does not take it, or the source would be asked again at once. What else is known of it
        // may be newer than what it was asked with.
        if let Some(known) = kept.sources.iter_mut().find(|known| known.name == source.name) {
            known.checked_at.clone_from(&source.checked_at);
            known.error.clone_from(&source.error);
            source.clone_from(known);
        }
        if let Err(error) = source::write(&self.folder.join(LIST), &kept.sources) {
            tracing::warn!(%error, "when catalog sources were asked was not noted");
        }
        source
    }

    /// Takes what a source gave, on disk and then for everybody. When it fails, or is cut off, on the way to everybody, the
    /// next update makes up for it.
    pub(super) async fn take(&self, mut source: Source, given: Given) -> Result<Source, SourceError> {
        let old = self.kept().values(&source.name);
        let (problem_count, problems) = (given.problem_count, given.problems.clone());
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
        source.problems = problems;
        let now = self.clock.now().to_string();
        source.updated_at = Some(now.clone());
        source.checked_at = Some(now);
        source.error = None;
        self.keep(&source, pack, is_news)?;
        self.catch_up().await?;
        Ok(source)
    }

    /// Keeps a source with its entries. What the disk does not take is not kept in memory either.
    fn keep(&self, source: &Source, pack: Pack, is_news: bool) -> io::Result<()> {
        let mut kept = self.kept();
        let mut sources = kept.sources.clone();
        let known = sources.iter_mut().find(|known| known.name == source.name);
        let is_new = known.is_none();
        match known {
            Some(known) => known.clone_from(source),
            None => sources.push(source.clone()),
        }
        let written = source::write(&self.folder.join(LIST), &sources);
        if written.is_err() && is_new {
            let _ = std::fs::remove_file(self.pack_of(&source.name));
        }
        written?;
        kept.sources = sources;
        kept.packs.insert(source.name.clone(), Arc::new(pack));
        if is_news {
            kept.changes += 1;
        }
        Ok(())
    }

    pub(super) async fn forget(&self, source: &Source) -> Result<(), SourceError> {
        self.let_go(&source.name)?;
        self.swap().await
    }

    /// Keeps a source and its entries no longer, if they are kept. When the disk does not take it, they still are.
    pub(super) fn let_go(&self, name: &str) -> io::Result<()> {
        let mut kept = self.kept();
        let others: Vec<Source> = kept.sources.iter().filter(|known| known.name != name).cloned().collect();
        if others.len() == kept.sources.len() {
            return Ok(());
        }
        source::write(&self.folder.join(LIST), &others)?;
        kept.sources = others;
        kept.packs.remove(name);
        kept.changes += 1;
        let _ = std::fs::remove_file(self.pack_of(name));
        Ok(())
    }

    /// Lets everybody see what has changed, if a change was not seen yet.
    pub(super) async fn catch_up(&self) -> Result<(), SourceError> {
        let is_behind = self.kept().is_behind();
        if is_behind { self.swap().await } else { Ok(()) }
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
        let (catalog, index) = (self.catalog.clone(), self.index.clone());
        let (packs, changes) = {
            let kept = self.kept();
            (kept.in_order(), kept.changes)
        };
        let prepared = blocking(move || {
            let snapshot = catalog.prepare(&packs).with_learned(learned);
            snapshot.open_index(&index).map(|_| ())?;
            Ok::<_, SourceError>(snapshot)
        });
        self.catalog.put(prepared.await??);
        // Only those that were there when it began.
        self.kept().shown = changes;
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
    use crate::{
        catalog::{Catalog, sources::NewSource},
        clock::SystemClock,
        lifecycle::Tasks,
        store::{Durability, Store},
    };

    async fn sources(folder: &Path) -> Sources {
        let (tasks, _crashes) = Tasks::new();
        let store = Store::open(folder, Durability::default(), &tasks).await.unwrap();
        let catalog = Arc::new(Catalog::load(&[]).unwrap());
        Sources::open(folder, catalog, store, Arc::new(SystemClock)).unwrap()
    }

    fn own(path: &Path) -> NewSource {
        let (location, name) = (path.display().to_string(), Some("own".to_owned()));
        NewSource { location, name, kind: None, replace: false }
    }

    fn is_seen(sources: &Sources, name: &str) -> bool {
        sources.catalog.entry(&name.parse().unwrap()).is_some()
    }

    #[tokio::test]
    async fn what_the_disk_does_not_take_is_as_it_was_and_can_be_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("own.yaml");
        std::fs::write(&path, "registry: {own-a: {image: x}}").unwrap();
        let sources = sources(folder.path()).await;
        // Where the list is written before it is put in place.
        let aside = folder.path().join("catalog").join("sources.new");
        std::fs::create_dir_all(&aside).unwrap();
        assert!(matches!(sources.add(own(&path)).await, Err(SourceError::Disk(_))));
        assert!(sources.list().is_empty() && !is_seen(&sources, "own-a"));
        std::fs::remove_dir(&aside).unwrap();
        sources.add(own(&path)).await.unwrap();
        assert!(is_seen(&sources, "own-a"));

        std::fs::create_dir(&aside).unwrap();
        assert!(matches!(sources.remove("own").await, Err(SourceError::Disk(_))));
        std::fs::write(&path, "registry: {own-b: {image: x}}").unwrap();
        assert!(sources.update(&[]).await.unwrap()[0].error.is_some());
        assert!(is_seen(&sources, "own-a"));
        std::fs::remove_dir(&aside).unwrap();
        assert_eq!(sources.update(&[]).await.unwrap()[0].error, None);
        assert!(is_seen(&sources, "own-b") && !is_seen(&sources, "own-a"));
        sources.remove("own").await.unwrap();
        assert!(!is_seen(&sources, "own-b"));
    }

    #[tokio::test]
    async fn a_change_that_was_cut_off_is_seen_after_the_next_update() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("own.yaml");
        std::fs::write(&path, "registry: {own-a: {image: x}}").unwrap();
        let sources = sources(folder.path()).await;
        let source = sources.add(own(&path)).await.unwrap();
        std::fs::write(&path, "registry: {own-b: {image: x}}").unwrap();
        let given = sources.ask(&source, (1, 1)).await.unwrap().unwrap_or_default();
        let kept_in = sources.pack_of("own");
        Pack::write(&kept_in, &given.entries).unwrap();
        sources.keep(&source, Pack::open(&kept_in, "own", source.trust()).unwrap(), true).unwrap();
        assert!(!is_seen(&sources, "own-b"), "here the caller hung up");
        sources.update(&[]).await.unwrap();
        assert!(is_seen(&sources, "own-b"));
    }

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
