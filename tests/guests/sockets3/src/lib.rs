//! Checks of `wasi:sockets` 0.3, each by a name: `sockets3 <check>` prints what happened, error codes by their names.
//!
//! `sockets3 tcp-ask|tcp-bind|udp-ask <address> [text]` does what `probe` does with the address.
//!
//! Both ends of a connection are here, on the loopback that every network has: the same checks run on a pod's network and on
//! that of wasmtime, and have to say the same.

use std::net::SocketAddr;

use wasip3::cli::{environment, stdout};
use wasip3::sockets::ip_name_lookup::resolve_addresses;
use wasip3::sockets::types::{
    ErrorCode, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, Ipv6SocketAddress, TcpSocket,
    UdpSocket,
};
use wasip3::wit_bindgen::StreamResult;
use wasip3::wit_stream;

wasip3::cli::command::export!(Sockets);

struct Sockets;

type Outcome = Result<String, ErrorCode>;

impl wasip3::exports::cli::run::Guest for Sockets {
    async fn run() -> Result<(), ()> {
        let args = environment::get_arguments();
        let args: Vec<&str> = args.iter().skip(1).map(String::as_str).collect();
        // What is reached is a success; an error of a check is what it has to say.
        let (outcome, succeeds) = match args.as_slice() {
            [how, address, ..] => {
                let outcome = reach(how, address).await;
                let succeeds = outcome.is_ok();
                (outcome, succeeds)
            }
            [check] => (carry_out(check).await, true),
            [] => (Ok("no check is named".to_owned()), false),
        };
        say(&outcome.unwrap_or_else(|code| name(&code))).await;
        if succeeds { Ok(()) } else { Err(()) }
    }
}

async fn say(text: &str) {
    let (mut writer, reader) = wit_stream::new();
    let text = format!("{text}\n").into_bytes();
    let written = stdout::write_via_stream(reader);
    writer.write_all(text).await;
    drop(writer);
    let _outcome = written.await;
}

fn name(code: &ErrorCode) -> String {
    // What an implementation adds to a code of its own is its own affair.
    format!("{code:?}")
        .split('(')
        .next()
        .unwrap_or_default()
        .to_owned()
}

fn told<T: std::fmt::Debug>(outcome: Result<T, ErrorCode>) -> String {
    match outcome {
        Ok(value) => format!("{value:?}"),
        Err(code) => name(&code),
    }
}

fn v4(address: (u8, u8, u8, u8), port: u16) -> IpSocketAddress {
    IpSocketAddress::Ipv4(Ipv4SocketAddress { port, address })
}

fn local(port: u16) -> IpSocketAddress {
    v4((127, 0, 0, 1), port)
}

fn v6(port: u16) -> IpSocketAddress {
    IpSocketAddress::Ipv6(Ipv6SocketAddress {
        port,
        flow_info: 0,
        address: (0, 0, 0, 0, 0, 0, 0, 1),
        scope_id: 0,
    })
}

fn port_of(address: IpSocketAddress) -> u16 {
    match address {
        IpSocketAddress::Ipv4(v4) => v4.port,
        IpSocketAddress::Ipv6(v6) => v6.port,
    }
}

fn tcp() -> Result<TcpSocket, ErrorCode> {
    TcpSocket::create(IpAddressFamily::Ipv4)
}

fn udp() -> Result<UdpSocket, ErrorCode> {
    UdpSocket::create(IpAddressFamily::Ipv4)
}

/// The two ends of a connection, and the socket that listens.
async fn pair() -> Result<(TcpSocket, TcpSocket, TcpSocket), ErrorCode> {
    let listener = tcp()?;
    listener.bind(local(0))?;
    let mut connections = listener.listen()?;
    let client = tcp()?;
    client.connect(listener.get_local_address()?).await?;
    let server = connections.next().await.ok_or(ErrorCode::InvalidState)?;
    Ok((client, server, listener))
}

/// Sends all of it and closes the half.
async fn send(socket: &TcpSocket, data: Vec<u8>) -> Result<(), ErrorCode> {
    let (mut writer, reader) = wit_stream::new();
    let outcome = socket.send(reader);
    writer.write_all(data).await;
    drop(writer);
    outcome.await
}

/// Receives until the peer closes.
async fn receive(socket: &TcpSocket) -> Result<Vec<u8>, ErrorCode> {
    let (mut reader, outcome) = socket.receive();
    let mut all = Vec::new();
    loop {
        let (result, data) = reader.read(Vec::with_capacity(16 << 10)).await;
        all.extend(data);
        if matches!(result, StreamResult::Dropped) {
            break;
        }
    }
    outcome.await?;
    Ok(all)
}

