//! What words mean: the concepts and products of `data/`, and where they occur in a text.
//!
//! A concept is a set of words and phrases that mean the same, in a dozen languages. Entries are indexed under the
//! concepts that they mention, and a question is asked for the concepts that it mentions, so that the two can meet
//! without a word in common. A product is known for what `products.txt` says, whatever its own description says.

use std::{
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
    /// Phrases by their first word, exactly or by what the first word begins with.
    by_word: HashMap<String, Vec<Phrase>>,
    by_prefix: HashMap<String, Vec<Phrase>>,
    /// Words of scripts without spaces, and the length of the longest in characters.
    unspaced: HashMap<String, Vec<Concept>>,
    unspaced_longest: usize,
    /// Words that an English speaker would use, not reduced.
    english: HashSet<String>,
    /// The same made ready for being compared, at the first typo.
    spellings: OnceLock<Vec<Spelling>>,
    products: HashMap<String, Vec<Product>>,
    noise: HashSet<String>,
    /// What English speakers say for each concept, for short.
    heads: Vec<Vec<String>>,
}

struct Phrase {
    length: usize,
    rest: Vec<Pattern>,
    concept: Concept,
    foreign: bool,
}

struct Pattern {
    text: String,
    /// Length of the word before it was reduced: stems that coincide by accident are of words unlike in length.
    length: usize,
    prefix: bool,
}

pub(crate) struct Product {
    rest: Vec<String>,
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
            by_word: HashMap::new(),
            by_prefix: HashMap::new(),
            unspaced: HashMap::new(),
            unspaced_longest: 0,
            english: HashSet::new(),
            spellings: OnceLock::new(),
            products: HashMap::new(),
            heads: Vec::new(),
            noise: lines(NOISE).flat_map(str::split_whitespace).map(str::to_owned).collect(),
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
        lexicon
    }

    fn add(&mut self, reader: &mut Reader, phrase: &str, concept: Concept, foreign: bool) {
        let phrase = phrase.trim();
        if phrase.contains(text::is_unspaced) {
            let word = phrase.trim_end_matches('*').to_lowercase();
            self.unspaced_longest = self.unspaced_longest.max(word.chars().count());
            self.unspaced.entry(word).or_default().push(concept);
            return;
        }
        let mut patterns = Vec::new();
        for written in phrase.split_whitespace() {
            let prefix = written.ends_with('*');
            for word in reader.words(written) {
                if !foreign {
                    self.english.insert(word.raw.clone());
                    self.english.insert(word.stem.clone());
                }
                patterns.push(Pattern {
                    length: word.raw.len(),
                    text: if prefix { word.raw } else { word.stem },
                    prefix,
                });
            }
        }
        if patterns.is_empty() {
            return;
        }
        let first = patterns.remove(0);
        let by_first = if first.prefix { &mut self.by_prefix } else { &mut self.by_word };
        by_first.entry(first.text).or_default().push(Phrase { length: first.length, rest: patterns, concept, foreign });
    }

    fn add_product(&mut self, reader: &mut Reader, line: &'static str) {
        let Some((names, known_for)) = line.split_once(':') else { return };
        for name in names.split(',') {
            let mut words = reader.words(name).into_iter().map(|word| word.raw);
            if let Some(first) = words.next() {
                self.english.insert(first.clone());
                let product = Product { rest: words.collect(), known_for };
                self.products.entry(first).or_default().push(product);
            }
        }
    }

    /// Every concept that `words` mention. Words of other languages count only if `foreign` says so of them.
    pub(crate) fn mentions(&self, words: &[Word], foreign: impl Fn(usize) -> bool) -> Vec<Mention> {
        let mut mentions = Vec::new();
        for (from, word) in words.iter().enumerate() {
            let exact = self.by_word.get(&word.stem).into_iter().flatten();
            let exact = exact.filter(|phrase| alike(phrase.length, word));
            let prefixes = word.raw.char_indices().map(|(at, character)| &word.raw[..at + character.len_utf8()]);
            let begun = prefixes.filter_map(|prefix| self.by_prefix.get(prefix)).flatten();
            for phrase in exact.chain(begun) {
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
            for product in self.products.get(&word.raw).into_iter().flatten() {
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
        self.english.contains(&word.raw) || self.english.contains(&word.stem) || Meaning::get().has(&word.raw)
    }

    /// What English speakers say for a concept.
    pub(crate) fn head(&self, concept: Concept) -> &[String] {
        self.heads.get(usize::from(concept)).map_or(&[], Vec::as_slice)
    }

    /// Whether some other language has this word for a concept.
    pub(crate) fn is_foreign(&self, word: &Word) -> bool {
        let begun = |prefix: &str| self.by_prefix.get(prefix).is_some_and(|phrases| phrases.iter().any(Phrase::alone));
        self.by_word.get(&word.stem).is_some_and(|phrases| phrases.iter().any(Phrase::alone))
            || word.raw.char_indices().any(|(at, character)| begun(&word.raw[..at + character.len_utf8()]))
    }

    /// Whether the word is grammar in some other language.
    pub(crate) fn is_noise(&self, word: &str) -> bool {
        self.noise.contains(word)
    }

    /// The words that a misspelt one may be meant for.
    pub(crate) fn spellings(&self) -> &[Spelling] {
        self.spellings.get_or_init(|| {
            let mut english: Vec<&String> = self.english.iter().collect();
            english.sort_unstable();
            english.into_iter().map(|word| Spelling::of(word)).collect()
        })
    }
}

impl Phrase {
    fn alone(&self) -> bool {
        self.foreign && self.rest.is_empty()
    }
}

impl Pattern {
    fn fits(&self, word: &Word) -> bool {
        if self.prefix { word.raw.starts_with(&self.text) } else { word.stem == self.text && alike(self.length, word) }
    }
}

const LENGTHS_APART_MAX: usize = 4;

fn alike(length: usize, word: &Word) -> bool {
    length.abs_diff(word.raw.len()) <= LENGTHS_APART_MAX
}

fn lines(data: &'static str) -> impl Iterator<Item = &'static str> {
    data.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}
