//! One question to one server: by datagram, and by a stream if the answer did not fit, or datagrams don't get there.
//!
//! A datagram that is no answer to the question is not heard, so that who guesses has to guess both the port, which is
//! new for each question, and the number.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::Record;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use windlass_wasi_shims::net::{NetError, UdpPort};

use super::message;
use super::zone::Reply;
use crate::network::pod::Pod;

/// The longest datagram that is read: longer than servers are told to send.
const HEARD: usize = 4096;

/// Why a server gave no answer.
#[derive(Debug, thiserror::Error)]
pub(in crate::network) enum AskError {
    /// It did not answer in time.
    #[error("{0} does not answer")]
    Silent(SocketAddr),
    /// It cannot be reached from this machine.
    #[error("{server} cannot be asked")]
    Host {
        server: SocketAddr,
        #[source]
        source: io::Error,
    },
    /// It cannot be reached from the pod.
    #[error("{server} cannot be asked")]
    Pod {
        server: SocketAddr,
        #[source]
        source: NetError,
    },
    /// Its answer is no answer, or says that it has none.
    #[error("{server} answers {code}")]
    Failed {
        server: SocketAddr,
        code: ResponseCode,
    },
    /// There is nobody to ask.
    #[error("no DNS server is known for names outside of the cluster")]
    NoServer,
    /// Too many questions wait already.
    #[error("too many questions wait for an answer")]
    Busy,
    /// A name that no message can hold.
    #[error("not a name: {0}")]
    NoName(String),
}

impl AskError {
    /// The code of a refusal that asking again does not change: a rule forbids the way to the server.
    pub(super) fn refusal(&self) -> Option<ResponseCode> {
        let denied = matches!(
            self,
            Self::Pod {
                source: NetError::AccessDenied,
                ..
            }
        );
        denied.then_some(ResponseCode::Refused)
    }
}

/// Who asks, and so by which sockets and under which rules.
#[derive(Clone)]
pub(in crate::network) enum Way {
    /// The agent, on its machine.
    Host,
    /// A pod, as a program in it would.
    Pod(Arc<Pod>),
}

/// Asks one server.
pub(super) async fn ask(
    way: &Way,
    server: SocketAddr,
    question: &Query,
    limit: Duration,
) -> Result<Reply, AskError> {
    let exchange = async {
        match by_datagram(way, server, question).await {
            Ok(answer) if !answer.metadata.truncation => Ok(answer),
            // It did not fit, or there is no way for datagrams to a pod of another node.
            Ok(_)
            | Err(AskError::Pod {
                source: NetError::NotSupported,
                ..
            }) => by_stream(way, server, question).await,
            Err(error) => Err(error),
        }
    };
    let answer = tokio::time::timeout(limit, exchange).await;
    let message = answer.map_err(|_| AskError::Silent(server))??;
    match message.metadata.response_code {
        code @ (ResponseCode::NoError | ResponseCode::NXDomain) => Ok(Reply {
            code,
            answers: in_case_of(message.answers, question),
            authority: message.authorities,
            authoritative: false,
        }),
        code => Err(AskError::Failed { server, code }),
    }
}

/// The records, with the name asked for spelled as it was asked for.
pub(super) fn in_case_of(mut records: Vec<Record>, question: &Query) -> Vec<Record> {
    for record in &mut records {
        if record.name == *question.name() {
            record.name = question.name().clone();
        }
    }
    records
}

fn asking(question: &Query) -> Result<(u16, Vec<u8>), AskError> {
    message::ask(question).ok_or_else(|| AskError::NoName(question.name().to_ascii()))
}

async fn by_datagram(way: &Way, server: SocketAddr, question: &Query) -> Result<Message, AskError> {
    let (id, bytes) = asking(question)?;
    match way {
        Way::Host => {
            let failed = |source| AskError::Host { server, source };
            let any: IpAddr = match server {
                SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            };
            let socket = UdpSocket::bind((any, 0)).await.map_err(failed)?;
            socket.connect(server).await.map_err(failed)?;
            socket.send(&bytes).await.map_err(failed)?;
            let mut buffer = vec![0; HEARD];
            loop {
                let length = socket.recv(&mut buffer).await.map_err(failed)?;
                let heard = buffer.get(..length).unwrap_or_default();
                if let Some(answer) = message::read(heard, id, question) {
                    return Ok(answer);
                }
            }
        }
        Way::Pod(pod) => {
            let failed = |source| AskError::Pod { server, source };
            let port = pod.open_udp().map_err(failed)?;
            port.send(server, Bytes::from(bytes)).map_err(failed)?;
            loop {
                let heard = poll_fn(|cx| port.poll_receive(cx)).await.map_err(failed)?;
                if heard.from != server {
                    continue;
                }
                if let Some(answer) = message::read(&heard.data, id, question) {
                    return Ok(answer);
                }
            }
        }
    }
}

async fn by_stream(way: &Way, server: SocketAddr, question: &Query) -> Result<Message, AskError> {
    let failed = |source| AskError::Host { server, source };
    match way {
        Way::Host => {
            let stream = TcpStream::connect(server).await.map_err(failed)?;
            over(stream, server, question).await
        }
        Way::Pod(pod) => {
            let failed = |source| AskError::Pod { server, source };
            let stream = pod.connect(None, server).await.map_err(failed)?;
            over(stream, server, question).await
        }
    }
}

async fn over(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    server: SocketAddr,
    question: &Query,
) -> Result<Message, AskError> {
    let (id, bytes) = asking(question)?;
    let exchange = async {
        write_framed(&mut stream, &bytes).await?;
        read_framed(&mut stream).await
    };
    let heard = exchange
        .await
        .map_err(|source| AskError::Host { server, source })?;
    message::read(&heard, id, question).ok_or(AskError::Failed {
        server,
        code: ResponseCode::FormErr,
    })
}

/// Writes a message behind its length, as streams carry them.
pub(super) async fn write_framed(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &[u8],
) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    let framed = [&length.to_be_bytes()[..], message].concat();
    stream.write_all(&framed).await
}

/// Reads the next message of a stream.
pub(super) async fn read_framed(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; length.into()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}
