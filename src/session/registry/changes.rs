//! Changes of a session that are made to their end, also when whoever asked for them hangs up: what is committed is what is
//! in memory.

use std::sync::Arc;

use super::{NewSession, Sessions, SessionsError, subject};
use crate::{
    audit::Status,
    clock::Timestamp,
    ids::{Principal, SessionId, TokenHash},
    session::Session,
    store::sessions::SessionKind,
};

impl Sessions {
    /// The session of that name, made if there is none.
    ///
    /// # Errors
    ///
    /// As [`Self::create`].
    pub async fn named(self: &Arc<Self>, name: &str, principal: Principal) -> Result<Arc<Session>, SessionsError> {
        let (sessions, name) = (self.clone(), name.to_owned());
        let finding = async move {
            let _one_at_a_time = sessions.loading.lock().await;
            if let Some(id) = sessions.store.session_named(&name).await?
                && let Some(session) = sessions.load(&id).await?
            {
                if !session.is_over(sessions.clock.now()) {
                    return Ok(session);
                }
                sessions.mark_ended(&session, "expired").await?;
                // Not waited for: meanwhile nobody could find a session that is not in memory, or make one.
                let at = sessions.clone();
                sessions.tasks.spawn(async move { at.stop_what_ran(&session).await });
            }
            let kind = SessionKind::Named;
            sessions.create_locked(NewSession { name: Some(name), ..NewSession::of(kind, principal) }).await
        };
        self.to_the_end(finding).await
    }

    /// Ends a session: its servers stop, its clients are told, its history stays. Says whether there was one.
    ///
    /// # Errors
    ///
    /// When it could not be committed: then it has not ended.
    pub async fn end(self: &Arc<Self>, id: &SessionId, reason: &'static str) -> Result<bool, SessionsError> {
        let (sessions, id) = (self.clone(), id.clone());
        let ending = async move {
            let session = match sessions.in_memory(&id) {
                Some(session) => session,
                None => {
                    let _one_at_a_time = sessions.loading.lock().await;
                    let Some(session) = sessions.load(&id).await? else { return Ok(false) };
                    session
                }
            };
            sessions.mark_ended(&session, reason).await?;
            sessions.stop_what_ran(&session).await;
            Ok(true)
        };
        self.to_the_end(ending).await
    }

    /// Commits that a session has ended. Nothing leads to it from here on; what runs for it has to be stopped.
    pub(super) async fn mark_ended(&self, session: &Session, reason: &'static str) -> Result<(), SessionsError> {
        let id = session.id();
        self.audit.note(&subject(id, session.principal(), reason), Status::Success, None).await?;
        self.store.end_session(id, reason, self.clock.now()).await?;
        let mut live = self.lock();
        live.remove(id);
        session.close();
        Ok(())
    }

    /// Stops what ran for a session that has ended. Its secrets are known until then: servers may write them at the last.
    pub(super) async fn stop_what_ran(&self, session: &Session) {
        self.supervisor.end_session(session.id()).await;
        self.secrets.forget_session(session.id());
    }

    /// Gives a session a name, in place of the one it may have.
    ///
    /// # Errors
    ///
    /// When the name cannot be used or is taken, the session has ended, or it could not be committed.
    pub async fn rename(self: &Arc<Self>, session: &Arc<Session>, name: String) -> Result<(), SessionsError> {
        let (sessions, session) = (self.clone(), session.clone());
        let renaming = async move {
            let _one_at_a_time = sessions.loading.lock().await;
            if session.name().as_ref() == Some(&name) {
                return Ok(());
            }
            sessions.check_name(&name).await?;
            let what = format!("rename to {name}");
            sessions.audit.note(&subject(session.id(), session.principal(), &what), Status::Success, None).await?;
            if !sessions.store.rename_session(session.id(), name.clone()).await? {
                return Err(SessionsError::Ended);
            }
            session.put_name(name);
            Ok(())
        };
        self.to_the_end(renaming).await
    }

    /// Gives a session a new bearer token; the one it had opens it no more.
    ///
    /// # Errors
    ///
    /// When it has ended, or it could not be committed.
    pub async fn give_token(self: &Arc<Self>, session: &Arc<Session>, token: TokenHash) -> Result<(), SessionsError> {
        let (sessions, session) = (self.clone(), session.clone());
        let giving = async move {
            let _one_at_a_time = sessions.loading.lock().await;
            sessions.audit.note(&subject(session.id(), session.principal(), "resume"), Status::Success, None).await?;
            if !sessions.store.set_session_token(session.id(), token).await? {
                return Err(SessionsError::Ended);
            }
            // One that has ended since stays without.
            if let Some(session) = sessions.lock().get(session.id()) {
                session.put_token(token);
            }
            Ok(())
        };
        self.to_the_end(giving).await
    }

    /// Has a session end `ttl` seconds from now, sooner or later than it would have.
    ///
    /// # Errors
    ///
    /// When the operator's limits do not allow that, it has ended, or it could not be committed.
    pub async fn extend(self: &Arc<Self>, session: &Arc<Session>, ttl: u64) -> Result<Timestamp, SessionsError> {
        let (sessions, session) = (self.clone(), session.clone());
        let extending = async move {
            let _one_at_a_time = sessions.loading.lock().await;
            let at = sessions.expiry(ttl, session.created_at(), sessions.clock.now())?;
            let what = format!("extend to {at}");
            sessions.audit.note(&subject(session.id(), session.principal(), &what), Status::Success, None).await?;
            if !sessions.store.set_session_expiry(session.id(), at).await? {
                return Err(SessionsError::Ended);
            }
            session.put_expiry(at);
            sessions.ends_sooner.notify_one();
            Ok(at)
        };
        self.to_the_end(extending).await
    }

    async fn to_the_end<T: Send + 'static>(
        &self,
        change: impl Future<Output = Result<T, SessionsError>> + Send + 'static,
    ) -> Result<T, SessionsError> {
        self.tasks.spawn(change).await.map_err(|_| SessionsError::Unfinished)?
    }
}
