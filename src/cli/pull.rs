//! `mcp-broker pull`.

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::bail;
use clap::Args;
use futures_util::StreamExt as _;
use http::Method;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Global, broker::Broker, encoded, output};
use crate::{
    caller::{ClientSide, Link, Report},
    catalog::{Catalog, Entry},
    config::{Overrides, Pull, Settings},
    ids::ServerName,
    lifecycle::Tasks,
    supervisor::{Images, Supervisor, upstream::chain},
};

/// Images that are pulled at a time.
const AT_ONCE_MAX: usize = 3;

#[derive(Debug, Args)]
pub(super) struct PullArgs {
    /// Servers of the catalog
    #[arg(required_unless_present = "profile", value_name = "NAME")]
    names: Vec<ServerName>,
    /// The servers of this profile
    #[arg(long, value_name = "NAME")]
    profile: Vec<String>,
    /// A catalog file besides the built-in one
    #[arg(long, value_name = "FILE")]
    catalog: Vec<PathBuf>,
    /// Ask the registry for images that are here already, too
    #[arg(long)]
    again: bool,
}

pub(super) async fn run(global: &Global, args: PullArgs) -> anyhow::Result<ExitCode> {
    let pull = Some(if args.again { Pull::Always } else { Pull::Missing });
    let settings = Settings::load(Overrides { catalogs: args.catalog, pull, ..global.overrides() })?;
    let mut names = args.names;
    names.extend(of_profiles(&settings, &args.profile).await?);
    names.sort();
    names.dedup();
    let wanted = wanted(&Catalog::load(&settings.catalogs)?, &names)?;
    let images = Supervisor::images(&settings, &Tasks::new().0);
    let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
    let pulls = wanted.iter().map(|(image, servers)| fetch(&images, image, servers, &bars));
    let outcomes: Vec<bool> = futures_util::stream::iter(pulls).buffer_unordered(AT_ONCE_MAX).collect().await;
    Ok(if outcomes.contains(&false) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The servers of these profiles.
async fn of_profiles(settings: &Settings, profiles: &[String]) -> anyhow::Result<Vec<ServerName>> {
    if profiles.is_empty() {
        return Ok(Vec::new());
    }
    let broker = Broker::find(settings.clone()).await?;
    let asking = profiles.iter().map(|name| async {
        let profile = broker.ask(Method::GET, &format!("/v1/profiles/{}", encoded(name)), None).await?;
        let names = profile["servers"].as_array().into_iter().flatten().filter_map(|server| server["name"].as_str());
        names.map(|name| name.parse().map_err(anyhow::Error::new)).collect::<anyhow::Result<Vec<ServerName>>>()
    });
    let found = futures_util::future::try_join_all(asking).await;
    broker.close().await;
    Ok(found?.into_iter().flatten().collect())
}

/// The images of these servers, and whose they are. A server that has none is mentioned.
fn wanted(catalog: &Catalog, names: &[ServerName]) -> anyhow::Result<BTreeMap<String, Vec<ServerName>>> {
    let snapshot = catalog.snapshot();
    let mut wanted = BTreeMap::<String, Vec<ServerName>>::new();
    for name in names {
        let Some(entry) = snapshot.entry(name) else {
            let similar: Vec<String> = snapshot.suggestions(name.as_str()).iter().map(ToString::to_string).collect();
            let hint = if similar.is_empty() { String::new() } else { format!(" (similar: {})", similar.join(", ")) };
            bail!("there is no server `{name}` in the catalog{hint}");
        };
        let images = images_of(entry);
        if images.is_empty() {
            output::note(format!("{name} does not run in a container: there is nothing to pull"));
        }
        for image in images {
            wanted.entry(image).or_default().push(name.clone());
        }
    }
    Ok(wanted)
}

fn images_of(entry: &Entry) -> Vec<String> {
    entry.runs.iter().flat_map(|run| run.images()).map(str::to_owned).collect()
}

/// Pulls one image. Says what came of it, and whether it is here.
async fn fetch(images: &Images, image: &str, servers: &[ServerName], bars: &MultiProgress) -> bool {
    let bar = bars.add(ProgressBar::new(0));
    if let Ok(style) = ProgressStyle::with_template("{spinner} {bar:24} {bytes}/{total_bytes} {wide_msg}") {
        bar.set_style(style);
    }
    bar.set_message(image.to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    let (link, told) = Link::new();
    let outcome = tokio::select! {
        outcome = images.fetch(image, &link) => outcome,
        never = show(told, &bar) => match never {},
    };
    bar.finish_and_clear();
    let names: Vec<&str> = servers.iter().map(ServerName::as_str).collect();
    let names = names.join(", ");
    match &outcome {
        Ok(()) => bars.suspend(|| output::say(format!("{names}: {image} is here"))),
        Err(error) => bars.suspend(|| output::note(format!("error: {names}: {}", chain(error)))),
    }
    outcome.is_ok()
}

/// Moves the bar as the engine reports.
async fn show(mut told: ClientSide, bar: &ProgressBar) -> std::convert::Infallible {
    while let Some(report) = told.next().await {
        if let Report::Progress(progress) = report {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bytes of an image")]
            let (done, all) = (progress.progress as u64, progress.total.unwrap_or_default() as u64);
            bar.set_length(all);
            bar.set_position(done);
            if let Some(message) = progress.message {
                bar.set_message(message);
            }
        }
    }
    std::future::pending().await
}
