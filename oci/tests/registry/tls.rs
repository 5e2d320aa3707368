//! Certificates for servers of this machine.

use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, KeyPair};

/// A certificate that is its own authority, in files.
pub(crate) struct Certificate {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) der: Vec<u8>,
    pub(crate) pair: KeyPair,
}

/// Makes a certificate for 127.0.0.1 below `directory`.
pub(crate) fn certificate(directory: &Path, name: &str) -> Certificate {
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let pair = KeyPair::generate().unwrap();
    let made = params.self_signed(&pair).unwrap();
    let write = |extension: &str, text: String| {
        let path = directory.join(format!("{name}.{extension}"));
        std::fs::write(&path, text).unwrap();
        path
    };
    Certificate {
        certificate: write("crt", made.pem()),
        key: write("key", pair.serialize_pem()),
        der: made.der().to_vec(),
        pair,
    }
}
