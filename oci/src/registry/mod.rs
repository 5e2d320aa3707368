//! The distribution API: the cluster's own registry, and clients of it and of any other.
//!
//! Spec: OCI distribution specification v1.1. `client` speaks the protocol over a connection that it is given: an
//! agent's to its API server, or one of `remote` to a registry somewhere. `server` is the cluster's own.

pub mod client;
pub mod remote;
pub mod server;
