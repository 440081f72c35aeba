//! The MCP server that one client is connected to.
//!
//! One [`Endpoint`] serves one connection of a client of a revision up to 2025-11-25, one stdio stream, or one request of
//! revision 2026-07-28. It finds the client's seat, hands calls to [`Tools`], and passes on what happens meanwhile. It keeps
//! nothing of its own that has to last.

mod access;
mod attend;
mod errors;
mod parked;
mod push;
mod quick;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use rmcp::{
    RoleServer, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, ClientCapabilities, CompleteRequestParams, CompleteResult, ErrorCode,
        ErrorData, GetPromptRequestParams, GetPromptResponse, Implementation, InitializeRequestParams,
        InitializeResult, ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult, ListToolsResult,
        LoggingLevel, MetaObject, PaginatedRequestParams, ProtocolVersion, ReadResourceRequestParams,
        ReadResourceResponse, RequestMetaObject, ServerCapabilities, ServerConfig, SetLevelRequestMethod,
        SetLevelRequestParams, SubscribeRequestParams, SubscriptionFilter, Tool, UnsubscribeRequestParams,
    },
    service::{NotificationContext, RequestContext, SubscriptionContext},
    transport::streamable_http_server::session::SessionRestoreMarker,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    caller::{Caller, Era, Link},
    ids::Principal,
    session::{ConnectedClient, Session},
    store::{connections::ConnectionRow, sessions::SessionKind, subscriptions::SubscriptionRow},
    supervisor::upstream::implementation,
    tools::{Operation, Reply, Seat, Tools, follow::Following},
};
pub use access::Access;
use errors::{only_page, session_error, unavailable, wrong_kind};
pub use parked::Parked;
pub use quick::{PlainCall, QuickCalls, Taken};

/// The `Mcp-Session-Id` of the connection a message came on. Travels with `initialize`.
#[derive(Clone)]
pub struct ConnectionId(pub Arc<str>);

const INSTRUCTIONS: &str = "This endpoint gives you tools on demand. When you have no tool for something, search with \
mcp-find, turn a server on with mcp-add, then use its tools; if they are not listed to you, call them with mcp-exec. If a \
server needs a secret or config, the answer says so: set config with mcp-config-set, ask the user for secrets. Remove what \
you no longer need with mcp-remove. What you add is yours alone and lasts as long as this session.";

/// Serves one client.
pub struct Endpoint {
    tools: Tools,
    parked: Arc<Parked>,
    /// What a connection that is not HTTP may use.
    access: Option<Access>,
    /// Where a connection over HTTP has its calls begun.
    quick: Option<Arc<QuickCalls>>,
    connection: OnceLock<Connection>,
}

/// A client that stays connected, bound to its session.
struct Connection {
    /// Its `Mcp-Session-Id`, over HTTP.
    id: Option<Arc<str>>,
    _line: Option<Arc<quick::Line>>,
    session: Arc<Session>,
    principal: Principal,
    following: Mutex<HashMap<String, Following>>,
    _connected: ConnectedClient,
    stop: CancellationToken,
    _stop_with_me: DropGuard,
}

/// Whose a connection is.
struct Bound {
    id: Option<Arc<str>>,
    session: Arc<Session>,
    principal: Principal,
    /// What its client followed before it was brought back.
    followed: Vec<SubscriptionRow>,
}

impl Endpoint {
    /// An endpoint whose requests bring their [`Access`] with them.
    #[must_use]
    pub fn for_http(tools: Tools, parked: Arc<Parked>, quick: Arc<QuickCalls>) -> Self {
        Self { tools, parked, access: None, quick: Some(quick), connection: OnceLock::new() }
    }

    /// An endpoint for a stream that has one session.
    #[must_use]
    pub fn for_stream(tools: Tools, parked: Arc<Parked>, session: Arc<Session>) -> Self {
        let access = Some(Access::Session(session, Principal::Local));
        Self { tools, parked, access, quick: None, connection: OnceLock::new() }
    }

