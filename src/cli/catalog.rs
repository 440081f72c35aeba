//! `mcp-broker catalog`.

mod show;

use std::{path::PathBuf, process::ExitCode};

use clap::Subcommand;

use super::{Global, output};
use crate::{
    catalog::{Catalog, Runnable, file},
    ids::ServerName,
};

/// Look into the catalog.
#[derive(Debug, Subcommand)]
pub(super) enum CatalogCommand {
    /// List every server
    #[command(visible_alias = "list")]
    Ls {
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
    /// Check catalog files and report every problem with its file, entry and field
    Validate {
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
}

pub(super) fn run(global: &Global, command: CatalogCommand) -> anyhow::Result<ExitCode> {
    match command {
        CatalogCommand::Ls { catalog } => list(&load(global, catalog)?),
        CatalogCommand::Show { name, catalog } => show::show(&load(global, catalog)?, &name)?,
        CatalogCommand::Search { query, limit, catalog } => search(&load(global, catalog)?, &query, limit)?,
        CatalogCommand::Validate { files } => return validate(&files),
    }
    Ok(ExitCode::SUCCESS)
}

fn load(global: &Global, more: Vec<PathBuf>) -> anyhow::Result<Catalog> {
    let settings = global.settings()?;
    let files: Vec<PathBuf> = settings.catalogs.into_iter().chain(more).collect();
    Ok(Catalog::with(&files, settings.catalog)?)
}

fn list(catalog: &Catalog) {
    let snapshot = catalog.snapshot();
    let rows: Vec<Vec<String>> = snapshot
        .entries()
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

fn validate(files: &[PathBuf]) -> anyhow::Result<ExitCode> {
    let mut errors = 0;
    for path in files {
        let loaded = file::read(path)?;
        for problem in &loaded.problems {
            output::say(problem.to_string());
        }
        errors += loaded.problems.iter().filter(|problem| problem.severity == file::Severity::Error).count();
        output::say(format!(
            "{}: {} servers, {} problems",
            path.display(),
            loaded.entries.len(),
            loaded.problems.len()
        ));
    }
    Ok(if errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
