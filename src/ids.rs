//! The names things go by, each a type of its own.
//!
//! Identifiers that are also secrets by obscurity (a session's id is in its URL) carry 160 random bits; bearer tokens
//! carry 256. Both come from the operating system.

use std::{fmt, str::FromStr};

use data_encoding::{BASE32_DNSSEC, BASE64URL_NOPAD, HEXLOWER};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A session: the broker's own durable object, whatever connection it is reached by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SessionId(Box<str>);

const SESSION_ID_BYTES: usize = 20;
const SESSION_ID_CHARACTERS: usize = 32;

impl SessionId {
    /// A new id: 160 random bits in lower-case base 32 (RFC 4648, extended hex alphabet).
    #[must_use]
    pub fn random() -> Self {
        Self(BASE32_DNSSEC.encode(&random::<SESSION_ID_BYTES>()).into())
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The text is not a session's id.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a session id ({SESSION_ID_CHARACTERS} characters of 0-9 and a-v)")]
pub struct InvalidSessionId(String);

impl FromStr for SessionId {
    type Err = InvalidSessionId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let well_formed =
            text.len() == SESSION_ID_CHARACTERS && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'v'));
        if well_formed { Ok(Self(text.into())) } else { Err(InvalidSessionId(text.chars().take(64).collect())) }
    }
}

impl TryFrom<String> for SessionId {
    type Error = InvalidSessionId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<SessionId> for String {
    fn from(id: SessionId) -> Self {
        id.0.into()
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A server, by the name its catalog entry has.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServerName(Box<str>);

const SERVER_NAME_BYTES_MAX: usize = 200;

impl ServerName {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The text cannot name a server.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` cannot name a server: 1 to {SERVER_NAME_BYTES_MAX} bytes, no control characters, no spaces at the ends")]
pub struct InvalidServerName(String);

impl FromStr for ServerName {
    type Err = InvalidServerName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let well_formed = !text.is_empty()
            && text.len() <= SERVER_NAME_BYTES_MAX
            && text.trim() == text
            && !text.chars().any(char::is_control);
        if well_formed { Ok(Self(text.into())) } else { Err(InvalidServerName(text.escape_debug().take(80).collect())) }
    }
}

impl TryFrom<String> for ServerName {
    type Error = InvalidServerName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ServerName> for String {
    fn from(name: ServerName) -> Self {
        name.0.into()
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// One recorded call. Ordered by time (UUID version 7, RFC 9562).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CallId(uuid::Uuid);

impl CallId {
    #[must_use]
    pub fn new() -> Self {
        Self(uuid::Uuid::now_v7())
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Reads back what [`Self::as_bytes`] gave; `None` when it is not 16 bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        uuid::Uuid::from_slice(bytes).ok().map(Self)
    }
}

impl Default for CallId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Who is asking.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Principal {
    /// Whoever started the process that speaks MCP on standard input and output, or a command on this machine.
    Local,
    /// Whoever holds the broker's own token.
    Administrator,
    /// Anybody who reaches a listener that was started with `--no-auth`.
    Anonymous,
    /// Whoever holds the token of this session.
    Session(SessionId),
}

impl fmt::Display for Principal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => formatter.write_str("local"),
            Self::Administrator => formatter.write_str("administrator"),
            Self::Anonymous => formatter.write_str("anonymous"),
            Self::Session(id) => write!(formatter, "session:{id}"),
        }
    }
}

/// The text names no principal.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a principal")]
pub struct InvalidPrincipal(String);

impl FromStr for Principal {
    type Err = InvalidPrincipal;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "local" => Ok(Self::Local),
            "administrator" => Ok(Self::Administrator),
            "anonymous" => Ok(Self::Anonymous),
            other => other
                .strip_prefix("session:")
                .and_then(|id| id.parse().ok())
                .map(Self::Session)
                .ok_or_else(|| InvalidPrincipal(other.to_owned())),
        }
    }
}

/// A bearer token. Printed only where it is handed out; everything else sees its [`TokenHash`].
#[derive(Clone)]
pub struct Token(zeroize::Zeroizing<String>);

const TOKEN_BYTES: usize = 32;

impl Token {
    /// A new token: 256 random bits in URL-safe base 64.
    #[must_use]
    pub fn random() -> Self {
        Self(zeroize::Zeroizing::new(BASE64URL_NOPAD.encode(&random::<TOKEN_BYTES>())))
    }

    /// The token itself, for the one who is to hold it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    #[must_use]
    pub fn hash(&self) -> TokenHash {
        TokenHash::of(&self.0)
    }
}

impl From<String> for Token {
    fn from(text: String) -> Self {
        Self(zeroize::Zeroizing::new(text))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token(…)")
    }
}

/// What is kept of a token: enough to recognise it, not to use it.
///
/// The tokens hashed here have 256 random bits, so a plain SHA-256 cannot be searched backwards, and comparing hashes
/// says nothing about how much of a guess was right.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    #[must_use]
    pub fn of(presented: &str) -> Self {
        Self(Sha256::digest(presented.as_bytes()).into())
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Reads back what [`Self::as_bytes`] gave; `None` when it is not 32 bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "TokenHash({}…)", HEXLOWER.encode(&self.0[..4]))
    }
}

/// A JSON object in one form, whatever the order in which its members were written (RFC 8259, section 4: there is none).
#[must_use]
pub fn canonical(object: &serde_json::Map<String, serde_json::Value>) -> String {
    let mut value = serde_json::Value::Object(object.clone());
    value.sort_all_objects();
    value.to_string()
}

/// The first `characters` hexadecimal digits of the SHA-256 of `text`: short, stable, not secret.
#[must_use]
pub fn fingerprint(text: &str, characters: usize) -> String {
    let mut digits = HEXLOWER.encode(&Sha256::digest(text.as_bytes()));
    digits.truncate(characters);
    digits
}

/// Bytes from the operating system.
///
/// # Panics
///
/// When the operating system has no randomness to give: nothing that needs it may go on without.
#[must_use]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    #[expect(clippy::expect_used, reason = "an id or key that can be guessed is worse than no broker")]
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_id_reads_back_and_nothing_else_does() {
        let id = SessionId::random();
        assert_eq!(id.as_str().parse::<SessionId>().unwrap(), id);
        for text in ["", "short", &"z".repeat(32), "../../../../etc/passwd", &"0".repeat(33)] {
            assert!(text.parse::<SessionId>().is_err(), "{text}");
        }
    }

    #[test]
    fn principals_read_back() {
        for principal in
            [Principal::Local, Principal::Administrator, Principal::Anonymous, Principal::Session(SessionId::random())]
        {
            assert_eq!(principal.to_string().parse::<Principal>().unwrap(), principal);
        }
        assert!("root".parse::<Principal>().is_err());
    }

    #[test]
    fn a_token_is_not_printed_by_accident() {
        let token = Token::random();
        assert!(!format!("{token:?}").contains(token.reveal()));
    }

    #[test]
    fn server_names_have_no_control_characters_and_no_outer_spaces() {
        for text in ["", " a", "a\n", "a\u{202e}\u{7}b", &"x".repeat(201)] {
            assert!(text.parse::<ServerName>().is_err(), "{text:?}");
        }
        assert!("io.github.owner/name".parse::<ServerName>().is_ok());
    }
}
