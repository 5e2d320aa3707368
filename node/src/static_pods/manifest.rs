//! A file's bytes to the static pods in it, or why not.
//!
//! No API server looks at these pods before they run, so whatever of them becomes a path or a name is checked here. What
//! remains is checked where the mirror is made.

use std::collections::BTreeSet;
use std::path::Path;

use k8s_openapi::api::core::v1::{Pod, PodSpec, Toleration};
use serde_json::{Value, json};
use windlass_api::names;
use windlass_api::pod_references::api_object_reference;
use windlass_api::resource::GroupVersionKind;
use windlass_api::schema::{Decoded, Schema, decode_yaml_documents, strict_error};
use windlass_oci::digest::Digest;

use super::{FILE, HASH, SOURCE};

/// Namespace of what names none.
const NAMESPACE: &str = "default";
/// Characters of a digest that are a uid: as many as kubelet's have.
const UID: usize = 32;
/// What of a file's metadata a pod keeps; all else is the API's to set.
const METADATA: [&str; 4] = ["name", "namespace", "labels", "annotations"];

/// The pods of a file, for this node.
///
/// # Errors
/// What is wrong, and in which document of the file.
pub(super) fn read(file: &Path, content: &[u8], node: &str) -> Result<Vec<Pod>, String> {
    let documents = decode_yaml_documents(content).map_err(|error| error.to_string())?;
    let several = documents.len() > 1;
    let mut pods = Vec::new();
    for (index, document) in documents.into_iter().enumerate() {
        if document.value.is_null() {
            continue;
        }
        let pod = pod(file, document, node).map_err(|error| match several {
            true => format!("document {}: {error}", index + 1),
            false => error,
        });
        pods.push(pod?);
    }
    Ok(pods)
}

fn pod(file: &Path, document: Decoded, node: &str) -> Result<Pod, String> {
    let Decoded {
        mut value,
        duplicates,
    } = document;
    let text = |at: &str| value.pointer(at).and_then(Value::as_str);
    let (version, kind) = (text("/apiVersion"), text("/kind"));
    if (version, kind) != (Some("v1"), Some("Pod")) {
        let (version, kind) = (version.unwrap_or_default(), kind.unwrap_or_default());
        return Err(format!(
            "a static pod is a Pod of v1, not {version:?} {kind:?}"
        ));
    }
    let schema = Schema::builtin();
    if let Some(of_kind) = schema.kind(&GroupVersionKind::of("", "v1", "Pod")) {
        let report = schema.check(of_kind, &mut value);
        if let Some(error) = report.type_errors.first() {
            return Err(error.to_string());
        }
        if let Some(error) = strict_error(&duplicates, &report.unknown) {
            return Err(error);
        }
    }
    if let Some(resource) = api_object_reference(&value) {
        return Err(format!("static pods may not reference {resource}"));
    }
    strip(&mut value);
    let pod: Pod = serde_json::from_value(value).map_err(|error| error.to_string())?;
    let pod = complete(file, pod, node)?;
    check(&pod)?;
    Ok(pod)
}

/// Leaves what a file may say of a pod.
fn strip(pod: &mut Value) {
    if let Some(pod) = pod.as_object_mut() {
        pod.remove("status");
        if let Some(metadata) = pod.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.retain(|field, _| METADATA.contains(&field.as_str()));
        }
    }
}

/// Makes it a pod of this node.
fn complete(file: &Path, mut pod: Pod, node: &str) -> Result<Pod, String> {
    let uid = uid(file, &pod, node)?;
    let metadata = &mut pod.metadata;
    let name = metadata.name.clone().unwrap_or_default();
    if name.is_empty() {
        return Err("metadata.name: Required value".to_owned());
    }
    metadata.name = Some(format!("{name}-{}", node.to_lowercase()));
    let namespace = metadata.namespace.take().filter(|found| !found.is_empty());
    metadata.namespace = Some(namespace.unwrap_or_else(|| NAMESPACE.to_owned()));
    metadata.uid = Some(uid.clone());
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.insert(HASH.to_owned(), uid);
    annotations.insert(SOURCE.to_owned(), FILE.to_owned());
    let spec = pod.spec.get_or_insert_default();
    spec.node_name = Some(node.to_owned());
    // Nothing that is written on the Node ends what its files ask for.
    spec.tolerations.get_or_insert_default().push(Toleration {
        operator: Some("Exists".to_owned()),
        effect: Some("NoExecute".to_owned()),
        ..Toleration::default()
    });
    Ok(pod)
}

fn uid(file: &Path, pod: &Pod, node: &str) -> Result<String, String> {
    let file = file.to_string_lossy();
    let all = serde_json::to_vec(&json!([node, file, pod])).map_err(|error| error.to_string())?;
    let digest = Digest::sha256(&all);
    Ok(digest.hex().chars().take(UID).collect())
}

fn check(pod: &Pod) -> Result<(), String> {
    let metadata = &pod.metadata;
    valid(
        "metadata.name",
        metadata.name.as_deref(),
        names::dns1123_subdomain,
    )?;
    let namespace = metadata.namespace.as_deref();
    valid("metadata.namespace", namespace, names::dns1123_label)?;
    let Some(spec) = &pod.spec else {
        return Err("spec: Required value".to_owned());
    };
    if spec.containers.is_empty() {
        return Err("spec.containers: Required value".to_owned());
    }
    if spec.ephemeral_containers.is_some() {
        return Err("static pods do not support ephemeral containers".to_owned());
    }
    check_containers(spec)?;
    let volumes = spec.volumes.iter().flatten().map(|it| it.name.as_str());
    distinct("spec.volumes", volumes)
}

