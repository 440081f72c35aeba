//! Git repositories that are folders here, and stand for those on the network.

use std::path::{Path, PathBuf};

use super::{FixtureCatalog, process::Home};

/// An MCP server without dependencies. It greets with what its installation left, and a variable.
pub const SERVER: &str = r#"
import { existsSync, readFileSync } from "node:fs";
import { createInterface } from "node:readline";
const read = (name) => (existsSync(name) ? readFileSync(name, "utf8").trim() : "nothing");
const tool = { name: "greet", description: "Greets.", inputSchema: { type: "object", properties: { name: { type: "string" } } } };
const text = (text) => ({ content: [{ type: "text", text }] });
const answers = {
  initialize: (p) => ({ protocolVersion: p.protocolVersion, capabilities: { tools: {} }, serverInfo: { name: "tools", version: "1" } }),
  "tools/list": () => ({ tools: [tool] }),
  "tools/call": (p) => text(`hello ${p.arguments.name} from ${process.argv[2]}, installed ${read("installed")}, part ${read("part/part")}, key ${process.env.GREETER_KEY}`),
};
console.error("the greeter is up");
for await (const line of createInterface({ input: process.stdin })) {
  const { id, method, params } = JSON.parse(line);
  if (id === undefined) continue;
  const answer = answers[method];
  const reply = answer ? { result: answer(params) } : { error: { code: -32601, message: "no such method" } };
  console.log(JSON.stringify({ jsonrpc: "2.0", id, ...reply }));
}
"#;

/// Repositories that stand for those below `https://github.com/`.
pub struct Repositories {
    folder: tempfile::TempDir,
}

impl Repositories {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// A repository with these files. Gives back its commit.
    pub fn commit(&self, path: &str, files: &[(&str, &str)]) -> String {
        let folder = self.path(path);
        if !folder.exists() {
            std::fs::create_dir_all(&folder).unwrap();
            git(&folder, &["init", "--quiet", "--initial-branch=main"]);
        }
        for (name, text) in files {
            std::fs::write(folder.join(name), text).unwrap();
        }
        git(&folder, &["add", "--all"]);
        git(&folder, &["commit", "--quiet", "--message=more"]);
        git(&folder, &["rev-parse", "HEAD"])
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    pub fn home(&self) -> Home {
        Home::with(&FixtureCatalog::new().server("fixture", &[], &[]))
            .variable("GIT_CONFIG_COUNT", "2")
            .variable("GIT_CONFIG_KEY_0", &format!("url.file://{}/.insteadOf", self.folder.path().display()))
            .variable("GIT_CONFIG_VALUE_0", "https://github.com/")
            .variable("GIT_CONFIG_KEY_1", "protocol.file.allow")
            .variable("GIT_CONFIG_VALUE_1", "always")
    }
}

/// Runs git, and gives back what it printed.
pub fn git(folder: &Path, arguments: &[&str]) -> String {
    let who = ["-c", "user.name=story", "-c", "user.email=story@example.com", "-c", "protocol.file.allow=always"];
    let output =
        std::process::Command::new("git").args(who).args(arguments).current_dir(folder).output().expect("git runs");
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Whether these stories can be told here; says so where they cannot.
pub fn possible() -> bool {
    let runs = |program: &str| std::process::Command::new(program).arg("--version").output().is_ok();
    let possible = runs("git") && runs("node");
    if !possible {
        eprintln!("SKIPPED: git and node are needed");
    }
    possible
}
