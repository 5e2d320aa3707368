//! Answers what the kernel asks: whether a pod's connection may be, and who carries it.
//!
//! | asked about | answer |
//! |---|---|
//! | a connection to a Linux container of this node, or outside | the packet, by the device it came from: the kernel carries the connection |
//! | any other | a connection of the agent's own to there; once that stands, the packet by the other device |
//! | one that is refused | a reset, or an ICMP message that says why |
//! | a datagram | nothing: it is the agent's, and so is what comes back |
//! | an echo request | as for a connection |
//!
//! So a pod's program is connected when, and only if, the one that it calls is.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;
use windlass_wasi_shims::net::NetError;

use super::datagrams::Datagrams;
use super::fragments::Fragments;
use super::packet::{self, Packet, Syn, Unreachable};
use super::uplink::{LONGEST, Uplink, v4};
use crate::network::Core;
use crate::network::connect::{Caller, Carried};
use crate::network::dns::{Asker, Begun};
use crate::network::egress;
use crate::network::pod::Pod;
use crate::network::switch::{CONNECT_TIMEOUT, Transport};

/// Connections that are decided about at once; who comes beyond has to ask again.
const MAX_ASKED: usize = 4096;

/// Who asks.
enum Source {
    Pod(Arc<Pod>),
    /// A program of this machine.
    Node,
}

impl Source {
    fn caller(&self) -> Caller<'_> {
        match self {
            Self::Pod(pod) => Caller::Pod(pod),
            Self::Node => Caller::Node,
        }
    }
}

/// Answers the kernel.
pub(super) struct Answering {
    pub(super) core: Arc<Core>,
    pub(super) uplink: Arc<Uplink>,
    datagrams: Datagrams,
    room: Arc<Semaphore>,
}

impl Answering {
    pub(super) fn new(core: Arc<Core>, uplink: Arc<Uplink>) -> Self {
        Self {
            datagrams: Datagrams::new(uplink.clone()),
            core,
            uplink,
            room: Arc::new(Semaphore::new(MAX_ASKED)),
        }
    }

    /// Answers until the device is gone.
    pub(super) async fn run(self: Arc<Self>) {
        let mut buffer = vec![0; LONGEST];
        let mut fragments = Fragments::new();
        loop {
            let packet = match self.uplink.asked(&mut buffer).await {
                Ok(packet) => packet,
                Err(error) => {
                    tracing::warn!(%error, "the kernel's questions can't be read");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
            };
            match packet::parse(packet) {
                Some(Packet::Syn(syn)) => self.on_connection(syn, packet),
                Some(Packet::Datagram { from, to, data }) => {
                    if let Err(error) = self.on_datagram(v4(from), v4(to), data) {
                        self.refuse(packet, None, &error);
                    }
                }
                Some(Packet::Piece) => {
                    if let Some(whole) = fragments.add(packet)
                        && let Err(error) =
                            self.on_datagram(v4(whole.from), v4(whole.to), &whole.data)
                    {
                        tracing::debug!(%error, "a datagram of a pod goes nowhere");
                    }
                }
                Some(Packet::Echo { from, to }) => self.on_echo(from.into(), to.into(), packet),
                // Of other protocols the switch knows nothing.
                None => {}
            }
        }
    }

    /// Who has the address here.
    fn source(&self, from: IpAddr) -> Option<Source> {
        if let Some(pod) = self.core.pod(from) {
            return Some(Source::Pod(pod.network()?));
        }
        let is_node = from == self.core.host_address() || egress::is_this_machine(from);
        is_node.then_some(Source::Node)
    }

    fn on_connection(self: &Arc<Self>, syn: Syn, packet: &[u8]) {
        let ends = (v4(syn.from), v4(syn.to));
        // Somebody else's packet, that another machine took for a router's.
        let Some(source) = self.source(ends.0.ip()) else {
            return;
        };
        let Ok(permit) = self.room.clone().try_acquire_owned() else {
            return;
        };
        if !self.uplink.begins(ends, packet) {
            return;
        }
        let (this, packet) = (self.clone(), Bytes::copy_from_slice(packet));
        tokio::spawn(async move {
            let connecting = this
                .core
                .connect_for_kernel(ends.0, ends.1, source.caller());
            let carried = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await;
            drop((permit, source));
            match carried.unwrap_or(Err(NetError::Timeout)) {
                Ok(Carried::ByKernel) => {
                    this.uplink.done(ends);
                    this.uplink.answer(&packet);
                }
                Ok(Carried::ByAgent(stream)) => {
                    this.uplink.let_in(ends, stream, &packet).await;
                }
                Err(error) => {
                    this.uplink.done(ends);
                    this.refuse(&packet, Some(&syn), &error);
                }
            }
        });
    }

    /// Tells who sent `packet` why nothing comes of it.
    fn refuse(&self, packet: &[u8], syn: Option<&Syn>, error: &NetError) {
        let why = match (error, syn) {
            (NetError::AccessDenied | NetError::NotSupported, _) => Unreachable::Prohibited,
            (NetError::RemoteUnreachable, _) => Unreachable::Host,
            // Whoever asks gives up by its own time.
            (NetError::Timeout, _) => return,
            (_, Some(syn)) => {
                if let Some(reset) = packet::reset(syn) {
                    self.uplink.answer(&reset);
                }
                return;
            }
            (_, None) => Unreachable::Port,
        };
        let IpAddr::V4(by) = self.core.host_address() else {
            return;
        };
        if let Some(told) = packet::unreachable(by, packet, why) {
            self.uplink.answer(&told);
        }
    }

    fn on_datagram(
        self: &Arc<Self>,
        from: SocketAddr,
        to: SocketAddr,
        data: &[u8],
    ) -> Result<(), NetError> {
        match self.source(from.ip()) {
            Some(Source::Pod(pod)) => self.datagrams.send(&pod, from, to, data),
            Some(Source::Node) => self.ask_dns(from, to, data),
            None => Ok(()),
        }
    }

    /// Has this node's DNS answer a program of this machine.
    fn ask_dns(&self, from: SocketAddr, to: SocketAddr, data: &[u8]) -> Result<(), NetError> {
        let table = self.core.services.load();
        if !table
            .by_address(Transport::Udp, to)
            .is_some_and(|service| service.is_dns())
        {
            // Differs from Kubernetes: of the Services over UDP this machine itself reaches the DNS only.
            return Err(NetError::NotSupported);
        }
        let answer = match self.core.begin_datagram(data) {
            Begun::Nothing => return Ok(()),
            Begun::Answer(answer) => answer,
            Begun::Outside(pending) => match Asker::Machine.permit(&self.core) {
                None => pending.refuse(&self.core),
                Some(permit) => {
                    let (core, uplink) = (self.core.clone(), self.uplink.clone());
                    tokio::spawn(async move {
                        let answer = pending.finish(&core, &Asker::Machine).await;
                        uplink.deliver(to, from, &answer);
                        drop(permit);
                    });
                    return Ok(());
                }
            },
        };
        self.uplink.deliver(to, from, &answer);
        Ok(())
    }

    fn on_echo(&self, from: IpAddr, to: IpAddr, packet: &[u8]) {
        // Differs from Kubernetes: only Linux containers of this node answer; policies know no ICMP.
        let answers = self.core.pod(to).is_some_and(|pod| pod.ports.is_joined());
        if self.source(from).is_none() {
            return;
        }
        if answers {
            self.uplink.answer(packet);
        } else {
            self.refuse(packet, None, &NetError::NotSupported);
        }
    }
}
