//! What `mcp-broker client` prints.

use clap::ValueEnum;
use serde_json::json;
use similar::TextDiff;

use super::super::output;
use crate::clients::{Config, Level, Outcome, State};

/// Lines of the file that are shown around a change.
const CONTEXT_LINES: usize = 3;

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

/// What stands where a token was.
pub(super) const TOKEN: &str = "<token>";

/// Prints what would change. Tokens are left out, also those that were there.
pub(super) fn diff(config: &Config, outcome: &Outcome) {
    let path = &config.path;
    if !outcome.changes() {
        output::say(format!("{} would stay as it is", path.display()));
        return;
    }
    let (before, after) = (outcome.before.as_deref().unwrap_or_default(), outcome.after.as_deref().unwrap_or_default());
    let there =
        |text: &Option<String>| if text.is_some() { path.display().to_string() } else { "/dev/null".to_owned() };
    let diff = TextDiff::from_lines(before, after);
    let mut shown = diff
        .unified_diff()
        .context_radius(CONTEXT_LINES)
        .header(&there(&outcome.before), &there(&outcome.after))
        .to_string();
    let mut tokens = [&outcome.before, &outcome.after].map(|text| config.tokens(text.as_deref())).concat();
    tokens.sort_by_key(|token| std::cmp::Reverse(token.len()));
    for token in tokens {
        // As it is in a file, where some characters are escaped.
        let escaped = json!(token).to_string();
        shown = shown.replace(&token, TOKEN).replace(escaped.trim_matches('"'), TOKEN);
    }
    output::say(shown.trim_end_matches('\n'));
}
