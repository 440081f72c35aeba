//! From sentences and identifiers to words.
//!
//! Documents and queries go through the same steps, so that `searchCode`, `search_code` and "searching code" meet:
//! split at everything that is not a letter or digit, lower the case, drop accents, reduce to the English stem. A word
//! that changes case within (`GitHub`, `listIssues`) is kept whole and in parts. Scripts that put no spaces between
//! words are cut into pairs of characters.

use std::collections::HashMap;

use tantivy::tokenizer::{AsciiFoldingFilter, Language, LowerCaser, RawTokenizer, Stemmer, TextAnalyzer};

/// Longer words are cut: nobody asks for them, and they would only take room.
const WORD_BYTES_MAX: usize = 40;

/// Words whose English stem is that of a word with another meaning (`document`, `local`, `organ`).
const KEPT: [&str; 6] = ["documentation", "localization", "localisation", "organization", "organisation", "news"];

/// A word as it was written (lower case, without accents), and what it is reduced to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) raw: String,
    pub(crate) stem: String,
}

/// Reduces words to stems, and remembers those it has seen.
pub(crate) struct Reader {
    folder: TextAnalyzer,
    stemmer: TextAnalyzer,
    seen: HashMap<String, Word>,
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            folder: TextAnalyzer::builder(RawTokenizer::default())
                .filter(LowerCaser)
                .filter(AsciiFoldingFilter)
                .build(),
            stemmer: TextAnalyzer::builder(RawTokenizer::default()).filter(Stemmer::new(Language::English)).build(),
            seen: HashMap::new(),
        }
    }
}

impl Reader {
    /// The words of a sentence, whole.
    pub(crate) fn words(&mut self, text: &str) -> Vec<Word> {
        pieces(text).into_iter().map(|piece| self.word(piece)).collect()
    }

    /// The words of a sentence, those that change case in parts only.
    pub(crate) fn parts(&mut self, text: &str) -> Vec<Word> {
        pieces(text).into_iter().flat_map(case_parts).map(|part| self.word(part)).collect()
    }

    /// The words of a sentence as they are indexed: whole, then in parts if there are any; without those every sentence
    /// has.
    pub(crate) fn indexed(&mut self, text: &str) -> Vec<Word> {
        let mut words = Vec::new();
        for piece in pieces(text) {
            let parts = case_parts(piece);
            if parts.len() > 1 {
                words.extend(parts.into_iter().map(|part| self.word(part)));
            }
            words.push(self.word(piece));
        }
        words.retain(|word| !is_stop_word(&word.raw));
        words
    }

    pub(crate) fn word(&mut self, text: &str) -> Word {
        let text = cut(text, WORD_BYTES_MAX);
        if let Some(word) = self.seen.get(text) {
            return word.clone();
        }
        let raw = if text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) {
            text.to_owned()
        } else {
            one(&mut self.folder, text)
        };
        let stem =
            if !raw.is_ascii() || KEPT.contains(&raw.as_str()) { raw.clone() } else { one(&mut self.stemmer, &raw) };
        let word = Word { raw, stem };
        self.seen.insert(text.to_owned(), word.clone());
        word
    }
}

fn one(analyzer: &mut TextAnalyzer, text: &str) -> String {
    let mut stream = analyzer.token_stream(text);
    if stream.advance() { std::mem::take(&mut stream.token_mut().text) } else { String::new() }
}

/// English words that say nothing about which server is meant: grammar, and what every question has. In order.
#[rustfmt::skip]
const STOP_WORDS: &[&str] = &[
    "a", "about", "all", "also", "am", "an", "and", "any", "are", "as", "at", "back", "be", "because", "been", "but",
    "by", "can", "could", "did", "do", "does", "doing", "done", "during", "each", "every", "everything", "for",
    "from", "get", "gets", "give", "gives", "go", "got", "had", "has", "have", "having", "he", "help", "helps", "her",
    "here", "his", "how", "i", "if", "in", "inside", "into", "is", "it", "its", "just", "let", "lets", "like", "ll",
    "looking", "made", "make", "makes", "many", "may", "mcp", "me", "might", "more", "most", "much", "my", "myself",
    "need", "needs", "no", "not", "of", "off", "on", "one", "ones", "only", "onto", "or", "other", "our", "out",
    "over", "own", "please", "re", "s", "server", "servers", "should", "so", "some", "something", "such", "t", "than",
    "that", "the", "their", "them", "then", "there", "these", "they", "thing", "things", "this", "those", "through",
    "to", "too", "tool", "tools", "up", "us", "use", "used", "using", "various", "ve", "very", "via", "want", "was",
    "we", "were", "what", "when", "where", "which", "while", "who", "will", "with", "within", "would", "you", "your",
];

