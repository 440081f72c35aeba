//! Making a session with its servers, for programs.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Json,
    extract::{
        Query, State,
        rejection::{JsonRejection, QueryRejection},
    },
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, StatusCode};
use rmcp::model::CallToolRequestParams;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::{
    super::{ApiError, ApiState},
    document::CodeTool,
};
use crate::{
    audit::Kind,
    caller::Caller,
    catalog::source::shown,
    ids::{Principal, ServerName, Token},
    session::{NewSession, Session},
    store::sessions::SessionKind,
    tools::{
        Call, ManagementTool, Operation, Seat,
        standing::ServerStanding,
        wanted::{WantedProblem, WantedServer},
    },
};

/// How long `?wait=ready` waits unless it says so, and at most.
const WAIT_SECONDS: u64 = 120;
const WAIT_SECONDS_MAX: u64 = 600;

/// Whether an answer waits for servers.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Wait {
    /// `ready`: the answer comes when every server that can run is up.
    #[param(inline)]
    wait: Option<WaitFor>,
    /// The longest to wait, in seconds; the answer then says how far the servers are.
    #[param(minimum = 1, maximum = 600)]
    timeout: Option<u64>,
}

#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum WaitFor {
    Ready,
}

impl Wait {
    /// How long to wait, if that is wanted.
    pub(super) fn limit(&self) -> Result<Option<Duration>, ApiError> {
        let seconds = self.timeout.unwrap_or(WAIT_SECONDS);
        if !(1..=WAIT_SECONDS_MAX).contains(&seconds) {
            let message = format!("`timeout` is in seconds, from 1 to {WAIT_SECONDS_MAX}");
            return Err(ApiError::new(StatusCode::BAD_REQUEST, message));
        }
        Ok(self.wait.map(|WaitFor::Ready| Duration::from_secs(seconds)))
    }
}

/// A session to be made.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct WantedSession {
    /// A name to find it by; there is one of a name.
    name: Option<String>,
    /// Text to find it by; several may have it.
    label: Option<String>,
    /// Seconds after which it ends by itself, used or not. Without it, it ends when nobody used it for long enough.
    #[schema(minimum = 1)]
    ttl: Option<u64>,
    /// Servers by name, each with its config and secrets, in any of the spellings `github-official`, `githubOfficial` and
    /// `github_official`. A key `github/OWNER/REPOSITORY` or a Git URL takes `runCmd`, `installCmd`, `ref` and `envs`.
    mcp: Map<String, Value>,
    /// The same with names and keys as the catalog has them, and an answer only when all of them are up.
    servers: Map<String, Value>,
}

/// A session that was made.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SessionMade {
    id: String,
    name: Option<String>,
    label: Option<String>,
    /// The session's own MCP endpoint; null while the broker listens on no address.
    mcp_url: Option<String>,
    /// Opens that endpoint and nothing else. It is not shown again.
    mcp_token: String,
    /// When it ends by itself.
    expires_at: Option<String>,
    /// Whether every server is up.
    ready: bool,
    servers: Vec<ServerStanding>,
}

/// What a new session is to be.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) name: Option<String>,
    pub(super) label: Option<String>,
    pub(super) ttl: Option<u64>,
    pub(super) servers: Vec<Wanted>,
    pub(super) mcp: Map<String, Value>,
    pub(super) code_tools: Vec<CodeTool>,
}

/// A server that a new session is to have.
pub(super) struct Wanted {
    pub(super) name: String,
    pub(super) config: Value,
    pub(super) activate: Option<Value>,
}

/// A session that nobody was told of yet. Dropping it ends the session: whoever wanted it has hung up.
pub(super) struct Made {
    state: ApiState,
    session: Arc<Session>,
    token: Token,
    told: bool,
}

impl Drop for Made {
    fn drop(&mut self) {
        if self.told {
            return;
        }
        let (state, session) = (self.state.clone(), self.session.clone());
        let tasks = state.inner.tools.tasks().clone();
        tasks.spawn(async move { state.take_back(&session, "nobody waited for it").await });
    }
}

