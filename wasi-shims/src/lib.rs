//! Host implementations of WASI over a virtual network and virtual file systems.
//!
//! This crate knows WASI and nothing of pods. An embedder makes a [`state::linker`] per engine, links
//! components with it ([`world::World::link`]), and runs them with what it grants
//! ([`state::Grants`]): commands with [`world::World::run_command`], http components with
//! [`http::HttpServer`].
//!
//! | package | here |
//! |---|---|
//! | wasi:sockets | [`sockets`] over [`net::VirtualNetwork`] |
//! | wasi:http | [`http`] over the same network |
//! | wasi:filesystem | [`fs`]: host directories and trees in memory |
//! | wasi:cli | [`stdio`], [`command`] |
//! | wasi:io, wasi:clocks, wasi:random | wasmtime-wasi's own |

pub mod command;
pub mod cpu;
pub mod fs;
pub mod http;
pub mod limits;
pub mod net;
pub mod pipe;
pub mod sockets;
pub mod state;
pub mod stdio;
pub mod world;
