//! `windlass kubeconfig`.

use anyhow::Context;

use crate::data_dir::DataDir;
use crate::output;

/// Arguments of `windlass kubeconfig`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    data_dir: DataDir,
    /// Print the path of the file instead of its content.
    #[arg(long)]
    path: bool,
}

/// Prints the kubeconfig that a server on this machine wrote.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let path = args.data_dir.kubeconfig()?;
    let text = std::fs::read_to_string(&path).with_context(|| {
        format!(
            "{}: no server has written a kubeconfig there; start one with `windlass up`",
            path.display()
        )
    })?;
    if args.path {
        output::line(&path.display().to_string());
    } else {
        output::line(text.trim_end());
    }
    Ok(())
}
