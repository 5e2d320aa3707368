//! The node authorizer: of what node agents may do, only what concerns their own node.
//!
//! A node reads the Secrets and ConfigMaps that its pods name, each by its name, and no others; a node that an
//! administrator made one that serves Ingresses, those with their certificates too.

use memchr::memmem::Finder;
use serde_json::Value;
use windlass_api::ingress;

use super::super::request_info::RequestInfo;
use super::components::READ;
use crate::registry::kinds::text;
use crate::store::{Entry, KeyRange, ObjectKey, Snapshot};

/// The group of Ingresses.
const NETWORKING: &str = "networking.k8s.io";

/// Whether a request of a node agent is about that node.
pub(super) fn concerns(
    node: &str,
    info: &RequestInfo,
    snapshot: &Snapshot,
    field_selector: &str,
) -> bool {
    let writes = !READ.contains(&info.verb);
    let any_pod = |names| any_pod(node, info, snapshot, names);
    match &*info.resource {
        "nodes" if info.verb == "create" => true,
        "nodes" => !writes || info.name == node,
        "leases" => {
            info.namespace == "kube-node-lease" && (info.name == node || info.verb == "create")
        }
        // Which ones is up to admission: mirrors of its own (`admission/node_restriction.rs`).
        "pods" if info.verb == "create" && info.name.is_empty() => true,
        "pods" if info.name.is_empty() => {
            let own = format!("spec.nodeName={node}");
            field_selector.split(',').any(|term| term == own)
        }
        "pods" => {
            let key = ObjectKey::new("", "pods", &info.namespace, &info.name);
            // A pod that is gone is answered with NotFound, which tells the agent nothing new.
            snapshot.get(&key).is_none_or(|pod| runs_on(pod, node))
        }
        "secrets" => {
            any_pod(names_secret)
                || (serves_ingresses(node, snapshot)
                    && shows_certificate(&info.namespace, &info.name, snapshot))
        }
        "configmaps" => any_pod(names_config_map),
        "serviceaccounts" => any_pod(|pod, name| text(pod, "/spec/serviceAccountName") == name),
        _ => true,
    }
}

fn runs_on(pod: &Entry, node: &str) -> bool {
    pod.fields.get("spec.nodeName") == Some(node)
}

/// Whether a pod of the node, in the object's namespace, names the object. A node starts pods one after the other and asks
/// for each one's objects: those that have the name nowhere in them are not parsed for that.
fn any_pod(
    node: &str,
    info: &RequestInfo,
    snapshot: &Snapshot,
    names: fn(&Value, &str) -> bool,
) -> bool {
    // Not to be asked for all of them: what a pod does not name has no name either.
    if info.name.is_empty() || info.namespace.is_empty() {
        return false;
    }
    let range = KeyRange::namespace("", "pods", &info.namespace);
    // No name of an object has characters that JSON escapes.
    let quoted = format!("\"{}\"", info.name);
    let quoted = Finder::new(&quoted);
    let mut pods = snapshot.range(&range, None);
    pods.any(|pod| {
        let mentions = runs_on(pod, node) && quoted.find(&pod.bytes).is_some();
        let parsed = || serde_json::from_slice::<Value>(&pod.bytes);
        mentions && parsed().is_ok_and(|pod| names(&pod, &info.name))
    })
}

fn parsed(snapshot: &Snapshot, key: &ObjectKey) -> Option<Value> {
    serde_json::from_slice(&snapshot.get(key)?.bytes).ok()
}

/// Whether an administrator labelled the node so. A node cannot (`admission/node_restriction.rs`).
fn serves_ingresses(node: &str, snapshot: &Snapshot) -> bool {
    let node = parsed(snapshot, &ObjectKey::new("", "nodes", "", node));
    node.is_some_and(|node| {
        let labels = node.pointer("/metadata/labels");
        labels.and_then(|labels| labels.get(ingress::NODE_LABEL)?.as_str()) == Some("true")
    })
}