    fn access(&self, context: &RequestContext<RoleServer>) -> Result<Access, ErrorData> {
        if let Some(access) = &self.access {
            return Ok(access.clone());
        }
        let parts = context.extensions.get::<http::request::Parts>();
        parts
            .and_then(|parts| parts.extensions.get::<Access>())
            .cloned()
            .ok_or_else(|| ErrorData::internal_error("this request came in by no known way", None))
    }

    /// The client's seat, and who it is.
    fn seat(&self, context: &RequestContext<RoleServer>) -> Result<(Seat, Principal), ErrorData> {
        if let Some(connection) = self.connection.get() {
            return Ok((Seat::Fixed(connection.session.clone()), connection.principal.clone()));
        }
        let access = self.access(context)?;
        Ok((access.seat(), access.principal().clone()))
    }

    fn caller(&self, context: &RequestContext<RoleServer>, seat: &Seat, principal: Principal, link: Link) -> Caller {
        let era = era_of(context);
        let log_level = match (era, seat) {
            (Era::Modern, _) => context.meta.log_level(),
            (Era::Legacy, Seat::Fixed(session)) => session.log_level(),
            (Era::Legacy, Seat::Handle(_)) => None,
        };
        let who = Who {
            principal,
            client: context.client_info().map(|info| client_name(&info)),
            era,
            capabilities: context.client_capabilities().unwrap_or_default(),
            log_level,
        };
        who.caller(&context.meta, link)
    }

    /// The caller of something that is over quickly and asks nothing.
    fn quick_caller(&self, context: &RequestContext<RoleServer>) -> Result<(Seat, Caller), ErrorData> {
        let (seat, principal) = self.seat(context)?;
        let mut caller = self.caller(context, &seat, principal, Link::closed());
        caller.cancelled = context.ct.clone();
        if let Seat::Fixed(session) = &seat {
            self.tools.sessions().touch(session);
        }
        Ok((seat, caller))
    }

    async fn run(&self, operation: Operation, context: RequestContext<RoleServer>) -> Result<Reply, ErrorData> {
        let era = era_of(&context);
        let reply = attend::run(self, operation, context).await?;
        Ok(attend::shaped(reply, era))
    }

    /// Finds or makes the session of a connection that begins or is brought back.
    async fn bind(&self, context: &RequestContext<RoleServer>) -> Result<Bound, ErrorData> {
        let sessions = self.tools.sessions();
        let restored = context.extensions.get::<SessionRestoreMarker>().map(|marker| marker.id.to_string());
        if let Some(id) = restored {
            let gone = || ErrorData::new(ErrorCode::INVALID_REQUEST, "the session has ended: connect again", None);
            let row = sessions.connection(&id).await.map_err(unavailable)?.ok_or_else(gone)?;
            let session = sessions.get(&row.session).await.map_err(unavailable)?.ok_or_else(gone)?;
            let followed = sessions.subscriptions(&id).await.map_err(unavailable)?;
            return Ok(Bound { id: Some(id.into()), session, principal: row.principal, followed });
        }
        let access = self.access(context)?;
        let principal = access.principal().clone();
        let session = match access {
            Access::Session(session, _) => session,
            Access::Shared(principal) => {
                sessions.create(SessionKind::Connection, principal, None, None).await.map_err(session_error)?
            }
        };
        let id = context.extensions.get::<ConnectionId>().map(|ConnectionId(id)| id.clone());
        if let Some(id) = &id {
            let row = ConnectionRow { session: session.id().clone(), principal: principal.clone(), initialize: None };
            sessions.put_connection(id, row).await.map_err(unavailable)?;
        }
        Ok(Bound { id, session, principal, followed: Vec::new() })
    }
}

/// Which era a request belongs to.
fn era_of(context: &RequestContext<RoleServer>) -> Era {
    let modern = context.protocol_version().is_some_and(|version| version >= ProtocolVersion::V_2026_07_28);
    if modern { Era::Modern } else { Era::Legacy }
}

/// Who makes a call, apart from the call.
struct Who {
    principal: Principal,
    client: Option<Arc<str>>,
    era: Era,
    capabilities: ClientCapabilities,
    log_level: Option<LoggingLevel>,
}

