//! The Windlass node agent, embeddable in other programs.
pub mod logs;
pub mod network;
pub mod runtime;
pub mod status;
