//! One program of an installation: with a deadline, bounded output, and nothing left running.

use std::{path::Path, process::Stdio, time::Duration};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{io::AsyncReadExt as _, process::Command};

use super::super::{
    orphans,
    process::{base_environment, describe},
};

/// What is kept of each of its two outputs.
const OUTPUT_BYTES_MAX: usize = 4 << 10;

/// How long what it left running may hold its output open.
const DRAIN_MAX: Duration = Duration::from_millis(500);

/// Variables by which npm, pip, uv and git are configured.
const INSTALLER_PREFIXES: [&str; 7] = ["npm_config_", "NPM_CONFIG_", "PIP_", "UV_", "GIT_", "PYENV_", "XDG_"];

/// Nobody is there to be asked: who would ask fails instead.
const NO_QUESTIONS: [(&str, &str); 4] = [
    ("GIT_TERMINAL_PROMPT", "0"),
    // Set and empty, so that none is looked for elsewhere.
    ("GIT_ASKPASS", ""),
    ("SSH_ASKPASS", ""),
    ("SSH_ASKPASS_REQUIRE", "never"),
];

/// A program to be run to its end.
pub(super) struct Step<'a> {
    pub(super) program: &'a str,
    pub(super) arguments: &'a [&'a str],
    pub(super) folder: &'a Path,
    /// Whether it asks a repository, which may want the login of the broker's user. Nothing that runs code of somebody
    /// else's does.
    pub(super) needs_login: bool,
}

/// It did not end well.
pub(super) enum StepError {
    Timeout,
    Failed(String),
}

/// The last of what a program wrote.
#[derive(Default)]
struct Last(Vec<u8>);

impl Last {
    async fn read(&mut self, stream: Option<impl tokio::io::AsyncRead + Unpin>) {
        let Some(mut stream) = stream else { return };
        let mut piece = [0; 4096];
        while let Ok(read @ 1..) = stream.read(&mut piece).await {
            self.0.extend_from_slice(&piece[..read]);
            if self.0.len() > 2 * OUTPUT_BYTES_MAX {
                self.0.drain(..self.0.len() - OUTPUT_BYTES_MAX);
            }
        }
    }

    fn text(&self) -> String {
        let start = self.0.len().saturating_sub(OUTPUT_BYTES_MAX);
        String::from_utf8_lossy(&self.0[start..]).trim().to_owned()
    }
}

impl Step<'_> {
    /// Runs it, for at most `limit`; `label` marks its processes, and what they start. Gives the last of its standard
    /// output.
    pub(super) async fn run(&self, label: &str, limit: Duration) -> Result<String, StepError> {
        let program = self.program;
        let mut child = self
            .command(label)
            .spawn()
            .map_err(|error| StepError::Failed(format!("could not start {program}: {error}")))?;
        let mut left = Left {
            group: child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw),
            label: label.to_owned(),
        };
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (mut out, mut err) = (Last::default(), Last::default());
        let status = {
            let reading = async { tokio::join!(out.read(stdout), err.read(stderr)) };
            let mut reading = std::pin::pin!(reading);
            let ended = async {
                tokio::select! {
                    status = child.wait() => (status, false),
                    _ = &mut reading => (child.wait().await, true),
                }
            };
            let ended = tokio::time::timeout(limit, ended).await;
            left.end().await;
            let Ok((status, read)) = ended else { return Err(StepError::Timeout) };
            if !read {
                let _ = tokio::time::timeout(DRAIN_MAX, reading).await;
            }
            status.map_err(|error| StepError::Failed(error.to_string()))?
        };
        if status.success() {
            return Ok(out.text());
        }
        let said: Vec<String> = [out.text(), err.text()].into_iter().filter(|text| !text.is_empty()).collect();
        let what = [program, self.arguments.first().unwrap_or(&"")].join(" ");
        let said = if said.is_empty() { "nothing".to_owned() } else { said.join("\n") };
        Err(StepError::Failed(format!("{} ended with {} and said: {said}", what.trim(), describe(Some(status)))))
    }

    fn command(&self, label: &str) -> Command {
        let configures = |name: &std::ffi::OsStr| {
            name.to_str().is_some_and(|name| INSTALLER_PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
        };
        let mut inherited = vec!["HOME".to_owned(), "USER".to_owned()];
        inherited.extend(self.needs_login.then(|| "SSH_AUTH_SOCK".to_owned()));
        let mut command = Command::new(self.program);
        command
            .args(self.arguments)
            .current_dir(self.folder)
            .env_clear()
            .envs(base_environment(&inherited))
            .env("GIT_SSH_COMMAND", "ssh -o BatchMode=yes")
            .envs(std::env::vars_os().filter(|(name, _)| configures(name)))
            .envs(NO_QUESTIONS)
            .env(orphans::VARIABLE, label)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        command
    }
}

/// What a step leaves running: ended once, whatever becomes of whoever waits for it.
struct Left {
    /// Until it is ended: afterwards the number may be another group's.
    group: Option<Pid>,
    label: String,
}

impl Left {
    async fn end(&mut self) {
        if let Some(ending) = self.begin_to_end() {
            let _ = ending.await;
        }
    }

    fn begin_to_end(&mut self) -> Option<tokio::task::JoinHandle<usize>> {
        let _ = kill_process_group(self.group.take()?, Signal::KILL);
        let label = std::mem::take(&mut self.label);
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => Some(runtime.spawn_blocking(move || orphans::kill_labelled(&label))),
            Err(_) => {
                orphans::kill_labelled(&label);
                None
            }
        }
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        // It goes on without being waited for.
        let _ending = self.begin_to_end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn gone(label: &str) {
        let gone = async {
            while !orphans::labelled(label).is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), gone).await.expect("nothing of it runs");
    }

    #[tokio::test]
    async fn a_step_that_nobody_waits_for_leaves_nothing_running() {
        let folder = tempfile::tempdir().unwrap();
        let label = format!("{}/step/", folder.path().display());
        let arguments = ["-c", "setsid sleep 1000 & sleep 1000"];
        let step = Step { program: "sh", arguments: &arguments, folder: folder.path(), needs_login: false };
        let running = async {
            while orphans::labelled(&label).len() < 3 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            _ = step.run(&label, Duration::from_secs(600)) => panic!("it ended"),
            () = running => {}
        }
        gone(&label).await;
    }

    #[tokio::test]
    async fn what_a_step_left_behind_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let label = format!("{}/step/", folder.path().display());
        let arguments = ["-c", "setsid sleep 1000 & echo done"];
        let step = Step { program: "sh", arguments: &arguments, folder: folder.path(), needs_login: false };
        let said = step.run(&label, Duration::from_secs(600)).await.ok();
        assert_eq!(said.as_deref(), Some("done"));
        gone(&label).await;
    }
}
