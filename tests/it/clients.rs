//! Client programs are connected by an entry in their own files, and nothing else in these changes.
//!
//! `tests/golden/clients` has each client's file at each level: as it was, connected over stdio, and connected over HTTP.
//! With `UPDATE_GOLDEN=1` the latter two are written anew, to be read before they are committed.

mod shown;

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::process::Command;

use crate::support::{
    FixtureCatalog,
    broker::eventually,
    process::{Home, Ran, program},
};

const TOKEN: &str = "a-token-that-is-always-the-same-0";

/// Every client, with its file in the user's home and in a project.
const CLIENTS: [(&str, &str, Option<&str>); 12] = [
    ("claude-code", ".claude.json", Some(".mcp.json")),
    ("claude-desktop", ".config/Claude/claude_desktop_config.json", None),
    ("codex", ".codex/config.toml", Some(".codex/config.toml")),
    ("cursor", ".cursor/mcp.json", Some(".cursor/mcp.json")),
    ("vscode", ".config/Code/User/mcp.json", Some(".vscode/mcp.json")),
    ("gemini", ".gemini/settings.json", Some(".gemini/settings.json")),
    ("goose", ".config/goose/config.yaml", None),
    ("zed", ".config/zed/settings.json", Some(".zed/settings.json")),
    ("windsurf", ".codeium/windsurf/mcp_config.json", None),
    ("continue", ".continue/config.yaml", Some(".continue/mcpServers/mcp-broker.yaml")),
    ("lmstudio", ".lmstudio/mcp.json", None),
    ("opencode", ".config/opencode/opencode.json", Some("opencode.json")),
];

/// A user's home and a project, with nothing of this machine's.
struct User {
    home: Home,
}

impl User {
    fn new() -> Self {
        let user = Self { home: Home::with(&FixtureCatalog::new()) };
        fs::create_dir_all(user.folder().join("bin")).unwrap();
        fs::create_dir_all(user.project().join(".git")).unwrap();
        symlink(program(), user.folder().join("bin/mcp-broker")).unwrap();
        let data = user.folder().join(".local/share/mcp-broker");
        fs::create_dir_all(&data).unwrap();
        fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
        user.write(".local/share/mcp-broker/token", TOKEN);
        fs::set_permissions(data.join("token"), fs::Permissions::from_mode(0o600)).unwrap();
        user
    }

    fn folder(&self) -> PathBuf {
        self.home.path().join("ann")
    }

    fn project(&self) -> PathBuf {
        self.folder().join("work")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.arg("client").args(arguments).current_dir(self.project()).env_clear();
        command.env("HOME", self.folder()).env("PATH", self.folder().join("bin")).kill_on_drop(true);
        command
    }

    async fn client(&self, arguments: &[&str]) -> Ran {
        Ran(self.command(arguments).output().await.expect("the command runs"))
    }

    fn write(&self, file: &str, text: &str) -> PathBuf {
        let path = self.folder().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// A file, with the home folder as it is in the golden files.
    fn read(&self, path: &Path) -> String {
        fs::read_to_string(path).unwrap().replace(&self.folder().display().to_string(), "/home/ann")
    }
}

/// Compares with a golden file, or writes it.
fn golden(path: &Path, found: &str) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(path, found).unwrap();
    }
    let wanted = fs::read_to_string(path).unwrap_or_default();
    assert!(found == wanted, "{} is\n{wanted}\nand became\n{found}", path.display());
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().flatten();
    entries.flat_map(|entry| if entry.path().is_dir() { walk(&entry.path()) } else { vec![entry.path()] }).collect()
}

/// Connects, connects again, disconnects; over stdio and over HTTP.
async fn there_and_back(client: &str, level: &str, file: &str) {
    let user = User::new();
    let path = if level == "user" { user.folder().join(file) } else { user.project().join(file) };
    let end = Path::new(file).extension().unwrap().to_str().unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/clients").join(client).join(level);
    let before = fs::read_to_string(folder.join(format!("before.{end}"))).ok();
    if let Some(before) = &before {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, before).unwrap();
    }
    let at: &[&str] = if level == "user" { &[] } else { &["--project"] };
    let files = walk(&user.folder());
    for way in ["stdio", "http"] {
        let how: &[&str] = match (way, client, level) {
            ("stdio", _, _) => &[],
            (_, "claude-desktop", _) => continue,
            // It cannot refer to the token, and a project's files are often shared.
            (_, "zed", "project") => &["--http", "--token-in-file"],
            _ => &["--http"],
        };
        let connect = [&["connect", client], at, how].concat();
        user.client(&connect).await.ok();
        golden(&folder.join(format!("{way}.{end}")), &user.read(&path));
        let again = user.client(&connect).await.ok();
        assert!(again.contains("connected already"), "{again}");
        golden(&folder.join(format!("{way}.{end}")), &user.read(&path));
        let listed = user.client(&[&["ls", "--format", "json"], at].concat()).await.ok();
        let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
        let row = listed.as_array().unwrap().iter().find(|row| row["client"] == client && row["level"] == level);
        assert_eq!(row.unwrap()["state"], "connected", "{row:?}");
        user.client(&[&["disconnect", client], at].concat()).await.ok();
        assert_eq!(fs::read_to_string(&path).ok(), before);
        assert_eq!(walk(&user.folder()), files, "a copy or a temporary file was left");
    }
}

