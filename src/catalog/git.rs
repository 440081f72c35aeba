//! Servers from Git repositories: what whoever runs the broker asks for, and the entry it becomes.
//!
//! The commands are run as they are, with the rights of the broker's user. The operator gives them, at the command line and
//! with the administrator's token; and entries of the catalog may have them (`install` and `run` of a package), so that a
//! source's word is enough, a third party's too. That is no more than it is for a package, whose scripts run when it is
//! installed: to add a source is to agree to what it names. An agent can add a server that is there, and cannot write one.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::ids::ServerName;

/// The longest command, address or reference.
const TEXT_BYTES_MAX: usize = 8 << 10;

/// Where a repository is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitUrl(String);

impl GitUrl {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for GitUrl {
    type Err = String;

    /// An address that git takes and that cannot be changed on the way: https, ssh, or this machine.
    fn from_str(text: &str) -> Result<Self, String> {
        let odd = |letter: char| letter.is_control() || letter == ' ';
        if text.is_empty() || text.len() > TEXT_BYTES_MAX || text.starts_with('-') || text.contains(odd) {
            return Err("is not the address of a Git repository".to_owned());
        }
        let has_path = |url: &reqwest::Url| !url.path().trim_matches('/').is_empty();
        match reqwest::Url::parse(text) {
            // Whatever the name is, over HTTP it is a login: some take a token for it.
            Ok(url) if url.password().is_some() || (is_http(&url) && !url.username().is_empty()) => Err(
                "has a password or a token in it, which would be kept and shown: leave it out, and give the broker's \
                     user a credential helper or an SSH key"
                    .to_owned(),
            ),
            Ok(url) if is_http(&url) && (url.query().is_some() || url.fragment().is_some()) => Err(
                "has a `?` or `#` in it, and what comes after may be a token, which would be kept and shown: leave it \
                     out"
                .to_owned(),
            ),
            Ok(url) if matches!(url.scheme(), "https" | "ssh") && url.has_host() && has_path(&url) => {
                Ok(Self(text.to_owned()))
            }
            Ok(url) if url.scheme() == "http" && is_loopback(&url) && has_path(&url) => Ok(Self(text.to_owned())),
            Ok(url) if url.scheme() == "file" => Ok(Self(text.to_owned())),
            Ok(url) if matches!(url.scheme(), "http" | "git") => {
                Err(format!("is not protected on its way by `{}://`: use https or ssh", url.scheme()))
            }
            // `user@host:path`, as ssh has it; a colon twice would be one of git's remote helpers.
            _ if !text.contains("::") && is_ssh(text) => Ok(Self(text.to_owned())),
            _ if text.starts_with('/') => Ok(Self(text.to_owned())),
            _ => Err(
                "is not the address of a Git repository: use https://…, ssh://…, user@host:path or an absolute path"
                    .to_owned(),
            ),
        }
    }
}

fn is_http(url: &reqwest::Url) -> bool {
    matches!(url.scheme(), "http" | "https")
}

fn is_loopback(url: &reqwest::Url) -> bool {
    matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"))
}

fn is_ssh(text: &str) -> bool {
    let Some((host, path)) = text.split_once(':') else { return false };
    !host.contains('/') && host.contains('@') && !path.is_empty()
}

/// Whether a key of a session's servers is a repository rather than a name of the catalog.
#[must_use]
pub fn is_repository(key: &str) -> bool {
    key.starts_with("github/") || key.contains("://") || is_ssh(key) || (key.starts_with('/') && key.ends_with(".git"))
}

/// The repository that a key of a session's servers is about, and the name its server gets.
///
/// # Errors
///
/// A sentence on what is wrong with the key.
pub fn repository(key: &str) -> Result<(ServerName, GitUrl), String> {
    let named = |name: &str| name.parse::<ServerName>().map_err(|error| error.to_string());
    if let Some(path) = key.strip_prefix("github/") {
        let parts: Vec<&str> = path.split('/').collect();
        let plain =
            |part: &&str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        if parts.len() != 2 || !parts.iter().all(plain) || parts.iter().any(|part| part.starts_with('.')) {
            return Err("is not a repository: write github/OWNER/REPOSITORY".to_owned());
        }
        return Ok((named(key)?, format!("https://github.com/{path}").parse()?));
    }
    let url: GitUrl = key.parse()?;
    let bare = key.split_once("://").map_or(key, |(_, rest)| rest).trim_matches('/');
    let bare = bare.split_once('@').map_or(bare, |(_, rest)| rest).replace(':', "/");
    Ok((named(bare.strip_suffix(".git").unwrap_or(&bare))?, url))
}

/// What is asked for of a repository.
#[derive(Debug, Clone, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GitServer {
    /// Run in a fresh clone, once for each commit.
    #[serde(default, rename = "installCmd", alias = "install_cmd", alias = "install")]
    pub install: Option<String>,
    /// Run in the clone to start the server, which speaks MCP on its standard streams.
    #[serde(rename = "runCmd", alias = "run_cmd", alias = "run")]
    pub run: String,
    /// A branch, a tag or a commit; without it, the repository's default branch.
    #[serde(default, rename = "ref")]
    pub reference: Option<String>,
    /// Environment of the server. The values are kept as secrets.
    #[serde(default, alias = "env")]
    pub envs: BTreeMap<String, String>,
}

