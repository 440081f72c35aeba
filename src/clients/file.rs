//! Changing a client's file so that whoever reads it finds it whole, and what somebody else wrote meanwhile is not lost.
//!
//! A new file is written beside the old one and takes its place, with its owner and permissions. What changed since it was
//! read is read again. Two of us take turns, by a lock on the folder, which leaves nothing behind.

use std::{
    fs::{self, File, Metadata},
    io::{ErrorKind, Write as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::{FlockOperation, flock};

use super::Outcome;

/// A file larger than this is no config.
const BYTES_MAX: u64 = 64 << 20;

/// How often a file may change while it is being changed.
const TRIES_MAX: usize = 10;

/// How long somebody else may hold the folder.
const LOCK_MAX: Duration = Duration::from_secs(10);

/// Links that are followed from one to the next.
const LINKS_MAX: usize = 40;

/// A file cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("could not {doing} {}", path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{} is read-only: allow writing it (`chmod u+w`), or add the entry by hand; --print shows it", path.display())]
    ReadOnly { path: PathBuf },
    #[error("{} is not a file", path.display())]
    NotAFile { path: PathBuf },
    #[error("{} is not UTF-8 text: its byte {at} cannot be read", path.display())]
    NotText { path: PathBuf, at: usize },
    #[error("{} has more than {BYTES_MAX} bytes", path.display())]
    TooLarge { path: PathBuf },
    #[error("{} is a link that leads to itself", path.display())]
    Loop { path: PathBuf },
    #[error("{} belongs to somebody else, and stays as it is: run this as its owner", path.display())]
    Owner { path: PathBuf },
    #[error("{} changes all the time: close the program that writes it, and try again", path.display())]
    Busy { path: PathBuf },
    #[error("another mcp-broker is changing files in {}: try again", folder.display())]
    Locked { folder: PathBuf },
}

/// What was done to a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    pub outcome: Outcome,
    /// The copy of what was there, if one was made now.
    pub backup: Option<PathBuf>,
    /// Whether others than its owner can read the file.
    pub is_open: bool,
}

/// A file as it is.
struct Found {
    text: String,
    metadata: Metadata,
}

/// The text of a file, if there is one.
///
/// # Errors
///
/// When it cannot be read, or is not text.
pub fn read(path: &Path) -> Result<Option<String>, FileError> {
    Ok(found(&target(path)?)?.map(|found| found.text))
}

/// Where the copy of a file is kept: beside it.
///
/// # Errors
///
/// When the file is a link that leads nowhere.
pub fn backup_of(path: &Path) -> Result<PathBuf, FileError> {
    let target = target(path)?;
    let mut name = target.file_name().map(ToOwned::to_owned).unwrap_or_default();
    name.push(".mcp-broker-backup");
    Ok(target.with_file_name(name))
}

/// Changes a file to what `plan` makes of it and of its backup, which is asked again if the file changes meanwhile.
///
/// `private` says that a new file is for its owner alone.
///
/// # Errors
///
/// When it cannot be read or written, or the plan fails. The file is then as it was.
pub async fn change<E: From<FileError>>(
    path: &Path,
    private: bool,
    mut plan: impl FnMut(Option<&str>, Option<&str>) -> Result<Outcome, E>,
) -> Result<Written, E> {
    let target = target(path)?;
    let backup = backup_of(&target)?;
    let folder = target.parent().unwrap_or(Path::new("/")).to_path_buf();
    // What is not going to change anything makes no folder.
    if found(&target)?.is_none() && !plan(None, None)?.changes() {
        return Ok(Written { outcome: plan(None, None)?, backup: None, is_open: false });
    }
    fs::create_dir_all(&folder).map_err(io("make the folder", &folder))?;
    let _lock = lock(&folder).await?;
    for _ in 0..TRIES_MAX {
        let before = found(&target)?;
        let kept = read(&backup)?;
        let outcome = plan(before.as_ref().map(|found| found.text.as_str()), kept.as_deref())?;
        if !outcome.changes() {
            let is_open = before.is_some_and(|found| found.metadata.mode() & 0o077 != 0);
            return Ok(Written { outcome, backup: None, is_open });
        }
        if let Some(written) = replaced(&target, &backup, before.as_ref(), outcome, private)? {
            return Ok(written);
        }
    }
    Err(FileError::Busy { path: target }.into())
}

/// Puts the new text in place, unless the file has changed.
fn replaced(
    target: &Path,
    backup: &Path,
    before: Option<&Found>,
    outcome: Outcome,
    private: bool,
) -> Result<Option<Written>, FileError> {
    if before.is_some_and(|found| found.metadata.permissions().readonly()) {
        return Err(FileError::ReadOnly { path: target.to_owned() });
    }
    let new = outcome.after.as_deref().map(|text| prepared(target, text, before, private)).transpose()?;
    if found(target)?.map(|found| found.text) != outcome.before {
        return Ok(None);
    }
    let mut made = None;
    if let Some(found) = before.filter(|_| outcome.keep) {
        put(prepared(backup, &found.text, before, true)?, backup)?;
        made = Some(backup.to_owned());
    }
    let mut is_open = false;
    match new {
        Some(new) => {
            is_open = new.as_file().metadata().map_err(io("read", target))?.mode() & 0o077 != 0;
            put(new, target)?;
        }
        None => fs::remove_file(target).map_err(io("remove", target))?,
    }
    if outcome.restored {
        fs::remove_file(backup).map_err(io("remove", backup))?;
    }
    Ok(Some(Written { outcome, backup: made, is_open }))
}

