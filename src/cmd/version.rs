//! `windlass version`.

use crate::output;

/// Arguments of `windlass version`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Prints the versions of the program and of the API it serves.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let (own, api) = (env!("CARGO_PKG_VERSION"), windlass_control::VERSION);
    if args.json {
        output::line(&serde_json::json!({"windlass": own, "kubernetes": api}).to_string());
    } else {
        output::line(&format!("windlass {own} (Kubernetes API {api})"));
    }
    Ok(())
}
