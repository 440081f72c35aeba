//! A signed statement of how far the log went: kept elsewhere, it shows later whether the log was cut off behind it.
//!
//! Signed with Ed25519 (RFC 8032) over the text of [`Checkpoint::statement`]. The key belongs to the data folder.

use std::fmt::Write as _;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use data_encoding::HEXLOWER_PERMISSIVE as HEX;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// The first line of what is signed: it means nothing else.
const PURPOSE: &str = "mcp-broker audit checkpoint 1";

/// That the log's event `seq` had this hash. Binary values are hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    pub seq: i64,
    pub hash: String,
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    pub public_key: String,
    pub signature: String,
}

/// A checkpoint proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    #[error("the checkpoint's `{0}` is not hexadecimal of the right length")]
    Malformed(&'static str),
    #[error("the checkpoint is not what was signed, or was not signed with the key that it names")]
    Signature,
    #[error("the checkpoint is signed with another key than `{0}`")]
    OtherKey(String),
}

/// Signs checkpoints.
pub struct Signer {
    key: Ed25519KeyPair,
}

impl Signer {
    /// The signer whose private key is `seed`.
    ///
    /// # Errors
    ///
    /// When the cryptographic library refuses it.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, aws_lc_rs::error::KeyRejected> {
        Ok(Self { key: Ed25519KeyPair::from_seed_unchecked(seed)? })
    }

    /// What checkpoints are verified with, in hexadecimal.
    #[must_use]
    pub fn public_key(&self) -> String {
        HEX.encode(self.key.public_key().as_ref())
    }

    #[must_use]
    pub fn sign(&self, seq: i64, hash: &[u8; 32], at: Timestamp) -> Checkpoint {
        let hash = HEX.encode(hash);
        let mut checkpoint = Checkpoint { seq, hash, at, public_key: self.public_key(), signature: String::new() };
        checkpoint.signature = HEX.encode(self.key.sign(checkpoint.statement().as_bytes()).as_ref());
        checkpoint
    }
}

impl Checkpoint {
    /// The signed text: four lines, the last with its end.
    fn statement(&self) -> String {
        let mut statement = format!("{PURPOSE}\n");
        let _ = writeln!(statement, "event {}\nhash {}\nat {}", self.seq, self.hash, self.at);
        statement
    }

    /// The event's number and hash, if the signature is right and by `key` (hexadecimal) where one is given.
    ///
    /// # Errors
    ///
    /// When it is not.
    pub fn verified(&self, key: Option<&str>) -> Result<(i64, [u8; 32]), CheckpointError> {
        if let Some(key) = key
            && !key.eq_ignore_ascii_case(&self.public_key)
        {
            return Err(CheckpointError::OtherKey(key.to_owned()));
        }
        let bytes = |name, text: &str| HEX.decode(text.as_bytes()).map_err(|_| CheckpointError::Malformed(name));
        let hash = bytes("hash", &self.hash)?.try_into().map_err(|_| CheckpointError::Malformed("hash"))?;
        let (key, signature) = (bytes("public_key", &self.public_key)?, bytes("signature", &self.signature)?);
        UnparsedPublicKey::new(&ED25519, key)
            .verify(self.statement().as_bytes(), &signature)
            .map_err(|_| CheckpointError::Signature)?;
        Ok((self.seq, hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_signed_is_verified() {
        let signer = Signer::from_seed(&[7; 32]).unwrap();
        let good = signer.sign(41, &[3; 32], Timestamp::UNIX_EPOCH);
        assert_eq!(good.verified(None), Ok((41, [3; 32])));
        assert_eq!(good.verified(Some(&signer.public_key())), Ok((41, [3; 32])));
        let other = Signer::from_seed(&[8; 32]).unwrap().public_key();
        assert_eq!(good.verified(Some(&other)), Err(CheckpointError::OtherKey(other.clone())));
        let forged = [
            Checkpoint { seq: 40, ..good.clone() },
            Checkpoint { hash: HEX.encode(&[4; 32]), ..good.clone() },
            Checkpoint { public_key: other, ..good.clone() },
        ];
        for forged in forged {
            assert_eq!(forged.verified(None), Err(CheckpointError::Signature));
        }
        assert_eq!(
            Checkpoint { hash: "xy".to_owned(), ..good }.verified(None),
            Err(CheckpointError::Malformed("hash"))
        );
    }
}
