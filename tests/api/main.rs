//! Behaviour of the API: one module per verb or promise, through raw requests as clients send them.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod access;
mod apply;
mod conformance;
mod create;
mod dashboard;
mod delete;
mod discovery;
mod identity;
mod list;
mod patch;
mod pod_security;
mod rbac;
mod streams;
mod update;
mod watch;
