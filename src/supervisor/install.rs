//! Packages, installed once into the data folder and started directly from then on.
//!
//! `npx` and `uvx` look a package up each time they start it, which takes longer than most servers and needs the network.
//! Here npm, uv or pip install it into `packages/<fingerprint>` the first time; a marker file says that the installation is
//! whole, and a folder without it is done again. One package is installed once, however many sessions wait for it.

mod git;
mod step;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use tokio::sync::OwnedMutexGuard;

use super::{
    orphans,
    process::{Executable, find_program},
};
use crate::{
    catalog::entry::{PackageSpec, Registry},
    ids::fingerprint,
};
use step::{Step, StepError};

const MARKER: &str = ".complete";

/// The package could not be installed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum InstallError {
    #[error("{registry} packages need {needed}: install it, and try again")]
    NoInstaller { registry: &'static str, needed: &'static str },
    #[error("could not install {package}: {problem}")]
    Failed { package: String, problem: String },
    #[error("installing {package} took longer than {seconds} s")]
    Timeout { package: String, seconds: u64 },
    #[error("{package} offers {}: name one as `bin` in the catalog entry", if programs.is_empty() { "no program".to_owned() } else { format!("several programs ({})", programs.join(", ")) })]
    Ambiguous { package: String, programs: Vec<String> },
}

/// Installs packages below one folder.
pub(crate) struct Installer {
    folder: PathBuf,
    limit: Duration,
    under_way: std::sync::Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// What marks the processes of this data folder.
    label: String,
    steps: AtomicU64,
}

/// An installation that is not whole. What is there of it is of no use, and may be large: it is removed when nobody waits
/// for the rest, after what still writes it was ended, and until then nobody else begins.
struct Unfinished {
    folder: PathBuf,
    /// What marks the processes of its steps.
    label: String,
    alone: Option<OwnedMutexGuard<()>>,
}

impl Unfinished {
    fn is_whole(&mut self) {
        self.alone = None;
    }

    async fn removed(&mut self) {
        if let Some(removing) = self.begin_to_remove() {
            let _ = removing.await;
        }
    }

    fn begin_to_remove(&mut self) -> Option<tokio::task::JoinHandle<()>> {
        let alone = self.alone.take()?;
        let (folder, label) = (std::mem::take(&mut self.folder), std::mem::take(&mut self.label));
        let runtime = tokio::runtime::Handle::try_current().ok()?;
        Some(runtime.spawn_blocking(move || {
            orphans::kill_labelled(&label);
            if let Err(error) = std::fs::remove_dir_all(&folder)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(%error, folder = %folder.display(), "what is there of a package was not removed");
            }
            drop(alone);
        }))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _removing = self.begin_to_remove();
    }
}

/// Whether packages of `registry` can be installed on this machine, and with what.
pub(crate) fn installer_for(registry: Registry) -> Result<&'static str, InstallError> {
    let has = |program: &str| find_program(program).is_some();
    match registry {
        Registry::Npm if has("npm") && has("node") => Ok("npm"),
        Registry::Npm => Err(InstallError::NoInstaller { registry: "npm", needed: "Node.js with npm" }),
        Registry::Pypi if has("uv") => Ok("uv"),
        Registry::Pypi if has("python3") => Ok("python3"),
        Registry::Pypi => {
            Err(InstallError::NoInstaller { registry: "PyPI", needed: "uv, or Python with its venv module" })
        }
        Registry::Git if has("git") => Ok("git"),
        Registry::Git => Err(InstallError::NoInstaller { registry: "Git", needed: "git" }),
    }
}

impl Installer {
    pub(crate) fn new(data_folder: &Path, limit: Duration, label: String) -> Self {
        let (folder, under_way) = (data_folder.join("packages"), std::sync::Mutex::default());
        Self { folder, limit, under_way, label, steps: AtomicU64::new(0) }
    }

    /// The program to start for `package`, which is installed first if it is not there.
    pub(crate) async fn executable(&self, package: &PackageSpec) -> Result<Executable, InstallError> {
        let key = key(package);
        let alone = self.lock(&key).lock_owned().await;
        let folder = self.folder.join(&key);
        if !folder.join(MARKER).exists() {
            tracing::info!(package = %label(package), "installing a package");
            let mut unfinished = Unfinished { folder: folder.clone(), label: self.mark(&key), alone: Some(alone) };
            if let Err(error) = self.install(package, &folder).await {
                unfinished.removed().await;
                return Err(error);
            }
            unfinished.is_whole();
        }
        program_of(package, &folder)
    }

