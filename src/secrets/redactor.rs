//! Taking secret values out of text.

use std::{borrow::Cow, sync::Arc};

use arc_swap::ArcSwap;

use super::SecretValue;

/// What stands where a secret was.
pub const REDACTED: &str = "[redacted]";

/// Values shorter than this are too likely to be part of something else.
const VALUE_BYTES_MIN: usize = 6;

/// Knows every secret's value, and replaces it wherever it appears. Clones share what they know.
#[derive(Debug, Clone, Default)]
pub struct Redactor {
    values: Arc<ArcSwap<Vec<SecretValue>>>,
}

impl Redactor {
    pub(crate) fn replace(&self, mut values: Vec<SecretValue>) {
        values.retain(|value| value.reveal().len() >= VALUE_BYTES_MIN);
        values.sort_by_key(|value| std::cmp::Reverse(value.reveal().len()));
        self.values.store(Arc::new(values));
    }

    /// `text` without any secret's value.
    #[must_use]
    pub fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut redacted = Cow::Borrowed(text);
        for value in self.values.load().iter() {
            if redacted.contains(value.reveal()) {
                redacted = Cow::Owned(redacted.replace(value.reveal(), REDACTED));
            }
        }
        redacted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_replaced_longest_first_and_short_ones_are_not() {
        let redactor = Redactor::default();
        redactor.replace(vec!["secret".to_owned().into(), "secret-long".to_owned().into(), "a".to_owned().into()]);
        assert_eq!(redactor.redact("a secret-long and a secret"), "a [redacted] and a [redacted]");
        assert!(matches!(redactor.redact("nothing here"), Cow::Borrowed(_)));
    }
}
