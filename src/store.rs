//! The only place with SQL in it.
//!
//! One SQLite file in the data folder, in write-ahead mode. Everything that changes it goes through one writer, in
//! order; readers have connections of their own and never wait for it. What the rows mean is told by the comments in
//! `migrations/`.

pub mod audit;
mod code_tools;
pub mod compose;
pub mod connections;
mod features;
mod learned;
mod migrate;
mod profiles;
mod secrets;
pub mod sessions;
pub mod subscriptions;
mod transaction;
mod upkeep;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sqlx::{
    ConnectOptions as _, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

pub use learned::LearnedTool;
pub use secrets::SealedSecret;
pub use writer::Writer;

use self::audit::Direct;
use crate::{clock::Timestamp, lifecycle::Tasks};

const FILE: &str = "broker.sqlite";
const READERS_MAX: u32 = 4;
/// Rows that SQLite's thread reads ahead of who takes them.
const ROWS_AHEAD: usize = 512;
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const READERS_CLOSE_WITHIN: Duration = Duration::from_secs(2);
/// Pages of the write-ahead log, 4 KiB each, before they are copied into the database. Under load the same pages are written
/// again and again; the more of those come together, the fewer are copied.
const CHECKPOINT_PAGES: &str = "8000";
/// What the writing connection may keep of the database in memory, as SQLite's `cache_size` has it: in KiB, if negative.
const WRITER_CACHE: &str = "-8192";

/// The database of one data folder.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    readers: SqlitePool,
    writer: Writer,
}

/// The database cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenStoreError {
    #[error("could not open the database {path}: is the data folder writable, and is there room on its disk?")]
    Open {
        path: PathBuf,
        #[source]
        source: sqlx::Error,
    },
    #[error(
        "the database {path} was written by a newer mcp-broker (it has migration {found}, this program knows up to \
         {known}): use that version, or another data folder"
    )]
    Newer { path: PathBuf, found: i64, known: i64 },
    #[error(
        "could not copy the database to {copy} before bringing it up to date ({why}): is there room on its disk? Nothing \
         has been changed"
    )]
    Copy { copy: PathBuf, why: String },
    #[error("could not bring the database {path} up to date")]
    Migrate {
        path: PathBuf,
        #[source]
        source: sqlx::migrate::MigrateError,
    },
}

/// The database did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    #[error("the database refused: {0}")]
    Sql(#[source] Arc<sqlx::Error>),
    #[error("the database is closed, because the broker is stopping")]
    Closed,
    #[error("the database holds what this program did not write: {0}")]
    Corrupt(String),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(Arc::new(error))
    }
}

impl Store {
    /// Opens the database in `folder`, creating it or bringing it up to date.
    ///
    /// # Errors
    ///
    /// When it cannot be opened, written, or understood.
    pub async fn open(folder: &Path, durability: Durability, tasks: &Tasks) -> Result<Self, OpenStoreError> {
        let path = folder.join(FILE);
        let wrong = |source| OpenStoreError::Open { path: path.clone(), source };
        keep_private(&path).map_err(|error| wrong(sqlx::Error::Io(error)))?;
        let options = options(&path, durability);
        let mut connection = options.clone().pragma("cache_size", WRITER_CACHE).connect().await.map_err(wrong)?;
        migrate::run(&mut connection, &path).await?;
        let direct = match durability {
            Durability::Process => Direct::open(&path)
                .inspect_err(|error| tracing::warn!(%error, "every audit event is committed on the writer's thread"))
                .ok(),
            // A commit waits for the disk, which no thread of the runtime may.
            Durability::Power => None,
        };
        let writer = Writer::start(connection, direct, tasks).await.map_err(wrong)?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS_MAX)
            .min_connections(0)
            .connect_lazy_with(options.read_only(true).create_if_missing(false).row_buffer_size(ROWS_AHEAD));
        Ok(Self { inner: Arc::new(Inner { readers, writer }) })
    }

    /// Writes what is queued and closes the database.
    ///
    /// The connection that writes is the last: it copies the write-ahead log into the database, so that the database is one
    /// file when nobody uses it. One that only reads could not. A question that does not end in time keeps both files.
    pub async fn close(&self) {
        if tokio::time::timeout(READERS_CLOSE_WITHIN, self.inner.readers.close()).await.is_err() {
            tracing::warn!("a question to the database does not end: its write-ahead log stays beside it");
        }
        self.inner.writer.close().await;
    }

    fn readers(&self) -> &SqlitePool {
        &self.inner.readers
    }

    fn writer(&self) -> &Writer {
        &self.inner.writer
    }
}

/// What a commit survives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// The end of the process, kill -9 included. A power failure may take the last commits, never a part of one
    /// (SQLite's synchronous = NORMAL).
    #[default]
    Process,
    /// A power failure too: every commit waits for the disk (synchronous = FULL).
    Power,
}

/// Has nobody but the owner read the database, whatever folder it is in. Its write-ahead log is made with the same mode.
fn keep_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    let file = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    }
    Ok(())
}

fn options(path: &Path, durability: Durability) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(match durability {
            Durability::Process => SqliteSynchronous::Normal,
            Durability::Power => SqliteSynchronous::Full,
        })
        .busy_timeout(BUSY_TIMEOUT)
        .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
        .disable_statement_logging()
}

fn micros(time: Timestamp) -> i64 {
    time.as_microsecond()
}

fn timestamp(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn corrupt(what: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt(what.to_string())
}
