//! `mcp-broker server`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};

use super::{Global, broker::Broker, encoded, output};

/// Add, list and remove servers of your own.
#[derive(Debug, Subcommand)]
pub(super) enum ServerCommand {
    /// Add a server from a Git repository, pinned to the commit that its branch or tag is now
    Add(Box<AddArgs>),
    /// List servers that were added or imported one by one
    #[command(visible_alias = "list")]
    Ls,
    /// Remove one of them
    #[command(visible_alias = "remove")]
    Rm { name: String },
}

#[derive(Debug, Args)]
pub(super) struct AddArgs {
    /// What to call it
    name: String,
    /// Where the repository is: github/OWNER/REPOSITORY, an https or ssh URL, or a folder
    #[arg(long, value_name = "URL")]
    git: String,
    /// A branch, a tag or a commit [default: the default branch]
    #[arg(long = "ref", value_name = "REF")]
    reference: Option<String>,
    /// Run in a fresh clone, once for each commit, as in `npm install && npm run build`
    #[arg(long, value_name = "COMMAND")]
    install: Option<String>,
    /// Run in the clone to start the server
    #[arg(long, value_name = "COMMAND")]
    run: String,
    /// A variable of its environment whose value is the secret NAME:VARIABLE
    #[arg(long = "secret", value_name = "VARIABLE")]
    secrets: Vec<String>,
    /// Take the place of a server that has the name
    #[arg(long)]
    replace: bool,
}

pub(super) async fn run(global: &Global, command: ServerCommand) -> anyhow::Result<ExitCode> {
    let broker = Broker::find(global.settings()?).await?;
    match command {
        ServerCommand::Add(args) => {
            let body = json!({
                "name": args.name, "git": whole(&args.git)?, "ref": args.reference, "install": args.install,
                "run": args.run, "secrets": args.secrets, "replace": args.replace,
            });
            let added = broker.ask_once(Method::POST, "/v1/servers", Some(body)).await?;
            let server = &added["server"];
            output::say(format!(
                "{} is in the catalog, at commit {}",
                text(&server["name"]),
                text(&server["git"]["commit"])
            ));
            for secret in server["secrets"].as_array().into_iter().flatten() {
                output::say(format!("it needs a secret: mcp-broker secret set {}", text(secret)));
            }
        }
        ServerCommand::Ls => {
            let listed = broker.ask_once(Method::GET, "/v1/servers", None).await?;
            let rows: Vec<Vec<String>> = listed["servers"].as_array().into_iter().flatten().map(row).collect();
            output::table(&["NAME", "RUNS AS", "REPOSITORY", "COMMIT"], &rows);
        }
        ServerCommand::Rm { name } => {
            broker.ask_once(Method::DELETE, &format!("/v1/servers/{}", encoded(&name)), None).await?;
            output::say(format!("{name} was removed"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A folder is the broker's to read, who may have another working folder.
fn whole(git: &str) -> anyhow::Result<String> {
    if git.starts_with('.') {
        return Ok(std::path::absolute(git)?.display().to_string());
    }
    Ok(git.to_owned())
}

fn row(server: &Value) -> Vec<String> {
    let runs: Vec<&str> = server["runs"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    vec![text(&server["name"]), runs.join(", "), text(&server["git"]["url"]), text(&server["git"]["commit"])]
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("-").to_owned()
}
