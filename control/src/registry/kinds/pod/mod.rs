//! Pod.
//!
//! A pod's spec hardly ever changes (`update.rs`), but for two subresources that change a part of it
//! each (`subresources.rs`). A deletion waits for the grace period: the node agent stops the containers and
//! then deletes the pod with a grace period of zero. A pod that no node has taken, or whose containers have
//! all ended, goes at once.

mod status;
mod subresources;
mod table;
mod update;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PodSpec;
use serde::Deserialize;
use serde_json::{Value, json};
use windlass_api::pod_resources::{QosClass, qos_class};
use windlass_api::resource::GroupVersionKind;
use windlass_api::time::format_seconds;

use super::field::{Errors, Field};
use super::pod_spec::{self, Owner};
use super::{integer, items, text, workload};
use crate::identity::UserInfo;
use crate::registry::field_error::FieldError;
use crate::registry::object_meta as meta;
use crate::registry::strategy::{Column, Endpoint, Kind, PROXY_VERBS, Strategy};

struct Pod;

/// The row of the table.
pub(super) fn kind() -> Kind {
    let gvk = |name| GroupVersionKind::of("", "v1", name);
    Kind::namespaced(gvk("Pod"), "pods", &Pod)
        .short_names(&["po"])
        .categories(&["all"])
        .subresource("attach", gvk("PodAttachOptions"), &["create", "get"])
        .subresource("binding", gvk("Binding"), &["create"])
        .subresource(EPHEMERAL, gvk("Pod"), &["get", "patch", "update"])
        .subresource(
            "eviction",
            GroupVersionKind::of("policy", "v1", "Eviction"),
            &["create"],
        )
        .subresource("exec", gvk("PodExecOptions"), &["create", "get"])
        .subresource("log", gvk("Pod"), &["get"])
        .subresource(
            "portforward",
            gvk("PodPortForwardOptions"),
            &["create", "get"],
        )
        .subresource("proxy", gvk("PodProxyOptions"), PROXY_VERBS)
        .subresource(RESIZE, gvk("Pod"), &["get", "patch", "update"])
}

const EPHEMERAL: &str = "ephemeralcontainers";
const RESIZE: &str = "resize";

/// Marks the shadow of a pod that a node runs from a file.
/// Annotation of a pod that stands for one its node runs anyway.
pub(crate) const MIRROR: &str = "kubernetes.io/config.mirror";

/// Whether the pod stands for one that its node runs anyway.
pub(crate) fn is_mirror(pod: &Value) -> bool {
    meta::get(pod, "annotations").is_some_and(|annotations| annotations.get(MIRROR).is_some())
}
/// Which pod a ReplicaSet gives up first.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

impl Strategy for Pod {
    fn set_defaults(&self, object: &mut Value) {
        let spec = meta::member_mut(object, "spec");
        pod_spec::set_pod_defaults(spec);
    }

    fn prepare_for_create(&self, object: &mut Value, _: &UserInfo) {
        let mut status = json!({"phase": "Pending", "qosClass": qos(object).as_str()});
        if !items(object, "/spec/schedulingGates").is_empty() {
            let condition = json!({
                "type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
                "lastProbeTime": null,
                "lastTransitionTime": format_seconds(Timestamp::now()),
            });
            if let Some(status) = status.as_object_mut() {
                status.insert("conditions".into(), vec![condition].into());
            }
        }
        if let Some(object) = object.as_object_mut() {
            object.insert("status".into(), status);
        }
    }

    fn prepare_for_update(&self, old: &Value, new: &mut Value, endpoint: Endpoint) {
        match endpoint {
            Endpoint::Named(EPHEMERAL) => subresources::keep_ephemeral(old, new),
            Endpoint::Named(RESIZE) => subresources::keep_resources(old, new),
            _ => {}
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let root = Field::root("", object);
        validate_annotations(&root, &mut errors);
        let spec = root.child("spec");
        pod_spec::validate(&spec, Owner::Pod(meta::name(object)), &mut errors);
        validate_token_volumes(&spec, &mut errors);
        errors
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let root = Field::root("", object);
        let spec = root.child("spec");
        let mut errors = Errors::new();
        let ephemeral = spec.child("ephemeralContainers");
        if ephemeral.len() > 0 {
            errors.push(ephemeral.forbidden("cannot be set on create"));
        }
        let node = spec.child("nodeName");
        if !node.text().is_empty() && spec.child("schedulingGates").len() > 0 {
            let detail = "cannot be set until all schedulingGates have been cleared";
            errors.push(node.forbidden(detail));
        }
        errors
    }

    fn validate_update(&self, old: &Value, new: &Value, endpoint: Endpoint) -> Vec<FieldError> {
        let mut errors = Errors::new();
        match endpoint {
            Endpoint::Main => {
                validate_mirror(old, new, &mut errors);
                update::validate(old, new, &mut errors);
            }
            Endpoint::Status => {
                validate_mirror(old, new, &mut errors);
                status::validate(old, new, &mut errors);
            }
            Endpoint::Named(EPHEMERAL) => subresources::validate_ephemeral(old, new, &mut errors),
            Endpoint::Named(RESIZE) => subresources::validate_resize(old, new, &mut errors),
            // A binding changes what nothing else may.
            Endpoint::Named(_) => {}
        }
        errors
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        let name = workload::name_warning(object, "the Pod's hostname");
        let spec = pod_spec::warnings(&Field::root("", object));
        name.into_iter().chain(spec).collect()
    }

    fn has_status(&self) -> bool {
        true
    }

    fn grace_period(&self, object: &Value, requested: Option<i64>) -> i64 {
        let phase = text(object, "/status/phase");
        let unbound = text(object, "/spec/nodeName").is_empty();
        if unbound || phase == "Succeeded" || phase == "Failed" {
            return 0;
        }
        let own = || integer(object, "/spec/terminationGracePeriodSeconds");
        match requested.unwrap_or_else(own) {
            ..0 => 1,
            seconds => seconds,
        }
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ]
    }

