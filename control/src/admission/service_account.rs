//! Every pod runs as a ServiceAccount of its namespace that exists, and gets a token for it unless the pod says that it
//! wants none, or its account does. A pod that names no secrets to pull its images with gets those of its account.

use serde_json::{Value, json};
use uuid::Uuid;

use super::{Admission, Attributes};
use crate::registry::error::ApiError;
use crate::registry::kinds::pod::is_mirror;
use crate::registry::object_meta as meta;
use crate::registry::parse;
use crate::store::ObjectKey;

/// Where clients look for the token, the authority's certificate and the namespace.
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// How long a mounted token lives, in seconds; upstream's odd number, by which such tokens are known.
const TOKEN_LIFE: u32 = 3607;
/// Volumes for mounted tokens are called so, with five letters more.
const VOLUME: &str = "kube-api-access-";

pub(super) struct ServiceAccount;

impl Admission for ServiceAccount {
    fn admit(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), ApiError> {
        if !attributes.creates("Pod") || is_mirror(object) {
            return Ok(());
        }
        let spec = meta::member_mut(object, "spec");
        let account = spec
            .get("serviceAccountName")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let account = if account.is_empty() {
            "default"
        } else {
            account
        }
        .to_owned();
        spec.insert("serviceAccountName".into(), account.clone().into());
        spec.insert("serviceAccount".into(), account.clone().into());
        let namespace = attributes.call.namespace;
        let key = ObjectKey::new("", "serviceaccounts", namespace, &account);
        let Some(found) = attributes.snapshot.get(&key) else {
            let reason = format!(
                "error looking up service account {namespace}/{account}: serviceaccount {account:?} not found"
            );
            return Err(attributes.forbidden(object, reason));
        };
        let account = parse(found)?;
        if wants_token(object, &account) {
            mount(object);
        }
        give_pull_secrets(object, &account);
        Ok(())
    }
}

/// A pod's own pull secrets count alone; only one that has none gets its account's.
fn give_pull_secrets(pod: &mut Value, account: &Value) {
    const FIELD: &str = "imagePullSecrets";
    let is_empty = |list: Option<&Value>| list.and_then(Value::as_array).is_none_or(Vec::is_empty);
    let secrets = account.get(FIELD);
    let spec = pod.get_mut("spec").and_then(Value::as_object_mut);
    if let (Some(spec), Some(secrets)) = (spec, secrets)
        && is_empty(spec.get(FIELD))
        && !is_empty(Some(secrets))
    {
        spec.insert(FIELD.into(), secrets.clone());
    }
}

/// What the pod says counts, else what the account says; without a word a token is mounted.
fn wants_token(pod: &Value, account: &Value) -> bool {
    const FIELD: &str = "automountServiceAccountToken";
    let said = pod.get("spec").and_then(|spec| spec.get(FIELD));
    if let Some(said) = said.and_then(Value::as_bool) {
        return said;
    }
    account.get(FIELD).and_then(Value::as_bool) != Some(false)
}

/// Mounts a token into every container that has nothing at its place; a volume of the pod's own that is called like
/// ours is taken for it.
fn mount(pod: &mut Value) {
    let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else {
        return;
    };
    let volumes = spec.get("volumes").and_then(Value::as_array);
    let names = volumes
        .into_iter()
        .flatten()
        .filter_map(|volume| volume.get("name")?.as_str());
    let known = names.into_iter().find(|name| name.starts_with(VOLUME));
    let known = known.map(str::to_owned);
    let name = known.clone().unwrap_or_else(|| {
        let random = Uuid::new_v4().simple().to_string();
        format!("{VOLUME}{}", random.get(..5).unwrap_or(&random))
    });
    let mut is_used = false;
    for kind in ["containers", "initContainers"] {
        let containers = spec.get_mut(kind).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            is_used |= mount_into(container, &name);
        }
    }
    if is_used && known.is_none() {
        let volumes = spec.entry("volumes").or_insert_with(|| json!([]));
        if let Some(volumes) = volumes.as_array_mut() {
            volumes.push(volume(&name));
        }
    }
}

/// Whether the container has the mount now because of this.
fn mount_into(container: &mut Value, name: &str) -> bool {
    let Some(container) = container.as_object_mut() else {
        return false;
    };
    let mounts = container.entry("volumeMounts").or_insert_with(|| json!([]));
    if mounts.is_null() {
        *mounts = json!([]);
    }
    let Some(mounts) = mounts.as_array_mut() else {
        return false;
    };
    let is_taken = |mount: &Value| mount.get("mountPath") == Some(&MOUNT_PATH.into());
    if mounts.iter().any(is_taken) {
        return false;
    }
    mounts.push(json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH}));
    true
}

fn volume(name: &str) -> Value {
    let ca = json!([{"key": "ca.crt", "path": "ca.crt"}]);
    let field = json!({"apiVersion": "v1", "fieldPath": "metadata.namespace"});
    json!({"name": name, "projected": {"defaultMode": 0o644, "sources": [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_LIFE, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": ca}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": field}]}},
    ]}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_without_pull_secrets_gets_its_accounts() {
        let account = json!({"imagePullSecrets": [{"name": "of-account"}]});
        let own = json!([{"name": "own"}]);
        let cases = [
            (json!({}), &account, Some(&account["imagePullSecrets"])),
            (
                json!({"imagePullSecrets": []}),
                &account,
                Some(&account["imagePullSecrets"]),
            ),
            (json!({"imagePullSecrets": own}), &account, Some(&own)),
            (json!({}), &json!({}), None),
        ];
        for (spec, account, want) in cases {
            let mut pod = json!({"spec": spec});
            give_pull_secrets(&mut pod, account);
            assert_eq!(pod["spec"].get("imagePullSecrets"), want);
        }
    }

    #[test]
    fn a_token_is_mounted_where_nothing_else_is() {
        let taken =
            json!({"name": "b", "volumeMounts": [{"name": "own", "mountPath": MOUNT_PATH}]});
        let mut pod = json!({"spec": {"containers": [{"name": "a"}, taken]}});
        mount(&mut pod);
        let volume = pod["spec"]["volumes"][0]["name"].as_str().unwrap();
        assert!(volume.starts_with(VOLUME) && volume.len() == VOLUME.len() + 5);
        let containers = pod["spec"]["containers"].as_array().unwrap();
        assert_eq!(containers[0]["volumeMounts"][0]["name"], volume);
        assert_eq!(containers[1]["volumeMounts"].as_array().unwrap().len(), 1);
        let once = pod.clone();
        mount(&mut pod);
        assert_eq!(pod, once);
    }
}
