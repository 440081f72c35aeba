//! `make escape`: attempts to get out of a worker. Every one has to fail.
//!
//! Scripts try to reach what the engine, or a host, might have left lying about; each returns what it got, and nothing is
//! what it has to get. Then native code in a process that is locked in as a worker is tries what a broken engine could: the
//! kernel has to end it. The program is its own worker, so this is not the usual test harness.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::{
    os::unix::process::ExitStatusExt as _,
    process::{Command, ExitCode, ExitStatus, Stdio},
    time::Duration,
};

use js_runtime::{CallFuture, Ending, Host, Limits, Pool, Script, worker};
use serde_json::{Value, value::RawValue};

/// Names under which engines and hosts offer a way out.
const NAMES: [&str; 40] = [
    "Deno",
    "__bootstrap",
    "process",
    "require",
    "module",
    "exports",
    "global",
    "Bun",
    "std",
    "os",
    "bjson",
    "print",
    "load",
    "read",
    "readFile",
    "writeFile",
    "loadScript",
    "scriptArgs",
    "quit",
    "gc",
    "fetch",
    "XMLHttpRequest",
    "WebSocket",
    "EventSource",
    "Worker",
    "importScripts",
    "WebAssembly",
    "SharedArrayBuffer",
    "Atomics",
    "ShadowRealm",
    "performance",
    "setTimeout",
    "setInterval",
    "setImmediate",
    "navigator",
    "location",
    "document",
    "window",
    "self",
    "localStorage",
];

/// Ways to look a name up.
const WAYS: [&str; 4] = [
    "return typeof NAME === 'undefined' ? null : 'reached'",
    "return globalThis['NAME'] === undefined ? null : 'reached'",
    "return (() => {}).constructor('return typeof NAME')() === 'undefined' ? null : 'reached'",
    "return (0, eval)('typeof NAME') === 'undefined' ? null : 'reached'",
];

/// Modules that would be something.
const MODULES: [&str; 12] = [
    "node:fs",
    "fs",
    "std",
    "os",
    "file:///etc/passwd",
    "/etc/passwd",
    "./x.js",
    "ext:core/mod.js",
    "ext:core/ops",
    "http://127.0.0.1/",
    "data:text/javascript,export default 1",
    "npm:left-pad",
];

/// Other tricks. Each returns null when it got nothing.
const TRICKS: [&str; 14] = [
    "const c = demo.echo.constructor; return typeof c('return Deno') === 'function' ? null : 'reached'",
    "return Object.getOwnPropertyNames(console).length > 5 ? 'reached' : null",
    "return Reflect.ownKeys(demo).length ? 'reached' : null",
    "return Reflect.ownKeys(broker).some((k) => !['search', 'describe', 'settle', 'call'].includes(k)) ? 'reached' : null",
    "try { throw new Error('x') } catch (e) { return /\\/(root|home|work|usr)\\//.test(e.stack) ? 'reached' : null }",
    "const e = await demo.none().catch((e) => e); return e.constructor.constructor('return typeof Deno')() === 'undefined' ? null : 'reached'",
    "Error.prepareStackTrace = (_, frames) => frames; const s = new Error().stack; return Array.isArray(s) && s[0].getThis && s[0].getThis() && s[0].getThis() !== globalThis ? 'reached' : null",
    "let got = null; Object.prototype.Ok = 1; Object.defineProperty(Object.prototype, 'core', {set(v) { got = v }, configurable: true}); await demo.echo({}); return got && 'reached'",
    "let got = null; const p = Promise.prototype.then; Promise.prototype.then = function (...a) { if (this.core) got = 1; return p.apply(this, a) }; await demo.echo({}); return got && 'reached'",
    "let got = null; const j = JSON.parse; JSON.parse = (t) => { got = t; return j(t) }; await demo.echo({secret: 1}); return got && 'reached'",
    "let got = null; Array.prototype.push = function (v) { got = v }; console.log('x'); return typeof got === 'function' ? 'reached' : null",
    "const f = function () { return this }; return f()?.Deno ? 'reached' : null",
    "const g = Object.getPrototypeOf(function* () {}).constructor('return typeof Deno'); return g().next().value === 'undefined' ? null : 'reached'",
    "return new Proxy(globalThis, {}).Deno ? 'reached' : null",
];

