//! A command that tries one thing and says what it saw.
//!
//! `probe <what> [argument...]`; the answer goes to standard output as one line, an error as
//! `error: <kind>`. Everything is done through `std`, as an ordinary program would.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::process::ExitCode;

type Outcome = Result<String, std::io::Error>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match args.as_slice() {
        ["args", ..] => Ok(args[1..].join(",")),
        ["env", name] => Ok(std::env::var(name).unwrap_or_else(|_| "unset".to_owned())),
        ["exit", code] => return ExitCode::from(code.parse::<u8>().unwrap_or(255)),
        ["trap"] => panic!("asked to"),
        ["spin"] => loop {
            std::hint::spin_loop();
        },
        ["eat", mebibytes] => eat(mebibytes.parse().unwrap_or(0)),
        ["cat"] => cat(),
        ["print", count] => print(count.parse().unwrap_or(0)),
        ["read", path] => std::fs::read_to_string(path),
        ["write", path, text] => std::fs::write(path, text).map(|()| "written".to_owned()),
        ["append", path, text] => append(path, text),
        ["mkdir", path] => std::fs::create_dir(path).map(|()| "made".to_owned()),
        ["rmdir", path] => std::fs::remove_dir(path).map(|()| "removed".to_owned()),
        ["rename", from, to] => std::fs::rename(from, to).map(|()| "renamed".to_owned()),
        ["link", from, to] => std::fs::hard_link(from, to).map(|()| "linked".to_owned()),
        ["symlink", target, at] => symlink(target, at),
        ["readlink", path] => std::fs::read_link(path).map(|found| found.display().to_string()),
        ["truncate", path] => std::fs::File::options()
            .write(true)
            .truncate(true)
            .open(path)
            .map(|_| "truncated".to_owned()),
        ["recurse"] => Ok(recurse(1).to_string()),
        ["connect-many", address] => connect_many(address),
        ["remove", path] => std::fs::remove_file(path).map(|()| "removed".to_owned()),
        ["list", path] => list(path),
        ["size", path] => std::fs::metadata(path).map(|found| found.len().to_string()),
        ["open-many", path] => open_many(path),
        ["list-many", path] => list_many(path),
        ["resolve", name] => resolve(name),
        ["dns-ask", server, name] => dns_ask(server, name),
        ["tcp-echo", address, connections] => tcp_echo(address, connections.parse().unwrap_or(1)),
        ["tcp-ask", address, text] => tcp_ask(address, text),
        ["tcp-bind", address] => {
            TcpListener::bind(address).and_then(|found| Ok(found.local_addr()?.to_string()))
        }
        ["udp-echo", address, datagrams] => udp_echo(address, datagrams.parse().unwrap_or(1)),
        ["udp-ask", address, text] => udp_ask(address, text),
        _ => Ok(format!("unknown: {args:?}")),
    };
    match outcome {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("error: {:?}", error.kind());
            ExitCode::FAILURE
        }
    }
}

/// A link to where its name says, through which the guest then tries to read.
fn symlink(target: &str, at: &str) -> Outcome {
    #[allow(
        deprecated,
        reason = "the one way to a symbolic link that is not a platform's own"
    )]
    std::fs::soft_link(target, at)?;
    std::fs::read_to_string(at)
}

/// Deeper and deeper, in a way that no compiler makes a loop of.
#[expect(unconditional_recursion, reason = "a stack has an end")]
fn recurse(depth: u64) -> u64 {
    let local = std::hint::black_box([depth; 64]);
    1 + recurse(std::hint::black_box(local[63] + 1))
}

fn connect_many(address: &str) -> Outcome {
    let mut sockets = Vec::new();
    loop {
        match TcpListener::bind(address) {
            Ok(socket) if sockets.len() < 1_000_000 => sockets.push(socket),
            Ok(_) => return Ok("no limit".to_owned()),
            Err(error) => return Err(error),
        }
    }
}

