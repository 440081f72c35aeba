//! What a server's tools and prompts are called towards clients.
//!
//! `server__tool`, of `[A-Za-z0-9_-]` and at most 64 characters, which is what the strictest clients allow. The part before
//! the first `_` is the server, because a server's prefix has none. A name depends on its server and itself alone, so that
//! it stays when another server is added; the one exception, two servers whose names reduce to the same prefix, is decided
//! once, when the second is added.

use crate::ids::{ServerName, fingerprint};

/// Longest name a client has to accept.
pub const NAME_CHARACTERS_MAX: usize = 64;

const PREFIX_CHARACTERS_MAX: usize = 32;
const HASH_CHARACTERS: usize = 6;

/// Stands between server and tool.
pub const SEPARATOR: &str = "__";

/// Names of the broker's own tools; nothing of a server's may look like one.
pub const RESERVED: [&str; 9] = [
    "mcp-find",
    "mcp-add",
    "mcp-config-set",
    "mcp-remove",
    "mcp-exec",
    "mcp-list",
    "code-mode",
    "mcp-create-profile",
    "mcp-activate-profile",
];

/// The prefix of what is the broker's and named like a server's.
const OWN_PREFIX: &str = "broker";

/// A server's prefix, given those that are taken in the session.
#[must_use]
pub fn prefix(server: &ServerName, is_taken: impl Fn(&str) -> bool) -> String {
    let reduced: String = server
        .as_str()
        .chars()
        .map(|character| if character.is_ascii_alphanumeric() { character } else { '-' })
        .collect();
    let reduced = reduced.trim_matches('-');
    let reduced = if reduced.is_empty() { "server" } else { reduced };
    if reduced.len() <= PREFIX_CHARACTERS_MAX && reduced != OWN_PREFIX && !is_taken(reduced) {
        return reduced.to_owned();
    }
    let kept: String = reduced.chars().take(PREFIX_CHARACTERS_MAX - HASH_CHARACTERS - 1).collect();
    format!("{}-{}", kept.trim_end_matches('-'), fingerprint(server.as_str(), HASH_CHARACTERS))
}

/// The name of `tool` behind `prefix`.
#[must_use]
pub fn with_prefix(prefix: &str, tool: &str) -> String {
    let room = NAME_CHARACTERS_MAX - SEPARATOR.len() - prefix.len().min(NAME_CHARACTERS_MAX / 2);
    format!("{prefix}{SEPARATOR}{}", reduce(tool, room))
}

/// The name of `tool` on its own.
#[must_use]
pub fn without_prefix(tool: &str) -> String {
    reduce(tool, NAME_CHARACTERS_MAX)
}

/// `name` within `[A-Za-z0-9_-]` and `characters_max`; told apart by a hash where something had to be cut.
fn reduce(name: &str, characters_max: usize) -> String {
    let allowed = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '-');
    let reduced: String = name.chars().map(|character| if allowed(character) { character } else { '_' }).collect();
    if reduced.len() <= characters_max && !reduced.is_empty() {
        return reduced;
    }
    let kept: String = reduced.chars().take(characters_max - HASH_CHARACTERS - 1).collect();
    format!("{kept}_{}", fingerprint(name, HASH_CHARACTERS))
}

/// A name for the second of two that reduce to the same.
#[must_use]
pub fn told_apart(exposed: &str, original: &str) -> String {
    let kept: String = exposed.chars().take(NAME_CHARACTERS_MAX - HASH_CHARACTERS - 1).collect();
    format!("{kept}_{}", fingerprint(original, HASH_CHARACTERS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ServerName {
        text.parse().unwrap()
    }

    fn is_legal(exposed: &str) -> bool {
        !exposed.is_empty()
            && exposed.len() <= NAME_CHARACTERS_MAX
            && exposed.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
    }

    #[test]
    fn ordinary_names_are_left_alone() {
        assert_eq!(prefix(&name("github-official"), |_| false), "github-official");
        assert_eq!(with_prefix("github-official", "create_issue"), "github-official__create_issue");
    }

    #[test]
    fn whatever_a_server_and_its_tools_are_called_the_name_is_legal() {
        for server in ["io.github.someone/some_server", "日本", "_", &"x".repeat(200), "a b c", "é"] {
            let prefix = prefix(&name(server), |_| false);
            assert!(!prefix.contains('_'), "{prefix}");
            for tool in ["a.b/c:d", "", &"t".repeat(300), "日本語", "__x"] {
                let exposed = with_prefix(&prefix, tool);
                assert!(is_legal(&exposed), "{exposed}");
                assert_eq!(exposed.split('_').next(), Some(prefix.as_str()));
                assert!(is_legal(&without_prefix(tool)));
                assert!(is_legal(&told_apart(&exposed, tool)));
            }
        }
    }

    #[test]
    fn long_names_stay_distinct_and_stable() {
        let (first, second) = (format!("{}a", "t".repeat(100)), format!("{}b", "t".repeat(100)));
        assert_ne!(with_prefix("s", &first), with_prefix("s", &second));
        assert_eq!(with_prefix("s", &first), with_prefix("s", &first));
    }

    #[test]
    fn a_taken_prefix_is_told_apart() {
        assert_eq!(prefix(&name("a.b"), |_| false), "a-b");
        let other = prefix(&name("a.b"), |taken| taken == "a-b");
        assert!(other.starts_with("a-b-") && other.len() > 4, "{other}");
    }
}
