//! The scheduler.

use kube::Client;
use tokio_util::sync::CancellationToken;

/// Binds pods to nodes until `stop`.
pub async fn run(client: Client, stop: CancellationToken) {
    let _ = client;
    stop.cancelled().await;
}
