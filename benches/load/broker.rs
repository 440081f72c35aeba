//! The processes that are measured.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::LazyLock,
};

use anyhow::Context as _;
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

/// The broker: as `MCP_BROKER_BENCH_PROGRAM` names it, or as it was built with this.
pub fn program() -> &'static Path {
    static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
        let named = std::env::var_os("MCP_BROKER_BENCH_PROGRAM");
        let program = named.map_or_else(|| env!("CARGO_BIN_EXE_mcp-broker").into(), PathBuf::from);
        // Workers start in another folder.
        std::path::absolute(&program).unwrap_or(program)
    });
    &PROGRAM
}

/// The fixture server, as `make bench` has built it.
pub fn fixture() -> anyhow::Result<PathBuf> {
    let built = Path::new(env!("CARGO_BIN_EXE_mcp-broker"));
    let path = built.parent().context("the program has a folder")?.join("examples/fixture-server");
    anyhow::ensure!(path.exists(), "{} is not built: run `make bench`", path.display());
    Ok(path)
}

/// A folder with a catalog that names the fixture.
pub struct Home {
    folder: tempfile::TempDir,
}

impl Home {
    /// With the fixture as a process, called `local`, and, at a URL, as `distant`.
    pub fn new(remote: Option<&str>) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut registry = json!({
            "local": {"description": "The fixture as a process", "command": [fixture()?, "stdio"]},
        });
        if let Some(url) = remote {
            registry["distant"] = json!({
                "description": "The fixture at a URL",
                "type": "remote",
                "remote": {"url": url, "transport_type": "streamable-http"},
            });
        }
        std::fs::write(folder.path().join("catalog.yaml"), json!({"registry": registry}).to_string())?;
        Ok(Self { folder })
    }

    /// With these servers instead, all from one image.
    pub fn with_images(self, names: &[String], image: &str) -> anyhow::Result<Self> {
        let registry: serde_json::Map<_, _> =
            names.iter().map(|name| (name.clone(), json!({"image": image, "description": "The fixture"}))).collect();
        std::fs::write(self.catalog(), json!({"registry": registry}).to_string())?;
        Ok(self)
    }

    /// A settings file with these settings.
    pub fn settings(&self, yaml: &str) -> anyhow::Result<String> {
        let path = self.folder.path().join("settings.yaml");
        std::fs::write(&path, yaml)?;
        Ok(path.display().to_string())
    }

    pub fn catalog(&self) -> String {
        self.folder.path().join("catalog.yaml").display().to_string()
    }

    pub fn data(&self) -> String {
        self.folder.path().join("data").display().to_string()
    }

    /// The URL of a new session of the broker that runs here.
    pub async fn new_session(&self) -> anyhow::Result<String> {
        let said = self.ask(&["session", "new"]).await?;
        let url = said.split_whitespace().find(|word| word.starts_with("http://")).context("a session has a URL")?;
        Ok(url.to_owned())
    }

    /// Waits until the log is arranged for questions about all calls that were made before: one is answered then.
    pub async fn rested(&self) -> anyhow::Result<()> {
        self.ask(&["audit", "--limit", "1"]).await.map(drop)
    }

    /// What a command says that asks the broker that runs here.
    async fn ask(&self, command: &[&str]) -> anyhow::Result<String> {
        let output = Command::new(program()).args(command).args(["--data-dir", &self.data()]).output().await?;
        anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    pub fn token(&self) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(self.folder.path().join("data/token"))?.trim().to_owned())
    }
}

/// Something that listens and says where in its first line.
pub struct Server {
    process: Child,
    pub url: String,
}

impl Server {
    pub async fn broker(home: &Home, more: &[&str]) -> anyhow::Result<Self> {
        let (data, catalog) = (home.data(), home.catalog());
        let arguments =
            ["serve", "--listen", "127.0.0.1:0", "--log", "warn", "--data-dir", &data, "--catalog", &catalog];
        Self::start(program(), &[&arguments[..], more].concat()).await
    }

    pub async fn fixture() -> anyhow::Result<Self> {
        Self::start(&fixture()?, &["http"]).await
    }

    async fn start(program: &Path, arguments: &[&str]) -> anyhow::Result<Self> {
        let mut process = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("could not start {}", program.display()))?;
        let mut lines = BufReader::new(process.stdout.take().context("there is an output")?).lines();
        let first = lines.next_line().await?.context("it says where it listens")?;
        let url = first.rsplit(' ').next().unwrap_or_default().to_owned();
        Ok(Self { process, url })
    }

    /// Memory that is its own or that it has touched, in KiB (`VmRSS` of `/proc`).
    pub fn resident_kib(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id().context("it runs")?))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("the kernel counts memory")?;
        Ok(line.split_whitespace().nth(1).context("a number")?.parse()?)
    }

    /// What a process that it has started as `command` keeps resident, and how much of that nobody shares, in KiB.
    pub fn child_kib(&self, command: &str) -> anyhow::Result<(u64, u64)> {
        let parent = format!("PPid:\t{}\n", self.process.id().context("it runs")?);
        let is_it = |folder: &Path| {
            let read = |name| std::fs::read_to_string(folder.join(name)).unwrap_or_default();
            read("status").contains(&parent) && read("cmdline").contains(command)
        };
        let child = std::fs::read_dir("/proc")?.flatten().map(|entry| entry.path()).find(|folder| is_it(folder));
        let rollup = std::fs::read_to_string(child.context("it has started one")?.join("smaps_rollup"))?;
        let sum = |names: &[&str]| -> u64 {
            let lines = rollup.lines().filter(|line| names.iter().any(|name| line.starts_with(name)));
            lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum()
        };
        Ok((sum(&["Rss:"]), sum(&["Private_Clean:", "Private_Dirty:"])))
    }

    /// Asks it to stop, and waits.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let id = rustix::process::Pid::from_raw(i32::try_from(self.process.id().context("it runs")?)?);
        rustix::process::kill_process(id.context("it runs")?, rustix::process::Signal::TERM)?;
        self.process.wait().await?;
        Ok(())
    }
}
