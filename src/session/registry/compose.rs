//! The services of a Compose file, as servers of a session.

use super::Sessions;
use crate::{
    compose::Definition,
    ids::ServerName,
    secrets::{Scope, SecretValue, SetSecretError},
    session::Session,
    store::{
        StoreError,
        compose::TakenServices,
        sessions::{Activation, SessionServerRow},
    },
};

/// A file's services cannot be a session's servers. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    #[error("a variable of the Compose file's service `{service}` cannot be kept")]
    Variable {
        service: ServerName,
        #[source]
        source: SetSecretError,
    },
    #[error("the services of the Compose file could not be kept")]
    Store(#[from] StoreError),
}

impl Sessions {
    /// Commits the services of a Compose file as servers of a session, in place of those that were, with the values that
    /// came from elsewhere, and tells the session's clients. Gives back the servers that are gone or are others now: what
    /// runs of them has to be stopped.
    ///
    /// Only one may do that in a session at a time ([`Session::taking`]).
    ///
    /// # Errors
    ///
    /// When a value cannot be kept, or it could not be committed.
    pub async fn take_compose(
        &self,
        session: &Session,
        definitions: Vec<Definition>,
    ) -> Result<Vec<ServerName>, TakeError> {
        let before = session.compose_entries();
        let (scope, at) = (Scope::Session(session.id().clone()), self.clock.now());
        let mut values: Vec<(String, SecretValue)> = Vec::new();
        let mut sealed = Vec::new();
        let mut servers: Vec<SessionServerRow> = Vec::new();
        let mut stale = Vec::new();
        for definition in &definitions {
            let entry = definition.entry();
            let mut is_same = before.iter().any(|known| {
                known.name == entry.name
                    && known.runs.first().map(|run| known.fingerprint(run))
                        == entry.runs.first().map(|run| entry.fingerprint(run))
            });
            for (name, value) in definition.sealed_values() {
                if self.secrets.get(Some(session.id()), &name).is_some_and(|known| known.reveal() == value) {
                    continue;
                }
                is_same = false;
                let value = SecretValue::from(value.to_owned());
                let refused = |source| TakeError::Variable { service: definition.name.clone(), source };
                sealed.push(self.secrets.sealed(&scope, &name, &value).map_err(refused)?);
                values.push((name, value));
            }
            if !is_same {
                stale.push(definition.name.clone());
            }
            servers.push(SessionServerRow {
                server: definition.name.clone(),
                prefix: session.prefix_beside(&definition.name, &servers),
                activate: session.server(&definition.name).map_or(Activation::All, |added| added.activate),
                added_at: at,
            });
        }
        let is_kept =
            |name: &str| definitions.iter().any(|definition| definition.sealed_values().any(|(kept, _)| kept == name));
        let had = before.iter().flat_map(|entry| &entry.secrets).map(|secret| secret.name.clone());
        let forgotten: Vec<String> = had.filter(|name| !is_kept(name)).collect();
        let is_gone = |name: &ServerName| definitions.iter().all(|definition| definition.name != *name);
        let gone: Vec<ServerName> = before.iter().map(|entry| entry.name.clone()).filter(is_gone).collect();
        let taken = TakenServices {
            definitions: definitions.clone(),
            servers: servers.clone(),
            secrets: sealed,
            forgotten: forgotten.clone(),
            gone: gone.clone(),
            at,
        };
        self.store.take_compose(session.id(), taken).await?;
        self.secrets.take_over(&scope, values, &forgotten);
        session.put_compose(&definitions);
        for server in &gone {
            session.remove_server(server);
        }
        for row in servers {
            session.put_server(row, None);
        }
        stale.extend(gone);
        Ok(stale)
    }
}
