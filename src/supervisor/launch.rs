//! From a catalog entry, a config and secrets to what is to be started.
//!
//! Everything that can be wrong is found here, before anything runs. Values of secrets are in the result and nowhere else;
//! it prints without them.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{
    catalog::{
        entry::{
            CommandSpec, ContainerSpec, Entry, PackageSpec, RemoteSpec, RemoteTransport, Runnable, expand_variables,
        },
        template::{self, TemplateError},
    },
    secrets::SecretValue,
};

/// What `{{broker.folder}}` is in a container.
const CONTAINER_FOLDER: &str = "/tmp";

/// What is to be started.
#[derive(Debug, Clone)]
pub enum Launch {
    Process(ProcessLaunch),
    Container(ContainerLaunch),
    Remote(RemoteLaunch),
}

/// A program, or a package that is installed first.
#[derive(Clone)]
pub struct ProcessLaunch {
    pub program: Program,
    pub arguments: Vec<String>,
    /// What it is given beside the usual: config and secrets.
    pub environment: BTreeMap<String, SecretValue>,
    /// Its own folder, where it starts.
    pub folder: PathBuf,
}

/// What a process runs.
#[derive(Debug, Clone)]
pub enum Program {
    Command(String),
    Package(PackageSpec),
}

/// A container.
#[derive(Clone)]
pub struct ContainerLaunch {
    pub image: String,
    /// What the image's entry point gets, or is replaced with.
    pub command: Vec<String>,
    pub environment: BTreeMap<String, SecretValue>,
    /// `source:target[:ro]`
    pub volumes: Vec<String>,
    pub user: Option<String>,
    pub disable_network: bool,
    pub allow_hosts: Vec<String>,
    pub extra_hosts: Vec<String>,
}

/// A server somewhere else.
#[derive(Clone)]
pub struct RemoteLaunch {
    pub url: String,
    pub transport: RemoteTransport,
    pub headers: BTreeMap<String, SecretValue>,
    pub oauth: bool,
}

impl fmt::Debug for ProcessLaunch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ProcessLaunch")
            .field("program", &self.program)
            .field("arguments", &self.arguments.len())
            .field("environment", &self.environment.keys().collect::<Vec<_>>())
            .field("folder", &self.folder)
            .finish()
    }
}

impl fmt::Debug for ContainerLaunch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ContainerLaunch")
            .field("image", &self.image)
            .field("command", &self.command.len())
            .field("environment", &self.environment.keys().collect::<Vec<_>>())
            .field("volumes", &self.volumes)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for RemoteLaunch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RemoteLaunch")
            .field("url", &self.url)
            .field("transport", &self.transport)
            .field("headers", &self.headers.keys().collect::<Vec<_>>())
            .finish()
    }
}

/// The entry cannot be turned into something to start.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    #[error("the catalog entry has a bad template")]
    Template(#[from] TemplateError),
    #[error("it runs one container for each call, which this broker does not do yet")]
    ContainerPerCall,
}

/// What fills in an entry.
pub struct Inputs<'a> {
    pub config: &'a Value,
    /// The instance's own folder.
    pub folder: &'a Path,
    /// Values by the name of the environment variable they are for.
    pub secrets: &'a BTreeMap<String, SecretValue>,
}

/// Says what to start for `entry`, run as `run`.
///
/// # Errors
///
/// When a template is malformed, or there is no backend for `run`.
pub fn plan(entry: &Entry, run: &Runnable, inputs: &Inputs<'_>) -> Result<Launch, LaunchError> {
    match run {
        Runnable::Package(package) => process(entry, inputs, package_program(package)),
        Runnable::Command(command) => process(entry, inputs, command_program(command)),
        Runnable::Remote(remote) => Ok(Launch::Remote(remote_launch(remote, inputs))),
        Runnable::Container(container) => self::container(entry, container, inputs),
        Runnable::ContainerPerCall => Err(LaunchError::ContainerPerCall),
    }
}

struct ProgramSpec<'a> {
    program: Program,
    arguments: &'a [String],
    env: &'a BTreeMap<String, String>,
}

fn package_program(package: &PackageSpec) -> ProgramSpec<'_> {
    ProgramSpec { program: Program::Package(package.clone()), arguments: &package.arguments, env: &package.env }
}

fn command_program(command: &CommandSpec) -> ProgramSpec<'_> {
    ProgramSpec { program: Program::Command(command.program.clone()), arguments: &command.arguments, env: &command.env }
}

fn process(entry: &Entry, inputs: &Inputs<'_>, spec: ProgramSpec<'_>) -> Result<Launch, LaunchError> {
    let folder = inputs.folder.display().to_string();
    let lookup = |path: &str| entry.lookup(inputs.config, &folder, path);
    let mut environment = environment(entry, inputs, &lookup)?;
    for (name, value) in spec.env {
        add_variable(&mut environment, name, value, &lookup)?;
    }
    Ok(Launch::Process(ProcessLaunch {
        program: spec.program,
        arguments: template::evaluate_list(spec.arguments, &lookup)?,
        environment,
        folder: inputs.folder.to_owned(),
    }))
}

