//! Which objects of the API a pod needs before it can run.
//!
//! A pod that its node takes from a file may need none: the node runs it without an API server.

use serde_json::Value;

const CONTAINERS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

/// What a reference looks like: a resource, and where pods name one.
struct Reference {
    resource: &'static str,
    /// Below a volume.
    of_volume: &'static str,
    /// Below a source of a projected volume.
    of_source: &'static str,
    /// Below `envFrom[]` and `env[].valueFrom`.
    of_variable: [&'static str; 2],
}

/// In the order in which upstream looks for them. An empty place is no place.
const REFERENCES: &[Reference] = &[
    Reference {
        resource: "secrets",
        of_volume: "secret",
        of_source: "secret",
        of_variable: ["secretRef", "secretKeyRef"],
    },
    Reference {
        resource: "configmaps",
        of_volume: "configMap",
        of_source: "configMap",
        of_variable: ["configMapRef", "configMapKeyRef"],
    },
    Reference {
        resource: "clustertrustbundles",
        of_volume: "",
        of_source: "clusterTrustBundle",
        of_variable: ["", ""],
    },
    Reference {
        resource: "serviceaccounts (via projected volumes)",
        of_volume: "",
        of_source: "serviceAccountToken",
        of_variable: ["", ""],
    },
    Reference {
        resource: "persistentvolumeclaims",
        of_volume: "persistentVolumeClaim",
        of_source: "",
        of_variable: ["", ""],
    },
    Reference {
        resource: "persistentvolumeclaims",
        of_volume: "ephemeral",
        of_source: "",
        of_variable: ["", ""],
    },
];

/// Volumes of drivers that name a Secret, below the volume.
const DRIVER_SECRETS: &[&str] = &[
    "/azureFile/secretName",
    "/cephfs/secretRef",
    "/cinder/secretRef",
    "/csi/nodePublishSecretRef",
    "/flexVolume/secretRef",
    "/iscsi/secretRef",
    "/rbd/secretRef",
    "/scaleIO/secretRef",
    "/storageos/secretRef",
];

/// The resource of an object that the pod needs, if it needs one: in upstream's words, as error messages show it.
#[must_use]
pub fn api_object_reference(pod: &Value) -> Option<&'static str> {
    let account = pod.pointer("/spec/serviceAccountName");
    if account
        .and_then(Value::as_str)
        .is_some_and(|it| !it.is_empty())
    {
        return Some("serviceaccounts");
    }
    if items(pod, "/spec/imagePullSecrets").next().is_some() || has_driver_secret(pod) {
        return Some("secrets");
    }
    if let Some(found) = REFERENCES.iter().find(|kind| kind.is_in(pod)) {
        return Some(found.resource);
    }
    let claims = items(pod, "/spec/resourceClaims").next().is_some();
    claims.then_some("resourceclaims")
}

fn has_driver_secret(pod: &Value) -> bool {
    items(pod, "/spec/volumes").any(|volume| {
        let mut places = DRIVER_SECRETS.iter();
        places.any(|place| volume.pointer(place).is_some_and(|found| !found.is_null()))
    })
}

impl Reference {
    fn is_in(&self, pod: &Value) -> bool {
        let in_volumes = items(pod, "/spec/volumes").any(|volume| {
            has(volume, self.of_volume)
                || items(volume, "/projected/sources").any(|source| has(source, self.of_source))
        });
        let [all, one] = self.of_variable;
        let mut lists = CONTAINERS.iter().map(|list| format!("/spec/{list}"));
        in_volumes
            || lists.any(|list| {
                items(pod, &list).any(|container| {
                    let one_of = |variable: &Value| {
                        let from = variable.get("valueFrom");
                        from.is_some_and(|from| has(from, one))
                    };
                    items(container, "/envFrom").any(|from| has(from, all))
                        || items(container, "/env").any(one_of)
                })
            })
    }
}

fn has(of: &Value, member: &str) -> bool {
    !member.is_empty() && of.get(member).is_some_and(|found| !found.is_null())
}

fn items<'a>(of: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    let list = of.pointer(pointer).and_then(Value::as_array);
    list.into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_way_to_name_an_object_is_found() {
        let volume = |volume: Value| json!({ "volumes": [volume] });
        let source = |source: Value| volume(json!({ "projected": { "sources": [source] } }));
        let env = |from: Value| json!({ "initContainers": [{ "env": [{ "valueFrom": from }] }] });
        let env_from = |from: Value| json!({ "containers": [{ "envFrom": [from] }] });
        for (spec, expected) in [
            (json!({}), None),
            (json!({ "serviceAccountName": "" }), None),
            (
                json!({ "serviceAccountName": "a" }),
                Some("serviceaccounts"),
            ),
            (
                json!({ "imagePullSecrets": [{ "name": "a" }] }),
                Some("secrets"),
            ),
            (volume(json!({ "emptyDir": {} })), None),
            (volume(json!({ "secret": null, "hostPath": {} })), None),
            (volume(json!({ "secret": {} })), Some("secrets")),
            (
                volume(json!({ "csi": { "nodePublishSecretRef": {} } })),
                Some("secrets"),
            ),
            (volume(json!({ "csi": {} })), None),
            (volume(json!({ "configMap": {} })), Some("configmaps")),
            (
                volume(json!({ "persistentVolumeClaim": {} })),
                Some("persistentvolumeclaims"),
            ),
            (
                volume(json!({ "ephemeral": {} })),
                Some("persistentvolumeclaims"),
            ),
            (source(json!({ "downwardAPI": {} })), None),
            (source(json!({ "secret": {} })), Some("secrets")),
            (source(json!({ "configMap": {} })), Some("configmaps")),
            (
                source(json!({ "clusterTrustBundle": {} })),
                Some("clustertrustbundles"),
            ),
            (
                source(json!({ "serviceAccountToken": {} })),
                Some("serviceaccounts (via projected volumes)"),
            ),
            (env(json!({ "fieldRef": {} })), None),
            (env(json!({ "secretKeyRef": {} })), Some("secrets")),
            (env(json!({ "configMapKeyRef": {} })), Some("configmaps")),
            (env_from(json!({ "secretRef": {} })), Some("secrets")),
            (env_from(json!({ "configMapRef": {} })), Some("configmaps")),
            (
                json!({ "resourceClaims": [{ "name": "a" }] }),
                Some("resourceclaims"),
            ),
        ] {
            let pod = json!({ "spec": spec });
            assert_eq!(api_object_reference(&pod), expected, "{spec}");
        }
    }
}
