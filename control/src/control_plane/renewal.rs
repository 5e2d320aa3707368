//! What a control plane renews while it runs: its certificates before they end, and everything that follows from its
//! authority when that becomes another.
//!
//! 1. [`follow_files`] takes over what `windlass ca` changes in `DATA-DIR/pki`, told by the system (inotify), and once a
//!    day does what an authority that comes to its end needs.
//! 2. [`issue`] makes new certificates for the API's socket and for connections to nodes when the authority changes or
//!    two thirds of their life have passed, and says everywhere who is to be trusted.
//!
//! Connections that are open stay.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::unix::AsyncFd;
use tokio_util::sync::CancellationToken;

use super::Endpoint;
use crate::descriptor;
use crate::pki::service_account::Tokens;
use crate::pki::{Authority, manage};

/// How often the end of the authority is looked at.
const DAY: Duration = Duration::from_secs(86_400);
/// Several files of one change are taken over together.
const SETTLE: Duration = Duration::from_millis(50);

/// What the files of a directory are for.
pub(super) struct Files {
    pub(super) pki: PathBuf,
    pub(super) authority: Arc<Authority>,
    pub(super) tokens: Arc<Tokens>,
}

/// Takes over what changes in the directory, until `stop`.
pub(super) async fn follow_files(files: Files, stop: CancellationToken) {
    let watched = watch(&files.pki);
    let watched = watched.inspect_err(|error| {
        tracing::warn!(%error, "changes of the keys are seen at the next start only");
    });
    let watched = watched.ok();
    let mut daily = tokio::time::interval(DAY);
    loop {
        let told = async {
            match &watched {
                Some(fd) => changed(fd).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            _ = daily.tick() => files.renew().await,
            () = told => {}
        }
        files.reload().await;
    }
}

impl Files {
    async fn renew(&self) {
        let pki = self.pki.clone();
        let renewed = tokio::task::spawn_blocking(move || manage::renew(&pki, Timestamp::now()));
        match renewed.await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::error!(%error, "renew the authority"),
            Err(error) => tracing::error!(%error, "renew the authority"),
        }
    }

    async fn reload(&self) {
        let (pki, authority) = (self.pki.clone(), Arc::clone(&self.authority));
        let tokens = Arc::clone(&self.tokens);
        let reloaded = tokio::task::spawn_blocking(move || {
            authority.reload(&pki)?;
            tokens.reload(&pki)
        });
        match reloaded.await {
            Ok(Ok(())) => tracing::debug!("the keys were read again"),
            Ok(Err(error)) => tracing::error!(%error, "the keys in use stay"),
            Err(error) => tracing::error!(%error, "read the keys again"),
        }
    }
}

fn watch(directory: &Path) -> std::io::Result<AsyncFd<OwnedFd>> {
    let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    // Whoever writes whole files moves them here.
    let what = WatchFlags::MOVED_TO | WatchFlags::CLOSE_WRITE;
    inotify::add_watch(&fd, directory, what)?;
    descriptor::register(fd)
}

/// Returns once something has changed and nothing more does for a moment.
async fn changed(fd: &AsyncFd<OwnedFd>) {
    loop {
        let Ok(mut ready) = fd.readable().await else {
            return std::future::pending().await;
        };
        // What has changed does not matter: everything is read again.
        let mut buffer = [0_u8; 4096];
        let read = ready.try_io(|fd| Ok(rustix::io::read(fd, &mut buffer)?));
        match read {
            Ok(Ok(_)) => break,
            Ok(Err(error)) => {
                tracing::warn!(%error, "changes of the keys are seen at the next start only");
                return std::future::pending().await;
            }
            Err(_would_block) => {}
        }
    }
    tokio::time::sleep(SETTLE).await;
}

/// Issues what the endpoint needs again and again, until `stop`.
pub(super) async fn issue(endpoint: Endpoint, client: kube::Client, stop: CancellationToken) {
    let mut changes = endpoint.authority.changes();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = Authority::due(&mut changes) => {}
        }
        if let Err(error) = endpoint.renew() {
            tracing::error!(%error, "the certificates in use stay");
        }
        // Joining nodes and users of the kubeconfig have to trust what is shown from now on.
        if let Err(error) = endpoint.publish(&client).await {
            tracing::error!(%error, "publish whom to trust");
        }
    }
}
