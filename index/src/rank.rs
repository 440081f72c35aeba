//! Scores entries for a plan.
//!
//! A word's score in an entry is BM25F: its counts in the entry's fields are weighted and related to the fields'
//! lengths, summed, and saturate. A slot takes its best alternative. What an entry scores in sum shrinks with the part of
//! the question that it has no answer to, so that one rare word does not beat three that fit.

use std::collections::HashMap;

use tantivy::{
    DocSet, Searcher, SegmentReader, TantivyError, Term,
    fieldnorm::FieldNormReader,
    postings::Postings,
    schema::{Field, IndexRecordOption},
};

use crate::{
    Row,
    fields::{self, Fields},
    plan::{Plan, Wanted},
};

/// Occurrences of a word in one field beyond this many say nothing more.
const REPEATS_MAX: u32 = 3;

/// How soon more of a word stops to say more: the weighted count that scores half.
const SATURATION: f32 = 2.0;

/// What alternatives other than the best one contribute to a slot.
const TIE_BREAKER: f32 = 0.15;

/// How much it costs to leave a part of the question unanswered.
const COVERAGE_POWER: f32 = 0.3;

/// The name of a tool was typed.
const TOOL_NAME_BONUS: f32 = 3.0;

/// Words that all entries have say little, and words that one has say no more than those that a few have: such a word is
/// as often an accident as it is a hit.
const RARITY_MIN: f32 = 0.1;
const RARITY_MAX: f32 = 0.8;
const RARITY_POWER: f32 = 1.3;

/// What entries score, by row.
pub(crate) struct Scores {
    slots: Vec<Vec<f32>>,
    pub(crate) by_row: Vec<f32>,
}

impl Scores {
    /// Which slots an entry has an answer to.
    pub(crate) fn matched(&self, row: usize) -> Vec<bool> {
        self.slots.iter().map(|scores| scores.get(row).is_some_and(|score| *score > 0.0)).collect()
    }
}

/// A field, how much a word found in it weighs, and how much its length matters (0 to 1).
#[derive(Clone, Copy)]
struct Weighted {
    field: Field,
    weight: f32,
    length: f32,
}

pub(crate) struct Ranker<'a> {
    searcher: &'a Searcher,
    rows: &'a [Row],
    words: [Weighted; 8],
    concepts: [Weighted; 2],
    tool_names: [Weighted; 1],
    /// Mean lengths of fields.
    means: HashMap<Field, f32>,
}

/// How often one term is in the fields of each entry, weighted; and which entries have it at all.
struct Counts {
    by_row: Vec<f32>,
    having: Vec<usize>,
}

impl<'a> Ranker<'a> {
    pub(crate) fn new(searcher: &'a Searcher, fields: &Fields, rows: &'a [Row]) -> Result<Self, TantivyError> {
        let weighted = |field, weight, length| Weighted { field, weight, length };
        let ranker = Self {
            words: [
                weighted(fields.name, 4.0, 0.6),
                weighted(fields.title, 4.0, 0.3),
                weighted(fields.topics, 4.0, 0.3),
                weighted(fields.phrases, 2.0, 0.8),
                weighted(fields.facts, 2.0, 0.8),
                weighted(fields.description, 1.2, 0.5),
                weighted(fields.tools, 1.0, 0.6),
                weighted(fields.hints, 0.7, 0.6),
            ],
            concepts: [weighted(fields.about, 2.0, 0.0), weighted(fields.mentions, 0.3, 0.6)],
            tool_names: [weighted(fields.tool_names, 1.0, 0.0)],
            means: HashMap::new(),
            searcher,
            rows,
        };
        ranker.with_means()
    }

    fn with_means(mut self) -> Result<Self, TantivyError> {
        for weighted in self.words.iter().chain(&self.concepts).filter(|weighted| weighted.length > 0.0) {
            let mut tokens = 0;
            for segment in self.searcher.segment_readers() {
                tokens += segment.inverted_index(weighted.field)?.total_num_tokens();
            }
            self.means.insert(weighted.field, (tokens as f32 / self.rows.len().max(1) as f32).max(1.0));
        }
        Ok(self)
    }

