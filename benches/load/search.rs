//! `mcp-find` as a client calls it, its record committed.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::{
    broker::{Home, Server},
    clients::HttpClient,
    figures::{Report, Samples},
};

const ROUNDS: usize = 5;

pub async fn run(report: &mut Report) -> anyhow::Result<()> {
    let data = std::env::var_os("MCP_BROKER_TEST_DATA").map(PathBuf::from);
    let Some(data) = data.filter(|data| data.join("docker-mcp.yaml").exists()) else {
        report.add("mcp-find", "not measured".into(), "MCP_BROKER_TEST_DATA names no catalog".into(), "1 ms p50");
        return Ok(());
    };
    let queries = queries(&std::fs::read_to_string(data.join("queries-dev.jsonl"))?)?;
    let home = Home::new(None)?;
    let catalog = data.join("docker-mcp.yaml").display().to_string();
    let broker = Server::broker(&home, &["--catalog", &catalog]).await?;
    let mut client = HttpClient::connect(&broker.url, Some(&home.token()?)).await?;
    client.call("mcp-find", &json!({"query": "time"})).await?;
    let (mut found, mut listed) = (Samples::default(), Samples::default());
    for query in std::iter::repeat_n(&queries, ROUNDS).flatten() {
        found.push(client.call("mcp-find", &json!({"query": query})).await?);
        listed.push(client.call("mcp-list", &json!({})).await?);
    }
    report.add(
        "mcp-find, 328 servers",
        format!("{:.3} ms p50, {:.3} ms p99", found.p50(), found.p99()),
        format!("{:.3} / {:.3} ms mcp-list, which looks nothing up", listed.p50(), listed.p99()),
        "1 ms p50",
    );
    broker.stop().await
}

fn queries(lines: &str) -> anyhow::Result<Vec<String>> {
    let mut queries = Vec::new();
    for line in lines.lines().filter(|line| !line.trim().is_empty()) {
        let value: Value = serde_json::from_str(line)?;
        queries.extend(value["query"].as_str().map(str::to_owned));
    }
    Ok(queries)
}