/// A new file beside `target`, as readable as the one that it replaces.
fn prepared(
    target: &Path,
    text: &str,
    old: Option<&Found>,
    private: bool,
) -> Result<tempfile::NamedTempFile, FileError> {
    let wrong = || io("write", target);
    let folder = target.parent().unwrap_or(Path::new("/"));
    let mode = if private || old.is_some() { 0o600 } else { 0o666 };
    let mut new = tempfile::Builder::new()
        .prefix(".mcp-broker-")
        .permissions(fs::Permissions::from_mode(mode))
        .tempfile_in(folder)
        .map_err(wrong())?;
    new.write_all(text.as_bytes()).map_err(wrong())?;
    if let Some(old) = old {
        let made = new.as_file().metadata().map_err(wrong())?;
        let owner = (old.metadata.uid(), old.metadata.gid());
        if owner != (made.uid(), made.gid()) {
            fchown(new.as_file(), Some(owner.0), Some(owner.1))
                .map_err(|_| FileError::Owner { path: target.to_owned() })?;
        }
        new.as_file().set_permissions(old.metadata.permissions()).map_err(wrong())?;
    }
    new.as_file().sync_all().map_err(wrong())?;
    Ok(new)
}

fn put(new: tempfile::NamedTempFile, target: &Path) -> Result<(), FileError> {
    new.persist(target).map_err(|error| io("replace", target)(error.error))?;
    let folder = target.parent().unwrap_or(Path::new("/"));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io("write", target))
}

fn found(path: &Path) -> Result<Option<Found>, FileError> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io("read", path)(error)),
    };
    if !metadata.is_file() {
        return Err(FileError::NotAFile { path: path.to_owned() });
    }
    if metadata.len() > BYTES_MAX {
        return Err(FileError::TooLarge { path: path.to_owned() });
    }
    let bytes = fs::read(path).map_err(io("read", path))?;
    let text = String::from_utf8(bytes)
        .map_err(|error| FileError::NotText { path: path.to_owned(), at: error.utf8_error().valid_up_to() + 1 })?;
    Ok(Some(Found { text, metadata }))
}

/// The file that a path leads to, also when that is not there yet.
fn target(path: &Path) -> Result<PathBuf, FileError> {
    let mut target = path.to_path_buf();
    for _ in 0..LINKS_MAX {
        match fs::read_link(&target) {
            Ok(next) => target = target.parent().unwrap_or(Path::new("/")).join(next),
            Err(_) => return Ok(target),
        }
    }
    Err(FileError::Loop { path: path.to_owned() })
}

/// Holds the folder until it is dropped.
async fn lock(folder: &Path) -> Result<File, FileError> {
    let held = File::open(folder).map_err(io("open the folder", folder))?;
    let waiting = tokio::task::spawn_blocking(move || flock(&held, FlockOperation::LockExclusive).map(|()| held));
    match tokio::time::timeout(LOCK_MAX, waiting).await {
        Ok(Ok(Ok(held))) => Ok(held),
        Ok(Ok(Err(error))) => Err(io("lock the folder", folder)(error.into())),
        Ok(Err(_)) | Err(_) => Err(FileError::Locked { folder: folder.to_owned() }),
    }
}

fn io(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> FileError + use<> {
    let path = path.to_owned();
    move |source| FileError::Io { doing, path, source }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn outcome(before: Option<&str>, after: &str) -> Outcome {
        Outcome { before: before.map(str::to_owned), after: Some(after.to_owned()), keep: true, restored: false }
    }

    #[tokio::test]
    async fn what_changed_meanwhile_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mcp.json");
        fs::write(&path, "one").unwrap();
        let mut plans = 0;
        let written = change::<FileError>(&path, false, |before, _| {
            plans += 1;
            if plans == 1 {
                fs::write(&path, "two").unwrap();
            }
            Ok(outcome(before, &format!("{} and ours", before.unwrap_or_default())))
        });
        assert_eq!(written.await.unwrap().outcome.before.as_deref(), Some("two"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "two and ours");
        assert_eq!(fs::read_to_string(backup_of(&path).unwrap()).unwrap(), "two");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "no temporary file is left");
    }

    #[tokio::test]
    async fn a_file_that_never_rests_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mcp.json");
        fs::write(&path, "0").unwrap();
        let mut plans = 0;
        let written = change::<FileError>(&path, false, |before, _| {
            plans += 1;
            fs::write(&path, plans.to_string()).unwrap();
            Ok(outcome(before, "ours"))
        });
        assert!(matches!(written.await, Err(FileError::Busy { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), TRIES_MAX.to_string());
    }

    #[tokio::test]
    async fn whoever_holds_the_folder_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mcp.json");
        fs::write(&path, "one").unwrap();
        let held = lock(folder.path()).await.unwrap();
        let changing = change::<FileError>(&path, false, |before, _| Ok(outcome(before, "ours")));
        let mut changing = std::pin::pin!(changing);
        assert!(changing.as_mut().now_or_never().is_none());
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");
        drop(held);
        changing.await.unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "ours");
    }
}
