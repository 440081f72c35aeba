//! What words mean: the concepts and products of `data/`, and where they occur in a text.
//!
//! A concept is a set of words and phrases that mean the same, in a dozen languages. Entries are indexed under the
//! concepts that they mention, and a question is asked for the concepts that it mentions, so that the two can meet
//! without a word in common. A product is known for what `products.txt` says, whatever its own description says.
//!
//! It is kept for as long as the program runs: in sorted lists, whose words are parts of the data wherever they can be.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    sync::OnceLock,
};

use crate::{
    meaning::Meaning,
    text::{self, Reader, Word},
    vocabulary::Spelling,
};

const CONCEPTS: &str = include_str!("../data/concepts.txt");
const PRODUCTS: &str = include_str!("../data/products.txt");
const NOISE: &str = include_str!("../data/noise.txt");

/// Changes with the data, so that a stored index built from other data is not used.
pub(crate) fn data() -> [&'static [u8]; 4] {
    [CONCEPTS.as_bytes(), PRODUCTS.as_bytes(), NOISE.as_bytes(), Meaning::data()]
}

/// The number of a line in `concepts.txt`.
pub(crate) type Concept = u16;

pub(crate) struct Lexicon {
    /// Phrases, ordered by their first word: those that have it exactly, and those that have what it begins with.
    by_word: Vec<Phrase>,
    by_prefix: Vec<Phrase>,
    /// Words of scripts without spaces, and the length of the longest in characters.
    unspaced: HashMap<Cow<'static, str>, Vec<Concept>>,
    unspaced_longest: usize,
    /// Words that an English speaker would use, not reduced; in order.
    english: Vec<Spelling>,
    /// Ordered by the first words of their names.
    products: Vec<Product>,
    noise: HashSet<&'static str>,
    /// What English speakers say for each concept, for short.
    heads: Vec<Vec<String>>,
}

struct Phrase {
    first: Pattern,
    rest: Box<[Pattern]>,
    concept: Concept,
    foreign: bool,
}

struct Pattern {
    text: Cow<'static, str>,
    /// Length of the word before it was reduced: stems that coincide by accident are of words unlike in length.
    length: usize,
    prefix: bool,
}

pub(crate) struct Product {
    first: Cow<'static, str>,
    rest: Box<[String]>,
    pub(crate) known_for: &'static str,
}

/// A concept mentioned by some words of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mention {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) concept: Concept,
    pub(crate) foreign: bool,
}

/// A product named by some words of a text.
pub(crate) struct Named<'a> {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) product: &'a Product,
}

