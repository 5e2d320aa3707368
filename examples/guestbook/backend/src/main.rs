//! Keeps the entries of a guestbook and serves them over TCP: an ordinary program of the standard
//! library, whose socket and files are what its pod was granted.
//!
//! One request per connection, a line; the answer ends with the connection:
//!
//! | request | answer |
//! |---|---|
//! | `list` | the entries, a line each, oldest first |
//! | `add TEXT` | `ok` |
//! | `clear` | `ok` |
//!
//! Anything else, and anything that fails, is answered with `error: WHY`.
//!
//! A component has one thread, so connections are served in turn. Each must send its line within
//! [`PATIENCE`], or it is dropped: a silent client can't keep the others out.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// How long a client may take to send its request.
const PATIENCE: Duration = Duration::from_secs(2);

/// Longest request, in bytes.
const LONGEST: u64 = 1024;

/// Most entries kept; the oldest make room.
const CAPACITY: usize = 1000;

fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments
        .next()
        .unwrap_or_else(|| "0.0.0.0:7000".to_owned());
    let file = arguments
        .next()
        .unwrap_or_else(|| "/data/entries".to_owned());
    let mut guestbook = Guestbook::open(file.into())?;
    let listener = TcpListener::bind(&address)?;
    println!(
        "{} entries, listening on {address}",
        guestbook.entries.len()
    );
    for stream in listener.incoming() {
        // One client's failure is not the next one's.
        if let Err(error) = stream.and_then(|stream| converse(&stream, &mut guestbook)) {
            eprintln!("connection: {error}");
        }
    }
    Ok(())
}

fn converse(stream: &TcpStream, guestbook: &mut Guestbook) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut request = String::new();
    BufReader::new(stream.take(LONGEST)).read_line(&mut request)?;
    // A probe connects and says nothing.
    if request.is_empty() {
        return Ok(());
    }
    let answer = match guestbook.answer(request.trim_end()) {
        Ok(answer) => answer,
        Err(error) => format!("error: {error}\n"),
    };
    (&mut &*stream).write_all(answer.as_bytes())
}

/// The entries, in memory and in a file that a restarted container finds again.
struct Guestbook {
    entries: Vec<String>,
    path: PathBuf,
}

impl Guestbook {
    fn open(path: PathBuf) -> io::Result<Self> {
        let entries = match File::open(&path) {
            Ok(file) => BufReader::new(file).lines().collect::<Result<_, _>>()?,
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        Ok(Self { entries, path })
    }

    fn answer(&mut self, request: &str) -> io::Result<String> {
        match request.split_once(' ').unwrap_or((request, "")) {
            ("list", "") => Ok(self
                .entries
                .iter()
                .map(|entry| format!("{entry}\n"))
                .collect()),
            ("add", text) if !text.trim().is_empty() => self.add(text.trim()),
            ("clear", "") => self.clear(),
            _ => Err(io::Error::new(
                ErrorKind::InvalidInput,
                "list, add TEXT or clear is expected",
            )),
        }
    }

    fn add(&mut self, text: &str) -> io::Result<String> {
        if self.entries.len() == CAPACITY {
            let kept = self.entries.split_off(1);
            self.replace(kept)?;
        }
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.path)?;
        writeln!(file, "{text}")?;
        self.entries.push(text.to_owned());
        println!("{} entries", self.entries.len());
        Ok("ok\n".to_owned())
    }

    fn clear(&mut self) -> io::Result<String> {
        self.replace(Vec::new())?;
        println!("cleared");
        Ok("ok\n".to_owned())
    }

    /// The file first: what is in memory was kept.
    fn replace(&mut self, entries: Vec<String>) -> io::Result<()> {
        let text: String = entries.iter().map(|entry| format!("{entry}\n")).collect();
        std::fs::write(&self.path, text)?;
        self.entries = entries;
        Ok(())
    }
}
