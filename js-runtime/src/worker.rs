//! Inside the worker: the engine, the one way out of it, and the lock.
//!
//! Everything a script must not reach is taken away before it is seen: the engine's own operations are switched off but
//! for those it cannot run without, the objects that lead to them are removed from the global object, and what the host's
//! side of the script uses is captured in closures before the script can change a builtin. A script's types are taken out
//! here as well, behind the lock: what a parser makes of hostile text is as little the broker's business as what it does.

mod input;
pub mod sandbox;
mod types;

use std::{
    cell::RefCell,
    collections::HashMap,
    io::{self, Write as _},
    process::ExitCode,
    rc::Rc,
    time::Duration,
};

use deno_core::{Extension, JsRuntime, OpState, PollEventLoopOptions, RuntimeOptions, op2, v8};
use deno_error::JsErrorBox;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use crate::{
    CallError, Script, ScriptError,
    message::{FromWorker, ToWorker},
    patience::Patience,
};
use input::Input;
use types::Stripped;

const BOOTSTRAP: &str = include_str!("worker/bootstrap.js");

/// A script with what most scripts have.
const WARM_UP: &str = "const texts: string[] = await Promise.all([`1`, `2`].map(async (text) => ({ text }).text));
return texts.filter((text) => text !== '1').length";

/// What a call gave, as text: the engine parses it.
type Answered = Result<Box<RawValue>, CallError>;

/// How long the answer to a script's only call is awaited without sleep. All these waits may take a tenth of what the script
/// may take of a processor.
const SOON: Duration = Duration::from_micros(500);

/// Calls that wait for their answers.
#[derive(Default)]
struct Waiting {
    last: u64,
    answers: HashMap<u64, oneshot::Sender<Answered>>,
}

type SharedWaiting = Rc<RefCell<Waiting>>;

/// Runs a worker on standard input and output, for one script.
#[must_use]
pub fn main(heap_bytes: u64, cpu_seconds: u64) -> ExitCode {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return ExitCode::FAILURE;
    };
    match runtime.block_on(work(heap_bytes, cpu_seconds)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = say(&FromWorker::Unable(error.to_string()));
            ExitCode::FAILURE
        }
    }
}

async fn work(heap_bytes: u64, cpu_seconds: u64) -> io::Result<()> {
    let mut input = Input::new()?;
    let waiting = SharedWaiting::default();
    let (mut engine, runner) = boot(heap_bytes, waiting.clone())?;
    warm(&mut engine, &runner).await?;
    sandbox::lock(heap_bytes, cpu_seconds)?;
    say(&FromWorker::Ready)?;
    // For as long as it takes.
    let mut asleep = Patience::new(Duration::ZERO, Duration::ZERO);
    let Some(line) = input.line(&mut asleep).await? else { return Ok(()) };
    let ToWorker::<Box<RawValue>>::Start(script) = serde_json::from_slice(line)? else {
        return Err(io::Error::other("no script"));
    };
    let prepared = prepare(script);
    say(&FromWorker::Read)?;
    let outcome = match prepared {
        Err(error) => Err(error),
        Ok(prepared) => {
            let script = serde_json::to_string(&prepared)?;
            let mut patience = Patience::new(SOON, Duration::from_secs(cpu_seconds) / 10);
            let answers = async {
                loop {
                    // Of many calls some answer has come by the time the script has taken the last.
                    let one_by_one = waiting.borrow().answers.len() <= 1;
                    let patience = if one_by_one { &mut patience } else { &mut asleep };
                    let Ok(Some(line)) = input.line(patience).await else { return };
                    if let Ok(ToWorker::Answer { id, outcome }) = serde_json::from_slice(line)
                        && let Some(answer) = waiting.borrow_mut().answers.remove(&id)
                    {
                        let _ = answer.send(outcome);
                    }
                }
            };
            tokio::select! {
                // What the engine can do comes before a look at what it waits for.
                biased;
                outcome = execute(&mut engine, &runner, &script) => outcome,
                () = answers => return Ok(()),
            }
        }
    };
    say(&FromWorker::Done(outcome))?;
    // Whoever ran it ends it when there is time for that: to take the engine down keeps a processor busy.
    while input.line(&mut asleep).await?.is_some() {}
    Ok(())
}

/// Runs a first script, so that the code it goes through is in memory when the one comes that somebody waits for.
async fn warm(engine: &mut JsRuntime, runner: &v8::Global<v8::Function>) -> io::Result<()> {
    let script = Script { source: WARM_UP.to_owned(), servers: Vec::new() };
    let failed = |error: ScriptError| io::Error::other(error.message);
    let prepared = prepare(script).map_err(failed)?;
    execute(engine, runner, &serde_json::to_string(&prepared)?).await.map(drop).map_err(failed)
}

