//! The node's range of pod addresses, remembered on disk: an agent that starts while no API server answers gives its static
//! pods addresses of the range it had.
//!
//! The API's word holds again as soon as it is heard; pods that have an address keep it.

use std::io;
use std::path::{Path, PathBuf};

use crate::network::{Cidr, Network};

/// Name of the file in the agent's data directory.
const FILE: &str = "pod-cidr";

/// Gives the network the range that was remembered, if there is one.
///
/// # Errors
/// It can't be read.
pub(crate) async fn recall(data_dir: &Path, network: &Network) -> io::Result<()> {
    let text = match tokio::fs::read_to_string(data_dir.join(FILE)).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        text => text?,
    };
    match text.trim().parse() {
        Ok(cidr) => network.set_pod_cidr(cidr),
        // A half-written file, say: the API knows better.
        Err(error) => tracing::warn!(%error, text, "the remembered range of addresses is ignored"),
    }
    Ok(())
}

/// Remembers each range that the network is given, until dropped.
pub(crate) async fn remember(data_dir: PathBuf, network: Network) {
    let mut ranges = network.pod_cidrs();
    loop {
        let range = *ranges.borrow_and_update();
        if let Some(cidr) = range
            && let Err(error) = write(&data_dir, cidr).await
        {
            tracing::warn!(%error, "the range of addresses is not remembered");
        }
        if ranges.changed().await.is_err() {
            return;
        }
    }
}

async fn write(data_dir: &Path, cidr: Cidr) -> io::Result<()> {
    let (path, temporary) = (data_dir.join(FILE), data_dir.join(".pod-cidr.tmp"));
    tokio::fs::write(&temporary, cidr.to_string()).await?;
    tokio::fs::rename(temporary, path).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::NetworkConfig;

    #[tokio::test]
    async fn what_was_remembered_is_recalled_and_nonsense_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let network = || Network::new(NetworkConfig::default());
        let recalled = async || {
            let network = network();
            recall(directory.path(), &network).await.unwrap();
            *network.pod_cidrs().borrow()
        };
        assert_eq!(recalled().await, None);
        let cidr: Cidr = "10.64.3.0/24".parse().unwrap();
        write(directory.path(), cidr).await.unwrap();
        assert_eq!(recalled().await, Some(cidr));
        std::fs::write(directory.path().join(FILE), "10.64").unwrap();
        assert_eq!(recalled().await, None);
    }
}
