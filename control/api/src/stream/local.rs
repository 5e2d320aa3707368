//! Connections within one process: the API server and an agent that share one need no socket and no TLS.
//!
//! Who holds a [`Dialer`] was given it by whoever put the two together; that is all the proof of identity
//! there is, and all that is needed.

use tokio::io::{DuplexStream, duplex};
use tokio::sync::mpsc;

/// Bytes that may wait in one direction of a connection.
const PIPE: usize = 64 << 10;
/// Connections that may wait to be accepted.
const BACKLOG: usize = 64;

/// Opens connections. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Dialer(mpsc::Sender<DuplexStream>);

/// Takes the connections of a [`Dialer`].
#[derive(Debug)]
pub struct Acceptor(mpsc::Receiver<DuplexStream>);

/// Two ends that know each other.
#[must_use]
pub fn pair() -> (Dialer, Acceptor) {
    let (sender, receiver) = mpsc::channel(BACKLOG);
    (Dialer(sender), Acceptor(receiver))
}

impl Dialer {
    /// A connection; `None` when the other end is gone. Cancel-safe.
    pub async fn dial(&self) -> Option<DuplexStream> {
        let (near, far) = duplex(PIPE);
        self.0.send(far).await.ok().map(|()| near)
    }
}

impl Acceptor {
    /// The next connection; `None` when nobody can open any more. Cancel-safe.
    pub async fn accept(&mut self) -> Option<DuplexStream> {
        self.0.recv().await
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn connections_join_the_two_ends_until_one_is_gone() {
        let (dialer, mut acceptor) = pair();
        let mut near = dialer.dial().await.unwrap();
        let mut far = acceptor.accept().await.unwrap();
        near.write_all(b"hi").await.unwrap();
        drop(near);
        let mut got = String::new();
        far.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "hi");
        drop(acceptor);
        assert!(dialer.dial().await.is_none());
    }
}
