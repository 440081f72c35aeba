//! What commands print.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is where commands print")]

/// Prints a line.
pub(super) fn say(line: impl AsRef<str>) {
    println!("{}", line.as_ref());
}

/// Prints a line to standard error.
pub(super) fn note(line: impl AsRef<str>) {
    eprintln!("{}", line.as_ref());
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
    eprintln!("{text}");
}

/// Prints rows in columns as wide as they need to be. The last column is as long as it is.
pub(super) fn table(headings: &[&str], rows: &[Vec<String>]) {
    let width = |column: usize| {
        let widest = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
        widest.max(headings.get(column).map_or(0, |heading| heading.len()))
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let headings: Vec<String> = headings.iter().map(|heading| (*heading).to_owned()).collect();
    for row in std::iter::once(&headings).chain(rows) {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        say(cells.join("  ").trim_end());
    }
}
