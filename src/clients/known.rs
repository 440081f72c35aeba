//! The client programs that are known, and where each keeps its servers.
//!
//! | client | a user's file, in a project | documented at |
//! | --- | --- | --- |
//! | Claude Code | `~/.claude.json` (`$CLAUDE_CONFIG_DIR`), `.mcp.json` | <https://code.claude.com/docs/en/mcp> |
//! | Claude Desktop | `Claude/claude_desktop_config.json` | <https://modelcontextprotocol.io/docs/develop/connect-local-servers> |
//! | Codex | `~/.codex/config.toml` (`$CODEX_HOME`), `.codex/config.toml` in trusted projects | <https://developers.openai.com/codex/mcp> |
//! | Cursor | `~/.cursor/mcp.json`, `.cursor/mcp.json` | <https://cursor.com/docs/mcp> |
//! | VS Code | `Code/User/mcp.json`, `.vscode/mcp.json` | <https://code.visualstudio.com/docs/copilot/reference/mcp-configuration> |
//! | Gemini CLI | `~/.gemini/settings.json` (`$GEMINI_CLI_HOME`), `.gemini/settings.json` | <https://geminicli.com/docs/tools/mcp-server> |
//! | Goose | `~/.config/goose/config.yaml` | <https://block.github.io/goose/docs/guides/config-files>, references to the environment in its pull request 5439 |
//! | Zed | `~/.config/zed/settings.json`, `.zed/settings.json` | <https://zed.dev/docs/ai/mcp> |
//! | Windsurf | `~/.codeium/windsurf/mcp_config.json` | <https://docs.windsurf.com/windsurf/cascade/mcp> |
//! | Continue | `~/.continue/config.yaml` (`$CONTINUE_GLOBAL_DIR`), `.continue/mcpServers/*.yaml` | <https://docs.continue.dev/customize/deep-dives/mcp> |
//! | LM Studio | `~/.lmstudio/mcp.json`, in older installations `~/.cache/lm-studio/mcp.json` | <https://lmstudio.ai/docs/app/mcp> |
//! | opencode | `~/.config/opencode/opencode.json` or `.jsonc`, `opencode.json` or `.jsonc` | <https://opencode.ai/docs/mcp-servers> |
//!
//! `docker/mcp-gateway`'s `pkg/client/config.yml` has the same places for those that it knows, but for Claude Desktop on
//! Linux. The broker does not run on Windows, so places there are not among them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use clap::ValueEnum;

use super::edit::Format;

/// A program that uses MCP servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Client {
    #[value(alias = "claude")]
    ClaudeCode,
    ClaudeDesktop,
    Codex,
    Cursor,
    #[value(name = "vscode", alias = "vs-code")]
    VsCode,
    #[value(name = "gemini", alias = "gemini-cli")]
    Gemini,
    Goose,
    Zed,
    Windsurf,
    Continue,
    #[value(name = "lmstudio", alias = "lm-studio")]
    LmStudio,
    #[value(name = "opencode")]
    OpenCode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Os {
    Linux,
    MacOs,
}

/// What decides where files are.
#[derive(Debug, Clone)]
pub struct Surroundings {
    pub os: Os,
    pub home: PathBuf,
    pub environment: BTreeMap<String, String>,
}

/// Where a client's files are. Places begin with a variable; without its own value `$XDG_CONFIG_HOME` is `~/.config`. The
/// first that exists is taken, or else the first.
struct Places {
    title: &'static str,
    /// A variable that names the folder, and the file in it.
    moved: Option<(&'static str, &'static str)>,
    linux: &'static [&'static str],
    macos: &'static [&'static str],
    project: &'static [&'static str],
    /// Programs and folders that show that it is installed.
    signs: &'static [&'static str],
}

impl Surroundings {
    /// Those of this process.
    #[must_use]
    pub fn of_process() -> Option<Self> {
        let environment: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let os = if cfg!(target_os = "macos") { Os::MacOs } else { Os::Linux };
        let home = environment.get("HOME").filter(|home| !home.is_empty()).map(PathBuf::from)?;
        Some(Self { os, home, environment })
    }

