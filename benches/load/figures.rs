//! Samples, and the table they end up in.

use std::time::Duration;

/// Times that were taken of one thing.
#[derive(Default)]
pub struct Samples {
    sorted: Vec<Duration>,
}

impl From<Vec<Duration>> for Samples {
    fn from(mut samples: Vec<Duration>) -> Self {
        samples.sort_unstable();
        Self { sorted: samples }
    }
}

impl Samples {
    pub fn push(&mut self, sample: Duration) {
        let at = self.sorted.partition_point(|other| *other <= sample);
        self.sorted.insert(at, sample);
    }

    /// The time that `share` of all samples did not exceed, in milliseconds.
    pub fn quantile(&self, share: f64) -> f64 {
        let Some(last) = self.sorted.len().checked_sub(1) else {
            return f64::NAN;
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a place in a list of thousands"
        )]
        let at = (last as f64 * share).round() as usize;
        self.sorted[at].as_secs_f64() * 1000.0
    }

    pub fn p50(&self) -> f64 {
        self.quantile(0.5)
    }

    pub fn p99(&self) -> f64 {
        self.quantile(0.99)
    }
}

/// Every figure, in the order it was taken.
#[derive(Default)]
pub struct Report {
    rows: Vec<[String; 4]>,
}

impl Report {
    /// Adds a figure: what it is, its value, what stands beside it, and what it is to be at most.
    pub fn add(&mut self, what: &str, value: String, beside: String, budget: &str) {
        eprintln!("{what}: {value} ({beside})");
        self.rows.push([what.to_owned(), value, beside, budget.to_owned()]);
    }

    /// Adds a latency beside the one without the broker.
    pub fn add_pair(&mut self, what: &str, through: &Samples, direct: &Samples, budget: &str) {
        let added = through.p50() - direct.p50();
        let value = format!("{added:+.3} ms p50, {:+.3} ms p99", through.p99() - direct.p99());
        let beside = format!(
            "{:.3} / {:.3} ms through, {:.3} / {:.3} ms direct, ×{:.2}",
            through.p50(),
            through.p99(),
            direct.p50(),
            direct.p99(),
            through.p50() / direct.p50()
        );
        self.add(what, value, beside, budget);
    }

    /// Adds what another report has.
    pub fn append(&mut self, other: Self) {
        self.rows.extend(other.rows);
    }

    pub fn print(&self) {
        let head = ["what", "figure", "beside it", "budget"].map(str::to_owned);
        let rows: Vec<&[String; 4]> = std::iter::once(&head).chain(&self.rows).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
        let widths = [width(0), width(1), width(2), width(3)];
        for (number, row) in rows.iter().enumerate() {
            let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            println!("| {} |", cells.join(" | "));
            if number == 0 {
                println!("| {} |", widths.map(|width| "-".repeat(width)).join(" | "));
            }
        }
    }
}
