//! The ports of one pod, and the pipes between pods.
//!
//! Each pod has its own table of bound addresses: loopback, its own address and the wildcards of
//! both families. A connection is a [`Stream`] pair, one end of which is queued at the listener;
//! it is open for the client as soon as it is queued, as with TCP. A full queue makes the client
//! wait, and time out in the end.
//!
//! A pod with Linux containers has a network namespace besides (`kernel/`); what nobody here listens for is meant for it.
//!
//! Invariant: a key is in a table exactly as long as its [`PortLease`] lives, or until the pod is
//! closed.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::mpsc;
use windlass_wasi_shims::net::{Datagram, Meters, NetError, Stream, TcpBinding, TcpListener};

use super::kernel::{Joined, Mirror};

/// How long a connection attempt may wait for room at the listener or for an answer from outside.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Ports one pod may hold.
const MAX_PORTS: usize = 4096;

/// Connections that may wait at one listener, whatever the guest asks for.
const MAX_BACKLOG: usize = 4096;

/// Where ephemeral ports start, as on Linux.
const FIRST_EPHEMERAL: u16 = 32_768;

/// Transport of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Transport {
    Tcp,
    Udp,
}

impl Transport {
    /// As a Service spells it.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }

    /// As objects spell it; TCP where they don't. None for what pods here don't have.
    pub(super) fn parse(protocol: Option<&str>) -> Option<Self> {
        match protocol {
            None | Some("TCP") => Some(Self::Tcp),
            Some("UDP") => Some(Self::Udp),
            Some(_) => None,
        }
    }
}

/// What stands at a bound address.
enum Slot {
    /// Reserved, nobody listens yet.
    Bound,
    Listening {
        queue: mpsc::Sender<Stream>,
        /// The same port within the pod's network namespace, if it has one.
        mirror: Option<Mirror>,
    },
    Datagrams(mpsc::Sender<Datagram>),
}

struct Table {
    slots: HashMap<(Transport, SocketAddr), Slot>,
    next_ephemeral: u16,
    closed: bool,
}

/// The bound ports of one pod.
pub(super) struct PodPorts {
    address: Ipv4Addr,
    table: Mutex<Table>,
    /// The pod's network namespace, if it has one: where nobody listens here, somebody may there.
    joined: ArcSwapOption<Joined>,
}

impl PodPorts {
    pub(super) fn new(address: Ipv4Addr) -> Self {
        let table = Table {
            slots: HashMap::new(),
            next_ephemeral: FIRST_EPHEMERAL,
            closed: false,
        };
        Self {
            address,
            table: Mutex::new(table),
            joined: ArcSwapOption::empty(),
        }
    }

