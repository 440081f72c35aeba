//! Tools that are programs: a container is started for each call, and its output is the answer.
//!
//! To the rest of the broker this is a server like any other: it speaks MCP over a pair of streams, and what it stands on is
//! a task in this process. So its calls have the deadlines, the cancelling and the records of every call. A container ends
//! with its call: when the program has ended, when the call is taken back, or when the server is stopped.

use std::{
    convert::Infallible,
    string::FromUtf8Error,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rmcp::{
    RoleServer, ServerHandler, ServiceExt as _,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ErrorData, ListToolsResult,
        PaginatedRequestParams, ProgressNotificationParam, ResourceContents, ServerCapabilities, ServerConfig, Tool,
    },
    service::RequestContext,
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::Semaphore,
    time::MissedTickBehavior,
};
use tokio_util::{either::Either, sync::CancellationToken, task::TaskTracker};

use super::{
    backing::{Output, Streams},
    docker::{End, Engine, Owner},
    launch::PerCallLaunch,
    tail::Tail,
    upstream::{chain, implementation},
};
use crate::catalog::entry::PerCallTool;

/// Containers that run at a time; further calls wait for one to end.
const AT_ONCE_MAX: usize = 8;

/// What is kept of a program's output; what comes after it is read and dropped.
const OUTPUT_BYTES_MAX: usize = 1 << 20;

/// Lines of standard error in an answer.
const ERROR_LINES: usize = 40;

/// Messages of ours that may wait to be read.
const PIPE_BYTES: usize = 64 << 10;

/// How often a program that writes is taken notice of.
const NOTICED_EVERY: Duration = Duration::from_secs(1);

/// What runs the containers of one instance. Dropping it ends them.
pub(crate) struct Runner {
    stop: CancellationToken,
    running: TaskTracker,
    tail: Tail,
}

impl Runner {
    /// Starts serving, and gives back the client's streams.
    pub(crate) fn start(engine: Arc<Engine>, owner: Owner, launch: PerCallLaunch, tail: Tail) -> (Self, Streams) {
        let (stop, running) = (CancellationToken::new(), TaskTracker::new());
        let tools = Tools {
            engine,
            owner,
            launch,
            tail: tail.clone(),
            turns: Semaphore::new(AT_ONCE_MAX),
            stop: stop.clone(),
            running: running.clone(),
        };
        let (answers, answering) = tokio::io::simplex(PIPE_BYTES);
        let (asked, asking) = tokio::io::simplex(PIPE_BYTES);
        let stopped = stop.clone();
        running.spawn(async move {
            tokio::select! {
                () = serve(tools, asked, answering) => {}
                () = stopped.cancelled() => {}
            }
        });
        (Self { stop, running, tail }, (Either::Right(answers), Box::new(asking)))
    }

    pub(crate) fn tail(&self) -> &Tail {
        &self.tail
    }

