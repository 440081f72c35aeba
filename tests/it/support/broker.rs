//! The broker in the test's own process, on a port and a data folder of its own.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use mcp_broker::{
    app::{App, DataFolder},
    catalog::CatalogSettings,
    clock::{Clock as _, ManualClock, SystemClock},
    config::{AuditSettings, CodeModeSettings, ContainerSettings, FeatureSetting, HttpSettings, Limits, Settings},
    http::Listener,
    ids::ServerName,
    lifecycle::Tasks,
    store::{Durability, Store, audit::Query},
    supervisor::{label_of, orphans::labelled},
};
use rustix::process::Signal;
use tempfile::TempDir;

use super::{Era, FixtureCatalog, TestClient, process::program};

/// A broker that is about to be started.
pub struct Builder {
    catalog: FixtureCatalog,
    servers: Vec<ServerName>,
    limits: Limits,
    features: Vec<(String, FeatureSetting)>,
    folder: Arc<TempDir>,
    more: Vec<PathBuf>,
    containers: ContainerSettings,
    code_mode: CodeModeSettings,
    policy: CatalogSettings,
}

/// A broker that serves HTTP. Dropping it fails the test if a server or an open record is left.
pub struct TestBroker {
    app: Option<App>,
    address: SocketAddr,
    folder: Arc<TempDir>,
    token: String,
    pub clock: Arc<ManualClock>,
    rebuild: Rebuild,
}

#[derive(Clone)]
struct Rebuild {
    settings: Settings,
}

impl TestBroker {
    pub fn with(catalog: FixtureCatalog) -> Builder {
        Builder {
            catalog,
            servers: Vec::new(),
            limits: quick_limits(),
            features: Vec::new(),
            folder: Arc::new(tempfile::tempdir().expect("there is room for temporary files")),
            more: Vec::new(),
            code_mode: CodeModeSettings { program: Some(program().into()), ..CodeModeSettings::default() },
            containers: ContainerSettings { engine: Some("none".to_owned()), ..ContainerSettings::default() },
            policy: CatalogSettings::default(),
        }
    }

    /// A broker with one well-behaved fixture called `fixture`.
    pub async fn start() -> Self {
        Self::with(FixtureCatalog::new().server("fixture", &[], &[])).start().await
    }

    pub fn url(&self) -> String {
        format!("http://{}/mcp", self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn token(&self) -> &str {
        &self.token
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn app(&self) -> &App {
        self.app.as_ref().expect("the broker runs")
    }

    pub fn store(&self) -> &Store {
        &self.app().store
    }

    /// Looks the sessions through, as the broker does every now and then.
    pub async fn sweep(&self) {
        self.app().parts.tools.sessions().sweep().await.expect("the sessions can be looked through");
    }

    /// A client on the shared endpoint, with the broker's token.
    pub async fn connect(&self, era: Era) -> TestClient {
        TestClient::http(&self.url(), Some(&self.token), era).await
    }

    /// Asks the REST interface as the administrator.
    pub async fn rest(
        &self,
        method: http::Method,
        path: &str,
        body: Option<serde_json::Value>,
    ) -> (u16, serde_json::Value) {
        let url = format!("http://{}{path}", self.address);
        let mut request = reqwest::Client::new().request(method, url).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.expect("the broker answers");
        let status = response.status().as_u16();
        let text = response.text().await.expect("the answer is text");
        (status, serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text)))
    }

    /// The closed records of tools and management, oldest first, as `name status`.
    pub async fn audit(&self) -> Vec<String> {
        let records =
            self.store().audit_records(&Query::default(), None, 1000).await.expect("the log can be read").records;
        records
            .iter()
            .filter(|record| record.kind == "tool" || record.kind == "management")
            .map(|record| format!("{} {}", record.name, record.status.as_deref().unwrap_or("open")))
            .collect()
    }

    /// Stops the broker and starts it again on the same folder and port.
    pub async fn restart(mut self) -> Self {
        let app = self.app.take().expect("the broker runs");
        app.stop(std::future::ready(())).await;
        let mut settings = self.rebuild.settings.clone();
        settings.http.listen = self.address;
        serve(settings, self.folder.clone(), self.clock.clone()).await
    }

    /// Stops the broker and checks that it left nothing behind.
    pub async fn stop(mut self) {
        if let Some(app) = self.app.take() {
            app.stop(std::future::ready(())).await;
        }
        self.assert_clean().await;
    }

    async fn assert_clean(&self) {
        let left = labelled(&label_of(self.folder.path()));
        assert!(left.is_empty(), "processes are left: {left:?}");
        let (tasks, _crashes) = Tasks::new();
        let store =
            Store::open(self.folder.path(), Durability::default(), &tasks).await.expect("the database can be opened");
        let open = store.open_audit_records().await.expect("the log can be read");
        assert!(open.is_empty(), "records are left open: {open:?}");
        store.close().await;
    }
}

impl Drop for TestBroker {
    fn drop(&mut self) {
        let Some(app) = self.app.take() else { return };
        if std::thread::panicking() {
            for pid in labelled(&label_of(self.folder.path())) {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
            return;
        }
        drop(app);
        panic!("a test has to end with `broker.stop().await`");
    }
}

impl Builder {
    /// Puts a server into every session.
    pub fn fixed(mut self, server: &str) -> Self {
        self.servers.push(server.parse().expect("a server's name"));
        self
    }

