//! The credentials that a pod brings along: its `imagePullSecrets`.
//!
//! The ServiceAccount's own were copied into the pod when it was created. Secrets are read when an image has to be
//! pulled, each time anew: a pod that waits for its image is mended by a new Secret.

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::Api;
use windlass_oci::credentials::{CredentialsError, Keyring, Origin};

use crate::events::{EventType, ObjectEvents};
use crate::status::reason::EventReason;

type Read = fn(&mut Keyring, &[u8], &Origin) -> Result<(), CredentialsError>;

/// Types of Secrets that hold credentials, the key they are under, and how they are read.
const FORMS: &[(&str, &str, Read)] = &[
    (
        "kubernetes.io/dockerconfigjson",
        ".dockerconfigjson",
        Keyring::add_config_json,
    ),
    (
        "kubernetes.io/dockercfg",
        ".dockercfg",
        Keyring::add_dockercfg,
    ),
];

/// The Secrets that a pod names.
#[derive(Clone)]
pub struct PullSecrets {
    client: kube::Client,
    namespace: String,
    names: Vec<String>,
}

impl PullSecrets {
    /// Those of a pod, read through `client`.
    #[must_use]
    pub fn of(pod: &Pod, client: kube::Client) -> Self {
        let secrets = pod.spec.iter().flat_map(|spec| &spec.image_pull_secrets);
        let names = secrets.flatten().map(|secret| secret.name.clone());
        Self {
            client,
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            names: names.filter(|name| !name.is_empty()).collect(),
        }
    }

    /// Reads them. Those that are not there are told in an event, since the image may be public.
    ///
    /// # Errors
    /// What a Secret holds is malformed; the text names it.
    pub(super) async fn keyring(&self, events: &ObjectEvents) -> Result<Keyring, String> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let (mut keyring, mut missing) = (Keyring::default(), Vec::new());
        for name in &self.names {
            match api.get(name).await {
                Ok(secret) => add(&mut keyring, &self.namespace, name, &secret)?,
                Err(error) => {
                    tracing::debug!(%error, self.namespace, name, "read a pull secret");
                    missing.push(name.as_str());
                }
            }
        }
        if !missing.is_empty() {
            let text = format!(
                "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                missing.join(", ")
            );
            let reason = EventReason::FailedToRetrieveImagePullSecret;
            events.record(EventType::Warning, reason, text);
        }
        Ok(keyring)
    }
}

fn add(keyring: &mut Keyring, namespace: &str, name: &str, secret: &Secret) -> Result<(), String> {
    let kind = secret.type_.as_deref().unwrap_or_default();
    let uid = secret.metadata.uid.as_deref().unwrap_or_default();
    // A Secret made anew under the name is another one, and whoever has it may not have the image.
    let origin = Origin::Source(format!("{namespace}/{name}/{uid}"));
    for (form, key, read) in FORMS {
        let data = secret.data.as_ref().and_then(|data| data.get(*key));
        if let Some(bytes) = data.filter(|_| kind == *form) {
            let added = read(keyring, &bytes.0, &origin);
            added.map_err(|error| format!("image pull secret {namespace}/{name}: {error}"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn both_types_are_read_and_others_are_not() {
        let entry = r#"{"r.io":{"username":"u","password":"p"}}"#;
        let config = format!(r#"{{"auths":{entry}}}"#);
        let cases = [
            (
                "kubernetes.io/dockerconfigjson",
                ".dockerconfigjson",
                &*config,
                1,
            ),
            ("kubernetes.io/dockercfg", ".dockercfg", entry, 1),
            ("Opaque", ".dockerconfigjson", &*config, 0),
            ("kubernetes.io/dockercfg", "other", entry, 0),
        ];
        for (kind, key, data, want) in cases {
            let mut secret: Secret = serde_json::from_value(json!({
                "metadata": {"name": "s", "namespace": "n", "uid": "1"}, "type": kind,
            }))
            .unwrap();
            let bytes = k8s_openapi::ByteString(data.as_bytes().to_vec());
            secret.data = Some([(key.to_owned(), bytes)].into());
            let mut keyring = Keyring::default();
            add(&mut keyring, "n", "s", &secret).unwrap();
            let found = keyring.lookup("r.io", "a");
            assert_eq!(found.len(), want, "{kind} {key}");
            for credential in found {
                assert_eq!(credential.origin, Origin::Source("n/s/1".to_owned()));
            }
        }
    }

    #[test]
    fn a_malformed_secret_is_named_and_not_shown() {
        let secret: Secret = serde_json::from_value(json!({
            "metadata": {"name": "s", "uid": "1"}, "type": "kubernetes.io/dockercfg",
            "data": {".dockercfg": "c2VjcmV0"},
        }))
        .unwrap();
        let error = add(&mut Keyring::default(), "n", "s", &secret).unwrap_err();
        assert!(
            error.contains("n/s") && !error.contains("secret\""),
            "{error}"
        );
    }
}
