//! Workers that have booted and wait for a script.
//!
//! Starting a process and booting an engine takes longer than most scripts do, so one worker is kept ready once the first
//! script has run. Each is used once.

use std::{
    io,
    path::PathBuf,
    process::Stdio,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{BufMut as _, BytesMut};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
};

use crate::{
    Ending, Host, Limits, Outcome, Script,
    message::{FromWorker, ToWorker},
};

/// Workers that wait.
const READY_MAX: usize = 2;

/// How long a worker may take to boot.
const BOOT_MAX: Duration = Duration::from_secs(20);

/// What is passed on of why a worker cannot work.
const WHY_CHARACTERS_MAX: usize = 300;

/// A longer message ends a worker.
const MESSAGE_BYTES_MAX: u64 = 64 << 20;

/// While more waits to be read by a worker, it is told no more.
const UNREAD_BYTES_MAX: usize = 1 << 20;

/// Starts workers and keeps some ready. Clones share them.
#[derive(Clone)]
pub struct Pool {
    inner: Arc<Inner>,
}

struct Inner {
    program: PathBuf,
    arguments: Vec<String>,
    limits: Limits,
    ready: Mutex<Vec<Worker>>,
    /// Workers that have run a script, whose ends nobody has seen yet. Those whose scripts have ended by themselves still wait.
    spent: Mutex<Vec<Worker>>,
    used: AtomicU64,
    closed: AtomicBool,
}

/// A worker cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    #[error("could not start a worker for the script; nothing was run. `mcp-broker doctor` tries one")]
    Start(#[source] io::Error),
    #[error("the worker for the script did not start, and nothing was run: {0}. `mcp-broker doctor` tries one")]
    Boot(String),
}

impl Pool {
    /// A pool of workers that are started as `program` with `arguments`. None is started yet.
    #[must_use]
    pub fn new(program: PathBuf, arguments: Vec<String>, limits: Limits) -> Self {
        Self {
            inner: Arc::new(Inner {
                program,
                arguments,
                limits,
                ready: Mutex::default(),
                spent: Mutex::default(),
                used: AtomicU64::new(0),
                closed: AtomicBool::new(false),
            }),
        }
    }

    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    /// Runs a script to its end. When `cancelled` completes, or this is dropped, the script and its calls end. A worker whose
    /// script has ended by itself waits for [`Pool::fill`], or for the end of the pool.
    ///
    /// # Errors
    ///
    /// When no worker can be had. What the script does is an outcome.
    pub async fn run(
        &self,
        script: Script,
        host: &dyn Host,
        cancelled: impl Future<Output = ()> + Send,
    ) -> Result<Outcome, PoolError> {
        if script.source.len() > self.inner.limits.script_bytes_max {
            return Ok(Outcome { ending: Ending::Limit(crate::Limit::Script), logs: Vec::new(), calls: Vec::new() });
        }
        self.inner.used.fetch_add(1, Ordering::Relaxed);
        let mut worker = self.take().await?;
        let outcome = crate::run::run(&mut worker, script, host, &self.inner.limits, cancelled).await;
        // One whose script has ended does nothing more. To give its memory back takes a while on a processor, for which
        // whoever waits for the outcome need not wait.
        if !matches!(outcome.ending, Ending::Completed(_) | Ending::Error(_)) {
            let _ = worker.child.start_kill();
        }
        self.spent().push(worker);
        Ok(outcome)
    }

    async fn take(&self) -> Result<Worker, PoolError> {
        loop {
            let waiting = self.ready().pop();
            match waiting {
                // One that died while it waited is passed over.
                Some(mut worker) => {
                    if matches!(worker.child.try_wait(), Ok(None)) {
                        return Ok(worker);
                    }
                }
                None => return self.start().await,
            }
        }
    }

    /// Ends spent workers, and has others ready for the next scripts. Better done when the outcome has been passed on.
    pub async fn fill(&self) {
        self.bury().await;
        while !self.inner.closed.load(Ordering::Acquire) && self.ready().len() < READY_MAX {
            let Ok(worker) = self.start().await else { return };
            let mut ready = self.ready();
            if !self.inner.closed.load(Ordering::Acquire) && ready.len() < READY_MAX {
                ready.push(worker);
            }
        }
    }

