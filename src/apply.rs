//! Applying objects: what `windlass apply` and `windlass up` share.
//!
//! 1. A container image that is a path of a `.wasm` file is pushed to the cluster's registry, and the
//!    reference replaced by the pushed image's digest. The API never sees a path.
//! 2. Each object is applied server-side, strictly, in the order of the files; Namespaces go first.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use bytes::Bytes;
use kube::Client;
use kube::api::{
    Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, ValidationDirective,
};
use kube::discovery::{ApiCapabilities, Scope};
use serde_json::Value;
use windlass_node::images::ApiTransport;
use windlass_oci::push::{push_components, push_wasm};
use windlass_oci::reference::{CLUSTER_REGISTRY, Reference};
use windlass_oci::registry::client::RegistryClient;

use crate::connection::said;
use crate::object_files::FileObject;

/// The field manager of what this program applies.
const MANAGER: &str = "windlass";

/// How to apply.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Namespace of objects that name none.
    pub(crate) namespace: String,
    /// Take fields that others manage.
    pub(crate) force: bool,
    /// Change nothing.
    pub(crate) dry_run: bool,
}

/// What became of an object.
#[derive(Debug)]
pub(crate) struct Applied {
    /// The object as the server has it.
    pub(crate) object: DynamicObject,
    /// `deployment.apps/hello`.
    pub(crate) name: String,
    /// `created`, `configured` or `unchanged`.
    pub(crate) outcome: &'static str,
}

/// Applies objects one by one.
pub(crate) struct Applier {
    client: Client,
    registry: RegistryClient,
    options: Options,
    resources: HashMap<GroupVersionKind, (ApiResource, ApiCapabilities)>,
}

impl Applier {
    /// Applies through `client`.
    pub(crate) fn new(client: Client, options: Options) -> Self {
        let transport = ApiTransport::new(client.clone());
        let registry = RegistryClient::new(std::sync::Arc::new(transport), CLUSTER_REGISTRY);
        Self {
            client,
            registry,
            options,
            resources: HashMap::new(),
        }
    }

    /// Applies one object.
    pub(crate) async fn apply(&mut self, file: FileObject) -> anyhow::Result<Applied> {
        let FileObject {
            mut object,
            origin,
            base,
        } = file;
        let named = format!("{origin}: {}", title(&object));
        self.push_images(&mut object, &base)
            .await
            .with_context(|| named.clone())?;
        self.send(&object).await.with_context(|| named)
    }

