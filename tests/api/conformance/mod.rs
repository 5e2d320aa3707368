//! The rows of Kubernetes' conformance suite that need an API server and nothing else.
//!
//! `rows.tsv` names them all. A test says which rows it covers in lines `/// Conformance: NAME`, here or
//! in another binary of this crate; `known_gaps.tsv` says why a row is not covered. [`guard`] compares.
//! The tests are our own: they do what a row's test does, not how.

mod apps;
mod auth;
mod collection;
mod dra;
mod events;
mod field_validation;
mod guard;
mod machinery;
mod matrix;
mod namespaces;
mod network;
mod node;
mod scheduling;
mod storage;
mod watchers;