fn eat(mebibytes: usize) -> Outcome {
    let mut eaten: Vec<Vec<u8>> = Vec::new();
    for _ in 0..mebibytes {
        eaten.push(vec![1; 1 << 20]);
    }
    Ok(format!("ate {}", eaten.len()))
}

fn cat() -> Outcome {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    Ok(text)
}

fn print(count: usize) -> Outcome {
    for number in 0..count {
        println!("line {number}");
        eprintln!("warning {number}");
    }
    Ok("done".to_owned())
}

fn append(path: &str, text: &str) -> Outcome {
    let mut file = std::fs::OpenOptions::new().append(true).open(path)?;
    file.write_all(text.as_bytes())?;
    Ok("appended".to_owned())
}

fn list(path: &str) -> Outcome {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names.join(","))
}

fn open_many(path: &str) -> Outcome {
    let mut files = Vec::new();
    loop {
        match std::fs::File::open(path) {
            Ok(file) if files.len() < 100_000 => files.push(file),
            Ok(_) => return Ok("no limit".to_owned()),
            Err(_) => return Ok(format!("limited {}", files.len() > 500)),
        }
    }
}

/// How many listings can be begun, and how many entries one has after those were given up.
fn list_many(path: &str) -> Outcome {
    let mut begun = Vec::new();
    while begun.len() < 100_000 {
        let Ok(mut listing) = std::fs::read_dir(path) else {
            break;
        };
        match listing.next() {
            Some(Ok(_)) => begun.push(listing),
            _ => break,
        }
    }
    let limit = begun.len();
    drop(begun);
    let again = std::fs::read_dir(path)?.count();
    Ok(format!("limited {limit}, then {again}"))
}

fn resolve(name: &str) -> Outcome {
    let found: Vec<String> = (name, 80)
        .to_socket_addrs()?
        .map(|each| each.ip().to_string())
        .collect();
    Ok(found.join(","))
}

/// Asks a DNS server for the IPv4 address of a full name, by a packet made by hand; the answer is its code and the
/// last address in it.
fn dns_ask(server: &str, name: &str) -> Outcome {
    let mut question = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.trim_end_matches('.').split('.') {
        question.push(label.len() as u8);
        question.extend(label.as_bytes());
    }
    question.extend([0, 0, 1, 0, 1]);
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.send_to(&question, server)?;
    let mut buffer = [0; 2048];
    let (length, _) = socket.recv_from(&mut buffer)?;
    let answer = &buffer[..length];
    let (code, count) = (answer[3] & 0x0f, answer[7]);
    let last: Vec<String> = answer[length - 4..].iter().map(u8::to_string).collect();
    Ok(match count {
        0 => format!("code {code}"),
        _ => format!("code {code}, {}", last.join(".")),
    })
}

fn tcp_echo(address: &str, connections: usize) -> Outcome {
    let listener = TcpListener::bind(address)?;
    for _ in 0..connections {
        let (mut stream, peer) = listener.accept()?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        // A client may leave before it has its answer.
        let _gone = write!(stream, "{text} for {}", peer.ip());
    }
    Ok("served".to_owned())
}

fn tcp_ask(address: &str, text: &str) -> Outcome {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(text.as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn udp_echo(address: &str, datagrams: usize) -> Outcome {
    let socket = UdpSocket::bind(address)?;
    let mut buffer = [0; 2048];
    for _ in 0..datagrams {
        let (length, from) = socket.recv_from(&mut buffer)?;
        socket.send_to(&buffer[..length], from)?;
    }
    Ok("served".to_owned())
}

fn udp_ask(address: &str, text: &str) -> Outcome {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.send_to(text.as_bytes(), address)?;
    let mut buffer = [0; 2048];
    let (length, from) = socket.recv_from(&mut buffer)?;
    Ok(format!(
        "{} from {from}",
        String::from_utf8_lossy(&buffer[..length])
    ))
}
