//! Nearness of meaning, for words that the lexicon does not connect.
//!
//! `data/meaning.bin` has a vector for each of some twenty thousand English words, distilled by `data/distil.py` from a
//! sentence encoder so that the sum of a sentence's words points where the encoder would put the sentence. No model
//! runs here: a text's vector is a sum, and nearness a product.

use std::sync::OnceLock;

static TABLE: &[u8] = include_bytes!("../data/meaning.bin");

/// A text's direction, in 127ths.
pub(crate) type Direction = Vec<i8>;

pub(crate) struct Meaning {
    /// A word on each line, in order, and where each begins.
    words: &'static str,
    starts: Vec<u32>,
    dimensions: usize,
    scales: &'static [u8],
    vectors: &'static [u8],
}

impl Meaning {
    /// The one table, read at its first use.
    pub(crate) fn get() -> &'static Self {
        static MEANING: OnceLock<Meaning> = OnceLock::new();
        MEANING.get_or_init(|| Self::read().unwrap_or_else(Self::empty))
    }

    pub(crate) fn data() -> &'static [u8] {
        TABLE
    }

    fn read() -> Option<Self> {
        let mut rest = TABLE;
        let mut take = |length: usize| -> Option<&'static [u8]> {
            let (taken, after) = rest.split_at_checked(length)?;
            rest = after;
            Some(taken)
        };
        let mut number = || usize::try_from(u32::from_le_bytes(take(4)?.try_into().ok()?)).ok();
        let (count, dimensions, words_bytes) = (number()?, number()?, number()?);
        let words = std::str::from_utf8(take(words_bytes)?).ok()?;
        let scales = take(count * 4)?;
        let vectors = take(count * dimensions)?;
        let ends = words.bytes().zip(1..).filter(|(byte, _)| *byte == b'\n').map(|(_, end)| end);
        let starts = std::iter::once(0).chain(ends).take(count).collect();
        Some(Self { words, starts, dimensions, scales, vectors })
    }

    fn empty() -> Self {
        Self { words: "", starts: Vec::new(), dimensions: 0, scales: &[], vectors: &[] }
    }

    /// Whether this is an English word, as far as the table knows.
    pub(crate) fn has(&self, word: &str) -> bool {
        self.at(word).is_some()
    }

    /// The direction of some words; none if it knows none of them.
    pub(crate) fn direction<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Option<Direction> {
        let mut sum = vec![0.0f32; self.dimensions];
        for at in words.into_iter().filter_map(|word| self.find(word)) {
            let scale = self.scales[at * 4..].first_chunk().map_or(0.0, |bytes| f32::from_le_bytes(*bytes));
            let vector = &self.vectors[at * self.dimensions..(at + 1) * self.dimensions];
            for (sum, part) in sum.iter_mut().zip(vector) {
                *sum += scale * f32::from(part.cast_signed());
            }
        }
        let length = sum.iter().map(|part| part * part).sum::<f32>().sqrt();
        (length > 0.0).then(|| sum.iter().map(|part| (part / length * 127.0).round() as i8).collect())
    }

    fn find(&self, word: &str) -> Option<usize> {
        self.at(word).or_else(|| self.at(word.strip_suffix('s')?))
    }

    fn at(&self, word: &str) -> Option<usize> {
        let known = |start: u32| self.words[start as usize..].split('\n').next().unwrap_or_default();
        self.starts.binary_search_by(|start| known(*start).cmp(word)).ok()
    }
}

/// The cosine between two directions.
pub(crate) fn nearness(a: &[i8], b: &[i8]) -> f32 {
    let product: i32 = a.iter().zip(b).map(|(a, b)| i32::from(*a) * i32::from(*b)).sum();
    product as f32 / (127.0 * 127.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: &str, b: &str) -> f32 {
        let direction = |text: &str| Meaning::get().direction(text.split(' ')).unwrap();
        nearness(&direction(a), &direction(b))
    }

    #[test]
    fn what_means_much_the_same_is_near() {
        assert!(near("cheap lodging", "inexpensive hotel") > near("cheap lodging", "database query") + 0.3);
    }

    #[test]
    fn unknown_words_have_no_direction() {
        assert_eq!(Meaning::get().direction(["xyzzyq", "日本"]), None);
    }
}
