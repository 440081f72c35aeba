//! Catalog documents in, ranked hits out.
//!
//! [`Index::build`] takes every entry of a catalog once and is replaced whole when the catalog changes; a search never
//! writes. [`Index::open`] does the same with a file that is kept, and reads it instead if it fits.
//!
//! A question becomes a plan (`plan`): a slot for each of its words, each with the alternatives that would do: the word
//! itself, what it is misspelt for, and the concepts that the lexicon (`lexicon`, `data/`) knows it by, in a dozen
//! languages. `rank` scores entries for it: BM25 over weighted fields, the best alternative for each slot, and the more
//! of the question an entry answers, the better. `README.md` says what each of these gave.
//!
//! What this crate does not know: sessions, MCP, SQL, tokio. It sees names and sentences.

mod fields;
mod lexicon;
mod meaning;
mod meant;
mod plan;
mod rank;
mod stored;
mod text;
mod vocabulary;

use std::{fs, path::Path};

use tantivy::{Directory as _, Searcher, TantivyError, directory::RamDirectory};

use fields::Fields;
use lexicon::Lexicon;
use meaning::{Direction, Meaning};
use plan::{Plan, Planner};
use rank::Ranker;
use stored::Stored;
use vocabulary::Vocabulary;

/// One catalog entry, as far as searching is concerned.
#[derive(Debug, Clone, Default)]
pub struct Document {
    pub name: String,
    pub title: String,
    pub description: String,
    pub category: String,
    pub tags: Vec<String>,
    /// What a person would ask for who does not know the name.
    pub phrases: Vec<String>,
    /// How often it was pulled or starred; settles ties.
    pub popularity: u64,
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
    /// The query's words that the entry has an answer to, itself or by a word that means the same.
    pub matched_words: Vec<String>,
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
    vocabulary: Vocabulary,
}

/// What an answer says of an entry; kept beside tantivy, so that a search never reads a stored document.
struct Row {
    name: String,
    /// Name and title without what tells spellings apart.
    compact: String,
    title: String,
    popularity: f32,
    direction: Option<Direction>,
    tools: Vec<Tool>,
}

struct Tool {
    name: String,
    /// The stems of its name, with spaces between.
    words: String,
}

impl Row {
    fn of(writer: &mut fields::Writer, document: &Document) -> Self {
        let direction = writer.direction(document);
        let reader = &mut writer.reader;
        let mut tool = |name: &str| {
            let words: Vec<String> = reader.parts(name).into_iter().map(|word| word.stem).collect();
            Tool { name: name.to_owned(), words: words.join(" ") }
        };
        Self {
            name: document.name.clone(),
            compact: text::compact(&document.name),
            title: text::compact(&document.title),
            popularity: (document.popularity as f32 + 1.0).log10(),
            direction,
            tools: document.tools.iter().map(|document| tool(&document.name)).collect(),
        }
    }
}

/// What was found.
#[derive(Debug, Default)]
pub struct Hits {
    /// The best ones, best first.
    pub hits: Vec<Hit>,
    /// How many more match.
    pub more: usize,
}

/// The name itself was typed: nothing may come before it.
const EXACT_NAME_BONUS: f32 = 100.0;

/// What ten times as many pulls are worth beside a score of about 1 for a word that fits well.
const POPULARITY_WEIGHT: f32 = 0.003;

/// Entries that score less than this part of the best one are not shown: they share a word by accident.
const SCORE_PART_MIN: f32 = 0.1;

/// What the same meaning is worth beside a score of about 1 for a word that fits well.
const NEARNESS_WEIGHT: f32 = 0.4;

/// How near an entry has to be to be found by its meaning alone.
const NEAR_ALONE_MIN: f32 = 0.5;