fn environment(
    entry: &Entry,
    inputs: &Inputs<'_>,
    lookup: &dyn Fn(&str) -> Option<Value>,
) -> Result<BTreeMap<String, SecretValue>, TemplateError> {
    let mut environment = inputs.secrets.clone();
    for variable in &entry.env {
        add_variable(&mut environment, &variable.name, &variable.value, lookup)?;
    }
    Ok(environment)
}

fn container(entry: &Entry, spec: &ContainerSpec, inputs: &Inputs<'_>) -> Result<Launch, LaunchError> {
    let lookup = |path: &str| entry.lookup(inputs.config, CONTAINER_FOLDER, path);
    let user = spec.user.as_deref().map(|user| template::evaluate_text(user, &lookup)).transpose()?;
    Ok(Launch::Container(ContainerLaunch {
        image: spec.image.clone(),
        command: template::evaluate_list(&spec.command, &lookup)?,
        environment: environment(entry, inputs, &lookup)?,
        volumes: template::evaluate_list(&spec.volumes, &lookup)?,
        user: user.filter(|user| !user.is_empty()),
        disable_network: spec.disable_network,
        allow_hosts: spec.allow_hosts.clone(),
        extra_hosts: spec.extra_hosts.clone(),
    }))
}

/// A template is filled in from the config; other text has its `$NAME`s replaced from what is there already. Nothing is
/// added for a value that turns out empty.
fn add_variable(
    environment: &mut BTreeMap<String, SecretValue>,
    name: &str,
    value: &str,
    lookup: &dyn Fn(&str) -> Option<Value>,
) -> Result<(), TemplateError> {
    let filled = if value.contains("{{") {
        template::evaluate_text(value, lookup)?
    } else {
        expand_variables(value, &|variable| environment.get(variable).map(|value| value.reveal().to_owned()))
    };
    if !filled.is_empty() {
        environment.insert(name.to_owned(), filled.into());
    }
    Ok(())
}

fn remote_launch(remote: &RemoteSpec, inputs: &Inputs<'_>) -> RemoteLaunch {
    let secret = |name: &str| inputs.secrets.get(name).map(|value| value.reveal().to_owned());
    let headers = remote
        .headers
        .iter()
        .map(|(name, value)| (name.clone(), SecretValue::from(expand_variables(value, &secret))))
        .collect();
    RemoteLaunch { url: remote.url.clone(), transport: remote.transport, headers, oauth: remote.oauth }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::file;
    use serde_json::json;

    fn launch(yaml: &str, config: &Value, secrets: &[(&str, &str)]) -> Launch {
        let entry = file::parse("c.yaml", yaml).unwrap().entries.remove(0);
        let secrets =
            secrets.iter().map(|(name, value)| ((*name).to_owned(), SecretValue::from((*value).to_owned()))).collect();
        let inputs = Inputs { config, folder: Path::new("/data/x"), secrets: &secrets };
        plan(&entry, &entry.runs[0], &inputs).unwrap()
    }

    #[test]
    fn config_and_secrets_end_up_where_the_entry_says() {
        let yaml = r#"
registry:
  demo:
    command: [demo, "--paths", "{{demo.paths}}", "{{demo.none}}", "--state={{broker.folder}}"]
    env:
      - {name: LEVEL, value: "{{demo.level}}"}
      - {name: EMPTY, value: "{{demo.none}}"}
      - {name: AUTH, value: "Bearer $KEY"}
    secrets: [{name: demo.key, env: KEY}]
"#;
        let config = json!({"paths": ["/a", "/b"], "level": 3});
        let Launch::Process(process) = launch(yaml, &config, &[("KEY", "hunter2")]) else { panic!() };
        assert_eq!(process.arguments, ["--paths", "/a", "/b", "--state=/data/x"]);
        let environment: Vec<_> =
            process.environment.iter().map(|(name, value)| format!("{name}={}", value.reveal())).collect();
        assert_eq!(environment, ["AUTH=Bearer hunter2", "KEY=hunter2", "LEVEL=3"]);
        assert!(!format!("{process:?}").contains("hunter2"));
    }

    #[test]
    fn headers_are_filled_in_and_not_printed() {
        let yaml = r#"
registry:
  far:
    remote: {url: "https://example.com/mcp", headers: {Authorization: "Bearer ${KEY}"}}
"#;
        let launched = launch(yaml, &json!({}), &[("KEY", "hunter2")]);
        assert!(!format!("{launched:?}").contains("hunter2"));
        let Launch::Remote(remote) = launched else { panic!() };
        assert_eq!(remote.headers["Authorization"].reveal(), "Bearer hunter2");
    }
}
