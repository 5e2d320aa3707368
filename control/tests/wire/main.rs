//! The wire: what clients send and are sent, byte by byte, against a server of the test's own.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod protobuf;
mod server;