/// Makes a session: with all of its servers, or not at all.
#[utoipa::path(
    post,
    path = "/sessions",
    tag = "sessions",
    operation_id = "session_create",
    params(Wait),
    request_body = WantedSession,
    responses((status = 201, description = "The session", body = SessionMade), (status = 422, description = "Not all of its servers can be added, and there is no session", body = super::super::openapi::ErrorBody)),
)]
pub(super) async fn create(
    State(state): State<ApiState>,
    Extension(principal): Extension<Principal>,
    headers: HeaderMap,
    wait: Result<Query<Wait>, QueryRejection>,
    body: Result<Json<WantedSession>, JsonRejection>,
) -> Result<Response, ApiError> {
    let Query(wait) = wait?;
    let limit = wait.limit()?;
    // With the status that says whether it is JSON at all.
    let body = body.map_err(|rejection| ApiError::new(rejection.status(), rejection.body_text()))?;
    let Json(WantedSession { name, label, ttl, mcp, servers }) = body;
    let servers = servers.into_iter().map(|(name, config)| Wanted { name, config, activate: None }).collect();
    let plan = Plan { name, label, ttl, servers, mcp, code_tools: Vec::new() };
    let mut made = state.make(principal.clone(), plan).await?;
    let Some(limit) = limit else {
        return Ok((StatusCode::CREATED, Json(made.answer(&headers))).into_response());
    };
    state.inner.tools.bring_up(&made.session, &Caller::internal(principal), limit).await;
    let standings = state.inner.tools.standings(&made.session);
    let failed = standings.into_iter().filter(|standing| standing.state == "failed");
    let problems: Vec<WantedProblem> =
        failed.map(|failed| WantedProblem { name: failed.name, problem: failed.problem.unwrap_or_default() }).collect();
    if !problems.is_empty() {
        made.told = true;
        let (at, session) = (state.clone(), made.session.clone());
        state.detached(async move { at.take_back(&session, "its servers did not start").await }).await?;
        return Err(not_made(&problems));
    }
    Ok((StatusCode::CREATED, Json(made.answer(&headers))).into_response())
}

impl Made {
    /// Tells whoever asked for it.
    pub(super) fn answer(mut self, headers: &HeaderMap) -> SessionMade {
        self.told = true;
        let state = &self.state;
        let mut servers = state.inner.tools.standings(&self.session);
        servers.iter_mut().for_each(|server| server.log.clear());
        SessionMade {
            id: self.session.id().to_string(),
            name: self.session.name(),
            label: self.session.label().map(str::to_owned),
            mcp_url: state.mcp_url(&self.session, headers),
            mcp_token: self.token.reveal().to_owned(),
            expires_at: self.session.expires_at().map(|at| at.to_string()),
            ready: servers.iter().all(|server| server.state == "ready"),
            servers,
        }
    }
}

fn not_made(problems: &[WantedProblem]) -> ApiError {
    let line = |problem: &WantedProblem| match problem.name.as_str() {
        "" => format!("\n  {}", problem.problem),
        name => format!("\n  {name}: {}", problem.problem),
    };
    let lines: String = problems.iter().map(line).collect();
    let message = format!("no session was made, because not all of its servers could be added:{lines}");
    let details = Some(json!({"servers": problems}));
    ApiError { status: StatusCode::UNPROCESSABLE_ENTITY, message, details }
}

impl ApiState {
    /// Makes a session with these servers and code tools, or none at all; also when whoever asked for it hangs up.
    pub(super) async fn make(&self, principal: Principal, plan: Plan) -> Result<Made, ApiError> {
        let state = self.clone();
        self.detached(async move { state.made(&principal, plan).await }).await?
    }

