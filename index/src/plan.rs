//! From a question to what is looked for: a slot for each of its words, with the alternatives that would do.

use crate::{
    lexicon::{Concept, Lexicon, Mention, Named},
    meaning::{Direction, Meaning},
    meant,
    text::{self, Reader, Word},
    vocabulary::{Strength, Vocabulary},
};

/// Words beyond this many add nothing but work.
const WORDS_MAX: usize = 40;
const SLOTS_MAX: usize = 24;

/// Tool names that a question may spell out.
const TOOL_NAMES_MAX: usize = 8;

/// What alternatives are worth beside the word itself, which is worth 1.
const FOREIGN_CONCEPT: f32 = 0.9;
const PHRASE_CONCEPT: f32 = 1.1;
pub(crate) const WORD_CONCEPT: f32 = 0.6;
const LONGER_WORD: f32 = 0.5;

/// A word of a phrase that means something as a whole is worth less by itself.
const WORD_IN_PHRASE: f32 = 0.7;
const WORD_CONCEPT_IN_PHRASE: f32 = 0.4;

/// What a product is known for, where another is looked for; and what is left of its own name then.
const KNOWN_FOR_CONCEPT: f32 = 0.5;
const KNOWN_FOR_WORD: f32 = 0.4;
const INSTEAD_ITSELF: f32 = 0.2;

/// Words worth less than this are guesses, and not what a tool is said to match by.
const SURE: f32 = 0.6;

#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) slots: Vec<Slot>,
    /// What may be the name of a tool, without what tells spellings apart.
    pub(crate) tool_names: Vec<String>,
    /// Where the whole question points.
    pub(crate) direction: Option<Direction>,
}

/// One word of the question, or one of a script without spaces.
#[derive(Debug)]
pub(crate) struct Slot {
    /// As it was asked.
    word: String,
    /// Best first, each once.
    pub(crate) alternatives: Vec<Alternative>,
}

/// What would do for a word, and how well.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Alternative {
    pub(crate) term: Wanted,
    pub(crate) factor: f32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// A stem.
    Word(String),
    Concept(Concept),
}

impl Alternative {
    pub(crate) fn word(stem: &str, factor: f32) -> Self {
        Self { term: Wanted::Word(stem.to_owned()), factor }
    }

    pub(crate) fn concept(concept: Concept, factor: f32) -> Self {
        Self { term: Wanted::Concept(concept), factor }
    }
}

impl Plan {
    /// The stems that are looked for.
    pub(crate) fn stems(&self) -> Vec<&str> {
        let alternatives = self.slots.iter().flat_map(|slot| &slot.alternatives);
        alternatives
            .filter_map(|alternative| match &alternative.term {
                Wanted::Word(stem) if alternative.factor >= SURE => Some(stem.as_str()),
                _ => None,
            })
            .collect()
    }

    /// The words of the question that an entry has an answer to.
    pub(crate) fn matched_words(&self, matched: &[bool]) -> Vec<String> {
        let matched = self.slots.iter().zip(matched).filter(|(_, matched)| **matched);
        matched.map(|(slot, _)| slot.word.clone()).collect()
    }
}

pub(crate) struct Planner<'a> {
    pub(crate) lexicon: &'static Lexicon,
    pub(crate) vocabulary: &'a Vocabulary,
}

/// What is known of a question before its slots are made.
struct Question<'a> {
    words: Vec<Word>,
    mentions: Vec<Mention>,
    products: Vec<Named<'a>>,
    /// Whether it asks for something like what it names.
    instead: bool,
    /// Which words are looked for.
    asked: Vec<bool>,
}

/// What asks for other products than the one it names.
const INSTEAD: [&str; 8] =
    ["alternative", "alternatives", "similar", "instead", "replacement", "like", "competitor", "equivalent"];

