//! The image registry inside the cluster: the `oci` crate's, under the API's authentication.
//!
//! Until RBAC is whole, administrators push and pull, and node agents pull.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use windlass_oci::content_store::{ContentError, ContentStore};
use windlass_oci::registry::server::{Access, Authorize, Denied, Limits, router};

use crate::identity::{MASTERS, NODES, UNAUTHENTICATED, UserInfo};

struct Allow;

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
pub(crate) async fn routes(directory: &Path) -> Result<Router, ContentError> {
    let store = ContentStore::open(directory).await?;
    Ok(router(store, Arc::new(Allow), Limits::default()))
}
