//! Logs of the process, to standard error.

use tracing_subscriber::EnvFilter;

/// What is logged unless the user says otherwise: what needs attention. A joining node trusts nobody
/// until it has compared the authority with its token, which the client library warns of each time.
const DEFAULT: &str = "warn,kube_client::client::tls=error";

/// Starts logging by `filter`.
pub(crate) fn start(filter: Option<&str>) {
    let filter = EnvFilter::builder().parse_lossy(filter.unwrap_or(DEFAULT));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(crate::output::colours(&std::io::stderr()))
        .init();
}
