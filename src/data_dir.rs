//! Where a server keeps its data, and what of it other commands read.

use std::path::{Path, PathBuf};

use anyhow::Context;

/// The option that every command with a data directory has.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct DataDir {
    /// Where data is kept [default: windlass in the user's data directory].
    #[arg(long, value_name = "DIR", env = "WINDLASS_DATA_DIR")]
    data_dir: Option<PathBuf>,
}

impl DataDir {
    /// The directory: as given, or the user's.
    pub(crate) fn path(&self) -> anyhow::Result<PathBuf> {
        if let Some(given) = &self.data_dir {
            return std::path::absolute(given).with_context(|| given.display().to_string());
        }
        let base = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from);
        let base = base
            .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/share")));
        let base = base.context(
            "neither HOME nor XDG_DATA_HOME is set: say where to keep data with --data-dir",
        )?;
        Ok(base.join("windlass"))
    }

    /// The kubeconfig that a server writes there.
    pub(crate) fn kubeconfig(&self) -> anyhow::Result<PathBuf> {
        Ok(kubeconfig_in(&self.path()?))
    }
}

/// The kubeconfig in a data directory.
pub(crate) fn kubeconfig_in(data_dir: &Path) -> PathBuf {
    data_dir.join("kubeconfig")
}