/// What `probe` does of the same name.
async fn reach(how: &str, address: &str) -> Outcome {
    let address: SocketAddr = address.parse().map_err(|_| ErrorCode::InvalidArgument)?;
    let family = match address {
        SocketAddr::V4(_) => IpAddressFamily::Ipv4,
        SocketAddr::V6(_) => IpAddressFamily::Ipv6,
    };
    let address = match address {
        SocketAddr::V4(address) => {
            let [a, b, c, d] = address.ip().octets();
            v4((a, b, c, d), address.port())
        }
        SocketAddr::V6(address) => {
            let [a, b, c, d, e, f, g, h] = address.ip().segments();
            IpSocketAddress::Ipv6(Ipv6SocketAddress {
                port: address.port(),
                flow_info: 0,
                address: (a, b, c, d, e, f, g, h),
                scope_id: 0,
            })
        }
    };
    match how {
        "tcp-ask" => TcpSocket::create(family)?.connect(address).await?,
        "tcp-bind" => TcpSocket::create(family)?.bind(address)?,
        "udp-ask" => {
            let socket = UdpSocket::create(family)?;
            socket.send(b"x".to_vec(), Some(address)).await?;
            socket.receive().await?;
        }
        _ => return Err(ErrorCode::NotSupported),
    }
    Ok("reached".to_owned())
}

