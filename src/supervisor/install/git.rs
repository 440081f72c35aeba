//! Git repositories: which commit a branch or tag is, and its clone.
//!
//! A clone is shallow, of one commit, and installed once. Its folder is where its server starts, in whatever session: what
//! a server keeps there is seen by its other instances, unlike what it keeps in its home folder.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::{InstallError, Installer, PackageSpec, Registry, Step, installer_for, key, label};
use crate::{catalog::git::Command, supervisor::process::Executable};

const SOURCE: &str = "source";

/// Somebody waits to be told which commit a branch is.
const RESOLVE_MAX: Duration = Duration::from_secs(60);

/// The commit of a clone.
const COMMIT: &str = ".commit";

/// Whether it is the whole name of a commit.
fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl Installer {
    /// The commit that a branch or tag of a repository is now; without one, that of its default branch.
    pub(crate) async fn resolve(&self, url: &str, reference: Option<&str>) -> Result<String, InstallError> {
        let wanted = reference.unwrap_or("HEAD");
        if is_commit(wanted) {
            return Ok(wanted.to_ascii_lowercase());
        }
        let git = installer_for(Registry::Git)?;
        let failed = |problem: String| InstallError::Failed { package: url.to_owned(), problem };
        let mut names = vec![wanted.to_owned()];
        if wanted != "HEAD" && !wanted.starts_with("refs/") {
            names =
                vec![format!("refs/heads/{wanted}"), format!("refs/tags/{wanted}^{{}}"), format!("refs/tags/{wanted}")];
        }
        let mut arguments = vec!["ls-remote", "--", url];
        arguments.extend(names.iter().map(String::as_str));
        std::fs::create_dir_all(&self.folder).map_err(|error| failed(error.to_string()))?;
        let asking = Step { program: git, arguments: &arguments, folder: &self.folder, needs_login: true };
        let limit = self.limit.min(RESOLVE_MAX);
        let listed = self.step(url, "resolve", asking, limit).await.map_err(|error| explained(error, url))?;
        let known: Vec<(&str, &str)> = listed.lines().filter_map(|line| line.split_once('\t')).collect();
        let found = names.iter().find_map(|name| known.iter().find(|(_, known)| known == name));
        match found {
            Some((commit, _)) if is_commit(commit) => Ok((*commit).to_owned()),
            _ if reference.is_none() => Err(failed("the repository has no commit yet".to_owned())),
            _ => Err(failed(format!(
                "it has no branch and no tag `{wanted}`; a commit is named with all of its 40 digits"
            ))),
        }
    }

    /// Clones the revision and installs it: with its own command, or with the tool its files call for.
    pub(super) async fn git(&self, package: &PackageSpec, folder: &Path) -> Result<(), InstallError> {
        let source = folder.join(SOURCE);
        let url = package.identifier.as_str();
        let revision = package.version.as_deref().unwrap_or("HEAD");
        self.run(package, folder, "git", &["init", "--quiet", SOURCE]).await?;
        self.run(package, &source, "git", &["remote", "add", "--", "origin", url]).await?;
        self.ask(package, &source, &["fetch", "--quiet", "--depth=1", "--", "origin", revision]).await?;
        self.run(package, &source, "git", &["checkout", "--quiet", "--detach", "FETCH_HEAD"]).await?;
        if source.join(".gitmodules").exists() {
            let update = ["submodule", "--quiet", "update", "--init", "--recursive", "--depth=1"];
            self.ask(package, &source, &update).await?;
        }
        let naming = Step { program: "git", arguments: &["rev-parse", "HEAD"], folder: &source, needs_login: false };
        let commit = self.step(&label(package), "commit", naming, self.limit).await?;
        std::fs::write(folder.join(COMMIT), commit)
            .map_err(|error| InstallError::Failed { package: label(package), problem: error.to_string() })?;
        match (&package.install, &package.run) {
            (Some(command), _) => self.command(package, &source, command).await,
            // Whoever says how it is started says how it is installed, if it is.
            (None, Some(_)) => Ok(()),
            (None, None) => self.git_by_its_files(package, folder, &source).await,
        }
    }

    /// Has git talk to the repository.
    async fn ask(&self, package: &PackageSpec, source: &Path, arguments: &[&str]) -> Result<(), InstallError> {
        let step = Step { program: "git", arguments, folder: source, needs_login: true };
        let asked = self.step(&label(package), &key(package), step, self.limit).await;
        asked.map(|_| ()).map_err(|error| explained(error, &package.identifier))
    }

    async fn command(&self, package: &PackageSpec, source: &Path, command: &str) -> Result<(), InstallError> {
        let (program, arguments) = parts(package, command, source)?;
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.run(package, source, &program, &arguments).await
    }

    async fn git_by_its_files(&self, package: &PackageSpec, folder: &Path, source: &Path) -> Result<(), InstallError> {
        if source.join("package.json").exists() {
            self.run(package, source, "npm", &["install", "--no-audit", "--no-fund", "--loglevel=error"]).await
        } else if source.join("pyproject.toml").exists() || source.join("setup.py").exists() {
            let installer = installer_for(Registry::Pypi)?;
            let source = source.display().to_string();
            self.python(package, folder, installer, &source).await
        } else {
            let problem =
                "the repository has neither package.json nor pyproject.toml: say how to install and start it \
                           with `install` and `run`"
                    .to_owned();
            Err(InstallError::Failed { package: label(package), problem })
        }
    }

    /// The commit a package of git is, or was when it was cloned.
    pub(crate) fn commit(&self, package: &PackageSpec) -> Option<String> {
        if package.registry != Registry::Git {
            return None;
        }
        let pinned = package.version.clone().filter(|version| is_commit(version));
        pinned.or_else(|| {
            let kept = std::fs::read_to_string(self.folder.join(key(package)).join(COMMIT)).ok()?;
            Some(kept.trim().to_owned()).filter(|commit| is_commit(commit))
        })
    }
}