    fn variable(&self, name: &str) -> Option<PathBuf> {
        let set = self.environment.get(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        match name {
            "HOME" => Some(self.home.clone()),
            "XDG_CONFIG_HOME" => Some(set.unwrap_or_else(|| self.home.join(".config"))),
            _ => set,
        }
    }

    fn place(&self, place: &str) -> Option<PathBuf> {
        match place.strip_prefix('$').and_then(|rest| rest.split_once('/')) {
            Some((variable, rest)) => Some(self.variable(variable)?.join(rest)),
            None => Some(PathBuf::from(place)),
        }
    }

    /// Whether a program of this name would be found.
    fn program(&self, name: &str) -> bool {
        let path = self.environment.get("PATH").map(String::as_str).unwrap_or_default();
        std::env::split_paths(path).any(|folder| folder.join(name).is_file())
    }
}

impl Client {
    /// All that are known.
    #[must_use]
    pub fn all() -> &'static [Self] {
        Self::value_variants()
    }

    /// What it is called by people.
    #[must_use]
    pub fn title(self) -> &'static str {
        self.places().title
    }

    /// The file that holds for everything the user does.
    #[must_use]
    pub fn user_file(self, around: &Surroundings) -> PathBuf {
        let places = self.places();
        if let Some((variable, file)) = places.moved
            && let Some(folder) = around.variable(variable)
        {
            return folder.join(file);
        }
        let candidates = match around.os {
            Os::Linux => places.linux,
            Os::MacOs => places.macos,
        };
        first(candidates.iter().filter_map(|place| around.place(place)).collect())
    }

    /// The file that holds in a folder, if the client has one.
    #[must_use]
    pub fn project_file(self, folder: &Path) -> Option<PathBuf> {
        let candidates: Vec<PathBuf> = self.places().project.iter().map(|place| folder.join(place)).collect();
        (!candidates.is_empty()).then(|| first(candidates))
    }

    /// Whether there are signs of it.
    #[must_use]
    pub fn is_installed(self, around: &Surroundings) -> bool {
        let is_there = |sign: &&str| match sign.contains('/') {
            true => around.place(sign).is_some_and(|path| path.exists()),
            false => around.program(sign),
        };
        self.places().signs.iter().any(is_there) || self.user_file(around).exists()
    }

    /// How its file is written.
    #[must_use]
    pub fn format(self) -> Format {
        match self {
            Self::ClaudeCode | Self::ClaudeDesktop | Self::Windsurf | Self::LmStudio => Format::Json,
            // Their parsers take comments; an opencode.json is read like an opencode.jsonc.
            Self::Cursor | Self::VsCode | Self::Gemini | Self::Zed | Self::OpenCode => Format::Jsonc,
            Self::Codex => Format::Toml,
            Self::Goose | Self::Continue => Format::Yaml,
        }
    }

    fn places(self) -> Places {
        let same = |title, place: &'static [&'static str], project, signs| Places {
            title,
            moved: None,
            linux: place,
            macos: place,
            project,
            signs,
        };
        match self {
            Self::ClaudeCode => Places {
                moved: Some(("CLAUDE_CONFIG_DIR", ".claude.json")),
                ..same("Claude Code", &["$HOME/.claude.json"], &[".mcp.json"], &["claude", "$HOME/.claude"])
            },
            Self::ClaudeDesktop => Places {
                title: "Claude Desktop",
                moved: None,
                linux: &[
                    "$XDG_CONFIG_HOME/Claude/claude_desktop_config.json",
                    "$XDG_CONFIG_HOME/claude/claude_desktop_config.json",
                ],
                macos: &["$HOME/Library/Application Support/Claude/claude_desktop_config.json"],
                project: &[],
                signs: &["claude-desktop", "/Applications/Claude.app", "$XDG_CONFIG_HOME/Claude"],
            },
            Self::Codex => Places {
                moved: Some(("CODEX_HOME", "config.toml")),
                ..same("Codex", &["$HOME/.codex/config.toml"], &[".codex/config.toml"], &["codex", "$HOME/.codex"])
            },
            Self::Cursor => same(
                "Cursor",
                &["$HOME/.cursor/mcp.json"],
                &[".cursor/mcp.json"],
                &["cursor", "cursor-agent", "$HOME/.cursor", "/Applications/Cursor.app"],
            ),
            Self::VsCode => Places {
                title: "VS Code",
                moved: None,
                linux: &["$XDG_CONFIG_HOME/Code/User/mcp.json"],
                macos: &["$HOME/Library/Application Support/Code/User/mcp.json"],
                project: &[".vscode/mcp.json"],
                signs: &["code", "$XDG_CONFIG_HOME/Code", "/Applications/Visual Studio Code.app"],
            },
            Self::Gemini => Places {
                moved: Some(("GEMINI_CLI_HOME", ".gemini/settings.json")),
                ..same(
                    "Gemini CLI",
                    &["$HOME/.gemini/settings.json"],
                    &[".gemini/settings.json"],
                    &["gemini", "$HOME/.gemini"],
                )
            },
            Self::Goose => {
                same("Goose", &["$XDG_CONFIG_HOME/goose/config.yaml"], &[], &["goose", "$XDG_CONFIG_HOME/goose"])
            }
            Self::Zed => Places {
                macos: &["$HOME/.config/zed/settings.json"],
                ..same(
                    "Zed",
                    &["$XDG_CONFIG_HOME/zed/settings.json"],
                    &[".zed/settings.json"],
                    &["zed", "zeditor", "$XDG_CONFIG_HOME/zed", "/Applications/Zed.app"],
                )
            },
            Self::Windsurf => same(
                "Windsurf",
                &["$HOME/.codeium/windsurf/mcp_config.json"],
                &[],
                &["windsurf", "$HOME/.codeium/windsurf", "/Applications/Windsurf.app"],
            ),
            Self::Continue => Places {
                moved: Some(("CONTINUE_GLOBAL_DIR", "config.yaml")),
                ..same(
                    "Continue",
                    &["$HOME/.continue/config.yaml"],
                    &[".continue/mcpServers/mcp-broker.yaml"],
                    &["$HOME/.continue"],
                )
            },
            Self::LmStudio => same(
                "LM Studio",
                &["$HOME/.lmstudio/mcp.json", "$HOME/.cache/lm-studio/mcp.json"],
                &[],
                &["lms", "$HOME/.lmstudio", "$HOME/.cache/lm-studio", "/Applications/LM Studio.app"],
            ),
            Self::OpenCode => same(
                "opencode",
                &["$XDG_CONFIG_HOME/opencode/opencode.json", "$XDG_CONFIG_HOME/opencode/opencode.jsonc"],
                &["opencode.json", "opencode.jsonc"],
                &["opencode", "$XDG_CONFIG_HOME/opencode"],
            ),
        }
    }
}

