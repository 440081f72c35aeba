//! JSON-RPC over a pair of byte streams, one message a line, as rmcp's transport.
//!
//! What goes out is written by one task, in the order in which it was sent. What comes in is bounded: a line beyond the
//! limit is read past and fails the request it answers. Lines that are no message are kept as noise for error messages.

use std::{collections::VecDeque, io, sync::Arc};

use rmcp::{
    RoleClient,
    model::{ClientJsonRpcMessage, ClientNotification, ErrorData, RequestId, ServerJsonRpcMessage},
    transport::Transport,
};
use serde_json::value::RawValue;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader},
    sync::{mpsc, oneshot},
};
use tokio_util::sync::CancellationToken;

use super::{
    calls::Calls,
    decode::{self, Decoded},
    oversized::IdScanner,
    tail::Tail,
};
use crate::lifecycle::Tasks;

const READ_BYTES: usize = 64 << 10;

/// Messages that may wait for a server to read its input; one that leaves more unread is given up on.
const WRITES_MAX: usize = 1024;

type Written = oneshot::Sender<io::Result<()>>;
type Writes = mpsc::Sender<(Vec<u8>, Written)>;

/// One connection to a server's standard input and output, or the like.
pub(crate) struct Wire<R> {
    reader: BufReader<R>,
    writes: Writes,
    calls: Arc<Calls>,
    tail: Tail,
    /// Cancelled when the other side has closed.
    closed: CancellationToken,
    server: Arc<str>,
    message_bytes_max: usize,
    /// What has been read of the line that is coming in.
    line: Vec<u8>,
    /// Reads past that line, once it is too long to be kept.
    oversized: Option<IdScanner>,
    ready: VecDeque<ServerJsonRpcMessage>,
}

impl<R: AsyncRead + Send + Unpin> Wire<R> {
    pub(crate) fn new<W>(
        (reader, writer): (R, W),
        calls: Arc<Calls>,
        tail: Tail,
        closed: CancellationToken,
        server: Arc<str>,
        message_bytes_max: usize,
        tasks: &Tasks,
    ) -> Self
    where
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let (writes, queue) = mpsc::channel(WRITES_MAX);
        tasks.spawn(write(writer, queue));
        Self {
            reader: BufReader::with_capacity(READ_BYTES, reader),
            writes,
            calls,
            tail,
            closed,
            server,
            message_bytes_max,
            line: Vec::new(),
            oversized: None,
            ready: VecDeque::new(),
        }
    }

    /// Writes one message; the future completes when it has been written.
    ///
    /// It is queued before this returns, so that the order of sending is the order of writing.
    pub(crate) fn write_line(&self, line: Vec<u8>) -> impl Future<Output = io::Result<()>> + Send + use<R> {
        queue(Some(&self.writes), line)
    }

    /// A way to write lines past rmcp. It does not keep the stream open.
    pub(crate) fn outgoing(&self) -> Outgoing {
        Outgoing(self.writes.downgrade())
    }

    /// Reads one line, without its end. `None` at the end of the stream.
    ///
    /// Safe to cancel: what was read so far is kept in `self`.
    pub(crate) async fn read_line(&mut self) -> Option<Line> {
        loop {
            let available = match self.reader.fill_buf().await {
                Ok([]) | Err(_) => return None,
                Ok(available) => available,
            };
            let end = available.iter().position(|byte| *byte == b'\n');
            let piece = &available[..end.unwrap_or(available.len())];
            if let Some(scanner) = &mut self.oversized {
                scanner.feed(piece);
            } else if self.line.len() + piece.len() > self.message_bytes_max {
                let mut scanner = IdScanner::default();
                scanner.feed(&std::mem::take(&mut self.line));
                scanner.feed(piece);
                self.oversized = Some(scanner);
            } else {
                self.line.extend_from_slice(piece);
            }
            let consumed = end.map_or(available.len(), |end| end + 1);
            self.reader.consume(consumed);
            if end.is_some() {
                return Some(match self.oversized.take() {
                    Some(scanner) => Line::Oversized(scanner.id()),
                    None => Line::Whole(std::mem::take(&mut self.line)),
                });
            }
        }
    }

    /// Keeps a line that is no message for error messages.
    pub(crate) fn noise(&self, line: &[u8]) {
        let text = line.trim_ascii();
        if !text.is_empty() && text.first() != Some(&b'{') {
            self.tail.line(&format!("stdout: {}", String::from_utf8_lossy(text)));
        }
    }

    fn take(&mut self, line: Line) {
        match line {
            Line::Oversized(Some(id)) => {
                let problem = format!("it is longer than {} bytes", self.message_bytes_max);
                self.decoded(decode::failed(id, &self.calls, &problem));
            }
            Line::Oversized(None) => {
                self.tail.line(&format!("stdout: a line of more than {} bytes", self.message_bytes_max));
            }
            Line::Whole(bytes) => {
                let text = bytes.trim_ascii();
                if text.first() == Some(&b'[') {
                    self.batch(text);
                } else if !text.is_empty() {
                    self.decoded(decode::decode(text, &self.calls, &self.server));
                }
            }
        }
    }

    /// Revision 2025-03-26 allowed several messages in one array.
    fn batch(&mut self, text: &[u8]) {
        match serde_json::from_slice::<Vec<Box<RawValue>>>(text) {
            Ok(messages) => {
                for message in messages {
                    self.decoded(decode::decode(message.get().as_bytes(), &self.calls, &self.server));
                }
            }
            Err(_) => self.tail.line(&format!("stdout: {}", String::from_utf8_lossy(text))),
        }
    }

    fn decoded(&mut self, decoded: Decoded) {
        match decoded {
            Decoded::Message(message) => self.ready.extend(self.calls.arrived(*message)),
            Decoded::BadRequest(id, error) => self.refuse(id, error),
            Decoded::Noise(what) => self.tail.line(&format!("stdout: {what}")),
        }
    }

    fn refuse(&self, id: RequestId, error: ErrorData) {
        if let Ok(bytes) = serde_json::to_vec(&ClientJsonRpcMessage::error(error, Some(id))) {
            drop(self.write_line(bytes));
        }
    }
}

