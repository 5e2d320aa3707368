//! `windlass push`: to the cluster's registry over the API connection, to any other as it is reached from here.

use std::path::PathBuf;
use std::sync::Arc;

use windlass_node::images::ApiTransport;
use windlass_oci::reference::{CLUSTER_REGISTRY, Reference};
use windlass_oci::registry::client::RegistryClient;

use crate::connection::Connection;
use crate::registries::{self, RegistryOptions};
use crate::{apply, output};

/// Arguments of `windlass push`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The component or core module. Of several files the first is the image's program; the others are run by their
    /// names (`command: [NAME]`, `kubectl exec POD -- NAME`).
    #[arg(value_name = "FILE.wasm", required = true)]
    files: Vec<PathBuf>,
    /// Where to push it: registry.windlass.local/NAMESPACE/NAME:TAG for the cluster's own registry, or
    /// HOST/REPOSITORY:TAG for any other, with the credentials that `docker login` has written.
    #[arg(value_name = "REF")]
    reference: Reference,
    #[command(flatten)]
    registries: RegistryOptions,
    #[command(flatten)]
    connection: Connection,
}

/// Pushes files as one image and prints the reference by digest.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let registry = if args.reference.is_cluster_registry() {
        let transport = ApiTransport::new(args.connection.client().await?);
        RegistryClient::new(Arc::new(transport), CLUSTER_REGISTRY)
    } else {
        let registries = args.registries.registries()?;
        registries.pusher(&args.reference, &registries::logins()?)?
    };
    let pushed = apply::push_files(&registry, &args.files, &args.reference).await?;
    output::line(&pushed.to_string());
    Ok(())
}