    pub(super) fn address(&self) -> Ipv4Addr {
        self.address
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes every port for good.
    pub(super) fn close(&self) {
        let mut table = self.lock();
        table.closed = true;
        let slots = std::mem::take(&mut table.slots);
        drop(table);
        drop(slots);
        self.leave();
    }

    /// The pod has a network namespace: what listens here listens there, too.
    pub(super) fn join(&self, joined: &Arc<Joined>) {
        self.joined.store(Some(joined.clone()));
        for ((transport, local), slot) in &mut self.lock().slots {
            if let (Transport::Tcp, Slot::Listening { queue, mirror }) = (transport, slot)
                && mirror.is_none()
            {
                match joined.mirror(*local, queue.clone()) {
                    Ok(made) => *mirror = made,
                    Err(error) => {
                        tracing::warn!(%local, %error, "a port of the pod is not to be had by its Linux containers");
                    }
                }
            }
        }
    }

    /// It has none any more.
    pub(super) fn leave(&self) {
        self.joined.store(None);
        for slot in self.lock().slots.values_mut() {
            if let Slot::Listening { mirror, .. } = slot {
                *mirror = None;
            }
        }
    }

    pub(super) fn is_joined(&self) -> bool {
        self.joined.load().is_some()
    }

    /// Whether a connection to there is for the pod's network namespace.
    pub(super) fn leads_to_kernel(&self, to: SocketAddr) -> bool {
        let joined = self.joined.load();
        joined.as_ref().is_some_and(|it| it.has_link()) && self.listener(to).is_none()
    }

    /// Reserves an address, picking a port if it has none.
    pub(super) fn bind(
        self: &Arc<Self>,
        transport: Transport,
        local: SocketAddr,
    ) -> Result<PortLease, NetError> {
        self.check_own(local.ip())?;
        let mut table = self.lock();
        if table.closed {
            return Err(NetError::AddressNotBindable);
        }
        if table.slots.len() >= MAX_PORTS {
            return Err(NetError::TooManySockets);
        }
        let local = match local.port() {
            0 => table
                .free_port(transport, local.ip())
                .ok_or(NetError::AddressInUse)?,
            _ => local,
        };
        if table.conflicts(transport, local) {
            return Err(NetError::AddressInUse);
        }
        table.slots.insert((transport, local), Slot::Bound);
        drop(table);
        Ok(PortLease {
            ports: self.clone(),
            transport,
            local,
        })
    }

    fn check_own(&self, ip: IpAddr) -> Result<(), NetError> {
        let own = ip.is_unspecified() || ip.is_loopback() || ip == IpAddr::V4(self.address);
        if own {
            Ok(())
        } else {
            Err(NetError::AddressNotBindable)
        }
    }

    /// The source address of a connection that was not bound: an ephemeral port of `ip`.
    pub(super) fn ephemeral(
        &self,
        transport: Transport,
        ip: IpAddr,
    ) -> Result<SocketAddr, NetError> {
        self.lock()
            .free_port(transport, ip)
            .ok_or(NetError::AddressInUse)
    }

    /// Queues a new connection at the listener of `to`, and answers the client's end of it.
    ///
    /// `seen_as` is the address the client dialled, which may be a Service's. What the client and what the
    /// listener send is counted by `meters`.
    pub(super) async fn connect(
        &self,
        from: SocketAddr,
        to: SocketAddr,
        seen_as: SocketAddr,
        meters: [Meters; 2],
    ) -> Result<Stream, NetError> {
        let Some(listener) = self.listener(to) else {
            let joined = self.joined.load_full();
            let joined = joined.ok_or(NetError::ConnectionRefused)?;
            return joined.connect(from, to, seen_as, meters).await;
        };
        let permit = match listener.try_reserve() {
            Ok(permit) => permit,
            Err(mpsc::error::TrySendError::Closed(())) => return Err(NetError::ConnectionRefused),
            Err(mpsc::error::TrySendError::Full(())) => {
                tokio::time::timeout(CONNECT_TIMEOUT, listener.reserve())
                    .await
                    .map_err(|_| NetError::Timeout)?
                    .map_err(|_| NetError::ConnectionRefused)?
            }
        };
        let (client, server) = Stream::metered_pair(from, seen_as, to, meters);
        permit.send(server);
        Ok(client)
    }

    fn listener(&self, to: SocketAddr) -> Option<mpsc::Sender<Stream>> {
        match self.lock().find(Transport::Tcp, to)? {
            Slot::Listening { queue, .. } => Some(queue.clone()),
            Slot::Bound | Slot::Datagrams(_) => None,
        }
    }

    /// Queues a datagram at the port of `to`, or loses it.
    pub(super) fn deliver(&self, to: SocketAddr, datagram: Datagram) {
        if let Some(Slot::Datagrams(sender)) = self.lock().find(Transport::Udp, to) {
            // A full queue loses the datagram, which is what UDP promises.
            let _lost = sender.try_send(datagram);
        } else if let Some(joined) = self.joined.load_full() {
            joined.deliver(to, &datagram);
        }
    }
}

impl Table {
    /// The slot that answers for an address: its own, or the wildcard of its family.
    fn find(&self, transport: Transport, to: SocketAddr) -> Option<&Slot> {
        let wildcard = SocketAddr::new(wildcard(to.ip()), to.port());
        self.slots
            .get(&(transport, to))
            .or_else(|| self.slots.get(&(transport, wildcard)))
    }

    fn conflicts(&self, transport: Transport, local: SocketAddr) -> bool {
        if !local.ip().is_unspecified() {
            return self.find(transport, local).is_some();
        }
        let clash = |(other, bound): &(Transport, SocketAddr)| {
            *other == transport
                && bound.port() == local.port()
                && bound.is_ipv4() == local.is_ipv4()
        };
        self.slots.keys().any(clash)
    }

