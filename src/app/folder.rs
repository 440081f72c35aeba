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
    #[error(
        "another broker is running on the data folder {path}; it may be the `mcp-broker stdio` of a client program, which is \
         the broker when no `serve` runs before it. Stop it (`mcp-broker status` says what it is), or name another folder with \
         --data-dir"
    )]
    Held { path: PathBuf },
    #[error(
        "could not use the data folder {path}: it has to be a folder that can be written to (--data-dir names another)"
    )]
    Unusable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "the data folder {path} is on a network file system ({system}), where neither its lock nor SQLite's write-ahead \
         log can be relied on: name a folder on a local disk with --data-dir"
    )]
    Network { path: PathBuf, system: &'static str },
}

/// The name of a file system that is another machine's, by its number in statfs(2).
#[cfg(target_os = "linux")]
fn network_file_system(number: rustix::fs::FsWord) -> Option<&'static str> {
    // The numbers are 32 bits wide, whatever the type is and however its sign is taken.
    match number as u32 {
        0x6969 => Some("NFS"),
        0x517b => Some("SMB"),
        0xfe53_4d42 => Some("SMB2"),
        0xff53_4d42 => Some("CIFS"),
        0x5346_414f | 0x6b41_4653 => Some("AFS"),
        0x00c3_6400 => Some("Ceph"),
        0x7375_7245 => Some("Coda"),
        _ => None,
    }
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
        #[cfg(target_os = "linux")]
        if let Some(system) = network_file_system(rustix::fs::statfs(path).map_err(|error| wrong(error.into()))?.f_type)
        {
            return Err(FolderError::Network { path: path.to_owned(), system });
        }
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
    #[cfg(target_os = "linux")]
    fn network_file_systems_are_told_from_local_ones() {
        assert_eq!(network_file_system(0x6969), Some("NFS"));
        assert_eq!(network_file_system(0xff53_4d42_u32 as _), Some("CIFS"));
        for local in [0xef53, 0x0102_1994, 0x9123_683e_u32 as _, 0x5846_5342, 0x794c_7630] {
            assert_eq!(network_file_system(local), None, "{local:#x}");
        }
    }

    #[test]
    fn a_file_is_not_a_folder() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("file");
        std::fs::write(&path, "").unwrap();
        assert!(matches!(DataFolder::take(&path), Err(FolderError::Unusable { .. })));
    }
}
