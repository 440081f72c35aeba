//! The official registry's listing: page after page, from where the last update ended.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use reqwest::{Client, Url};
use serde::Deserialize;
use serde_json::Value;

use super::{
    document::Listed,
    fetch::{self, FetchError, Marks},
    file::{ENTRIES_MAX, Problem},
};

const PAGE_SERVERS: &str = "100";

const PAGES_MAX: usize = 2000;

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
}

/// What has changed since an earlier listing.
#[derive(Debug, Default)]
pub struct Changes {
    pub entries: BTreeMap<String, Value>,
    /// Servers that were taken out.
    pub gone: BTreeSet<String>,
    /// The newest change that was seen; the next listing starts there.
    pub newest: Option<String>,
    pub problems: Vec<Problem>,
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
/// When any page is missing or wrong: half a listing is none.
pub async fn changes(
    client: &Client,
    url: &Url,
    since: Option<&str>,
    told: &(dyn Fn(usize) + Send + Sync),
) -> Result<Changes, ListingError> {
    let mut changes = Changes { newest: since.map(str::to_owned), ..Changes::default() };
    let mut listed = Listed::default();
    let mut cursors = HashSet::new();
    let mut cursor: Option<String> = None;
    for number in 1..=PAGES_MAX {
        let page = page(client, url, since, cursor.as_deref(), number).await?;
        for item in page.servers {
            take(&mut changes, &mut listed, item, url);
        }
        told(listed.entries.len());
        if listed.entries.len() > ENTRIES_MAX {
            return Err(ListingError::Endless("it has more servers than can be"));
        }
        cursor = page.metadata.next_cursor.filter(|cursor| !cursor.is_empty());
        let Some(next) = &cursor else {
            changes.entries = listed.entries;
            changes.problems = listed.problems;
            return Ok(changes);
        };
        if !cursors.insert(next.clone()) {
            return Err(ListingError::Endless("a page leads back to an earlier one"));
        }
    }
    Err(ListingError::Endless("it has more pages than can be"))
}

async fn page(
    client: &Client,
    url: &Url,
    since: Option<&str>,
    cursor: Option<&str>,
    number: usize,
) -> Result<Page, ListingError> {
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
    let text = fetch::get(client, &url, &Marks::default()).await?.text.unwrap_or_default();
    let page = serde_json::from_str(&text);
    page.map_err(|error| ListingError::Page { page: number, problem: error.to_string() })
}

fn take(changes: &mut Changes, listed: &mut Listed, item: Item, url: &Url) {
    let official = &item.meta[OFFICIAL];
    if let Some(updated) = official["updatedAt"].as_str()
        && changes.newest.as_deref().is_none_or(|newest| newest < updated)
    {
        changes.newest = Some(updated.to_owned());
    }
    let Some(name) = item.server["name"].as_str().map(str::to_owned) else {
        return listed.take(url.as_str(), item.server);
    };
    if official["isLatest"] == Value::Bool(false) {
        return;
    }
    if official["status"].as_str().is_some_and(|status| matches!(status, "deleted" | "deprecated")) {
        listed.entries.remove(&name);
        changes.gone.insert(name);
    } else {
        changes.gone.remove(&name);
        listed.take(url.as_str(), item.server);
    }
}
