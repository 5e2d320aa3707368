//! The image registry inside the cluster: the `oci` crate's, under the API's authentication and roles.
//!
//! To pull is `get` and to push is `create` on `images` of group `registry.windlass.dev`: of the namespace that the
//! repository's name begins with, and called like the rest of it. Node agents pull everything.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use windlass_oci::content_store::{ContentError, ContentStore};
use windlass_oci::registry::server::{Access, Authorize, Denied, Limits, router};

use crate::identity::{MASTERS, NODES, UNAUTHENTICATED, UserInfo};
use crate::rbac::Action;
use crate::registry::Registry;
use crate::registry::error::ApiError;
use crate::store::Freshness;

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
            },
            group: GROUP,
            resource: "images",
            name,
            ..Action::default()
        };
        let snapshot = self.0.store().snapshot(Freshness::Latest).await?;
        let rbac = self.0.rbac().await?;
        Ok(rbac.allows(&snapshot, user, namespace, &action))
    }
}

#[async_trait]
impl Authorize for Allow {
    async fn authorize(
        &self,
        extensions: &http::Extensions,
        repository: &str,
        access: Access,
    ) -> Result<(), Denied> {
        let user = extensions
            .get::<UserInfo>()
            .ok_or(Denied::Unauthenticated)?;
        if user.is_in(UNAUTHENTICATED) {
            return Err(Denied::Unauthenticated);
        }
        if user.is_in(MASTERS) || (access == Access::Pull && user.is_in(NODES)) {
            return Ok(());
        }
        match self.by_role(user, repository, access).await {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "ask the roles about an image"),
        }
        let verb = match access {
            Access::Pull => "pull",
            Access::Push => "push",
        };
        Err(Denied::Forbidden(format!(
            "user {:?} may not {verb} {repository}",
            user.name
        )))
    }
}

/// The registry's routes over the images in `directory`.
///
/// # Errors
/// When the directory cannot be used.
pub(crate) async fn routes(
    directory: &Path,
    registry: Arc<Registry>,
) -> Result<Router, ContentError> {
    let store = ContentStore::open(directory).await?;
    Ok(router(store, Arc::new(Allow(registry)), Limits::default()))
}
