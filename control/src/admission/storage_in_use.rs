//! `StorageObjectInUseProtection`: claims and volumes go only once nobody uses them any more. The controllers of
//! `controllers/storage_protection.rs` say when that is.

use serde_json::Value;

use super::{Admission, Attributes};
use crate::registry::error::ApiError;
use crate::registry::object_meta as meta;

pub(super) struct StorageInUse;

/// What is protected, and the finalizer that does it.
pub(crate) const CLAIM: (&str, &str) = ("PersistentVolumeClaim", "kubernetes.io/pvc-protection");
/// See [`CLAIM`].
pub(crate) const VOLUME: (&str, &str) = ("PersistentVolume", "kubernetes.io/pv-protection");

impl Admission for StorageInUse {
    fn admit(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), ApiError> {
        for (kind, finalizer) in [CLAIM, VOLUME] {
            if attributes.creates(kind) {
                meta::add_finalizer(object, finalizer);
            }
        }
        Ok(())
    }
}