fn first(candidates: Vec<PathBuf>) -> PathBuf {
    let there = candidates.iter().find(|path| path.symlink_metadata().is_ok()).cloned();
    there.or_else(|| candidates.into_iter().next()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn around(os: Os, variables: &[(&str, &str)]) -> Surroundings {
        let environment = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Surroundings { os, home: PathBuf::from("/nowhere/ann"), environment }
    }

    #[test]
    fn every_client_has_its_file_on_every_system() {
        let table: Vec<String> = Client::all()
            .iter()
            .flat_map(|client| {
                [Os::Linux, Os::MacOs].map(|os| client.user_file(&around(os, &[])).display().to_string())
            })
            .map(|path| path.replace("/nowhere/ann", "~"))
            .collect();
        insta::assert_snapshot!(table.join("\n"), @"
        ~/.claude.json
        ~/.claude.json
        ~/.config/Claude/claude_desktop_config.json
        ~/Library/Application Support/Claude/claude_desktop_config.json
        ~/.codex/config.toml
        ~/.codex/config.toml
        ~/.cursor/mcp.json
        ~/.cursor/mcp.json
        ~/.config/Code/User/mcp.json
        ~/Library/Application Support/Code/User/mcp.json
        ~/.gemini/settings.json
        ~/.gemini/settings.json
        ~/.config/goose/config.yaml
        ~/.config/goose/config.yaml
        ~/.config/zed/settings.json
        ~/.config/zed/settings.json
        ~/.codeium/windsurf/mcp_config.json
        ~/.codeium/windsurf/mcp_config.json
        ~/.continue/config.yaml
        ~/.continue/config.yaml
        ~/.lmstudio/mcp.json
        ~/.lmstudio/mcp.json
        ~/.config/opencode/opencode.json
        ~/.config/opencode/opencode.json
        ");
    }

    #[test]
    fn a_variable_moves_the_file() {
        let moved = |client: Client, name: &str| client.user_file(&around(Os::Linux, &[(name, "/else")]));
        assert_eq!(moved(Client::ClaudeCode, "CLAUDE_CONFIG_DIR"), PathBuf::from("/else/.claude.json"));
        assert_eq!(moved(Client::Codex, "CODEX_HOME"), PathBuf::from("/else/config.toml"));
        assert_eq!(moved(Client::Gemini, "GEMINI_CLI_HOME"), PathBuf::from("/else/.gemini/settings.json"));
        assert_eq!(moved(Client::Goose, "XDG_CONFIG_HOME"), PathBuf::from("/else/goose/config.yaml"));
    }
}
