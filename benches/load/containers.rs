//! Servers in containers, beside the same image run by hand.
//!
//! Without a container engine this part is skipped, and says so.

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Context as _, ensure};
use serde_json::json;
use tokio::time::Instant;

use crate::{
    broker::{Home, Server, fixture, program},
    clients::{HttpClient, StdioClient},
    figures::{Report, Samples},
};

const NETWORK: &str = "mcp-broker-bench";
const IMAGE: &str = "mcp-broker-bench/fixture:1";
const STARTS: usize = 10;
const WARM_UP: usize = 300;
const CALLS: usize = 4000;

pub async fn run(report: &mut Report) -> anyhow::Result<()> {
    let engine = Command::new("docker").args(["version", "--format", "{{.Server.Version}}"]).output();
    let Some(engine) = engine.ok().filter(|output| output.status.success()) else {
        eprintln!("containers: skipped, as no Docker Engine answers");
        return Ok(());
    };
    // How long it takes for a container, and for what of it, is different from one to another.
    let engine = String::from_utf8(engine.stdout)?;
    let work = tempfile::tempdir()?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/docker/fixture-image");
    let made = Command::new(script).arg(fixture()?).arg(IMAGE).arg(work.path()).status()?;
    ensure!(made.success(), "the image with the fixture could not be made");
    let measured = measure(report, engine.trim()).await;
    Command::new("docker").args(["rmi", "--force", IMAGE]).output()?;
    measured
}

async fn measure(report: &mut Report, engine: &str) -> anyhow::Result<()> {
    // A name of its own for each start that is to find nothing known, and one for the start before them.
    let names: Vec<String> = (0..=STARTS).map(|number| format!("box-{number}")).collect();
    let home = Home::new(None)?.with_images(&names, IMAGE)?;
    let broker = Server::broker(&home, &[]).await?;
    let mut client = HttpClient::connect(&broker.url, Some(&home.token()?)).await?;
    starts(report, engine, &mut client, &names).await?;
    over_http(report, &mut client, &names[0]).await?;
    broker.stop().await?;
    over_stdio(report, &names[0]).await
}

