//! From starting a process to its answer to `initialize`.

use tokio::time::Instant;

use crate::{
    broker::{Home, fixture, program},
    clients::StdioClient,
    figures::{Report, Samples},
};

const STARTS: usize = 30;

pub async fn run(report: &mut Report) -> anyhow::Result<()> {
    let [mut fresh, mut again, mut beside] = std::array::from_fn(|_| Samples::default());
    let kept = Home::new(None)?;
    broker(&kept, &mut Samples::default()).await?;
    for _ in 0..STARTS {
        broker(&Home::new(None)?, &mut fresh).await?;
        broker(&kept, &mut again).await?;
        let start = Instant::now();
        let client = StdioClient::start(&fixture()?, &["stdio"]).await?;
        beside.push(start.elapsed());
        client.stop().await?;
    }
    let other = format!("{:.1} ms the fixture server", beside.p50());
    report.add("start to initialize, new data folder", format!("{:.1} ms p50", fresh.p50()), other.clone(), "50 ms");
    report.add("start to initialize, existing data folder", format!("{:.1} ms p50", again.p50()), other, "50 ms");
    Ok(())
}

async fn broker(home: &Home, samples: &mut Samples) -> anyhow::Result<()> {
    let (data, catalog) = (home.data(), home.catalog());
    let start = Instant::now();
    let arguments = ["stdio", "--data-dir", &data, "--catalog", &catalog, "--log", "warn"];
    let client = StdioClient::start(program(), &arguments).await?;
    samples.push(start.elapsed());
    client.stop().await
}
