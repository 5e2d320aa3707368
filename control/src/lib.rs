//! The Windlass control plane: API server, store, controllers, scheduler, PKI.

pub mod admission;
pub mod identity;
pub mod patch;
pub mod pki;
pub mod registry;
pub mod server;
pub mod store;

/// The Kubernetes version whose API this is.
pub const VERSION: &str = "v1.35.0";