fn check_containers(spec: &PodSpec) -> Result<(), String> {
    let init = spec.init_containers.iter().flatten();
    for (list, container) in init
        .clone()
        .map(|it| ("spec.initContainers", it))
        .chain(spec.containers.iter().map(|it| ("spec.containers", it)))
    {
        if container.image.as_deref().unwrap_or_default().is_empty() {
            let name = &container.name;
            return Err(format!("{list}[{name}].image: Required value"));
        }
    }
    let all = init.chain(&spec.containers).map(|it| it.name.as_str());
    distinct("spec.containers", all)
}

/// Each is a label, and there only once.
fn distinct<'a>(path: &str, names: impl Iterator<Item = &'a str>) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for name in names {
        let field = format!("{path}[].name");
        valid(&field, Some(name), names::dns1123_label)?;
        if !seen.insert(name) {
            return Err(format!("{field}: Duplicate value: {name:?}"));
        }
    }
    Ok(())
}

fn valid(field: &str, value: Option<&str>, rule: fn(&str) -> Vec<String>) -> Result<(), String> {
    let value = value.unwrap_or_default();
    match rule(value).first() {
        None => Ok(()),
        Some(error) => Err(format!("{field}: Invalid value: {value:?}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{is_mirror, is_static};
    use super::*;

    fn read_text(text: &str) -> Result<Vec<Pod>, String> {
        read(Path::new("/pods/a.yaml"), text.as_bytes(), "Node-1")
    }

    fn manifest(spec: &str) -> String {
        format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec: {spec}\n")
    }

    #[test]
    fn a_pod_of_a_file_is_the_nodes() {
        let text = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\n  uid: mine\n  labels: {a: b}\n  \
                    finalizers: [x/y]\nspec:\n  nodeName: other\n  containers: [{name: c, image: i}]\n\
                    status: {phase: Failed}\n";
        let pod = read_text(text).unwrap().remove(0);
        let metadata = &pod.metadata;
        assert_eq!(metadata.name.as_deref(), Some("web-node-1"));
        assert_eq!(metadata.namespace.as_deref(), Some("default"));
        let uid = metadata.uid.clone().unwrap();
        assert_eq!(uid.len(), UID);
        assert_eq!(metadata.annotations.as_ref().unwrap()[HASH], uid);
        assert_eq!(metadata.labels.as_ref().unwrap()["a"], "b");
        assert_eq!(metadata.finalizers, None);
        assert!(is_static(&pod) && !is_mirror(&pod));
        assert_eq!(pod.status, None);
        let spec = pod.spec.unwrap();
        assert_eq!(spec.node_name.as_deref(), Some("Node-1"));
        let effect = spec.tolerations.unwrap().remove(0).effect;
        assert_eq!(effect.as_deref(), Some("NoExecute"));
    }

    #[test]
    fn another_pod_file_or_node_is_another_uid() {
        let uid = |file: &str, image: &str, node: &str| {
            let text = manifest(&format!("{{containers: [{{name: c, image: {image}}}]}}"));
            let pods = read(Path::new(file), text.as_bytes(), node).unwrap();
            pods[0].metadata.uid.clone().unwrap()
        };
        let uids = BTreeSet::from([
            uid("/a.yaml", "i", "n"),
            uid("/a.yaml", "i", "n"),
            uid("/b.yaml", "i", "n"),
            uid("/a.yaml", "j", "n"),
            uid("/a.yaml", "i", "m"),
        ]);
        assert_eq!(uids.len(), 4);
    }

    #[test]
    fn a_file_that_is_wrong_says_where() {
        let of = |spec: &str| manifest(spec);
        for (text, expected) in [
            ("a: [".to_owned(), "line"),
            (
                "apiVersion: v1\nkind: Service\n".to_owned(),
                "a static pod is a Pod of v1, not \"v1\" \"Service\"",
            ),
            (of("{containers: []}"), "spec.containers: Required value"),
            (
                of("{containers: [{name: a, imag: b}]}"),
                "unknown field \"spec.containers[0].imag\"",
            ),
            (of("{containers: 1}"), "spec.containers"),
            (
                of("{containers: [{name: a}]}"),
                "spec.containers[a].image: Required value",
            ),
            (
                of("{containers: [{name: ../a, image: b}]}"),
                "spec.containers[].name: Invalid value: \"../a\"",
            ),
            (
                of("{containers: [{name: a, image: b}, {name: a, image: b}]}"),
                "spec.containers[].name: Duplicate value: \"a\"",
            ),
            (
                of("{containers: [{name: a, image: b}], volumes: [{name: ../v, emptyDir: {}}]}"),
                "spec.volumes[].name: Invalid value: \"../v\"",
            ),
            (
                of("{containers: [{name: a, image: b}], serviceAccountName: s}"),
                "static pods may not reference serviceaccounts",
            ),
            (
                of("{containers: [{name: a, image: b}], volumes: [{name: v, secret: {secretName: s}}]}"),
                "static pods may not reference secrets",
            ),
            (
                "apiVersion: v1\nkind: Pod\nmetadata: {name: a/../b}\nspec: {containers: [{name: a, image: b}]}\n"
                    .to_owned(),
                "metadata.name: Invalid value: \"a/../b-node-1\"",
            ),
            (
                format!("{}---\nkind: Pod\n", of("{containers: [{name: a, image: b}]}")),
                "document 2: a static pod is a Pod of v1",
            ),
        ] {
            let error = read_text(&text).unwrap_err();
            assert!(error.contains(expected), "{text}\n{error}");
        }
    }

    #[test]
    fn empty_documents_are_no_pods() {
        assert_eq!(read_text("---\n# nothing\n").unwrap(), []);
    }
}
