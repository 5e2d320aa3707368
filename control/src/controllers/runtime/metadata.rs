//! Reading metadata: what the wire leaves out counts as empty.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

static NO_LABELS: BTreeMap<String, String> = BTreeMap::new();

/// Questions asked of an object's metadata.
pub trait Metadata {
    /// Its uid.
    fn uid(&self) -> &str;
    /// Its name.
    fn name(&self) -> &str;
    /// Its namespace.
    fn namespace(&self) -> &str;
    /// Its resource version.
    fn version(&self) -> &str;
    /// Its labels.
    fn labels(&self) -> &BTreeMap<String, String>;
    /// Its annotations.
    fn annotations(&self) -> &BTreeMap<String, String>;
    /// One annotation, empty if absent.
    fn annotation(&self, key: &str) -> &str;
    /// Everything that owns it.
    fn owners(&self) -> &[OwnerReference];
    /// The owner that manages it.
    fn controller(&self) -> Option<&OwnerReference>;
    /// Whether its deletion has begun.
    fn is_terminating(&self) -> bool;
    /// When it was made.
    fn created(&self) -> Timestamp;
    /// Whether it has the finalizer.
    fn has_finalizer(&self, finalizer: &str) -> bool;
}

impl Metadata for ObjectMeta {
    fn uid(&self) -> &str {
        self.uid.as_deref().unwrap_or_default()
    }

    fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or_default()
    }

    fn version(&self) -> &str {
        self.resource_version.as_deref().unwrap_or_default()
    }

    fn labels(&self) -> &BTreeMap<String, String> {
        self.labels.as_ref().unwrap_or(&NO_LABELS)
    }

    fn annotations(&self) -> &BTreeMap<String, String> {
        self.annotations.as_ref().unwrap_or(&NO_LABELS)
    }

    fn annotation(&self, key: &str) -> &str {
        self.annotations()
            .get(key)
            .map(String::as_str)
            .unwrap_or_default()
    }

    fn owners(&self) -> &[OwnerReference] {
        self.owner_references.as_deref().unwrap_or_default()
    }

    fn controller(&self) -> Option<&OwnerReference> {
        self.owners()
            .iter()
            .find(|owner| owner.controller == Some(true))
    }

    fn is_terminating(&self) -> bool {
        self.deletion_timestamp.is_some()
    }

    fn created(&self) -> Timestamp {
        self.creation_timestamp
            .as_ref()
            .map_or(Timestamp::UNIX_EPOCH, |time| time.0)
    }

    fn has_finalizer(&self, finalizer: &str) -> bool {
        self.finalizers
            .iter()
            .flatten()
            .any(|known| known == finalizer)
    }
}

/// A reference by which `owner` manages an object.
#[must_use]
pub fn controller_reference(api_version: &str, kind: &str, owner: &ObjectMeta) -> OwnerReference {
    OwnerReference {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        name: owner.name().to_owned(),
        uid: owner.uid().to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}
