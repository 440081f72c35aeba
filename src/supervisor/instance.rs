//! A running server: a handle that anybody may hold, and the task that owns the connection and the process.
//!
//! ```text
//! Starting ──> Ready ──> Stopping ──> Gone { why }
//!     └────────────────────────────────^
//! ```
//!
//! Dropping handles does nothing; an instance ends when it is told to, when nobody has used it for a while, or when its
//! server does. A call in flight when that happens fails, and learns why from [`Instance::gone`].

use std::{
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use rmcp::model::{ClientCapabilities, SubscriptionFilter};
use tokio::{
    sync::{broadcast, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    calls::InstanceEvent,
    connect::{Attempt, ConnectError, Connected, Connector},
    launch::Launch,
    questions::Asker,
    state::{Gone, ReadyUpstream, State},
    surface::Surface,
    tail::Tail,
    upstream::{Upstream, chain},
};
use crate::{
    audit::{Audit, Kind, Outcome, Status, Subject},
    caller::{Era, Link},
    ids::{Principal, ServerName, SessionId},
};

const EVENTS_MAX: usize = 256;
const LAST_LINES: usize = 8;

/// What an instance is started with.
pub struct Start {
    pub server: ServerName,
    /// The session it is for; none if it is shared.
    pub session: Option<SessionId>,
    pub principal: Principal,
    pub kind: &'static str,
    pub launch: Launch,
    /// The way to the client that has it started.
    pub link: Link,
    pub capabilities: ClientCapabilities,
    pub asker: Weak<dyn Asker>,
    pub era: Option<Era>,
}

/// A handle to a server that runs, ran, or is about to.
pub struct Instance {
    server: ServerName,
    state: watch::Receiver<State>,
    surface: watch::Receiver<Option<Arc<Surface>>>,
    events: broadcast::Sender<InstanceEvent>,
    stop: CancellationToken,
    in_use: Arc<InUse>,
    declared: ClientCapabilities,
    pub(super) tail: Tail,
}

struct InUse {
    users: AtomicUsize,
    called: AtomicBool,
    last: Mutex<Instant>,
}

impl InUse {
    fn unused_since(&self) -> Option<Instant> {
        (self.users.load(Ordering::Acquire) == 0).then(|| *self.last.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Keeps an instance from being stopped as idle.
pub struct Using(Arc<InUse>);

impl Drop for Using {
    fn drop(&mut self) {
        *self.0.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.0.users.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Instance {
    /// Starts the server in a task of its own. Returns at once.
    pub(crate) fn start(
        start: Start,
        label: String,
        connector: Arc<Connector>,
        audit: Audit,
        idle: Duration,
    ) -> Arc<Self> {
        let (state_sender, state) = watch::channel(State::Starting);
        let (surface_sender, surface) = watch::channel(None);
        let events = broadcast::Sender::new(EVENTS_MAX);
        let stop = CancellationToken::new();
        let tail = Tail::new(connector.limits.stderr_bytes_max, audit.redactor());
        let in_use = Arc::new(InUse {
            users: AtomicUsize::new(0),
            called: AtomicBool::new(false),
            last: Mutex::new(Instant::now()),
        });
        let instance = Arc::new(Self {
            server: start.server.clone(),
            state,
            surface,
            events: events.clone(),
            stop: stop.clone(),
            in_use: in_use.clone(),
            declared: start.capabilities.clone(),
            tail: tail.clone(),
        });
        let tasks = connector.tasks.clone();
        let task = Task {
            start,
            label,
            connector,
            audit,
            idle,
            state: state_sender,
            surface: surface_sender,
            events,
            stop,
            in_use,
            tail,
        };
        tasks.spawn(task.run());
        instance
    }

    #[must_use]
    pub fn server(&self) -> &ServerName {
        &self.server
    }

    /// Where it is in its life. One that was told to end is stopping, though its task may not have taken notice yet.
    #[must_use]
    pub fn state(&self) -> State {
        match self.state.borrow().clone() {
            State::Starting | State::Ready(_) if self.was_stopped() => State::Stopping,
            state => state,
        }
    }

    /// What the server offers, once it has said so.
    #[must_use]
    pub fn surface(&self) -> Option<Arc<Surface>> {
        self.surface.borrow().clone()
    }

    /// What happens at this instance that is not for one call. What it offers is up to date when a change is announced.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<InstanceEvent> {
        self.events.subscribe()
    }

    /// Keeps the instance from being stopped as idle, until the guard is dropped.
    #[must_use]
    pub fn using(&self) -> Using {
        self.in_use.users.fetch_add(1, Ordering::AcqRel);
        Using(self.in_use.clone())
    }

    /// Notes that a call is made of it.
    pub fn called(&self) {
        self.in_use.called.store(true, Ordering::Release);
    }

    /// Whether it was started for somebody who can answer less than `capabilities` say, and was never called.
    ///
    /// A server of the older era is told once what its client can do, and an instance may be started before the client is
    /// there. One that has not been called yet has nothing to lose by being started again.
    #[must_use]
    pub fn undersells(&self, capabilities: &ClientCapabilities) -> bool {
        let State::Ready(ReadyUpstream(upstream)) = self.state() else {
            return false;
        };
        let lacks = (capabilities.elicitation.is_some() && self.declared.elicitation.is_none())
            || (capabilities.sampling.is_some() && self.declared.sampling.is_none())
            || (capabilities.roots.is_some() && self.declared.roots.is_none());
        lacks && upstream.era() == Era::Legacy && !self.in_use.called.load(Ordering::Acquire)
    }

    /// Waits until the server can be called.
    ///
    /// # Errors
    ///
    /// When the instance is gone instead.
    pub async fn ready(&self) -> Result<Arc<Upstream>, Arc<Gone>> {
        let mut state = self.state.clone();
        loop {
            match &*state.borrow_and_update() {
                State::Ready(ready) => return Ok(ready.0.clone()),
                State::Gone(gone) => return Err(gone.clone()),
                State::Starting | State::Stopping => {}
            }
            if state.changed().await.is_err() {
                return Err(Arc::new(Gone::Stopped));
            }
        }
    }

    /// Has the instance end. Returns at once; [`Self::gone`] tells when it has.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Whether it was told to end.
    #[must_use]
    pub fn was_stopped(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Waits until the instance is no more.
    pub async fn gone(&self) -> Arc<Gone> {
        let mut state = self.state.clone();
        let gone = |state: &State| match state {
            State::Gone(gone) => Some(gone.clone()),
            _ => None,
        };
        match state.wait_for(|state| gone(state).is_some()).await {
            Ok(state) => gone(&state).unwrap_or_else(|| Arc::new(Gone::Stopped)),
            Err(_) => Arc::new(Gone::Stopped),
        }
    }
}

struct Task {
    start: Start,
    label: String,
    connector: Arc<Connector>,
    audit: Audit,
    idle: Duration,
    state: watch::Sender<State>,
    surface: watch::Sender<Option<Arc<Surface>>>,
    events: broadcast::Sender<InstanceEvent>,
    stop: CancellationToken,
    in_use: Arc<InUse>,
    tail: Tail,
}

impl Task {
    async fn run(self) {
        let gone = self.live().await;
        if let Gone::Ended { how, .. } = &gone {
            tracing::warn!(server.name = %self.start.server, how, "a server ended by itself");
        }
        let (status, error) = match &gone {
            Gone::Failed(_) => (None, None),
            Gone::Stopped | Gone::Idle => (Some(Status::Success), None),
            Gone::Ended { .. } => (Some(Status::Error), Some(gone.to_string())),
        };
        if let Some(status) = status
            && let Err(error) = self.audit.note(&self.subject(what_ended(&gone)), status, error.as_deref()).await
        {
            tracing::error!(error = %chain(&error), "the end of an instance was not recorded");
        }
        self.state.send_replace(State::Gone(Arc::new(gone)));
    }

    async fn live(&self) -> Gone {
        let record = match self.audit.open(&self.subject("start"), None).await {
            Ok(record) => record,
            Err(error) => return Gone::Failed(chain(&error)),
        };
        let started = tokio::select! {
            started = self.connect() => started,
            () = self.stop.cancelled() => Err("it was stopped while it started".to_owned()),
        };
        let outcome = match &started {
            Ok(_) => Outcome::without_result(Status::Success, None),
            Err(problem) => Outcome::without_result(Status::Error, Some(problem.into())),
        };
        let recorded = self.audit.close(record, outcome).await;
        let connected = match (started, recorded) {
            (Ok(connected), Ok(())) => connected,
            (Ok(connected), Err(error)) => {
                connected.stop(self.grace()).await;
                return Gone::Failed(chain(&error));
            }
            (Err(problem), _) => return Gone::Failed(problem),
        };
        self.state.send_replace(State::Ready(ReadyUpstream(connected.upstream.clone())));
        let why = self.serve(&connected.upstream).await;
        self.state.send_replace(State::Stopping);
        self.end(connected, why).await
    }

    async fn connect(&self) -> Result<Connected, String> {
        let attempt = Attempt {
            server: &self.start.server,
            launch: &self.start.launch,
            label: self.label.clone(),
            session: self.start.session.as_ref(),
            link: &self.start.link,
            capabilities: &self.start.capabilities,
            asker: self.start.asker.clone(),
            tail: &self.tail,
            era: self.start.era,
        };
        let connected = self.connector.connect(&attempt).await.map_err(|error: ConnectError| chain(&error))?;
        let limit = self.connector.limits.start();
        match tokio::time::timeout(limit, connected.upstream.surface()).await {
            Ok(Ok(surface)) => {
                self.surface.send_replace(Some(Arc::new(surface)));
                self.listen(&connected.upstream).await;
                Ok(connected)
            }
            Ok(Err(error)) => {
                let problem = format!("it could not say what it offers: {}", chain(&error));
                Err(self.give_up(connected, problem).await)
            }
            Err(_) => {
                let problem = format!("it did not say what it offers within {} s", limit.as_secs());
                Err(self.give_up(connected, problem).await)
            }
        }
    }

    async fn give_up(&self, connected: Connected, problem: String) -> String {
        let tail = connected.backing.as_ref().map(|backing| backing.tail().clone());
        connected.stop(self.grace()).await;
        let stderr = last_words(tail.as_ref());
        if stderr.is_empty() { problem } else { format!("{problem}; its last words were:\n{stderr}") }
    }

    /// A server of the newer era announces changes only to who listens for them.
    async fn listen(&self, upstream: &Upstream) {
        if upstream.era() != Era::Modern {
            return;
        }
        let capabilities = &upstream.info().capabilities;
        let announces = |changed: Option<bool>| changed == Some(true);
        let mut filter = SubscriptionFilter::builder();
        let mut any = false;
        if announces(capabilities.tools.as_ref().and_then(|tools| tools.list_changed)) {
            (filter, any) = (filter.tools_list_changed(), true);
        }
        if announces(capabilities.prompts.as_ref().and_then(|prompts| prompts.list_changed)) {
            (filter, any) = (filter.prompts_list_changed(), true);
        }
        if announces(capabilities.resources.as_ref().and_then(|resources| resources.list_changed)) {
            (filter, any) = (filter.resources_list_changed(), true);
        }
        if any && let Err(error) = upstream.listen(filter.build()).await {
            tracing::debug!(server.name = %self.start.server, error = %chain(&error), "the server announces no changes");
        }
    }

    async fn serve(&self, upstream: &Arc<Upstream>) -> Why {
        let mut events = upstream.events();
        loop {
            let idle_at =
                self.in_use.unused_since().map_or_else(|| Instant::now() + self.idle, |since| since + self.idle);
            tokio::select! {
                () = self.stop.cancelled() => return Why::Stopped,
                () = upstream.closed() => return Why::Ended,
                () = tokio::time::sleep_until(idle_at) => {
                    if self.in_use.unused_since().is_some_and(|since| since + self.idle <= Instant::now()) {
                        return Why::Idle;
                    }
                }
                event = events.recv() => match event {
                    Ok(event) => self.happened(upstream, event).await,
                    Err(broadcast::error::RecvError::Lagged(_)) => self.happened(upstream, InstanceEvent::ToolsChanged).await,
                    Err(broadcast::error::RecvError::Closed) => return Why::Ended,
                },
            }
        }
    }

    async fn happened(&self, upstream: &Upstream, event: InstanceEvent) {
        let changes_surface = matches!(
            event,
            InstanceEvent::ToolsChanged | InstanceEvent::PromptsChanged | InstanceEvent::ResourcesChanged
        );
        if changes_surface {
            match upstream.surface().await {
                Ok(surface) => {
                    self.surface.send_replace(Some(Arc::new(surface)));
                }
                Err(error) => {
                    tracing::warn!(server.name = %self.start.server, error = %chain(&error), "a server changed its lists and does not say how");
                }
            }
        }
        let _ = self.events.send(event);
    }

    async fn end(&self, connected: Connected, why: Why) -> Gone {
        let tail = connected.backing.as_ref().map(|backing| backing.tail().clone());
        let status = connected.stop(self.grace()).await;
        match why {
            Why::Stopped => Gone::Stopped,
            Why::Idle => Gone::Idle,
            Why::Ended => {
                let how = match status {
                    Some(status) => format!("it exited with {status}"),
                    None => "it closed the connection".to_owned(),
                };
                Gone::Ended { how, stderr: last_words(tail.as_ref()) }
            }
        }
    }

    fn grace(&self) -> Duration {
        self.connector.limits.stop()
    }

    fn subject<'a>(&'a self, name: &'a str) -> Subject<'a> {
        Subject {
            kind: Kind::Instance,
            parent: None,
            session: self.start.session.as_ref(),
            principal: &self.start.principal,
            client: None,
            server: Some(&self.start.server),
            name,
            trace: None,
        }
    }
}

#[derive(Clone, Copy)]
enum Why {
    Stopped,
    Idle,
    Ended,
}

fn what_ended(gone: &Gone) -> &'static str {
    match gone {
        Gone::Failed(_) => "start",
        Gone::Stopped => "stop",
        Gone::Idle => "idle stop",
        Gone::Ended { .. } => "exit",
    }
}

fn last_words(tail: Option<&Tail>) -> String {
    tail.map(|tail| tail.last(LAST_LINES)).unwrap_or_default()
}
