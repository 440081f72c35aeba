//! What words that nobody knows are meant for: unfinished and misspelt ones, and those with a space too few or too many.

use crate::{
    plan::{Alternative, Planner, WORD_CONCEPT},
    text::{self, Reader, Word},
    vocabulary::Strength,
};

/// What these are worth beside a word that was written as it is.
const FINISHED_WORD: f32 = 0.8;
const ONE_EDIT: f32 = 0.85;
const TWO_EDITS: f32 = 0.6;

/// What a word would be if it were finished, spelt right or two; and the word itself that was meant.
pub(crate) fn meant(planner: &Planner, reader: &mut Reader, raw: &str) -> (Vec<Alternative>, Vec<String>) {
    let length = raw.chars().count();
    if length >= 3 {
        let finished = planner.vocabulary.beginning(raw);
        if !finished.is_empty() {
            return (finished.into_iter().map(|stem| Alternative::word(stem, FINISHED_WORD)).collect(), Vec::new());
        }
    }
    let (mut alternatives, mut words) = (Vec::new(), Vec::new());
    for (word, distance) in planner.vocabulary.nearest(raw, planner.lexicon.spellings(), edits_max(raw)) {
        let word = reader.word(word);
        let factor = typo_factor(distance);
        alternatives.push(Alternative::word(&word.stem, factor));
        let mentions = planner.lexicon.mentions(std::slice::from_ref(&word), |_| false);
        alternatives
            .extend(mentions.iter().map(|mention| Alternative::concept(mention.concept, factor * WORD_CONCEPT)));
        words.push(word.raw);
    }
    words.truncate(1);
    if alternatives.is_empty() {
        alternatives = split(planner, raw);
    }
    (alternatives, words)
}

/// How many edits a word may be away from one that exists.
fn edits_max(raw: &str) -> usize {
    match raw.chars().count() {
        0..=3 => 0,
        _ if raw.contains(|character: char| character.is_ascii_digit()) => 0,
        4..=5 => 1,
        _ => 2,
    }
}

fn typo_factor(distance: usize) -> f32 {
    if distance == 1 { ONE_EDIT } else { TWO_EDITS }
}

/// Two known words without a space between them.
fn split(planner: &Planner, raw: &str) -> Vec<Alternative> {
    let halves = raw.char_indices().skip(3).filter_map(|(at, _)| {
        let (first, second) = raw.split_at(at);
        let known = |half: &str| if half.len() >= 3 { planner.vocabulary.stem(half).map(str::to_owned) } else { None };
        Some([known(first)?, known(second)?])
    });
    halves.take(1).flatten().map(|stem| Alternative::word(&stem, FINISHED_WORD)).collect()
}

/// Neighbours that are one word in the catalog: "git hub", "open weather map".
pub(crate) fn joined(planner: &Planner, reader: &mut Reader, words: &[Word]) -> Vec<(usize, usize, Word, f32)> {
    let mut joined = Vec::new();
    for length in [2, 3] {
        for (from, neighbours) in words.windows(length).enumerate() {
            let whole: String = neighbours.iter().map(|word| word.raw.as_str()).collect();
            if whole.len() < 5 || neighbours.iter().any(|word| text::is_stop_word(&word.raw)) {
                continue;
            }
            let strange = whole.len() >= 8 && neighbours.iter().any(|word| !planner.is_known(word));
            if planner.vocabulary.strength(&whole) >= Some(Strength::Topic) {
                joined.push((from, from + length, reader.word(&whole), 1.0));
            } else if strange {
                let near = planner.vocabulary.nearest(&whole, &[], edits_max(&whole));
                let name = near.into_iter().find(|(word, _)| planner.vocabulary.strength(word) >= Some(Strength::Name));
                joined.extend(
                    name.map(|(word, distance)| (from, from + length, reader.word(word), typo_factor(distance))),
                );
            }
        }
    }
    joined
}
