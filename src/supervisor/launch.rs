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
            Agreed, Bind, CommandSpec, ContainerSpec, Entry, FOR_WORDS, PackageSpec, PerCallTool, RemoteSpec,
            RemoteTransport, Runnable, Word, expand_variables,
        },
        template::{self, TemplateError},
    },
    secrets::SecretValue,
};

/// The longest argument or variable, with its name, that Linux starts a program with.
const TEXT_BYTES_MAX: usize = (128 << 10) - 1;

/// What Linux starts a program with at most, by default, with room left for what is not ours.
const ALL_BYTES_MAX: usize = 1 << 20;

/// What `{{broker.folder}}` is in a container.
const CONTAINER_FOLDER: &str = "/tmp";

/// What is to be started.
#[derive(Debug, Clone)]
pub enum Launch {
    Process(ProcessLaunch),
    Container(ContainerLaunch),
    PerCall(PerCallLaunch),
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
    /// In place of the image's.
    pub entrypoint: Option<Vec<String>>,
    /// What the entry point gets, in place of the image's.
    pub command: Option<Vec<String>>,
    pub environment: BTreeMap<String, SecretValue>,
    /// `source:target[:ro]`
    pub volumes: Vec<String>,
    /// Folders that a person agreed to.
    pub binds: Vec<Bind>,
    pub user: Option<String>,
    pub working_dir: Option<String>,
    /// In place of the usual bounds.
    pub memory_bytes: Option<u64>,
    pub nano_cpus: Option<i64>,
    pub disable_network: bool,
    pub allow_hosts: Vec<String>,
    pub extra_hosts: Vec<String>,
}

/// Tools that are a container for each call.
#[derive(Clone)]
pub struct PerCallLaunch {
    pub tools: Vec<PerCallTool>,
    /// What every container is given.
    pub environment: BTreeMap<String, SecretValue>,
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
            .field("command", &self.command.as_ref().map(Vec::len))
            .field("environment", &self.environment.keys().collect::<Vec<_>>())
            .field("volumes", &self.volumes)
            .field("binds", &self.binds)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for PerCallLaunch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("PerCallLaunch")
            .field("tools", &self.tools.len())
            .field("environment", &self.environment.keys().collect::<Vec<_>>())
            .finish()
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
    #[error("{what} is {bytes} bytes long, and no program takes more than {TEXT_BYTES_MAX}: use a shorter value")]
    TooLong { what: String, bytes: usize },
    #[error(
        "its arguments and environment are {bytes} bytes long together, and no program takes more than {ALL_BYTES_MAX}"
    )]
    TooMuch { bytes: usize },
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
/// When a template is malformed, or what comes of it is more than a program takes.
pub fn plan(entry: &Entry, run: &Runnable, inputs: &Inputs<'_>) -> Result<Launch, LaunchError> {
    match run {
        Runnable::Package(package) => process(entry, inputs, package_program(package)),
        Runnable::Command(command) => process(entry, inputs, command_program(command)),
        Runnable::Remote(remote) => Ok(Launch::Remote(remote_launch(remote, inputs))),
        Runnable::Container(container) => {
            let lookup = |path: &str| entry.lookup(inputs.config, CONTAINER_FOLDER, path);
            let environment = environment(entry, inputs, &lookup)?;
            Ok(Launch::Container(self::container(container, environment, &lookup)?))
        }
        Runnable::ContainerPerCall(tools) => {
            let lookup = |path: &str| entry.lookup(inputs.config, CONTAINER_FOLDER, path);
            let environment = environment(entry, inputs, &lookup)?;
            Ok(Launch::PerCall(PerCallLaunch { tools: tools.clone(), environment }))
        }
    }
}

impl PerCallLaunch {
    /// The images of its tools.
    pub fn images(&self) -> impl Iterator<Item = &str> {
        self.tools.iter().map(|tool| tool.container.image.as_str())
    }

    /// The container for one call of `tool`.
    ///
    /// # Errors
    ///
    /// As [`plan`].
    pub fn call(&self, tool: &PerCallTool, arguments: &Value) -> Result<ContainerLaunch, LaunchError> {
        let lookup = |path: &str| PerCallTool::lookup(arguments, path);
        container(&tool.container, self.environment.clone(), &lookup)
    }
}

