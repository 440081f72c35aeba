//! `mcp-broker catalog`.

mod show;
mod sources;

use std::{path::PathBuf, process::ExitCode};

use clap::Subcommand;

use super::{Global, output};
use crate::{
    catalog::{Catalog, Runnable, Sources, document, file},
    ids::ServerName,
};

/// Look into the catalog, and keep its sources.
#[derive(Debug, Subcommand)]
pub(super) enum CatalogCommand {
    /// List the sources: whose word they are, how many servers they have and how many of those count, and what is wrong
    #[command(visible_alias = "list")]
    Ls,
    /// List every server that can be added
    Servers {
        /// Only those of this source
        #[arg(long, value_name = "SOURCE")]
        source: Option<String>,
        /// A catalog file besides the built-in one
        #[arg(long, value_name = "FILE")]
        catalog: Vec<PathBuf>,
    },
    /// Show all that is known of one server, and how to use it
    Show {
        name: ServerName,
        /// A catalog file besides the built-in one
        #[arg(long, value_name = "FILE")]
        catalog: Vec<PathBuf>,
    },
    /// Search, as mcp-find does
    Search {
        query: String,
        #[arg(long, default_value_t = 10)]
        limit: usize,
        /// A catalog file besides the built-in one
        #[arg(long, value_name = "FILE")]
        catalog: Vec<PathBuf>,
    },
    /// Add a source: it is asked now and from then on, and what it gives is kept
    Add(sources::AddArgs),
    /// Copy the servers of a file, a folder or an address, once
    Import { location: String },
    /// Ask sources whether they have changed
    Update {
        /// Only these
        #[arg(value_name = "SOURCE")]
        sources: Vec<String>,
    },
    /// Remove a source with its servers, or one imported server
    #[command(visible_alias = "rm")]
    Remove { name: String },
    /// Check catalogs, folders and server.json files, and report every problem with its file, entry and field
    Validate {
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
}

pub(super) async fn run(global: &Global, command: CatalogCommand) -> anyhow::Result<ExitCode> {
    match command {
        CatalogCommand::Ls => return sources::list(global).await,
        CatalogCommand::Add(args) => return sources::add(global, args).await,
        CatalogCommand::Import { location } => return sources::import(global, &location).await,
        CatalogCommand::Update { sources } => return sources::update(global, &sources).await,
        CatalogCommand::Remove { name } => return sources::remove(global, &name).await,
        CatalogCommand::Servers { source, catalog } => servers(&load(global, catalog)?, source.as_deref()),
        CatalogCommand::Show { name, catalog } => show::show(&load(global, catalog)?, &name)?,
        CatalogCommand::Search { query, limit, catalog } => search(&load(global, catalog)?, &query, limit)?,
        CatalogCommand::Validate { files } => return validate(&files),
    }
    Ok(ExitCode::SUCCESS)
}

fn load(global: &Global, more: Vec<PathBuf>) -> anyhow::Result<Catalog> {
    let settings = global.settings()?;
    let files: Vec<PathBuf> = settings.catalogs.into_iter().chain(more).collect();
    let catalog = Catalog::with(&files, settings.catalog)?;
    Sources::show_in(&catalog, &settings.data_folder)?;
    Ok(catalog)
}

fn servers(catalog: &Catalog, source: Option<&str>) {
    let snapshot = catalog.snapshot();
    let rows: Vec<Vec<String>> = snapshot
        .entries()
        .filter(|entry| source.is_none_or(|source| *entry.source == *source))
        .map(|entry| {
            let runs: Vec<&str> = entry.runs.iter().map(Runnable::kind).collect();
            vec![entry.name.to_string(), runs.join(", "), entry.source.to_string(), entry.title.clone()]
        })
        .collect();
    output::table(&["NAME", "RUNS AS", "FROM", "TITLE"], &rows);
}

fn search(catalog: &Catalog, query: &str, limit: usize) -> anyhow::Result<()> {
    let snapshot = catalog.snapshot();
    let mut rows = Vec::new();
    for hit in snapshot.search(query, limit)?.hits {
        let entry = hit.name.parse().ok().and_then(|name| snapshot.entry(&name).cloned());
        let title = entry.map(|entry| entry.title.clone()).unwrap_or_default();
        rows.push(vec![hit.name, format!("{:.1}", hit.score), title, hit.matched_tools.join(", ")]);
    }
    output::table(&["NAME", "SCORE", "TITLE", "MATCHING TOOLS"], &rows);
    Ok(())
}

fn validate(paths: &[PathBuf]) -> anyhow::Result<ExitCode> {
    let mut errors = 0;
    for path in paths {
        let listed = document::read(path)?;
        let (loaded, _) = file::taken(&path.display().to_string(), listed.entries);
        let problems: Vec<&file::Problem> = listed.problems.iter().chain(&loaded.problems).collect();
        for problem in &problems {
            output::say(problem.to_string());
        }
        errors += problems.iter().filter(|problem| problem.severity == file::Severity::Error).count();
        output::say(format!("{}: {} servers, {} problems", path.display(), loaded.entries.len(), problems.len()));
    }
    Ok(if errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
