//! What namespaces let components have: a pod asks for no more than its namespace grants, and says what it gets.
//!
//! The namespace says so by annotations (`windlass_api::grants`), which whoever may write the Namespace sets, and by its
//! PodSecurity level: in one that enforces `restricted`, components connect inside the cluster, import nothing of a host
//! program and serve one request per instance, unless the annotations of the namespace grant more. A pod that asks for nothing gets that, as annotations of
//! its own, so that everybody sees it. They stay as they are: the node goes by them.

use serde_json::{Value, json};
use windlass_api::grants::{ANNOTATIONS, EGRESS, Egress, Grants, INTERFACES, Interfaces};

use super::{Admission, Attributes};
use crate::registry::error::ApiError;
use crate::registry::object_meta as meta;
use crate::registry::parse;
use crate::store::ObjectKey;

pub(super) struct WasmGrants;

/// Label of a namespace: the level it enforces.
const ENFORCE: &str = "pod-security.kubernetes.io/enforce";

impl Admission for WasmGrants {
    fn admit(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), ApiError> {
        match (attributes.kind(), attributes.old) {
            _ if object.is_null() => Ok(()),
            ("Namespace", _) => read(attributes, object).map(drop),
            ("Pod", None) => grant(attributes, object),
            ("Pod", Some(old)) => stay(attributes, old, object),
            _ => Ok(()),
        }
    }
}

fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    meta::get(object, "annotations")?.get(key)?.as_str()
}

fn read(attributes: &Attributes<'_>, object: &Value) -> Result<Grants, ApiError> {
    let read = Grants::read(|key| annotation(object, key));
    read.map_err(|error| attributes.forbidden(object, error.to_string()))
}

fn grant(attributes: &Attributes<'_>, pod: &mut Value) -> Result<(), ApiError> {
    let asked = read(attributes, pod)?;
    let most = granted_by(attributes)?;
    if let Some(beyond) = asked.beyond(&most) {
        let reason = format!(
            "annotation {} asks for {:?}, namespace {:?} grants {:?}",
            beyond.key, beyond.asked, attributes.call.namespace, beyond.most
        );
        return Err(attributes.forbidden(pod, reason));
    }
    let interfaces = most.interfaces.filter(|_| asked.interfaces.is_none());
    let egress = most.egress.filter(|_| asked.egress.is_none());
    let said = [
        (INTERFACES, interfaces.map(|of| of.to_string())),
        (EGRESS, egress.map(|of| of.name().to_owned())),
    ];
    for (key, value) in said {
        if let Some(value) = value {
            let annotations = meta::metadata_mut(pod)
                .entry("annotations")
                .or_insert_with(|| json!({}));
            if let Some(annotations) = annotations.as_object_mut() {
                annotations.insert(key.into(), value.into());
            }
        }
    }
    Ok(())
}

/// The most that pods of the namespace get.
fn granted_by(attributes: &Attributes<'_>) -> Result<Grants, ApiError> {
    let key = ObjectKey::new("", "namespaces", "", attributes.call.namespace);
    let Some(entry) = attributes.snapshot.get(&key) else {
        return Ok(Grants::default());
    };
    let namespace = parse(entry)?;
    // What cannot be understood was refused; what is there from before that grants nothing.
    let mut most = read(attributes, &namespace)?;
    if entry.labels.get(ENFORCE) == Some("restricted") {
        most.host_interfaces.get_or_insert(Interfaces::NONE);
        most.egress.get_or_insert(Egress::Cluster);
        most.requests_per_instance.get_or_insert(1);
    }
    Ok(most)
}

fn stay(attributes: &Attributes<'_>, old: &Value, pod: &Value) -> Result<(), ApiError> {
    let changed = ANNOTATIONS
        .iter()
        .find(|key| annotation(old, key) != annotation(pod, key));
    match changed {
        None => Ok(()),
        Some(key) => {
            let reason = format!("annotation {key} says what was granted, and cannot change");
            Err(attributes.forbidden(pod, reason))
        }
    }
}
