//! `windlass push`.

use std::path::PathBuf;
use std::sync::Arc;

use windlass_node::images::ApiTransport;
use windlass_oci::reference::Reference;
use windlass_oci::registry::client::RegistryClient;

use crate::connection::Connection;
use crate::{apply, output};

/// Arguments of `windlass push`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The component or core module.
    #[arg(value_name = "FILE.wasm")]
    file: PathBuf,
    /// Where to push it: registry.windlass.local/NAMESPACE/NAME:TAG.
    #[arg(value_name = "REF")]
    reference: Reference,
    #[command(flatten)]
    connection: Connection,
}

/// Pushes a file and prints the reference by digest.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let client = args.connection.client().await?;
    let registry = RegistryClient::new(Arc::new(ApiTransport::new(client)));
    let pushed = apply::push_file(&registry, &args.file, &args.reference).await?;
    output::line(&pushed.to_string());
    Ok(())
}
