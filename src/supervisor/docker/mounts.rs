//! Which folders of this machine a container may see.
//!
//! A catalog entry is somebody else's word, so a folder is mounted only if the operator has allowed it, and read-only unless
//! the operator has allowed writing. Links are followed before that is decided.

use std::{
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
};

/// Never mounted, allowed or not, nor what they are in: they lead out of the container.
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
    #[error("a container never sees {path}{}", because(.path, .of))]
    Forbidden { path: PathBuf, of: PathBuf },
    #[error(
        "a container never sees a whole home folder ({path}), for the keys in it: name a folder in it that is needed"
    )]
    Home { path: PathBuf },
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

fn because(path: &Path, of: &Path) -> String {
    match path {
        _ if path == of => String::new(),
        _ if of.starts_with(path) => format!(", because {} is in it: name a folder in it that is needed", of.display()),
        _ => format!(", because it is in {}", of.display()),
    }
}

/// Reads an entry's volume, and checks it against what the operator allows. `data` is the broker's own folder.
pub(super) fn mount(
    spec: &str,
    allowed: &[PathBuf],
    writable: &[PathBuf],
    data: &Path,
) -> Result<(Source, String), MountError> {
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
    permitted(&path, Some(data))?;
    if !is_under(&path, allowed) && !is_under(&path, writable) {
        return Err(MountError::NotAllowed { path });
    }
    let writable = !read_only && is_under(&path, writable);
    Ok((Source::Folder { path, writable }, target.to_owned()))
}

/// Checks a folder that a person agreed to, with links followed: it must still be that one, and no container sees what
/// leads out of it, agreed to or not.
pub(super) fn agreed(path: &Path, data: &Path) -> Result<(), MountError> {
    let now = path.canonicalize().map_err(|_| MountError::Missing { path: path.to_owned() })?;
    if now != path {
        return Err(MountError::Moved { path: path.to_owned() });
    }
    permitted(path, Some(data))
}

/// Refuses what no container ever sees, of a path that has its links followed: what leads out of it (a socket among that,
/// whatever it is called) or holds people's keys, the broker's own folder if it is known, and every folder that one of
/// these is in.
pub(crate) fn permitted(path: &Path, data: Option<&Path>) -> Result<(), MountError> {
    let refused = |of: &Path| Err(MountError::Forbidden { path: path.to_owned(), of: of.to_owned() });
    let is_key = |part: &std::ffi::OsStr| SENSITIVE.iter().any(|sensitive| part == *sensitive);
    let is_socket = path.extension().is_some_and(|extension| extension == "sock")
        || std::fs::metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if is_socket || path.iter().any(is_key) {
        return refused(path);
    }
    let leads = |folder: &Path| path.starts_with(folder) || folder.starts_with(path);
    // A folder of the system may be a link to where it is.
    let forbidden =
        FORBIDDEN.iter().flat_map(|named| [Some(PathBuf::from(named)), Path::new(named).canonicalize().ok()]);
    let data = data.map(|data| data.canonicalize().unwrap_or_else(|_| data.to_owned()));
    if let Some(of) = forbidden.flatten().chain(data).find(|folder| leads(folder)) {
        return refused(&of);
    }
    // A home folder holds keys, and what is in it need not.
    match home_in(path) {
        Some(home) if home == path => Err(MountError::Home { path: home }),
        Some(home) => refused(&home),
        None => Ok(()),
    }
}

