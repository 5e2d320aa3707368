//! Servers that the tool runs itself: a given binary on a given directory, and when it answers.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context;
use http::Request;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::process::{Child, Command};

use crate::{PATIENCE, loopback};

/// Between two looks at a server that does not answer yet.
const PAUSE: Duration = Duration::from_millis(1);

/// A windlass process; killed with SIGKILL when dropped.
pub(crate) struct Windlass {
    process: Child,
    /// From the start of the process until `/readyz` answered ok.
    pub(crate) ready_after: Duration,
}

impl Windlass {
    /// Runs `binary` with `command` (`up`, `server`) and waits until it is ready.
    pub(crate) async fn start(
        binary: &Path,
        command: &str,
        directory: &Path,
        port: u16,
    ) -> anyhow::Result<Self> {
        let log = directory.with_extension("log");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let started = Instant::now();
        let mut process = Command::new(binary)
            .args([command, "--listen", &address.to_string(), "--data-dir"])
            .arg(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log)?)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("run {}", binary.display()))?;
        let ready = tokio::select! {
            ready = tokio::time::timeout(PATIENCE, until_ready(address)) => ready.context("not ready"),
            ended = process.wait() => Err(anyhow::anyhow!("it ended: {}", ended?)),
        };
        let ready_after = started.elapsed();
        ready.and_then(|inner| inner).with_context(|| {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            format!("{} {command} said: {said}", binary.display())
        })?;
        Ok(Self {
            process,
            ready_after,
        })
    }

    /// Its process id, while it runs.
    pub(crate) fn id(&self) -> anyhow::Result<u32> {
        self.process.id().context("the process has ended")
    }

    /// SIGKILL, as the kernel's out-of-memory killer sends it.
    pub(crate) async fn kill(mut self) -> anyhow::Result<()> {
        Ok(self.process.kill().await?)
    }
}

/// A client by the administrator's kubeconfig in `directory`, once the server has written it.
pub(crate) async fn administrator(directory: &Path) -> anyhow::Result<Client> {
    let path = directory.join("kubeconfig");
    let written = async {
        while !path.is_file() {
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::time::timeout(PATIENCE, written)
        .await
        .with_context(|| format!("{} is not written", path.display()))?;
    client(&path).await
}

/// A client by a kubeconfig whose server is on this machine.
pub(crate) async fn client(kubeconfig: &Path) -> anyhow::Result<Client> {
    let read = Kubeconfig::read_from(kubeconfig)
        .with_context(|| format!("read {}", kubeconfig.display()))?;
    let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await?;
    loopback(&config.cluster_url)?;
    Ok(Client::try_from(config)?)
}

/// A port that is free now.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}

async fn until_ready(address: SocketAddr) -> anyhow::Result<()> {
    let mut config = Config::new(format!("https://{address}").parse()?);
    // The authority is made by the very start that is measured; the answer is only timed.
    config.accept_invalid_certs = true;
    let client = Client::try_from(config)?;
    loop {
        let request = Request::get("/readyz").body(Vec::new())?;
        if client.request_text(request).await.is_ok() {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
}
