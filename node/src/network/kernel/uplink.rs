//! The two devices between this machine's kernel and the switch, and the connections that were answered for.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_tun::Tun;
use windlass_wasi_shims::net::Stream;

use super::packet;
use super::tables::{ASK, CARRY};
use crate::network::egress;

/// The longest packet there is.
pub(super) const LONGEST: usize = 65_535;

/// How long a connection that was answered for may take to come.
const COMING: Duration = Duration::from_secs(10);

/// Both ends of a connection, as whoever opens it sees them.
pub(super) type Ends = (SocketAddr, SocketAddr);

/// What has become of a connection that was asked about.
enum Pending {
    /// Somebody is at it.
    Asked,
    /// This leads to where it goes.
    Ready(Stream),
}

/// The devices.
pub(super) struct Uplink {
    ask: Tun,
    carry: Tun,
    pending: Mutex<HashMap<Ends, Pending>>,
}

impl Uplink {
    /// Makes both devices, which are gone with this value.
    ///
    /// # Errors
    /// They exist, or this process may not.
    pub(super) fn open() -> io::Result<Self> {
        let device = |name: &str| -> io::Result<Tun> {
            let longest = i32::try_from(LONGEST).unwrap_or(i32::MAX);
            let made = Tun::builder().name(name).mtu(longest).build();
            let made = made.map_err(|error| io::Error::other(format!("{name}: {error}")))?;
            made.into_iter()
                .next()
                .ok_or_else(|| io::Error::other(format!("{name}: no device was made")))
        };
        Ok(Self {
            ask: device(ASK)?,
            carry: device(CARRY)?,
            pending: Mutex::default(),
        })
    }

    fn pending(&self) -> MutexGuard<'_, HashMap<Ends, Pending>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next packet that is asked about. Cancel-safe.
    pub(super) async fn asked<'a>(&self, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        let length = self.ask.recv(buffer).await?;
        Ok(buffer.get(..length).unwrap_or_default())
    }

    /// Lets the kernel go on with a packet, or answers its sender.
    pub(super) fn answer(&self, packet: &[u8]) {
        // Like any queue of a link a full one loses the packet, and its sender sends it again.
        if let Err(error) = self.ask.try_send(packet) {
            tracing::debug!(%error, "an answer to the kernel was lost");
        }
    }

    /// Gives a datagram to a pod's link.
    pub(super) fn deliver(&self, from: SocketAddr, to: SocketAddr, data: &[u8]) {
        let (SocketAddr::V4(from), SocketAddr::V4(to)) = (from, to) else {
            return;
        };
        if let Some(packet) = packet::datagram(from, to, data) {
            self.carry(&packet);
        }
    }

    fn carry(&self, packet: &[u8]) {
        if let Err(error) = self.carry.try_send(packet) {
            tracing::debug!(%error, "a packet to the kernel was lost");
        }
    }

    /// Whether the connection has to be decided about: not if somebody is at it. One that was answered for is let in
    /// again, since `packet` says that it did not come through.
    pub(super) fn begins(&self, ends: Ends, packet: &[u8]) -> bool {
        match self.pending().entry(ends) {
            Entry::Vacant(entry) => {
                entry.insert(Pending::Asked);
                return true;
            }
            Entry::Occupied(entry) if matches!(entry.get(), Pending::Asked) => return false,
            Entry::Occupied(_) => {}
        }
        self.carry(packet);
        false
    }

    /// Nothing comes of the connection here.
    pub(super) fn done(&self, ends: Ends) {
        self.pending().remove(&ends);
    }

    /// The connection leads to `stream`; lets it in, and waits a while for it to come.
    pub(super) async fn let_in(&self, ends: Ends, stream: Stream, packet: &[u8]) {
        self.pending().insert(ends, Pending::Ready(stream));
        self.carry(packet);
        tokio::time::sleep(COMING).await;
        // Whoever asked is gone.
        self.done(ends);
    }

    fn take(&self, ends: Ends) -> Option<Stream> {
        match self.pending().entry(ends) {
            Entry::Occupied(entry) if matches!(entry.get(), Pending::Ready(_)) => {
                match entry.remove() {
                    Pending::Ready(stream) => Some(stream),
                    Pending::Asked => None,
                }
            }
            _ => None,
        }
    }

    /// Joins the connections that come in to where they lead, until dropped.
    pub(super) async fn serve(self: Arc<Self>, listener: TcpListener) {
        loop {
            let (connection, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Most likely out of descriptors: pause rather than spin.
                    tracing::warn!(%error, "a connection of a pod was not accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            // The address that was dialled: the socket stands for it.
            let Ok(dialled) = connection.local_addr() else {
                continue;
            };
            let Some(stream) = self.take((peer, dialled)) else {
                // Nobody answered for it: somebody on this machine knocks at the listener itself.
                continue;
            };
            // Small writes must not wait for the pod's delayed acknowledgement.
            let _best_effort = connection.set_nodelay(true);
            tokio::spawn(egress::join(connection, stream));
        }
    }
}

/// An address without a family.
pub(super) fn v4(address: SocketAddrV4) -> SocketAddr {
    SocketAddr::V4(address)
}