async fn carry_out(check: &str) -> Outcome {
    match check {
        "bind twice" => {
            let socket = tcp()?;
            socket.bind(local(0))?;
            Ok(told(socket.bind(local(0))))
        }
        "bind what is taken" => {
            let (socket, other) = (tcp()?, tcp()?);
            socket.bind(local(0))?;
            let _connections = socket.listen()?;
            Ok(told(other.bind(socket.get_local_address()?)))
        }
        "bind another family" => Ok(told(tcp()?.bind(v6(0)))),
        "bind a stranger's" => Ok(told(tcp()?.bind(v4((203, 0, 113, 9), 0)))),
        "bind a group's" => Ok(told(tcp()?.bind(v4((224, 0, 0, 1), 0)))),
        "addresses of nothing" => {
            let socket = tcp()?;
            let (own, peer) = (socket.get_local_address(), socket.get_remote_address());
            Ok(format!("{} {}", told(own), told(peer)))
        }
        "connect to nobody" => {
            let nobody = {
                let socket = tcp()?;
                socket.bind(local(0))?;
                socket.get_local_address()?
            };
            let socket = tcp()?;
            let first = told(socket.connect(nobody).await);
            Ok(format!("{first} {}", told(socket.connect(nobody).await)))
        }
        "connect to port 0" => Ok(told(tcp()?.connect(local(0)).await)),
        "connect to all" => Ok(told(tcp()?.connect(v4((0, 0, 0, 0), 80)).await)),
        "connect another family" => Ok(told(tcp()?.connect(v6(80)).await)),
        "connect twice" => {
            let (client, _server, listener) = pair().await?;
            let again = client.connect(listener.get_local_address()?).await;
            Ok(told(again))
        }
        "echo" => {
            let (client, server, _listener) = pair().await?;
            send(&client, b"ping".to_vec()).await?;
            let heard = receive(&server).await?;
            send(&server, heard.to_ascii_uppercase()).await?;
            let answer = receive(&client).await?;
            Ok(String::from_utf8_lossy(&answer).into_owned())
        }
        "much" => {
            let (client, server, _listener) = pair().await?;
            let data: Vec<u8> = (0..3_000_000_u32).map(|number| number as u8).collect();
            let expected = data.clone();
            // Nobody has room for all of it: both ends have to go on beside each other.
            let (sent, received) = beside(send(&client, data), receive(&server)).await;
            sent?;
            Ok((received? == expected).to_string())
        }
        "addresses of a connection" => {
            let (client, server, listener) = pair().await?;
            let port = port_of(listener.get_local_address()?);
            let same = port_of(client.get_remote_address()?) == port
                && port_of(server.get_local_address()?) == port
                && port_of(server.get_remote_address()?) == port_of(client.get_local_address()?);
            Ok(same.to_string())
        }
        "send twice" => {
            let (client, _server, _listener) = pair().await?;
            send(&client, Vec::new()).await?;
            Ok(told(send(&client, Vec::new()).await))
        }
        "receive twice" => {
            let (client, server, _listener) = pair().await?;
            drop(client);
            receive(&server).await?;
            Ok(told(receive(&server).await))
        }
        "send unconnected" => Ok(told(send(&tcp()?, b"x".to_vec()).await)),
        "receive unconnected" => Ok(told(receive(&tcp()?).await)),
        "listen twice" => {
            let socket = tcp()?;
            let _connections = socket.listen()?;
            let again = socket.listen().map(|_| ());
            Ok(format!("{} {}", told(again), socket.get_is_listening()))
        }
        "listen connected" => {
            let (client, _server, _listener) = pair().await?;
            Ok(told(client.listen().map(|_| ())))
        }
        "listen unbound" => {
            let socket = tcp()?;
            let _connections = socket.listen()?;
            Ok((port_of(socket.get_local_address()?) > 0).to_string())
        }
        "options of nothing" => {
            let socket = tcp()?;
            Ok(format!(
                "{} {} {} {} {}",
                told(socket.set_listen_backlog_size(0)),
                told(socket.set_keep_alive_idle_time(0)),
                told(socket.set_keep_alive_count(0)),
                told(socket.set_hop_limit(0)),
                told(socket.set_send_buffer_size(0)),
            ))
        }
        "options" => {
            let socket = tcp()?;
            socket.set_keep_alive_enabled(true)?;
            socket.set_keep_alive_count(3)?;
            socket.set_hop_limit(42)?;
            Ok(format!(
                "{} {} {}",
                socket.get_keep_alive_enabled()?,
                socket.get_keep_alive_count()?,
                socket.get_hop_limit()?
            ))
        }
        "datagrams" => {
            let (server, client) = (udp()?, udp()?);
            server.bind(local(0))?;
            client
                .send(b"ping".to_vec(), Some(server.get_local_address()?))
                .await?;
            let (heard, from) = server.receive().await?;
            server
                .send(heard.to_ascii_uppercase(), Some(local(port_of(from))))
                .await?;
            let (answer, _) = client.receive().await?;
            Ok(String::from_utf8_lossy(&answer).into_owned())
        }
        "datagrams of a peer" => {
            let (server, stranger, client) = (udp()?, udp()?, udp()?);
            server.bind(local(0))?;
            client.bind(local(0))?;
            client.connect(server.get_local_address()?)?;
            stranger
                .send(b"stranger".to_vec(), Some(client.get_local_address()?))
                .await?;
            server
                .send(b"peer".to_vec(), Some(client.get_local_address()?))
                .await?;
            let (heard, _) = client.receive().await?;
            let other = client.send(Vec::new(), Some(local(9))).await;
            Ok(format!(
                "{} {}",
                String::from_utf8_lossy(&heard),
                told(other)
            ))
        }
        "a datagram to nobody" => Ok(told(udp()?.send(b"x".to_vec(), None).await)),
        "a datagram to port 0" => Ok(told(udp()?.send(b"x".to_vec(), Some(local(0))).await)),
        "a datagram too large" => {
            let data = vec![0; 65_508];
            Ok(told(udp()?.send(data, Some(local(9))).await))
        }
        "receive unbound" => Ok(told(udp()?.receive().await.map(|_| ()))),
        "disconnect unconnected" => Ok(told(udp()?.disconnect())),
        "resolve an address" => {
            let found = resolve_addresses("127.0.0.1".to_owned()).await;
            Ok(found.map_or_else(|code| format!("{code:?}"), |found| format!("{found:?}")))
        }
        "resolve no name" => {
            let found = resolve_addresses("http://a".to_owned()).await;
            Ok(found.map_or_else(|code| format!("{code:?}"), |found| format!("{found:?}")))
        }
        _ => Ok(format!("unknown: {check}")),
    }
}

/// Both, beside each other.
async fn beside<A, B>(one: impl Future<Output = A>, other: impl Future<Output = B>) -> (A, B) {
    let (mut one, mut other) = (std::pin::pin!(one), std::pin::pin!(other));
    let (mut first, mut second) = (None, None);
    std::future::poll_fn(|context| {
        use std::task::Poll;
        if first.is_none()
            && let Poll::Ready(value) = one.as_mut().poll(context)
        {
            first = Some(value);
        }
        if second.is_none()
            && let Poll::Ready(value) = other.as_mut().poll(context)
        {
            second = Some(value);
        }
        match (first.take(), second.take()) {
            (Some(a), Some(b)) => Poll::Ready((a, b)),
            (a, b) => {
                (first, second) = (a, b);
                Poll::Pending
            }
        }
    })
    .await
}
