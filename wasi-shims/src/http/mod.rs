//! `wasi:http`, both ways.
//!
//! - `outgoing.rs`: requests of a guest, through its own network.
//! - `server.rs`: an http component served on a listener of a virtual network.
//! - `worker.rs`: one request in one instance.
//! - `body.rs`: bodies with a time limit, and bodies that end their instance.

mod body;
mod outgoing;
mod server;
mod worker;

pub use outgoing::{Outgoing, TlsConfig};
pub use server::{HttpServer, HttpSettings};
pub use worker::HttpPre;
