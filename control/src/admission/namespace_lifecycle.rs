//! Objects live in namespaces that exist and are not going away; system namespaces stay.

use serde_json::Value;

use super::{Admission, Attributes};
use crate::registry::error::{ApiError, Target};
use crate::store::ObjectKey;

/// Namespaces that cannot be deleted.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

pub(super) struct NamespaceLifecycle;

impl Admission for NamespaceLifecycle {
    fn admit(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), ApiError> {
        let call = attributes.call;
        if object.is_null() {
            return refuse_immortal(attributes, object);
        }
        if attributes.old.is_some() || !call.served.kind.info.namespaced {
            return Ok(());
        }
        let key = ObjectKey::new("", "namespaces", "", call.namespace);
        let Some(namespace) = attributes.snapshot.get(&key) else {
            return Err(ApiError::NotFound(Target {
                resource: "namespaces".into(),
                kind: "Namespace".into(),
                name: call.namespace.into(),
                ..Target::default()
            }));
        };
        if namespace.fields.get("status.phase") != Some("Terminating") {
            return Ok(());
        }
        let target = call.target_of(crate::registry::object_meta::name(object));
        Err(ApiError::Forbidden {
            target,
            reason: format!(
                "unable to create new content in namespace {} because it is being terminated",
                call.namespace
            ),
            cause: Some("NamespaceTerminating"),
        })
    }
}

fn refuse_immortal(attributes: &Attributes<'_>, object: &Value) -> Result<(), ApiError> {
    let call = attributes.call;
    if call.served.kind.info.gvk.kind == "Namespace" && IMMORTAL.contains(&call.name) {
        return Err(attributes.forbidden(object, "this namespace may not be deleted"));
    }
    Ok(())
}
