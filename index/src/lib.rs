//! Catalog documents in, ranked hits out.
//!
//! [`Index::build`] takes every entry of a catalog once and is replaced whole when the catalog changes; a search never
//! writes. Ranking is BM25 summed over fields with weights of their own, where a word counts in the field it fits best,
//! an entry that covers more of the question's words beats one that repeats a rare one, and a word that is in no entry at
//! all is taken for a typo of one that is.
//!
//! What this crate does not know: sessions, MCP, SQL, tokio. It sees names and sentences.

mod fields;
mod query;
mod text;

use tantivy::{DocAddress, Searcher, TantivyError, collector::TopDocs};

use fields::Fields;

/// One catalog entry, as far as searching is concerned.
#[derive(Debug, Clone, Default)]
pub struct Document {
    pub name: String,
    pub title: String,
    pub description: String,
    pub category: String,
    pub tags: Vec<String>,
    pub tools: Vec<ToolDocument>,
}

/// A tool of a catalog entry.
#[derive(Debug, Clone, Default)]
pub struct ToolDocument {
    pub name: String,
    pub description: String,
}

/// One entry that answers a query, best first.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// The name the document was indexed under.
    pub name: String,
    /// Comparable within one answer only.
    pub score: f32,
    /// The entry's tools whose names share words with the query, most shared words first, at most
    /// [`MATCHED_TOOLS_MAX`].
    pub matched_tools: Vec<String>,
}

/// How many matching tools a [`Hit`] names.
pub const MATCHED_TOOLS_MAX: usize = 3;

/// Longest part of a query that is looked at, in bytes; the rest is ignored.
pub const QUERY_BYTES_MAX: usize = 1024;

/// The index could not be built or read. Only a broken build or an exhausted memory gets here.
#[derive(Debug, thiserror::Error)]
#[error("catalog index: {0}")]
pub struct IndexError(#[from] TantivyError);

/// An immutable index over one version of the catalog.
pub struct Index {
    fields: Fields,
    searcher: Searcher,
    rows: Vec<Row>,
}

/// What an answer says of an entry; kept beside tantivy, so that a search never reads a stored document.
struct Row {
    name: String,
    tools: Vec<Tool>,
}

struct Tool {
    name: String,
    words: Vec<String>,
}

impl Row {
    fn of(document: &Document) -> Self {
        let tools = document.tools.iter().map(|tool| Tool { name: tool.name.clone(), words: text::words(&tool.name) });
        Self { name: document.name.clone(), tools: tools.collect() }
    }
}

/// What was found.
#[derive(Debug, Default)]
pub struct Hits {
    /// The best ones, best first.
    pub hits: Vec<Hit>,
    /// How many more match, as far as they were counted.
    pub more: usize,
}

/// Matches that are ranked, whatever is asked for: so many are counted.
const RANKED_MIN: usize = 100;
const RANKED_MAX: usize = 1000;

impl Index {
    /// Indexes `documents` in memory.
    ///
    /// # Errors
    ///
    /// When tantivy cannot allocate or write its segment.
    pub fn build<'a>(documents: impl IntoIterator<Item = &'a Document>) -> Result<Self, IndexError> {
        let (schema, fields) = fields::schema();
        let index = tantivy::Index::create_in_ram(schema);
        text::register(&index);
        let mut writer = index.writer_with_num_threads(1, fields::WRITER_MEMORY_BYTES)?;
        let mut rows = Vec::new();
        for document in documents {
            writer.add_document(fields.document(rows.len() as u64, document))?;
            rows.push(Row::of(document));
        }
        writer.commit()?;
        let searcher = index.reader()?.searcher();
        Ok(Self { fields, searcher, rows })
    }

    /// The number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is nothing to find.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Ranks entries for `query` and gives the first `limit` of them; equal scores are ordered by name.
    ///
    /// Any text is a valid query: there is no query syntax. A query without a single word finds nothing.
    ///
    /// # Errors
    ///
    /// When the index cannot be read.
    pub fn search(&self, query: &str, limit: usize) -> Result<Hits, IndexError> {
        let query = text::cut(query, QUERY_BYTES_MAX);
        let words = text::words(query);
        if words.is_empty() || limit == 0 {
            return Ok(Hits::default());
        }
        let scorer = query::build(&self.searcher, &self.fields, &words)?;
        let pool = limit.saturating_mul(2).clamp(RANKED_MIN, RANKED_MAX);
        let found = self.searcher.search(&*scorer, &TopDocs::with_limit(pool).order_by_score())?;
        let mut ranked = found
            .into_iter()
            .filter_map(|(score, address)| self.row(address).map(|row| (score, row)))
            .map(|(score, row)| (score + query::exact_name_bonus(&row.name, query), row))
            .collect::<Vec<_>>();
        ranked.sort_by(|(a, first), (b, second)| b.total_cmp(a).then_with(|| first.name.cmp(&second.name)));
        let more = ranked.len().saturating_sub(limit);
        // Which tools matched is looked at only for what is shown.
        ranked.truncate(limit);
        Ok(Hits { hits: ranked.into_iter().map(|(score, row)| hit(score, row, &words)).collect(), more })
    }

    fn row(&self, address: DocAddress) -> Option<&Row> {
        let segment = self.searcher.segment_reader(address.segment_ord);
        let column = segment.fast_fields().u64(fields::ROW).ok()?;
        self.rows.get(usize::try_from(column.first(address.doc_id)?).ok()?)
    }
}

