//! `mcp-find`: which servers can do something.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashSet},
    fmt::Write as _,
    sync::Arc,
};

use catalog_index::Hit;
use rmcp::model::{CallToolResult, ContentBlock, JsonObject};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Context, Reply, failure::Failure};
use crate::{
    catalog::{Entry, Snapshot, Trust, spelling},
    ids::ServerName,
    session::Session,
};

const LIMIT_DEFAULT: usize = 10;
const LIMIT_MAX: usize = 50;

/// What the best server scores at least when there is one for what was asked: of the labelled queries of
/// `catalog/queries.jsonl` and others, one in forty comes near it, and what no server can do scores 0.3 or 0.4.
const SCORE_OF_A_MATCH: f32 = 0.5;

/// Servers that are named when there is none.
const NEAREST: usize = 3;

const FEWER: &str = "`limit` (a number), `category`, `source` (text), `runnable`, `no_secrets` (true or false)";

/// A line per server has to stay a line.
const DESCRIPTION_CHARACTERS_MAX: usize = 140;

/// Categories that are named where there is none of the wanted name, the largest first, or sources.
const KNOWN_MAX: usize = 20;

const QUERY_CHARACTERS_MAX: usize = 80;

#[derive(Deserialize)]
struct Arguments {
    query: String,
    #[serde(default)]
    limit: Option<i64>,
    #[serde(flatten)]
    wanted: Wanted,
}

/// Which servers come into question.
#[derive(Default, Deserialize)]
struct Wanted {
    #[serde(default)]
    category: Option<String>,
    #[serde(default)]
    source: Option<String>,
    #[serde(default)]
    runnable: bool,
    #[serde(default)]
    no_secrets: bool,
}

impl Wanted {
    fn everything(&self) -> bool {
        self.category.is_none() && self.source.is_none() && !self.runnable && !self.no_secrets
    }

    fn fits(&self, context: &Context, entry: &Entry) -> bool {
        self.category.as_ref().is_none_or(|category| is_of(entry, category))
            && self.source.as_ref().is_none_or(|source| source.eq_ignore_ascii_case(&entry.source))
            && !(self.no_secrets && entry.secrets.iter().any(|secret| secret.required))
            && !(self.runnable && context.run_for(entry).is_err())
    }

    /// What is to be said of a source or a category that the catalog does not have.
    fn unknown(&self, catalog: &Snapshot) -> Option<String> {
        let told = |kind: &str, wanted: &str, known: Vec<String>| {
            let hint = spelling::hint(wanted, known.iter().map(String::as_str));
            let known: Vec<String> = known.into_iter().take(KNOWN_MAX).collect();
            let known = if known.is_empty() { String::new() } else { format!(" There are: {}.", known.join(", ")) };
            Some(format!(
                "There is no {kind} `{}` in the catalog{hint}.{known}",
                shortened(wanted, QUERY_CHARACTERS_MAX)
            ))
        };
        if let Some(wanted) = &self.source {
            let packs = catalog.packs();
            if !packs.iter().any(|(source, ..)| source.eq_ignore_ascii_case(wanted)) {
                // Where the operator's own files are is nobody else's business.
                let others = packs.iter().filter(|(_, trust, ..)| *trust != Trust::Operator);
                return told("source", wanted, others.map(|(source, ..)| source.to_string()).collect());
            }
        }
        let wanted = self.category.as_deref()?;
        let mut categories: BTreeMap<String, usize> = BTreeMap::new();
        for entry in catalog.entries() {
            if is_of(&entry, wanted) {
                return None;
            }
            if !entry.category.is_empty() {
                *categories.entry(entry.category.clone()).or_default() += 1;
            }
        }
        let mut categories: Vec<(String, usize)> = categories.into_iter().collect();
        categories.sort_by_key(|(_, servers)| Reverse(*servers));
        told("category or tag", wanted, categories.into_iter().map(|(name, _)| name).collect())
    }
}

/// Whether an entry is of a category, or has it as a tag.
fn is_of(entry: &Entry, category: &str) -> bool {
    let mut names = entry.tags.iter().chain([&entry.category]);
    names.any(|name| name.eq_ignore_ascii_case(category))
}

pub(super) fn run(
    context: &Arc<Context>,
    session: Option<&Arc<Session>>,
    arguments: JsonObject,
) -> Result<Reply, Failure> {
    let arguments: Arguments = serde_json::from_value(Value::Object(arguments)).map_err(|error| {
        Failure::said(format!("mcp-find takes `query` (text), and for fewer servers {FEWER}: {error}"))
    })?;
    if arguments.query.trim().is_empty() {
        return Err(Failure::said("mcp-find needs a `query`: say what you want to do, or name a product"));
    }
    let limit = arguments.limit.map_or(LIMIT_DEFAULT, |limit| usize::try_from(limit).unwrap_or(0)).clamp(1, LIMIT_MAX);
    let catalog = context.catalog.snapshot();
    let wanted = &arguments.wanted;
    let hits = if wanted.everything() {
        catalog.search(&arguments.query, limit)
    } else {
        catalog.search_among(&arguments.query, limit, |entry| wanted.fits(context, entry))
    };
    let hits = hits.map_err(|error| Failure::said(format!("the catalog could not be searched: {error}")))?;
    let on: HashSet<ServerName> =
        session.map(|session| session.servers().into_iter().map(|added| added.server).collect()).unwrap_or_default();
    let unlikely = hits.hits.first().is_some_and(|best| best.score < SCORE_OF_A_MATCH);
    let (shown, more) = if unlikely { (NEAREST, 0) } else { (limit, hits.more) };
    let found = hits.hits.iter().take(shown).filter_map(|hit| Found::of(context, session, &catalog, hit, &on));
    let found: Vec<Found> = found.collect();
    let unknown = if found.is_empty() { wanted.unknown(&catalog) } else { None };
    let found = Answer { found, more, unlikely, unknown, entries: catalog.len() };
    Ok(Reply::CallToolResult(found.to_result(&arguments.query, wanted)))
}

