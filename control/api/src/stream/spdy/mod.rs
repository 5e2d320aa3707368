//! SPDY/3.1, the part that Kubernetes' streaming uses: many streams in one upgraded connection.
//!
//! ```text
//!   connection ──bytes──► Decoder (frame.rs) ──Frame──► Session ──► accepted streams, their bytes
//!       ▲                   header blocks: headers.rs       │
//!       └──────bytes── encoded frames ◄── writes of Streams ┘
//! ```
//!
//! 1. [`Session::new`] takes a connection and answers a session and a future that drives it; the session
//!    lives as long as the future is polled.
//! 2. [`Session::accept`] answers the streams that the peer opens, [`Session::open`] opens one.
//! 3. A [`Stream`] is `AsyncRead` and `AsyncWrite`; shutting it down ends its direction and leaves the
//!    other one open, dropping it ends it in good order.
//!
//! What must hold: whatever the peer sends, memory is bounded (frames, headers, streams, bytes that wait)
//! and nothing panics. Windows are kept towards a peer that speaks of windows. The one that matters most,
//! client-go's, neither keeps nor grants them: towards it, the connection's own back-pressure is all there
//! is, and a stream that nobody reads holds up the others.

mod dictionary;
mod frame;
mod headers;
mod session;
mod stream;

pub use frame::{Decoder, Frame, decode_all};
pub use headers::Headers;
pub use session::{Incoming, Role, Session};
pub use stream::Stream;

/// What the `Upgrade` header says.
pub const PROTOCOL: &str = "SPDY/3.1";

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpdyError {
    /// The peer broke the protocol.
    #[error("SPDY: {0}")]
    Protocol(&'static str),
    /// The connection failed.
    #[error("SPDY connection: {0}")]
    Connection(std::io::ErrorKind),
    /// The session is over, or takes no more streams.
    #[error("the SPDY session is closed")]
    Closed,
}

impl From<std::io::Error> for SpdyError {
    fn from(error: std::io::Error) -> Self {
        Self::Connection(error.kind())
    }
}

/// Status codes of RST_STREAM that are used here.
pub mod status {
    /// The peer broke the protocol on a stream.
    pub const PROTOCOL_ERROR: u32 = 1;
    /// A frame of a stream that is not open.
    pub const INVALID_STREAM: u32 = 2;
    /// The stream is not taken.
    pub const REFUSED_STREAM: u32 = 3;
    /// The stream is no longer of use.
    pub const CANCEL: u32 = 5;
    /// A window was overrun.
    pub const FLOW_CONTROL_ERROR: u32 = 7;
}
