//! What a request may use.

use std::sync::Arc;

use rmcp::model::Tool;

use crate::{
    ids::{Principal, SessionId},
    session::Session,
    tools::{Seat, Tools},
};

/// What a request may use, as whoever let it in found out. Travels with the request.
#[derive(Clone)]
pub enum Access {
    /// The shared endpoint, for this principal.
    Shared(Principal),
    /// One session, by its URL or its token.
    Session(Arc<Session>, Principal),
}

tokio::task_local! {
    /// The access of the HTTP request that this task serves.
    static CURRENT: Access;
}

impl Access {
    /// Runs `serving` as the service of a request that has this access.
    pub async fn scope<F: Future>(self, serving: F) -> F::Output {
        CURRENT.scope(self, serving).await
    }

    /// The access of the request that this task serves, where rmcp asks without saying for which.
    pub(super) fn current() -> Option<Self> {
        CURRENT.try_with(Clone::clone).ok()
    }

    #[must_use]
    pub fn principal(&self) -> &Principal {
        match self {
            Self::Shared(principal) | Self::Session(_, principal) => principal,
        }
    }

    /// Whether requests with this access may be on a connection of `principal` in `session`.
    #[must_use]
    pub fn may_use(&self, session: &SessionId, principal: &Principal) -> bool {
        match self {
            Self::Shared(own) => own == principal,
            Self::Session(own, _) => own.id() == session,
        }
    }

    /// Where its calls are made from, for a client that is not connected.
    pub(super) fn seat(&self) -> Seat {
        match self {
            Self::Session(session, _) => Seat::Fixed(session.clone()),
            Self::Shared(principal) => Seat::Handle(principal.clone()),
        }
    }

    /// The tool of this name that a client with this access is listed, as far as that is known without looking it up.
    pub(super) fn tool(&self, tools: &Tools, name: &str) -> Option<Tool> {
        match self {
            Self::Session(session, _) => tools.tool(session, name),
            Self::Shared(principal) => tools.tool(&*tools.sessions().of_principal_in_memory(principal)?, name),
        }
    }
}
