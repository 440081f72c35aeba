//! The official registry's listing: page after page, from where the last update ended.

use std::collections::{BTreeSet, HashSet};

use reqwest::{Client, Url};
use serde::Deserialize;
use serde_json::Value;

use super::{
    document::Listed,
    fetch::{self, FetchError, Marks},
    file::ENTRIES_MAX,
    source::{noted, shown},
};
use crate::ids::ServerName;

const PAGE_SERVERS: &str = "100";

const PAGES_MAX: usize = 2000;

/// All pages together. A listing of 12,000 servers has a tenth of it.
const BYTES_MAX: usize = 256 << 20;

/// Servers that were taken out since the last listing.
const GONE_MAX: usize = 100_000;

/// Problems that are kept of one listing; more are counted only.
const PROBLEMS_MAX: usize = 1000;

/// Where the official extension of an item is.
const OFFICIAL: &str = "io.modelcontextprotocol.registry/official";

/// The listing was not had whole. What was there before still counts.
#[derive(Debug, thiserror::Error)]
pub enum ListingError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("page {page} of the listing is not one: {problem}")]
    Page { page: usize, problem: String },
    #[error("the listing does not end: {0}")]
    Endless(&'static str),
    #[error("the listing is too large: it has more than {most} {what}")]
    TooLarge { most: usize, what: &'static str },
}

/// What has changed since an earlier listing.
#[derive(Debug, Default)]
pub struct Changes {
    pub listed: Listed,
    /// Problems besides those that are listed.
    pub more_problems: usize,
    /// Servers that were taken out.
    pub gone: BTreeSet<String>,
    /// The newest change that was seen; the next listing starts there.
    pub newest: Option<String>,
}

#[derive(Deserialize)]
struct Page {
    servers: Vec<Item>,
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Default, Deserialize)]
struct Metadata {
    #[serde(default, rename = "nextCursor", alias = "next_cursor")]
    next_cursor: Option<String>,
}

#[derive(Deserialize)]
struct Item {
    server: Value,
    #[serde(default, rename = "_meta")]
    meta: Value,
}

/// The address of the listing, when only that of the registry is given.
#[must_use]
pub fn listing(mut url: Url) -> Url {
    if !url.path().trim_end_matches('/').ends_with("/servers") {
        url.set_path("/v0.1/servers");
    }
    url
}

/// Reads every page. `told` learns how many servers there are so far.
///
/// # Errors
///
/// When any page is missing or wrong, or all of them are too much: half a listing is none.
pub async fn changes(
    client: &Client,
    url: &Url,
    since: Option<&str>,
    told: &(dyn Fn(usize) + Send + Sync),
) -> Result<Changes, ListingError> {
    let mut changes = Changes { newest: since.map(str::to_owned), ..Changes::default() };
    let file = shown(url.as_str());
    let mut cursors = HashSet::new();
    let mut cursor: Option<String> = None;
    let mut bytes = 0;
    for number in 1..=PAGES_MAX {
        let text = text_of_page(client, url, since, cursor.as_deref()).await?;
        bytes += text.len();
        at_most(BYTES_MAX, bytes, "bytes")?;
        let page = page(&text, number)?;
        for item in page.servers {
            take(&mut changes, item, &file);
        }
        told(changes.listed.entries.len());
        at_most(ENTRIES_MAX, changes.listed.entries.len(), "servers")?;
        at_most(ENTRIES_MAX, changes.listed.unusable.len(), "servers that cannot be used")?;
        at_most(GONE_MAX, changes.gone.len(), "servers that were taken out")?;
        cursor = page.metadata.next_cursor.filter(|cursor| !cursor.is_empty());
        let Some(next) = &cursor else { return Ok(changes) };
        if !cursors.insert(next.clone()) {
            return Err(ListingError::Endless("a page leads back to an earlier one"));
        }
    }
    Err(ListingError::Endless("it has more pages than can be"))
}

fn at_most(most: usize, has: usize, what: &'static str) -> Result<(), ListingError> {
    if has > most { Err(ListingError::TooLarge { most, what }) } else { Ok(()) }
}

async fn text_of_page(
    client: &Client,
    url: &Url,
    since: Option<&str>,
    cursor: Option<&str>,
) -> Result<String, ListingError> {
    let mut url = url.clone();
    {
        let mut query = url.query_pairs_mut();
        query.append_pair("limit", PAGE_SERVERS).append_pair("version", "latest");
        if let Some(since) = since {
            query.append_pair("updated_since", since);
        }
        if let Some(cursor) = cursor {
            query.append_pair("cursor", cursor);
        }
    }
    Ok(fetch::get(client, &url, &Marks::default()).await?.text.unwrap_or_default())
}

fn page(text: &str, number: usize) -> Result<Page, ListingError> {
    serde_json::from_str(text).map_err(|error| ListingError::Page { page: number, problem: noted(&error.to_string()) })
}

fn take(changes: &mut Changes, item: Item, file: &str) {
    let official = &item.meta[OFFICIAL];
    if let Some(updated) = official["updatedAt"].as_str()
        && changes.newest.as_deref().is_none_or(|newest| newest < updated)
    {
        changes.newest = Some(updated.to_owned());
    }
    if let Some(name) = item.server["name"].as_str() {
        if official["isLatest"] == Value::Bool(false) {
            return;
        }
        if official["status"].as_str().is_some_and(|status| matches!(status, "deleted" | "deprecated")) {
            changes.listed.entries.remove(name);
            // What cannot name a server has never been taken.
            if name.parse::<ServerName>().is_ok() {
                changes.gone.insert(name.to_owned());
            }
            return;
        }
        changes.gone.remove(name);
    }
    changes.listed.take(file, item.server);
    if changes.listed.problems.len() > PROBLEMS_MAX {
        changes.listed.problems.truncate(PROBLEMS_MAX);
        changes.more_problems += 1;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn taken(items: impl IntoIterator<Item = Value>) -> Changes {
        let mut changes = Changes::default();
        for item in items {
            take(&mut changes, serde_json::from_value(item).unwrap(), "x");
        }
        changes
    }

    #[test]
    fn problems_are_kept_up_to_a_bound_and_every_server_is_known_to_be_there() {
        let changes = taken((0..1200).map(|number| json!({"server": {"name": format!("n/{number}")}})));
        assert_eq!((changes.listed.problems.len(), changes.more_problems), (1000, 200));
        assert_eq!(changes.listed.unusable.len(), 1200);
    }

    #[test]
    fn what_is_too_large_is_left_out_and_the_rest_is_taken() {
        let server = |name: &str, description: &str| {
            json!({"server": {"name": name, "description": description, "remotes": [
                {"type": "streamable-http", "url": "https://x.example/"},
            ]}})
        };
        let changes = taken([server("n/huge", &"y".repeat(2 << 20)), server("n/good", "")]);
        assert_eq!(changes.listed.entries.into_keys().collect::<Vec<_>>(), ["n/good"]);
        assert!(changes.listed.problems[0].to_string().starts_with("x: n/huge: has "));
    }

    #[test]
    fn what_was_taken_out_is_gone_until_it_is_back() {
        let deleted = |name: &str| json!({"server": {"name": name}, "_meta": {OFFICIAL: {"status": "deleted"}}});
        let changes = taken([deleted("n/a"), deleted("n/b"), deleted(" "), json!({"server": {"name": "n/b"}})]);
        assert_eq!(changes.gone.into_iter().collect::<Vec<_>>(), ["n/a"]);
        assert!(at_most(1, 1, "servers").is_ok() && at_most(1, 2, "servers").is_err());
    }
}