impl Planner<'_> {
    pub(crate) fn plan(&self, query: &str) -> Plan {
        let mut reader = Reader::default();
        let question = self.question(&mut reader, query);
        let mut plan = Plan { tool_names: tool_names(query), ..Plan::default() };
        let mut pointing: Vec<String> = Vec::new();
        let mut slot_of = vec![None; question.words.len()];
        for (at, word) in question.words.iter().enumerate() {
            if !question.asked[at] || plan.slots.len() == SLOTS_MAX {
                continue;
            }
            let (alternatives, meant) = self.alternatives(&mut reader, &question, at);
            pointing.extend(meant);
            slot_of[at] = Some(plan.slots.len());
            plan.slots.push(Slot { word: word.raw.clone(), alternatives });
        }
        for (from, to, word, factor) in meant::joined(self, &mut reader, &question.words) {
            for slot in slot_of[from..to].iter().flatten() {
                plan.slots[*slot].alternatives.push(Alternative::word(&word.stem, factor));
            }
        }
        for named in &question.products {
            let slots = slot_of[named.from..named.to].iter().flatten();
            slots.for_each(|slot| self.describe(&mut reader, &question, named, &mut plan.slots[*slot].alternatives));
        }
        for (word, concepts) in self.lexicon.unspaced_mentions(query).into_iter().take(SLOTS_MAX) {
            let alternatives = concepts.iter().map(|concept| Alternative::concept(*concept, FOREIGN_CONCEPT)).collect();
            plan.slots.push(Slot { word, alternatives });
            pointing.extend(concepts.iter().flat_map(|concept| self.lexicon.head(*concept)).cloned());
        }
        let foreign = question.mentions.iter().filter(|mention| mention.foreign);
        pointing.extend(foreign.flat_map(|mention| self.lexicon.head(mention.concept)).cloned());
        plan.direction = Meaning::get().direction(pointing.iter().map(String::as_str));
        plan.slots.retain(|slot| !slot.alternatives.is_empty());
        plan.slots.iter_mut().for_each(|slot| best_once(&mut slot.alternatives));
        plan
    }

    fn question(&self, reader: &mut Reader, query: &str) -> Question<'_> {
        let words = self.words(reader, query);
        let foreign = self.is_foreign(&words);
        let mentions = self.lexicon.mentions(&words, |at| foreign || !self.is_known(&words[at]));
        let products = self.lexicon.products(&words);
        let instead = !products.is_empty() && words.iter().any(|word| INSTEAD.contains(&word.raw.as_str()));
        let mut asked: Vec<bool> = words
            .iter()
            .map(|word| !(self.is_noise(word, foreign) || (instead && INSTEAD.contains(&word.raw.as_str()))))
            .collect();
        // A question made only of words that are usually noise is asked for those after all.
        if !asked.contains(&true) {
            asked.fill(true);
        }
        Question { words, mentions, products, instead, asked }
    }

    /// The words of a question; those that change case in parts, unless the whole is known.
    fn words(&self, reader: &mut Reader, query: &str) -> Vec<Word> {
        let mut words = Vec::new();
        let pieces = query.split(|character: char| !character.is_alphanumeric()).filter(|piece| !piece.is_empty());
        for piece in pieces.take(WORDS_MAX) {
            let (whole, parts) = (reader.words(piece), reader.parts(piece));
            let in_parts = parts.len() > whole.len() && whole.iter().any(|word| !self.is_known(word));
            words.extend(if in_parts { parts } else { whole });
        }
        words.truncate(WORDS_MAX);
        words
    }

    /// Whether the catalog or an English speaker has this word.
    pub(crate) fn is_known(&self, word: &Word) -> bool {
        self.is_indexed(word) || self.lexicon.is_english(word) || text::is_stop_word(&word.raw)
    }

    fn is_indexed(&self, word: &Word) -> bool {
        self.vocabulary.has(&word.raw) || self.vocabulary.has_stem(&word.stem)
    }

    /// Whether a question is in another language: a word that only such a language has, or its grammar.
    fn is_foreign(&self, words: &[Word]) -> bool {
        let unknown = || words.iter().filter(|word| !self.is_known(word));
        unknown().any(|word| self.lexicon.is_foreign(word))
            || unknown().filter(|word| self.lexicon.is_noise(&word.raw)).count() > 1
    }

    fn is_noise(&self, word: &Word, foreign: bool) -> bool {
        text::is_stop_word(&word.raw) || (self.lexicon.is_noise(&word.raw) && (foreign || !self.is_indexed(word)))
    }

    /// What would do for one word, and the English words that tell where it points.
    fn alternatives(&self, reader: &mut Reader, question: &Question, at: usize) -> (Vec<Alternative>, Vec<String>) {
        let word = &question.words[at];
        let here = || question.mentions.iter().filter(|mention| (mention.from..mention.to).contains(&at));
        let in_phrase = here().any(|mention| mention.to - mention.from > 1);
        let mut alternatives = Vec::new();
        if self.is_indexed(word) {
            alternatives.push(Alternative::word(&word.stem, if in_phrase { WORD_IN_PHRASE } else { 1.0 }));
            let longer = self.vocabulary.beginning(&word.raw).into_iter().filter(|stem| **stem != word.stem);
            if word.raw.len() >= 4 {
                alternatives.extend(longer.map(|stem| Alternative::word(stem, LONGER_WORD)));
            }
        }
        alternatives.extend(here().map(|mention| concept(mention, in_phrase)));
        if !alternatives.is_empty() || word.raw.starts_with(text::is_unspaced) || self.lexicon.is_english(word) {
            return (alternatives, vec![word.raw.clone()]);
        }
        meant::meant(self, reader, &word.raw)
    }

    /// Adds what a product is known for, where the catalog does not have it, or something like it is asked for.
    fn describe(&self, reader: &mut Reader, question: &Question, named: &Named, alternatives: &mut Vec<Alternative>) {
        let names = &question.words[named.from..named.to];
        let here = names.iter().all(|word| self.vocabulary.strength(&word.raw) >= Some(Strength::Name));
        if here && !question.instead {
            return;
        }
        if question.instead {
            alternatives.iter_mut().for_each(|alternative| alternative.factor *= INSTEAD_ITSELF);
        }
        let described = reader.words(named.product.known_for);
        let mentions = self.lexicon.mentions(&described, |_| false);
        alternatives.extend(mentions.iter().map(|mention| Alternative::concept(mention.concept, KNOWN_FOR_CONCEPT)));
        let words = described.iter().filter(|word| !text::is_stop_word(&word.raw));
        alternatives.extend(words.map(|word| Alternative::word(&word.stem, KNOWN_FOR_WORD)));
    }
}