/// A script as the engine gets it.
#[derive(Serialize)]
struct Prepared {
    #[serde(flatten)]
    script: Script,
    /// What is wrong with it as TypeScript; the engine may still take it as it is.
    wrong: Option<ScriptError>,
}

fn prepare(mut script: Script) -> Result<Prepared, ScriptError> {
    let wrong = match types::blank(&script.source) {
        Stripped::Blanked(source) => {
            script.source = source;
            None
        }
        Stripped::Unreadable(error) => Some(error),
        Stripped::NotOnlyTypes(error) => return Err(error),
    };
    Ok(Prepared { script, wrong })
}

/// Writes a message. It blocks until there is room, so that a script cannot fill the memory with what it says.
fn say(message: &FromWorker) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    let mut output = io::stdout().lock();
    output.write_all(&line)?;
    output.flush()
}

#[op2]
#[string]
async fn op_call(
    state: Rc<RefCell<OpState>>,
    #[string] server: String,
    #[string] tool: String,
    #[string] arguments: String,
) -> Result<String, JsErrorBox> {
    let arguments = RawValue::from_string(arguments).map_err(|error| JsErrorBox::type_error(error.to_string()))?;
    let waiting = state.borrow().borrow::<SharedWaiting>().clone();
    let (answer, answered) = oneshot::channel();
    let id = {
        let mut waiting = waiting.borrow_mut();
        waiting.last += 1;
        let id = waiting.last;
        waiting.answers.insert(id, answer);
        id
    };
    let gone = |_| JsErrorBox::generic("the broker is gone");
    say(&FromWorker::Call { id, server, tool, arguments }).map_err(|_| JsErrorBox::generic("the broker is gone"))?;
    let outcome = answered.await.map_err(gone)?;
    serde_json::to_string(&outcome).map_err(|error| JsErrorBox::generic(error.to_string()))
}

#[op2(fast)]
fn op_log(#[string] line: String) {
    let _ = say(&FromWorker::Log(line));
}

fn boot(heap_bytes: u64, waiting: SharedWaiting) -> io::Result<(JsRuntime, v8::Global<v8::Function>)> {
    let extension = Extension {
        name: "tools",
        ops: std::borrow::Cow::Owned(vec![op_call(), op_log()]),
        op_state_fn: Some(Box::new(move |state| state.put(waiting))),
        ..Default::default()
    };
    let heap = usize::try_from(heap_bytes).unwrap_or(usize::MAX);
    // One thread: others would still be starting when the worker is locked in, and ask for what it must not have then.
    deno_core::v8_set_flags(vec![String::new(), "--single-threaded".to_owned()]);
    let mut engine = JsRuntime::try_new(RuntimeOptions {
        v8_platform: Some(v8::new_single_threaded_default_platform(false).make_shared()),
        extensions: vec![extension],
        create_params: Some(v8::CreateParams::default().heap_limits(0, heap)),
        ..Default::default()
    })
    .map_err(|error| io::Error::other(error.to_string()))?;
    let runner =
        engine.execute_script("[bootstrap]", BOOTSTRAP).map_err(|error| io::Error::other(error.to_string()))?;
    let runner = {
        deno_core::scope!(scope, &mut engine);
        let runner = v8::Local::new(scope, runner);
        let runner: v8::Local<'_, v8::Function> =
            runner.try_into().map_err(|_| io::Error::other("the bootstrap gives no function"))?;
        v8::Global::new(scope, runner)
    };
    Ok((engine, runner))
}

async fn execute(
    engine: &mut JsRuntime,
    runner: &v8::Global<v8::Function>,
    script: &str,
) -> Result<Box<RawValue>, ScriptError> {
    let argument = {
        deno_core::scope!(scope, engine);
        let Some(text) = v8::String::new(scope, script) else {
            return Err(ScriptError::told("the script does not fit the engine's memory"));
        };
        let text: v8::Local<'_, v8::Value> = text.into();
        v8::Global::new(scope, text)
    };
    let promise = engine.call_with_args(runner, &[argument]);
    let settled = engine.with_event_loop_promise(promise, PollEventLoopOptions::default()).await;
    let text = match settled {
        Ok(value) => {
            deno_core::scope!(scope, engine);
            v8::Local::new(scope, value).to_rust_string_lossy(scope)
        }
        Err(error) => return Err(ScriptError::told(&unsettled(&error.to_string()))),
    };
    let outcome: Result<Box<RawValue>, ScriptError> = serde_json::from_str(&text)
        .map_err(|error| ScriptError::told(&format!("the outcome cannot be read: {error}")))?;
    outcome
}

/// What the engine says when nothing is left to do and the script has not ended.
fn unsettled(message: &str) -> String {
    if message.contains("Promise resolution is still pending") {
        return "the script waits for what will never happen, or asked for more memory than it may have".to_owned();
    }
    message.to_owned()
}
