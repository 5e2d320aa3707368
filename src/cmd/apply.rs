//! `windlass apply`.

use std::path::PathBuf;

use crate::apply::{Applier, Options, in_order};
use crate::connection::Connection;
use crate::{object_files, output};

/// Arguments of `windlass apply`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// File or directory with objects, or `-` for standard input; may be given several times.
    #[arg(short, long = "filename", value_name = "FILE|DIR|-", required = true)]
    files: Vec<PathBuf>,
    /// Take over fields that other managers own.
    #[arg(long)]
    force_conflicts: bool,
    /// Change nothing, but say what would be done.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Applies files to a running server. A relative path of a `.wasm` file as an image is pushed first.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let files = object_files::read(&args.files)?;
    let client = args.connection.client().await?;
    let options = Options {
        namespace: args.connection.namespace.clone(),
        force: args.force_conflicts,
        dry_run: args.dry_run,
    };
    let mut applier = Applier::new(client, options);
    for file in in_order(files) {
        let applied = applier.apply(file).await?;
        let dry = if args.dry_run { " (dry run)" } else { "" };
        output::line(&format!("{} {}{dry}", applied.name, applied.outcome));
    }
    Ok(())
}
