//! How a session's servers stand, and bringing them up.

use std::{sync::Arc, time::Duration};

use serde::Serialize;
use utoipa::ToSchema;

use super::{Context, Tools, needs::Needs, reach::key_of};
use crate::{
    caller::Caller,
    catalog::{Entry, spelling},
    session::Session,
};

/// How a server of a session stands.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ServerStanding {
    pub name: String,
    /// `starting`, `ready`, `stopping`, `stopped` (the next call starts it), `failed`, `needs` or `gone` (from the catalog).
    pub state: &'static str,
    /// What it still needs before it can run.
    pub needs: Vec<Need>,
    /// What is said of config that was set in the session and that the catalog does not name: it may have no effect.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unknown_config: Vec<String>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// The commit it runs, if it comes from a Git repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The last lines of its standard error.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub log: String,
}

/// Something that a server still needs.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Need {
    /// `secret`, `config` or `runtime`.
    pub kind: &'static str,
    /// The secret's name, what is wrong with the config, or what has to be on the broker's machine.
    pub what: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
}

impl Need {
    fn list(needs: Needs) -> Vec<Self> {
        let plain = |kind: &'static str| move |what: String| Self { kind, what, description: String::new() };
        let secrets = needs.secrets.into_iter();
        let secrets = secrets.map(|secret| Self { kind: "secret", what: secret.name, description: secret.description });
        secrets
            .chain(needs.config.into_iter().map(plain("config")))
            .chain(needs.runtime.into_iter().map(plain("runtime")))
            .collect()
    }
}

impl Tools {
    /// How every server of the session stands. Starts nothing.
    #[must_use]
    pub fn standings(&self, session: &Session) -> Vec<ServerStanding> {
        session.servers().iter().map(|added| self.context.standing(session, &added.server)).collect()
    }

    /// Starts the session's servers that can run and are not up, and waits until each is up or has failed, for at most
    /// `limit`. Says whether all came that far.
    pub async fn bring_up(&self, session: &Arc<Session>, caller: &Caller, limit: Duration) -> bool {
        let context = &self.context;
        context.sessions.touch(session);
        let can_run = |server: &crate::ids::ServerName| {
            context.entry(session, server).is_some_and(|entry| context.needs_now(session, &entry).is_empty())
        };
        let servers = session.servers().into_iter().map(|added| added.server).filter(can_run);
        let starts = servers.map(|server| async move {
            if let Err(error) = context.reach(session, &server, caller).await {
                tracing::info!(server.name = %server, %error, "a server of a session does not start");
            }
        });
        tokio::time::timeout(limit, futures_util::future::join_all(starts)).await.is_ok()
    }
}

impl Context {
    fn needs_now(&self, session: &Session, entry: &Entry) -> Needs {
        self.needs(Some(session.id()), entry, &self.config_of(session, entry), &[])
    }

    fn standing(&self, session: &Session, server: &crate::ids::ServerName) -> ServerStanding {
        let name = server.to_string();
        let Some(entry) = self.entry(session, server) else {
            return ServerStanding {
                name,
                state: "gone",
                needs: Vec::new(),
                unknown_config: Vec::new(),
                problem: None,
                commit: None,
                log: String::new(),
            };
        };
        let standing = self.supervisor.standing(&key_of(session, &entry));
        let needs = Need::list(self.needs_now(session, &entry));
        // What runs has what it needed when it was started.
        let lacks = !needs.is_empty() && matches!(standing.state, "stopped" | "failed");
        ServerStanding {
            name,
            state: if lacks { "needs" } else { standing.state },
            needs,
            unknown_config: spelling::unknown(&entry, &session.config(server)),
            problem: standing.problem,
            commit: self.run_for(&entry).ok().and_then(|run| self.supervisor.commit_of(run)),
            log: standing.log,
        }
    }
}
