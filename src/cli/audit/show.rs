//! Records on a screen and in files.

use std::io::{self, ErrorKind, Write};

use clap::ValueEnum;
use serde_json::Value;

use super::super::output;
use crate::catalog::foreign::displayable;

const DETAIL_CHARACTERS_MAX: usize = 100;
const BAR_CELLS: u64 = 24;

/// What a record is in a file, in this order.
const COLUMNS: [&str; 20] = [
    "opened_at",
    "closed_at",
    "duration_micros",
    "status",
    "session",
    "principal",
    "client",
    "kind",
    "server",
    "name",
    "arguments",
    "arguments_bytes",
    "error",
    "result",
    "result_bytes",
    "record",
    "parent",
    "trace",
    "arguments_hash",
    "result_hash",
];

const HEADINGS: [&str; 7] = ["TIME", "MS", "STATUS", "PRINCIPAL", "KIND", "WHAT", "ARGUMENTS OR ERROR"];

/// How records are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Columns for people
    Table,
    /// One array
    Json,
    /// One object a line
    Jsonl,
    /// RFC 4180, with a line of headings
    Csv,
}

/// Records being written one after the other. A reader that has gone away is no error.
pub(super) struct Sheet {
    format: Format,
    out: Box<dyn Write>,
    written: usize,
}

impl Sheet {
    pub(super) fn begin(format: Format, out: Box<dyn Write>) -> Self {
        Self { format, out, written: 0 }
    }

    pub(super) fn records(&mut self, records: &[Value]) -> io::Result<()> {
        let depths = records.iter().map(|record| (0, record));
        self.rows(&depths.collect::<Vec<_>>())
    }

    /// Each of `roots` with everything that is below it.
    pub(super) fn tree(&mut self, roots: &[Value], below: &[Value]) -> io::Result<()> {
        let mut rows = Vec::new();
        let mut ahead: Vec<(usize, &Value)> = roots.iter().rev().map(|root| (0, root)).collect();
        while let Some((depth, record)) = ahead.pop() {
            rows.push((depth, record));
            let children = below.iter().filter(|child| child["parent"] == record["record"]);
            ahead.extend(children.rev().map(|child| (depth + 1, child)));
        }
        self.rows(&rows)
    }

    fn rows(&mut self, rows: &[(usize, &Value)]) -> io::Result<()> {
        let outcome = match self.format {
            Format::Table => {
                self.table(rows);
                Ok(())
            }
            Format::Jsonl => rows.iter().try_for_each(|(_, record)| writeln!(self.out, "{record}")),
            Format::Json => rows.iter().enumerate().try_for_each(|(number, (_, record))| {
                let before = if self.written + number == 0 { "[" } else { ",\n" };
                write!(self.out, "{before}{record}")
            }),
            Format::Csv => self.csv(rows),
        };
        self.written += rows.len();
        heard(outcome.and_then(|()| self.out.flush()))
    }

    fn table(&self, rows: &[(usize, &Value)]) {
        let cells: Vec<Vec<String>> = rows.iter().map(|(depth, record)| row(*depth, record)).collect();
        let headings = if self.written == 0 { HEADINGS.as_slice() } else { &[] };
        if !(cells.is_empty() && self.written > 0) {
            output::table(headings, &cells);
        }
    }

    fn csv(&mut self, rows: &[(usize, &Value)]) -> io::Result<()> {
        let mut writer = csv::WriterBuilder::new().from_writer(Vec::new());
        if self.written == 0 {
            writer.write_record(COLUMNS)?;
        }
        for (_, record) in rows {
            writer.write_record(COLUMNS.map(|column| cell(&record[column])))?;
        }
        let bytes = writer.into_inner().map_err(|error| io::Error::other(error.to_string()))?;
        self.out.write_all(&bytes)
    }

    pub(super) fn end(mut self) -> io::Result<()> {
        let end = match (self.format, self.written) {
            (Format::Json, 0) => "[]\n",
            (Format::Json, _) => "]\n",
            _ => "",
        };
        heard(self.out.write_all(end.as_bytes()).and_then(|()| self.out.flush()))
    }
}

/// What came of writing, where a reader that has gone away is no error.
fn heard(outcome: io::Result<()>) -> io::Result<()> {
    outcome.or_else(|error| if error.kind() == ErrorKind::BrokenPipe { Ok(()) } else { Err(error) })
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn row(depth: usize, record: &Value) -> Vec<String> {
    let text = |key: &str| record[key].as_str().unwrap_or_default();
    let what = match record["server"].as_str() {
        Some(server) => format!("{server} {}", text("name")),
        None => text("name").to_owned(),
    };
    let detail = record["error"].as_str().or(record["arguments"].as_str()).unwrap_or_default();
    vec![
        text("opened_at").get(..19).unwrap_or_default().replace('T', " "),
        record["duration_micros"].as_u64().map_or_else(String::new, ms),
        record["status"].as_str().unwrap_or("open").to_owned(),
        text("principal").to_owned(),
        text("kind").to_owned(),
        format!("{}{}", "  ".repeat(depth), plain(&what)),
        plain(detail),
    ]
}

/// On one line, without what moves a terminal's cursor or turns text round, and not too long.
fn plain(text: &str) -> String {
    displayable(text, DETAIL_CHARACTERS_MAX)
}

fn ms(micros: u64) -> String {
    format!("{:.1}", micros as f64 / 1000.0)
}

/// A line for each thing that was counted by, with a bar as long as its share of the calls.
pub(super) fn stats(by: &str, stats: &Value) {
    let stats: Vec<&Value> = stats.as_array().into_iter().flatten().collect();
    let most = stats.iter().filter_map(|stat| stat["calls"].as_u64()).max().unwrap_or(1).max(1);
    let rows: Vec<Vec<String>> = stats
        .iter()
        .map(|stat| {
            let count = |key: &str| stat[key].as_u64().unwrap_or_default();
            let time = |key: &str| stat[key].as_u64().map_or_else(String::new, ms);
            let cells = usize::try_from((count("calls") * BAR_CELLS).div_ceil(most)).unwrap_or(0);
            vec![
                plain(stat["key"].as_str().unwrap_or("-")),
                count("calls").to_string(),
                count("errors").to_string(),
                time("p50_micros"),
                time("p95_micros"),
                time("p99_micros"),
                count("bytes_in").to_string(),
                count("bytes_out").to_string(),
                "█".repeat(cells),
            ]
        })
        .collect();
    let key = by.to_uppercase();
    output::table(&[&key, "CALLS", "ERRORS", "P50 MS", "P95 MS", "P99 MS", "BYTES IN", "BYTES OUT", "SHARE"], &rows);
}
