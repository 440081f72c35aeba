//! What a client carries between the rounds of one call.
//!
//! A server of revision 2026-07-28 may answer `input_required` with a `requestState`, which the client sends back with what
//! it was asked for. The client holds it meanwhile, so it is sealed: bound to who asks, in which session, for which tool of
//! which server with which arguments, and for how long.

use std::time::Duration;

use rmcp::model::{ErrorData, InputRequiredResult, RequestStateCodec, SealOptions};
use sha2::{Digest as _, Sha256};

/// Seals and opens states.
pub(super) struct Rounds {
    codec: RequestStateCodec,
    valid_for: Duration,
}

/// What a state is bound to.
pub(super) struct Binding([u8; 32]);

impl Binding {
    pub(super) fn of(parts: &[&str]) -> Self {
        let mut digest = Sha256::new();
        for part in parts {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part.as_bytes());
        }
        Self(digest.finalize().into())
    }
}

impl Rounds {
    pub(super) fn new(key: [u8; 32], valid_for: Duration) -> Self {
        Self { codec: RequestStateCodec::new(key.to_vec()), valid_for }
    }

    /// Seals the server's own state on its way to the client.
    pub(super) fn seal(&self, mut asked: InputRequiredResult, binding: &Binding) -> InputRequiredResult {
        if let Some(state) = asked.request_state.take() {
            let options = SealOptions::new().associated_data(&binding.0).ttl(self.valid_for);
            asked.request_state = Some(self.codec.seal_with(state.as_bytes(), &options));
        }
        asked
    }

    /// Gives back the server's own state, if it is the one that was sealed.
    ///
    /// # Errors
    ///
    /// When it was changed, is for something else, or is too old.
    pub(super) fn open(&self, sealed: &str, binding: &Binding) -> Result<String, ErrorData> {
        let opened = self.codec.open_with(sealed, &binding.0).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        opened.ok_or_else(|| {
            ErrorData::invalid_params(
                "requestState is not one that was given out for this request: call again without it",
                None,
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_good_for_what_it_was_given_out_for() {
        let rounds = Rounds::new([7; 32], Duration::from_secs(60));
        let binding = Binding::of(&["alice", "tool"]);
        let sealed = rounds.seal(InputRequiredResult::from_request_state("step 2"), &binding).request_state.unwrap();
        assert_eq!(rounds.open(&sealed, &binding).unwrap(), "step 2");
        assert!(rounds.open(&sealed, &Binding::of(&["alicetool"])).is_err());
        assert!(rounds.open(&sealed, &Binding::of(&["bob", "tool"])).is_err());
        assert!(rounds.open(&format!("{sealed}x"), &binding).is_err());
        assert!(rounds.open("step 2", &binding).is_err());
    }
}
