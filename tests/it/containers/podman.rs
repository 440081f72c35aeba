//! Podman, by the API that it has in common with Docker.

use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;

use super::{IMAGE, engine};
use crate::support::{Era, FixtureCatalog, TestBroker, broker::eventually, process::Home};

/// A Podman of the story's own. Limits and runtime are those that work inside containers and small machines, too.
struct Podman {
    folder: TempDir,
    service: Option<Child>,
}

impl Podman {
    async fn start() -> Option<Self> {
        if !rustix::process::geteuid().is_root() || Command::new("podman").arg("--version").output().is_err() {
            eprintln!("SKIPPED: `podman` is not there, or this is not root");
            return None;
        }
        let mut podman = Self { folder: tempfile::tempdir().unwrap(), service: None };
        let settings = format!(
            "[network]\nnetwork_backend = \"netavark\"\nnetwork_config_dir = \"{}\"\n[engine]\nruntime = \"runc\"\n\
             cgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\ninit_path = \"/usr/bin/docker-init\"\n\
             [containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n",
            podman.path("networks")
        );
        std::fs::write(podman.path("containers.conf"), settings).unwrap();
        let service = podman.command().args(["system", "service", "--time", "0", &podman.address()]).spawn();
        podman.service = Some(service.unwrap());
        eventually("Podman answers", async || podman.docker(&["version"]).is_some()).await;
        Some(podman)
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn address(&self) -> String {
        format!("unix://{}", self.path("sock"))
    }

    fn command(&self) -> Command {
        let mut command = Command::new("podman");
        command
            .env("CONTAINERS_CONF", self.path("containers.conf"))
            .args(["--root", &self.path("root"), "--runroot", &self.path("run"), "--tmpdir", &self.path("tmp")])
            .args(["--storage-driver", "vfs"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    fn docker(&self, arguments: &[&str]) -> Option<String> {
        let output = Command::new("docker").args(["--host", &self.address()]).args(arguments).output().unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap().trim().to_owned())
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let Some(mut service) = self.service.take() else { return };
        let _ = kill_process(Pid::from_child(&service), Signal::TERM);
        let _ = service.wait();
    }
}

#[tokio::test]
async fn podman_runs_servers_as_docker_does() {
    let Some(_engine) = engine().await else { return };
    let Some(podman) = Podman::start().await else { return };
    let mut saving = Command::new("docker").args(["save", IMAGE]).stdout(Stdio::piped()).spawn().unwrap();
    let loaded = podman.command().arg("load").stdin(saving.stdout.take().unwrap()).status().unwrap();
    assert!(loaded.success() && saving.wait().unwrap().success());
    // Images that were made here have no registry.
    let image = format!("localhost/{IMAGE}");

    let home = Home::with(&FixtureCatalog::new());
    let doctor = home.command(&["doctor"]).env("DOCKER_HOST", podman.address()).output().await.unwrap();
    let doctor = String::from_utf8(doctor.stdout).unwrap();
    assert!(doctor.contains("with Podman Engine") && doctor.contains(&podman.address()), "{doctor}");

    let catalog = FixtureCatalog::new()
        .image("box", &image, "")
        .image("offline", &image, "    disableNetwork: true")
        .image("exits", &image, "    env: [{name: FIXTURE_EXIT_AT_START, value: 137}]");
    let address = podman.address();
    let broker = TestBroker::with(catalog).containers(|settings| settings.engine = Some(address)).start().await;
    let client = broker.connect(Era::Legacy).await;
    for name in ["box", "offline"] {
        client.add(name).await;
        client.ok(&format!("{name}__echo"), json!({"text": name})).await;
    }
    let networks = ["network", "ls", "--quiet", "--filter", "label=mcp-broker.folder"];
    assert!((1..=2).contains(&podman.docker(&networks).unwrap().lines().count()), "one, and one for the next session");
    let said = client.call("mcp-add", json!({"name": "exits"})).await.to_string();
    assert!(said.contains("code 137"), "{said}");
    let slow = client.call("box__slow", json!({"ms": 60_000, "steps": 600}));
    let kills = async {
        client.wait_for("the call is under way", |told| !told.progress.is_empty()).await;
        let id = podman.docker(&["ps", "--quiet", "--filter", "label=mcp-broker.server=box"]).unwrap();
        podman.docker(&["kill", &id]).unwrap();
    };
    let (outcome, ()) = tokio::join!(slow, kills);
    assert!(outcome.to_string().contains("ended during the call"), "{outcome}");
    client.ok("box__echo", json!({"text": "again"})).await;

    broker.stop().await;
    assert_eq!(podman.docker(&["ps", "--all", "--quiet"]).as_deref(), Some(""));
    assert_eq!(podman.docker(&networks).as_deref(), Some(""));
}
