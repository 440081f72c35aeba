//! The sources besides the built-in catalog: added, asked whether they have changed, and removed.
//!
//! What a source last gave is a [`Pack`] in the data folder, and it stays there until the source gives something better: an
//! update that fails, wholly or for one entry, changes nothing of what worked. A new pack is written aside and put in place
//! at once, and so is the snapshot that is made with it, index and all.

mod tend;
mod update;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use catalog_index::IndexError;
use reqwest::Client;
use serde_json::Value;
use tokio::sync::Notify;

use super::{
    Catalog, CatalogFileError, Entry,
    fetch::{self, FetchError},
    pack::Pack,
    registry::ListingError,
    source::{self, Source, SourceKind, is_source_name, name_for},
};
use crate::{
    clock::SharedClock,
    ids::ServerName,
    store::{Store, StoreError},
};

/// The index of what everybody sees, in the data folder.
const INDEX: &str = "catalog.index";

const LIST: &str = "sources.json";

/// What entries that were copied once are kept as.
pub const IMPORTED: &str = "imported";

/// More sources than this are not kept.
const SOURCES_MAX: usize = 100;

/// Keeps the catalog's sources. One change at a time; whoever reads the catalog does not wait for it.
pub struct Sources {
    folder: PathBuf,
    index: PathBuf,
    catalog: Arc<Catalog>,
    store: Store,
    clock: SharedClock,
    client: OnceLock<Client>,
    kept: Mutex<Kept>,
    changing: tokio::sync::Mutex<()>,
    swapping: tokio::sync::Mutex<()>,
    /// Told when there are other sources than before.
    changed: Notify,
    progress: Mutex<Option<Progress>>,
}

#[derive(Default)]
struct Kept {
    sources: Vec<Source>,
    packs: BTreeMap<String, Arc<Pack>>,
    /// How often entries have changed.
    changes: u64,
    /// How many of those changes are in what everybody sees.
    shown: u64,
}

/// How far an update is.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Progress {
    pub source: String,
    pub servers: usize,
    /// Which of the sources that are asked this is, and how many they are.
    pub number: usize,
    pub of: usize,
}

/// What is to be added.
#[derive(Debug, Clone, serde::Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSource {
    pub location: String,
    #[serde(default)]
    pub name: Option<String>,
    /// Without it, it is told by the location.
    #[serde(default)]
    pub kind: Option<SourceKind>,
    #[serde(default)]
    pub replace: bool,
}