    async fn made(&self, principal: &Principal, plan: Plan) -> Result<Made, ApiError> {
        let wanted = self.inner.tools.wanted(&plan.mcp).await.map_err(|problems| not_made(&problems))?;
        for own in wanted.iter().filter_map(|server| server.own.as_ref()) {
            self.recorded(Kind::Catalog, principal, &format!("pin {} at {}", shown(&own.url), own.commit)).await?;
        }
        let token = Token::random();
        let kind = if plan.name.is_some() { SessionKind::Named } else { SessionKind::Url };
        let own = wanted.iter().filter_map(|server| Some((server.name.clone(), server.own.as_ref()?.entry.clone())));
        let new = NewSession {
            name: plan.name.clone(),
            token: Some(token.hash()),
            label: plan.label.clone(),
            ttl: plan.ttl,
            entries: own.collect(),
            ..NewSession::of(kind, principal.clone())
        };
        let session = self.inner.tools.sessions().create_with(new).await?;
        match self.fill(&session, principal, plan, wanted).await {
            Ok(()) => Ok(Made { state: self.clone(), session, token, told: false }),
            Err(error) => {
                self.take_back(&session, "its servers could not be added").await;
                Err(error)
            }
        }
    }

    async fn take_back(&self, session: &Session, why: &'static str) {
        if let Err(error) = self.inner.tools.sessions().end(session.id(), why).await {
            tracing::error!(session.id = %session.id(), %error, "a session that nobody wants could not be ended");
        }
    }

    async fn fill(
        &self,
        session: &Arc<Session>,
        principal: &Principal,
        plan: Plan,
        wanted: Vec<WantedServer>,
    ) -> Result<(), ApiError> {
        let Plan { servers, code_tools, mcp: _, .. } = plan;
        let named = servers.iter().filter_map(|wanted| wanted.name.parse().ok());
        let order: Vec<ServerName> = named.chain(wanted.iter().map(|wanted| wanted.name.clone())).collect();
        let added = servers.into_iter().map(|wanted| self.add(session, principal, wanted));
        let added = futures_util::future::join_all(added).await;
        let mut problems: Vec<WantedProblem> = added.into_iter().filter_map(Result::err).collect();
        // One after the other, so that names which reduce to the same prefix are told apart. None is waited for.
        for wanted in wanted {
            problems.extend(self.put_on(session, principal, wanted).await.err());
        }
        // Their servers have to be on.
        let code_tools = if problems.is_empty() { code_tools } else { Vec::new() };
        for tool in code_tools {
            let caller = Caller::internal(principal.clone());
            let arguments = tool.arguments();
            if let Err(problem) = self.manage(session, caller, ManagementTool::CodeMode, arguments).await {
                problems.push(WantedProblem { name: format!("code-mode-{}", tool.name), problem });
            }
        }
        if !problems.is_empty() {
            return Err(not_made(&problems));
        }
        Ok(self.inner.tools.sessions().arrange(session, order).await?)
    }

    async fn add(&self, session: &Arc<Session>, principal: &Principal, wanted: Wanted) -> Result<(), WantedProblem> {
        let Wanted { name, config, activate } = wanted;
        let mut arguments = Map::from_iter([("name".to_owned(), json!(name))]);
        if config.as_object().is_some_and(|config| !config.is_empty()) {
            arguments.insert("config".to_owned(), config);
        }
        if let Some(activate) = activate {
            arguments.insert("activate".to_owned(), activate);
        }
        let caller = Caller::internal(principal.clone());
        let added = self.manage(session, caller, ManagementTool::Add, arguments).await;
        added.map(|_| ()).map_err(|problem| WantedProblem { name, problem })
    }

    async fn put_on(
        &self,
        session: &Arc<Session>,
        principal: &Principal,
        wanted: WantedServer,
    ) -> Result<(), WantedProblem> {
        let mut arguments = Map::from_iter([("name".to_owned(), json!(wanted.name))]);
        if !wanted.config.is_empty() {
            arguments.insert("config".to_owned(), Value::Object(wanted.config));
        }
        let params = CallToolRequestParams::new(ManagementTool::Add.name()).with_arguments(arguments);
        let call = Call {
            seat: Seat::Fixed(session.clone()),
            caller: Caller::internal(principal.clone()),
            operation: Operation::PutOn(Box::new(params)),
            parent: None,
        };
        let put_on = self.outcome(call).await;
        put_on.map(|_| ()).map_err(|problem| WantedProblem { name: wanted.name.to_string(), problem })
    }
}
