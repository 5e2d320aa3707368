//! The cluster's certificate authority and the keys of ServiceAccount tokens.
//!
//! `DATA-DIR/pki` holds `ca.crt`, `ca.key` and `sa.key`, made on first start, readable by their owner only. Everything
//! else (serving and client certificates) is issued from them when needed and need not be kept. Each of the files may
//! hold several certificates or keys, of which the first is in use (`authority.rs`, `service_account.rs`); `manage.rs`
//! changes them, and a running control plane takes the changes over.

pub mod authority;
pub mod files;
pub mod jwt;
pub mod manage;
pub(crate) mod request;
pub mod service_account;

use thiserror::Error;

pub use authority::{Authority, Identity, LEAF_LIFE};

/// Why keys or certificates could not be made or read.
#[derive(Debug, Error)]
pub enum PkiError {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A key or certificate cannot be made or parsed.
    #[error("{what}: {source}")]
    Certificate {
        /// Which.
        what: &'static str,
        /// What the library said.
        source: rcgen::Error,
    },
    /// A key cannot be used.
    #[error("{0}")]
    Key(String),
}

fn certificate(what: &'static str) -> impl Fn(rcgen::Error) -> PkiError {
    move |source| PkiError::Certificate { what, source }
}
