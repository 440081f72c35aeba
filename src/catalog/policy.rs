//! What agents may add: the operator's lists of what is allowed and what is not.

use std::time::Duration;

use serde::Deserialize;

use super::{Catalog, entry::Entry};

const REFRESH_HOURS: u32 = 24;

/// `catalog:` in the settings.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CatalogSettings {
    /// If it names anything, nothing else can be added.
    pub allow: Lists,
    /// What cannot be added, whatever `allow` says.
    pub deny: Lists,
    /// How old what is known of a source may become before it is asked again; 0: until `mcp-broker catalog update`.
    pub refresh_hours: u32,
}

impl Default for CatalogSettings {
    fn default() -> Self {
        Self { allow: Lists::default(), deny: Lists::default(), refresh_hours: REFRESH_HOURS }
    }
}

/// Names of sources, servers and categories. `*` stands for any text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Lists {
    pub sources: Vec<String>,
    pub servers: Vec<String>,
    pub categories: Vec<String>,
}

impl Lists {
    fn is_empty(&self) -> bool {
        self.sources.is_empty() && self.servers.is_empty() && self.categories.is_empty()
    }

    /// What of `entry` is on the lists, in words.
    fn names(&self, entry: &Entry) -> Option<String> {
        let on = |patterns: &[String], text: &str| patterns.iter().any(|pattern| fits(pattern, text));
        if on(&self.servers, entry.name.as_str()) {
            Some("this server".to_owned())
        } else if on(&self.sources, &entry.source) {
            Some(format!("the source `{}`", entry.source))
        } else if on(&self.categories, &entry.category) {
            Some(format!("the category `{}`", entry.category))
        } else {
            None
        }
    }
}

impl CatalogSettings {
    /// How often sources are asked; None for never.
    #[must_use]
    pub fn refresh(&self) -> Option<Duration> {
        (self.refresh_hours > 0).then(|| Duration::from_secs(u64::from(self.refresh_hours) * 3600))
    }

    /// Whether nothing is forbidden.
    #[must_use]
    pub fn allows_all(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty()
    }

    /// Why `entry` may not be added; nothing if it may.
    #[must_use]
    pub fn refusal(&self, entry: &Entry) -> Option<String> {
        if let Some(what) = self.deny.names(entry) {
            return Some(format!("the operator does not allow {what}"));
        }
        let allowed = self.allow.is_empty() || self.allow.names(entry).is_some();
        (!allowed).then(|| "it is not among the servers that the operator allows".to_owned())
    }
}

impl Catalog {
    /// Why an entry may not be added, be it of this catalog or not; nothing if it may.
    #[must_use]
    pub fn refusal_of(&self, entry: &Entry) -> Option<String> {
        self.settings.refusal(entry)
    }
}

/// Whether `text` is what `pattern` says, upper and lower case alike.
#[must_use]
pub fn fits(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.to_lowercase(), text.to_lowercase());
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::file;

    fn entry() -> Entry {
        let yaml = "registry: {io.github.acme/tool: {image: x, metadata: {category: Security}}}";
        file::parse("corp", yaml).unwrap().entries.remove(0)
    }

    fn settings(yaml: &str) -> CatalogSettings {
        serde_saphyr::from_str(yaml).unwrap()
    }

    #[test]
    fn patterns_match_whole_names() {
        assert!(fits("io.github.acme/*", "io.github.acme/tool"));
        assert!(fits("*TOOL", "io.github.acme/tool"));
        assert!(fits("a*b*c", "a-b-b-c"));
        assert!(fits("*", "") && fits("", ""));
        assert!(!fits("tool", "io.github.acme/tool") && !fits("a*b*c", "a-c-b") && !fits("", "x"));
    }

    #[test]
    fn what_is_denied_is_refused_whatever_is_allowed() {
        assert_eq!(settings("{}").refusal(&entry()), None);
        let denied = settings("{allow: {sources: [corp]}, deny: {categories: [security]}}").refusal(&entry());
        assert_eq!(denied.as_deref(), Some("the operator does not allow the category `Security`"));
    }

    #[test]
    fn if_anything_is_allowed_nothing_else_is() {
        assert_eq!(settings("{allow: {servers: ['io.github.acme/*']}}").refusal(&entry()), None);
        assert_eq!(settings("{allow: {sources: [corp], servers: [time]}}").refusal(&entry()), None);
        assert!(settings("{allow: {servers: [time]}}").refusal(&entry()).unwrap().contains("not among"));
    }
}
