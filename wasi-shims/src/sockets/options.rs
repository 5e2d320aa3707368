//! Socket options. A virtual network has no use for most of them: what a guest sets is what it reads back.

use crate::net::NetError;
use crate::pipe::CAPACITY;

/// The buffer sizes that a guest reads back of a UDP socket.
pub(super) const DATAGRAM_BUFFER: u64 = 256 * 1024;

/// Those of a TCP socket; times in nanoseconds.
#[derive(Clone, Copy)]
pub(super) struct Options {
    pub(super) backlog: usize,
    pub(super) keep_alive: bool,
    pub(super) keep_alive_idle: u64,
    pub(super) keep_alive_interval: u64,
    pub(super) keep_alive_count: u32,
    pub(super) hop_limit: u8,
    pub(super) receive_buffer: u64,
    pub(super) send_buffer: u64,
}

/// Linux' defaults.
impl Default for Options {
    fn default() -> Self {
        Self {
            backlog: 128,
            keep_alive: false,
            keep_alive_idle: 7_200_000_000_000,
            keep_alive_interval: 75_000_000_000,
            keep_alive_count: 9,
            hop_limit: 64,
            receive_buffer: CAPACITY as u64,
            send_buffer: CAPACITY as u64,
        }
    }
}

/// Spec: options that are sizes, times or counts refuse 0.
pub(super) const fn positive(value: u64) -> Result<u64, NetError> {
    match value {
        0 => Err(NetError::InvalidArgument),
        value => Ok(value),
    }
}
