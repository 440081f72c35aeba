//! Scripts: what one costs beside the calls it makes. The engine is the one that the broker was built with.

use std::time::Duration;

use js_runtime::{CallFuture, ENGINE, Ending, Host, Limits, Pool, Script};
use serde_json::{Value, json, value::RawValue};
use tokio::time::Instant;

use crate::{
    broker::{Home, Server, program},
    clients::HttpClient,
    figures::{Report, Samples},
};

/// Limits that calls by the thousand need, and messages of many megabytes.
const SETTINGS: &str = "{code_mode: {calls_max: 100000, wall_seconds: 300, cpu_seconds: 300}, \
                        limits: {message_bytes_max: 67108864}}";
const STARTS: usize = 5;
const RUNS: usize = 60;
const ROUNDS: usize = 25;
const CALLS: u32 = 1000;
const MEGABYTES: u32 = 10;
/// Between two scripts. Two workers boot in a third of it where two cores are busy with calls.
const PAUSE: Duration = Duration::from_millis(300);

pub async fn run(report: &mut Report) -> anyhow::Result<()> {
    let mut cold = Samples::default();
    for _ in 0..STARTS {
        let (_home, broker, mut client) = start().await?;
        cold.push(client.call("code-mode-x", &script("return 1 + 1")).await?);
        broker.stop().await?;
    }
    let (home, broker, mut client) = start().await?;
    let (mut nothing, mut one, mut call) = (Samples::default(), Samples::default(), Samples::default());
    for _ in 0..RUNS {
        call.push(pause(&mut client).await?);
        nothing.push(client.call("code-mode-x", &script("return 1 + 1")).await?);
        call.push(pause(&mut client).await?);
        one.push(client.call("code-mode-x", &script("return await local.echo({text: 'hello'})")).await?);
    }
    let beside = format!("{:.3} ms a call without a script", call.p50());
    let mut add = |what: &str, value: String, beside: &str, budget: &str| {
        report.add(&format!("{ENGINE}: {what}"), value, beside.to_owned(), budget);
    };
    let (p50, p99) = (cold.p50(), cold.p99());
    add("script `return 1 + 1`, no worker ready", format!("{p50:.1} ms p50, {p99:.1} ms p99"), "", "");
    let (p50, p99) = (nothing.p50(), nothing.p99());
    add("script `return 1 + 1`", format!("{p50:.3} ms p50, {p99:.3} ms p99"), &beside, "1 ms p50");
    let (p50, p99) = (one.p50(), one.p99());
    add("script with one call", format!("{p50:.3} ms p50, {p99:.3} ms p99"), &beside, "1.5 ms p50");

    let each = rounds(&home, &mut client, &one_by_one()).await? / f64::from(CALLS);
    add("1,000 calls of a script, one by one", format!("{each:.3} ms each"), &beside, "0.25 ms each");
    let source =
        format!("await Promise.all(Array.from({{length: {CALLS}}}, () => local.echo({{text: 'hello'}}))); return 1");
    let a_second = f64::from(CALLS) * 1000.0 / rounds(&home, &mut client, &source).await?;
    add("1,000 calls of a script, at once", format!("{a_second:.0}/s"), &beside, "10,000/s");
    let source = format!(
        "const text = JSON.stringify(Array.from({{length: {MEGABYTES} * 10000}}, (_, id) => ({{id, of: 'x'.repeat(80)}})));
         const back = JSON.parse((await local.echo({{text}})).text); return [text.length, back.length]"
    );
    let took = rounds(&home, &mut client, &source).await?;
    let speed = format!("{:.0} MB/s, both ways", f64::from(MEGABYTES) * 2000.0 / took);
    add("10 MB of JSON to a tool and back", format!("{took:.0} ms"), &speed, "");
    pause(&mut client).await?;
    let (resident, own) = broker.child_kib("js-worker")?;
    let beside = format!("{:.1} MiB of it its own", own as f64 / 1024.0);
    add("resident, a worker that waits", format!("{:.1} MiB", resident as f64 / 1024.0), &beside, "");
    broker.stop().await?;
    alone(report).await
}

