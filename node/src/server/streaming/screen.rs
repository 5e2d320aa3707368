//! A client's terminal, connected to a program that has none: the loop that exec and attach share.
//!
//! ```text
//!   keys ──► line discipline ──► the program's input
//!                 │ echo
//!   screen ◄──────┴──────────◄── the program's output
//! ```
//!
//! Keys are read only when the program has taken what was typed before, so a program that reads nothing holds its typist
//! up, not the node's memory.

use std::future::poll_fn;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use windlass_wasi_shims::pipe::{Chunk, Reader};

use super::attach::PIECE;
use super::remote_command::Pipe;
use super::terminal::{self, Terminal};
use crate::logs::LiveOutput;
use crate::runtime::Stdin;

/// What a program writes.
#[async_trait]
pub(super) trait Shown: Send {
    /// The next piece, until there are no more. Cancel-safe.
    async fn next(&mut self) -> Option<Bytes>;
}

#[async_trait]
impl Shown for Reader {
    async fn next(&mut self) -> Option<Bytes> {
        match poll_fn(|cx| self.poll_chunk(cx, PIECE)).await {
            Chunk::Data(data) => Some(data),
            Chunk::End | Chunk::Reset => None,
        }
    }
}

#[async_trait]
impl Shown for LiveOutput {
    async fn next(&mut self) -> Option<Bytes> {
        let (_, data) = LiveOutput::next(self).await?;
        Some(data)
    }
}

/// Why a screen has nothing more to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The program closed its output.
    Output,
    /// Keys were typed that end the program, with this exit code.
    Signal(i32),
}

/// A client's terminal.
pub(super) struct Screen {
    keys: Option<Pipe>,
    client: Option<Pipe>,
    /// The program's input, until it has ended.
    input: Option<Stdin>,
    /// Whether the input ends with the client's keys.
    ends_with_keys: bool,
    terminal: Terminal,
}

impl Screen {
    /// A terminal whose keys go to `input`. That is closed by the keys that say so, and with `ends_with_keys` also when
    /// there are no more.
    pub(super) fn new(
        keys: Option<Pipe>,
        client: Option<Pipe>,
        input: Option<Stdin>,
        ends_with_keys: bool,
    ) -> Self {
        Self {
            keys,
            client,
            input,
            ends_with_keys,
            terminal: Terminal::default(),
        }
    }

    /// Carries keys and output until the program's output has ended and all of it is shown, or keys end the program.
    pub(super) async fn carry(mut self, output: &mut impl Shown) -> End {
        // Typed, and not taken by the program yet.
        let mut pending = Bytes::new();
        let mut piece = BytesMut::zeroed(PIECE);
        let mut input_ends = self.keys.is_none() && self.ends_with_keys;
        loop {
            if input_ends && pending.is_empty() {
                self.close_input();
            }
            tokio::select! {
                biased;
                data = output.next() => match data {
                    Some(data) => self.show(&terminal::shown(&data)).await,
                    None => return End::Output,
                },
                taken = write(self.input.as_ref(), &mut pending), if !pending.is_empty() => if taken.is_err() {
                    // Nobody reads any more.
                    self.input = None;
                },
                length = read(&mut self.keys, &mut piece), if pending.is_empty() => {
                    let typed = self.terminal.typed(piece.get(..length).unwrap_or_default());
                    self.show(&typed.echo).await;
                    if let Some(code) = typed.signal {
                        return End::Signal(code);
                    }
                    pending = typed.input.into();
                    if length == 0 || typed.end {
                        self.keys = None;
                    }
                    input_ends |= typed.end || (length == 0 && self.ends_with_keys);
                }
            }
        }
    }

    fn close_input(&mut self) {
        if let Some(input) = self.input.take() {
            input.close();
        }
    }

    /// What a client that is gone can't see is thrown away.
    async fn show(&mut self, data: &[u8]) {
        if let Some(client) = &mut self.client
            && send(client, data).await.is_err()
        {
            self.client = None;
        }
    }
}

/// Writes to a client at once.
pub(super) async fn send(pipe: &mut Pipe, data: &[u8]) -> std::io::Result<()> {
    pipe.write_all(data).await?;
    pipe.flush().await
}

/// Hands the program some of what was typed; an input that is closed takes all.
async fn write(
    input: Option<&Stdin>,
    pending: &mut Bytes,
) -> Result<(), crate::runtime::StdinClosed> {
    match input {
        Some(input) => input.write_some(pending).await,
        None => {
            pending.clear();
            Ok(())
        }
    }
}

/// Reads some keys; 0 at their end. Without a keyboard, never.
async fn read(keys: &mut Option<Pipe>, piece: &mut BytesMut) -> usize {
    match keys {
        // An error means that the client is gone: its keys have ended as well.
        Some(keys) => keys.read(piece).await.unwrap_or(0),
        None => std::future::pending().await,
    }
}
