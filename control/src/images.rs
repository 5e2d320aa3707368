//! The image registry inside the cluster: the `oci` crate's, under the API's authentication and roles.
//!
//! To pull is `get`, to push `create` and to delete `delete` on `images` of group `registry.windlass.dev`: of the
//! namespace that the repository's name begins with, and called like the rest of it. A node pulls what its pods name.
//!
//! Clients of registries say who they are by Basic authentication: with any user name, and a token of the API as the
//! password. A refusal has the form that they understand.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use axum::response::Response;
use http::StatusCode;
use serde_json::Value;
use windlass_oci::content_store::{ContentError, ContentStore};
use windlass_oci::reference::{CLUSTER_REGISTRY, Reference};
use windlass_oci::registry::server::{
    Access, Authorize, CollectionPolicy, Denied, ImageRegistry, Limits, refusal,
};

use crate::identity::{MASTERS, UNAUTHENTICATED, UserInfo};
use crate::rbac::Action;
use crate::registry::Registry;
use crate::registry::error::ApiError;
use crate::store::{Freshness, KeyRange, Snapshot};

/// The group of the virtual resource `images`, which roles are about.
const GROUP: &str = "registry.windlass.dev";

struct Allow(Arc<Registry>);

impl Allow {
    async fn by_role(
        &self,
        user: &UserInfo,
        repository: &str,
        access: Access,
    ) -> Result<bool, ApiError> {
        let (namespace, name) = repository.split_once('/').unwrap_or(("", repository));
        let action = Action {
            verb: match access {
                Access::Pull => "get",
                Access::Push => "create",
                Access::Delete => "delete",
            },
            group: GROUP,
            resource: "images",
            name,
            ..Action::default()
        };
        let snapshot = self.0.store().snapshot(Freshness::Latest).await?;
        let rbac = self.0.rbac().await?;
        let by_role = rbac.allows(&snapshot, user, namespace, &action);
        let by_pod = || {
            let node = user.node_name().filter(|_| access == Access::Pull);
            node.is_some_and(|node| a_pod_names(&snapshot, node, repository))
        };
        Ok(by_role || by_pod())
    }
}

/// Whether a pod on the node runs an image of the repository.
fn a_pod_names(snapshot: &Snapshot, node: &str, repository: &str) -> bool {
    // Almost always the first pod of the node that has the text in it is one that names the image.
    let text = format!("{CLUSTER_REGISTRY}/{repository}");
    let pods = KeyRange::resource("", "pods");
    let own = snapshot.range(&pods, None);
    let own = own.filter(|pod| pod.fields.get("spec.nodeName") == Some(node));
    own.filter(|pod| std::str::from_utf8(&pod.bytes).is_ok_and(|json| json.contains(&text)))
        .filter_map(|pod| serde_json::from_slice(&pod.bytes).ok())
        .any(|pod: Value| images(&pod).any(|image| is_of(image, repository)))
}

/// The images of a pod's containers and volumes.
fn images(pod: &Value) -> impl Iterator<Item = &str> {
    const LISTS: [(&str, &str); 4] = [
        ("/spec/containers", "/image"),
        ("/spec/initContainers", "/image"),
        ("/spec/ephemeralContainers", "/image"),
        ("/spec/volumes", "/image/reference"),
    ];
    LISTS.iter().flat_map(move |(list, image)| {
        let items = pod.pointer(list).and_then(Value::as_array);
        let items = items.into_iter().flatten();
        items.filter_map(move |item| item.pointer(image)?.as_str())
    })
}

fn is_of(image: &str, repository: &str) -> bool {
    let parsed = image.parse::<Reference>();
    parsed.is_ok_and(|image| image.is_cluster_registry() && image.repository() == repository)
}

fn known(extensions: &http::Extensions) -> Result<&UserInfo, Denied> {
    let user = extensions.get::<UserInfo>();
    let user = user.filter(|user| !user.is_in(UNAUTHENTICATED));
    user.ok_or(Denied::Unauthenticated)
}

#[async_trait]
impl Authorize for Allow {
    async fn enter(&self, extensions: &http::Extensions) -> Result<(), Denied> {
        known(extensions).map(drop)
    }

    async fn authorize(
        &self,
        extensions: &http::Extensions,
        repository: &str,
        access: Access,
    ) -> Result<(), Denied> {
        let user = known(extensions)?;
        if user.is_in(MASTERS) {
            return Ok(());
        }
        match self.by_role(user, repository, access).await {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "ask the roles about an image"),
        }
        let verb = match access {
            Access::Pull => "pull",
            Access::Push => "push to",
            Access::Delete => "delete from",
        };
        Err(Denied::Forbidden(format!(
            "user {:?} may not {verb} {repository}",
            user.name
        )))
    }
}

/// The registry over the images in `directory`.
///
/// # Errors
/// When the directory cannot be used.
pub(crate) async fn open(
    directory: &Path,
    registry: Arc<Registry>,
) -> Result<ImageRegistry, ContentError> {
    let store = ContentStore::open(directory).await?;
    let allow = Arc::new(Allow(registry));
    let policy = CollectionPolicy::default();
    Ok(ImageRegistry::new(store, allow, Limits::default(), policy))
}

/// Whether a path is the registry's.
pub(crate) fn serves(path: &str) -> bool {
    path == "/v2" || path.starts_with("/v2/")
}

/// What the server refuses in front of the registry, in the registry's form; `None` for what is no refusal.
pub(crate) fn refused(error: &ApiError) -> Option<Response> {
    let (status, code) = match error {
        ApiError::Unauthorized => (StatusCode::UNAUTHORIZED, "UNAUTHORIZED"),
        ApiError::TooManyRequests(_) => (StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS"),
        _ => return None,
    };
    Some(refusal(status, code, &error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_names_the_images_of_all_its_containers() {
        let image = |name: &str| format!("{CLUSTER_REGISTRY}/default/{name}:1");
        let pod = json!({"spec": {
            "containers": [{"image": image("a")}, {"image": "docker.io/default/other"}],
            "initContainers": [{"image": image("b")}],
            "ephemeralContainers": [{"image": image("c")}],
            "volumes": [{"image": {"reference": image("d")}}, {"emptyDir": {}}],
        }});
        let names = |repository: &str| images(&pod).any(|image| is_of(image, repository));
        for name in ["a", "b", "c", "d"] {
            assert!(names(&format!("default/{name}")), "{name}");
        }
        for other in ["default/other", "default/aa", "default", "kube-system/a"] {
            assert!(!names(other), "{other}");
        }
    }
}