fn hit(score: f32, row: &Row, words: &[String]) -> Hit {
    let tools = row.tools.iter().map(|tool| (tool.name.as_str(), tool.words.as_slice()));
    Hit { name: row.name.clone(), score, matched_tools: query::matched_tools(tools, words) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, title: &str, description: &str, tools: &[&str]) -> Document {
        Document {
            name: name.into(),
            title: title.into(),
            description: description.into(),
            tools: tools.iter().map(|tool| ToolDocument { name: (*tool).into(), ..Default::default() }).collect(),
            ..Default::default()
        }
    }

    fn sample() -> Index {
        Index::build(&[
            entry(
                "github-official",
                "GitHub",
                "Repositories, issues and pull requests",
                &["create_issue", "searchCode"],
            ),
            entry("gitlab", "GitLab", "Merge requests and pipelines", &["create_merge_request"]),
            entry("time", "Time", "Time zones and conversions between them", &["convert_time", "get_current_time"]),
            entry("filesystem", "Filesystem", "Reads and writes files in the folders it may see", &["read_file"]),
            entry("postgres", "PostgreSQL", "Runs SQL on a database", &["query"]),
        ])
        .unwrap()
    }

    fn first(query: &str) -> Option<String> {
        sample().search(query, 3).unwrap().hits.first().map(|hit| hit.name.clone())
    }

    #[test]
    fn a_name_a_word_of_a_tool_and_an_inflected_word_find_their_entry() {
        assert_eq!(first("gitlab").as_deref(), Some("gitlab"));
        assert_eq!(first("search code").as_deref(), Some("github-official"));
        assert_eq!(first("reading a file").as_deref(), Some("filesystem"));
    }

    #[test]
    fn a_typo_finds_what_was_meant() {
        assert_eq!(first("postgers").as_deref(), Some("postgres"));
        assert_eq!(first("filesytem").as_deref(), Some("filesystem"));
    }

    #[test]
    fn an_exact_name_comes_first() {
        assert_eq!(first("time").as_deref(), Some("time"));
    }

    #[test]
    fn a_hit_says_which_tools_matched() {
        let hits = sample().search("create an issue", 1).unwrap().hits;
        assert_eq!(hits[0].matched_tools, ["create_issue"]);
    }

    #[test]
    fn any_text_is_a_query() {
        for query in ["", "   ", "!!! ???", "\"", "name:(", "AND OR NOT", "*", "日本語", &"x".repeat(1 << 20)] {
            sample().search(query, 10).unwrap();
        }
        assert!(sample().search("", 10).unwrap().hits.is_empty());
    }

    #[test]
    fn equal_scores_are_ordered_by_name() {
        let index = Index::build(&[entry("b", "Twin", "", &[]), entry("a", "Twin", "", &[])]).unwrap();
        let names: Vec<_> = index.search("twin", 5).unwrap().hits.into_iter().map(|hit| hit.name).collect();
        assert_eq!(names, ["a", "b"]);
    }
}
