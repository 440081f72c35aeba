//! Which folders of this machine a container may see.
//!
//! A catalog entry is somebody else's word, so a folder is mounted only if the operator has allowed it, and read-only unless
//! the operator has allowed writing. Links are followed before that is decided.

use std::path::{Path, PathBuf};

/// Never mounted, allowed or not: they lead out of the container.
const FORBIDDEN: [&str; 9] =
    ["/proc", "/sys", "/dev", "/etc", "/run", "/var/run", "/var/lib/docker", "/var/lib/containers", "/boot"];

/// Parts of a path that hold people's keys.
const SENSITIVE: [&str; 8] = [".ssh", ".gnupg", ".aws", ".azure", ".kube", ".docker", ".config", ".netrc"];

/// A folder or volume cannot be mounted.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MountError {
    #[error("`{spec}` is no volume: it has to be source:target or source:target:ro")]
    Malformed { spec: String },
    #[error(
        "the container is not to see {path}: add it, or a folder above it, to containers.allowed_paths in the settings"
    )]
    NotAllowed { path: PathBuf },
    #[error("a container never sees {path}")]
    Forbidden { path: PathBuf },
    #[error("there is no {path}")]
    Missing { path: PathBuf },
    #[error("{path} leads to another place than when it was agreed to: agree to the file that names it again")]
    Moved { path: PathBuf },
}

/// Where something is mounted from.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// A folder of this machine, with links followed.
    Folder { path: PathBuf, writable: bool },
    /// A volume of the engine's.
    Volume { name: String, read_only: bool },
}

/// Reads an entry's volume, and checks it against what the operator allows.
pub(super) fn mount(spec: &str, allowed: &[PathBuf], writable: &[PathBuf]) -> Result<(Source, String), MountError> {
    let malformed = || MountError::Malformed { spec: spec.to_owned() };
    let (source, target, read_only) = match spec.split(':').collect::<Vec<_>>()[..] {
        [source, target] => (source, target, false),
        [source, target, options] => (source, target, options.split(',').any(|option| option == "ro")),
        _ => return Err(malformed()),
    };
    if source.is_empty() || !target.starts_with('/') {
        return Err(malformed());
    }
    if !source.starts_with('/') {
        let valid = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '.' | '-');
        if !source.chars().all(valid) || source.starts_with('.') {
            return Err(malformed());
        }
        return Ok((Source::Volume { name: source.to_owned(), read_only }, target.to_owned()));
    }
    let path = Path::new(source);
    let path = path.canonicalize().map_err(|_| MountError::Missing { path: path.to_owned() })?;
    if is_forbidden(&path) {
        return Err(MountError::Forbidden { path });
    }
    if !is_under(&path, allowed) && !is_under(&path, writable) {
        return Err(MountError::NotAllowed { path });
    }
    let writable = !read_only && is_under(&path, writable);
    Ok((Source::Folder { path, writable }, target.to_owned()))
}

/// Checks a folder that a person agreed to, with links followed: it must still be that one, and no container sees what
/// leads out of it, agreed to or not.
pub(super) fn agreed(path: &Path) -> Result<(), MountError> {
    let now = path.canonicalize().map_err(|_| MountError::Missing { path: path.to_owned() })?;
    if now != path {
        return Err(MountError::Moved { path: path.to_owned() });
    }
    if is_forbidden(path) { Err(MountError::Forbidden { path: path.to_owned() }) } else { Ok(()) }
}

/// Whether no container ever sees that path, which has its links followed.
pub(crate) fn is_forbidden(path: &Path) -> bool {
    path == Path::new("/")
        || FORBIDDEN.iter().any(|forbidden| path.starts_with(forbidden))
        || path.iter().any(|part| SENSITIVE.iter().any(|sensitive| part == *sensitive))
        || path.extension().is_some_and(|extension| extension == "sock")
}

fn is_under(path: &Path, folders: &[PathBuf]) -> bool {
    folders.iter().filter_map(|folder| folder.canonicalize().ok()).any(|folder| path.starts_with(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_allowed_folders_are_mounted_and_read_only_unless_allowed() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for name in ["read", "write", "other", "read/.ssh"] {
            std::fs::create_dir_all(root.join(name)).unwrap();
        }
        std::os::unix::fs::symlink(root.join("other"), root.join("read/link")).unwrap();
        let (allowed, writable) = ([root.join("read")], [root.join("write")]);
        let mounted = |path: &str| mount(&format!("{}:/x", root.join(path).display()), &allowed, &writable);
        let source = |path: &str, writable| Source::Folder { path: root.join(path), writable };
        assert_eq!(mounted("read").unwrap().0, source("read", false));
        assert_eq!(mounted("write").unwrap().0, source("write", true));
        assert_eq!(mounted("other").unwrap_err(), MountError::NotAllowed { path: root.join("other") });
        assert_eq!(mounted("read/link").unwrap_err(), MountError::NotAllowed { path: root.join("other") });
        assert_eq!(mounted("read/../other").unwrap_err(), MountError::NotAllowed { path: root.join("other") });
        assert_eq!(mounted("read/.ssh").unwrap_err(), MountError::Forbidden { path: root.join("read/.ssh") });
        assert_eq!(mounted("nowhere").unwrap_err(), MountError::Missing { path: root.join("nowhere") });
        let everything = [PathBuf::from("/")];
        for path in ["/", "/etc", "/proc/self"] {
            let refused = mount(&format!("{path}:/x"), &everything, &everything).unwrap_err();
            assert!(matches!(refused, MountError::Forbidden { .. }), "{refused}");
        }
    }

    #[test]
    fn a_volume_is_a_name() {
        let volume = |spec| mount(spec, &[], &[]);
        let (source, target) = volume("notes:/data:ro").unwrap();
        assert_eq!(source, Source::Volume { name: "notes".into(), read_only: true });
        assert_eq!(target, "/data");
        for spec in ["", "notes", "notes:data", ":/data", "../x:/data", "a/b:/data", "a:/b:ro:x"] {
            assert!(matches!(volume(spec), Err(MountError::Malformed { .. })), "{spec}");
        }
    }
}
