//! Controllers and scheduler against a whole control plane in memory, with a pretended node agent.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and json! values read better unborrowed"
)]

mod autoscaling;
mod cluster;
mod collection;
mod conformance;
mod faults;
mod jobs;
mod kills;
mod nodes;
mod quotas;
mod scheduling;
mod stateful;
mod workloads;
