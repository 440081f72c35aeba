//! Connections of clients of revisions up to 2025-11-25, by their `Mcp-Session-Id`.
//!
//! rmcp holds the open ones. What they were opened with is in the database, so that one can be brought back when its client
//! comes again after it was put to sleep, or after the broker was started again. A connection without an open stream is put
//! to sleep after a while, and sooner when many are awake: it costs memory, and its client does not notice when it is
//! brought back.

mod awake;

use std::{
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{Stream, future::BoxFuture};
use rmcp::{
    model::{ClientJsonRpcMessage, InitializeRequestParams, ServerJsonRpcMessage},
    transport::{
        WorkerTransport,
        streamable_http_server::session::{
            RestoreOutcome, ServerSseMessage, SessionId as ConnectionName, SessionManager, SessionState, SessionStore,
            SessionStoreError,
            local::{
                LocalSessionManager, LocalSessionManagerError, LocalSessionWorker, SessionConfig, create_local_session,
            },
        },
    },
};

use crate::{
    endpoint::{Access, ConnectionId, QuickCalls},
    ids::SessionId,
    lifecycle::Tasks,
    session::Sessions,
    store::{StoreError, connections::ConnectionRow, sessions::SessionKind},
};
use awake::{Awake, Owner, Use};

/// A connection with no open stream is put to sleep after this long.
const ASLEEP_AFTER: Duration = Duration::from_secs(300);

const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Every connection that is awake.
pub(super) struct Connections {
    inner: LocalSessionManager,
    awake: Awake,
    quick: Arc<QuickCalls>,
    sessions: Arc<Sessions>,
}

impl Connections {
    pub(super) fn new(quick: Arc<QuickCalls>, sessions: Arc<Sessions>, idle_max: usize, tasks: &Tasks) -> Arc<Self> {
        let mut inner = LocalSessionManager::default();
        inner.session_config = config();
        let awake = Awake::new(idle_max);
        let connections = Arc::new(Self { inner, awake: awake.clone(), quick, sessions });
        let (weak, stopping) = (Arc::downgrade(&connections), tasks.stopping_token());
        tasks.spawn(async move {
            loop {
                tokio::select! {
                    () = awake.crowded() => {}
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                    () = stopping.cancelled() => return,
                }
                let Some(connections) = Weak::upgrade(&weak) else { return };
                connections.put_idle_to_sleep().await;
            }
        });
        connections
    }

    /// Notes a request to the connection `id`, if `access` may use it. A connection nobody knows may be asked for: the
    /// answer will be that there is none.
    pub(super) async fn enter(&self, id: &str, access: &Access) -> Result<Option<Use>, StoreError> {
        let using = self.awake.enter(&id.into());
        let owner = match self.awake.owner(id) {
            Some(owner) => owner,
            None => match self.sessions.connection(id).await? {
                Some(row) => {
                    let owner = Owner { session: row.session, principal: row.principal };
                    self.awake.is_for(id, owner.clone());
                    owner
                }
                None => return Ok(Some(using)),
            },
        };
        Ok(access.may_use(&owner.session, &owner.principal).then_some(using))
    }

    async fn put_idle_to_sleep(&self) {
        let handles: Vec<_> = {
            let mut open = self.inner.sessions.write().await;
            let sleepers = self.awake.take_sleepers(ASLEEP_AFTER);
            sleepers.iter().for_each(|id| self.quick.close(id));
            sleepers.iter().filter_map(|id| open.remove(id)).collect()
        };
        for handle in handles {
            if let Err(error) = handle.close().await {
                tracing::debug!(%error, "a connection had ended before it was put to sleep");
            }
        }
    }

    /// Counts a stream as open until it is dropped.
    fn counted<S>(&self, id: &ConnectionName, stream: S) -> Counted<S> {
        Counted { stream: Box::pin(stream), _using: self.awake.enter(id) }
    }
}

/// rmcp would end a connection on which nothing is said for a while, a running call or not; sleeping is decided here.
fn config() -> SessionConfig {
    let mut config = SessionConfig::default();
    config.keep_alive = None;
    config
}

impl SessionManager for Connections {
    type Error = LocalSessionManagerError;
    type Transport = WorkerTransport<LocalSessionWorker>;

    async fn create_session(&self) -> Result<(ConnectionName, Self::Transport), Self::Error> {
        let id = ConnectionName::from(SessionId::random().as_str());
        let (handle, worker) = create_local_session(id.clone(), self.inner.session_config.clone());
        self.inner.sessions.write().await.insert(id.clone(), handle);
        self.awake.woke(id.clone());
        Ok((id, WorkerTransport::spawn(worker)))
    }

    async fn initialize_session(
        &self,
        id: &ConnectionName,
        mut message: ClientJsonRpcMessage,
    ) -> Result<ServerJsonRpcMessage, Self::Error> {
        message.insert_extension(ConnectionId(id.clone()));
        self.inner.initialize_session(id, message).await
    }

    async fn has_session(&self, id: &ConnectionName) -> Result<bool, Self::Error> {
        self.inner.has_session(id).await
    }

    async fn close_session(&self, id: &ConnectionName) -> Result<(), Self::Error> {
        if self.awake.is_end_of_sleeper(id) {
            return Ok(());
        }
        self.quick.close(id);
        self.awake.ended(id);
        self.inner.close_session(id).await
    }

    async fn create_stream(
        &self,
        id: &ConnectionName,
        message: ClientJsonRpcMessage,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        let stream = self.inner.create_stream(id, message).await?;
        Ok(self.counted(id, stream))
    }

    async fn accept_message(&self, id: &ConnectionName, message: ClientJsonRpcMessage) -> Result<(), Self::Error> {
        self.quick.cancel(id, &message);
        self.inner.accept_message(id, message).await
    }

    async fn create_standalone_stream(
        &self,
        id: &ConnectionName,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        let stream = self.inner.create_standalone_stream(id).await?;
        Ok(self.counted(id, stream))
    }

    async fn resume(
        &self,
        id: &ConnectionName,
        last_event_id: String,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        let stream = self.inner.resume(id, last_event_id).await?;
        Ok(self.counted(id, stream))
    }

    async fn restore_session(&self, id: ConnectionName) -> Result<RestoreOutcome<Self::Transport>, Self::Error> {
        let outcome = self.inner.restore_session(id.clone()).await?;
        self.awake.woke(id);
        Ok(outcome)
    }
}

/// A stream that is counted while it is open.
struct Counted<S> {
    stream: Pin<Box<S>>,
    _using: Use,
}

impl<S: Stream> Stream for Counted<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
        self.stream.as_mut().poll_next(context)
    }
}