/// What native code tries after the lock.
const NATIVE: [&str; 9] =
    ["open", "write-file", "unlink", "socket", "listen", "spawn", "thread", "environment-file", "kill"];

const SIGSYS: i32 = 31;

struct Echo;

impl Host for Echo {
    fn call(&self, _server: String, tool: String, arguments: Box<RawValue>) -> CallFuture {
        Box::pin(async move {
            if tool == "echo" {
                Ok(serde_json::from_str(arguments.get()).unwrap())
            } else {
                Err("no such tool".to_owned().into())
            }
        })
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("worker") => worker::main(arguments[1].parse().unwrap(), arguments[2].parse().unwrap()),
        Some("native") => native(&arguments[1]),
        _ => suite(),
    }
}

fn suite() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let scripts = runtime.block_on(scripts());
    // The lock itself lets a program go on, and an attempt that gets something is noticed.
    assert_eq!(locked("nothing").code(), Some(0), "a program that is locked in goes on");
    let kernel = if cfg!(target_os = "linux") { NATIVE.iter().filter(|attempt| !denied(attempt)).count() } else { 0 };
    println!("escape: {} attempts, {} got out", attempts().len() + NATIVE.len(), scripts + kernel);
    if scripts + kernel == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn attempts() -> Vec<String> {
    let named = WAYS.iter().flat_map(|way| NAMES.iter().map(|name| way.replace("NAME", name)));
    let modules = MODULES
        .iter()
        .map(|module| format!("try {{ await import({module:?}); return 'reached' }} catch {{ return null }}"));
    named.chain(modules).chain(TRICKS.iter().map(|trick| (*trick).to_owned())).collect()
}

/// How many attempts of scripts got something.
async fn scripts() -> usize {
    let limits = Limits { wall: Duration::from_secs(10), ..Limits::default() };
    let pool = Pool::new(std::env::current_exe().unwrap(), vec!["worker".to_owned()], limits);
    let mut escaped = 0;
    for source in attempts() {
        let script = Script { source: source.clone(), servers: vec![("demo".to_owned(), vec!["echo".to_owned()])] };
        let outcome = pool.run(script, &Echo, std::future::pending()).await.unwrap();
        pool.fill().await;
        // An error would prove nothing: every attempt catches what it expects.
        if outcome.ending != Ending::Completed(Value::Null) {
            println!("got out: {source}: {:?}", outcome.ending);
            escaped += 1;
        }
    }
    escaped
}

/// Runs native code that is locked in, and says whether the kernel ended it.
fn denied(attempt: &str) -> bool {
    let status = locked(attempt);
    let denied = status.signal() == Some(SIGSYS);
    if !denied {
        println!("got out: native {attempt}: {status}");
    }
    denied
}

fn locked(attempt: &str) -> ExitStatus {
    Command::new(std::env::current_exe().unwrap())
        .args(["native", attempt])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap()
}

fn native(attempt: &str) -> ExitCode {
    let parent = rustix::process::getppid();
    worker::sandbox::lock(64 << 20, 5).unwrap();
    match attempt {
        "nothing" => {}
        "open" => drop(std::fs::read("/etc/hostname")),
        "write-file" => drop(std::fs::write("/tmp/escaped", "x")),
        "unlink" => drop(std::fs::remove_file("/tmp/escaped")),
        "socket" => drop(std::net::TcpStream::connect("127.0.0.1:9")),
        "listen" => drop(std::net::TcpListener::bind("127.0.0.1:0")),
        "spawn" => drop(Command::new("/bin/true").spawn()),
        "thread" => drop(std::thread::Builder::new().spawn(|| ())),
        "environment-file" => drop(std::fs::read("/proc/self/environ")),
        "kill" => drop(parent.map(|parent| rustix::process::kill_process(parent, rustix::process::Signal::CONT))),
        other => panic!("{other} is no attempt"),
    }
    ExitCode::SUCCESS
}