struct Answer {
    found: Vec<Found>,
    more: usize,
    /// Whether even the best is hardly what was asked for.
    unlikely: bool,
    /// What is wrong with what was wanted.
    unknown: Option<String>,
    /// How many servers there are.
    entries: usize,
}

struct Found {
    name: ServerName,
    title: String,
    description: String,
    tools: Vec<String>,
    /// Of the query, that the server has an answer to.
    words: Vec<String>,
    needs: Vec<String>,
    on: bool,
    /// Where it comes from, if that is neither the broker nor the operator.
    stranger: Option<Arc<str>>,
}

impl Found {
    fn of(
        context: &Context,
        session: Option<&Arc<Session>>,
        catalog: &Snapshot,
        hit: &Hit,
        on: &HashSet<ServerName>,
    ) -> Option<Self> {
        let name: ServerName = hit.name.parse().ok()?;
        let entry: &Arc<Entry> = catalog.entry(&name)?;
        let config = match session {
            Some(session) => context.config_of(session, entry),
            None => context.server_config.get(&name).cloned().unwrap_or_default(),
        };
        let needs = context.needs(session.map(|session| session.id()), entry, &config, &[]).brief(entry);
        Some(Self {
            title: entry.title.clone(),
            description: sentence(&entry.description),
            tools: hit.matched_tools.clone(),
            words: hit.matched_words.clone(),
            needs,
            on: on.contains(&name),
            stranger: (catalog.trust(&name) == Some(Trust::ThirdParty)).then(|| entry.source.clone()),
            name,
        })
    }

    fn line(&self) -> String {
        let mut line = self.name.to_string();
        if self.title.to_lowercase() != self.name.as_str().to_lowercase() {
            let _ = write!(line, " ({})", self.title);
        }
        let _ = write!(line, ": {}", self.description);
        if !self.tools.is_empty() {
            let _ = write!(line, " [tools: {}]", self.tools.join(", "));
        }
        if !self.needs.is_empty() {
            let _ = write!(line, " [needs: {}]", self.needs.join("; "));
        }
        if let Some(source) = &self.stranger {
            let _ = write!(line, " [from: {source}, a third party]");
        }
        if self.on {
            line.push_str(" [on]");
        }
        line
    }

    fn to_value(&self) -> Value {
        let mut value = json!({"name": self.name, "title": self.title, "description": self.description});
        // Why it was found: the tools, or where none is like the query, its words.
        if !self.tools.is_empty() {
            value["tools"] = json!(self.tools);
        } else if !self.words.is_empty() {
            value["words"] = json!(self.words);
        }
        if !self.needs.is_empty() {
            value["needs"] = json!(self.needs);
        }
        if let Some(source) = &self.stranger {
            value["source"] = json!(source);
            value["trust"] = json!(Trust::ThirdParty.word());
        }
        if self.on {
            value["on"] = json!(true);
        }
        value
    }
}

impl Answer {
    fn to_result(&self, query: &str, wanted: &Wanted) -> CallToolResult {
        let query = shortened(query, QUERY_CHARACTERS_MAX);
        let advice = if wanted.everything() { "Try other words." } else { "Try other words, or ask for fewer things." };
        let lines = self.found.iter().map(Found::line).collect::<Vec<_>>().join("\n");
        let mut text = if let Some(unknown) = &self.unknown {
            unknown.clone()
        } else if self.found.is_empty() {
            format!("None of the {} servers in the catalog matches “{query}”. {advice}", self.entries)
        } else if self.unlikely {
            format!("No server in the catalog is clearly for “{query}”. {advice} The nearest:\n{lines}")
        } else {
            lines
        };
        if self.more > 0 {
            let _ = write!(text, "\n({} more match)", self.more);
        }
        let mut result = CallToolResult::success(vec![ContentBlock::text(text)]);
        let servers: Vec<Value> = self.found.iter().map(Found::to_value).collect();
        let mut structured = json!({"servers": servers, "more": self.more});
        if self.unlikely {
            structured["unlikely"] = json!(true);
        }
        result.structured_content = Some(structured);
        result
    }
}

/// The first sentence, or as much of it as fits.
fn sentence(text: &str) -> String {
    let first = text.split_inclusive(". ").next().unwrap_or(text).trim();
    shortened(first, DESCRIPTION_CHARACTERS_MAX)
}

/// `text` cut at a word, within `characters_max`.
pub(super) fn shortened(text: &str, characters_max: usize) -> String {
    if text.chars().count() <= characters_max {
        return text.to_owned();
    }
    let cut: String = text.chars().take(characters_max - 1).collect();
    let end = cut.rfind(' ').filter(|end| *end > cut.len() / 2).unwrap_or(cut.len());
    format!("{}…", cut[..end].trim_end_matches([',', ';', ':', ' ']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_are_one_sentence_at_most() {
        assert_eq!(sentence("Reads files. Writes them too."), "Reads files.");
        let long = sentence(&"word ".repeat(100));
        assert!(long.chars().count() <= DESCRIPTION_CHARACTERS_MAX && long.ends_with("word…"), "{long}");
    }
}
