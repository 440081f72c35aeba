//! From sentences and identifiers to words.
//!
//! Documents and queries go through the same steps, so that `searchCode`, `search_code` and "searching code" meet:
//! split at everything that is not a letter or digit and where an identifier changes case, lower the case, drop the
//! words every sentence has, reduce to the English stem.

use tantivy::tokenizer::{
    Language, LowerCaser, RemoveLongFilter, Stemmer, StopWordFilter, TextAnalyzer, Token, TokenStream, Tokenizer,
};

pub(crate) const ANALYZER: &str = "words";

const WORD_BYTES_MAX: usize = 40;

/// Words that say nothing about which server is meant, beyond English stop words.
const ASKING_WORDS: [&str; 14] =
    ["mcp", "server", "tool", "use", "want", "need", "help", "please", "how", "can", "my", "me", "let", "i"];

pub(crate) fn analyzer() -> TextAnalyzer {
    let english = StopWordFilter::new(Language::English).unwrap_or_else(|| StopWordFilter::remove(Vec::new()));
    TextAnalyzer::builder(IdentifierTokenizer::default())
        .filter(RemoveLongFilter::limit(WORD_BYTES_MAX))
        .filter(LowerCaser)
        .filter(english)
        .filter(StopWordFilter::remove(ASKING_WORDS.map(str::to_owned)))
        .filter(Stemmer::new(Language::English))
        .build()
}

pub(crate) fn register(index: &tantivy::Index) {
    index.tokenizers().register(ANALYZER, analyzer());
}

/// The distinct words of `text`, in order of appearance.
///
/// A question made only of words that are usually noise ("mcp server") is searched for those words after all.
pub(crate) fn words(text: &str) -> Vec<String> {
    let found = distinct(&mut analyzer(), text);
    if !found.is_empty() {
        return found;
    }
    let mut plain = TextAnalyzer::builder(IdentifierTokenizer::default())
        .filter(RemoveLongFilter::limit(WORD_BYTES_MAX))
        .filter(LowerCaser)
        .filter(Stemmer::new(Language::English))
        .build();
    distinct(&mut plain, text)
}

fn distinct(analyzer: &mut TextAnalyzer, text: &str) -> Vec<String> {
    let mut words = Vec::new();
    analyzer.token_stream(text).process(&mut |token| {
        if !words.contains(&token.text) {
            words.push(token.text.clone());
        }
    });
    words
}

/// The longest prefix of `text` within `bytes_max` that ends on a character.
pub(crate) fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Splits prose and identifiers alike: `getHTTPStatus_v2` is `get`, `HTTP`, `Status`, `v2`.
#[derive(Clone, Default)]
struct IdentifierTokenizer {
    token: Token,
}

impl Tokenizer for IdentifierTokenizer {
    type TokenStream<'a> = IdentifierTokens<'a>;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> IdentifierTokens<'a> {
        self.token.reset();
        IdentifierTokens { text, rest: 0, token: &mut self.token }
    }
}

struct IdentifierTokens<'a> {
    text: &'a str,
    rest: usize,
    token: &'a mut Token,
}

impl TokenStream for IdentifierTokens<'_> {
    fn advance(&mut self) -> bool {
        let Some((from, to)) = next_word(self.text, self.rest) else {
            return false;
        };
        self.rest = to;
        self.token.position = self.token.position.wrapping_add(1);
        self.token.offset_from = from;
        self.token.offset_to = to;
        self.token.text.clear();
        self.token.text.push_str(&self.text[from..to]);
        true
    }

    fn token(&self) -> &Token {
        self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        self.token
    }
}

fn next_word(text: &str, from: usize) -> Option<(usize, usize)> {
    let skipped = text[from..].find(char::is_alphanumeric)?;
    let start = from + skipped;
    let mut characters = text[start..].char_indices().peekable();
    let mut before: Option<char> = None;
    while let Some((offset, character)) = characters.next() {
        let after = characters.peek().map(|(_, next)| *next);
        if !character.is_alphanumeric() || before.is_some_and(|before| changes_case(before, character, after)) {
            return Some((start, start + offset));
        }
        before = Some(character);
    }
    Some((start, text.len()))
}

/// Whether a new word begins at `character`: `fooBar`, `HTTPStatus`.
fn changes_case(before: char, character: char, after: Option<char>) -> bool {
    character.is_uppercase()
        && (before.is_lowercase() || (before.is_uppercase() && after.is_some_and(char::is_lowercase)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<&str> {
        let mut words = Vec::new();
        let mut rest = 0;
        while let Some((from, to)) = next_word(text, rest) {
            words.push(&text[from..to]);
            rest = to;
        }
        words
    }

    #[test]
    fn identifiers_are_split_where_they_change() {
        assert_eq!(split("getHTTPStatus_v2"), ["get", "HTTP", "Status", "v2"]);
        assert_eq!(split("github-official.pull_request"), ["github", "official", "pull", "request"]);
        assert_eq!(split("  Żółć — 日本"), ["Żółć", "日本"]);
        assert_eq!(split("…"), Vec::<&str>::new());
    }

    #[test]
    fn words_are_stemmed_and_common_ones_dropped() {
        assert_eq!(words("I want a tool for searching the issues"), ["search", "issu"]);
    }

    #[test]
    fn a_question_of_noise_words_keeps_them() {
        assert_eq!(words("mcp server"), ["mcp", "server"]);
    }

    #[test]
    fn cutting_keeps_characters_whole() {
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("aé", 3), "aé");
    }
}
