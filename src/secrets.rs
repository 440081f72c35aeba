//! Named secrets: the only place that sees a value, besides the environment of the instance it is for.
//!
//! Values are sealed with XChaCha20-Poly1305 under one key, which is in `master.key` in the data folder (mode 0600) or in
//! the environment variable `MCP_BROKER_MASTER_KEY`. A secret is the operator's, for every session, or belongs to one
//! session, which then sees its own value instead. Nothing here is printed, logged or recorded; [`Redactor`] takes values
//! out of text that is.

mod key;
mod redactor;

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    path::Path,
    sync::{PoisonError, RwLock},
};

use chacha20poly1305::{
    KeyInit as _, XChaCha20Poly1305,
    aead::{Aead as _, Payload},
};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use key::Key;
pub use key::MasterKeyError;
pub use redactor::{REDACTED, Redactor};

use crate::{
    clock::SharedClock,
    ids::{SessionId, random},
    store::{SealedSecret, Store, StoreError},
};

/// A secret's name: `1` to `200` bytes without control characters.
pub const NAME_BYTES_MAX: usize = 200;

/// A value longer than this is refused.
pub const VALUE_BYTES_MAX: usize = 64 << 10;

/// A secret's value. Prints as nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(Zeroizing<String>);

impl SecretValue {
    /// The value itself, for the instance it is for.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for SecretValue {
    fn from(value: String) -> Self {
        Self(Zeroizing::new(value))
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SecretValue(…)")
    }
}

/// Whom a secret is for. The operator's comes first in order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    EverySession,
    Session(SessionId),
}

impl Scope {
    fn column(&self) -> String {
        match self {
            Self::EverySession => String::new(),
            Self::Session(id) => id.to_string(),
        }
    }

    fn from_column(column: &str) -> Option<Self> {
        if column.is_empty() { Some(Self::EverySession) } else { column.parse().ok().map(Self::Session) }
    }
}

/// Values that were replaced or taken back and are kept out of texts still: servers that were started with them may run.
const FORMER_MAX: usize = 64;

/// Values in the clear, in memory only.
#[derive(Default)]
struct Opened {
    values: BTreeMap<(Scope, String), SecretValue>,
    /// The oldest first.
    former: VecDeque<SecretValue>,
}

impl Opened {
    fn put(&mut self, scope: Scope, name: String, value: SecretValue) {
        let is_new = self.values.get(&(scope.clone(), name.clone())) != Some(&value);
        let former = self.values.insert((scope, name), value);
        self.retire(former.filter(|_| is_new));
    }

    fn remove(&mut self, scope: Scope, name: &str) -> bool {
        let former = self.values.remove(&(scope, name.to_owned()));
        let was_there = former.is_some();
        self.retire(former);
        was_there
    }

    fn retire(&mut self, former: Option<SecretValue>) {
        self.former.extend(former);
        while self.former.len() > FORMER_MAX {
            self.former.pop_front();
        }
    }
}

/// Every secret of the data folder.
pub struct Secrets {
    store: Store,
    clock: SharedClock,
    key: Key,
    cipher: XChaCha20Poly1305,
    opened: RwLock<Opened>,
    redactor: Redactor,
}

/// The secrets cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenSecretsError {
    #[error(transparent)]
    Key(#[from] MasterKeyError),
    #[error("could not read the secrets")]
    Store(#[from] StoreError),
    #[error(
        "the secret `{name}` was sealed with another key: give the key it was sealed with (MCP_BROKER_MASTER_KEY, or \
         master.key in the data folder)"
    )]
    WrongKey { name: String },
}

/// A secret cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum SetSecretError {
    #[error("a secret's name has 1 to {NAME_BYTES_MAX} bytes and no control characters")]
    Name,
    #[error("the secret `{name}` is empty: give its value on standard input")]
    Empty { name: String },
    #[error("the secret `{name}` is longer than {VALUE_BYTES_MAX} bytes")]
    TooLong { name: String },
    #[error("could not keep the secret")]
    Store(#[from] StoreError),
}

impl Secrets {
    /// Opens every secret in `store` with the data folder's key, making one if there is none yet.
    ///
    /// # Errors
    ///
    /// When the key cannot be read, or is not the one the secrets were sealed with.
    pub async fn open(folder: &Path, store: Store, clock: SharedClock) -> Result<Self, OpenSecretsError> {
        let key = key::load(folder)?;
        let cipher = XChaCha20Poly1305::new(&(*key).into());
        let mut opened = Opened::default();
        for sealed in store.secrets().await? {
            let value =
                unseal(&cipher, &sealed).ok_or_else(|| OpenSecretsError::WrongKey { name: sealed.name.clone() })?;
            if let Some(scope) = Scope::from_column(&sealed.scope) {
                opened.values.insert((scope, sealed.name), value);
            }
        }
        let secrets = Self { store, clock, key, cipher, opened: RwLock::new(opened), redactor: Redactor::default() };
        secrets.change(|_| ());
        Ok(secrets)
    }

