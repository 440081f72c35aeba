//! Finding out whom a message was for that is too long to be kept.
//!
//! A server that answers with more than the limit must fail that one call, not leave it waiting. The message is read past,
//! and while it is, this scanner looks for the `id` of its outermost object: some servers write it first, others last.

use rmcp::model::RequestId;

/// An id longer than this is none of ours.
const ID_BYTES_MAX: usize = 64;

/// Reads a JSON object in pieces and remembers the value of its `id`.
#[derive(Debug, Default)]
pub(crate) struct IdScanner {
    depth: usize,
    in_text: bool,
    escaped: bool,
    /// The last complete piece of text at the outermost level: a key, if a colon follows.
    key: Vec<u8>,
    text: Vec<u8>,
    capturing: bool,
    value: Vec<u8>,
    found: Option<Vec<u8>>,
}

impl IdScanner {
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if self.in_text {
                self.text_byte(byte);
            } else {
                self.structure_byte(byte);
            }
        }
    }

    /// The id, if the message had one of its own.
    pub(crate) fn id(&self) -> Option<RequestId> {
        self.found.as_deref().and_then(|bytes| serde_json::from_slice(bytes).ok())
    }

    fn text_byte(&mut self, byte: u8) {
        if self.capturing && self.depth == 1 {
            self.capture(byte);
        }
        if self.escaped {
            self.escaped = false;
        } else if byte == b'\\' {
            self.escaped = true;
        } else if byte == b'"' {
            self.in_text = false;
            if self.depth == 1 && !self.capturing {
                self.key = std::mem::take(&mut self.text);
            }
            return;
        }
        if self.depth == 1 && !self.capturing && self.text.len() < ID_BYTES_MAX {
            self.text.push(byte);
        }
    }

    fn structure_byte(&mut self, byte: u8) {
        match byte {
            b'"' => {
                self.in_text = true;
                self.text.clear();
                if self.capturing && self.depth == 1 {
                    self.capture(byte);
                }
            }
            b'{' | b'[' => {
                self.capturing = false;
                self.depth += 1;
            }
            b'}' | b']' => {
                self.end_value();
                self.depth = self.depth.saturating_sub(1);
            }
            b',' => self.end_value(),
            b':' if self.depth == 1 => {
                self.capturing = self.key == b"id";
                self.value.clear();
            }
            _ if self.capturing && self.depth == 1 => self.capture(byte),
            _ => {}
        }
    }

    fn capture(&mut self, byte: u8) {
        if self.value.len() < ID_BYTES_MAX {
            self.value.push(byte);
        }
    }

    fn end_value(&mut self) {
        if self.capturing && self.depth == 1 {
            self.found = Some(std::mem::take(&mut self.value));
        }
        self.capturing = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_of(text: &str) -> Option<RequestId> {
        let mut whole = IdScanner::default();
        whole.feed(text.as_bytes());
        let mut bytewise = IdScanner::default();
        for byte in text.as_bytes() {
            bytewise.feed(&[*byte]);
        }
        assert_eq!(whole.id(), bytewise.id());
        whole.id()
    }

    #[test]
    fn the_id_is_found_wherever_it_stands() {
        assert_eq!(id_of(r#"{"jsonrpc":"2.0","id":7,"result":{"id":9}}"#), Some(RequestId::Number(7)));
        assert_eq!(id_of(r#"{"result":{"id":9,"x":[{"id":3}]},"id" : 7 }"#), Some(RequestId::Number(7)));
        assert_eq!(id_of(r#"{"result":"\"id\":5,","id":"a\"b"}"#), Some(RequestId::String("a\"b".into())));
    }

    #[test]
    fn a_message_without_one_has_none() {
        assert_eq!(id_of(r#"{"method":"x","params":{"id":1}}"#), None);
        assert_eq!(id_of(r#"{"id":{"nested":1}}"#), None);
        assert_eq!(id_of("no json at all"), None);
    }
}
