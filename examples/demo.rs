//! `make demo`: a conversation of an agent with the broker, in plain words.
//!
//! It starts the broker as its users do, on an empty data folder, and drives it with a real MCP client over HTTP. The
//! servers are real packages from npm and PyPI; where npm or Python is missing, the project's fixture server takes their
//! place. Every step is checked, and the first that fails ends the demo with exit code 1.

#![expect(clippy::print_stdout, reason = "the demo's output is what it is for")]

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, bail, ensure};
use mcp_broker::{catalog::entry::Registry, supervisor::Supervisor};
use rmcp::{
    RoleClient, ServiceExt as _,
    model::{CallToolRequestParams, CallToolResult},
    service::RunningService,
    transport::{StreamableHttpClientTransport, streamable_http_client::StreamableHttpClientTransportConfig},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

/// A server of the conversation, and what is done with it.
struct Part {
    server: &'static str,
    /// What the agent would search for.
    query: &'static str,
    config: Option<Value>,
    tool: String,
    arguments: Value,
    /// What the answer has to contain.
    expected: &'static str,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("shopping.txt"), "bread, cheese, two lemons\n")?;
    let parts = [clock_part(), files_part(folder.path())];

    say("A broker starts on an empty folder, with its built-in catalog and no container engine.");
    let broker = Broker::start(folder.path()).await?;
    let outcome = conversation(&broker, &parts).await;
    let stopped = broker.stop().await;
    outcome?;
    stopped?;
    println!("\nThat was all of it, and every step worked.");
    Ok(())
}

async fn conversation(broker: &Broker, parts: &[Part]) -> anyhow::Result<()> {
    println!("   it listens on {}", broker.url);
    say("An agent connects. It has no servers, only the broker's own tools:");
    let agent = Agent::connect(broker).await?;
    println!("   {}", agent.tool_names().await?.join(", "));

    for part in parts {
        say(&format!("It lacks a tool, so it searches for \"{}\".", part.query));
        let found = agent.ok("mcp-find", json!({"query": part.query, "limit": 3})).await?;
        let first = &found.structured_content.as_ref().context("mcp-find answered without data")?["servers"][0]["name"];
        ensure!(first == part.server, "{} was expected first, and {first} came", part.server);
        show(&found);
        add(&agent, part).await?;
        say(&format!("Now {} can be called like any other tool, with {}.", part.tool, part.arguments));
        let answer = agent.ok(&part.tool, part.arguments.clone()).await?;
        ensure!(text(&answer).contains(part.expected), "the answer was: {}", text(&answer));
        show(&answer);
    }

    say("A call with wrong arguments is answered with the tool's schema, so that one more try is enough.");
    let refused = agent.call(&parts[0].tool, json!({"nonsense": true})).await?;
    ensure!(refused.is_error == Some(true), "the wrong call was not refused");
    show(&refused);

    let last = &parts[parts.len() - 1];
    say(&format!("Clients that read the list of tools only once use mcp-exec, here for {}.", last.tool));
    let answer = agent.ok("mcp-exec", json!({"name": last.tool, "arguments": last.arguments})).await?;
    ensure!(text(&answer).contains(last.expected), "the answer was: {}", text(&answer));
    show(&answer);

    say("The agent removes what it does not need any more.");
    for part in parts {
        show(&agent.ok("mcp-remove", json!({"name": part.server})).await?);
    }
    let left = agent.tool_names().await?;
    ensure!(left.iter().all(|name| !name.contains("__")), "tools are left: {left:?}");

    say("What did the agent do? The audit log has every call, written before it ran and closed after:");
    println!("{}", broker.command(&["audit"]).await?.trim_end());
    say("and nobody changed it:");
    println!("   {}", broker.command(&["audit", "verify"]).await?.trim());
    agent.service.cancel().await?;
    Ok(())
}

/// Adds a server; one that needs config says so first.
async fn add(agent: &Agent, part: &Part) -> anyhow::Result<()> {
    if let Some(config) = &part.config {
        say(&format!("It adds {}, which needs config and says which:", part.server));
        let refused = agent.call("mcp-add", json!({"name": part.server})).await?;
        ensure!(refused.is_error == Some(true), "{} was added without its config", part.server);
        show(&refused);
        say(&format!("It sets {config} and adds it again."));
        agent.ok("mcp-config-set", json!({"server": part.server, "config": config})).await?;
    } else {
        say(&format!("It adds {}. The first time, that installs it.", part.server));
    }
    show(&agent.ok("mcp-add", json!({"name": part.server})).await?);
    let names = agent.tool_names().await?;
    ensure!(names.contains(&part.tool), "{} is not in the list of tools: {names:?}", part.tool);
    Ok(())
}

fn clock_part() -> Part {
    if let Err(missing) = Supervisor::installer(Registry::Pypi) {
        return fixture_part("fixture-one", &missing.to_string());
    }
    Part {
        server: "time",
        query: "convert a time to another time zone",
        config: None,
        tool: "time__convert_time".into(),
        arguments: json!({"source_timezone": "Asia/Tokyo", "time": "16:30", "target_timezone": "UTC"}),
        expected: "07:30",
    }
}

fn files_part(folder: &Path) -> Part {
    if let Err(missing) = Supervisor::installer(Registry::Npm) {
        return fixture_part("fixture-two", &missing.to_string());
    }
    Part {
        server: "filesystem",
        query: "read files in a folder",
        config: Some(json!({"paths": [folder.display().to_string()]})),
        tool: "filesystem__read_text_file".into(),
        arguments: json!({"path": folder.join("shopping.txt").display().to_string()}),
        expected: "two lemons",
    }
}

fn fixture_part(server: &'static str, missing: &str) -> Part {
    println!("note: {missing}. The project's fixture server takes the place of a real one.");
    Part {
        server,
        query: server,
        config: None,
        tool: format!("{server}__echo"),
        arguments: json!({"text": "hello"}),
        expected: "hello",
    }
}

/// The broker as a process.
struct Broker {
    process: Child,
    program: PathBuf,
    data: PathBuf,
    url: String,
}

impl Broker {
    async fn start(folder: &Path) -> anyhow::Result<Self> {
        let examples = std::env::current_exe()?.parent().context("the demo has no folder")?.to_path_buf();
        let program = examples.parent().context("the demo has no folder")?.join("mcp-broker");
        ensure!(program.exists(), "{} is not built: run `make demo`", program.display());
        let catalog = folder.join("fixtures.yaml");
        let fixture = json!([examples.join("fixture-server"), "stdio"]);
        let entry = |name: &str| {
            format!("  {name}: {{description: The project's fixture server {name}, command: {fixture}}}\n")
        };
        std::fs::write(&catalog, format!("registry:\n{}{}", entry("fixture-one"), entry("fixture-two")))?;
        let config = folder.join("config.yaml");
        // Servers run as packages: nothing here needs a container engine.
        std::fs::write(&config, "containers: {engine: none}\n")?;
        let data = folder.join("data");
        let mut process = Command::new(&program)
            .args(["serve", "--listen", "127.0.0.1:0", "--log", "warn"])
            .arg("--data-dir")
            .arg(&data)
            .arg("--config")
            .arg(&config)
            .arg("--catalog")
            .arg(&catalog)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("could not start the broker")?;
        let mut lines = BufReader::new(process.stdout.take().context("the broker has no output")?).lines();
        let first = lines.next_line().await?.context("the broker ended at once")?;
        let url = first.rsplit(' ').next().unwrap_or_default().to_owned();
        Ok(Self { process, program, data, url })
    }

    /// What a command on the same data folder prints.
    async fn command(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = Command::new(&self.program).arg("--data-dir").arg(&self.data).args(arguments).output().await?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "mcp-broker {} failed: {errors}", arguments.join(" "));
        Ok(String::from_utf8(output.stdout)?)
    }

    async fn stop(mut self) -> anyhow::Result<()> {
        let id = self.process.id().context("the broker has ended before the demo")?;
        let id = rustix::process::Pid::from_raw(i32::try_from(id)?).context("the broker has no process id")?;
        rustix::process::kill_process(id, rustix::process::Signal::TERM)?;
        let status = self.process.wait().await?;
        ensure!(status.success(), "the broker ended with {status}");
        Ok(())
    }
}