impl Index {
    /// Indexes `documents` in memory.
    ///
    /// # Errors
    ///
    /// When tantivy cannot allocate or write its segment.
    pub fn build<'a>(documents: impl IntoIterator<Item = &'a Document>) -> Result<Self, IndexError> {
        Ok(Self::make(documents)?.0)
    }

    /// Reads the index from `path` if the file is whole and was made from the same `documents`; otherwise makes it, and
    /// keeps it there. A file that cannot be written costs the next start its time and nothing else.
    ///
    /// # Errors
    ///
    /// When tantivy cannot allocate or write its segment.
    pub fn open(path: &Path, documents: &[Document]) -> Result<Self, IndexError> {
        let fingerprint = stored::fingerprint(documents);
        let stored = std::thread::scope(|scope| {
            // A first query is not to wait for these, nor they for the file.
            scope.spawn(|| (Lexicon::get(), Meaning::get()));
            Self::read(&fs::read(path).ok()?, fingerprint)
        });
        if let Some(index) = stored {
            return Ok(index);
        }
        let bytes = {
            let (Self { rows, vocabulary, .. }, directory) = Self::make(documents)?;
            Stored { rows, vocabulary, files: files(&directory) }.bytes(fingerprint)
        };
        drop(stored::write(path, &bytes));
        // What is kept lies beside each other once what it was made with is gone, of which there is ten times as much.
        Self::read(&bytes, fingerprint).map_or_else(|| Self::build(documents), Ok)
    }

    fn make<'a>(documents: impl IntoIterator<Item = &'a Document>) -> Result<(Self, RamDirectory), IndexError> {
        let (schema, fields) = fields::schema();
        let directory = RamDirectory::create();
        let index = tantivy::Index::create(directory.clone(), schema, tantivy::IndexSettings::default())?;
        let mut writer = index.writer_with_num_threads(1, fields::WRITER_MEMORY_BYTES)?;
        let mut rows = Vec::new();
        let mut drafts = fields::Writer::new(&fields);
        for document in documents {
            writer.add_document(drafts.document(rows.len() as u64, document))?;
            rows.push(Row::of(&mut drafts, document));
        }
        writer.commit()?;
        let vocabulary = drafts.vocabulary.build();
        let searcher = index.reader()?.searcher();
        Ok((Self { fields, searcher, rows, vocabulary }, directory))
    }

    fn read(bytes: &[u8], fingerprint: u64) -> Option<Self> {
        let mut stored = Stored::read(bytes, fingerprint)?;
        let (schema, fields) = fields::schema();
        let index = tantivy::Index::open(stored.directory().ok()?).ok()?;
        let searcher = index.reader().ok()?.searcher();
        let fits = index.schema() == schema && searcher.num_docs() == stored.rows.len() as u64;
        fits.then_some(Self { fields, searcher, rows: stored.rows, vocabulary: stored.vocabulary })
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
    /// Any text is a valid query: there is no query syntax. A query without a word that means something here finds
    /// nothing.
    ///
    /// # Errors
    ///
    /// When the index cannot be read.
    pub fn search(&self, query: &str, limit: usize) -> Result<Hits, IndexError> {
        self.search_among(query, limit, |_| true)
    }

    /// The same among the entries whose names `may_be_shown` allows.
    ///
    /// # Errors
    ///
    /// When the index cannot be read.
    pub fn search_among(
        &self,
        query: &str,
        limit: usize,
        may_be_shown: impl Fn(&str) -> bool,
    ) -> Result<Hits, IndexError> {
        let query = text::cut(query, QUERY_BYTES_MAX);
        let planner = Planner { lexicon: Lexicon::get(), vocabulary: &self.vocabulary };
        let plan = planner.plan(query);
        let asked = text::compact(query);
        let scores = Ranker::new(&self.searcher, &self.fields, &self.rows)?.score(&plan)?;
        let shown = (0..self.rows.len()).filter(|row| may_be_shown(&self.rows[*row].name));
        let mut ranked: Vec<(f32, usize)> = shown
            .map(|row| (scores.by_row[row] + self.bonus(row, &asked), row))
            .filter(|(score, _)| *score > 0.0)
            .collect();
        let matching = ranked.len();
        self.add_nearness(&mut ranked, &plan, limit);
        // What is near by its meaning alone was not among those that were looked at.
        ranked.retain(|(_, row)| may_be_shown(&self.rows[*row].name));
        ranked.sort_by(|(a, first), (b, second)| {
            b.total_cmp(a).then_with(|| self.rows[*first].name.cmp(&self.rows[*second].name))
        });
        // Which tools and words matched is looked at only for what is shown.
        ranked.truncate(limit);
        let more = matching.saturating_sub(ranked.len());
        let stems = plan.stems();
        let hit = |(score, row): (f32, usize)| Hit {
            name: self.rows[row].name.clone(),
            score,
            matched_tools: matched_tools(&self.rows[row].tools, &stems),
            matched_words: plan.matched_words(&scores.matched(row)),
        };
        Ok(Hits { hits: ranked.into_iter().map(hit).collect(), more })
    }

    fn bonus(&self, row: usize, asked: &str) -> f32 {
        let row = &self.rows[row];
        if !asked.is_empty() && (row.title == asked || row.compact == asked) { EXACT_NAME_BONUS } else { 0.0 }
    }

    /// Adds to each score what the entry's meaning is near to the question's, and how popular it is. Leaves out those
    /// that cannot be among the first `limit`, and those that score little beside the best: they share a word by accident.
    ///
    /// If no entry has a word or a concept of the question, those near to it are found by their meaning alone.
    fn add_nearness(&self, ranked: &mut Vec<(f32, usize)>, plan: &Plan, limit: usize) {
        let near = |row: usize| match (&plan.direction, &self.rows[row].direction) {
            (Some(asked), Some(told)) => meaning::nearness(asked, told).max(0.0),
            _ => 0.0,
        };
        if ranked.is_empty() {
            let all = (0..self.rows.len()).map(|row| (near(row), row));
            ranked.extend(all.filter(|(near, _)| *near >= NEAR_ALONE_MIN));
            return;
        }
        let most = NEARNESS_WEIGHT + 10.0 * POPULARITY_WEIGHT;
        ranked.sort_unstable_by(|(a, _), (b, _)| b.total_cmp(a));
        let last = ranked.get(limit.saturating_sub(1)).map_or(0.0, |(score, _)| *score);
        ranked.retain(|(score, _)| *score >= (last - most));
        for (score, row) in ranked.iter_mut() {
            *score += NEARNESS_WEIGHT * near(*row) + self.rows[*row].popularity * POPULARITY_WEIGHT;
        }
        let best = ranked
            .iter()
            .map(|(score, _)| if *score > EXACT_NAME_BONUS { *score - EXACT_NAME_BONUS } else { *score })
            .fold(0.0, f32::max);
        ranked.retain(|(score, _)| *score >= best * SCORE_PART_MIN);
    }
}

/// The tools that share a word with the query, most shared words first.
fn matched_tools(tools: &[Tool], stems: &[&str]) -> Vec<String> {
    let shared = |tool: &Tool| tool.words.split(' ').filter(|word| stems.contains(word)).count();
    let mut matched: Vec<(usize, &str)> =
        tools.iter().map(|tool| (shared(tool), tool.name.as_str())).filter(|(shared, _)| *shared > 0).collect();
    matched.sort_by_key(|(shared, _)| std::cmp::Reverse(*shared));
    matched.into_iter().take(MATCHED_TOOLS_MAX).map(|(_, tool)| tool.to_owned()).collect()
}

/// What tantivy wrote, as it would be on disk.
fn files(directory: &RamDirectory) -> Vec<(String, Vec<u8>)> {
    let Ok(index) = tantivy::Index::open(directory.clone()) else { return Vec::new() };
    let mut names: Vec<_> = index.directory().list_managed_files().into_iter().collect();
    names.extend(["meta.json", ".managed.json"].map(Into::into));
    names.sort();
    names.dedup();
    let content = |name: &Path| directory.atomic_read(name).ok();
    names.iter().filter_map(|name| Some((name.to_str()?.to_owned(), content(name)?))).collect()
}
