//! Calls a second with many clients at once, each in a session of its own.

use tokio::time::Instant;

use serde_json::json;

use crate::{
    broker::{Home, Server},
    clients::HttpClient,
    figures::{Report, Samples},
};

const CLIENTS: usize = 32;
const CALLS: usize = 400;

pub async fn run(report: &mut Report) -> anyhow::Result<()> {
    let upstream = Server::fixture().await?;
    let home = Home::new(Some(&upstream.url))?;
    let broker = Server::broker(&home, &[]).await?;
    let token = home.token()?;
    let mut through = Vec::new();
    let mut direct = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = HttpClient::connect(&broker.url, Some(&token)).await?;
        client.call("mcp-add", &json!({"name": "distant"})).await?;
        through.push(client);
        direct.push(HttpClient::connect(&upstream.url, None).await?);
    }
    let (beside, _) = calls_a_second(&mut direct, "echo").await?;
    let (value, samples) = calls_a_second(&mut through, "distant__echo").await?;
    report.add(
        "calls a second, 32 clients over HTTP",
        format!("{value:.0}/s, p50 {:.2} ms, p99 {:.2} ms", samples.p50(), samples.p99()),
        format!("{beside:.0}/s direct, ×{:.2}", value / beside),
        "",
    );
    broker.stop().await?;
    upstream.stop().await
}

async fn calls_a_second(clients: &mut [HttpClient], tool: &str) -> anyhow::Result<(f64, Samples)> {
    let start = Instant::now();
    let all = clients.iter_mut().map(async |client| {
        let mut times = Vec::with_capacity(CALLS);
        for _ in 0..CALLS {
            times.push(client.call(tool, &json!({"text": "hello"})).await?);
        }
        anyhow::Ok(times)
    });
    let times = futures_util::future::try_join_all(all).await?;
    let seconds = start.elapsed().as_secs_f64();
    let mut samples = Samples::default();
    times.into_iter().flatten().for_each(|time| samples.push(time));
    #[expect(clippy::cast_precision_loss, reason = "thousands")]
    let calls = (clients.len() * CALLS) as f64;
    Ok((calls / seconds, samples))
}
