//! Real clients: kubectl in every version of this machine, and client libraries of four languages.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

#[path = "../guests/built.rs"]
mod built;
mod kube_rs;
mod kubectl;
mod scripts;