    async fn send(&mut self, object: &Value) -> anyhow::Result<Applied> {
        let (resource, scope) = self.resource(object).await?;
        let text = |pointer| {
            object
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let namespace = match text("/metadata/namespace") {
            "" => &self.options.namespace,
            namespace => namespace,
        };
        let api: Api<DynamicObject> = match scope {
            Scope::Namespaced => Api::namespaced_with(self.client.clone(), namespace, &resource),
            Scope::Cluster => Api::all_with(self.client.clone(), &resource),
        };
        let name = text("/metadata/name");
        let before = api.get_opt(name).await?;
        let params = PatchParams {
            field_manager: Some(MANAGER.into()),
            force: self.options.force,
            dry_run: self.options.dry_run,
            field_validation: Some(ValidationDirective::Strict),
        };
        let after = api
            .patch(name, &params, &Patch::Apply(object))
            .await
            .map_err(explain)?;
        let version = |object: &DynamicObject| object.metadata.resource_version.clone();
        let outcome = match &before {
            None => "created",
            Some(before) if version(before) == version(&after) => "unchanged",
            Some(_) => "configured",
        };
        let group = if resource.group.is_empty() {
            String::new()
        } else {
            format!(".{}", resource.group)
        };
        let kind = resource.kind.to_lowercase();
        Ok(Applied {
            object: after,
            name: format!("{kind}{group}/{name}"),
            outcome,
        })
    }

    async fn resource(&mut self, object: &Value) -> anyhow::Result<(ApiResource, Scope)> {
        let text = |field| {
            object
                .get(field)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let (group, version) = text("apiVersion")
            .split_once('/')
            .unwrap_or(("", text("apiVersion")));
        let gvk = GroupVersionKind::gvk(group, version, text("kind"));
        if !self.resources.contains_key(&gvk) {
            let found = kube::discovery::pinned_kind(&self.client, &gvk).await;
            let found = found.with_context(|| {
                format!(
                    "the server has no kind {:?} in version {:?}",
                    text("kind"),
                    text("apiVersion")
                )
            })?;
            self.resources.insert(gvk.clone(), found);
        }
        let known = self.resources.get(&gvk);
        let (resource, capabilities) = known.context("resource not discovered")?;
        Ok((resource.clone(), capabilities.scope.clone()))
    }

    /// Pushes every image of `object` that is a file, and puts the digest in its place.
    async fn push_images(&self, object: &mut Value, base: &Path) -> anyhow::Result<()> {
        let namespace = object
            .pointer("/metadata/namespace")
            .and_then(Value::as_str);
        let namespace = namespace.unwrap_or(&self.options.namespace).to_owned();
        for image in images_mut(object) {
            let Value::String(path) = image else { continue };
            if !is_file(path) {
                continue;
            }
            let reference = self.push(base.join(&*path), &namespace).await?;
            *path = reference.to_string();
        }
        Ok(())
    }

    async fn push(&self, path: PathBuf, namespace: &str) -> anyhow::Result<Reference> {
        let stem = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .unwrap_or_default();
        let name: String = stem
            .to_lowercase()
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .collect();
        let reference = format!("{CLUSTER_REGISTRY}/{namespace}/{}", name.trim_matches('-'));
        let reference: Reference = reference
            .parse()
            .with_context(|| format!("no image name can be made of {}", path.display()))?;
        push_files(&self.registry, std::slice::from_ref(&path), &reference).await
    }
}

/// Pushes the component in `path`; returns the reference by digest.
pub(crate) async fn push_files(
    registry: &RegistryClient,
    paths: &[PathBuf],
    reference: &Reference,
) -> anyhow::Result<Reference> {
    let mut files = Vec::with_capacity(paths.len());
    for path in paths {
        let wasm = tokio::fs::read(path)
            .await
            .with_context(|| format!("read {}", path.display()))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        files.push((name.into_owned(), Bytes::from(wasm)));
    }
    let names: Vec<_> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let context = || format!("push {}", names.join(", "));
    // The digest of a single file does not depend on its name.
    let digest = match <[_; 1]>::try_from(files) {
        Ok([(_, wasm)]) => push_wasm(registry, reference, wasm).await,
        Err(files) => push_components(registry, reference, files).await,
    };
    let digest = digest.with_context(context)?;
    Ok(reference.with_digest(digest))
}

/// Namespaces first, everything else in the order given.
pub(crate) fn in_order(mut files: Vec<FileObject>) -> Vec<FileObject> {
    let kind = |file: &FileObject| file.object.get("kind").cloned();
    files.sort_by_key(|file| kind(file) != Some("Namespace".into()));
    files
}

/// Whether an image is a `.wasm` file's path, which no registry reference looks like.
fn is_file(image: &str) -> bool {
    image.ends_with(".wasm") && !image.contains('@')
}

/// Every `image` of every container below `value`.
fn images_mut(value: &mut Value) -> Vec<&mut Value> {
    match value {
        Value::Object(map) => map
            .iter_mut()
            .flat_map(|(key, value)| {
                let lists_containers = matches!(key.as_str(), "containers" | "initContainers");
                if lists_containers {
                    container_images_mut(value)
                } else {
                    images_mut(value)
                }
            })
            .collect(),
        Value::Array(items) => items.iter_mut().flat_map(images_mut).collect(),
        _ => Vec::new(),
    }
}

fn container_images_mut(containers: &mut Value) -> Vec<&mut Value> {
    let containers = containers.as_array_mut().into_iter().flatten();
    containers
        .filter_map(|container| container.get_mut("image"))
        .collect()
}

fn title(object: &Value) -> String {
    let text = |pointer| {
        object
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    format!("{} {:?}", text("/kind"), text("/metadata/name"))
}

/// The server's own words, and what helps.
fn explain(error: kube::Error) -> anyhow::Error {
    match error {
        kube::Error::Api(status) if status.code == 409 => {
            anyhow::anyhow!(
                "{}\n(--force-conflicts takes these fields over)",
                status.message
            )
        }
        other => said(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_paths_of_components_are_files() {
        for (image, expected) in [
            ("hello.wasm", true),
            ("./target/hello.wasm", true),
            ("../x/y.wasm", true),
            ("registry.windlass.local/default/hello:1", false),
            ("nginx", false),
            ("x.wasm@sha256:00", false),
        ] {
            assert_eq!(is_file(image), expected, "{image}");
        }
    }

    #[test]
    fn images_are_found_wherever_containers_are() {
        let mut object = json!({"spec": {"template": {"spec": {
            "initContainers": [{"image": "a"}], "containers": [{"image": "b"}, {"name": "c"}],
        }}}});
        let images: Vec<_> = images_mut(&mut object)
            .into_iter()
            .map(|i| i.clone())
            .collect();
        assert_eq!(images, ["a", "b"]);
    }
}
