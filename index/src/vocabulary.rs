//! The words that a catalog has, and which of them a misspelt or unfinished word may be meant for.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
};

use crate::{
    stored::{Input, Output},
    text::Word,
};

/// Where a word was seen: a name is likelier to be meant than a word of a description.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Strength {
    /// In the lexicon only.
    Lexicon = 0,
    Prose = 1,
    Topic = 2,
    Name = 3,
}

#[derive(Debug, Clone)]
struct Known {
    word: Word,
    strength: Strength,
    count: u32,
    spelling: Spelling,
}

#[derive(Default)]
pub(crate) struct VocabularyBuilder {
    words: HashMap<String, (String, Strength, u32)>,
}

impl VocabularyBuilder {
    pub(crate) fn add(&mut self, word: &Word, strength: Strength) {
        let known = self.words.entry(word.raw.clone()).or_insert_with(|| (word.stem.clone(), strength, 0));
        known.1 = known.1.max(strength);
        known.2 += 1;
    }

    pub(crate) fn build(self) -> Vocabulary {
        let words = self.words.into_iter().map(|(raw, (stem, strength, count))| (Word { raw, stem }, strength, count));
        Vocabulary::new(words)
    }
}

#[derive(Default)]
pub(crate) struct Vocabulary {
    words: Vec<Known>,
    by_word: HashMap<String, usize>,
    stems: HashSet<String>,
}

/// Words that may have been meant, best first.
const MEANT_MAX: usize = 3;

impl Vocabulary {
    /// The words as they were read from a file.
    pub(crate) fn of(words: Vec<(Word, Strength, u32)>) -> Self {
        Self::new(words.into_iter())
    }

    pub(crate) fn read_word(input: &mut Input) -> Option<(Word, Strength, u32)> {
        let word = Word { raw: input.text()?, stem: input.text()? };
        let strength = match input.number()? {
            3 => Strength::Name,
            2 => Strength::Topic,
            _ => Strength::Prose,
        };
        Some((word, strength, u32::try_from(input.number()?).ok()?))
    }

    pub(crate) fn write(&self, output: &mut Output) {
        output.number(self.words.len() as u64);
        for known in &self.words {
            output.bytes(known.word.raw.as_bytes());
            output.bytes(known.word.stem.as_bytes());
            output.number(known.strength as u64);
            output.number(u64::from(known.count));
        }
    }

    fn new(words: impl Iterator<Item = (Word, Strength, u32)>) -> Self {
        let mut words: Vec<Known> = words
            .map(|(word, strength, count)| {
                let spelling = Spelling::of(&word.raw);
                Known { word, strength, count, spelling }
            })
            .collect();
        words.sort_by(|a, b| a.word.raw.cmp(&b.word.raw));
        let by_word = words.iter().enumerate().map(|(at, known)| (known.word.raw.clone(), at)).collect();
        let stems = words.iter().map(|known| known.word.stem.clone()).collect();
        Self { words, by_word, stems }
    }

    pub(crate) fn has(&self, word: &str) -> bool {
        self.by_word.contains_key(word)
    }

    pub(crate) fn strength(&self, word: &str) -> Option<Strength> {
        self.by_word.get(word).and_then(|at| self.words.get(*at)).map(|known| known.strength)
    }

    pub(crate) fn has_stem(&self, stem: &str) -> bool {
        self.stems.contains(stem)
    }

    pub(crate) fn stem(&self, word: &str) -> Option<&str> {
        self.by_word.get(word).and_then(|at| self.words.get(*at)).map(|known| known.word.stem.as_str())
    }

    /// Words of names and titles that begin with `beginning`.
    pub(crate) fn beginning(&self, beginning: &str) -> Vec<&str> {
        let from = self.words.partition_point(|known| known.word.raw.as_str() < beginning);
        let mut found: Vec<&Known> = self.words[from..]
            .iter()
            .take_while(|known| known.word.raw.starts_with(beginning))
            .filter(|known| known.strength >= Strength::Topic)
            .collect();
        found.sort_by_key(|known| (Reverse(known.strength), known.word.raw.len()));
        let mut stems: Vec<&str> = Vec::new();
        for known in found {
            if !stems.contains(&known.word.stem.as_str()) {
                stems.push(&known.word.stem);
            }
        }
        stems.truncate(MEANT_MAX);
        stems
    }

    /// The words nearest to a misspelt one, here or among `others`, with their distance; at most `most` edits away.
    pub(crate) fn nearest<'a>(&'a self, word: &str, others: &'a [Spelling], most: usize) -> Vec<(&'a str, usize)> {
        let wanted = Spelling::of(word);
        let known = self.words.iter().map(|known| (&known.word.raw, &known.spelling, known.strength, known.count));
        let others = others.iter().map(|other| (&other.text, other, Strength::Lexicon, 0));
        let mut found = Vec::new();
        for (text, spelling, strength, count) in known.chain(others) {
            if most > 0
                && let Some(distance) = wanted.distance(spelling, most)
            {
                let other_start = spelling.characters.first() != wanted.characters.first();
                found.push((distance, other_start, Reverse(strength), Reverse(count), text.as_str()));
            }
        }
        found.sort_unstable();
        let nearest = found.first().map_or(0, |found| found.0);
        found.retain(|found| found.0 == nearest);
        found.truncate(MEANT_MAX);
        found.into_iter().map(|(distance, _, _, _, word)| (word, distance)).collect()
    }
}

/// A word made ready for being compared.
#[derive(Debug, Clone)]
pub(crate) struct Spelling {
    text: String,
    characters: Vec<char>,
    /// A bit for each letter or digit that the word has: words far apart in this are far apart in spelling.
    letters: u64,
}

/// Shorter words are nobody's typo.
const LENGTH_MIN: usize = 3;

impl Spelling {
    pub(crate) fn of(word: &str) -> Self {
        let letters = word.chars().fold(0, |letters, character| letters | 1 << (u32::from(character) % 64));
        Self { text: word.to_owned(), characters: word.chars().collect(), letters }
    }

    /// Insertions, deletions, replacements and swaps of neighbours between two words, if there are at most `most`.
    fn distance(&self, other: &Self, most: usize) -> Option<usize> {
        let (wanted, other_characters) = (&self.characters, &other.characters);
        let width = other_characters.len() + 1;
        if width <= LENGTH_MIN
            || wanted.len().abs_diff(other_characters.len()) > most
            || (self.letters ^ other.letters).count_ones() as usize > 2 * most
        {
            return None;
        }
        let (mut before, mut last): (Vec<usize>, Vec<usize>) = (vec![0; width], (0..width).collect());
        for (row, character) in wanted.iter().enumerate() {
            let mut current = vec![row + 1; width];
            for column in 1..width {
                let there = other_characters[column - 1];
                let replaced = last[column - 1] + usize::from(*character != there);
                let mut least = replaced.min(last[column] + 1).min(current[column - 1] + 1);
                if row > 0 && column > 1 && *character == other_characters[column - 2] && wanted[row - 1] == there {
                    least = least.min(before[column - 2] + 1);
                }
                current[column] = least;
            }
            if current.iter().all(|distance| *distance > most) {
                return None;
            }
            before = std::mem::replace(&mut last, current);
        }
        last.last().copied().filter(|distance| *distance <= most)
    }
}
