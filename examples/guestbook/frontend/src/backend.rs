//! Asks the backend: one TCP connection per request, to a Service by its name.

use std::io::{self, Read, Write};
use std::net::TcpStream;

/// The entries, a line each.
pub fn list() -> io::Result<String> {
    ask("list")
}

/// Adds an entry, which is one line.
pub fn add(text: &str) -> io::Result<()> {
    ask(&format!("add {text}")).map(drop)
}

/// Removes all entries.
pub fn clear() -> io::Result<()> {
    ask("clear").map(drop)
}

fn ask(request: &str) -> io::Result<String> {
    let address = std::env::var("BACKEND").unwrap_or_else(|_| "guestbook-backend:7000".to_owned());
    let say = |error| io::Error::other(format!("backend {address}: {error}"));
    let answer = exchange(&address, request).map_err(say)?;
    match answer.strip_prefix("error: ") {
        Some(error) => Err(io::Error::other(format!(
            "backend {address}: {}",
            error.trim_end()
        ))),
        None => Ok(answer),
    }
}

fn exchange(address: &str, request: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(format!("{request}\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