/// Refuses what no program can be started with, before an engine or a kernel does so less plainly.
fn startable(arguments: &[String], environment: &BTreeMap<String, SecretValue>) -> Result<(), LaunchError> {
    let arguments = arguments.iter().map(|argument| ("an argument".to_owned(), argument.len()));
    let variables = environment
        .iter()
        .map(|(name, value)| (format!("the variable `{name}`"), name.len() + 1 + value.reveal().len()));
    let mut all = 0;
    for (what, bytes) in arguments.chain(variables) {
        if bytes > TEXT_BYTES_MAX {
            return Err(LaunchError::TooLong { what, bytes });
        }
        all += bytes;
    }
    if all > ALL_BYTES_MAX { Err(LaunchError::TooMuch { bytes: all }) } else { Ok(()) }
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
    let arguments = template::evaluate_list(spec.arguments, &lookup)?;
    startable(&arguments, &environment)?;
    Ok(Launch::Process(ProcessLaunch {
        program: spec.program,
        arguments,
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

fn container(
    spec: &ContainerSpec,
    environment: BTreeMap<String, SecretValue>,
    lookup: &dyn Fn(&str) -> Option<Value>,
) -> Result<ContainerLaunch, LaunchError> {
    let user = spec.user.as_deref().map(|user| template::evaluate_text(user, lookup)).transpose()?;
    let command = template::evaluate_list(&spec.command, lookup)?;
    let launch = ContainerLaunch {
        image: spec.image.clone(),
        entrypoint: None,
        command: (!command.is_empty()).then_some(command),
        environment,
        volumes: template::evaluate_list(&spec.volumes, lookup)?,
        binds: Vec::new(),
        user: user.filter(|user| !user.is_empty()),
        working_dir: None,
        memory_bytes: None,
        nano_cpus: None,
        disable_network: spec.disable_network,
        allow_hosts: spec.allow_hosts.clone(),
        extra_hosts: spec.extra_hosts.clone(),
    };
    let launch = match &spec.agreed {
        Some(agreed) => with_agreed(launch, agreed),
        None => launch,
    };
    let arguments: Vec<String> = launch.entrypoint.iter().chain(&launch.command).flatten().cloned().collect();
    startable(&arguments, &launch.environment)?;
    Ok(launch)
}

/// What a person agreed to is taken as it is written. Secrets come over the file's own variables.
fn with_agreed(mut launch: ContainerLaunch, agreed: &Agreed) -> ContainerLaunch {
    let for_words: BTreeMap<String, SecretValue> =
        launch.environment.extract_if(.., |name, _| name.starts_with(FOR_WORDS)).collect();
    let value = |name: &str| Some(for_words.get(&format!("{FOR_WORDS}{name}"))?.reveal().to_owned());
    let filled = |words: &Option<Vec<Word>>| -> Option<Vec<String>> {
        words.as_ref().map(|words| words.iter().map(|word| word.filled(value)).collect())
    };
    for (name, value) in &agreed.environment {
        launch.environment.entry(name.clone()).or_insert_with(|| value.clone().into());
    }
    ContainerLaunch {
        entrypoint: filled(&agreed.entrypoint),
        command: filled(&agreed.command),
        volumes: agreed.volumes.clone(),
        binds: agreed.binds.clone(),
        user: agreed.user.clone(),
        working_dir: agreed.working_dir.clone(),
        memory_bytes: agreed.memory_bytes,
        nano_cpus: agreed.nano_cpus,
        ..launch
    }
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
    fn a_config_is_never_read_as_a_template_nor_longer_than_a_program_takes() {
        let yaml =
            r#"registry: {demo: {image: x, command: ["{{demo.text}}"], env: [{name: T, value: "{{demo.text}}"}]}}"#;
        let planned = |text: &str| {
            let entry = file::parse("c.yaml", yaml).unwrap().entries.remove(0);
            let config = json!({"text": text});
            let inputs = Inputs { config: &config, folder: Path::new("/"), secrets: &BTreeMap::new() };
            plan(&entry, &entry.runs[0], &inputs)
        };
        let Ok(Launch::Container(container)) = planned("{{demo.text}}") else { panic!() };
        assert_eq!(container.command.unwrap(), ["{{demo.text}}"]);
        assert_eq!(container.environment["T"].reveal(), "{{demo.text}}");
        let refused = planned(&"x".repeat(1 << 20)).unwrap_err();
        assert!(matches!(refused, LaunchError::TooLong { bytes: 1_048_576, .. }), "{refused}");
    }

    #[test]
    fn a_calls_arguments_fill_in_its_container() {
        let yaml = r#"
registry:
  tools:
    type: poci
    tools:
      - name: run
        parameters: {type: object, properties: {args: {type: array}, path: {type: string}}}
        container: {image: x, command: ["-c", "{{args|into}}", "{{path}}"], volumes: ["{{path}}:{{path}}"]}
"#;
        let Launch::PerCall(launch) = launch(yaml, &json!({}), &[]) else { panic!() };
        let call = |arguments: Value| launch.call(&launch.tools[0], &arguments).unwrap();
        let full = call(json!({"args": ["a b", "{{path}}", 3], "path": "/p"}));
        assert_eq!(full.command.unwrap(), ["-c", "a b", "{{path}}", "3", "/p"]);
        assert_eq!(full.volumes, ["/p:/p"]);
        assert_eq!(call(json!({"args": "one"})).command.unwrap(), ["-c", "one"]);
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
