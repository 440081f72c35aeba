//! The servers that could be added: every source merged, and searchable.
//!
//! A [`Catalog`] is a handle to one [`Snapshot`] that is replaced whole. Readers take the snapshot and keep it for as
//! long as they work with it; nobody ever sees half of an update. The index is built once per snapshot, before it is put
//! in place.
//!
//! A snapshot knows where every entry is and reads those that are asked for ([`pack`]). Where several sources have a name,
//! the more trusted one's entry counts, and among equals that of the later source: third parties in the order in which they
//! were added, then the built-in catalog, then the operator's own.

pub mod config_schema;
pub mod document;
pub mod entry;
pub mod fetch;
pub mod file;
pub mod foreign;
pub mod git;
pub mod pack;
pub mod policy;
mod raw;
pub mod registry;
mod search;
pub mod server_json;
pub mod source;
pub mod sources;
pub mod spelling;
pub mod template;

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use catalog_index::Index;
pub use catalog_index::ToolDocument;

pub use entry::{Entry, Runnable};
pub use file::{CatalogFileError, Problem};
pub use pack::Trust;
pub use policy::CatalogSettings;
pub use sources::Sources;

use crate::ids::ServerName;
use file::Severity;
use foreign::folded_name;
use pack::Pack;

/// The catalog that is compiled into the program.
const BUILT_IN: &str = include_str!("../catalog/builtin.yaml");

/// What the built-in catalog is called as a source.
pub const BUILT_IN_SOURCE: &str = "built-in";

/// All servers that could be added.
pub struct Catalog {
    /// What does not change while the broker runs: the built-in catalog, and the operator's files.
    fixed: Vec<Arc<Pack>>,
    problems: Vec<Problem>,
    settings: CatalogSettings,
    current: ArcSwap<Snapshot>,
    /// Told when servers have said something of their tools that is not indexed yet.
    learned: Notify,
}

/// The catalog at one moment.
pub struct Snapshot {
    packs: Vec<Arc<Pack>>,
    slots: BTreeMap<ServerName, Slot>,
    /// Why entries may not be added.
    refused: HashMap<ServerName, String>,
    problems: Vec<Problem>,
    /// What servers said of their tools when they ran.
    learned: Learned,
    index: OnceLock<Index>,
}

/// Tools of servers, in the servers' own words.
pub type Learned = HashMap<ServerName, Vec<ToolDocument>>;

/// Where an entry is, and the entry once somebody has asked for it.
struct Slot {
    pack: usize,
    number: usize,
    read: OnceLock<Option<Arc<Entry>>>,
}

impl Catalog {
    /// Reads the built-in catalog and `files`, in that order; a later entry replaces an earlier one of the same name.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or is no catalog. Entries that cannot be used are left out, and reported by
    /// [`Snapshot::problems`].
    pub fn load(files: &[PathBuf]) -> Result<Self, CatalogFileError> {
        Self::with(files, CatalogSettings::default())
    }

    /// The same, with what the operator allows.
    ///
    /// # Errors
    ///
    /// As [`Self::load`].
    pub fn with(files: &[PathBuf], settings: CatalogSettings) -> Result<Self, CatalogFileError> {
        let mut fixed = vec![Arc::new(Pack::compiled(BUILT_IN_SOURCE, BUILT_IN))];
        let mut problems = Vec::new();
        for path in files {
            let loaded = file::read(path)?;
            problems.extend(loaded.problems);
            fixed.push(Arc::new(Pack::read(&path.display().to_string(), loaded.entries)));
        }
        for problem in &problems {
            tracing::warn!(catalog.problem = %problem, "a catalog entry has a problem");
        }
        Ok(Self::of(fixed, problems, settings))
    }

    /// The same, with entries that come from no catalog file, and count more than any other.
    ///
    /// # Errors
    ///
    /// As [`Self::load`].
    pub fn beside(files: &[PathBuf], entries: Vec<Entry>, settings: CatalogSettings) -> Result<Self, CatalogFileError> {
        let Self { mut fixed, problems, .. } = Self::with(files, CatalogSettings::default())?;
        if let Some(first) = entries.first() {
            fixed.push(Arc::new(Pack::read(&first.source.clone(), entries)));
        }
        Ok(Self::of(fixed, problems, settings))
    }

    fn of(fixed: Vec<Arc<Pack>>, problems: Vec<Problem>, settings: CatalogSettings) -> Self {
        let current = Snapshot::of(fixed.clone(), problems.clone(), &settings);
        Self { fixed, problems, settings, current: ArcSwap::from_pointee(current), learned: Notify::new() }
    }

