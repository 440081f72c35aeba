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

/// A token that is shorter is taken out only where it stands alone.
const SHORT_BYTES: usize = 8;

/// What stands where a token was.
pub(super) const TOKEN: &str = "<token>";

/// Prints what would change. Tokens are left out, also those that were there, and other people's.
pub(super) fn diff(config: &Config, outcome: &Outcome) {
    let path = &config.path;
    if !outcome.changes() {
        output::say(format!("{} would stay as it is", path.display()));
        return;
    }
    let (before, after) = (outcome.before.as_deref().unwrap_or_default(), outcome.after.as_deref().unwrap_or_default());
    let there =
        |text: &Option<String>| if text.is_some() { path.display().to_string() } else { "/dev/null".to_owned() };
    let mut tokens = [&outcome.before, &outcome.after].map(|text| config.tokens(text.as_deref())).concat();
    tokens.sort_by_key(|token| std::cmp::Reverse(token.len()));
    // What is not found in the text as it is read from it cannot be taken out: then nothing is shown but what changes.
    let is_found =
        |token: &String| spellings(token).any(|spelling| [before, after].iter().any(|text| text.contains(&spelling)));
    let radius = if tokens.iter().all(is_found) { CONTEXT_LINES } else { 0 };
    let diff = TextDiff::from_lines(before, after);
    let shown =
        diff.unified_diff().context_radius(radius).header(&there(&outcome.before), &there(&outcome.after)).to_string();
    for (at, line) in shown.lines().enumerate() {
        // Two lines with the file's name, and those that count lines, have nothing of the file.
        if at < 2 || line.starts_with("@@") {
            output::say(line);
        } else {
            output::say(tokens.iter().fold(line.to_owned(), |line, token| without(&line, token)));
        }
    }
}

/// How a token may be written in a file: as it is, if it is one line, and with some characters escaped.
fn spellings(token: &str) -> impl Iterator<Item = String> {
    let escaped = json!(token).to_string();
    let escaped = escaped.trim_matches('"').to_owned();
    let plain = (!token.contains('\n') && escaped != token).then(|| token.to_owned());
    std::iter::once(escaped).chain(plain)
}

/// A line without a token. A short one may be part of other words, which stay.
fn without(line: &str, token: &str) -> String {
    let mut line = line.to_owned();
    for spelling in spellings(token) {
        let mut shown = String::new();
        let mut rest = &line[..];
        while let Some(at) = rest.find(&spelling) {
            let (before, after) = (&rest[..at], &rest[at + spelling.len()..]);
            let is_part = before.ends_with(char::is_alphanumeric) || after.starts_with(char::is_alphanumeric);
            shown.push_str(before);
            shown.push_str(if is_part && token.len() < SHORT_BYTES { &spelling } else { TOKEN });
            rest = after;
        }
        shown.push_str(rest);
        line = shown;
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_taken_out_however_it_is_written() {
        for (line, token, expected) in [
            (r#""A": "abc","#, "abc", r#""A": "<token>","#),
            (r#""abcd": "abc","#, "abc", r#""abcd": "<token>","#),
            ("A: abc", "abc", "A: <token>"),
            ("https://x/?abcdefghi", "abcdefgh", "https://x/?<token>i"),
            (r#""A": "a \"b\" c\nd","#, "a \"b\" c\nd", r#""A": "<token>","#),
            ("A = 'a \"b'", "a \"b", "A = '<token>'"),
        ] {
            assert_eq!(without(line, token), expected);
        }
    }
}
