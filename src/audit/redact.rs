//! What the log keeps of arguments and results: enough to understand, nothing secret, never too much.
//!
//! A value is taken out if it is a secret the broker knows, if its name says that it is one, or if it has the form of a
//! well-known kind of token. Long text, long lists and deep nesting are cut; what remains is JSON.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::secrets::{REDACTED, Redactor};

const DEPTH_MAX: usize = 16;

/// Parts of a name that make its value a secret.
const SECRET_NAMES: [&str; 16] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "api_key",
    "api-key",
    "accesskey",
    "access_key",
    "privatekey",
    "private_key",
    "authorization",
    "credential",
    "cookie",
    "bearer",
];

/// Beginnings of well-known tokens, and how long such a token is at least.
const TOKEN_FORMS: [(&str, usize); 14] = [
    ("ghp_", 20),
    ("gho_", 20),
    ("ghs_", 20),
    ("ghu_", 20),
    ("github_pat_", 30),
    ("glpat-", 20),
    ("sk-", 20),
    ("xoxb-", 20),
    ("xoxp-", 20),
    ("AKIA", 20),
    ("eyJ", 40),
    ("hf_", 20),
    ("npm_", 30),
    ("-----BEGIN", 30),
];

/// How much of a value is kept.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub bytes_max: usize,
}

impl Bounds {
    /// `text`, cut if it is longer than what is kept, with a note of how much is missing.
    #[must_use]
    pub fn cut(&self, text: &str) -> String {
        cut(text, self.bytes_max)
    }
}

/// The part of `value` that is kept, as JSON; `bytes` is the size of the whole.
pub(super) fn summary<T: Serialize + ?Sized>(
    value: &T,
    bytes: u64,
    redactor: &Redactor,
    bounds: &Bounds,
) -> Option<String> {
    if bounds.bytes_max == 0 {
        return None;
    }
    let value = serde_json::to_value(value).ok()?;
    let mut text_max = bounds.bytes_max;
    let mut items_max = 256;
    let whole = usize::try_from(bytes).unwrap_or(usize::MAX) <= bounds.bytes_max;
    loop {
        let kept = Trim { redactor, text_max, items_max }.value(&value, 0);
        let text = kept.to_string();
        if whole || text.len() <= bounds.bytes_max {
            return Some(text);
        }
        if text_max <= 16 {
            return Some(Value::String(cut(&text, bounds.bytes_max / 2)).to_string());
        }
        text_max /= 4;
        items_max /= 2;
    }
}

/// `value` without what is named like a secret or has the form of one.
#[must_use]
pub fn without_secrets(value: &Value) -> Value {
    Trim { redactor: &Redactor::default(), text_max: usize::MAX, items_max: usize::MAX }.value(value, 0)
}

struct Trim<'a> {
    redactor: &'a Redactor,
    text_max: usize,
    items_max: usize,
}

impl Trim<'_> {
    fn value(&self, value: &Value, depth: usize) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(text)),
            Value::Array(_) | Value::Object(_) if depth >= DEPTH_MAX => Value::String("[deeper]".to_owned()),
            Value::Array(items) => self.list(items, depth),
            Value::Object(fields) => Value::Object(self.fields(fields, depth)),
            scalar => scalar.clone(),
        }
    }

    fn list(&self, items: &[Value], depth: usize) -> Value {
        let mut kept: Vec<Value> = items.iter().take(self.items_max).map(|item| self.value(item, depth + 1)).collect();
        if items.len() > self.items_max {
            kept.push(Value::String(format!("[{} more]", items.len() - self.items_max)));
        }
        Value::Array(kept)
    }

    fn fields(&self, fields: &Map<String, Value>, depth: usize) -> Map<String, Value> {
        let mut kept = Map::new();
        for (name, value) in fields.iter().take(self.items_max) {
            let value = if names_a_secret(name) && holds_text(value) {
                Value::String(REDACTED.to_owned())
            } else {
                self.value(value, depth + 1)
            };
            kept.insert(cut(name, 200), value);
        }
        if fields.len() > self.items_max {
            kept.insert("[more]".to_owned(), Value::from(fields.len() - self.items_max));
        }
        kept
    }

    fn text(&self, text: &str) -> String {
        let known = self.redactor.redact(text);
        let formless = without_tokens(&known);
        cut(&formless, self.text_max)
    }
}