    pub(crate) fn score(&self, plan: &Plan) -> Result<Scores, TantivyError> {
        let mut counts = Counts { by_row: vec![0.0; self.rows.len()], having: Vec::new() };
        let mut slots: Vec<Vec<f32>> = Vec::with_capacity(plan.slots.len());
        let mut worths = Vec::with_capacity(plan.slots.len());
        for slot in &plan.slots {
            let mut scores = vec![0.0f32; self.rows.len()];
            let mut best = 0.0f32;
            for alternative in &slot.alternatives {
                match &alternative.term {
                    Wanted::Word(stem) => self.count(&mut counts, stem, &self.words)?,
                    Wanted::Concept(concept) => {
                        self.count(&mut counts, &fields::concept_term(*concept), &self.concepts)?;
                    }
                }
                let worth = alternative.factor * self.rarity(counts.having.len());
                if !counts.having.is_empty() {
                    best = best.max(worth);
                }
                for row in &counts.having {
                    let count = counts.by_row[*row];
                    let score = worth * count / (count + SATURATION);
                    let slot = &mut scores[*row];
                    *slot = slot.max(score) + TIE_BREAKER * slot.min(score);
                }
            }
            slots.push(scores);
            worths.push(best);
        }
        let by_row = self.sums(&slots, &worths);
        let mut scores = Scores { slots, by_row };
        for tool in &plan.tool_names {
            self.count(&mut counts, tool, &self.tool_names)?;
            counts.having.iter().for_each(|row| scores.by_row[*row] += TOOL_NAME_BONUS);
        }
        Ok(scores)
    }

    /// What entries score over all slots, less for what they have no answer to.
    fn sums(&self, slots: &[Vec<f32>], worths: &[f32]) -> Vec<f32> {
        let mut sums = vec![0.0f32; self.rows.len()];
        let mut covered = vec![0.0f32; self.rows.len()];
        for (scores, worth) in slots.iter().zip(worths) {
            for ((sum, covered), score) in sums.iter_mut().zip(&mut covered).zip(scores) {
                *sum += score;
                *covered += if *score > 0.0 { *worth } else { 0.0 };
            }
        }
        let total: f32 = worths.iter().sum();
        for (sum, covered) in sums.iter_mut().zip(covered).filter(|(sum, _)| **sum > 0.0) {
            *sum *= (covered / total).powf(COVERAGE_POWER);
        }
        sums
    }

    fn count(&self, counts: &mut Counts, term: &str, fields: &[Weighted]) -> Result<(), TantivyError> {
        for row in counts.having.drain(..) {
            counts.by_row[row] = 0.0;
        }
        let mut first = 0;
        for segment in self.searcher.segment_readers() {
            for weighted in fields {
                self.count_field(counts, segment, first, *weighted, term)?;
            }
            first += segment.max_doc() as usize;
        }
        Ok(())
    }

    fn count_field(
        &self,
        counts: &mut Counts,
        segment: &SegmentReader,
        first: usize,
        weighted: Weighted,
        term: &str,
    ) -> Result<(), TantivyError> {
        let term = Term::from_field_text(weighted.field, term);
        let inverted = segment.inverted_index(weighted.field)?;
        let Some(mut postings) = inverted.read_postings(&term, IndexRecordOption::WithFreqs)? else { return Ok(()) };
        let lengths = self
            .means
            .get(&weighted.field)
            .map(|mean| {
                Ok::<(FieldNormReader, f32), TantivyError>((segment.get_fieldnorms_reader(weighted.field)?, *mean))
            })
            .transpose()?;
        while postings.doc() != tantivy::TERMINATED {
            let relative =
                lengths.as_ref().map_or(1.0, |(lengths, mean)| lengths.fieldnorm(postings.doc()) as f32 / mean);
            let norm = 1.0 - weighted.length + weighted.length * relative;
            let row = first + postings.doc() as usize;
            if counts.by_row[row] == 0.0 {
                counts.having.push(row);
            }
            counts.by_row[row] += weighted.weight * postings.term_freq().min(REPEATS_MAX) as f32 / norm;
            postings.advance();
        }
        Ok(())
    }

    /// How much it says that an entry has what so many have, 0 to 1.
    fn rarity(&self, having: usize) -> f32 {
        let (entries, having) = (self.rows.len() as f32, having as f32);
        let rarity = (1.0 + (entries - having + 0.5).max(0.0) / (having + 0.5)).ln() / (1.0 + entries).ln();
        (RARITY_MIN + (1.0 - RARITY_MIN) * rarity.min(RARITY_MAX)).powf(RARITY_POWER)
    }
}
