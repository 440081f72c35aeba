//! A server as a process of its own.
//!
//! It gets a process group, a folder, and an environment that holds what it needs and nothing else of the broker's. It
//! stops by itself when its input closes; if it does not, its group is asked (SIGTERM) and then told (SIGKILL). Whatever it
//! started is ended with it: what is left in its group, and what carries its label in the environment.

use std::{
    io,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::AsyncReadExt as _,
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
};

use super::{
    launch::ProcessLaunch,
    orphans,
    tail::{Feed, Tail},
};
use crate::lifecycle::Tasks;

/// Variables of the broker's own environment that every server gets: where programs are, language, time zone, and how to
/// reach the network.
const PASSED: [&str; 22] = [
    "PATH",
    "LANG",
    "LANGUAGE",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "TMPDIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "NODE_EXTRA_CA_CERTS",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "NIX_SSL_CERT_FILE",
];

/// What a program that is installed or started inherits.
pub(crate) fn base_environment(also: &[String]) -> Vec<(String, std::ffi::OsString)> {
    PASSED
        .iter()
        .copied()
        .chain(also.iter().map(String::as_str))
        .filter_map(|name| std::env::var_os(name).map(|value| (name.to_owned(), value)))
        .collect()
}

/// A running process, and its three streams until they are taken.
pub(crate) struct Process {
    child: Child,
    group: Option<Pid>,
    label: String,
    tail: Tail,
}

/// What is to be run, once packages are installed.
pub(crate) struct Executable {
    pub(crate) program: PathBuf,
    /// Arguments that come before the entry's own.
    pub(crate) leading: Vec<String>,
    /// Where it starts, if that is not the instance's own folder.
    pub(crate) folder: Option<PathBuf>,
}

/// The process could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpawnError {
    #[error("could not make its folder {folder}")]
    Folder {
        folder: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("there is no program `{program}`: install it, or give its full path")]
    NotFound { program: String },
    #[error("could not start `{program}`")]
    Spawn {
        program: String,
        #[source]
        source: io::Error,
    },
}

impl Process {
    /// Starts the process. Its standard error is read into `tail` until it ends.
    pub(crate) fn spawn(
        executable: &Executable,
        launch: &ProcessLaunch,
        also_passed: &[String],
        label: String,
        tail: Tail,
        tasks: &Tasks,
        server: Arc<str>,
    ) -> Result<(Self, ChildStdout, ChildStdin), SpawnError> {
        let folder = &launch.folder;
        std::fs::create_dir_all(folder).map_err(|source| SpawnError::Folder { folder: folder.clone(), source })?;
        let mut command = command(executable, launch, also_passed, &label);
        let program = executable.program.display().to_string();
        let mut child = command.spawn().map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => SpawnError::NotFound { program: program.clone() },
            _ => SpawnError::Spawn { program: program.clone(), source },
        })?;
        let piped = || SpawnError::Spawn { program: program.clone(), source: io::Error::other("it has no pipes") };
        let stdin = child.stdin.take().ok_or_else(piped)?;
        let stdout = child.stdout.take().ok_or_else(piped)?;
        if let Some(stderr) = child.stderr.take() {
            tasks.spawn(read_errors(stderr, tail.clone(), server));
        }
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Ok((Self { child, group, label, tail }, stdout, stdin))
    }

    pub(crate) fn tail(&self) -> &Tail {
        &self.tail
    }

    /// Waits for the process to end, for at most `limit`.
    pub(crate) async fn exited(&mut self, limit: Duration) -> Option<ExitStatus> {
        tokio::time::timeout(limit, self.child.wait()).await.ok()?.ok()
    }

    /// Ends the process, whose input is closed already, and everything it started. Returns how it ended.
    pub(crate) async fn stop(mut self, grace: Duration) -> Option<ExitStatus> {
        let mut status = self.exited(grace).await;
        if status.is_none() {
            self.signal(Signal::TERM);
            status = self.exited(grace).await;
        }
        self.signal(Signal::KILL);
        if status.is_none() {
            status = self.child.wait().await.ok();
        }
        let label = std::mem::take(&mut self.label);
        let _ = tokio::task::spawn_blocking(move || orphans::kill_labelled(&label)).await;
        status
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

fn command(executable: &Executable, launch: &ProcessLaunch, also_passed: &[String], label: &str) -> Command {
    let mut command = Command::new(&executable.program);
    command
        .args(&executable.leading)
        .args(&launch.arguments)
        .current_dir(executable.folder.as_ref().unwrap_or(&launch.folder))
        .env_clear()
        .envs(base_environment(also_passed))
        .env("HOME", &launch.folder)
        .envs(launch.environment.iter().map(|(name, value)| (name, value.reveal())))
        .env(orphans::VARIABLE, label)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    command
}

async fn read_errors(mut stderr: ChildStderr, tail: Tail, server: Arc<str>) {
    let (mut feed, mut piece) = (Feed::to(tail), [0; 4096]);
    while let Ok(read @ 1..) = stderr.read(&mut piece).await {
        tracing::debug!(server.name = &*server, "a server wrote to its standard error");
        feed.take(&piece[..read]);
    }
}

/// How a process ended, in words.
pub(crate) fn describe(status: Option<ExitStatus>) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match status {
        Some(status) => match (status.code(), status.signal()) {
            (Some(code), _) => format!("code {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "an unknown status".to_owned(),
        },
        None => "an unknown status".to_owned(),
    }
}

/// Whether `program` can be started: it is a path to a file, or in one of the folders of `PATH`.
pub(crate) fn find_program(program: &str) -> Option<PathBuf> {
    let executable = |path: &Path| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    };
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(|path| executable(path));
    }
    std::env::split_paths(&std::env::var_os("PATH")?).map(|folder| folder.join(program)).find(|path| executable(path))
}