impl GitServer {
    /// What is wrong with it, a sentence each.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let commands = [("runCmd", Some(&self.run)), ("installCmd", self.install.as_ref())];
        for (what, command) in commands.into_iter().filter_map(|(what, command)| Some((what, command?))) {
            if let Err(problem) = Command::parse(command) {
                problems.push(format!("`{what}` {problem}"));
            }
        }
        if let Some(reference) = &self.reference
            && !is_reference(reference)
        {
            problems.push(format!("`{}` cannot be a branch, a tag or a commit", reference.escape_debug()));
        }
        for (name, value) in &self.envs {
            let is_variable = !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
                && !name.starts_with(|letter: char| letter.is_ascii_digit());
            if !is_variable || value.is_empty() || value.contains('\0') {
                problems.push(format!("`envs.{}` is not a variable with a value", name.escape_debug()));
            }
        }
        problems
    }

    /// The catalog entry of this server at a commit, without the values of its environment.
    #[must_use]
    pub fn entry(&self, server: &ServerName, url: &GitUrl, commit: &str) -> Value {
        let secret = |name: &String| json!({"name": self.secret(server, name), "env": name});
        let mut package = json!({"registry": "git", "identifier": url.as_str(), "version": commit, "run": self.run});
        if let Some(install) = &self.install {
            package["install"] = json!(install);
        }
        json!({
            "title": server,
            "description": format!("From the Git repository {}, commit {commit}.", url.as_str()),
            "upstream": url.as_str(),
            "packages": [package],
            "secrets": self.envs.keys().map(secret).collect::<Vec<_>>(),
        })
    }

    /// The values of its environment, by the names of its secrets.
    #[must_use]
    pub fn secrets(&self, server: &ServerName) -> Map<String, Value> {
        self.envs.iter().map(|(name, value)| (self.secret(server, name), json!(value))).collect()
    }

    #[expect(clippy::unused_self, reason = "reads better at the call")]
    fn secret(&self, server: &ServerName, variable: &str) -> String {
        format!("{server}:{variable}")
    }
}

fn is_reference(text: &str) -> bool {
    let odd = |letter: char| letter.is_control() || " ~^:?*[\\".contains(letter);
    !text.is_empty() && text.len() <= 250 && !text.starts_with('-') && !text.contains("..") && !text.contains(odd)
}

/// A command as a person writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A program and its arguments: started as it is, with no shell between it and the broker.
    Words(Vec<String>),
    /// What only a shell understands: `npm install && npm run build`.
    Shell(String),
}

impl Command {
    /// Takes a command apart as a shell would. One with operators, variables or patterns is for a shell.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        const FOR_A_SHELL: &str = "|&;<>()$`*?[]{}~#!\n";
        const BUILT_IN: [&str; 8] = [".", "cd", "command", "eval", "exec", "export", "set", "source"];
        if text.len() > TEXT_BYTES_MAX || text.contains('\0') {
            return Err(format!("is longer than {TEXT_BYTES_MAX} bytes, or has a zero byte in it"));
        }
        let words = shell_words::split(text).map_err(|_| "has a quote that is not closed")?;
        let Some(first) = words.first() else { return Err("is empty".to_owned()) };
        if first.is_empty() {
            return Err("has an empty word where its program should be".to_owned());
        }
        let for_shell = text.contains(|letter| FOR_A_SHELL.contains(letter))
            || first.contains('=')
            || BUILT_IN.contains(&first.as_str());
        Ok(if for_shell { Self::Shell(text.to_owned()) } else { Self::Words(words) })
    }

    /// The program, and its arguments.
    #[must_use]
    pub fn into_parts(self) -> (String, Vec<String>) {
        match self {
            Self::Shell(text) => ("/bin/sh".to_owned(), vec!["-c".to_owned(), text]),
            Self::Words(mut words) => {
                let program = words.remove(0);
                (program, words)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_have_names_and_addresses() {
        let named = |key: &str| repository(key).map(|(name, url)| format!("{name} {}", url.as_str()));
        assert_eq!(named("github/a/b.c").unwrap(), "github/a/b.c https://github.com/a/b.c");
        assert_eq!(named("https://example.com/a/b.git").unwrap(), "example.com/a/b https://example.com/a/b.git");
        assert_eq!(named("git@example.com:a/b.git").unwrap(), "example.com/a/b git@example.com:a/b.git");
        assert_eq!(named("ssh://git@example.com/a/b").unwrap(), "example.com/a/b ssh://git@example.com/a/b");
        for bad in ["github/a", "github/a/b/c", "github/../b", "http://example.com/a", "git://example.com/a", "ext::sh"]
        {
            assert!(named(bad).is_err(), "{bad}");
        }
        for login in ["https://me:pw@example.com/a", "https://token@example.com/a", "http://token@localhost/a"] {
            assert!(named(login).unwrap_err().contains("a password or a token"), "{login}");
        }
        for more in ["https://example.com/a?access_token=x", "https://example.com/a.git#x"] {
            assert!(named(more).unwrap_err().contains("leave it out"), "{more}");
        }
        for bad in ["-u", "ext::sh -c x", "a b", "host::x", "https://"] {
            assert!(bad.parse::<GitUrl>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_command_is_split_as_a_shell_would_or_left_to_one() {
        let parts = |text: &str| Command::parse(text).map(Command::into_parts).unwrap();
        let words = |text: &str| text.split('|').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(parts(r#"node "my server.js" 'a b' c\ d"#), ("node".into(), words("my server.js|a b|c d")));
        assert_eq!(parts("node x --root=/data"), ("node".into(), words("x|--root=/data")));
        for shell in ["npm install && npm run build", "A=1 node x", "node $HOME/x", "exec node x", "node `ls`", "a | b"]
        {
            assert_eq!(parts(shell), ("/bin/sh".into(), vec!["-c".to_owned(), shell.to_owned()]), "{shell}");
        }
        for bad in ["", "  ", "node 'x", "node \"x", "'' x", "a\0b"] {
            assert!(Command::parse(bad).is_err(), "{bad:?}");
        }
    }
}
