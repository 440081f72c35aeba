//! An engine of a story's own, which may be stopped, killed, and given too little room.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::broker::eventually;

pub(super) struct PrivateEngine {
    folder: TempDir,
    daemon: Option<Child>,
    mounted: bool,
    /// Told to have none, an engine takes away the bridge of the one that runs beside it.
    bridge: String,
}

impl PrivateEngine {
    /// One with that much room for images. None where this user cannot start one, which is said.
    pub(super) async fn start(room: Option<&str>) -> Option<Self> {
        if !rustix::process::geteuid().is_root() || Command::new("dockerd").arg("--version").output().is_err() {
            eprintln!("SKIPPED: only root can start an engine, and `dockerd` has to be there");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let bridge = format!("mcpt{}", std::process::id());
        let mut engine = Self { folder, daemon: None, mounted: false, bridge };
        link(&["add", "name", &engine.bridge, "type", "bridge"]);
        std::fs::create_dir(engine.path("data")).unwrap();
        if let Some(room) = room {
            let size = format!("size={room}");
            let target = engine.path("data");
            let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(target).status();
            engine.mounted = mounted.unwrap().success();
            assert!(engine.mounted, "a small file system can be made");
        }
        engine.begin().await;
        Some(engine)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn address(&self) -> String {
        format!("unix://{}", self.path("sock").display())
    }

    /// Starts it, again if it was stopped.
    pub(super) async fn begin(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.path("log")).unwrap();
        let daemon = Command::new("dockerd")
            .args(["--host", &self.address(), "--bridge", &self.bridge, "--shutdown-timeout=2"])
            .args(["--iptables=false", "--ip-masq=false", "--ip-forward=false"])
            .args(["--containerd-namespace=mcp-broker-test", "--containerd-plugins-namespace=mcp-broker-test-plugins"])
            .args([format!("--data-root={}", self.path("data").display())])
            .args([format!("--exec-root={}", self.path("run").display())])
            .args([format!("--pidfile={}", self.path("pid").display())])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.daemon = Some(daemon.unwrap());
        eventually("the engine answers", async || self.docker(&["version"]).is_some()).await;
    }

    /// Asks it to stop, and waits until it has.
    pub(super) fn end(&mut self) {
        let Some(mut daemon) = self.daemon.take() else { return };
        let pid = Pid::from_raw(i32::try_from(daemon.id()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        daemon.wait().unwrap();
    }

    /// What `docker` says to this engine; none if it fails.
    pub(super) fn docker(&self, arguments: &[&str]) -> Option<String> {
        let output = Command::new("docker").args(["--host", &self.address()]).args(arguments).output().unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap().trim().to_owned())
    }

    /// Gives it an image that the usual engine has.
    pub(super) fn copy(&self, image: &str) {
        let mut saving = Command::new("docker").args(["save", image]).stdout(Stdio::piped()).spawn().unwrap();
        let loaded = Command::new("docker")
            .args(["--host", &self.address(), "load", "--quiet"])
            .stdin(saving.stdout.take().unwrap())
            .stdout(Stdio::null())
            .status();
        assert!(loaded.unwrap().success() && saving.wait().unwrap().success());
    }
}

/// Works on this machine's network links.
fn link(arguments: &[&str]) {
    let done = Command::new("ip").arg("link").args(arguments).status();
    assert!(done.is_ok_and(|status| status.success()), "ip link {arguments:?}");
}

impl Drop for PrivateEngine {
    fn drop(&mut self) {
        self.end();
        link(&["delete", &self.bridge]);
        if self.mounted {
            let _ = Command::new("umount").arg("--lazy").arg(self.path("data")).status();
        }
    }
}
