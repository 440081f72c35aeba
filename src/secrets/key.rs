//! The key that secrets are sealed with.

use std::{
    io::Write as _,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use data_encoding::BASE64;
use zeroize::Zeroizing;

use crate::ids::random;

pub(super) const FILE: &str = "master.key";
const VARIABLE: &str = "MCP_BROKER_MASTER_KEY";

pub(super) type Key = Zeroizing<[u8; 32]>;

/// There is no usable key.
#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    #[error("{VARIABLE} must be 32 bytes in base 64 (make one with `openssl rand -base64 32`)")]
    Variable,
    #[error("{path} must hold 32 bytes in base 64: restore it from a backup")]
    Malformed { path: PathBuf },
    #[error("{path} can be read by others (mode {mode:o}): run `chmod 600 {path}`")]
    TooOpen { path: PathBuf, mode: u32 },
    #[error("could not use the key file {path}")]
    Io {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// The key from the environment, or from the data folder, where one is made if there is none.
pub(super) fn load(folder: &Path) -> Result<Key, MasterKeyError> {
    if let Some(value) = std::env::var_os(VARIABLE).filter(|value| !value.is_empty()) {
        return value.to_str().and_then(decode).ok_or(MasterKeyError::Variable);
    }
    let path = folder.join(FILE);
    match read(&path) {
        Err(MasterKeyError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => create(&path),
        outcome => outcome,
    }
}

fn read(path: &Path) -> Result<Key, MasterKeyError> {
    let wrong = |source| MasterKeyError::Io { path: path.to_owned(), source };
    let mode = std::fs::metadata(path).map_err(wrong)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(MasterKeyError::TooOpen { path: path.to_owned(), mode });
    }
    let text = Zeroizing::new(std::fs::read_to_string(path).map_err(wrong)?);
    decode(&text).ok_or_else(|| MasterKeyError::Malformed { path: path.to_owned() })
}

fn create(path: &Path) -> Result<Key, MasterKeyError> {
    let wrong = |source| MasterKeyError::Io { path: path.to_owned(), source };
    let key = Zeroizing::new(random::<32>());
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(wrong)?;
    let text = Zeroizing::new(BASE64.encode(&*key));
    file.write_all(text.as_bytes()).and_then(|()| file.write_all(b"\n")).map_err(wrong)?;
    file.sync_all().map_err(wrong)?;
    Ok(key)
}

fn decode(text: &str) -> Option<Key> {
    let bytes = Zeroizing::new(BASE64.decode(text.trim().as_bytes()).ok()?);
    <[u8; 32]>::try_from(bytes.as_slice()).ok().map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_kept_to_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let first = load(folder.path()).unwrap();
        assert_eq!(*load(folder.path()).unwrap(), *first);
        let path = folder.path().join(FILE);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(load(folder.path()), Err(MasterKeyError::TooOpen { .. })));
    }

    #[test]
    fn a_damaged_key_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        load(folder.path()).unwrap();
        std::fs::write(folder.path().join(FILE), "damaged").unwrap();
        assert!(matches!(load(folder.path()), Err(MasterKeyError::Malformed { .. })));
    }
}