impl Who {
    /// The caller of a request with this `_meta`.
    fn caller(self, meta: &RequestMetaObject, link: Link) -> Caller {
        let Self { principal, client, era, capabilities, log_level } = self;
        Caller {
            principal,
            client,
            era,
            capabilities,
            log_level,
            wants_progress: meta.get_progress_token().is_some(),
            meta: passed_on(meta),
            cancelled: CancellationToken::new(),
            link,
        }
    }
}

/// A client program's name and version.
fn client_name(info: &Implementation) -> Arc<str> {
    format!("{} {}", info.name, info.version).into()
}

/// How keys in `_meta` begin that are between a client and the server it is connected to.
const OWN: &str = "io.modelcontextprotocol/";

/// The part of a request's `_meta` that is not between this client and the broker alone.
fn passed_on(given: &RequestMetaObject) -> MetaObject {
    let mut meta = MetaObject::new();
    for (key, value) in given.iter() {
        if key != "progressToken" && !key.starts_with(OWN) {
            meta.insert(key.clone(), value.clone());
        }
    }
    meta
}

impl ServerHandler for Endpoint {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_tool_list_changed()
            .enable_prompts()
            .enable_prompts_list_changed()
            .enable_resources()
            .enable_resources_list_changed()
            .enable_resources_subscribe()
            .enable_completions()
            .enable_logging()
            .build();
        let session = match (self.connection.get(), &self.access) {
            (Some(connection), _) => Some(&connection.session),
            (None, Some(Access::Session(session, _))) => Some(session),
            (None, _) => None,
        };
        let instructions = match session.and_then(|session| session.offer()) {
            Some(offer) => format!("{INSTRUCTIONS}\n\n{}", offer.notice()),
            None => INSTRUCTIONS.to_owned(),
        };
        ServerConfig::new(capabilities).with_server_info(implementation()).with_instructions(instructions)
    }

    async fn initialize(
        &self,
        request: InitializeRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<InitializeResult, ErrorData> {
        context.peer.set_peer_info(request.clone());
        let Bound { id, session, principal, followed } = self.bind(&context).await?;
        self.tools.sessions().touch(&session);
        let mut following = HashMap::new();
        for row in followed {
            let uri = row.uri.clone();
            following.extend(self.tools.follow_again(&session, row).await.map(|again| (uri, again)));
        }
        let line = self.quick.as_ref().zip(id.clone());
        let line = line.map(|(quick, id)| quick.line(id, session.clone(), principal.clone(), &request));
        let stop = CancellationToken::new();
        let connection = Connection {
            id,
            _line: line,
            _connected: session.connect(context.peer.clone(), request.capabilities.clone()),
            session: session.clone(),
            principal: principal.clone(),
            following: Mutex::new(following),
            _stop_with_me: stop.clone().drop_guard(),
            stop,
        };
        if self.connection.set(connection).is_err() {
            return Err(ErrorData::invalid_request("this connection is initialized already", None));
        }
        let seat = Seat::Fixed(session.clone());
        let mut caller = self.caller(&context, &seat, principal, Link::closed());
        caller.capabilities = request.capabilities.clone();
        self.tools.warm(&session, &caller);
        self.negotiate_initialize(&request)
    }

    async fn on_initialized(&self, context: NotificationContext<RoleServer>) {
        if let Some(connection) = self.connection.get() {
            push::start(&self.tools, &connection.session, context.peer, connection.stop.clone());
            self.tools.ask_to_agree(&connection.session);
        }
    }

    /// Asked before a request's handler runs, to check its `Mcp-Param-*` headers against the tool's schema.
    fn get_tool(&self, name: &str) -> Option<Tool> {
        match self.connection.get() {
            Some(connection) => self.tools.tool(&connection.session, name),
            None => Access::current()?.tool(&self.tools, name),
        }
    }

    async fn list_tools(
        &self,
        params: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        only_page(params.as_ref())?;
        let (seat, caller) = self.quick_caller(&context)?;
        let tools = self.tools.list_tools(&seat, &caller).await.map_err(session_error)?;
        Ok(attend::complete(ListToolsResult::with_all_items(tools), caller.era))
    }

    async fn call_tool(
        &self,
        params: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        match self.run(Operation::Tool(Box::new(params)), context).await? {
            Reply::CallToolResult(result) => Ok(result.into()),
            Reply::InputRequiredResult(asked) => Ok(asked.into()),
            _ => Err(wrong_kind()),
        }
    }

    async fn list_prompts(
        &self,
        params: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        only_page(params.as_ref())?;
        let (seat, caller) = self.quick_caller(&context)?;
        let prompts = self.tools.list_prompts(&seat, &caller).await.map_err(session_error)?;
        Ok(attend::complete(ListPromptsResult::with_all_items(prompts), caller.era))
    }

    async fn get_prompt(
        &self,
        params: GetPromptRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        match self.run(Operation::Prompt(params), context).await? {
            Reply::GetPromptResult(result) => Ok(result.into()),
            Reply::InputRequiredResult(asked) => Ok(asked.into()),
            _ => Err(wrong_kind()),
        }
    }

    async fn list_resources(
        &self,
        params: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        only_page(params.as_ref())?;
        let (seat, caller) = self.quick_caller(&context)?;
        let resources = self.tools.list_resources(&seat, &caller).await.map_err(session_error)?;
        Ok(attend::complete(ListResourcesResult::with_all_items(resources), caller.era))
    }

    async fn list_resource_templates(
        &self,
        params: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        only_page(params.as_ref())?;
        let (seat, caller) = self.quick_caller(&context)?;
        let templates = self.tools.list_resource_templates(&seat, &caller).await.map_err(session_error)?;
        Ok(attend::complete(ListResourceTemplatesResult::with_all_items(templates), caller.era))
    }

    async fn read_resource(
        &self,
        params: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        match self.run(Operation::Resource(params), context).await? {
            Reply::ReadResourceResult(result) => Ok(result.into()),
            Reply::InputRequiredResult(asked) => Ok(asked.into()),
            _ => Err(wrong_kind()),
        }
    }

    async fn complete(
        &self,
        params: CompleteRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        match self.run(Operation::Completion(params), context).await? {
            Reply::CompleteResult(result) => Ok(result),
            _ => Err(wrong_kind()),
        }
    }

    async fn set_level(
        &self,
        params: SetLevelRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        if era_of(&context) == Era::Modern {
            return Err(ErrorData::method_not_found::<SetLevelRequestMethod>());
        }
        let (seat, _) = self.quick_caller(&context)?;
        if let Seat::Fixed(session) = seat {
            self.tools.set_log_level(&session, params.level).await;
        }
        Ok(())
    }

    async fn subscribe(
        &self,
        params: SubscribeRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        let (seat, caller) = self.quick_caller(&context)?;
        let (Seat::Fixed(session), Some(connection)) = (seat, self.connection.get()) else {
            return Err(ErrorData::invalid_request("there is nobody to tell of changes on this connection", None));
        };
        let following = self.tools.follow(&session, &params.uri, &caller).await;
        let (following, row) = following.map_err(|problem| ErrorData::resource_not_found(problem, None))?;
        if let Some(id) = &connection.id {
            self.tools.sessions().put_subscription(id, row).await.map_err(unavailable)?;
        }
        connection.following().insert(params.uri, following);
        Ok(())
    }

    async fn unsubscribe(
        &self,
        params: UnsubscribeRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        if let Some(connection) = self.connection.get() {
            if let Some(id) = &connection.id {
                self.tools.sessions().delete_subscription(id, &params.uri).await.map_err(unavailable)?;
            }
            connection.following().remove(&params.uri);
        }
        Ok(())
    }

    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        Some(requested.clone())
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        let (seat, caller) = self.quick_caller(context.request_context())?;
        push::listen(&self.tools, &seat, &caller, &context).await
    }

    async fn on_roots_list_changed(&self, _context: NotificationContext<RoleServer>) {
        if let Some(connection) = self.connection.get() {
            self.tools.roots_changed(&connection.session).await;
        }
    }
}

impl Connection {
    fn following(&self) -> std::sync::MutexGuard<'_, HashMap<String, Following>> {
        self.following.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