    /// Keeps a secret, replacing an earlier value.
    ///
    /// # Errors
    ///
    /// When name or value are not acceptable, or it could not be committed.
    pub async fn set(&self, scope: Scope, name: &str, value: SecretValue) -> Result<(), SetSecretError> {
        let sealed = self.sealed(&scope, name, &value)?;
        self.store.put_secret(sealed, self.clock.now()).await?;
        self.change(|opened| opened.put(scope, name.to_owned(), value));
        Ok(())
    }

    /// Seals a value, for who commits it together with something else and has it taken over then.
    ///
    /// # Errors
    ///
    /// When name or value are not acceptable.
    pub(crate) fn sealed(
        &self,
        scope: &Scope,
        name: &str,
        value: &SecretValue,
    ) -> Result<SealedSecret, SetSecretError> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
            return Err(SetSecretError::Name);
        }
        let named = || name.to_owned();
        if value.reveal().is_empty() {
            return Err(SetSecretError::Empty { name: named() });
        }
        if value.reveal().len() > VALUE_BYTES_MAX {
            return Err(SetSecretError::TooLong { name: named() });
        }
        Ok(self.seal(scope, name, value))
    }

    /// Takes over what has been committed for one scope: values that were kept, and names that were forgotten.
    pub(crate) fn take_over(&self, scope: &Scope, kept: Vec<(String, SecretValue)>, forgotten: &[String]) {
        self.change(|opened| {
            for name in forgotten {
                opened.remove(scope.clone(), name);
            }
            for (name, value) in kept {
                opened.put(scope.clone(), name, value);
            }
        });
    }

    /// Holds a secret of the operator's for as long as the broker runs. It is not kept.
    pub fn hold(&self, name: &str, value: SecretValue) {
        self.change(|opened| opened.put(Scope::EverySession, name.to_owned(), value));
    }

    /// Forgets a secret; says whether there was one.
    ///
    /// # Errors
    ///
    /// When it could not be committed.
    pub async fn remove(&self, scope: Scope, name: &str) -> Result<bool, StoreError> {
        self.store.delete_secret(&scope.column(), name).await?;
        Ok(self.change(|opened| opened.remove(scope, name)))
    }

    /// Forgets what a session that has ended kept, when nothing runs for it any more; the rows went with the session.
    pub fn forget_session(&self, session: &SessionId) {
        let scope = Scope::Session(session.clone());
        self.change(|opened| opened.values.retain(|(owner, _), _| *owner != scope));
    }

    /// The value a session sees under `name`: its own, else the operator's.
    #[must_use]
    pub fn get(&self, session: Option<&SessionId>, name: &str) -> Option<SecretValue> {
        let opened = self.opened.read().unwrap_or_else(PoisonError::into_inner);
        session
            .and_then(|session| opened.values.get(&(Scope::Session(session.clone()), name.to_owned())))
            .or_else(|| opened.values.get(&(Scope::EverySession, name.to_owned())))
            .cloned()
    }

    /// The names of the operator's secrets.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let opened = self.opened.read().unwrap_or_else(PoisonError::into_inner);
        opened.values.keys().filter(|(scope, _)| *scope == Scope::EverySession).map(|(_, name)| name.clone()).collect()
    }

    /// The names of the secrets that a session has for itself.
    #[must_use]
    pub fn names_of(&self, session: &SessionId) -> Vec<String> {
        let scope = Scope::Session(session.clone());
        let opened = self.opened.read().unwrap_or_else(PoisonError::into_inner);
        opened.values.keys().filter(|(owner, _)| *owner == scope).map(|(_, name)| name.clone()).collect()
    }

    /// What takes secret values out of text.
    #[must_use]
    pub fn redactor(&self) -> Redactor {
        self.redactor.clone()
    }

    /// A key for another purpose, which says nothing about the one that secrets are sealed with.
    #[must_use]
    pub fn derive_key(&self, purpose: &str) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update(b"mcp-broker/derived-key/v1");
        digest.update(*self.key);
        digest.update(purpose.as_bytes());
        digest.finalize().into()
    }

    /// Changes what is known, and with it what is kept out of texts.
    fn change<T>(&self, change: impl FnOnce(&mut Opened) -> T) -> T {
        let mut opened = self.opened.write().unwrap_or_else(PoisonError::into_inner);
        let outcome = change(&mut opened);
        self.redactor.replace(opened.values.values().chain(&opened.former).cloned().collect());
        outcome
    }

    fn seal(&self, scope: &Scope, name: &str, value: &SecretValue) -> SealedSecret {
        let scope = scope.column();
        let nonce = random::<24>();
        let payload = Payload { msg: value.reveal().as_bytes(), aad: &bound_to(&scope, name) };
        #[expect(clippy::expect_used, reason = "sealing fails only for messages of many gigabytes; values are bounded")]
        let ciphertext = self.cipher.encrypt(&nonce.into(), payload).expect("a bounded value can be sealed");
        SealedSecret { scope, name: name.to_owned(), nonce, ciphertext }
    }
}

