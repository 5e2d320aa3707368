//! OCI references, digests, content store, distribution client and server.
//!
//! The crate knows images and artifacts, not Pods: nothing here depends on Kubernetes' types.
//!
//! ```text
//!  push: .wasm ── artifact ──> config + layer + manifest ── push ──> registry::client ──┐
//!                                                                                       v
//!  pull: reference ── pull ──> registry::client ──────────────────────────> registry::server
//!                      │ │           └─ registry::remote (any other registry)  content_store
//!                      │ └───> layer (the program in an image's layers)
//!                      └─────> content_store (verified blobs)
//! ```
//!
//! Invariant: bytes enter a content store only after they matched their digest.

pub mod artifact;
pub mod content_store;
pub mod credentials;
pub mod digest;
pub mod layer;
pub mod manifest;
pub mod media_type;
pub mod pull;
pub mod push;
pub mod reference;
pub mod registry;