    fn selectable_field(&self, object: &Value, field: &str) -> String {
        match field {
            "spec.hostNetwork" => {
                (object.pointer("/spec/hostNetwork") == Some(&Value::Bool(true))).to_string()
            }
            "status.podIPs" => text(object, "/status/podIP").to_owned(),
            _ => text(object, &format!("/{}", field.replace('.', "/"))).to_owned(),
        }
    }

    fn columns(&self) -> &'static [Column] {
        table::COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::cells(object, now)
    }
}

/// The pod's class of service. A spec that does not decode is refused by the schema before it gets here.
fn qos(object: &Value) -> QosClass {
    let spec = object.get("spec");
    let spec = spec.and_then(|spec| PodSpec::deserialize(spec).ok());
    qos_class(&spec.unwrap_or_default())
}

fn validate_annotations(root: &Field<'_, '_>, errors: &mut Errors) {
    let metadata = root.child("metadata");
    let annotations = metadata.child("annotations");
    let mirror = annotations.key(MIRROR);
    if mirror.is_set() && root.child("spec").text_of("nodeName").is_empty() {
        let detail = "must set spec.nodeName if mirror pod annotation is set";
        errors.push(mirror.invalid(detail));
    }
    let cost = annotations.key(DELETION_COST);
    if cost.is_set() && cost.text().parse::<i32>().is_err() {
        errors.push(cost.invalid("must be a 32bit integer"));
    }
}

/// A token is somebody's.
fn validate_token_volumes(spec: &Field<'_, '_>, errors: &mut Errors) {
    if !spec.text_of("serviceAccountName").is_empty() {
        return;
    }
    for volume in spec.child("volumes").items() {
        let projected = volume.child("projected");
        for source in projected.child("sources").items() {
            let token = source.child("serviceAccountToken");
            if token.is_set() {
                let detail = "must not be specified when serviceAccountName is not set";
                errors.push(token.forbidden(detail));
            }
        }
    }
}

/// A pod stays what it is: a mirror or none.
fn validate_mirror(old: &Value, new: &Value, errors: &mut Errors) {
    let mirror = |object: &Value| -> Option<Value> {
        meta::get(object, "annotations")?.get(MIRROR).cloned()
    };
    let detail = match (mirror(old), mirror(new)) {
        (before, after) if before == after => return,
        (None, _) => "may not add mirror pod annotation",
        _ => "may not remove or update mirror pod annotation",
    };
    let path = format!("metadata.annotations[{MIRROR}]");
    errors.push(FieldError::forbidden(path, detail));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_nobody_runs_goes_at_once() {
        let unbound = json!({"spec": {"terminationGracePeriodSeconds": 30}});
        let bound = json!({"spec": {"nodeName": "n", "terminationGracePeriodSeconds": 30}});
        let hasty = json!({"spec": {"nodeName": "n", "terminationGracePeriodSeconds": -3}});
        assert_eq!(Pod.grace_period(&unbound, None), 0);
        assert_eq!(Pod.grace_period(&bound, None), 30);
        assert_eq!(Pod.grace_period(&bound, Some(5)), 5);
        assert_eq!(Pod.grace_period(&hasty, None), 1);
    }

    #[test]
    fn a_gated_pod_says_why_it_waits() {
        let mut pod = json!({"metadata": {}, "spec": {"schedulingGates": [{"name": "a/b"}]}});
        Pod.prepare_for_create(&mut pod, &UserInfo::default());
        assert_eq!(pod["status"]["conditions"][0]["reason"], "SchedulingGated");
    }
}
