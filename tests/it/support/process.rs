//! The broker as a process of its own, as its users run it; it can be killed.

use std::{
    path::{Path, PathBuf},
    process::{Output, Stdio},
    sync::Arc,
};

use mcp_broker::supervisor::{label_of, orphans::labelled};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use super::{Era, FixtureCatalog, TestClient, broker::eventually, client::all_capabilities};

/// A data folder and a catalog, and whatever broker runs on them.
pub struct BrokerProcess {
    child: Child,
    pub url: String,
    pub home: Home,
}

/// A data folder with a catalog.
#[derive(Clone)]
pub struct Home {
    folder: Arc<Folder>,
    catalog: PathBuf,
    environment: Vec<(String, String)>,
}

/// A temporary folder. What brokers on it have left running ends with it, when a test has failed too.
struct Folder(TempDir);

impl Folder {
    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        for process in labelled(&label_of(&self.data())) {
            let _ = rustix::process::kill_process(process, rustix::process::Signal::KILL);
        }
    }
}

pub fn program() -> &'static str {
    env!("CARGO_BIN_EXE_mcp-broker")
}

impl Home {
    pub fn with(catalog: &FixtureCatalog) -> Self {
        let folder = Arc::new(Folder(tempfile::tempdir().expect("there is room for temporary files")));
        let catalog = catalog.write(folder.0.path());
        Self { folder, catalog, environment: Vec::new() }
    }

    /// The same with a variable in the environment of every command.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn data(&self) -> PathBuf {
        self.folder.data()
    }

    pub fn token(&self) -> String {
        std::fs::read_to_string(self.data().join("token")).expect("there is a token").trim().to_owned()
    }

    /// A command on this data folder.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.args(arguments).env("MCP_BROKER_DATA_DIR", self.data()).kill_on_drop(true);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a command to its end.
    pub async fn run(&self, arguments: &[&str]) -> Ran {
        let output = self.command(arguments).stdin(Stdio::null()).output().await.expect("the command runs");
        Ran(output)
    }

    /// Runs a command to its end with something on its standard input.
    pub async fn run_with(&self, arguments: &[&str], input: &str) -> Ran {
        let mut command = self.command(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
        Ran(child.wait_with_output().await.unwrap())
    }

    /// `mcp-broker stdio` on this data folder.
    pub fn stdio(&self, arguments: &[&str]) -> Stdioed {
        let catalog = self.catalog.display().to_string();
        let mut child = self
            .command(&["stdio", "--catalog", &catalog])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the command runs");
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Stdioed { child, stdin, stdout }
    }

    pub async fn serve(&self) -> BrokerProcess {
        self.serve_at("127.0.0.1:0").await
    }

    pub async fn serve_at(&self, address: &str) -> BrokerProcess {
        self.serve_with(address, &[]).await
    }

    /// A broker that may not serve yet.
    pub fn starting_at(&self, address: &str, more: &[&str]) -> Child {
        let catalog = self.catalog.display().to_string();
        let usual = ["serve", "--listen", address, "--catalog", &catalog, "--log", "warn"];
        self.command(&[&usual[..], more].concat())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the command runs")
    }

    pub async fn serve_with(&self, address: &str, more: &[&str]) -> BrokerProcess {
        let mut child = self.starting_at(address, more);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next_line().await.unwrap().expect("the broker says where it listens");
        let url = first.rsplit(' ').next().unwrap().to_owned();
        // Nobody reads the rest, as with a program that only wants to know where to connect.
        drop(lines);
        let served = BrokerProcess { child, url, home: self.clone() };
        eventually("the broker answers", async || {
            reqwest::get(served.url.replace("/mcp", "/health"))
                .await
                .is_ok_and(|response| response.status().is_success())
        })
        .await;
        served
    }

    /// Nothing that a broker on this folder started runs any more.
    pub fn has_processes(&self) -> bool {
        !labelled(&label_of(&self.data())).is_empty()
    }

    pub fn path(&self) -> &Path {
        self.folder.0.path()
    }
}

/// A command that has run.
pub struct Ran(pub Output);

impl Ran {
    pub fn code(&self) -> i32 {
        self.0.status.code().unwrap_or(-1)
    }

    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.0.stdout).into_owned()
    }

    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.0.stderr).into_owned()
    }

    pub fn ok(&self) -> String {
        assert_eq!(self.code(), 0, "{}", self.err());
        self.out()
    }
}

/// `mcp-broker stdio` with its streams.
pub struct Stdioed {
    pub child: Child,
    pub stdin: ChildStdin,
    pub stdout: ChildStdout,
}

impl Stdioed {
    /// A client on the streams, and the process.
    pub async fn client(self, era: Era) -> (TestClient, Child) {
        let client = TestClient::over_streams((self.stdout, self.stdin), era, all_capabilities()).await;
        (client.expect("the client connects"), self.child)
    }
}

impl BrokerProcess {
    pub async fn connect(&self, era: Era) -> TestClient {
        TestClient::http(&self.url, Some(&self.home.token()), era).await
    }

    pub fn address(&self) -> String {
        self.url.trim_start_matches("http://").trim_end_matches("/mcp").to_owned()
    }

    pub fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Asks it to stop, as a person or a service manager does.
    pub async fn terminate(mut self) -> i32 {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.child.id().unwrap()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().await.unwrap().code().unwrap_or(-1)
    }

    /// Kills it with SIGKILL.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }
}