    /// Whether `package` is there already, so that starting it does not wait for an installation.
    pub(crate) fn is_installed(&self, package: &PackageSpec) -> bool {
        self.folder.join(key(package)).join(MARKER).exists()
    }

    fn lock(&self, key: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.entry(key.to_owned()).or_default().clone()
    }

    async fn install(&self, package: &PackageSpec, folder: &Path) -> Result<(), InstallError> {
        let installer = installer_for(package.registry)?;
        let failed = |problem: String| InstallError::Failed { package: label(package), problem };
        match tokio::fs::remove_dir_all(folder).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error.to_string())),
            _ => {}
        }
        std::fs::create_dir_all(folder).map_err(|error| failed(error.to_string()))?;
        match package.registry {
            Registry::Npm => self.npm(package, folder, &npm_requirement(package)).await?,
            Registry::Pypi => self.python(package, folder, installer, &pypi_requirement(package)).await?,
            Registry::Git => self.git(package, folder).await?,
        }
        std::fs::write(folder.join(MARKER), label(package)).map_err(|error| failed(error.to_string()))
    }

    async fn npm(&self, package: &PackageSpec, folder: &Path, requirement: &str) -> Result<(), InstallError> {
        let manifest = folder.join("package.json");
        std::fs::write(manifest, r#"{"private":true}"#)
            .map_err(|error| InstallError::Failed { package: label(package), problem: error.to_string() })?;
        let mut arguments = vec!["install", "--no-audit", "--no-fund", "--omit=dev", "--loglevel=error", requirement];
        arguments.extend(package.with.iter().map(String::as_str));
        self.run(package, folder, "npm", &arguments).await
    }

    async fn python(
        &self,
        package: &PackageSpec,
        folder: &Path,
        installer: &str,
        requirement: &str,
    ) -> Result<(), InstallError> {
        let python = folder.join("venv/bin/python").display().to_string();
        let requirements = std::iter::once(requirement).chain(package.with.iter().map(String::as_str));
        if installer == "uv" {
            self.run(package, folder, "uv", &["venv", "--quiet", "venv"]).await?;
            let mut arguments = vec!["pip", "install", "--quiet", "--python", &python];
            arguments.extend(requirements);
            return self.run(package, folder, "uv", &arguments).await;
        }
        self.run(package, folder, "python3", &["-m", "venv", "venv"]).await?;
        let mut arguments = vec!["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
        arguments.extend(requirements);
        self.run(package, folder, &python, &arguments).await
    }

    async fn run(
        &self,
        package: &PackageSpec,
        folder: &Path,
        program: &str,
        arguments: &[&str],
    ) -> Result<(), InstallError> {
        let step = Step { program, arguments, folder, needs_login: false };
        self.step(&label(package), &key(package), step, self.limit).await.map(|_| ())
    }

    /// What the labels of a package's steps begin with.
    fn mark(&self, key: &str) -> String {
        format!("{}/install/{key}/", self.label)
    }

    /// Runs one program of an installation. Gives the last of what it printed.
    async fn step(&self, package: &str, mark: &str, step: Step<'_>, limit: Duration) -> Result<String, InstallError> {
        let number = self.steps.fetch_add(1, Ordering::Relaxed);
        let label = format!("{}{number}/", self.mark(mark));
        step.run(&label, limit).await.map_err(|error| match error {
            StepError::Timeout => InstallError::Timeout { package: package.to_owned(), seconds: limit.as_secs() },
            StepError::Failed(problem) => InstallError::Failed { package: package.to_owned(), problem },
        })
    }
}

fn key(package: &PackageSpec) -> String {
    let mut text =
        format!("{:?}\u{0}{}\u{0}{:?}\u{0}{:?}", package.registry, package.identifier, package.version, package.with);
    // What is done with a clone is part of what it is; how it is started is not.
    if package.install.is_some() || package.run.is_some() {
        text.push_str(&format!("\u{0}{:?}", package.install));
    }
    fingerprint(&text, 24)
}

fn label(package: &PackageSpec) -> String {
    match &package.version {
        Some(version) => format!("{} {}", package.identifier, version),
        None => package.identifier.clone(),
    }
}

fn npm_requirement(package: &PackageSpec) -> String {
    match &package.version {
        Some(version) => format!("{}@{version}", package.identifier),
        None => package.identifier.clone(),
    }
}

fn pypi_requirement(package: &PackageSpec) -> String {
    match &package.version {
        Some(version) => format!("{}=={version}", package.identifier),
        None => package.identifier.clone(),
    }
}

fn program_of(package: &PackageSpec, folder: &Path) -> Result<Executable, InstallError> {
    if let Some(run) = &package.run {
        return git::executable(package, folder, run);
    }
    let (programs, home) = match package.registry {
        Registry::Npm => (npm_programs(&folder.join("node_modules").join(&package.identifier)), Home::Modules),
        Registry::Pypi => (python_programs(folder, &package.identifier), Home::Venv),
        Registry::Git if folder.join("venv").exists() => (venv_programs(folder), Home::Venv),
        Registry::Git => (npm_programs(&folder.join("source")), Home::Source),
    };
    let name = choose(package, &programs)?;
    let program = match home {
        Home::Modules => folder.join("node_modules/.bin").join(&name),
        Home::Venv => folder.join("venv/bin").join(&name),
        Home::Source => {
            let script = programs.get(&name).cloned().unwrap_or_default();
            let script = folder.join("source").join(script).display().to_string();
            return Ok(Executable { program: "node".into(), leading: vec![script], folder: None });
        }
    };
    Ok(Executable { program, leading: Vec::new(), folder: None })
}

enum Home {
    Modules,
    Venv,
    Source,
}

type Programs = std::collections::BTreeMap<String, String>;

fn choose(package: &PackageSpec, programs: &Programs) -> Result<String, InstallError> {
    let bare = package.identifier.rsplit('/').next().unwrap_or(&package.identifier);
    let bare = bare.strip_suffix(".git").unwrap_or(bare);
    let wanted = [package.bin.as_deref(), Some(bare)];
    if let Some(found) = wanted.into_iter().flatten().find(|name| programs.contains_key(*name)) {
        return Ok(found.to_owned());
    }
    match programs.keys().collect::<Vec<_>>().as_slice() {
        [only] if package.bin.is_none() => Ok((*only).clone()),
        _ => Err(InstallError::Ambiguous { package: label(package), programs: programs.keys().cloned().collect() }),
    }
}

/// The `bin` of a package.json: one script under the package's name, or several under names of their own.
fn npm_programs(folder: &Path) -> Programs {
    let manifest = std::fs::read_to_string(folder.join("package.json")).unwrap_or_default();
    let manifest: Value = serde_json::from_str(&manifest).unwrap_or_default();
    let bare = manifest["name"].as_str().and_then(|name| name.rsplit('/').next()).unwrap_or_default();
    match &manifest["bin"] {
        Value::String(script) => Programs::from([(bare.to_owned(), script.clone())]),
        Value::Object(scripts) => scripts
            .iter()
            .filter_map(|(name, script)| script.as_str().map(|script| (name.clone(), script.to_owned())))
            .collect(),
        _ => Programs::new(),
    }
}

/// The console scripts of one distribution, by its `entry_points.txt`.
fn python_programs(folder: &Path, identifier: &str) -> Programs {
    let wanted = normal_name(identifier.split('[').next().unwrap_or(identifier));
    dist_infos(folder)
        .into_iter()
        .filter(|path| distribution_of(path).is_some_and(|name| normal_name(name) == wanted))
        .flat_map(|path| console_scripts(&path))
        .collect()
}

/// The distribution's name in `<name>-<version>.dist-info`, where it has no dash of its own.
fn distribution_of(dist_info: &Path) -> Option<&str> {
    dist_info.file_name()?.to_str()?.split('-').next()
}

/// A name as PyPI compares them: in lower case, every run of `-`, `_` and `.` one dash.
fn normal_name(name: &str) -> String {
    let words: Vec<&str> = name.split(['-', '_', '.']).filter(|word| !word.is_empty()).collect();
    words.join("-").to_lowercase()
}

fn venv_programs(folder: &Path) -> Programs {
    dist_infos(folder)
        .into_iter()
        .filter(|path| path.join("direct_url.json").exists())
        .flat_map(|path| console_scripts(&path))
        .collect()
}

fn dist_infos(folder: &Path) -> Vec<PathBuf> {
    let read = |path: &Path| std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    read(&folder.join("venv/lib"))
        .flat_map(|version| read(&version.join("site-packages")).collect::<Vec<_>>())
        .filter(|path| path.extension().is_some_and(|extension| extension == "dist-info"))
        .collect()
}

fn console_scripts(dist_info: &Path) -> Programs {
    let text = std::fs::read_to_string(dist_info.join("entry_points.txt")).unwrap_or_default();
    text.lines()
        .map(str::trim)
        .skip_while(|line| *line != "[console_scripts]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split_once('='))
        .map(|(name, target)| (name.trim().to_owned(), target.trim().to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};

    use super::*;

    fn package(identifier: &str, bin: Option<&str>) -> PackageSpec {
        PackageSpec {
            registry: Registry::Npm,
            identifier: identifier.into(),
            version: None,
            bin: bin.map(str::to_owned),
            with: Vec::new(),
            arguments: Vec::new(),
            install: None,
            run: None,
            env: Default::default(),
        }
    }

    fn programs(names: &[&str]) -> Programs {
        names.iter().map(|name| ((*name).to_owned(), "x".to_owned())).collect()
    }

    #[tokio::test]
    async fn what_is_half_there_is_gone_before_somebody_else_begins() {
        let data = tempfile::tempdir().unwrap();
        let installer = Installer::new(data.path(), Duration::from_secs(1), data.path().display().to_string());
        let folder = data.path().join("packages/half");
        let alone = installer.lock("half").lock_owned().await;
        let label = installer.mark("half");
        // A step that goes on writing.
        let writes = "n=0; while [ $n -lt 100000 ] && mkdir -p \"$0/$n\"; do n=$((n + 1)); done";
        let mut step = std::process::Command::new("sh")
            .args(["-c", writes, folder.to_str().unwrap()])
            .env(orphans::VARIABLE, format!("{label}0/"))
            .process_group(0)
            .spawn()
            .unwrap();
        while !folder.join("20").exists() {
            tokio::task::yield_now().await;
        }
        drop(Unfinished { folder: folder.clone(), label, alone: Some(alone) });
        let _next = installer.lock("half").lock_owned().await;
        assert!(!folder.exists());
        assert_eq!(step.wait().unwrap().signal(), Some(9));
    }

    #[test]
    fn the_program_is_the_named_one_the_packages_own_or_the_only_one() {
        assert_eq!(choose(&package("@a/b", Some("c")), &programs(&["b", "c"])).unwrap(), "c");
        assert_eq!(choose(&package("@a/b", None), &programs(&["b", "c"])).unwrap(), "b");
        assert_eq!(choose(&package("@a/b", None), &programs(&["x"])).unwrap(), "x");
        assert!(choose(&package("@a/b", None), &programs(&["x", "y"])).is_err());
        assert!(choose(&package("@a/b", Some("z")), &programs(&["x"])).is_err());
        assert!(choose(&package("@a/b", None), &programs(&[])).is_err());
    }

    #[test]
    fn only_the_named_distributions_scripts_are_offered() {
        let folder = tempfile::tempdir().unwrap();
        let packages = folder.path().join("venv/lib/python3.11/site-packages");
        for (name, script) in [("mcp_server_time-2026.1.1", "time"), ("mcp_server-1.0", "other"), ("Foo.Bar-2", "foo")]
        {
            let info = packages.join(format!("{name}.dist-info"));
            std::fs::create_dir_all(&info).unwrap();
            std::fs::write(info.join("entry_points.txt"), format!("[console_scripts]\n{script} = m:main\n")).unwrap();
        }
        let scripts = |identifier| python_programs(folder.path(), identifier).into_keys().collect::<Vec<_>>();
        assert_eq!(scripts("mcp-server-time"), ["time"]);
        assert_eq!(scripts("MCP.Server_Time[extra]"), ["time"]);
        assert_eq!(scripts("mcp-server"), ["other"]);
        assert_eq!(scripts("foo-bar"), ["foo"]);
    }

    #[test]
    fn console_scripts_are_read_from_their_section_only() {
        let folder = tempfile::tempdir().unwrap();
        let text =
            "[other]\na = b\n\n[console_scripts]\nmcp-server-time = mcp_server_time:main\n[gui_scripts]\nc = d\n";
        std::fs::write(folder.path().join("entry_points.txt"), text).unwrap();
        assert_eq!(console_scripts(folder.path()).into_keys().collect::<Vec<_>>(), ["mcp-server-time"]);
    }
}