fn names_a_secret(name: &str) -> bool {
    let folded = name.to_ascii_lowercase();
    SECRET_NAMES.iter().any(|part| folded.contains(part)) && !folded.ends_with("tokens")
}

fn holds_text(value: &Value) -> bool {
    matches!(value, Value::String(text) if !text.is_empty()) || value.is_array() || value.is_object()
}

/// `text` with every word that has the form of a token replaced.
fn without_tokens(text: &str) -> String {
    if !TOKEN_FORMS.iter().any(|(start, _)| text.contains(start)) {
        return text.to_owned();
    }
    if text.contains("-----BEGIN") && text.contains("PRIVATE KEY") {
        return REDACTED.to_owned();
    }
    let mut kept = String::with_capacity(text.len());
    let mut word = String::new();
    for character in text.chars() {
        if character.is_ascii_alphanumeric() || matches!(character, '_' | '-' | '.') {
            word.push(character);
            continue;
        }
        push_word(&mut kept, &mut word);
        kept.push(character);
    }
    push_word(&mut kept, &mut word);
    kept
}

fn push_word(kept: &mut String, word: &mut String) {
    let token = TOKEN_FORMS.iter().any(|(start, length)| word.starts_with(start) && word.len() >= *length);
    kept.push_str(if token { REDACTED } else { word });
    word.clear();
}

fn cut(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let mut end = bytes_max;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…[{} bytes more]", &text[..end], text.len() - end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn kept(value: &Value, bytes_max: usize) -> String {
        let bytes = value.to_string().len() as u64;
        summary(value, bytes, &Redactor::default(), &Bounds { bytes_max }).unwrap()
    }

    #[test]
    fn ordinary_values_are_kept_as_they_are() {
        let value = json!({"query": "open issues", "limit": 10, "deep": {"list": [1, null, true]}});
        assert_eq!(kept(&value, 4096), value.to_string());
    }

    #[test]
    fn what_is_named_like_a_secret_is_taken_out() {
        let value = json!({"apiKey": "x", "user": "me", "auth": {"password": "p"}, "max_tokens": 5, "tokens": "few"});
        assert_eq!(
            kept(&value, 4096),
            r#"{"apiKey":"[redacted]","user":"me","auth":{"password":"[redacted]"},"max_tokens":5,"tokens":"few"}"#
        );
    }

    #[test]
    fn what_looks_like_a_token_is_taken_out() {
        let value = json!({"header": "Bearer ghp_abcdefghijklmnopqrst1234, please", "key": "-----BEGIN RSA PRIVATE KEY-----\nabc"});
        assert_eq!(kept(&value, 4096), r#"{"header":"Bearer [redacted], please","key":"[redacted]"}"#);
    }

    #[test]
    fn large_values_are_cut_to_valid_json() {
        for value in [
            json!({"text": "é".repeat(100_000)}),
            json!((0..100_000).collect::<Vec<_>>()),
            json!((0..5000).map(|n| (n.to_string(), n)).collect::<std::collections::BTreeMap<_, _>>()),
        ] {
            let kept = kept(&value, 4096);
            assert!(kept.len() <= 4096, "{}", kept.len());
            serde_json::from_str::<Value>(&kept).unwrap();
        }
    }

    #[test]
    fn nesting_ends_somewhere() {
        let mut value = json!("end");
        for _ in 0..100 {
            value = json!([value]);
        }
        assert!(kept(&value, 4096).contains("[deeper]"));
    }
}
