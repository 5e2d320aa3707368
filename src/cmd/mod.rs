//! Subcommands, one file each: `Args` for clap and `run`.

pub(crate) mod agent;
pub(crate) mod apply;
mod audit_options;
pub(crate) mod ca;
mod identity_options;
pub(crate) mod kubeconfig;
pub(crate) mod push;
pub(crate) mod reencrypt;
pub(crate) mod server;
pub(crate) mod token;
pub(crate) mod up;
pub(crate) mod user;
pub(crate) mod version;
