//! Who a node is to the agents of other nodes: the client certificate it calls them with.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ClientConfig;
use rustls::crypto::ring;

use crate::server::tls::{self, TlsError};

/// The client certificate of a node, and the CA that other nodes' serving certificates are of.
/// Cheap to clone; all clones see a replaced certificate.
#[derive(Clone)]
pub struct TunnelIdentity {
    config: Arc<ArcSwap<ClientConfig>>,
}

impl TunnelIdentity {
    /// Calls with this certificate chain (`CN=system:node:NAME`, `O=system:nodes`) and key; trusts
    /// this CA. All are PEM.
    ///
    /// # Errors
    /// The PEM texts can't be used.
    pub fn new(certificate: &[u8], key: &[u8], ca: &[u8]) -> Result<Self, TlsError> {
        let config = client_config(certificate, key, ca)?;
        Ok(Self {
            config: Arc::new(ArcSwap::from_pointee(config)),
        })
    }

    /// Makes new calls with another certificate, and trusts another CA.
    ///
    /// # Errors
    /// The PEM texts can't be used; everything stays as it was.
    pub fn replace(&self, certificate: &[u8], key: &[u8], ca: &[u8]) -> Result<(), TlsError> {
        let config = client_config(certificate, key, ca)?;
        self.config.store(Arc::new(config));
        Ok(())
    }

    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        self.config.load_full()
    }
}

fn client_config(certificate: &[u8], key: &[u8], ca: &[u8]) -> Result<ClientConfig, TlsError> {
    let roots = tls::roots("cluster CA", ca)?;
    let chain = tls::certificates("client certificate", certificate)?;
    let key = tls::private_key("client key", key)?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    // HTTP/2 has no upgrades.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
