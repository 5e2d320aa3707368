//! Markdown tables and the statistics in them.

use std::io::Write;
use std::time::Duration;

/// Prints the head of a table: what is measured, its value, the reference and the ratio to it.
pub(crate) fn head() -> std::io::Result<()> {
    line(&["figure", "measured", "reference", "ratio"])?;
    line(&["---", "--:", "--:", "--:"])
}

/// Prints a row. `ratio` is measured over reference; `None` for the reference itself.
pub(crate) fn row(
    figure: &str,
    measured: &str,
    reference: &str,
    ratio: Option<f64>,
) -> std::io::Result<()> {
    let ratio = ratio.map_or_else(|| "1".into(), |ratio| format!("{ratio:.2}×"));
    line(&[figure, measured, reference, &ratio])
}

/// Prints cells as one line of a table.
pub(crate) fn line(cells: &[&str]) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "| {} |", cells.join(" | "))?;
    stdout.flush()
}

/// Durations, sorted.
#[derive(Debug)]
pub(crate) struct Latencies(Vec<Duration>);

impl Latencies {
    /// The durations in any order.
    pub(crate) fn new(mut durations: Vec<Duration>) -> Self {
        durations.sort_unstable();
        Self(durations)
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The smallest duration that `percent` of all do not exceed; zero if there is none.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0.get(rank - 1).copied().unwrap_or_default()
    }
}

/// A duration in milliseconds.
pub(crate) fn millis(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1e3)
}

/// One duration over another.
pub(crate) fn ratio(measured: Duration, reference: Duration) -> Option<f64> {
    (!reference.is_zero()).then(|| measured.as_secs_f64() / reference.as_secs_f64())
}
