//! Logs of the process, to standard error.

use tracing_subscriber::EnvFilter;

/// What is logged unless the user says otherwise: what needs attention.
const DEFAULT: &str = "warn";

/// Starts logging by `filter`.
pub(crate) fn start(filter: Option<&str>) {
    let filter = EnvFilter::builder().parse_lossy(filter.unwrap_or(DEFAULT));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(crate::output::colours(&std::io::stderr()))
        .init();
}
