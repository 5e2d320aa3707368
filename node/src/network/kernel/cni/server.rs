//! The agent's side: answers the plugin, one question per connection.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use super::super::Joining;
use super::{Added, Answer, Command, Failure, Request};

/// The longest question that is read.
const LONGEST: u64 = 64 << 10;

/// How long a question may take to be asked.
const PATIENCE: Duration = Duration::from_secs(10);

/// Opens the socket, in place of one that an earlier agent left; only this user may ask.
pub(in super::super) fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers until dropped.
pub(in super::super) async fn serve(listener: UnixListener, joining: Arc<Joining>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let joining = joining.clone();
                tokio::spawn(async move {
                    if let Err(error) = converse(stream, &joining).await {
                        tracing::debug!(%error, "a network plugin went away");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a network plugin was not heard");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(mut stream: UnixStream, joining: &Joining) -> io::Result<()> {
    let mut line = String::new();
    let mut reader = BufReader::new((&mut stream).take(LONGEST));
    let reading = tokio::time::timeout(PATIENCE, reader.read_line(&mut line));
    reading.await.map_err(io::Error::other)??;
    let answer = match serde_json::from_str::<Request>(&line) {
        Ok(request) => answer(joining, &request).await,
        Err(error) => Answer::Failed(Failure::configuration(error.to_string())),
    };
    let mut told = serde_json::to_vec(&answer)?;
    told.push(b'\n');
    stream.write_all(&told).await
}

async fn answer(joining: &Joining, request: &Request) -> Answer {
    let Request { uid, netns, .. } = request;
    let done = match request.command {
        Command::Add => {
            let interface = &request.interface;
            match joining.join(uid, Path::new(netns), interface).await {
                Ok(link) => {
                    return Answer::Added(Added {
                        address: link.address,
                        mac: link.own_mac.to_string(),
                    });
                }
                Err(error) => Err(error.to_string()),
            }
        }
        Command::Del => {
            let left = joining.leave(uid, Path::new(netns)).await;
            left.map_err(|error| error.to_string())
        }
        Command::Check if joining.is_joined(uid) => Ok(()),
        Command::Check => return Answer::Failed(Failure::unknown("the pod has no link here")),
    };
    match done {
        Ok(()) => Answer::Done,
        Err(message) => {
            let (pod, sandbox) = (uid, &request.container_id);
            tracing::warn!(pod, sandbox, message, "a pod's link");
            Answer::Failed(Failure { code: 999, message })
        }
    }
}
