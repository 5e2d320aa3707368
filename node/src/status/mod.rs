//! The only writer of pod status.
pub mod reason;