fn concept(mention: &Mention, in_phrase: bool) -> Alternative {
    let phrase = mention.to - mention.from > 1;
    let factor = match (mention.foreign, phrase, in_phrase) {
        (true, _, _) => FOREIGN_CONCEPT,
        (false, true, _) => PHRASE_CONCEPT,
        (false, false, true) => WORD_CONCEPT_IN_PHRASE,
        (false, false, false) => WORD_CONCEPT,
    };
    Alternative::concept(mention.concept, factor)
}

fn best_once(alternatives: &mut Vec<Alternative>) {
    alternatives.sort_by(|a, b| b.factor.total_cmp(&a.factor));
    let mut kept: Vec<Alternative> = Vec::new();
    for alternative in alternatives.drain(..) {
        if kept.iter().all(|known| known.term != alternative.term) {
            kept.push(alternative);
        }
    }
    *alternatives = kept;
}

/// What looks like an identifier, and the question as a whole.
fn tool_names(query: &str) -> Vec<String> {
    let identifiers =
        query.split_whitespace().filter(|word| word.contains(['_', '-']) || text::case_parts(word).len() > 1);
    let whole = (query.len() <= 64).then_some(query);
    let mut names: Vec<String> = identifiers.take(TOOL_NAMES_MAX).chain(whole).map(text::compact).collect();
    names.retain(|name| name.len() > 3);
    names.sort();
    names.dedup();
    names
}