    fn free_port(&mut self, transport: Transport, ip: IpAddr) -> Option<SocketAddr> {
        for _ in FIRST_EPHEMERAL..=u16::MAX {
            let local = SocketAddr::new(ip, self.next_ephemeral);
            self.next_ephemeral = self
                .next_ephemeral
                .checked_add(1)
                .unwrap_or(FIRST_EPHEMERAL);
            if !self.conflicts(transport, local) {
                return Some(local);
            }
        }
        None
    }
}

fn wildcard(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// A bound address; dropping it frees the port.
pub(super) struct PortLease {
    ports: Arc<PodPorts>,
    transport: Transport,
    local: SocketAddr,
}

impl PortLease {
    pub(super) fn local(&self) -> SocketAddr {
        self.local
    }

    fn occupy(&self, slot: Slot) -> Result<(), NetError> {
        match self.ports.lock().slots.entry((self.transport, self.local)) {
            Entry::Occupied(mut entry) => {
                entry.insert(slot);
                Ok(())
            }
            // The pod was closed in between.
            Entry::Vacant(_) => Err(NetError::AddressNotBindable),
        }
    }

    /// Starts to receive datagrams, of which up to `queue` wait.
    pub(super) fn datagrams(&self, queue: usize) -> Result<mpsc::Receiver<Datagram>, NetError> {
        let (sender, receiver) = mpsc::channel(queue);
        self.occupy(Slot::Datagrams(sender))?;
        Ok(receiver)
    }
}

impl Drop for PortLease {
    fn drop(&mut self) {
        let slot = self
            .ports
            .lock()
            .slots
            .remove(&(self.transport, self.local));
        drop(slot);
    }
}

impl TcpBinding for PortLease {
    fn local(&self) -> SocketAddr {
        self.local
    }

    fn listen(self: Box<Self>, backlog: usize) -> Result<Box<dyn TcpListener>, NetError> {
        let (sender, queue) = mpsc::channel(backlog.clamp(1, MAX_BACKLOG));
        let joined = self.ports.joined.load_full();
        let mirror = joined.map(|joined| joined.mirror(self.local, sender.clone()));
        self.occupy(Slot::Listening {
            queue: sender,
            mirror: mirror.transpose()?.flatten(),
        })?;
        Ok(Box::new(SwitchListener {
            queue,
            lease: *self,
        }))
    }
}

/// A listening port of a pod.
struct SwitchListener {
    queue: mpsc::Receiver<Stream>,
    lease: PortLease,
}

impl TcpListener for SwitchListener {
    fn local(&self) -> SocketAddr {
        self.lease.local
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Result<Stream, NetError>> {
        self.queue
            .poll_recv(cx)
            .map(|stream| stream.ok_or(NetError::ConnectionReset))
    }

    fn close(&mut self) {
        self.queue.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const POD: Ipv4Addr = Ipv4Addr::new(10, 42, 0, 2);

    fn ports() -> Arc<PodPorts> {
        Arc::new(PodPorts::new(POD))
    }

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn listen(ports: &Arc<PodPorts>, local: &str) -> Box<dyn TcpListener> {
        Box::new(ports.bind(Transport::Tcp, at(local)).unwrap())
            .listen(8)
            .unwrap()
    }

    async fn connect(ports: &PodPorts, to: &str) -> Result<Stream, NetError> {
        let from = at("10.42.0.9:40000");
        ports
            .connect(from, at(to), at(to), Default::default())
            .await
    }

    #[tokio::test]
    async fn a_wildcard_listener_answers_on_every_address_of_its_family() {
        let ports = ports();
        let _listener = listen(&ports, "0.0.0.0:80");
        for (to, want) in [
            ("10.42.0.2:80", Ok(())),
            ("127.0.0.1:80", Ok(())),
            ("127.8.8.8:80", Ok(())),
            ("[::1]:80", Err(NetError::ConnectionRefused)),
            ("10.42.0.2:81", Err(NetError::ConnectionRefused)),
        ] {
            assert_eq!(connect(&ports, to).await.map(drop), want, "{to}");
        }
    }

    #[tokio::test]
    async fn an_address_can_be_bound_once() {
        let ports = ports();
        let _held = ports.bind(Transport::Tcp, at("127.0.0.1:80")).unwrap();
        for (local, want) in [
            ("127.0.0.1:80", Some(NetError::AddressInUse)),
            ("0.0.0.0:80", Some(NetError::AddressInUse)),
            ("10.42.0.2:80", None),
            ("[::1]:80", None),
            ("[::]:80", Some(NetError::AddressInUse)),
            ("10.42.0.3:80", Some(NetError::AddressNotBindable)),
            ("8.8.8.8:80", Some(NetError::AddressNotBindable)),
        ] {
            let got = ports.bind(Transport::Tcp, at(local));
            if local == "[::1]:80" {
                // Held for the wildcard that follows.
                std::mem::forget(got);
                continue;
            }
            assert_eq!(got.err(), want, "{local}");
        }
        assert!(ports.bind(Transport::Udp, at("0.0.0.0:80")).is_ok());
    }

    #[tokio::test]
    async fn a_dropped_listener_refuses_and_frees_its_port() {
        let ports = ports();
        let listener = listen(&ports, "0.0.0.0:80");
        let mut waiting = connect(&ports, "10.42.0.2:80").await.unwrap();
        drop(listener);
        assert_eq!(
            connect(&ports, "10.42.0.2:80").await.err(),
            Some(NetError::ConnectionRefused)
        );
        assert_eq!(waiting.read(&mut [0; 1]).await.unwrap(), 0);
        let _again = listen(&ports, "0.0.0.0:80");
    }

    #[tokio::test]
    async fn a_closed_listener_still_accepts_who_was_let_in() {
        let ports = ports();
        let mut listener = listen(&ports, "0.0.0.0:80");
        let _early = connect(&ports, "10.42.0.2:80").await.unwrap();
        listener.close();
        assert_eq!(
            connect(&ports, "10.42.0.2:80").await.err(),
            Some(NetError::ConnectionRefused)
        );
        assert!(poll_fn(|cx| listener.poll_accept(cx)).await.is_ok());
        assert!(poll_fn(|cx| listener.poll_accept(cx)).await.is_err());
    }

    #[tokio::test]
    async fn connections_carry_bytes_and_both_addresses() {
        let ports = ports();
        let mut listener = listen(&ports, "0.0.0.0:80");
        let vip = at("10.43.0.1:8080");
        let to = at("10.42.0.2:80");
        let from = at("10.42.0.9:40000");
        let connected = ports.connect(from, to, vip, Default::default());
        let mut client = connected.await.unwrap();
        let mut server = poll_fn(|cx| listener.poll_accept(cx)).await.unwrap();
        assert_eq!((client.peer(), server.local()), (vip, to));
        assert_eq!(
            (client.local(), server.peer()),
            (at("10.42.0.9:40000"), at("10.42.0.9:40000"))
        );
        client.write_all(b"ping").await.unwrap();
        client.shutdown().await.unwrap();
        let mut got = String::new();
        server.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "ping");
    }

    #[tokio::test]
    async fn a_full_queue_makes_the_client_wait_for_room() {
        let ports = ports();
        let lease = ports.bind(Transport::Tcp, at("0.0.0.0:80")).unwrap();
        let mut listener = Box::new(lease).listen(1).unwrap();
        let _first = connect(&ports, "10.42.0.2:80").await.unwrap();
        let mut waiting = Box::pin(connect(&ports, "10.42.0.2:80"));
        assert!(futures::poll!(&mut waiting).is_pending());
        let _accepted = poll_fn(|cx| listener.poll_accept(cx)).await.unwrap();
        assert!(waiting.await.is_ok());
    }

    #[tokio::test]
    async fn ephemeral_ports_skip_what_is_bound() {
        let ports = ports();
        let first = ports.bind(Transport::Tcp, at("0.0.0.0:32768")).unwrap();
        let second = ports.bind(Transport::Tcp, at("0.0.0.0:0")).unwrap();
        assert_eq!(
            (first.local().port(), second.local().port()),
            (32_768, 32_769)
        );
    }

    #[tokio::test]
    async fn a_closed_pod_has_no_ports() {
        let ports = ports();
        let mut listener = listen(&ports, "0.0.0.0:80");
        ports.close();
        assert!(poll_fn(|cx| listener.poll_accept(cx)).await.is_err());
        assert!(ports.bind(Transport::Tcp, at("0.0.0.0:81")).is_err());
    }
}