/// A source could not be changed, and nothing was.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("`{0}` cannot name a source: 1 to 40 of a-z, 0-9 and `-`, not at the start, and not `built-in`")]
    Name(String),
    #[error("there is a source `{0}` already: remove it first, or give another --name")]
    Taken(String),
    #[error("there are {SOURCES_MAX} sources, which is the limit: remove one first")]
    TooMany,
    #[error("there is no source and no imported server `{0}`: `mcp-broker catalog ls` lists the sources")]
    Unknown(String),
    #[error("a path has to be absolute: `{0}` is not")]
    Relative(String),
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Listing(#[from] ListingError),
    #[error(transparent)]
    File(#[from] CatalogFileError),
    #[error("it has no server that can be used{}", .0.first().map(|problem| format!(": {problem}")).unwrap_or_default())]
    Nothing(Vec<String>),
    #[error("it was not had whole within {0} minutes")]
    TooSlow(u64),
    #[error("the catalog could not be indexed")]
    Index(#[from] IndexError),
    #[error("what servers said of their tools could not be read")]
    Store(#[from] StoreError),
    #[error("could not keep it in the data folder")]
    Disk(#[from] io::Error),
    #[error("the system's certificates cannot be used")]
    Client(#[from] reqwest::Error),
    #[error("the update was cut off")]
    CutOff,
}

impl Sources {
    /// Reads what earlier updates left in `data_folder`, and puts it into the catalog.
    ///
    /// # Errors
    ///
    /// When the list of sources cannot be read. A source whose entries cannot be read has none until its next update.
    pub fn open(data_folder: &Path, catalog: Arc<Catalog>, store: Store, clock: SharedClock) -> io::Result<Self> {
        let folder = data_folder.join("catalog");
        let kept = Kept::read(&folder)?;
        if !kept.packs.is_empty() {
            catalog.put(catalog.prepare(&kept.in_order()));
        }
        Ok(Self {
            folder,
            index: data_folder.join(INDEX),
            catalog,
            store,
            clock,
            client: OnceLock::new(),
            kept: Mutex::new(kept),
            changing: tokio::sync::Mutex::default(),
            swapping: tokio::sync::Mutex::default(),
            changed: Notify::new(),
            progress: Mutex::new(None),
        })
    }

    /// Puts what is kept in `data_folder` into a catalog that is only looked at.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub fn show_in(catalog: &Catalog, data_folder: &Path) -> io::Result<()> {
        let kept = Kept::read(&data_folder.join("catalog"))?;
        catalog.put(catalog.prepare(&kept.in_order()));
        Ok(())
    }

    /// Every source, in the order in which they were added.
    #[must_use]
    pub fn list(&self) -> Vec<Source> {
        self.kept().sources.clone()
    }

    /// How far an update is that is under way.
    #[must_use]
    pub fn progress(&self) -> Option<Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Adds a source once it has given something.
    ///
    /// # Errors
    ///
    /// When it cannot be asked, or gives nothing that can be used. Then it is not added.
    pub async fn add(&self, new: NewSource) -> Result<Source, SourceError> {
        let _one_change_at_a_time = self.changing.lock().await;
        let kind = new.kind.unwrap_or_else(|| kind_of(&new.location));
        match kind {
            SourceKind::Path | SourceKind::Imported if !Path::new(&new.location).is_absolute() => {
                return Err(SourceError::Relative(source::shown(&new.location)));
            }
            SourceKind::Path | SourceKind::Imported => {}
            SourceKind::Url | SourceKind::Registry => {
                fetch::address(&new.location)?;
            }
        }
        let name = new.name.unwrap_or_else(|| name_for(&new.location));
        if !is_source_name(&name) || name == IMPORTED {
            return Err(SourceError::Name(name.escape_debug().take(80).collect()));
        }
        {
            let kept = self.kept();
            if kept.sources.iter().any(|known| known.name == name) {
                return Err(SourceError::Taken(name));
            }
            if kept.sources.len() >= SOURCES_MAX {
                return Err(SourceError::TooMany);
            }
        }
        let source = Source::new(name.clone(), kind, new.location, new.replace);
        let given = self.ask(&source, (1, 1)).await?.unwrap_or_default();
        let added = self.take(source, given).await;
        if added.is_err()
            && let Err(error) = self.let_go(&name)
        {
            tracing::warn!(%error, catalog.source = name, "a catalog source that was not added stays in the list");
        }
        self.changed.notify_one();
        added
    }

    /// Copies what is at `location` once. It is the operator's from then on.
    ///
    /// # Errors
    ///
    /// When there is nothing that can be used.
    pub async fn import(&self, location: &str) -> Result<Source, SourceError> {
        let _one_change_at_a_time = self.changing.lock().await;
        let kind = kind_of(location);
        if kind == SourceKind::Path && !Path::new(location).is_absolute() {
            return Err(SourceError::Relative(source::shown(location)));
        }
        let once = Source::new(IMPORTED.to_owned(), kind, location.to_owned(), false);
        let mut given = self.ask(&once, (1, 1)).await?.unwrap_or_default();
        if given.entries.is_empty() {
            return Err(SourceError::Nothing(given.problems));
        }
        given.whole = false;
        let known = self.kept().sources.iter().find(|source| source.name == IMPORTED).cloned();
        let mut source =
            known.unwrap_or_else(|| Source::new(IMPORTED.to_owned(), SourceKind::Imported, location.to_owned(), true));
        location.clone_into(&mut source.location);
        self.take(source, given).await
    }

    /// Removes a source with its entries, or one server that was imported.
    ///
    /// # Errors
    ///
    /// When there is none of that name.
    pub async fn remove(&self, name: &str) -> Result<(), SourceError> {
        let _one_change_at_a_time = self.changing.lock().await;
        let known = self.kept().sources.iter().find(|source| source.name == name).cloned();
        if let Some(source) = known {
            return self.forget(&source).await;
        }
        self.remove_one(name).await
    }

    /// Removes one server that was imported or added by itself.
    ///
    /// # Errors
    ///
    /// When there is none of that name.
    pub async fn remove_imported(&self, name: &str) -> Result<(), SourceError> {
        let _one_change_at_a_time = self.changing.lock().await;
        self.remove_one(name).await
    }

    /// Adds one server to those that were imported, in place of one of its name. It is the operator's.
    ///
    /// # Errors
    ///
    /// When it cannot be used.
    pub async fn put(&self, server: &ServerName, entry: Value) -> Result<Source, SourceError> {
        let _one_change_at_a_time = self.changing.lock().await;
        let known = self.kept().sources.iter().find(|source| source.name == IMPORTED).cloned();
        let source = known.unwrap_or_else(|| {
            Source::new(IMPORTED.to_owned(), SourceKind::Imported, "mcp-broker server add".to_owned(), true)
        });
        let given = update::Given::one(&source, server, entry);
        if given.entries.is_empty() {
            return Err(SourceError::Nothing(given.problems));
        }
        self.take(source, given).await
    }

    /// Every server that was imported or added by itself.
    #[must_use]
    pub fn imported(&self) -> Vec<Arc<Entry>> {
        let pack = self.kept().packs.get(IMPORTED).cloned();
        pack.iter().flat_map(|pack| pack.names().filter_map(|(number, _)| pack.entry(number))).collect()
    }

    /// The caller holds `changing`.
    async fn remove_one(&self, name: &str) -> Result<(), SourceError> {
        let imported = self.kept().sources.iter().find(|source| source.name == IMPORTED).cloned();
        let has_it = |pack: &Arc<Pack>| name.parse().is_ok_and(|server| pack.position(&server).is_some());
        match imported.filter(|_| self.kept().packs.get(IMPORTED).is_some_and(has_it)) {
            Some(source) if source.entries <= 1 => self.forget(&source).await,
            Some(source) => {
                let gone = [name.to_owned()].into();
                self.take(source, update::Given { gone, ..update::Given::default() }).await.map(|_| ())
            }
            None => Err(SourceError::Unknown(name.escape_debug().take(200).collect())),
        }
    }

    /// Asks sources (all of them if none is named) whether they have changed, and takes what is new.
    ///
    /// # Errors
    ///
    /// When one that is named does not exist. What goes wrong with a source is in its `error`.
    pub async fn update(&self, names: &[String]) -> Result<Vec<Source>, SourceError> {
        let _one_change_at_a_time = self.changing.lock().await;
        let known = self.list();
        if let Some(unknown) = names.iter().find(|name| known.iter().all(|source| source.name != **name)) {
            return Err(SourceError::Unknown(unknown.escape_debug().take(200).collect()));
        }
        Ok(self.update_those(|source| names.is_empty() || names.contains(&source.name)).await)
    }

    /// Updates those of the sources that are `wanted`. The caller holds `changing`.
    async fn update_those(&self, wanted: impl Fn(&Source) -> bool) -> Vec<Source> {
        let asked: Vec<Source> =
            self.list().into_iter().filter(|source| source.can_be_asked() && wanted(source)).collect();
        let (mut updated, of) = (Vec::new(), asked.len());
        for (before, source) in asked.into_iter().enumerate() {
            updated.push(self.update_one(source, (before + 1, of)).await);
        }
        // A change that was cut off may be one of a source that was not asked now, or is there no more.
        if let Err(error) = self.catch_up().await {
            tracing::error!(%error, "the catalog does not show what its sources gave");
        }
        updated
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn client(&self) -> Result<Client, SourceError> {
        if let Some(client) = self.client.get() {
            return Ok(client.clone());
        }
        let client = fetch::client()?;
        Ok(self.client.get_or_init(|| client).clone())
    }

    fn tell(&self, progress: Option<Progress>) {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = progress;
    }

    fn pack_of(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.yaml"))
    }
}

impl Kept {
    fn read(folder: &Path) -> io::Result<Self> {
        let sources = source::read(&folder.join(LIST))?;
        let mut packs = BTreeMap::new();
        for source in &sources {
            match Pack::open(&folder.join(format!("{}.yaml", source.name)), &source.name, source.trust()) {
                Ok(pack) => {
                    packs.insert(source.name.clone(), Arc::new(pack));
                }
                Err(error) => {
                    tracing::warn!(%error, catalog.source = source.name, "a catalog source has no entries until it is updated");
                }
            }
        }
        Ok(Self { sources, packs, ..Self::default() })
    }

    /// Whether everybody still sees what was there before a change.
    fn is_behind(&self) -> bool {
        self.changes != self.shown
    }

    fn in_order(&self) -> Vec<Arc<Pack>> {
        self.sources.iter().filter_map(|source| self.packs.get(&source.name).cloned()).collect()
    }

    fn values(&self, name: &str) -> BTreeMap<String, Value> {
        self.packs.get(name).map(|pack| pack.values()).unwrap_or_default()
    }
}

fn kind_of(location: &str) -> SourceKind {
    match reqwest::Url::parse(location) {
        Ok(url) if url.path().trim_end_matches('/').ends_with("/servers") => SourceKind::Registry,
        Ok(_) => SourceKind::Url,
        Err(_) => SourceKind::Path,
    }
}