#[tokio::test]
async fn every_client_is_connected_in_its_users_file() {
    for (client, file, _) in CLIENTS {
        there_and_back(client, "user", file).await;
    }
}

#[tokio::test]
async fn every_client_that_has_one_is_connected_in_a_projects_file() {
    for (client, _, file) in CLIENTS {
        match file {
            Some(file) => there_and_back(client, "project", file).await,
            None => {
                let refused = User::new().client(&["connect", client, "--project"]).await;
                assert_eq!(refused.code(), 1);
                assert!(refused.err().contains("no file for a single project"), "{}", refused.err());
            }
        }
    }
}

/// A user with a file of Cursor's.
fn user_of_cursor() -> (User, PathBuf) {
    let user = User::new();
    let path = user.write(".cursor/mcp.json", "{\n  // mine\n  \"mcpServers\": {}\n}\n");
    (user, path)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn backup(path: &Path) -> PathBuf {
    path.with_file_name("mcp.json.mcp-broker-backup")
}

#[tokio::test]
async fn a_copy_is_kept_and_what_the_user_does_afterwards_stays() {
    let (user, path) = user_of_cursor();
    let before = fs::read_to_string(&path).unwrap();
    let said = user.client(&["connect", "cursor"]).await.ok();
    assert!(said.contains("mcp.json.mcp-broker-backup"), "{said}");
    assert_eq!(fs::read_to_string(backup(&path)).unwrap(), before);
    let edited = fs::read_to_string(&path).unwrap().replace("// mine", "// mine, still");
    fs::write(&path, &edited).unwrap();
    // The way changes; the copy stays that of the time before the entry.
    user.client(&["connect", "cursor", "--http", "--token-in-file"]).await.ok();
    assert_eq!(fs::read_to_string(backup(&path)).unwrap(), before);
    user.client(&["disconnect", "cursor"]).await.ok();
    assert_eq!(fs::read_to_string(&path).unwrap(), before.replace("// mine", "// mine, still"));
    assert!(user.client(&["disconnect", "cursor"]).await.ok().contains("is not connected"));
}

#[tokio::test]
async fn the_token_is_in_a_file_only_when_that_is_asked_for_and_then_for_its_owner_alone() {
    let user = User::new();
    let path = user.folder().join(".cursor/mcp.json");
    let referring = user.client(&["connect", "cursor", "--http"]).await;
    assert!(referring.err().contains("export MCP_BROKER_TOKEN"), "{}", referring.err());
    assert!(!fs::read_to_string(&path).unwrap().contains(TOKEN));
    user.client(&["disconnect", "cursor"]).await.ok();
    let written = user.client(&["connect", "cursor", "--http", "--token-in-file"]).await;
    assert!(written.err().contains("the broker's token is in"), "{}", written.err());
    assert!(fs::read_to_string(&path).unwrap().contains(TOKEN));
    assert_eq!(mode(&path), 0o600);
    // A file that others can read is said to be one.
    user.client(&["disconnect", "cursor"]).await.ok();
    user.write(".cursor/mcp.json", "{}");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let open = user.client(&["connect", "cursor", "--http", "--token-in-file"]).await;
    assert!(open.err().contains("others can read"), "{}", open.err());
    assert_eq!(mode(&path), 0o644);
    // Nor does it get into a project's file by the way.
    let shared = user.client(&["connect", "zed", "--project", "--http"]).await;
    assert_eq!(shared.code(), 1);
    assert!(shared.err().contains("--token-in-file"), "{}", shared.err());
    let desktop = user.client(&["connect", "claude-desktop", "--http"]).await;
    assert!(desktop.err().contains("leave --http out"), "{}", desktop.err());
}

#[tokio::test]
async fn an_entry_that_is_replaced_by_force_is_kept_and_comes_back() {
    let (user, path) = user_of_cursor();
    let foreign = "{\"mcpServers\": {\"mcp-broker\": {\"command\": \"npx\", \"env\": {\"KEY\": \"mine\"}}}}\n";
    fs::write(&path, foreign).unwrap();
    let said = user.client(&["connect", "cursor", "--force"]).await.ok();
    assert!(said.contains("what was there before is in ") && said.contains(".mcp-broker-backup"), "{said}");
    assert_eq!(fs::read_to_string(backup(&path)).unwrap(), foreign);
    // Once more, and in another way: the copy stays.
    user.client(&["connect", "cursor", "--http", "--token-in-file", "--force"]).await.ok();
    assert_eq!(fs::read_to_string(backup(&path)).unwrap(), foreign);
    user.client(&["disconnect", "cursor"]).await.ok();
    assert_eq!(fs::read_to_string(&path).unwrap(), foreign);
    assert!(!backup(&path).exists());
    // Taken out by force, it is kept too, also when the file goes.
    for _ in 0..2 {
        let said = user.client(&["disconnect", "cursor", "--force"]).await.ok();
        assert!(said.contains("is disconnected") && said.contains("what was there before is in "), "{said}");
        assert_eq!(fs::read_to_string(backup(&path)).unwrap(), foreign);
        assert!(!fs::read_to_string(&path).unwrap_or_default().contains("npx"));
        fs::write(&path, foreign).unwrap();
    }
}

#[tokio::test]
async fn a_link_is_followed_and_stays_one() {
    let user = User::new();
    let real = user.write("dotfiles/cursor.json", "{}\n");
    fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
    fs::create_dir_all(user.folder().join(".cursor")).unwrap();
    let link = user.folder().join(".cursor/mcp.json");
    symlink("../dotfiles/cursor.json", &link).unwrap();
    user.client(&["connect", "cursor"]).await.ok();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(fs::read_to_string(&real).unwrap().contains("mcp-broker"));
    assert_eq!(mode(&real), 0o640);
    user.client(&["disconnect", "cursor"]).await.ok();
    assert_eq!(fs::read_to_string(&real).unwrap(), "{}\n");
    // One that leads to nothing yet gets its file, one that leads to itself is said to.
    fs::remove_file(&real).unwrap();
    user.client(&["connect", "cursor"]).await.ok();
    assert!(real.exists() && fs::symlink_metadata(&link).unwrap().is_symlink());
    fs::remove_file(&link).unwrap();
    symlink("mcp.json", &link).unwrap();
    let looped = user.client(&["connect", "cursor"]).await;
    assert!(looped.err().contains("leads to itself"), "{}", looped.err());
}

#[tokio::test]
async fn a_file_that_cannot_be_changed_is_left_as_it_is() {
    let (user, path) = user_of_cursor();
    let refused = async |text: &[u8], said: &str| {
        fs::write(&path, text).unwrap();
        let refused = user.client(&["connect", "cursor"]).await;
        assert_eq!(refused.code(), 1, "{}", refused.out());
        assert!(refused.err().contains(said), "{}", refused.err());
        assert_eq!(fs::read(&path).unwrap(), text);
        assert!(!backup(&path).exists());
    };
    refused(b"{\n  \"mcpServers\": {\n    \"a\": 1\n    \"b\": 2\n  }\n}\n", "line 3, column 11: Expected comma").await;
    refused(b"{\"a\": \"\xff\"}", "is not UTF-8 text: its byte 8").await;
    refused(b"[]", "at its top").await;
    refused(b"{\"mcpServers\": {\"mcp-broker\": {\"command\": \"npx\", \"args\": [\"other\"]}}}", "--force").await;
    user.client(&["connect", "cursor", "--force"]).await.ok();
    fs::write(&path, "{}").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
    let read_only = user.client(&["connect", "cursor"]).await;
    assert!(read_only.err().contains("is read-only"), "{}", read_only.err());
    assert_eq!(fs::read_to_string(&path).unwrap(), "{}");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let folder = user.client(&["connect", "cursor"]).await;
    assert!(folder.err().contains("is not a file"), "{}", folder.err());
}

#[tokio::test]
async fn two_at_once_take_turns_and_nothing_is_lost() {
    let user = User::new();
    let path = user.write(".claude.json", "{\"mcpServers\": {}}");
    // Whoever reads the file before its turn writes an old text.
    let held = fs::File::open(user.folder()).unwrap();
    held.lock().unwrap();
    let connect = |name| {
        let mut command = user.command(&["connect", "claude-code", "--session", name]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let both = [connect("one"), connect("two")];
    let waiting = |pid: u32| {
        let locks = fs::read_to_string("/proc/locks").unwrap();
        locks.lines().any(|line| line.contains("->") && line.split_whitespace().any(|word| word == pid.to_string()))
    };
    eventually("both wait for the folder", async || both.iter().filter_map(tokio::process::Child::id).all(waiting))
        .await;
    let meanwhile = "{\"mcpServers\": {\"other\": {\"command\": \"npx\"}}}";
    fs::write(&path, meanwhile).unwrap();
    drop(held);
    let mut copies = 0;
    for child in both {
        let said = Ran(child.wait_with_output().await.unwrap()).ok();
        copies += usize::from(said.contains("what was there before is in "));
    }
    assert_eq!(copies, 1, "the second one has found an entry of ours");
    assert_eq!(fs::read_to_string(user.folder().join(".claude.json.mcp-broker-backup")).unwrap(), meanwhile);
    let file: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(file["mcpServers"]["other"]["command"], "npx");
    assert_eq!(file["mcpServers"]["mcp-broker"]["command"], "mcp-broker");
    let left: Vec<PathBuf> = fs::read_dir(user.folder()).unwrap().flatten().map(|entry| entry.path()).collect();
    assert!(
        left.iter().all(|path| !path.display().to_string().contains(".mcp-broker-")
            || path.ends_with(".claude.json.mcp-broker-backup")),
        "{left:?}"
    );
}

#[tokio::test]
async fn a_program_that_is_not_on_the_path_is_named_in_full_with_its_data_folder() {
    let (user, path) = user_of_cursor();
    let mut command = user.command(&["connect", "cursor", "--session", "mine", "--data-dir", "../data"]);
    assert!(command.env("PATH", "/nowhere").output().await.unwrap().status.success());
    let file = fs::read_to_string(&path).unwrap();
    let entry: serde_json::Value = serde_json::from_str(&file.replace("// mine", "")).unwrap();
    let entry = &entry["mcpServers"]["mcp-broker"];
    assert_eq!(entry["command"], fs::canonicalize(program()).unwrap().display().to_string());
    let data = std::path::absolute(user.project().join("../data")).unwrap();
    assert_eq!(entry["args"], serde_json::json!(["stdio", "--data-dir", data, "--session", "mine"]));
}

#[tokio::test]
async fn the_list_says_what_is_installed_and_what_each_file_says() {
    let user = User::new();
    user.write(
        ".cursor/mcp.json",
        "{\"mcpServers\": {\"mcp-broker\": {\"command\": \"/old/mcp-broker\", \"args\": [\"stdio\"]}}}",
    );
    user.write(".codex/config.toml", "[mcp_servers.mcp-broker]\ncommand = \"npx\"\n");
    user.write(
        ".gemini/settings.json",
        "{\"mcpServers\": {\"broker\": {\"command\": \"mcp-broker\", \"args\": [\"stdio\"]}}}",
    );
    user.write(".lmstudio/mcp.json", "{,}");
    user.client(&["connect", "goose"]).await.ok();
    let table = user.client(&["ls", "--global"]).await.ok().replace(&user.folder().display().to_string(), "~");
    insta::assert_snapshot!(table, @"
    CLIENT          INSTALLED  LEVEL  STATE                         FILE
    claude-code     no         user   not connected                 ~/.claude.json
    claude-desktop  no         user   not connected                 ~/.config/Claude/claude_desktop_config.json
    codex           yes        user   not ours                      ~/.codex/config.toml
    cursor          yes        user   stale                         ~/.cursor/mcp.json
    vscode          no         user   not connected                 ~/.config/Code/User/mcp.json
    gemini          yes        user   not connected, but as broker  ~/.gemini/settings.json
    goose           yes        user   connected                     ~/.config/goose/config.yaml
    zed             no         user   not connected                 ~/.config/zed/settings.json
    windsurf        no         user   not connected                 ~/.codeium/windsurf/mcp_config.json
    continue        no         user   not connected                 ~/.continue/config.yaml
    lmstudio        yes        user   unreadable                    ~/.lmstudio/mcp.json was left as it is: it is not valid: line 1, column 2: key must be a string
    opencode        no         user   not connected                 ~/.config/opencode/opencode.json
    ");
    // An entry of an older program is brought up to date.
    user.client(&["connect", "cursor"]).await.ok();
    assert!(user.client(&["ls", "--global"]).await.ok().contains("cursor          yes        user   connected"));
}

#[tokio::test]
async fn continues_old_config_is_not_put_out_of_use() {
    let user = User::new();
    user.write(".continue/config.json", "{}");
    let refused = user.client(&["connect", "continue"]).await;
    assert!(refused.err().contains("move to config.yaml first"), "{}", refused.err());
    assert!(!user.folder().join(".continue/config.yaml").exists());
}

#[tokio::test]
async fn in_the_home_folder_each_file_is_listed_once() {
    let user = User::new();
    let listed = Ran(user.command(&["ls", "--format", "json"]).current_dir(user.folder()).output().await.unwrap()).ok();
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let files: Vec<&str> = listed.as_array().unwrap().iter().filter_map(|row| row["file"].as_str()).collect();
    let each: std::collections::BTreeSet<&str> = files.iter().copied().collect();
    assert_eq!(files.len(), each.len(), "{files:?}");
    assert!(files.iter().any(|file| file.ends_with("/.codex/config.toml")), "{files:?}");
}
