//! Every pod runs as a ServiceAccount of its namespace that exists.
//!
//! Differs from Kubernetes: no token volume is mounted unless the pod asks for one; a component gets
//! what it was granted and nothing by default.

use serde_json::Value;

use super::{Admission, Attributes};
use crate::registry::error::ApiError;
use crate::registry::object_meta as meta;
use crate::store::ObjectKey;

const MIRROR: &str = "kubernetes.io/config.mirror";

pub(super) struct ServiceAccount;

impl Admission for ServiceAccount {
    fn admit(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), ApiError> {
        if !attributes.creates("Pod") || is_mirror(object) {
            return Ok(());
        }
        let spec = meta::member_mut(object, "spec");
        let account = spec
            .get("serviceAccountName")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let account = if account.is_empty() {
            "default"
        } else {
            account
        }
        .to_owned();
        spec.insert("serviceAccountName".into(), account.clone().into());
        spec.insert("serviceAccount".into(), account.clone().into());
        let namespace = attributes.call.namespace;
        let key = ObjectKey::new("", "serviceaccounts", namespace, &account);
        if attributes.snapshot.get(&key).is_some() {
            return Ok(());
        }
        let target = attributes.call.target_of(meta::name(object));
        Err(ApiError::Forbidden {
            target,
            reason: format!(
                "error looking up service account {namespace}/{account}: serviceaccount {account:?} not found"
            ),
            cause: None,
        })
    }
}

fn is_mirror(object: &Value) -> bool {
    meta::get(object, "annotations").is_some_and(|annotations| annotations.get(MIRROR).is_some())
}
