//! Kubeconfig files.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use crate::pki::Identity;

/// A kubeconfig that acts as `identity`. JSON is YAML, so every client reads it.
#[must_use]
pub fn for_identity(server: &str, ca_certificate: &str, user: &str, identity: &Identity) -> String {
    let Identity {
        certificate, key, ..
    } = identity;
    for_certificate(server, ca_certificate, user, (certificate, key))
}

/// A kubeconfig that acts by a certificate and its key, both in PEM.
#[must_use]
pub fn for_certificate(
    server: &str,
    ca_certificate: &str,
    user: &str,
    (certificate, key): (&str, &str),
) -> String {
    let credentials = json!({
        "client-certificate-data": BASE64.encode(certificate),
        "client-key-data": BASE64.encode(key),
    });
    render(&config(server, ca_certificate, user, &credentials))
}

/// A kubeconfig without credentials: only where the cluster is and whom to trust.
#[must_use]
pub fn anonymous(server: &str, ca_certificate: &str) -> String {
    let mut config = config(server, ca_certificate, "", &Value::Null);
    if let Some(config) = config.as_object_mut() {
        config.insert("users".into(), json!([]));
        config.insert("contexts".into(), json!([]));
        config.insert("current-context".into(), "".into());
    }
    render(&config)
}

fn config(server: &str, ca_certificate: &str, user: &str, credentials: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Config",
        "clusters": [{
            "name": "windlass",
            "cluster": {
                "server": server, "certificate-authority-data": BASE64.encode(ca_certificate),
            },
        }],
        "users": [{"name": user, "user": credentials}],
        "contexts": [{"name": "windlass", "context": {"cluster": "windlass", "user": user}}],
        "current-context": "windlass",
    })
}

fn render(config: &Value) -> String {
    format!("{config:#}\n")
}