/// A broker with a server on and a code tool over it, and no worker yet.
async fn start() -> anyhow::Result<(Home, Server, HttpClient)> {
    let home = Home::new(None)?;
    let settings = home.settings(SETTINGS)?;
    let broker = Server::broker(&home, &["--config", &settings]).await?;
    let mut client = HttpClient::connect(&broker.url, Some(&home.token()?)).await?;
    client.call("mcp-add", &json!({"name": "local"})).await?;
    client.call("code-mode", &json!({"servers": ["local"], "name": "x"})).await?;
    Ok((home, broker, client))
}

/// Scripts without a broker: workers, and calls that are answered at once. Workers are what `MCP_BROKER_BENCH_WORKER` names,
/// if not the broker's program.
async fn alone(report: &mut Report) -> anyhow::Result<()> {
    let program = std::env::var_os("MCP_BROKER_BENCH_WORKER").map_or_else(|| program().to_owned(), Into::into);
    let limits = Limits { calls_max: 100_000, ..Limits::default() };
    let pool = Pool::new(program, vec!["js-worker".to_owned()], limits);
    let (mut nothing, mut one) = (Samples::default(), Samples::default());
    for _ in 0..RUNS {
        nothing.push(worker(&pool, "return 1 + 1").await?);
        one.push(worker(&pool, "return await local.echo({text: 'hello'})").await?);
    }
    let many = worker(&pool, &one_by_one()).await?.as_secs_f64() * 1000.0 / f64::from(CALLS);
    pool.close().await;
    report.add(
        &format!("{ENGINE}: a script in its worker, without a broker"),
        format!("{:.3} ms p50, {:.3} ms with one call, {many:.3} ms for each of 1,000", nothing.p50(), one.p50()),
        String::new(),
        "",
    );
    Ok(())
}

/// How long a script takes in a worker that is ready.
async fn worker(pool: &Pool, source: &str) -> anyhow::Result<Duration> {
    pool.fill().await;
    let script = Script { source: source.to_owned(), servers: vec![("local".to_owned(), vec!["echo".to_owned()])] };
    let begun = Instant::now();
    let outcome = pool.run(script, &Echo, std::future::pending()).await?;
    anyhow::ensure!(matches!(outcome.ending, Ending::Completed(_)), "the script ends so: {:?}", outcome.ending);
    Ok(begun.elapsed())
}

struct Echo;

impl Host for Echo {
    fn call(&self, _server: String, _tool: String, _arguments: Box<RawValue>) -> CallFuture {
        Box::pin(async { Ok(json!({"text": "hello"})) })
    }
}

fn one_by_one() -> String {
    format!("for (let i = 0; i < {CALLS}; i++) await local.echo({{text: 'hello'}}); return 1")
}

/// Calls without a script, for as long as it takes to have the workers ready again; how long the last took.
async fn pause(client: &mut HttpClient) -> anyhow::Result<Duration> {
    let hello = json!({"text": "hello"});
    let begun = Instant::now();
    while begun.elapsed() < PAUSE {
        client.call("local__echo", &hello).await?;
    }
    client.call("local__echo", &hello).await
}

/// The middle of many runs, in milliseconds, each of a broker whose log is at rest. The first few are on new ground, where memory
/// and the log still grow.
async fn rounds(home: &Home, client: &mut HttpClient, source: &str) -> anyhow::Result<f64> {
    let mut samples = Samples::default();
    for _ in 0..ROUNDS {
        home.rested().await?;
        pause(client).await?;
        samples.push(client.call("code-mode-x", &script(source)).await?);
    }
    Ok(samples.p50())
}

fn script(source: &str) -> Value {
    json!({"script": source})
}
