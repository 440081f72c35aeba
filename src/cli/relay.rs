//! Carrying a client's messages to a broker that may change.
//!
//! The relay remembers what the client said when it connected and which requests are waiting. When the broker is lost,
//! waiting requests get an error that says so, and the next broker is told what the first one was.

use std::{collections::HashMap, io, time::Duration};

use rmcp::transport::{StdioWriter, stdio_pipes};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader, ReadHalf, WriteHalf},
    sync::mpsc,
};

use super::stdio::Stream;

/// A message longer than this ends the connection.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// Messages read ahead of the broker.
const AHEAD_MAX: usize = 16;

/// How long a broker gets to answer what is under way after the client has closed its end.
const DRAIN_MAX: Duration = Duration::from_secs(6);

/// Why a run ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The client has closed its end.
    Client,
    /// The broker is gone.
    Broker,
}

/// The client's side, kept while brokers come and go.
pub(super) struct Relay {
    input: mpsc::Receiver<Vec<u8>>,
    output: StdioWriter,
    initialize: Option<(Value, Vec<u8>)>,
    initialized: Option<Vec<u8>>,
    waiting: HashMap<String, Value>,
    input_closed: bool,
}

/// What has to be known of a message.
#[derive(Deserialize)]
struct Frame {
    #[serde(default)]
    id: Option<Value>,
    #[serde(default)]
    method: Option<String>,
}

impl Relay {
    /// Starts reading standard input.
    pub(super) fn new() -> Self {
        let (stdin, output) = stdio_pipes();
        let (lines, input) = mpsc::channel(AHEAD_MAX);
        #[expect(clippy::disallowed_methods, reason = "reads standard input until it ends, whatever broker there is")]
        tokio::spawn(async move {
            let mut reader = Lines::new(stdin);
            while let Ok(Some(line)) = reader.next().await {
                if lines.send(line).await.is_err() {
                    return;
                }
            }
        });
        Self { input, output, initialize: None, initialized: None, waiting: HashMap::new(), input_closed: false }
    }

    /// Carries messages until the client or the broker is gone.
    pub(super) async fn run(&mut self, stream: Box<dyn Stream>) -> io::Result<Ended> {
        let (read, mut write) = tokio::io::split(stream);
        let mut read = Lines::new(read);
        if self.introduce(&mut read, &mut write).await.is_err() {
            return Ok(Ended::Broker);
        }
        loop {
            tokio::select! {
                line = self.input.recv(), if !self.input_closed => match line {
                    Some(line) => {
                        self.note_request(&line);
                        if write.write_all(&line).await.is_err() || write.flush().await.is_err() {
                            return self.lost().await;
                        }
                    }
                    None => {
                        self.input_closed = true;
                        let _ = write.shutdown().await;
                        let _ = tokio::time::timeout(DRAIN_MAX, self.drain(&mut read)).await;
                        return Ok(Ended::Client);
                    }
                },
                line = read.next() => match line {
                    // A client that does not read any more is gone.
                    Ok(Some(line)) => if self.answer(&line).await.is_err() {
                        return Ok(Ended::Client);
                    },
                    Ok(None) | Err(_) => return self.lost().await,
                },
            }
        }
    }

    /// Tells a broker that is not the first one what the client said at the beginning.
    async fn introduce(
        &mut self,
        read: &mut Lines<ReadHalf<Box<dyn Stream>>>,
        write: &mut WriteHalf<Box<dyn Stream>>,
    ) -> io::Result<()> {
        let Some((id, initialize)) = &self.initialize else { return Ok(()) };
        write.write_all(initialize).await?;
        write.flush().await?;
        loop {
            let line = read.next().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let is_answer = serde_json::from_slice::<Frame>(&line)
                .is_ok_and(|frame| frame.method.is_none() && frame.id.as_ref() == Some(id));
            if is_answer {
                break;
            }
        }
        if let Some(initialized) = &self.initialized {
            write.write_all(initialized).await?;
            write.flush().await?;
        }
        Ok(())
    }

    fn note_request(&mut self, line: &[u8]) {
        let Ok(Frame { id, method: Some(method) }) = serde_json::from_slice(line) else { return };
        match (method.as_str(), id) {
            ("initialize", Some(id)) => {
                self.initialize = Some((id.clone(), line.to_vec()));
                self.waiting.insert(id.to_string(), id);
            }
            ("notifications/initialized", None) => self.initialized = Some(line.to_vec()),
            (_, Some(id)) => {
                self.waiting.insert(id.to_string(), id);
            }
            (_, None) => {}
        }
    }

    async fn answer(&mut self, line: &[u8]) -> io::Result<()> {
        if let Ok(Frame { id: Some(id), method: None }) = serde_json::from_slice(line) {
            self.waiting.remove(&id.to_string());
        }
        self.output.write_all(line).await?;
        self.output.flush().await
    }

    async fn drain(&mut self, read: &mut Lines<ReadHalf<Box<dyn Stream>>>) -> io::Result<()> {
        while let Some(line) = read.next().await? {
            self.answer(&line).await?;
        }
        Ok(())
    }

    /// Requests that will not be answered any more get an error, so that nobody waits for them.
    async fn lost(&mut self) -> io::Result<Ended> {
        if self.input_closed {
            return Ok(Ended::Client);
        }
        for (_, id) in std::mem::take(&mut self.waiting) {
            let message = "the broker ended during this request; the session goes on with another: ask again";
            let error = json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32603, "message": message}});
            self.output.write_all(format!("{error}\n").as_bytes()).await?;
        }
        self.output.flush().await?;
        Ok(Ended::Broker)
    }
}

/// Reads lines, with their ends. Dropping a read in the middle of a line loses nothing: the next one goes on with it.
struct Lines<R> {
    reader: BufReader<R>,
    line: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    fn new(reader: R) -> Self {
        Self { reader: BufReader::new(reader), line: Vec::new() }
    }

    /// The next line; `None` at the end of the stream.
    async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let room = LINE_BYTES_MAX.saturating_sub(self.line.len() as u64);
        (&mut self.reader).take(room).read_until(b'\n', &mut self.line).await?;
        if self.line.last() == Some(&b'\n') {
            return Ok(Some(std::mem::take(&mut self.line)));
        }
        if self.line.is_empty() {
            return Ok(None);
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, "a message that is too long, or has no end"))
    }
}
