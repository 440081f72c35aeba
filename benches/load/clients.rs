//! Clients with as little of their own in the way as possible: the legacy handshake, then one call after another.

use std::{path::Path, process::Stdio, time::Duration};

use anyhow::{Context as _, ensure};
use http::{Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    process::{Child, ChildStdin, ChildStdout, Command},
    time::Instant,
};

/// The newest revision with a handshake, and the first one without.
const LEGACY: &str = "2025-11-25";
const MODERN: &str = "2026-07-28";

fn request(id: u64, method: &str, params: &Value) -> String {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string()
}

fn initialize() -> Value {
    json!({"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}})
}

fn call(tool: &str, arguments: &Value) -> Value {
    json!({"name": tool, "arguments": arguments})
}

const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

/// A client of a process.
pub struct StdioClient {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    line: String,
    id: u64,
}

impl StdioClient {
    /// Starts the command and shakes hands.
    pub async fn start(program: &Path, arguments: &[&str]) -> anyhow::Result<Self> {
        let mut process = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("could not start {}", program.display()))?;
        let input = process.stdin.take().context("there is an input")?;
        let output = BufReader::new(process.stdout.take().context("there is an output")?);
        let mut client = Self { process, input, output, line: String::new(), id: 0 };
        client.round_trip("initialize", &initialize()).await?;
        client.input.write_all(format!("{INITIALIZED}\n").as_bytes()).await?;
        Ok(client)
    }

    pub async fn call(&mut self, tool: &str, arguments: &Value) -> anyhow::Result<Duration> {
        self.round_trip("tools/call", &call(tool, arguments)).await
    }

    async fn round_trip(&mut self, method: &str, params: &Value) -> anyhow::Result<Duration> {
        self.id += 1;
        let mut message = request(self.id, method, params);
        message.push('\n');
        let answer = format!("\"id\":{}", self.id);
        let start = Instant::now();
        self.input.write_all(message.as_bytes()).await?;
        loop {
            self.line.clear();
            ensure!(self.output.read_line(&mut self.line).await? > 0, "the server ended");
            if self.line.contains(&answer) {
                break;
            }
        }
        let took = start.elapsed();
        check(&self.line)?;
        Ok(took)
    }

    /// Closes its input and waits until the process has ended.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        drop(self.input);
        self.process.wait().await?;
        Ok(())
    }
}

/// A client over one kept-alive connection.
pub struct HttpClient {
    sender: http1::SendRequest<Full<Bytes>>,
    path: String,
    host: String,
    token: Option<String>,
    session: Option<String>,
    modern: bool,
    id: u64,
}

impl HttpClient {
    /// Connects to `http://host:port/path` and shakes hands.
    pub async fn connect(url: &str, token: Option<&str>) -> anyhow::Result<Self> {
        let mut client = Self::open(url, token).await?;
        client.begin().await?;
        Ok(client)
    }

    /// Connects as a client of revision 2026-07-28, which shakes no hands.
    pub async fn modern(url: &str, token: Option<&str>) -> anyhow::Result<Self> {
        Ok(Self { modern: true, ..Self::open(url, token).await? })
    }

    async fn open(url: &str, token: Option<&str>) -> anyhow::Result<Self> {
        let rest = url.strip_prefix("http://").context("an http URL")?;
        let (host, path) = rest.split_once('/').context("a path")?;
        let stream = TcpStream::connect(host).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        #[expect(clippy::disallowed_methods, reason = "it ends with its sender")]
        tokio::spawn(connection);
        let token = token.map(str::to_owned);
        Ok(Self { sender, path: format!("/{path}"), host: host.to_owned(), token, session: None, modern: false, id: 0 })
    }

    /// Begins a new session on the same connection.
    pub async fn begin(&mut self) -> anyhow::Result<()> {
        self.session = None;
        self.round_trip("initialize", &initialize()).await?;
        self.post(INITIALIZED.to_owned(), None).await?;
        Ok(())
    }

    pub async fn call(&mut self, tool: &str, arguments: &Value) -> anyhow::Result<Duration> {
        let mut params = call(tool, arguments);
        if self.modern {
            params["_meta"] = json!({
                "io.modelcontextprotocol/protocolVersion": MODERN,
                "io.modelcontextprotocol/clientCapabilities": {},
                "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
            });
        }
        self.round_trip("tools/call", &params).await
    }

    async fn round_trip(&mut self, method: &str, params: &Value) -> anyhow::Result<Duration> {
        self.id += 1;
        let message = request(self.id, method, params);
        let name = self.modern.then(|| params["name"].as_str().unwrap_or_default());
        let start = Instant::now();
        let answer = self.post(message, name).await?;
        let took = start.elapsed();
        check(&answer)?;
        Ok(took)
    }

    /// Posts a message; a modern one says in headers what it calls.
    async fn post(&mut self, message: String, called: Option<&str>) -> anyhow::Result<String> {
        let mut request = Request::post(&self.path)
            .header(header::HOST, &self.host)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json, text/event-stream");
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(session) = &self.session {
            request = request.header("mcp-session-id", session).header("mcp-protocol-version", LEGACY);
        }
        if let Some(name) = called {
            let headers = [("mcp-protocol-version", MODERN), ("mcp-method", "tools/call"), ("mcp-name", name)];
            request = headers.into_iter().fold(request, |request, (header, value)| request.header(header, value));
        }
        self.sender.ready().await?;
        let response = self.sender.send_request(request.body(Full::from(message))?).await?;
        ensure!(response.status().is_success(), "HTTP status {}", response.status());
        if let Some(session) = response.headers().get("mcp-session-id") {
            self.session = Some(session.to_str()?.to_owned());
        }
        Ok(String::from_utf8(response.into_body().collect().await?.to_bytes().to_vec())?)
    }
}

/// A fast failure is not a fast answer.
fn check(answer: &str) -> anyhow::Result<()> {
    let works = answer.contains("\"result\"") && !answer.contains("\"isError\":true");
    ensure!(works, "a call failed: {}", answer.chars().take(500).collect::<String>());
    Ok(())
}
