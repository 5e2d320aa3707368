//! What kinds the API serves, for controllers that treat all alike.

use kube::api::ApiResource;
use kube::core::{DynamicObject, PartialObjectMeta};
use kube::discovery::{Discovery, Scope, verbs};
use kube::{Api, Client};

/// A kind that objects can be listed, watched and deleted of.
#[derive(Clone, Debug)]
pub struct Resource {
    /// Its names.
    pub api: ApiResource,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// Whether all of a namespace's objects can be deleted at once.
    pub deletes_collections: bool,
}

/// Metadata of an object of any kind.
pub type AnyMetadata = PartialObjectMeta<DynamicObject>;

impl Resource {
    /// Metadata of the objects in `namespace`, or of those without one.
    #[must_use]
    pub fn metadata(&self, client: &Client, namespace: &str) -> Api<AnyMetadata> {
        if self.namespaced {
            Api::namespaced_with(client.clone(), namespace, &self.api)
        } else {
            Api::all_with(client.clone(), &self.api)
        }
    }
}

/// Asks the API what can be listed, watched and deleted; each kind in its preferred version.
///
/// # Errors
/// When discovery fails.
pub async fn discover(client: &Client) -> Result<Vec<Resource>, kube::Error> {
    let discovery = Discovery::new(client.clone()).run_aggregated().await?;
    let mut resources = Vec::new();
    for group in discovery.groups() {
        for (api, capabilities) in group.recommended_resources() {
            let can = |verb| capabilities.supports_operation(verb);
            if can(verbs::LIST) && can(verbs::WATCH) && can(verbs::DELETE) {
                resources.push(Resource {
                    api,
                    namespaced: capabilities.scope == Scope::Namespaced,
                    deletes_collections: can(verbs::DELETE_COLLECTION),
                });
            }
        }
    }
    Ok(resources)
}
