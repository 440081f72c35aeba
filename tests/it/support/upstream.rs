//! A catalog's address and a registry's API, on loopback, which can go wrong in the ways that such things do.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

use super::broker::eventually;

const OFFICIAL: &str = "io.modelcontextprotocol.registry/official";

/// How it answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mood {
    #[default]
    Well,
    Status500,
    /// An answer that ends in the middle, with a length that says so or not.
    Half,
    /// A cursor that leads to another one for ever.
    Endless,
    /// A cursor that leads back.
    Circle,
    /// 100 MB.
    Huge,
    NoCatalog,
}

#[derive(Default)]
pub struct What {
    pub catalog: String,
    pub servers: Vec<Value>,
    pub mood: Mood,
    /// What was asked and with which status it was answered.
    pub asked: Vec<String>,
}

pub struct Upstream {
    pub address: SocketAddr,
    what: Arc<Mutex<What>>,
    serving: Option<JoinHandle<()>>,
}

impl Upstream {
    pub async fn serving(catalog: String, servers: Vec<Value>) -> Self {
        let what = Arc::new(Mutex::new(What { catalog, servers, ..What::default() }));
        let mut upstream = Self { address: "127.0.0.1:0".parse().unwrap(), what, serving: None };
        upstream.online().await;
        upstream
    }

    pub fn what(&self) -> MutexGuard<'_, What> {
        self.what.lock().unwrap()
    }

    pub fn catalog_url(&self) -> String {
        format!("http://{}/catalog.yaml", self.address)
    }

    pub fn registry_url(&self) -> String {
        format!("http://{}/v0.1/servers", self.address)
    }

    /// What was asked since the last time.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.what().asked)
    }

    pub async fn online(&mut self) {
        let listener = TcpListener::bind(self.address).await.expect("the port is still free");
        self.address = listener.local_addr().unwrap();
        let router = Router::new()
            .route("/catalog.yaml", get(catalog))
            .route("/v0.1/servers", get(servers))
            .with_state(self.what.clone());
        self.serving = Some(tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }));
    }

    /// From here on nobody listens.
    pub async fn offline(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            let _ = serving.await;
        }
        let address = self.address;
        eventually("nobody listens", async || tokio::net::TcpStream::connect(address).await.is_err()).await;
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
        }
    }
}

type Shared = State<Arc<Mutex<What>>>;

async fn catalog(State(what): Shared, headers: HeaderMap) -> Response {
    let mut what = what.lock().unwrap();
    let etag =
        format!("\"{:x}\"", what.catalog.bytes().fold(7_u64, |sum, byte| sum.wrapping_mul(31) + u64::from(byte)));
    let same = headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == etag.as_bytes());
    let response = match troubled(what.mood, &what.catalog) {
        Some(response) => response,
        None if same => StatusCode::NOT_MODIFIED.into_response(),
        None => ([(header::ETAG, etag)], what.catalog.clone()).into_response(),
    };
    what.asked.push(format!("catalog {}", response.status().as_u16()));
    response
}

#[derive(Deserialize)]
struct Page {
    limit: usize,
    #[serde(default)]
    cursor: Option<String>,
    #[serde(default)]
    updated_since: Option<String>,
}

async fn servers(State(what): Shared, Query(page): Query<Page>) -> Response {
    let mut what = what.lock().unwrap();
    let at: usize = page.cursor.as_deref().map_or(0, |cursor| cursor.parse().unwrap());
    let since = page.updated_since.clone().unwrap_or_default();
    let changed: Vec<&Value> = what
        .servers
        .iter()
        .filter(|item| item["_meta"][OFFICIAL]["updatedAt"].as_str().is_none_or(|updated| updated >= since.as_str()))
        .collect();
    let next = match what.mood {
        Mood::Endless => Some((at + 1).to_string()),
        Mood::Circle => Some("1".to_owned()),
        _ => (at + page.limit < changed.len()).then(|| (at + page.limit).to_string()),
    };
    let servers: Vec<&Value> = changed.into_iter().skip(at).take(page.limit).collect();
    let whole = json!({"servers": servers, "metadata": {"nextCursor": next, "count": servers.len()}});
    // The first page is good, so that half of a listing is what is there.
    let mood = if page.cursor.is_none() && next.is_some() { Mood::Well } else { what.mood };
    let response = troubled(mood, &whole.to_string()).unwrap_or_else(|| Json(whole).into_response());
    let since = if page.updated_since.is_some() { " changes" } else { "" };
    let line = format!("servers{since} {at} {}", response.status().as_u16());
    what.asked.push(line);
    response
}

fn troubled(mood: Mood, whole: &str) -> Option<Response> {
    match mood {
        Mood::Well | Mood::Endless | Mood::Circle => None,
        Mood::Status500 => Some((StatusCode::INTERNAL_SERVER_ERROR, "out of order").into_response()),
        Mood::Half => Some(whole[..whole.len() / 2].to_owned().into_response()),
        Mood::Huge => Some(Body::from(vec![b' '; 100 << 20]).into_response()),
        Mood::NoCatalog => Some("<html>Please log in</html>".into_response()),
    }
}

/// An item of a registry's listing.
pub fn item(name: &str, version: &str, updated: &str, image: &str) -> Value {
    json!({
        "server": {
            "name": name,
            "description": format!("Does what {name} does."),
            "version": version,
            "packages": [{"registryType": "oci", "identifier": image, "transport": {"type": "stdio"}}],
        },
        "_meta": {OFFICIAL: {"status": "active", "updatedAt": updated, "isLatest": true}},
    })
}