/// Whether an Ingress that nodes serve shows the certificate of the Secret.
fn shows_certificate(namespace: &str, name: &str, snapshot: &Snapshot) -> bool {
    if name.is_empty() || namespace.is_empty() {
        return false;
    }
    let range = KeyRange::namespace(NETWORKING, "ingresses", namespace);
    let mut ingresses = snapshot.range(&range, None);
    ingresses.any(|entry| {
        let parsed = serde_json::from_slice::<Value>(&entry.bytes);
        parsed
            .is_ok_and(|ingress| names_certificate(&ingress, name) && is_served(&ingress, snapshot))
    })
}

fn names_certificate(ingress: &Value, name: &str) -> bool {
    items(ingress, "/spec/tls").any(|tls| text(tls, "/secretName") == name)
}

/// Whether the class of the Ingress is one that nodes serve.
fn is_served(object: &Value, snapshot: &Snapshot) -> bool {
    let annotations = object.pointer("/metadata/annotations");
    let annotated = annotations.and_then(|all| all.get(ingress::CLASS_ANNOTATION)?.as_str());
    let class = match text(object, "/spec/ingressClassName") {
        "" => annotated.unwrap_or_default(),
        named => named,
    };
    let class = parsed(
        snapshot,
        &ObjectKey::new(NETWORKING, "ingressclasses", "", class),
    );
    class.is_some_and(|class| text(&class, "/spec/controller") == ingress::CONTROLLER)
}

/// Whether the pod needs the Secret: to pull its images, in a volume or in its environment.
fn names_secret(pod: &Value, name: &str) -> bool {
    items(pod, "/spec/imagePullSecrets").any(|secret| text(secret, "/name") == name)
        || in_volume(pod, "/secret/secretName", "/secret/name", name)
        || in_environment(pod, "/secretRef/name", "/valueFrom/secretKeyRef/name", name)
}

/// Whether the pod needs the ConfigMap: in a volume or in its environment.
fn names_config_map(pod: &Value, name: &str) -> bool {
    let (each, one) = ("/configMapRef/name", "/valueFrom/configMapKeyRef/name");
    in_volume(pod, "/configMap/name", "/configMap/name", name)
        || in_environment(pod, each, one, name)
}

/// Whether a volume, or a source of a projected one, has this name at the pointer.
fn in_volume(pod: &Value, of_volume: &str, of_source: &str, name: &str) -> bool {
    items(pod, "/spec/volumes").any(|volume| {
        text(volume, of_volume) == name
            || items(volume, "/projected/sources").any(|source| text(source, of_source) == name)
    })
}

/// Whether a container takes all variables, or one, from the object.
fn in_environment(pod: &Value, all_of: &str, one_of: &str, name: &str) -> bool {
    const CONTAINERS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];
    CONTAINERS.iter().any(|kind| {
        items(pod, &format!("/spec/{kind}")).any(|container| {
            items(container, "/envFrom").any(|from| text(from, all_of) == name)
                || items(container, "/env").any(|variable| text(variable, one_of) == name)
        })
    })
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
    fn a_pod_needs_what_it_names_and_nothing_else() {
        let pod = json!({"spec": {
            "imagePullSecrets": [{"name": "pull"}],
            "volumes": [
                {"secret": {"secretName": "file"}},
                {"configMap": {"name": "conf"}},
                {"projected": {"sources": [
                    {"secret": {"name": "part"}}, {"configMap": {"name": "kube-root-ca.crt"}}]}}],
            "initContainers": [{"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "first"}}}]}],
            "containers": [{
                "envFrom": [{"secretRef": {"name": "all"}}, {"configMapRef": {"name": "vars"}}],
                "env": [{"name": "B", "valueFrom": {"configMapKeyRef": {"name": "one"}}}]}],
        }});
        for secret in ["pull", "file", "part", "first", "all"] {
            assert!(names_secret(&pod, secret), "{secret}");
            assert!(!names_config_map(&pod, secret), "{secret}");
        }
        for map in ["conf", "kube-root-ca.crt", "vars", "one"] {
            assert!(names_config_map(&pod, map), "{map}");
            assert!(!names_secret(&pod, map), "{map}");
        }
        assert!(!names_secret(&pod, "other"));
    }
}