    /// Ends what runs, and waits until it is gone.
    pub(crate) async fn stop(self, grace: Duration) -> String {
        self.stop.cancel();
        self.running.close();
        let _ = tokio::time::timeout(grace, self.running.wait()).await;
        "code 0".to_owned()
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn serve<R, W>(tools: Tools, asked: R, answering: W)
where
    R: tokio::io::AsyncRead + Send + Unpin + 'static,
    W: tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    match tools.serve((asked, answering)).await {
        Ok(service) => {
            let _ = service.waiting().await;
        }
        Err(error) => tracing::debug!(%error, "the handshake with ourselves did not come about"),
    }
}

/// The server.
struct Tools {
    engine: Arc<Engine>,
    owner: Owner,
    launch: PerCallLaunch,
    /// What the calls' own are made like.
    tail: Tail,
    turns: Semaphore,
    stop: CancellationToken,
    running: TaskTracker,
}

impl ServerHandler for Tools {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build()).with_server_info(implementation())
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let tools = self
            .launch
            .tools
            .iter()
            .map(|tool| Tool::new(tool.name.clone(), tool.description.clone(), Arc::new(tool.parameters.clone())));
        Ok(ListToolsResult::with_all_items(tools.collect()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let _running = self.running.token();
        let tool = self.launch.tools.iter().find(|tool| tool.name == request.name);
        let tool =
            tool.ok_or_else(|| ErrorData::invalid_params(format!("there is no tool named `{}`", request.name), None))?;
        let arguments = Value::Object(request.arguments.unwrap_or_default());
        let result = tokio::select! {
            result = self.run(tool, &arguments, &context) => result,
            () = context.ct.cancelled() => Err("the call was cancelled".to_owned()),
            () = self.stop.cancelled() => Err("the server was stopped".to_owned()),
        };
        Ok(result.unwrap_or_else(|problem| CallToolResult::error(vec![ContentBlock::text(problem)])).into())
    }
}

impl Tools {
    async fn run(
        &self,
        tool: &PerCallTool,
        arguments: &Value,
        context: &RequestContext<RoleServer>,
    ) -> Result<CallToolResult, String> {
        if let Some(missing) = missing(tool, arguments) {
            return Err(format!("`{}` needs the argument `{missing}`", tool.name));
        }
        let _turn = self.turns.acquire().await.map_err(|error| error.to_string())?;
        let launch = self.launch.call(tool, arguments).map_err(|error| chain(&error))?;
        let tail = self.tail.another();
        let started = self.engine.start_again(launch, self.owner.clone(), tail.clone()).await;
        let (container, (mut output, mut input)) = started.map_err(|error| chain(&error))?;
        // It is told everything by its arguments.
        let _ = input.shutdown().await;
        let heard = AtomicU64::new(0);
        let ending = async { (Written::read(&mut output, &heard).await, container.ended().await) };
        let (written, end) = tokio::select! {
            ended = ending => ended,
            never = report(&heard, &tail, context) => match never {},
        };
        container.kill().await;
        Ok(written.answer(&end, &tail))
    }
}

/// Tells the caller that the program writes, which puts the call's deadline off.
async fn report(heard: &AtomicU64, tail: &Tail, context: &RequestContext<RoleServer>) -> Infallible {
    let Some(token) = context.meta.get_progress_token() else { return std::future::pending().await };
    let mut ticks = tokio::time::interval(NOTICED_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = 0;
    loop {
        ticks.tick().await;
        let written = heard.load(Ordering::Relaxed) + tail.count();
        if written > told {
            told = written;
            #[expect(clippy::cast_precision_loss, reason = "what counts is that it grows")]
            let progress = ProgressNotificationParam::new(token.clone(), written as f64).with_message(tail.last(1));
            let _ = context.peer.notify_progress(progress).await;
        }
    }
}

/// A program's standard output.
struct Written {
    kept: Vec<u8>,
    bytes: usize,
}

impl Written {
    /// Reads to its end, and counts in `heard` what comes.
    async fn read(output: &mut Output, heard: &AtomicU64) -> Self {
        let mut written = Self { kept: Vec::new(), bytes: 0 };
        let mut buffer = vec![0; PIPE_BYTES];
        loop {
            let count = match output.read(&mut buffer).await {
                Ok(0) | Err(_) => return written,
                Ok(count) => count,
            };
            heard.fetch_add(count as u64, Ordering::Relaxed);
            let room = OUTPUT_BYTES_MAX.saturating_sub(written.kept.len()).min(count);
            written.kept.extend_from_slice(&buffer[..room]);
            written.bytes += count;
        }
    }

    /// What the call is answered with. A program that ends well and says nothing may have said it on standard error.
    fn answer(self, end: &End, tail: &Tail) -> CallToolResult {
        let stderr = tail.last(ERROR_LINES);
        let cut = self.bytes > self.kept.len();
        let mut content = Vec::new();
        if !end.success {
            content.push(ContentBlock::text(format!("it exited with {}", end.how)));
        }
        match text_of(self.kept, cut) {
            Ok(text) if text.is_empty() => {}
            Ok(text) => content.push(ContentBlock::text(text)),
            Err(bytes) => {
                let blob = ResourceContents::blob(data_encoding::BASE64.encode(&bytes), "output:stdout");
                content.push(ContentBlock::resource(blob.with_mime_type("application/octet-stream")));
            }
        }
        if cut {
            content.push(ContentBlock::text(format!(
                "[the first {OUTPUT_BYTES_MAX} of {} bytes that it wrote]",
                self.bytes
            )));
        }
        if !stderr.is_empty() && (!end.success || content.is_empty()) {
            content.push(ContentBlock::text(stderr));
        }
        if content.is_empty() {
            content.push(ContentBlock::text("it wrote nothing, and exited with code 0"));
        }
        if end.success { CallToolResult::success(content) } else { CallToolResult::error(content) }
    }
}

/// The bytes as text, if they are text. A cut may go through a character.
fn text_of(bytes: Vec<u8>, cut: bool) -> Result<String, Vec<u8>> {
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(error) if cut && error.utf8_error().error_len().is_none() => {
            let end = error.utf8_error().valid_up_to();
            let mut bytes = error.into_bytes();
            bytes.truncate(end);
            String::from_utf8(bytes).map_err(FromUtf8Error::into_bytes)
        }
        Err(error) => Err(error.into_bytes()),
    }
}

/// A required argument that is not there.
fn missing<'a>(tool: &'a PerCallTool, arguments: &Value) -> Option<&'a str> {
    let required = tool.parameters.get("required")?.as_array()?;
    required.iter().filter_map(Value::as_str).find(|name| arguments.get(*name).is_none_or(Value::is_null))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(bytes: &[u8], all: usize, success: bool, stderr: &str) -> Value {
        let tail = Tail::new(1000, crate::secrets::Redactor::default());
        stderr.lines().for_each(|line| tail.line(line));
        let end = End { success, how: "code 3".to_owned() };
        let result = Written { kept: bytes.to_vec(), bytes: all }.answer(&end, &tail);
        let value = serde_json::to_value(result).unwrap();
        let blocks = value["content"].as_array().unwrap().iter();
        let said = blocks.map(|block| block.get("text").or_else(|| block["resource"].get("blob")).unwrap().clone());
        serde_json::json!([said.collect::<Value>(), value["isError"]])
    }

    #[test]
    fn output_is_the_answer_and_errors_are_told_with_it() {
        use serde_json::json;
        assert_eq!(answered(b"out", 3, true, "noise"), json!([["out"], false]));
        assert_eq!(answered(b"", 0, true, "said aside"), json!([["said aside"], false]));
        assert_eq!(answered(b"", 0, true, ""), json!([["it wrote nothing, and exited with code 0"], false]));
        assert_eq!(answered(b"out", 3, false, "why"), json!([["it exited with code 3", "out", "why"], true]));
        assert_eq!(answered(&[0xff, 0x00], 2, true, ""), json!([["/wA="], false]));
        let cut = answered(&"aä".as_bytes()[..2], 9, true, "");
        assert_eq!(cut, json!([["a", "[the first 1048576 of 9 bytes that it wrote]"], false]));
    }
}
