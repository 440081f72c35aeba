//! What the broker's process keeps resident.

use std::time::Duration;

use serde_json::json;

use crate::{
    broker::{Home, Server},
    clients::HttpClient,
    figures::Report,
};

const SESSIONS: u64 = 1000;
/// A broker that nobody has called for so long gives back what it does not need.
const QUIET: Duration = Duration::from_secs(60);

pub async fn run(report: &mut Report) -> anyhow::Result<()> {
    let home = Home::new(None)?;
    let broker = Server::broker(&home, &[]).await?;
    let fixture = Server::fixture().await?;
    let mut client = HttpClient::connect(&broker.url, Some(&home.token()?)).await?;
    // The index is there once a search was answered.
    client.call("mcp-find", &json!({"query": "time"})).await?;
    let used = settled(&broker).await?;
    tokio::time::sleep(QUIET).await;
    let idle = settled(&broker).await?;
    report.add("resident, after a search", format!("{} MiB", used / 1024), String::new(), "");
    report.add(
        "resident, idle for a minute",
        format!("{} MiB", idle / 1024),
        format!("{} MiB the fixture server", fixture.resident_kib()? / 1024),
        "30 MB",
    );
    // With the first, what the program needs to begin one is mapped again: the others are what a session takes.
    let mut first = idle;
    for number in 0..SESSIONS {
        client.begin().await?;
        client.call("mcp-list", &json!({})).await?;
        if number == 0 {
            first = broker.resident_kib()?;
        }
    }
    let full = broker.resident_kib()?;
    report.add(
        "resident, 1,000 sessions with an open connection each",
        format!("{} MiB", full / 1024),
        format!("{:.1} KiB a session", full.saturating_sub(first) as f64 / (SESSIONS - 1) as f64),
        "40 KB a session",
    );
    fixture.stop().await?;
    broker.stop().await
}

/// What it keeps once that has not changed for a second, or after ten: what making the index took is given back beside the
/// first search.
async fn settled(broker: &Server) -> anyhow::Result<u64> {
    const LOOKS: usize = 10;
    const LOOKS_MAX: usize = 100;
    let (mut last, mut same) = (broker.resident_kib()?, 0);
    for _ in 0..LOOKS_MAX {
        if same == LOOKS {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = broker.resident_kib()?;
        same = if now == last { same + 1 } else { 0 };
        last = now;
    }
    Ok(last)
}
