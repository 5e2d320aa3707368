//! A control plane in a process of its own, for tests that kill it.
//!
//! `test-server DATA-DIR` prints `ready ADDRESS` once it serves and runs until it is killed; the admin
//! kubeconfig lies in `DATA-DIR/kubeconfig`.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use windlass_control::{Config, ControlPlane};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let dir: PathBuf = std::env::args_os()
        .nth(1)
        .context("usage: test-server DATA-DIR")?
        .into();
    let mut config = Config::new(dir.clone());
    config.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let plane = ControlPlane::start(config).await?;
    std::fs::write(dir.join("kubeconfig"), plane.admin_kubeconfig()?)?;
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "ready {}", plane.address())?;
    stdout.flush()?;
    std::future::pending().await
}