pub(crate) fn is_stop_word(word: &str) -> bool {
    STOP_WORDS.binary_search(&word).is_ok()
}

/// Runs of letters and digits; of scripts without spaces, pairs of characters.
fn pieces(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    for run in text.split(|character: char| !character.is_alphanumeric()).filter(|run| !run.is_empty()) {
        if run.is_ascii() || !run.contains(is_unspaced) {
            pieces.push(run);
        } else {
            pairs(run, &mut pieces);
        }
    }
    pieces
}

fn pairs<'a>(run: &'a str, pieces: &mut Vec<&'a str>) {
    let mut rest = run;
    while let Some(first) = rest.chars().next() {
        let unspaced = is_unspaced(first);
        let end = rest.find(|character| is_unspaced(character) != unspaced).unwrap_or(rest.len());
        let (part, after) = rest.split_at(end);
        if unspaced {
            let starts: Vec<usize> = part.char_indices().map(|(at, _)| at).chain([part.len()]).collect();
            pieces.extend(starts.windows(3).map(|bounds| &part[bounds[0]..bounds[2]]));
            if starts.len() == 2 {
                pieces.push(part);
            }
        } else {
            pieces.push(part);
        }
        rest = after;
    }
}

/// Chinese, Japanese, Korean and Thai characters.
pub(crate) fn is_unspaced(character: char) -> bool {
    matches!(character, '\u{e00}'..='\u{e7f}' | '\u{1100}'..='\u{11ff}' | '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}'
        | '\u{ac00}'..='\u{d7af}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

/// Splits an identifier where it changes case: `getHTTPStatus` is `get`, `HTTP`, `Status`.
pub(crate) fn case_parts(word: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut start = 0;
    let mut characters = word.char_indices().peekable();
    let mut before: Option<char> = None;
    while let Some((at, character)) = characters.next() {
        let after = characters.peek().map(|(_, next)| *next);
        if before.is_some_and(|before| changes_case(before, character, after)) {
            parts.push(&word[start..at]);
            start = at;
        }
        before = Some(character);
    }
    parts.push(&word[start..]);
    parts
}

fn changes_case(before: char, character: char, after: Option<char>) -> bool {
    character.is_uppercase()
        && (before.is_lowercase() || (before.is_uppercase() && after.is_some_and(char::is_lowercase)))
}

/// A name without what tells spellings of it apart: `create_issue`, `createIssue` and "Create issue" are one.
pub(crate) fn compact(name: &str) -> String {
    name.chars().filter(|character| character.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// The longest prefix of `text` within `bytes_max` that ends on a character.
pub(crate) fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(words: Vec<Word>) -> Vec<String> {
        words.into_iter().map(|word| word.raw).collect()
    }

    #[test]
    fn identifiers_are_kept_whole_and_in_parts() {
        let mut reader = Reader::default();
        assert_eq!(raw(reader.indexed("getHTTPStatus_v2")), ["http", "status", "gethttpstatus", "v2"]);
        assert_eq!(raw(reader.parts("github-official.pullRequest")), ["github", "official", "pull", "request"]);
        assert_eq!(raw(reader.words("  Żółć — OpenAPI")), ["zołc", "openapi"].map(|word| word.replace('ł', "l")));
        assert_eq!(raw(reader.words("…")), Vec::<String>::new());
    }

    #[test]
    fn stop_words_can_be_looked_up() {
        assert!(STOP_WORDS.is_sorted());
        assert!(is_stop_word("the") && !is_stop_word("mail"));
    }

    #[test]
    fn words_are_stemmed() {
        let stems: Vec<String> =
            Reader::default().words("searching issues").into_iter().map(|word| word.stem).collect();
        assert_eq!(stems, ["search", "issu"]);
    }

    #[test]
    fn scripts_without_spaces_are_cut_into_pairs() {
        assert_eq!(raw(Reader::default().words("天气预报 API接口")), ["天气", "气预", "预报", "api", "接口"]);
    }

    #[test]
    fn cutting_keeps_characters_whole() {
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("aé", 3), "aé");
    }
}