impl Lexicon {
    /// The one lexicon, read at its first use.
    pub(crate) fn get() -> &'static Self {
        static LEXICON: OnceLock<Lexicon> = OnceLock::new();
        LEXICON.get_or_init(Self::read)
    }

    fn read() -> Self {
        let mut lexicon = Self {
            by_word: Vec::new(),
            by_prefix: Vec::new(),
            unspaced: HashMap::new(),
            unspaced_longest: 0,
            english: Vec::new(),
            products: Vec::new(),
            heads: Vec::new(),
            noise: lines(NOISE).flat_map(str::split_whitespace).collect(),
        };
        let mut reader = Reader::default();
        for (number, line) in lines(CONCEPTS).enumerate() {
            let Ok(concept) = Concept::try_from(number) else { break };
            let (english, foreign) = line.split_once('|').unwrap_or((line, ""));
            let head = english.split(',').next().unwrap_or_default();
            lexicon.heads.push(reader.words(head).into_iter().map(|word| word.raw).collect());
            english.split(',').for_each(|phrase| lexicon.add(&mut reader, phrase, concept, false));
            foreign.split(',').for_each(|phrase| lexicon.add(&mut reader, phrase, concept, true));
        }
        for line in lines(PRODUCTS) {
            lexicon.add_product(&mut reader, line);
        }
        // Of those that have the same first word, the one that was read first comes first.
        lexicon.by_word.sort_by(|a, b| a.first.text.cmp(&b.first.text));
        lexicon.by_prefix.sort_by(|a, b| a.first.text.cmp(&b.first.text));
        lexicon.products.sort_by(|a, b| a.first.cmp(&b.first));
        lexicon.english.sort_by(|a, b| a.text.cmp(&b.text));
        lexicon.english.dedup_by(|a, b| a.text == b.text);
        lexicon.by_word.shrink_to_fit();
        lexicon.by_prefix.shrink_to_fit();
        lexicon.products.shrink_to_fit();
        lexicon.english.shrink_to_fit();
        lexicon
    }

    fn add(&mut self, reader: &mut Reader, phrase: &'static str, concept: Concept, foreign: bool) {
        let phrase = phrase.trim();
        if phrase.contains(text::is_unspaced) {
            let written = phrase.trim_end_matches('*');
            let word = part_of(written, written.to_lowercase());
            self.unspaced_longest = self.unspaced_longest.max(word.chars().count());
            self.unspaced.entry(word).or_default().push(concept);
            return;
        }
        let mut patterns = Vec::new();
        for written in phrase.split_whitespace() {
            let prefix = written.ends_with('*');
            for word in reader.words(written) {
                let length = word.raw.len();
                let (raw, stem) = (part_of(written, word.raw), part_of(written, word.stem));
                if !foreign {
                    self.english.extend([raw.clone(), stem.clone()].map(Spelling::of));
                }
                patterns.push(Pattern { length, text: if prefix { raw } else { stem }, prefix });
            }
        }
        if patterns.is_empty() {
            return;
        }
        let first = patterns.remove(0);
        let by_first = if first.prefix { &mut self.by_prefix } else { &mut self.by_word };
        by_first.push(Phrase { first, rest: patterns.into(), concept, foreign });
    }

    fn add_product(&mut self, reader: &mut Reader, line: &'static str) {
        let Some((names, known_for)) = line.split_once(':') else { return };
        for name in names.split(',') {
            let mut words = reader.words(name).into_iter().map(|word| word.raw);
            if let Some(first) = words.next() {
                let first = part_of(name, first);
                self.english.push(Spelling::of(first.clone()));
                self.products.push(Product { first, rest: words.collect(), known_for });
            }
        }
    }

    /// Phrases that begin with the word.
    fn exact(&self, stem: &str) -> &[Phrase] {
        alike_first(&self.by_word, |phrase| phrase.first.text.as_ref(), stem)
    }

    /// Phrases that begin with what the word begins with, shortest beginning first.
    fn begun<'a>(&'a self, word: &'a str) -> impl Iterator<Item = &'a Phrase> {
        let mut phrases = self.by_prefix.as_slice();
        let beginnings = word.char_indices().map(|(at, character)| &word[..at + character.len_utf8()]);
        let narrowed = beginnings.map_while(move |beginning| {
            let from = phrases.partition_point(|phrase| phrase.first.text.as_ref() < beginning);
            let to = from + phrases[from..].partition_point(|phrase| phrase.first.text.starts_with(beginning));
            phrases = &phrases[from..to];
            let whole = phrases.partition_point(|phrase| phrase.first.text.len() == beginning.len());
            (from < to).then(|| &phrases[..whole])
        });
        narrowed.flatten()
    }

    /// Every concept that `words` mention. Words of other languages count only if `foreign` says so of them.
    pub(crate) fn mentions(&self, words: &[Word], foreign: impl Fn(usize) -> bool) -> Vec<Mention> {
        let mut mentions = Vec::new();
        for (from, word) in words.iter().enumerate() {
            let exact = self.exact(&word.stem).iter().filter(|phrase| alike(phrase.first.length, word));
            for phrase in exact.chain(self.begun(&word.raw)) {
                let to = from + 1 + phrase.rest.len();
                let Some(rest) = words.get(from + 1..to) else { continue };
                let alone = phrase.rest.is_empty();
                if phrase.rest.iter().zip(rest).all(|(pattern, word)| pattern.fits(word))
                    && (!phrase.foreign || !alone || foreign(from))
                {
                    mentions.push(Mention { from, to, concept: phrase.concept, foreign: phrase.foreign });
                }
            }
        }
        mentions
    }

    /// The words of scripts without spaces that `text` has, longest first at each place, with their concepts.
    pub(crate) fn unspaced_mentions<'a>(&'a self, text: &str) -> Vec<(String, &'a [Concept])> {
        let mut found = Vec::new();
        for run in text.split(|character: char| !text::is_unspaced(character)).filter(|run| !run.is_empty()) {
            let starts: Vec<usize> = run.char_indices().map(|(at, _)| at).chain([run.len()]).collect();
            let mut at = 0;
            while at + 1 < starts.len() {
                let longest = self.unspaced_longest.min(starts.len() - 1 - at);
                let word = (1..=longest).rev().find_map(|length| {
                    let word = &run[starts[at]..starts[at + length]];
                    self.unspaced.get(word).map(|concepts| (length, word, concepts))
                });
                if let Some((length, word, concepts)) = word {
                    found.push((word.to_owned(), concepts.as_slice()));
                    at += length;
                } else {
                    at += 1;
                }
            }
        }
        found
    }

    /// Every product that `words` name; of names that contain each other, all.
    pub(crate) fn products(&self, words: &[Word]) -> Vec<Named<'_>> {
        let mut named = Vec::new();
        for (from, word) in words.iter().enumerate() {
            for product in alike_first(&self.products, |product| product.first.as_ref(), &word.raw) {
                let to = from + 1 + product.rest.len();
                if words.get(from + 1..to).is_some_and(|rest| rest.iter().map(|word| &word.raw).eq(product.rest.iter()))
                {
                    named.push(Named { from, to, product });
                }
            }
        }
        named
    }

    /// Whether this is a word that an English speaker would use here.
    pub(crate) fn is_english(&self, word: &Word) -> bool {
        let said = |word: &str| self.english.binary_search_by(|known| known.text.as_ref().cmp(word)).is_ok();
        said(&word.raw) || said(&word.stem) || Meaning::get().has(&word.raw)
    }

    /// What English speakers say for a concept.
    pub(crate) fn head(&self, concept: Concept) -> &[String] {
        self.heads.get(usize::from(concept)).map_or(&[], Vec::as_slice)
    }

    /// Whether some other language has this word for a concept.
    pub(crate) fn is_foreign(&self, word: &Word) -> bool {
        self.exact(&word.stem).iter().any(Phrase::alone) || self.begun(&word.raw).any(Phrase::alone)
    }

    /// Whether the word is grammar in some other language.
    pub(crate) fn is_noise(&self, word: &str) -> bool {
        self.noise.contains(word)
    }

    /// The words that a misspelt one may be meant for, in order.
    pub(crate) fn spellings(&self) -> &[Spelling] {
        &self.english
    }
}

impl Phrase {
    fn alone(&self) -> bool {
        self.foreign && self.rest.is_empty()
    }
}

impl Pattern {
    fn fits(&self, word: &Word) -> bool {
        if self.prefix {
            word.raw.starts_with(self.text.as_ref())
        } else {
            word.stem == self.text && alike(self.length, word)
        }
    }
}

const LENGTHS_APART_MAX: usize = 4;

fn alike(length: usize, word: &Word) -> bool {
    length.abs_diff(word.raw.len()) <= LENGTHS_APART_MAX
}

/// The items of an ordered list that have this word.
fn alike_first<'a, T>(ordered: &'a [T], word_of: impl Fn(&T) -> &str, word: &str) -> &'a [T] {
    let from = ordered.partition_point(|item| word_of(item) < word);
    let alike = ordered[from..].partition_point(|item| word_of(item) == word);
    &ordered[from..from + alike]
}

/// The word as a part of what was written, if it is one.
fn part_of(written: &'static str, word: String) -> Cow<'static, str> {
    match written.find(&word) {
        Some(at) => Cow::Borrowed(&written[at..at + word.len()]),
        None => Cow::Owned(word),
    }
}

fn lines(data: &'static str) -> impl Iterator<Item = &'static str> {
    data.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}
