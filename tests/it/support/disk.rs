//! Disks that can be full, or slow.

use std::path::{Path, PathBuf};

use super::process::Home;

/// A file system with little room, while it is mounted.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None`, with a word about it, where this process may not mount. A size is as `mount` takes it (`4m`).
    pub fn mount(at: &Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let options = format!("size={size}");
        let mount = std::process::Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at).output();
        if mount.is_ok_and(|mounted| mounted.status.success()) {
            return Some(Self(at.to_owned()));
        }
        eprintln!("SKIPPED: a small file system cannot be mounted here");
        None
    }

    /// Leaves no room on it.
    pub fn fill(&self) {
        use std::io::Write as _;
        let mut filler = std::fs::File::create(self.filler()).unwrap();
        while filler.write_all(&[0; 4096]).is_ok() {}
    }

    /// Makes room again.
    pub fn free(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Has every command of `home` write its database to a slow disk. Gives a file that is there once something was.
#[cfg(target_os = "linux")]
pub fn slow(home: Home) -> (Home, PathBuf) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/support/slow_disk.c");
    let (library, seen) = (home.path().join("slow_disk.so"), home.path().join("slow_disk.seen"));
    let mut compile = std::process::Command::new("cc");
    compile.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).arg("-ldl");
    assert!(compile.status().expect("there is a C compiler: SQLite was built").success());
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    (home.variable("LD_PRELOAD", &text(&library)).variable("SLOW_DISK_SEEN", &text(&seen)), seen)
}
