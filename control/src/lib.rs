//! The Windlass control plane: API server, store, controllers, scheduler, PKI.
//!
//! [`ControlPlane`] starts and stops all of it. `registry` and `store` hold the objects, `server` speaks
//! the Kubernetes API, `controllers` and `scheduler` are clients of it like any other.

pub mod admission;
mod bootstrap;
mod config;
mod control_plane;
pub mod controllers;
pub mod cron;
mod descriptor;
mod file_kind;
pub mod identity;
mod images;
pub mod kubeconfig;
mod node_terms;
mod outbound;
pub mod patch;
pub mod pki;
mod quota;
pub mod rbac;
pub mod registry;
pub mod scheduler;
pub mod server;
pub mod store;
mod taints;

pub use config::{ComponentClients, Config};
pub use control_plane::{ControlPlane, NODE_CLIENT, StartError, data_file};
pub use controllers::runtime::clock::Clock;
pub use controllers::{AddressRange, AddressRangeError};
pub use file_kind::WrongKind;
pub use server::dashboard;

/// The Kubernetes version whose API this is.
pub const VERSION: &str = "v1.35.0";