    /// Reads one file and nothing else, not even the built-in catalog: what is measured is that file.
    ///
    /// # Errors
    ///
    /// As for [`Self::load`].
    pub fn of_file(path: &Path) -> Result<Self, CatalogFileError> {
        let loaded = file::read(path)?;
        let fixed = vec![Arc::new(Pack::read(&path.display().to_string(), loaded.entries))];
        Ok(Self::of(fixed, loaded.problems, CatalogSettings::default()))
    }

    /// Makes a snapshot with these sources besides what is fixed. Nobody sees it yet.
    #[must_use]
    pub fn prepare(&self, sources: &[Arc<Pack>]) -> Snapshot {
        let packs = sources.iter().chain(&self.fixed).cloned().collect();
        Snapshot::of(packs, self.problems.clone(), &self.settings)
    }

    /// Says that there is news of tools, for the next index.
    pub fn has_learned(&self) {
        self.learned.notify_one();
    }

    /// Waits until there is.
    pub async fn learning(&self) {
        self.learned.notified().await;
    }

    /// Makes `snapshot` what everybody sees from now on.
    pub fn put(&self, snapshot: Snapshot) {
        self.current.store(Arc::new(snapshot));
    }

    /// The catalog as it is now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// The entry of that name, as it is now.
    #[must_use]
    pub fn entry(&self, name: &ServerName) -> Option<Arc<Entry>> {
        self.current.load().entry(name).cloned()
    }
}

impl Snapshot {
    fn of(mut packs: Vec<Arc<Pack>>, problems: Vec<Problem>, settings: &CatalogSettings) -> Self {
        // Stable: among equally trusted ones, the order they came in.
        packs.sort_by_key(|pack| pack.trust);
        let slots = BTreeMap::new();
        let mut snapshot =
            Self { packs, slots, refused: HashMap::new(), problems, learned: Learned::new(), index: OnceLock::new() };
        snapshot.merge();
        if !settings.allows_all() {
            let refused = snapshot.all().filter_map(|entry| Some((entry.name.clone(), settings.refusal(&entry)?)));
            snapshot.refused = refused.collect();
        }
        snapshot
    }

    /// The same with what servers said of their tools.
    #[must_use]
    pub fn with_learned(self, learned: Learned) -> Self {
        Self { learned, ..self }
    }

    fn merge(&mut self) {
        let packs = self.packs.clone();
        // From the most trusted down, so that a name is there before one that only looks like it comes.
        let mut folded: HashMap<String, (ServerName, Trust)> = HashMap::new();
        for (at, pack) in packs.iter().enumerate().rev() {
            for (number, name) in pack.names() {
                if self.slots.contains_key(name) {
                    continue;
                }
                match folded.get(&folded_name(name.as_str())) {
                    Some((known, trust)) if *trust > pack.trust => {
                        self.problems.push(looks_like(pack, name, known));
                        continue;
                    }
                    Some(_) => {}
                    None => {
                        folded.insert(folded_name(name.as_str()), (name.clone(), pack.trust));
                    }
                }
                self.slots.insert(name.clone(), Slot { pack: at, number, read: OnceLock::new() });
            }
        }
    }

    /// Every entry that may be added, by name. Reads each one that nobody has asked for yet, and does not keep it.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = Arc<Entry>> {
        let entries: Vec<&ServerName> = self.offered().collect();
        let read = |name: &ServerName| self.slots.get(name).and_then(|slot| self.read(slot));
        // A line that went bad after it was counted is an entry that says nothing.
        entries.into_iter().map(move |name| read(name).unwrap_or_else(|| Arc::new(Entry::unreadable(name))))
    }

    /// How many servers may be added.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len() - self.refused.len()
    }

    /// Whether nothing may be added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every entry, whether it may be added or not.
    pub fn all(&self) -> impl Iterator<Item = Arc<Entry>> {
        self.slots.values().filter_map(|slot| self.read(slot))
    }

    /// The entry of that name, whether it may be added or not.
    #[must_use]
    pub fn entry(&self, name: &ServerName) -> Option<&Arc<Entry>> {
        let slot = self.slots.get(name)?;
        slot.read.get_or_init(|| self.packs.get(slot.pack)?.entry(slot.number)).as_ref()
    }

    /// Why the server of that name may not be added; nothing if it may.
    #[must_use]
    pub fn refusal(&self, name: &ServerName) -> Option<&str> {
        self.refused.get(name).map(String::as_str)
    }

    /// How much the source of an entry is trusted.
    #[must_use]
    pub fn trust(&self, name: &ServerName) -> Option<Trust> {
        Some(self.packs.get(self.slots.get(name)?.pack)?.trust)
    }

    /// The sources that have an entry of that name which does not count, because another one's does.
    #[must_use]
    pub fn replaced(&self, name: &ServerName) -> Vec<Arc<Entry>> {
        let counts = self.slots.get(name).map(|slot| slot.pack);
        let others = self.packs.iter().enumerate().filter(|(at, _)| Some(*at) != counts);
        others.filter_map(|(_, pack)| pack.entry(pack.position(name)?)).collect()
    }

    /// Each source, the one that counts least first: its name, its trust, how many entries it has and how many count.
    #[must_use]
    pub fn packs(&self) -> Vec<(Arc<str>, Trust, usize, usize)> {
        let mut counting = vec![0; self.packs.len()];
        for slot in self.slots.values() {
            counting[slot.pack] += 1;
        }
        let row =
            |(pack, counting): (&Arc<Pack>, usize)| (pack.source.clone(), pack.trust, pack.names().len(), counting);
        self.packs.iter().zip(counting).map(row).collect()
    }

    /// The names of everything that may be added.
    pub fn offered(&self) -> impl Iterator<Item = &ServerName> {
        self.slots.keys().filter(|name| !self.refused.contains_key(*name))
    }

    fn read(&self, slot: &Slot) -> Option<Arc<Entry>> {
        match slot.read.get() {
            Some(entry) => entry.clone(),
            None => self.packs.get(slot.pack)?.entry(slot.number),
        }
    }

    /// What is wrong with the files this was read from.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

