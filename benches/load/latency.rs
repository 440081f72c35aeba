//! What the broker adds to one call, its audit record committed.

use serde_json::json;

use crate::{
    broker::{Home, Server, fixture, program},
    clients::{HttpClient, StdioClient},
    figures::{Report, Samples},
};

const WARM_UP: usize = 300;
const CALLS: usize = 4000;

pub async fn run(report: &mut Report) -> anyhow::Result<()> {
    over_stdio(report).await?;
    over_stdio_attached(report).await?;
    over_http(report).await?;
    over_modern_http(report).await
}

async fn over_stdio(report: &mut Report) -> anyhow::Result<()> {
    let home = Home::new(None)?;
    let (data, catalog) = (home.data(), home.catalog());
    let arguments = ["stdio", "--data-dir", &data, "--catalog", &catalog, "--log", "warn"];
    stdio_pair(report, "call over stdio", &arguments, "+0.25 ms p50").await
}

/// The same where another process is the broker of the data folder.
async fn over_stdio_attached(report: &mut Report) -> anyhow::Result<()> {
    let home = Home::new(None)?;
    let broker = Server::broker(&home, &[]).await?;
    let data = home.data();
    stdio_pair(report, "call over stdio, attached to a broker", &["stdio", "--data-dir", &data], "").await?;
    broker.stop().await
}

async fn stdio_pair(report: &mut Report, what: &str, arguments: &[&str], budget: &str) -> anyhow::Result<()> {
    let hello = json!({"text": "hello"});
    let mut direct = StdioClient::start(&fixture()?, &["stdio"]).await?;
    let mut through = StdioClient::start(program(), arguments).await?;
    through.call("mcp-add", &json!({"name": "local"})).await?;
    let (mut a, mut b) = (Samples::default(), Samples::default());
    for number in 0..WARM_UP + CALLS {
        let (one, other) = (through.call("local__echo", &hello).await?, direct.call("echo", &hello).await?);
        if number >= WARM_UP {
            a.push(one);
            b.push(other);
        }
    }
    report.add_pair(what, &a, &b, budget);
    through.stop().await?;
    direct.stop().await
}

async fn over_http(report: &mut Report) -> anyhow::Result<()> {
    let hello = json!({"text": "hello"});
    let upstream = Server::fixture().await?;
    let home = Home::new(Some(&upstream.url))?;
    let broker = Server::broker(&home, &[]).await?;
    let mut through = HttpClient::connect(&broker.url, Some(&home.token()?)).await?;
    for name in ["local", "distant"] {
        through.call("mcp-add", &json!({"name": name})).await?;
    }
    let mut direct = HttpClient::connect(&upstream.url, None).await?;
    let mut piped = StdioClient::start(&fixture()?, &["stdio"]).await?;
    let [mut a, mut b, mut c, mut d] = std::array::from_fn(|_| Samples::default());
    for number in 0..WARM_UP + CALLS {
        let distant = through.call("distant__echo", &hello).await?;
        let beside = direct.call("echo", &hello).await?;
        let local = through.call("local__echo", &hello).await?;
        let beside_local = piped.call("echo", &hello).await?;
        if number >= WARM_UP {
            a.push(distant);
            b.push(beside);
            c.push(local);
            d.push(beside_local);
        }
    }
    report.add_pair("call over HTTP, to a server over HTTP", &a, &b, "+0.35 ms p50");
    report.add_pair("call over HTTP, to a server over stdio", &c, &d, "+0.35 ms p50");
    piped.stop().await?;
    broker.stop().await?;
    upstream.stop().await
}

/// The same with a client of revision 2026-07-28, at the URL of a session.
async fn over_modern_http(report: &mut Report) -> anyhow::Result<()> {
    let hello = json!({"text": "hello"});
    let upstream = Server::fixture().await?;
    let home = Home::new(Some(&upstream.url))?;
    let broker = Server::broker(&home, &[]).await?;
    let url = home.new_session().await?;
    let mut through = HttpClient::modern(&url, Some(&home.token()?)).await?;
    through.call("mcp-add", &json!({"name": "distant"})).await?;
    let mut direct = HttpClient::modern(&upstream.url, None).await?;
    let [mut a, mut b] = std::array::from_fn(|_| Samples::default());
    for number in 0..WARM_UP + CALLS {
        let distant = through.call("distant__echo", &hello).await?;
        let beside = direct.call("echo", &hello).await?;
        if number >= WARM_UP {
            a.push(distant);
            b.push(beside);
        }
    }
    report.add_pair("call over HTTP, 2026-07-28, to a server over HTTP", &a, &b, "+0.35 ms p50");
    broker.stop().await?;
    upstream.stop().await
}