/// What starts a server that says so itself, in its clone.
pub(super) fn executable(package: &PackageSpec, folder: &Path, run: &str) -> Result<Executable, InstallError> {
    let source = folder.join(SOURCE);
    let (program, leading) = parts(package, run, &source)?;
    Ok(Executable { program: PathBuf::from(program), leading, folder: Some(source) })
}

fn parts(package: &PackageSpec, command: &str, source: &Path) -> Result<(String, Vec<String>), InstallError> {
    let parsed = Command::parse(command).map_err(|problem| InstallError::Failed {
        package: label(package),
        problem: format!("its command `{command}` {problem}"),
    })?;
    let (program, arguments) = parsed.into_parts();
    // A path is one in the clone, also before anything has changed its folder.
    let program = if program.contains('/') { source.join(&program).display().to_string() } else { program };
    Ok((program, arguments))
}

/// Says in plain words what git means when it cannot ask for a password.
fn explained(error: InstallError, url: &str) -> InstallError {
    const LOGIN: [&str; 6] = [
        "terminal prompts disabled",
        "could not read Username",
        "could not read Password",
        "Authentication failed",
        "Permission denied",
        "Host key verification failed",
    ];
    const MISSING: [&str; 4] =
        ["does not appear to be a git repository", "does not exist", "not found", "Could not resolve host"];
    let InstallError::Failed { package, problem } = error else { return error };
    let says = |words: &[&str]| words.iter().any(|word| problem.contains(word));
    let hint = if says(&LOGIN) {
        format!(
            "{url} does not exist, or needs a login: give the broker's user a credential helper or an SSH key for it"
        )
    } else if says(&MISSING) {
        format!("there is no repository at {url}, or it cannot be reached")
    } else {
        return InstallError::Failed { package, problem };
    };
    InstallError::Failed { package, problem: format!("{hint} ({problem})") }
}
