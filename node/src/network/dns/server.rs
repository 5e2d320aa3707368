//! DNS over sockets: of the host, at an address that was asked for, and streams of pods.
//!
//! 1. A datagram about the cluster is answered where it is received. One about a name outside becomes a task, of which
//!    there are so many and no more.
//! 2. A stream is read question by question. One that is silent for [`IDLE`] is closed; beyond [`MAX_STREAMS`] none
//!    is accepted.
//! 3. Who asks from this machine is told of names outside too.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::exchange::{read_framed, write_framed};
use super::{Asker, Begun, Carrier};
use crate::network::{Core, egress};

/// How long a stream may take for a question, and for taking an answer.
const IDLE: Duration = Duration::from_secs(10);

/// Streams of the host at once.
const MAX_STREAMS: usize = 256;

/// The longest question that is read by datagram.
const MAX_QUESTION: usize = 4096;

/// How often a port for both transports is looked for.
const PORT_DRAWS: usize = 16;

/// The sockets of a DNS server: one address, by UDP and by TCP.
#[derive(Debug)]
pub struct DnsListener {
    datagrams: UdpSocket,
    streams: TcpListener,
    address: SocketAddr,
}

impl DnsListener {
    /// Opens both; port 0 picks one that is free for both.
    ///
    /// # Errors
    /// One of them cannot be opened.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let mut draws = if address.port() == 0 { PORT_DRAWS } else { 1 };
        loop {
            draws -= 1;
            let streams = TcpListener::bind(address).await?;
            let address = streams.local_addr()?;
            match UdpSocket::bind(address).await {
                Ok(datagrams) => {
                    return Ok(Self {
                        datagrams,
                        streams,
                        address,
                    });
                }
                Err(error) if draws == 0 => return Err(error),
                Err(_) => {}
            }
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until dropped.
    pub(in crate::network) async fn serve(self, core: Arc<Core>) {
        core.dns.forwarder.is_asked_at(self.address);
        tokio::join!(
            serve_datagrams(core.clone(), self.datagrams),
            accept(core, self.streams)
        );
    }
}

/// Who asks from an address of the host's network.
fn asker(client: IpAddr) -> Asker {
    let client = client.to_canonical();
    if client.is_loopback() || egress::is_this_machine(client) {
        Asker::Machine
    } else {
        Asker::Stranger
    }
}

async fn serve_datagrams(core: Arc<Core>, socket: UdpSocket) {
    let socket = Arc::new(socket);
    let mut waiting = JoinSet::new();
    let mut buffer = vec![0; MAX_QUESTION];
    loop {
        while waiting.try_join_next().is_some() {}
        let (length, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                // An earlier answer may have been refused by a client that is gone.
                tracing::debug!(%error, "a DNS datagram was not received");
                tokio::task::yield_now().await;
                continue;
            }
        };
        let answer = match core.begin_datagram(buffer.get(..length).unwrap_or_default()) {
            Begun::Nothing => continue,
            Begun::Answer(answer) => answer,
            Begun::Outside(pending) => {
                let asker = asker(client.ip());
                match asker.permit(&core) {
                    None => pending.refuse(&core),
                    Some(permit) => {
                        let (core, socket) = (core.clone(), socket.clone());
                        waiting.spawn(async move {
                            let answer = pending.finish(&core, &asker).await;
                            send(&socket, &answer, client).await;
                            drop(permit);
                        });
                        continue;
                    }
                }
            }
        };
        send(&socket, &answer, client).await;
    }
}

async fn send(socket: &UdpSocket, answer: &[u8], client: SocketAddr) {
    if let Err(error) = socket.send_to(answer, client).await {
        tracing::debug!(%client, %error, "a DNS answer was not sent");
    }
}

async fn accept(core: Arc<Core>, listener: TcpListener) {
    let streams = Arc::new(Semaphore::new(MAX_STREAMS));
    let mut open = JoinSet::new();
    loop {
        let Ok(permit) = streams.clone().acquire_owned().await else {
            return;
        };
        while open.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, client)) => {
                let core = core.clone();
                open.spawn(async move {
                    serve_client(core, stream, client).await;
                    drop(permit);
                });
            }
            Err(error) => {
                // Most likely out of descriptors: pause rather than spin.
                tracing::warn!(%error, "a DNS connection was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve_client(core: Arc<Core>, stream: TcpStream, client: SocketAddr) {
    // Small answers must not wait for the client's delayed acknowledgement.
    let _best_effort = stream.set_nodelay(true);
    serve_stream(&core, &asker(client.ip()), stream).await;
}

/// Answers the questions of a stream, one after the other, until it ends or is silent for too long.
pub(in crate::network) async fn serve_stream(
    core: &Core,
    asker: &Asker,
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
) {
    while let Ok(Ok(question)) = tokio::time::timeout(IDLE, read_framed(&mut stream)).await {
        let answer = match core.begin_answer(&question, Carrier::Stream) {
            // Who sends what is no question is not listened to.
            Begun::Nothing => return,
            Begun::Answer(answer) => answer,
            Begun::Outside(pending) => match asker.permit(core) {
                Some(_permit) => pending.finish(core, asker).await,
                None => pending.refuse(core),
            },
        };
        let written = tokio::time::timeout(IDLE, write_framed(&mut stream, &answer)).await;
        if !matches!(written, Ok(Ok(()))) {
            return;
        }
    }
}
