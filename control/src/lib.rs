//! The Windlass control plane: API server, store, controllers, scheduler, PKI.

pub mod admission;
pub mod identity;
pub mod patch;
pub mod registry;
pub mod store;
