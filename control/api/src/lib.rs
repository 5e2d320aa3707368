//! What both halves of Windlass need and neither owns: the schema engine with its facts table,
//! quantities, selectors, names, effective pod resources, what pods refer to, times, and the streaming protocols.
//!
//! Nothing here serves HTTP or knows storage. The engine works on `serde_json::Value`s; the few helpers on
//! typed objects (`pod_resources`, `label_selector`) use `k8s-openapi`'s types.

pub mod field_selector;
pub mod grants;
pub mod ingress;
pub mod label_selector;
pub mod metrics;
pub mod names;
pub mod node_info;
pub mod pod_references;
pub mod pod_resources;
pub mod quantity;
pub mod resource;
pub mod schema;
pub mod stream;
pub mod time;