/// An MCP client.
struct Agent {
    service: RunningService<RoleClient, ()>,
}

impl Agent {
    async fn connect(broker: &Broker) -> anyhow::Result<Self> {
        let token = std::fs::read_to_string(broker.data.join("token")).context("the broker made no token")?;
        let config = StreamableHttpClientTransportConfig::with_uri(broker.url.as_str()).auth_header(token.trim());
        let service = ().serve(StreamableHttpClientTransport::from_config(config)).await?;
        Ok(Self { service })
    }

    async fn tool_names(&self) -> anyhow::Result<Vec<String>> {
        Ok(self.service.list_all_tools().await?.into_iter().map(|tool| tool.name.into_owned()).collect())
    }

    async fn call(&self, tool: &str, arguments: Value) -> anyhow::Result<CallToolResult> {
        let mut params = CallToolRequestParams::new(tool.to_owned());
        params.arguments = arguments.as_object().cloned();
        self.service.call_tool(params).await.with_context(|| format!("calling {tool}"))
    }

    /// Calls a tool that has to succeed.
    async fn ok(&self, tool: &str, arguments: Value) -> anyhow::Result<CallToolResult> {
        let result = self.call(tool, arguments).await?;
        if result.is_error == Some(true) {
            bail!("{tool} failed: {}", text(&result));
        }
        Ok(result)
    }
}

fn text(result: &CallToolResult) -> String {
    let texts = result.content.iter().filter_map(|block| block.as_text()).map(|block| block.text.as_str());
    texts.collect::<Vec<_>>().join("\n")
}

fn say(sentence: &str) {
    println!("\n== {sentence}");
}

fn show(result: &CallToolResult) {
    const LINES_MAX: usize = 18;
    let text = text(result);
    for line in text.lines().take(LINES_MAX) {
        println!("   {line}");
    }
    let more = text.lines().count().saturating_sub(LINES_MAX);
    if more > 0 {
        println!("   … and {more} lines more");
    }
}
