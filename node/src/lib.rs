//! The Windlass node agent, embeddable in other programs.
//!
//! ```text
//!   API server ◄── kube::Client ──┬─ registration, lease     the Node and that it lives
//!   folder ── static_pods ─────►  ├─ pods                    a worker per pod: plan → steps
//!                                 │    ├─ images             pull into the content store
//!                                 │    ├─ volumes, env       files and variables
//!                                 │    ├─ network            an address per pod
//!                                 │    └─ runtime            wasm instances, containers of Linux
//!                                 └─ status, events          what became of it
//!   API server ──► server         logs, over mTLS
//!   other agents ◄─► network, server   connections between pods of different nodes, over mTLS
//! ```
//!
//! [`NodeAgent::builder`] is the embedding API: give it a client, a name, a directory and runtimes.
//!
//! Invariants: the agent is an ordinary API client and keeps no state that the API could not restore;
//! images and logs on disk may be lost without harm.

mod agent;
mod clock;
mod downward;
pub mod events;
mod handle;
mod host_mounts;
pub mod images;
mod lease;
mod leftovers;
pub mod local;
pub mod logs;
pub mod network;
mod object_files;
mod objects;
mod open_files;
mod pods;
pub mod pressure;
mod probes;
pub mod registration;
pub mod runtime;
pub mod server;
mod service_links;
mod static_pods;
pub mod status;
mod tasks;
mod volumes;

pub use agent::{AgentError, NodeAgent, NodeAgentBuilder};
pub use handle::{HandleError, NodeHandle};
pub use open_files::raise_limit as raise_open_files_limit;
pub use volumes::HostPaths;
