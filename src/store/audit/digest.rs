//! What the hash of an event covers.
//!
//! The same columns in the same order whether an event is about to be written or is read back, so both are made from one
//! list.

use sha2::{Digest as _, Sha256};

use super::{Closed, Event, Opened, integer};
use crate::ids::{CallId, SessionId};

/// How a column is covered.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Integer,
    Bytes,
    /// An absent value differs from an empty one.
    Optional,
    /// One that logs did not have when they were begun: an absent value is not covered at all.
    Later,
}

/// A kind of event: how it is covered.
pub(super) struct Layout {
    word: &'static [u8],
    pub(super) table: &'static str,
    pub(super) columns: &'static [(&'static str, Shape)],
}

pub(super) const OPENED: Layout = Layout {
    word: b"opened",
    table: "audit_opened",
    columns: &[
        ("record", Shape::Bytes),
        ("at", Shape::Integer),
        ("parent", Shape::Optional),
        ("session", Shape::Optional),
        ("principal", Shape::Bytes),
        ("client", Shape::Optional),
        ("kind", Shape::Bytes),
        ("server", Shape::Optional),
        ("name", Shape::Bytes),
        ("arguments", Shape::Optional),
        ("arguments_bytes", Shape::Integer),
        ("arguments_hash", Shape::Optional),
        ("trace", Shape::Later),
    ],
};

pub(super) const CLOSED: Layout = Layout {
    word: b"closed",
    table: "audit_closed",
    columns: &[
        ("record", Shape::Bytes),
        ("at", Shape::Integer),
        ("duration", Shape::Integer),
        ("status", Shape::Bytes),
        ("error", Shape::Optional),
        ("result", Shape::Optional),
        ("result_bytes", Shape::Integer),
        ("result_hash", Shape::Optional),
    ],
};

/// What a column holds.
#[derive(Clone, Copy)]
pub(super) enum Value<'a> {
    Integer(i64),
    Bytes(Option<&'a [u8]>),
}

impl<'a> Value<'a> {
    fn text(text: &'a str) -> Self {
        Self::Bytes(Some(text.as_bytes()))
    }

    fn optional(text: Option<&'a str>) -> Self {
        Self::Bytes(text.map(str::as_bytes))
    }

    fn hash(hash: Option<&'a [u8; 32]>) -> Self {
        Self::Bytes(hash.map(<[u8; 32]>::as_slice))
    }
}

pub(super) fn of_event(previous: &[u8; 32], seq: i64, event: &Event) -> [u8; 32] {
    match event {
        Event::Opened(event) => of_values(previous, seq, &OPENED, &opened(event)),
        Event::Closed(event) => of_values(previous, seq, &CLOSED, &closed(event)),
    }
}

fn opened(event: &Opened) -> [Value<'_>; OPENED.columns.len()] {
    [
        Value::Bytes(Some(event.record.as_bytes())),
        Value::Integer(event.at.as_microsecond()),
        Value::Bytes(event.parent.as_ref().map(CallId::as_bytes)),
        Value::optional(event.session.as_ref().map(SessionId::as_str)),
        Value::text(&event.principal),
        Value::optional(event.client.as_deref()),
        Value::text(&event.kind),
        Value::optional(event.server.as_deref()),
        Value::text(&event.name),
        Value::optional(event.arguments.as_deref()),
        Value::Integer(integer(event.arguments_bytes)),
        Value::hash(event.arguments_hash.as_ref()),
        Value::optional(event.trace.as_deref()),
    ]
}

fn closed(event: &Closed) -> [Value<'_>; CLOSED.columns.len()] {
    [
        Value::Bytes(Some(event.record.as_bytes())),
        Value::Integer(event.at.as_microsecond()),
        Value::Integer(integer(event.duration_micros)),
        Value::text(&event.status),
        Value::optional(event.error.as_deref()),
        Value::optional(event.result.as_deref()),
        Value::Integer(integer(event.result_bytes)),
        Value::hash(event.result_hash.as_ref()),
    ]
}

/// SHA-256 over the previous hash and every column of the event, each with its length before it, so that no two
/// different events read the same.
pub(super) fn of_values(previous: &[u8; 32], seq: i64, layout: &Layout, values: &[Value<'_>]) -> [u8; 32] {
    let mut digest = Digest(Sha256::new());
    digest.bytes(previous);
    digest.bytes(&seq.to_le_bytes());
    digest.bytes(layout.word);
    for ((_, shape), value) in layout.columns.iter().zip(values) {
        match (value, shape) {
            (Value::Integer(integer), _) => digest.bytes(&integer.to_le_bytes()),
            (Value::Bytes(Some(bytes)), Shape::Optional) => {
                digest.bytes(&[1]);
                digest.bytes(bytes);
            }
            (Value::Bytes(Some(bytes)), _) => digest.bytes(bytes),
            (Value::Bytes(None), Shape::Later) => {}
            (Value::Bytes(None), _) => digest.bytes(&[0]),
        }
    }
    digest.0.finalize().into()
}

struct Digest(Sha256);

impl Digest {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;
    use crate::store::timestamp;

    /// Computed by another program, from what `of_values` says: logs that were written with these are verified with them.
    #[test]
    fn what_was_written_once_has_the_same_hash_for_ever() {
        let record = CallId::from_bytes(&std::array::from_fn::<u8, 16, _>(|byte| u8::try_from(byte).unwrap())).unwrap();
        let begun = 1_700_000_000_000_001;
        let opened = |trace: Option<&str>| {
            Event::Opened(Opened {
                record,
                at: timestamp(begun),
                parent: None,
                session: Some("0123456789abcdefghijklmnopqrstuv".parse().unwrap()),
                principal: "operator".to_owned(),
                client: Some("client 1".to_owned()),
                kind: "tool".into(),
                server: Some("server".to_owned()),
                name: "name".to_owned(),
                arguments: Some("{}".to_owned()),
                arguments_bytes: 2,
                arguments_hash: Some([7; 32]),
                trace: trace.map(str::to_owned),
            })
        };
        let first = of_event(&[0; 32], 1, &opened(None));
        assert_eq!(HEXLOWER.encode(&first), "61e0ce566e30dc3f3b8ccdb8b3fb92d8168aacbf9d5e426e4b7376f35dbff7bb");
        let traced = of_event(&[0; 32], 1, &opened(Some("trace")));
        assert_eq!(HEXLOWER.encode(&traced), "f8cfe70893787df823ebea7ebb6e30b3e128052e1864006acdea0d8c1fc0228f");
        let closed = Event::Closed(Closed {
            record,
            at: timestamp(begun + 5),
            duration_micros: 5,
            status: "success".into(),
            error: None,
            result: Some("[]".to_owned()),
            result_bytes: 2,
            result_hash: None,
        });
        let second = of_event(&first, 2, &closed);
        assert_eq!(HEXLOWER.encode(&second), "7373a86904793801d02b6bba212c2af04d13e33f378982a8c4bcecc8763f55c6");
    }
}