/// What connections were opened with, in the database.
pub(super) struct ConnectionStore {
    connections: Arc<Connections>,
}

impl ConnectionStore {
    pub(super) fn new(connections: Arc<Connections>) -> Self {
        Self { connections }
    }

    async fn load(&self, id: &str) -> Result<Option<SessionState>, SessionStoreError> {
        let Some(row) = self.connections.sessions.connection(id).await? else { return Ok(None) };
        let Some(text) = row.initialize else { return Ok(None) };
        let params: InitializeRequestParams = serde_json::from_str(&text)?;
        Ok(Some(SessionState::new(params)))
    }

    async fn keep(&self, id: &str, state: &SessionState) -> Result<(), SessionStoreError> {
        let sessions = &self.connections.sessions;
        let Some(row) = sessions.connection(id).await? else { return Ok(()) };
        let initialize = Some(serde_json::to_string(&state.initialize_params)?);
        let owner = Owner { session: row.session.clone(), principal: row.principal.clone() };
        sessions.put_connection(id, ConnectionRow { initialize, ..row }).await?;
        self.connections.awake.is_for(id, owner);
        Ok(())
    }

    /// The client has closed the connection. A session that nothing else leads to has ended with it.
    async fn forget(&self, id: &str) -> Result<(), SessionStoreError> {
        let sessions = &self.connections.sessions;
        let Some(row) = sessions.connection(id).await? else { return Ok(()) };
        sessions.delete_connection(id).await?;
        if let Some(session) = sessions.get(&row.session).await?
            && session.kind() == SessionKind::Connection
        {
            sessions.end(&row.session, "closed by its client").await?;
        }
        Ok(())
    }
}

/// Written out because the trait is one of `async-trait`'s.
impl SessionStore for ConnectionStore {
    fn load<'a, 'b, 'c>(&'a self, id: &'b str) -> BoxFuture<'c, Result<Option<SessionState>, SessionStoreError>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        Box::pin(Self::load(self, id))
    }

    fn store<'a, 'b, 'd, 'c>(
        &'a self,
        id: &'b str,
        state: &'d SessionState,
    ) -> BoxFuture<'c, Result<(), SessionStoreError>>
    where
        'a: 'c,
        'b: 'c,
        'd: 'c,
        Self: 'c,
    {
        Box::pin(self.keep(id, state))
    }

    fn delete<'a, 'b, 'c>(&'a self, id: &'b str) -> BoxFuture<'c, Result<(), SessionStoreError>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        Box::pin(self.forget(id))
    }
}
