//! What commands print.
//!
//! A reader that has gone away is not an error: who has seen enough (`| head`), or has read the line that says where the
//! broker listens, closes the pipe.

use std::io::{Write as _, stderr, stdout};

use serde_json::Value;

use crate::catalog::foreign::displayable;

/// What is in a list; nothing is in what is none.
pub(super) fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Prints a line.
pub(super) fn say(line: impl AsRef<str>) {
    let _ = writeln!(stdout().lock(), "{}", line.as_ref());
}

/// Prints a line to standard error.
pub(super) fn note(line: impl AsRef<str>) {
    let _ = writeln!(stderr().lock(), "{}", line.as_ref());
}

/// Prints an error with everything that caused it.
pub(super) fn complain(error: &anyhow::Error) {
    let mut text = format!("error: {error}");
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text.push_str(&format!("\n  because: {cause}"));
        }
    }
    // Some of it is what servers said.
    note(clean(&text));
}

/// On one line, without what moves a terminal's cursor or turns text round.
pub(super) fn plain(text: &str) -> String {
    displayable(text, usize::MAX)
}

/// On its lines, without what moves a terminal's cursor, colours it, gives it orders, or turns text round.
pub(super) fn clean(text: &str) -> String {
    let line = |line: &str| line.split('\t').map(plain).collect::<Vec<_>>().join("\t");
    text.replace('\r', "").split('\n').map(line).collect::<Vec<_>>().join("\n")
}

/// Prints rows in columns as wide as they need to be, below their headings if there are any. The last column is as long
/// as it is.
pub(super) fn table(headings: &[&str], rows: &[Vec<String>]) {
    let width = |column: usize| {
        let widest = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
        widest.max(headings.get(column).map_or(0, |heading| heading.len()))
    };
    let columns = rows.first().map_or(headings.len(), Vec::len);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let first: Vec<String> = headings.iter().map(|heading| (*heading).to_owned()).collect();
    for row in Some(&first).filter(|first| !first.is_empty()).into_iter().chain(rows) {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        say(cells.join("  ").trim_end());
    }
}