/// Waits until the broker has no container in the engine, and only the network that it keeps for the next session: what is
/// being made or removed slows down what is measured next.
async fn settled() -> anyhow::Result<()> {
    let ours = ["--quiet", "--filter", "label=mcp-broker.folder"];
    let deadline = Instant::now() + Duration::from_secs(60);
    for (list, lines) in [(&["ps", "--all"][..], 0), (&["network", "ls"], 1)] {
        loop {
            let output = tokio::process::Command::new("docker").args(list).args(ours).output().await?;
            if String::from_utf8(output.stdout)?.lines().count() == lines {
                break;
            }
            ensure!(Instant::now() < deadline, "the broker leaves something in the engine");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    Ok(())
}

async fn by_hand(network: &str) -> anyhow::Result<StdioClient> {
    let run = ["run", "--interactive", "--rm", "--init", "--network", network, IMAGE];
    StdioClient::start(Path::new("docker"), &run).await
}

async fn network(what: &str) -> anyhow::Result<()> {
    let done = tokio::process::Command::new("docker").args(["network", what, NETWORK]).output().await?;
    ensure!(done.status.success(), "docker network {what}: {}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}

async fn starts(report: &mut Report, engine: &str, client: &mut HttpClient, names: &[String]) -> anyhow::Result<()> {
    let hello = json!({"text": "hello"});
    let [mut unknown, mut known, mut second, mut added, mut hand, mut within, mut apart] =
        std::array::from_fn(|_| Samples::default());
    // A broker's first container makes the first network.
    let (before, names) = names.split_last().context("there is one more")?;
    client.call("mcp-add", &json!({"name": before})).await?;
    client.call("mcp-remove", &json!({"name": before})).await?;
    settled().await?;
    for name in names {
        let (add, echo) = (json!({"name": name}), format!("{name}__echo"));
        client.begin().await?;
        let start = Instant::now();
        client.call("mcp-add", &add).await?;
        client.call(&echo, &hello).await?;
        unknown.push(start.elapsed());
        client.call("mcp-remove", &add).await?;
        settled().await?;

        client.begin().await?;
        let start = Instant::now();
        added.push(client.call("mcp-add", &add).await?);
        client.call(&echo, &hello).await?;
        known.push(start.elapsed());
        client.call("mcp-remove", &add).await?;
        settled().await?;

        // In a session that has a network already.
        client.begin().await?;
        client.call("mcp-add", &json!({"name": names[0]})).await?;
        client.call(&format!("{}__echo", names[0]), &hello).await?;
        if *name != names[0] {
            let start = Instant::now();
            client.call("mcp-add", &add).await?;
            client.call(&echo, &hello).await?;
            second.push(start.elapsed());
            client.call("mcp-remove", &add).await?;
        }
        client.call("mcp-remove", &json!({"name": names[0]})).await?;
        settled().await?;

        let start = Instant::now();
        let mut alone = by_hand("bridge").await?;
        alone.call("echo", &hello).await?;
        hand.push(start.elapsed());
        alone.stop().await?;

        // What keeps sessions apart, made by hand too.
        let start = Instant::now();
        network("create").await?;
        let mut alone = by_hand(NETWORK).await?;
        alone.call("echo", &hello).await?;
        apart.push(start.elapsed());
        alone.stop().await?;
        let start = Instant::now();
        let mut alone = by_hand(NETWORK).await?;
        alone.call("echo", &hello).await?;
        within.push(start.elapsed());
        alone.stop().await?;
        network("rm").await?;
    }
    let run = format!("by `docker run` with Engine {engine}");
    let beside = |samples: &Samples| {
        let ours = samples.p50();
        let by_hand = [
            (&hand, run.as_str()),
            (&within, "on a network like the broker's that is there"),
            (&apart, "with the making of one"),
        ];
        by_hand.map(|(by, how)| format!("{:.0} ms {how}, ×{:.2}", by.p50(), ours / by.p50())).join("; ")
    };
    let first = "container: mcp-add to the first result";
    report.add(&format!("{first}, nothing known"), format!("{:.0} ms p50", unknown.p50()), beside(&unknown), "×1.10");
    report.add(&format!("{first}, tools known"), format!("{:.0} ms p50", known.p50()), beside(&known), "×1.10");
    let second_first = format!("{first}, beside another server");
    report.add(&second_first, format!("{:.0} ms p50", second.p50()), beside(&second), "×1.10");
    let rest = format!("{:.1} ms p99", added.p99());
    report.add("container: mcp-add, tools known", format!("{:.1} ms p50", added.p50()), rest, "50 ms");
    Ok(())
}

async fn over_http(report: &mut Report, client: &mut HttpClient, name: &str) -> anyhow::Result<()> {
    client.begin().await?;
    client.call("mcp-add", &json!({"name": name})).await?;
    let (hello, echo) = (json!({"text": "hello"}), format!("{name}__echo"));
    calls(report, "call over HTTP, to a container", async || client.call(&echo, &hello).await).await
}

/// Over what the container itself speaks.
async fn over_stdio(report: &mut Report, name: &str) -> anyhow::Result<()> {
    let home = Home::new(None)?.with_images(&[name.to_owned()], IMAGE)?;
    let (data, catalog) = (home.data(), home.catalog());
    let arguments = ["stdio", "--data-dir", &data, "--catalog", &catalog, "--log", "warn"];
    let mut client = StdioClient::start(program(), &arguments).await?;
    client.call("mcp-add", &json!({"name": name})).await?;
    let (hello, echo) = (json!({"text": "hello"}), format!("{name}__echo"));
    calls(report, "call over stdio, to a container", async || client.call(&echo, &hello).await).await?;
    client.stop().await
}

/// Calls, each beside the same call to a container that was run by hand.
async fn calls(
    report: &mut Report,
    what: &str,
    mut call: impl AsyncFnMut() -> anyhow::Result<Duration>,
) -> anyhow::Result<()> {
    let hello = json!({"text": "hello"});
    let mut direct = by_hand("bridge").await?;
    let [mut through, mut beside] = std::array::from_fn(|_| Samples::default());
    for number in 0..WARM_UP + CALLS {
        let (one, other) = (call().await?, direct.call("echo", &hello).await?);
        if number >= WARM_UP {
            through.push(one);
            beside.push(other);
        }
    }
    report.add_pair(what, &through, &beside, "+0.35 ms p50");
    direct.stop().await
}
