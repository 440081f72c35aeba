//! From words to a tantivy query, and what is added to its score.

use tantivy::{
    Searcher, TantivyError, Term,
    query::{BooleanQuery, BoostQuery, DisjunctionMaxQuery, FuzzyTermQuery, Occur, Query, TermQuery},
    schema::IndexRecordOption,
};

use crate::{
    MATCHED_TOOLS_MAX,
    fields::{Fields, Searched},
};

/// Words beyond this many add nothing but work.
const WORDS_MAX: usize = 24;

/// What fields other than the best one contribute to a word's score.
const TIE_BREAKER: f32 = 0.3;

/// A fuzzy match has a constant score in tantivy; this is what it weighs beside a BM25 score.
const TYPO_WEIGHT: f32 = 2.0;

/// The name itself was typed: nothing may come before it.
const EXACT_NAME_BONUS: f32 = 1000.0;

type Boxed = Box<dyn Query>;

pub(crate) fn build(searcher: &Searcher, fields: &Fields, words: &[String]) -> Result<Boxed, TantivyError> {
    let mut clauses = Vec::new();
    for word in words.iter().take(WORDS_MAX) {
        clauses.push((Occur::Should, word_query(searcher, fields, word)?));
    }
    Ok(Box::new(BooleanQuery::new(clauses)))
}

fn word_query(searcher: &Searcher, fields: &Fields, word: &str) -> Result<Boxed, TantivyError> {
    let mut alternatives = Vec::new();
    let mut known = false;
    for searched in &fields.searched {
        let term = Term::from_field_text(searched.field, word);
        known |= searcher.doc_freq(&term)? > 0;
        alternatives.push(boosted(TermQuery::new(term, IndexRecordOption::WithFreqs), searched.weight));
    }
    if !known && let Some(distance) = typo_distance(word) {
        alternatives = fields
            .searched
            .iter()
            .filter(|searched| searched.forgives_typos)
            .map(|searched| typo_query(*searched, word, distance))
            .collect();
    }
    Ok(Box::new(DisjunctionMaxQuery::with_tie_breaker(alternatives, TIE_BREAKER)))
}

fn typo_query(searched: Searched, word: &str, distance: u8) -> Boxed {
    let term = Term::from_field_text(searched.field, word);
    boosted(FuzzyTermQuery::new(term, distance, true), searched.weight * TYPO_WEIGHT / f32::from(distance))
}

/// How many edits a word of this length may be away from one that exists.
fn typo_distance(word: &str) -> Option<u8> {
    match word.chars().count() {
        0..=3 => None,
        4..=6 => Some(1),
        _ => Some(2),
    }
}

fn boosted(query: impl Query, weight: f32) -> Boxed {
    Box::new(BoostQuery::new(Box::new(query), weight))
}

pub(crate) fn exact_name_bonus(name: &str, query: &str) -> f32 {
    if name.eq_ignore_ascii_case(query.trim()) { EXACT_NAME_BONUS } else { 0.0 }
}

/// The tools that share a word with the query, most shared words first.
pub(crate) fn matched_tools<'a>(tools: impl Iterator<Item = (&'a str, &'a [String])>, words: &[String]) -> Vec<String> {
    let mut matched: Vec<(usize, &str)> = tools
        .map(|(tool, its_words)| (its_words.iter().filter(|word| words.contains(word)).count(), tool))
        .filter(|(shared, _)| *shared > 0)
        .collect();
    matched.sort_by_key(|(shared, _)| std::cmp::Reverse(*shared));
    matched.into_iter().take(MATCHED_TOOLS_MAX).map(|(_, tool)| tool.to_owned()).collect()
}
