//! The listener: MCP over streamable HTTP, the REST interface, and health.
//!
//! Every request passes the guard (Host and Origin, against DNS rebinding and foreign pages), then authentication, then its
//! route. This module and those below it are the only place that knows status codes.
//!
//! | path | who | what |
//! | --- | --- | --- |
//! | `/mcp` | the broker's token, or a session's | MCP, both eras |
//! | `/s/{session}/mcp` | that session's token, or the broker's | MCP in that session |
//! | `/v1/…` | the broker's token | [`api`] |
//! | `/health` | anybody | whether the broker serves |

mod answers;
pub mod api;
mod auth;
mod connections;
mod guard;
mod quick;
pub mod socket;
mod spread;
pub mod stdio;
mod token;

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Json, Router,
    extract::DefaultBodyLimit,
    middleware::{from_fn, from_fn_with_state},
    routing::get,
    serve::ListenerExt as _,
};
use http::{HeaderName, Method, header};
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer, ExposeHeaders};

use crate::{
    config::HttpSettings,
    endpoint::{Endpoint, Parked, QuickCalls},
    lifecycle::Count,
    tools::Tools,
};
pub use api::ApiState;
use auth::Authentication;
use connections::{ConnectionStore, Connections};
use guard::Guard;
pub use token::{TokenError, load as load_token};

/// The listener cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("could not listen on {address}: is another program using it? Name another with --listen")]
pub struct BindError {
    address: SocketAddr,
    #[source]
    source: std::io::Error,
}

/// A listener that is bound, so that its address is known before anything is served.
pub struct Listener {
    listener: TcpListener,
    settings: HttpSettings,
    address: SocketAddr,
}

impl Listener {
    /// Binds the address in `settings`.
    ///
    /// # Errors
    ///
    /// When it cannot be bound.
    pub async fn bind(settings: HttpSettings) -> Result<Self, BindError> {
        let address = settings.listen;
        let wrong = |source| BindError { address, source };
        let listener = TcpListener::bind(address).await.map_err(wrong)?;
        let address = listener.local_addr().map_err(wrong)?;
        Ok(Self { listener, settings, address })
    }

    /// The address it listens on, with the port that was chosen if none was named.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stopping`; open streams end with `cut`.
    pub async fn serve(self, parts: HttpParts, stopping: CancellationToken, cut: CancellationToken) {
        let router = router(&parts, &self.settings, self.address, cut);
        let listener = self.listener.tap_io(|stream| {
            let _ = stream.set_nodelay(true);
        });
        spread::serve(listener, router, parts.tools.tasks(), stopping).await;
    }
}

/// What HTTP is served from.
#[derive(Clone)]
pub struct HttpParts {
    pub tools: Tools,
    pub parked: Arc<Parked>,
    pub api: ApiState,
    /// Streams that are open.
    pub attached: Count,
}

fn router(parts: &HttpParts, settings: &HttpSettings, address: SocketAddr, cut: CancellationToken) -> Router {
    let authentication = Arc::new(Authentication::new(parts, settings.authenticate));
    let guard = Arc::new(Guard::new(settings, address));
    let quick = QuickCalls::new(parts.tools.clone());
    let connections = Connections::new(
        quick.clone(),
        parts.tools.sessions().clone(),
        parts.tools.limits().connections_idle_max,
        parts.tools.tasks(),
    );
    let mcp = mcp_service(parts, &connections, quick.clone(), cut);
    let state = auth::State { authentication: authentication.clone(), connections };
    let mcp = Router::new()
        .route_service("/mcp", mcp.clone())
        .route_service("/s/{session}/mcp", mcp)
        .layer(from_fn_with_state(quick, quick::answer))
        .layer(from_fn_with_state(state, auth::for_mcp));
    let api = api::router(parts.api.clone())
        .layer(DefaultBodyLimit::max(parts.tools.limits().request_bytes_max))
        .layer(from_fn_with_state(authentication, auth::for_api));
    Router::new()
        .nest("/v1", api)
        .route("/health", get(health))
        .merge(mcp)
        .layer(from_fn_with_state(parts.tools.tasks().unanswered().clone(), answers::count))
        .layer(cors(guard.clone()))
        .layer(from_fn_with_state(guard, guard::check))
        .layer(from_fn(guard::no_sniffing))
}

fn mcp_service(
    parts: &HttpParts,
    connections: &Arc<Connections>,
    quick: Arc<QuickCalls>,
    cut: CancellationToken,
) -> StreamableHttpService<Endpoint, Connections> {
    let (tools, parked) = (parts.tools.clone(), parts.parked.clone());
    // The guard has looked at Host and Origin of every route already.
    let mut config = StreamableHttpServerConfig::default()
        .with_cancellation_token(cut)
        // An answer that nothing came before needs no stream.
        .with_json_response(true)
        .with_max_request_body_bytes(tools.limits().request_bytes_max)
        .disable_allowed_hosts()
        .disable_allowed_origins();
    config.session_store = Some(Arc::new(ConnectionStore::new(connections.clone())));
    StreamableHttpService::new(
        move || Ok(Endpoint::for_http(tools.clone(), parked.clone(), quick.clone())),
        connections.clone(),
        config,
    )
}

/// Pages of allowed origins may use every route, with whatever `Mcp-Param-*` headers a tool wants.
fn cors(guard: Arc<Guard>) -> CorsLayer {
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(move |origin, _| guard.allows_origin(origin)))
        .allow_methods([Method::GET, Method::POST, Method::DELETE, Method::OPTIONS])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(ExposeHeaders::list([
            HeaderName::from_static("mcp-session-id"),
            HeaderName::from_static("mcp-protocol-version"),
            header::WWW_AUTHENTICATE,
        ]))
}

async fn health() -> Json<serde_json::Value> {
    Json(json!({"status": "ok", "version": env!("CARGO_PKG_VERSION")}))
}
