//! The data folder, which one broker holds at a time.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

const LOCK: &str = "broker.lock";

/// The data folder, held. Letting go of it lets another broker take it.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    _lock: File,
}

/// The data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    #[error("another broker is running on the data folder {path}: stop it, or name another folder with --data-dir")]
    Held { path: PathBuf },
    #[error(
        "could not use the data folder {path}: it has to be a folder that can be written to (--data-dir names another)"
    )]
    Unusable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl DataFolder {
    /// Makes the folder if it is not there (mode 0700) and takes it.
    ///
    /// # Errors
    ///
    /// When another broker holds it, or it cannot be written to.
    pub fn take(path: &Path) -> Result<Self, FolderError> {
        let wrong = |source| FolderError::Unusable { path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(wrong)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(path.join(LOCK))
            .map_err(wrong)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(FolderError::Held { path: path.to_owned() }),
            Err(error) => Err(wrong(error.into())),
        }
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_folder_has_one_holder_and_is_its_owners_alone() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("new/folder");
        let held = DataFolder::take(&path).unwrap();
        assert!(matches!(DataFolder::take(&path), Err(FolderError::Held { .. })));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        drop(held);
        DataFolder::take(&path).unwrap();
    }

    #[test]
    fn a_file_is_not_a_folder() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("file");
        std::fs::write(&path, "").unwrap();
        assert!(matches!(DataFolder::take(&path), Err(FolderError::Unusable { .. })));
    }
}