/// Writes lines for as long as their wire is open.
pub(crate) struct Outgoing(mpsc::WeakSender<(Vec<u8>, Written)>);

impl Outgoing {
    /// As [`Wire::write_line`].
    pub(crate) fn write_line(&self, line: Vec<u8>) -> impl Future<Output = io::Result<()>> + Send + use<> {
        queue(self.0.upgrade().as_ref(), line)
    }
}

fn queue(writes: Option<&Writes>, mut line: Vec<u8>) -> impl Future<Output = io::Result<()>> + Send + use<> {
    line.push(b'\n');
    let (written, outcome) = oneshot::channel();
    let queued = writes.ok_or_else(gone).and_then(|writes| {
        writes.try_send((line, written)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => io::Error::other("the server does not read its input"),
            mpsc::error::TrySendError::Closed(_) => gone(),
        })
    });
    async move {
        queued?;
        outcome.await.map_err(|_| gone())?
    }
}

/// A line, as far as it was kept.
pub(crate) enum Line {
    Whole(Vec<u8>),
    /// It was too long; this is the request it answers, if it answers one.
    Oversized(Option<RequestId>),
}

impl<R: AsyncRead + Send + Unpin + 'static> Transport<RoleClient> for Wire<R> {
    type Error = io::Error;

    fn send(&mut self, message: ClientJsonRpcMessage) -> impl Future<Output = io::Result<()>> + Send + 'static {
        note_sent(&message, &self.calls);
        let line = serde_json::to_vec(&message).map_err(io::Error::other).map(|line| self.write_line(line));
        async move { line?.await }
    }

    async fn receive(&mut self) -> Option<ServerJsonRpcMessage> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                return Some(message);
            }
            let Some(line) = self.read_line().await else {
                self.closed.cancel();
                return None;
            };
            self.take(line);
        }
    }

    async fn close(&mut self) -> io::Result<()> {
        self.closed.cancel();
        let (writes, _) = mpsc::channel(1);
        self.writes = writes;
        Ok(())
    }
}

/// Notes an outgoing message in the table of calls.
pub(crate) fn note_sent(message: &ClientJsonRpcMessage, calls: &Calls) {
    match message {
        ClientJsonRpcMessage::Request(request) => calls.sent(&request.request, &request.id),
        ClientJsonRpcMessage::Notification(notification) => {
            if let ClientNotification::CancelledNotification(cancelled) = &notification.notification
                && let Some(id) = &cancelled.params.request_id
            {
                calls.finished(id);
            }
        }
        ClientJsonRpcMessage::Response(_) | ClientJsonRpcMessage::Error(_) => {}
    }
}

async fn write<W: AsyncWrite + Unpin>(mut writer: W, mut queue: mpsc::Receiver<(Vec<u8>, Written)>) {
    while let Some((bytes, written)) = queue.recv().await {
        let outcome = async {
            writer.write_all(&bytes).await?;
            writer.flush().await
        };
        let _ = written.send(outcome.await);
    }
    let _ = writer.shutdown().await;
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the server has closed its input")
}
