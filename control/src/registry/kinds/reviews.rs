//! Kinds that are answers: reviews of identities and access, Binding and ComponentStatus. They are
//! computed (`server/verbs/computed`) and never stored.

use jiff::Timestamp;
use serde_json::Value;
use windlass_api::resource::GroupVersionKind;

use super::text;
use crate::registry::object_meta as meta;
use crate::registry::strategy::{Column, Kind, NAME, Strategy};

struct Review;
struct Status;

const CREATE: &[&str] = &["create"];

fn review(group: &'static str, kind: &'static str, plural: &'static str) -> Kind {
    let gvk = GroupVersionKind::of(group, "v1", kind);
    Kind::cluster(gvk, plural, &Review).computed(CREATE)
}

/// The row of Binding.
pub(super) fn binding() -> Kind {
    let gvk = GroupVersionKind::of("", "v1", "Binding");
    Kind::namespaced(gvk, "bindings", &Review).computed(CREATE)
}

/// The row of ComponentStatus.
pub(super) fn component_status() -> Kind {
    let gvk = GroupVersionKind::of("", "v1", "ComponentStatus");
    Kind::cluster(gvk, "componentstatuses", &Status)
        .short_names(&["cs"])
        .computed(&["get", "list"])
}

/// The row of SelfSubjectReview.
pub(super) fn self_subject_review() -> Kind {
    review(
        "authentication.k8s.io",
        "SelfSubjectReview",
        "selfsubjectreviews",
    )
}

/// The row of TokenReview.
pub(super) fn token_review() -> Kind {
    review("authentication.k8s.io", "TokenReview", "tokenreviews")
}

/// The row of LocalSubjectAccessReview.
pub(super) fn local_subject_access_review() -> Kind {
    let gvk = GroupVersionKind::of("authorization.k8s.io", "v1", "LocalSubjectAccessReview");
    Kind::namespaced(gvk, "localsubjectaccessreviews", &Review).computed(CREATE)
}

/// The row of SelfSubjectAccessReview.
pub(super) fn self_subject_access_review() -> Kind {
    review(
        "authorization.k8s.io",
        "SelfSubjectAccessReview",
        "selfsubjectaccessreviews",
    )
}

/// The row of SelfSubjectRulesReview.
pub(super) fn self_subject_rules_review() -> Kind {
    review(
        "authorization.k8s.io",
        "SelfSubjectRulesReview",
        "selfsubjectrulesreviews",
    )
}

/// The row of SubjectAccessReview.
pub(super) fn subject_access_review() -> Kind {
    review(
        "authorization.k8s.io",
        "SubjectAccessReview",
        "subjectaccessreviews",
    )
}

impl Strategy for Review {}

const COLUMNS: &[Column] = &[
    NAME,
    Column::new("Status", "string", "Whether the component is well."),
    Column::new("Message", "string", "What it says."),
    Column::new("Error", "string", "What is wrong with it."),
];

impl Strategy for Status {
    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, _: Timestamp) -> Vec<Value> {
        let status = match text(object, "/conditions/0/status") {
            "True" => "Healthy",
            "False" => "Unhealthy",
            _ => "Unknown",
        };
        vec![
            meta::name(object).into(),
            status.into(),
            text(object, "/conditions/0/message").into(),
            text(object, "/conditions/0/error").into(),
        ]
    }
}
