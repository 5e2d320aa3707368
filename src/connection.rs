//! The client of commands that talk to a running server.

use std::path::PathBuf;

use anyhow::Context;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::data_dir::DataDir;

/// Which server to talk to.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Connection {
    /// Kubeconfig to use [default: KUBECONFIG, then the one in the data directory].
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Namespace of objects that name none.
    #[arg(long, short, value_name = "NAMESPACE", default_value = "default")]
    pub(crate) namespace: String,
    #[command(flatten)]
    data_dir: DataDir,
}

impl Connection {
    /// Connects.
    pub(crate) async fn client(&self) -> anyhow::Result<Client> {
        Ok(self.client_and_server().await?.0)
    }

    /// Connects; also tells the server's URL.
    pub(crate) async fn client_and_server(&self) -> anyhow::Result<(Client, String)> {
        let path = match (&self.kubeconfig, std::env::var_os("KUBECONFIG")) {
            (Some(path), _) => path.clone(),
            (None, Some(path)) if !path.is_empty() => PathBuf::from(path),
            _ => self.data_dir.kubeconfig()?,
        };
        let kubeconfig = Kubeconfig::read_from(&path).with_context(|| {
            format!(
                "kubeconfig {}: is a server running? start one with `windlass up`",
                path.display()
            )
        })?;
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .with_context(|| format!("kubeconfig {}", path.display()))?;
        let server = config.cluster_url.to_string();
        let server = server.trim_end_matches('/').to_owned();
        Ok((Client::try_from(config)?, server))
    }
}

/// What the API said, without the Status around it.
pub(crate) fn said(error: kube::Error) -> anyhow::Error {
    match error {
        kube::Error::Api(status) => anyhow::anyhow!("{}", status.message),
        other => other.into(),
    }
}
