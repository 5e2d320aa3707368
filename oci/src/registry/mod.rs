//! The distribution API: the cluster's own registry, and the client of it.
//!
//! Spec: OCI distribution specification v1.1, the parts pull and push need. The client speaks to the
//! cluster's registry through the connection its caller gives it.

pub mod client;
mod error;
pub mod remote;
pub mod server;
mod upload;
