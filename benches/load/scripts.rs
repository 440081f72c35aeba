//! Scripts: what one costs beside the calls it makes.

use serde_json::{Value, json};

use crate::{
    broker::{Home, Server},
    clients::HttpClient,
    figures::{Report, Samples},
};

const RUNS: usize = 60;
const CALLS: u32 = 1000;

pub async fn run(report: &mut Report) -> anyhow::Result<()> {
    let home = Home::new(None)?;
    let settings = home.settings("code_mode: {calls_max: 100000, wall_seconds: 300, cpu_seconds: 300}")?;
    let broker = Server::broker(&home, &["--config", &settings]).await?;
    let mut client = HttpClient::connect(&broker.url, Some(&home.token()?)).await?;
    client.call("mcp-add", &json!({"name": "local"})).await?;
    let first = json!({"servers": ["local"], "name": "x", "script": "return 1 + 1"});
    let cold = client.call("code-mode", &first).await?.as_secs_f64() * 1000.0;

    let (mut nothing, mut one, mut call) = (Samples::default(), Samples::default(), Samples::default());
    for _ in 0..RUNS {
        // A call in between gives the pool the time that a conversation would.
        for _ in 0..100 {
            call.push(client.call("local__echo", &json!({"text": "hello"})).await?);
        }
        nothing.push(client.call("code-mode-x", &script("return 1 + 1")).await?);
        for _ in 0..100 {
            client.call("local__echo", &json!({"text": "hello"})).await?;
        }
        one.push(client.call("code-mode-x", &script("return await local.echo({text: 'hello'})")).await?);
    }
    let beside = format!("{:.3} ms a call without a script", call.p50());
    report.add("script `return 1 + 1`, no worker ready", format!("{cold:.1} ms"), String::new(), "");
    report.add("script `return 1 + 1`", format!("{:.3} ms p50", nothing.p50()), beside.clone(), "1 ms");
    report.add("script with one call", format!("{:.3} ms p50", one.p50()), beside.clone(), "1.5 ms");
    let sequential = format!("for (let i = 0; i < {CALLS}; i++) await local.echo({{text: 'hello'}}); return 1");
    let took = client.call("code-mode-x", &script(&sequential)).await?.as_secs_f64() * 1000.0 / f64::from(CALLS);
    report.add("1,000 calls of a script, one by one", format!("{took:.3} ms each"), beside.clone(), "0.25 ms each");
    let parallel =
        format!("await Promise.all(Array.from({{length: {CALLS}}}, () => local.echo({{text: 'hello'}}))); return 1");
    let a_second = f64::from(CALLS) / client.call("code-mode-x", &script(&parallel)).await?.as_secs_f64();
    report.add("1,000 calls of a script, at once", format!("{a_second:.0}/s"), beside, "10,000/s");
    broker.stop().await
}

fn script(source: &str) -> Value {
    json!({"script": source})
}
