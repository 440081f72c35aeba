//! The words that a catalog has, and which of them a misspelt or unfinished word may be meant for.

use std::{borrow::Cow, cmp::Reverse, collections::HashMap};

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

#[derive(Debug)]
struct Known {
    word: Spelling,
    stem: Box<str>,
    strength: Strength,
    count: u32,
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
    /// In order.
    words: Vec<Known>,
    /// Which of the words have them, in order of the stems.
    stems: Vec<u32>,
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
            output.bytes(known.word.text.as_bytes());
            output.bytes(known.stem.as_bytes());
            output.number(known.strength as u64);
            output.number(u64::from(known.count));
        }
    }

    fn new(words: impl Iterator<Item = (Word, Strength, u32)>) -> Self {
        let mut words: Vec<Known> = words
            .map(|(Word { raw, stem }, strength, count)| {
                let word = Spelling::of(Cow::Owned(raw));
                Known { word, stem: stem.into(), strength, count }
            })
            .collect();
        words.sort_by(|a, b| a.word.text.cmp(&b.word.text));
        let stem = |at: &u32| &words[*at as usize].stem;
        let mut stems: Vec<u32> = (0..).take(words.len()).collect();
        stems.sort_by_key(stem);
        stems.dedup_by_key(|at| stem(at));
        stems.shrink_to_fit();
        Self { words, stems }
    }

    fn find(&self, word: &str) -> Option<&Known> {
        let at = self.words.binary_search_by(|known| known.word.text.as_ref().cmp(word)).ok()?;
        self.words.get(at)
    }

    pub(crate) fn has(&self, word: &str) -> bool {
        self.find(word).is_some()
    }

    pub(crate) fn strength(&self, word: &str) -> Option<Strength> {
        self.find(word).map(|known| known.strength)
    }

    pub(crate) fn has_stem(&self, stem: &str) -> bool {
        self.stems.binary_search_by(|at| self.words[*at as usize].stem.as_ref().cmp(stem)).is_ok()
    }

    pub(crate) fn stem(&self, word: &str) -> Option<&str> {
        self.find(word).map(|known| known.stem.as_ref())
    }

    /// Words of names and titles that begin with `beginning`.
    pub(crate) fn beginning(&self, beginning: &str) -> Vec<&str> {
        let from = self.words.partition_point(|known| known.word.text.as_ref() < beginning);
        let mut found: Vec<&Known> = self.words[from..]
            .iter()
            .take_while(|known| known.word.text.starts_with(beginning))
            .filter(|known| known.strength >= Strength::Topic)
            .collect();
        found.sort_by_key(|known| (Reverse(known.strength), known.word.text.len()));
        let mut stems: Vec<&str> = Vec::new();
        for known in found {
            if !stems.contains(&known.stem.as_ref()) {
                stems.push(&known.stem);
            }
        }
        stems.truncate(MEANT_MAX);
        stems
    }

    /// The words nearest to a misspelt one, here or among `others`, with their distance; at most `most` edits away.
    pub(crate) fn nearest<'a>(&'a self, word: &str, others: &'a [Spelling], most: usize) -> Vec<(&'a str, usize)> {
        let wanted = Misspelt::of(word);
        let known = self.words.iter().map(|known| (&known.word, known.strength, known.count));
        let others = others.iter().map(|other| (other, Strength::Lexicon, 0));
        let mut found = Vec::new();
        for (spelling, strength, count) in known.chain(others) {
            if most > 0
                && let Some(distance) = wanted.distance(spelling, most)
            {
                let text = spelling.text.as_ref();
                let other_start = text.chars().next() != word.chars().next();
                found.push((distance, other_start, Reverse(strength), Reverse(count), text));
            }
        }
        found.sort_unstable();
        let nearest = found.first().map_or(0, |found| found.0);
        found.retain(|found| found.0 == nearest);
        found.truncate(MEANT_MAX);
        found.into_iter().map(|(distance, _, _, _, word)| (word, distance)).collect()
    }
}

/// A word, and what tells at a glance that others are spelt otherwise.
#[derive(Debug)]
pub(crate) struct Spelling {
    pub(crate) text: Cow<'static, str>,
    characters: usize,
    /// A bit for each letter or digit that the word has: words far apart in this are far apart in spelling.
    letters: u64,
}

/// Shorter words are nobody's typo.
const LENGTH_MIN: usize = 3;

impl Spelling {
    pub(crate) fn of(text: Cow<'static, str>) -> Self {
        Self { characters: text.chars().count(), letters: letters(&text), text }
    }
}

fn letters(word: &str) -> u64 {
    word.chars().fold(0, |letters, character| letters | 1 << (u32::from(character) % 64))
}

/// A word that is compared to others.
struct Misspelt {
    characters: Vec<char>,
    letters: u64,
}

impl Misspelt {
    fn of(word: &str) -> Self {
        Self { characters: word.chars().collect(), letters: letters(word) }
    }

    /// Insertions, deletions, replacements and swaps of neighbours between two words, if there are at most `most`.
    fn distance(&self, other: &Spelling, most: usize) -> Option<usize> {
        let wanted = &self.characters;
        let width = other.characters + 1;
        if width <= LENGTH_MIN
            || wanted.len().abs_diff(other.characters) > most
            || (self.letters ^ other.letters).count_ones() as usize > 2 * most
        {
            return None;
        }
        let other_characters: Vec<char> = other.text.chars().collect();
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