/// The home folder that a path is, or that is in it.
fn home_in(path: &Path) -> Option<PathBuf> {
    let own = std::env::home_dir().filter(|home| home.is_absolute()).map(|home| home.canonicalize().unwrap_or(home));
    if let Some(home) = own.into_iter().chain([PathBuf::from("/root")]).find(|home| home.starts_with(path)) {
        return Some(home);
    }
    let homes = [Path::new("/home"), Path::new("/Users")];
    let is_home = homes.iter().any(|homes| path == *homes || path.parent() == Some(*homes));
    is_home.then(|| path.to_owned())
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
        let data = root.join("data");
        let mounted = |path: &str| mount(&format!("{}:/x", root.join(path).display()), &allowed, &writable, &data);
        let source = |path: &str, writable| Source::Folder { path: root.join(path), writable };
        assert_eq!(mounted("read").unwrap().0, source("read", false));
        assert_eq!(mounted("write").unwrap().0, source("write", true));
        assert_eq!(mounted("other").unwrap_err(), MountError::NotAllowed { path: root.join("other") });
        assert_eq!(mounted("read/link").unwrap_err(), MountError::NotAllowed { path: root.join("other") });
        assert_eq!(mounted("read/../other").unwrap_err(), MountError::NotAllowed { path: root.join("other") });
        let key = root.join("read/.ssh");
        assert_eq!(mounted("read/.ssh").unwrap_err(), MountError::Forbidden { path: key.clone(), of: key });
        assert_eq!(mounted("nowhere").unwrap_err(), MountError::Missing { path: root.join("nowhere") });
        let everything = [PathBuf::from("/")];
        for path in ["/", "/etc", "/proc/self"] {
            let refused = mount(&format!("{path}:/x"), &everything, &everything, &data).unwrap_err();
            assert!(matches!(refused, MountError::Forbidden { .. }), "{refused}");
        }
    }

    #[test]
    fn what_holds_a_folder_that_no_container_sees_is_not_mounted_either() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let data = root.join("share/broker");
        for name in ["share/broker/packages", "share/beside"] {
            std::fs::create_dir_all(root.join(name)).unwrap();
        }
        let home = std::env::home_dir().unwrap();
        let home = home.canonicalize().unwrap_or(home);
        let refused = [
            Path::new("/").to_owned(),
            "/var".into(),
            "/var/lib".into(),
            "/home".into(),
            "/home/somebody".into(),
            "/root".into(),
            home.clone(),
            home.parent().unwrap_or(&home).to_owned(),
            root.clone(),
            root.join("share"),
            data.clone(),
            root.join("share/broker/packages"),
        ];
        for path in refused {
            let said = permitted(&path, Some(&data)).unwrap_err();
            assert!(matches!(said, MountError::Forbidden { .. } | MountError::Home { .. }), "{said}");
            if path.exists() {
                assert!(agreed(&path, &data).is_err(), "{}", path.display());
                let everything = [PathBuf::from("/")];
                assert!(mount(&format!("{}:/x", path.display()), &everything, &everything, &data).is_err());
            }
        }
        assert_eq!(agreed(&root.join("share/beside"), &data), Ok(()));
        for path in ["/home/somebody/work", "/var/www", "/srv"] {
            assert_eq!(permitted(Path::new(path), Some(&data)), Ok(()));
        }
        let said = permitted(&root.join("share"), Some(&data)).unwrap_err().to_string();
        assert!(said.ends_with(&format!("because {} is in it: name a folder in it that is needed", data.display())));
    }

    #[test]
    fn a_socket_is_not_mounted_whatever_it_is_called() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap().join("agent.4242");
        let _agent = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert_eq!(permitted(&path, None), Err(MountError::Forbidden { path: path.clone(), of: path.clone() }));
        let everything = [PathBuf::from("/")];
        assert!(mount(&format!("{}:/agent", path.display()), &everything, &[], Path::new("/nowhere")).is_err());
        assert!(agreed(&path, Path::new("/nowhere")).is_err());
    }

    #[test]
    fn a_volume_is_a_name() {
        let volume = |spec| mount(spec, &[], &[], Path::new("/nowhere"));
        let (source, target) = volume("notes:/data:ro").unwrap();
        assert_eq!(source, Source::Volume { name: "notes".into(), read_only: true });
        assert_eq!(target, "/data");
        for spec in ["", "notes", "notes:data", ":/data", "../x:/data", "a/b:/data", "a:/b:ro:x"] {
            assert!(matches!(volume(spec), Err(MountError::Malformed { .. })), "{spec}");
        }
    }
}
