//! `windlass reencrypt`: after keys have changed.

use anyhow::Context;
use windlass_control::store::rewrite::rewrite;

use super::server::EncryptionOptions;
use crate::data_dir::DataDir;
use crate::output;

/// Arguments of `windlass reencrypt`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    data_dir: DataDir,
    #[command(flatten)]
    encryption: EncryptionOptions,
}

/// Writes the data file of a server that does not run anew, every value as new ones are written.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let encryption = args.encryption.read()?;
    let path = windlass_control::data_file(&args.data_dir.path()?);
    // Opening would make a file that is not there.
    std::fs::metadata(&path).with_context(|| path.display().to_string())?;
    let written = rewrite(&path, &encryption)?;
    output::step(&format!(
        "{} of {} values in {} were written anew",
        written.changed,
        written.all,
        path.display()
    ));
    Ok(())
}
