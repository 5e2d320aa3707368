//! The Windlass control plane: API server, store, controllers, scheduler, PKI.