fn looks_like(pack: &Pack, name: &ServerName, known: &ServerName) -> Problem {
    Problem {
        file: pack.source.clone(),
        entry: name.to_string(),
        field: String::new(),
        message: format!("can be taken for `{known}`, which comes from a more trusted source: it is left out"),
        severity: Severity::Error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_catalog_has_no_problems() {
        let whole = file::parse("built-in", BUILT_IN).unwrap();
        assert_eq!(whole.problems, []);
        assert_eq!(whole.entries.len(), 329);
        let catalog = Catalog::load(&[]).unwrap();
        let names: Vec<ServerName> = catalog.snapshot().entries().map(|entry| entry.name.clone()).collect();
        assert_eq!(names, whole.entries.iter().map(|entry| entry.name.clone()).collect::<Vec<_>>());
        for entry in catalog.snapshot().entries() {
            assert!(!entry.description.is_empty() && !entry.phrases.is_empty(), "{} has no texts", entry.name);
        }
    }

    #[test]
    fn packages_of_the_built_in_catalog_have_exact_versions() {
        let catalog = Catalog::load(&[]).unwrap();
        let mut packages = 0;
        for entry in catalog.snapshot().entries() {
            for run in &entry.runs {
                let Runnable::Package(package) = run else { continue };
                let version = package.version.as_deref().unwrap_or_default();
                assert!(version.starts_with(|first: char| first.is_ascii_digit()), "{}: {version}", entry.name);
                packages += 1;
            }
        }
        assert!(packages >= 100, "{packages}");
    }

    #[test]
    fn what_is_refused_is_neither_found_nor_listed_and_stays_readable() {
        let settings = serde_saphyr::from_str("{deny: {servers: [time]}}").unwrap();
        let catalog = Catalog::with(&[], settings).unwrap();
        let snapshot = catalog.snapshot();
        let time: ServerName = "time".parse().unwrap();
        assert_eq!(snapshot.len(), 328);
        assert!(snapshot.entries().all(|entry| entry.name != time));
        assert!(snapshot.search("what time is it", 10).unwrap().hits.iter().all(|hit| hit.name != "time"));
        assert!(!snapshot.suggestions("time").contains(&time));
        assert!(snapshot.refusal(&time).unwrap().contains("this server"));
        assert!(snapshot.entry(&time).is_some(), "sessions that have it keep it");
    }

    #[test]
    fn a_third_party_replaces_nothing_that_is_trusted_more() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.yaml");
        let theirs = ["time", "TIME", "their-own"].map(|name| (name.to_owned(), serde_json::json!({"image": "evil"})));
        Pack::write(&path, &theirs.into()).unwrap();
        let catalog = Catalog::load(&[]).unwrap();
        let source = |trust| catalog.prepare(&[Arc::new(Pack::open(&path, "theirs", trust).unwrap())]);
        let name = |name: &str| name.parse::<ServerName>().unwrap();

        let third = source(Trust::ThirdParty);
        assert_eq!(&*third.entry(&name("time")).unwrap().source, "built-in");
        assert_eq!(&*third.entry(&name("their-own")).unwrap().source, "theirs");
        assert!(third.entry(&name("TIME")).is_none(), "it looks like another");
        assert!(third.problems()[0].message.contains("taken for `time`"), "{:?}", third.problems());
        assert_eq!(third.replaced(&name("time")).len(), 1);

        let operator = source(Trust::Operator);
        assert_eq!(&*operator.entry(&name("time")).unwrap().source, "theirs");
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