    /// How many scripts have run.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.inner.used.load(Ordering::Relaxed)
    }

    /// Ends the workers that wait, and keeps none from now on.
    pub async fn close(&self) {
        self.inner.closed.store(true, Ordering::Release);
        self.drain().await;
    }

    /// Ends the workers that wait.
    pub async fn drain(&self) {
        let ready: Vec<Worker> = self.ready().drain(..).collect();
        self.spent().extend(ready);
        self.bury().await;
    }

    async fn bury(&self) {
        let spent = std::mem::take(&mut *self.spent());
        for worker in spent {
            worker.end().await;
        }
    }

    async fn start(&self) -> Result<Worker, PoolError> {
        let inner = &self.inner;
        let mut command = Command::new(&inner.program);
        command
            .args(&inner.arguments)
            .arg(inner.limits.heap_bytes.to_string())
            .arg(inner.limits.cpu.as_secs().max(1).to_string())
            .env_clear()
            // The engine would keep compiled code in a folder under /tmp and take what it finds there.
            .env("V82JSC_NO_BC_CACHE", "1")
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // For an engine's last words. Nobody reads it before: what says more than a pipe holds, waits until it is killed.
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        // To start a process takes a while, in which nothing else would run on this thread.
        let starting = tokio::task::spawn_blocking(move || command.spawn());
        let mut child = starting.await.map_err(io::Error::from).flatten().map_err(PoolError::Start)?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(input), Some(output), Some(errors)) = pipes else {
            return Err(PoolError::Boot("it has no pipes".to_owned()));
        };
        let input = Input { pipe: input, unwritten: BytesMut::new() };
        let output = Output { pipe: BufReader::new(output), line: Vec::new() };
        let mut worker = Worker { child, input, output, errors };
        match tokio::time::timeout(BOOT_MAX, worker.output.receive()).await {
            Ok(Some(FromWorker::Ready)) => Ok(worker),
            Ok(Some(FromWorker::Unable(why))) => Err(PoolError::Boot(why.chars().take(WHY_CHARACTERS_MAX).collect())),
            Ok(_) => {
                let status =
                    worker.child.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string());
                Err(PoolError::Boot(status))
            }
            Err(_) => Err(PoolError::Boot(format!("it was not ready within {} s", BOOT_MAX.as_secs()))),
        }
    }

    fn ready(&self) -> MutexGuard<'_, Vec<Worker>> {
        self.inner.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spent(&self) -> MutexGuard<'_, Vec<Worker>> {
        self.inner.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end of a worker by a signal.
pub(crate) struct Death {
    pub(crate) signal: i32,
    pub(crate) last_words: String,
}

/// A worker process. Dropping it kills it.
pub(crate) struct Worker {
    child: Child,
    pub(crate) input: Input,
    pub(crate) output: Output,
    errors: ChildStderr,
}

/// What a worker is told. A worker that has much to say reads nothing meanwhile, so this is written while it is heard.
pub(crate) struct Input {
    pipe: ChildStdin,
    unwritten: BytesMut,
}

impl Input {
    /// Has it told something, as soon as [`Input::write`] is awaited.
    pub(crate) fn tell(&mut self, message: &ToWorker<Value>) -> serde_json::Result<()> {
        serde_json::to_writer((&mut self.unwritten).writer(), message)?;
        self.unwritten.put_u8(b'\n');
        Ok(())
    }

    pub(crate) fn is_written(&self) -> bool {
        self.unwritten.is_empty()
    }

    /// Whether the worker keeps up with what it is told.
    pub(crate) fn has_room(&self) -> bool {
        self.unwritten.len() <= UNREAD_BYTES_MAX
    }

    /// Writes some of it. Dropping this loses nothing.
    pub(crate) async fn write(&mut self) -> io::Result<()> {
        self.pipe.write_buf(&mut self.unwritten).await.map(drop)
    }
}

/// What a worker says.
pub(crate) struct Output {
    pipe: BufReader<ChildStdout>,
    line: Vec<u8>,
}

impl Output {
    /// The next message; `None` when the worker has ended, or says what it has no business to.
    ///
    /// Dropping this loses nothing: the next call goes on in the middle of the line.
    pub(crate) async fn receive(&mut self) -> Option<FromWorker> {
        let room = MESSAGE_BYTES_MAX.saturating_sub(self.line.len() as u64);
        (&mut self.pipe).take(room).read_until(b'\n', &mut self.line).await.ok()?;
        if self.line.last() != Some(&b'\n') {
            return None;
        }
        let line = std::mem::take(&mut self.line);
        serde_json::from_slice(&line).ok()
    }
}

impl Worker {
    /// How it ended, once it has ended by itself.
    pub(crate) async fn ended(&mut self) -> Option<Death> {
        use std::os::unix::process::ExitStatusExt as _;
        const PATIENCE: Duration = Duration::from_millis(500);
        const WORDS_BYTES_MAX: u64 = 64 << 10;
        let mut said = Vec::new();
        let last_words = async {
            let status = self.child.wait().await.ok()?;
            let _ = (&mut self.errors).take(WORDS_BYTES_MAX).read_to_end(&mut said).await;
            status.signal()
        };
        let signal = tokio::time::timeout(PATIENCE, last_words).await.ok()??;
        Some(Death { signal, last_words: String::from_utf8_lossy(&said).into_owned() })
    }

    async fn end(mut self) {
        let _ = self.child.kill().await;
    }
}
