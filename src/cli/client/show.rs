//! What `mcp-broker client` prints.

use clap::ValueEnum;
use serde_json::json;
use similar::TextDiff;

use super::super::output;
use crate::clients::{Config, Level, Outcome, State, Way};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Format {
    /// Columns for people
    Table,
    /// One array
    Json,
}

/// One client at one level.
pub(super) struct Row {
    pub(super) config: Config,
    pub(super) installed: bool,
    pub(super) state: State,
    pub(super) others: Vec<String>,
}

pub(super) fn list(format: Format, rows: &[Row]) -> anyhow::Result<()> {
    match format {
        Format::Table => {
            let cells: Vec<Vec<String>> = rows.iter().map(cells).collect();
            output::table(&["CLIENT", "INSTALLED", "LEVEL", "STATE", "FILE"], &cells);
        }
        Format::Json => output::say(serde_json::to_string_pretty(&rows.iter().map(value).collect::<Vec<_>>())?),
    }
    Ok(())
}

fn name(row: &Row) -> String {
    row.config.client.to_possible_value().map(|name| name.get_name().to_owned()).unwrap_or_default()
}

fn level(row: &Row) -> &'static str {
    match row.config.level {
        Level::User => "user",
        Level::Project(_) => "project",
    }
}

fn state(row: &Row) -> &'static str {
    match row.state {
        State::Absent => "not connected",
        State::Connected => "connected",
        State::Stale => "stale",
        State::Foreign => "not ours",
        State::Unreadable(_) => "unreadable",
    }
}

fn cells(row: &Row) -> Vec<String> {
    let mut said = state(row).to_owned();
    if !row.others.is_empty() {
        said = format!("{said}, but as {}", row.others.join(", "));
    }
    let file = match &row.state {
        State::Unreadable(problem) => problem.clone(),
        _ => row.config.path.display().to_string(),
    };
    let installed = if row.installed { "yes" } else { "no" };
    vec![name(row), installed.to_owned(), level(row).to_owned(), said, file]
}

fn value(row: &Row) -> serde_json::Value {
    let problem = match &row.state {
        State::Unreadable(problem) => Some(problem),
        _ => None,
    };
    json!({
        "client": name(row),
        "title": row.config.client.title(),
        "installed": row.installed,
        "level": level(row),
        "state": state(row).replace(' ', "_"),
        "also_as": row.others,
        "file": row.config.path,
        "problem": problem,
    })
}

/// Prints what would change: the broker's entry, as far as it is the broker's, and nothing else of the file.
pub(super) fn change(config: &Config, outcome: &Outcome, way: Option<&Way>) -> anyhow::Result<()> {
    let path = config.path.display();
    if !outcome.changes() {
        output::say(format!("{path} would stay as it is"));
        return Ok(());
    }
    let [before, after] = config.shown(outcome, way)?;
    output::say(match (&outcome.before, &outcome.after) {
        (None, _) => format!("{path} would be made:"),
        (_, None) => format!("{path} holds nothing else and would go:"),
        _ => format!("{path} would change by this entry; the rest of it stays as it is, and is not shown:"),
    });
    for change in TextDiff::from_lines(&before, &after).iter_all_changes() {
        output::say(format!("{}{}", change.tag(), change.value().trim_end_matches('\n')));
    }
    if before == after {
        output::say("what changes in it is not shown");
    }
    Ok(())
}