fn unseal(cipher: &XChaCha20Poly1305, sealed: &SealedSecret) -> Option<SecretValue> {
    let payload = Payload { msg: &sealed.ciphertext, aad: &bound_to(&sealed.scope, &sealed.name) };
    let plain = cipher.decrypt(&sealed.nonce.into(), payload).ok()?;
    String::from_utf8(plain).ok().map(SecretValue::from)
}

/// A row's scope and name are authenticated with its value, so that rows cannot be exchanged.
fn bound_to(scope: &str, name: &str) -> Vec<u8> {
    [scope.as_bytes(), &[0], name.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::SystemClock, lifecycle::Tasks, store::Durability};
    use std::sync::Arc;

    async fn open(folder: &Path) -> Result<Secrets, OpenSecretsError> {
        let (tasks, _crashes) = Tasks::new();
        let store = Store::open(folder, Durability::default(), &tasks).await.unwrap();
        Secrets::open(folder, store, Arc::new(SystemClock)).await
    }

    #[tokio::test]
    async fn a_value_survives_and_is_not_in_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let secrets = open(folder.path()).await.unwrap();
        secrets.set(Scope::EverySession, "github.token", "hunter2-hunter2".to_owned().into()).await.unwrap();
        secrets.store.close().await;
        let again = open(folder.path()).await.unwrap();
        assert_eq!(again.get(None, "github.token").unwrap().reveal(), "hunter2-hunter2");
        for file in std::fs::read_dir(folder.path()).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            assert!(!bytes.windows(7).any(|window| window == b"hunter2"));
        }
    }

    #[tokio::test]
    async fn a_session_sees_its_own_value_and_no_other_sessions() {
        let folder = tempfile::tempdir().unwrap();
        let secrets = open(folder.path()).await.unwrap();
        let (mine, other) = (SessionId::random(), SessionId::random());
        secrets.set(Scope::Session(mine.clone()), "key", "session".to_owned().into()).await.unwrap();
        assert!(secrets.get(Some(&other), "key").is_none());
        secrets.set(Scope::EverySession, "key", "operator".to_owned().into()).await.unwrap();
        assert_eq!(secrets.get(Some(&mine), "key").unwrap().reveal(), "session");
        assert_eq!(secrets.get(Some(&other), "key").unwrap().reveal(), "operator");
        secrets.forget_session(&mine);
        assert_eq!(secrets.get(Some(&mine), "key").unwrap().reveal(), "operator");
    }

    #[tokio::test]
    async fn what_a_server_may_still_have_is_kept_out_of_texts() {
        let folder = tempfile::tempdir().unwrap();
        let secrets = open(folder.path()).await.unwrap();
        let redacted = |text: &str| secrets.redactor().redact(text).into_owned();
        secrets.set(Scope::EverySession, "key", "first-value".to_owned().into()).await.unwrap();
        secrets.set(Scope::EverySession, "key", "second-value".to_owned().into()).await.unwrap();
        assert_eq!(redacted("first-value second-value"), "[redacted] [redacted]");
        assert!(secrets.remove(Scope::EverySession, "key").await.unwrap());
        assert_eq!(redacted("first-value second-value"), "[redacted] [redacted]");
        for number in 0..FORMER_MAX {
            secrets.hold("other", format!("other-value-{number}").into());
        }
        assert_eq!(redacted("first-value second-value"), "first-value [redacted]", "no more of them than that");
    }

    #[tokio::test]
    async fn another_key_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let secrets = open(folder.path()).await.unwrap();
        secrets.set(Scope::EverySession, "key", "value".to_owned().into()).await.unwrap();
        secrets.store.close().await;
        std::fs::remove_file(folder.path().join(key::FILE)).unwrap();
        let error = open(folder.path()).await.err().unwrap();
        assert!(matches!(error, OpenSecretsError::WrongKey { .. }), "{error}");
    }

    #[tokio::test]
    async fn unacceptable_secrets_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let secrets = open(folder.path()).await.unwrap();
        for (name, value) in [("", "x"), ("a\nb", "x"), ("a", ""), ("a", &"x".repeat(VALUE_BYTES_MAX + 1))] {
            assert!(secrets.set(Scope::EverySession, name, value.to_owned().into()).await.is_err(), "{name:?}");
        }
    }
}