    pub fn limits(mut self, change: impl FnOnce(&mut Limits)) -> Self {
        change(&mut self.limits);
        self
    }

    pub fn feature(mut self, name: &str, enabled: bool) -> Self {
        self.features.push((name.to_owned(), FeatureSetting { enabled, locked: false }));
        self
    }

    /// Changes what scripts may use.
    pub fn code_mode(mut self, change: impl FnOnce(&mut CodeModeSettings)) -> Self {
        change(&mut self.code_mode);
        self
    }

    /// Uses this machine's container engine.
    pub fn containers(mut self, change: impl FnOnce(&mut ContainerSettings)) -> Self {
        self.containers.engine = None;
        change(&mut self.containers);
        self
    }

    /// What agents may add.
    pub fn policy(mut self, policy: CatalogSettings) -> Self {
        self.policy = policy;
        self
    }

    /// A further catalog file.
    pub fn catalog_file(mut self, path: PathBuf) -> Self {
        self.more.push(path);
        self
    }

    pub async fn start(self) -> TestBroker {
        let mut catalogs = vec![self.catalog.write(self.folder.path())];
        catalogs.extend(self.more);
        let settings = Settings {
            catalog: self.policy,
            data_folder: self.folder.path().to_path_buf(),
            catalogs,
            servers: self.servers,
            profiles: Vec::new(),
            compose: None,
            server_config: Default::default(),
            features: self.features.into_iter().collect(),
            pass_environment: Vec::new(),
            containers: self.containers,
            code_mode: self.code_mode,
            http: HttpSettings {
                listen: "127.0.0.1:0".parse().expect("an address"),
                allowed_hosts: Vec::new(),
                allowed_origins: Vec::new(),
                authenticate: true,
            },
            audit: AuditSettings::default(),
            limits: self.limits,
        };
        serve(settings, self.folder, ManualClock::at(SystemClock.now())).await
    }
}

async fn serve(settings: Settings, folder: Arc<TempDir>, clock: Arc<ManualClock>) -> TestBroker {
    let (tasks, _crashes) = Tasks::new();
    let held = DataFolder::take(folder.path()).expect("the folder is free");
    let listener = Listener::bind(settings.http.clone()).await.expect("a port is free");
    let address = listener.address();
    let app = App::open(settings.clone(), held, clock.clone(), tasks).await.expect("the broker opens");
    app.serve_socket().expect("the socket can be made");
    app.serve_http(listener);
    app.start_background();
    let token = std::fs::read_to_string(folder.path().join("token")).expect("there is a token").trim().to_owned();
    TestBroker { app: Some(app), address, folder, token, clock, rebuild: Rebuild { settings } }
}

/// Deadlines that a test can wait for.
fn quick_limits() -> Limits {
    Limits { start_seconds: 20, call_seconds: 20, stop_seconds: 1, shutdown_seconds: 2, ..Limits::default() }
}

/// Waits until `check` is true; fails when it is not after a long while.
pub async fn eventually(what: &str, mut check: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !check().await {
        assert!(tokio::time::Instant::now() < deadline, "it never came true that {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
