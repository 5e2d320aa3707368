//! Nobody grants what they do not have: neither by writing a role nor by binding one.
//!
//! Free to do so are `system:masters`, who has the verb `escalate` on the role or `bind` on the role bound,
//! and who changes neither rules nor subjects, such as the garbage collector.

use serde_json::Value;

use super::{Admission, Attributes};
use crate::identity::{MASTERS, UserInfo};
use crate::rbac::{Action, GROUP, Rbac, Rule};
use crate::registry::error::{ApiError, Target};
use crate::registry::kinds::text;

pub(super) struct RbacEscalation;

impl Admission for RbacEscalation {
    fn admit(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), ApiError> {
        let info = &attributes.call.served.kind.info;
        let user = &attributes.call.options.user;
        if info.gvk.group != GROUP || object.is_null() || user.is_in(MASTERS) {
            return Ok(());
        }
        let changed = |field: &str| {
            attributes
                .old
                .is_none_or(|old| old.get(field) != object.get(field))
        };
        let rbac = attributes
            .rbac
            .ok_or_else(|| ApiError::Internal("roles are not known yet".into()))?;
        match &*info.gvk.kind {
            "Role" | "ClusterRole" if changed("rules") || changed("aggregationRule") => {
                role(attributes, rbac, object)
            }
            "RoleBinding" | "ClusterRoleBinding" if changed("roleRef") || changed("subjects") => {
                binding(attributes, rbac, object)
            }
            _ => Ok(()),
        }
    }
}

/// A role may not say more than its writer may do, and only who may do everything has rules collected.
fn role(attributes: &Attributes<'_>, rbac: &Rbac, role: &Value) -> Result<(), ApiError> {
    let call = attributes.call;
    let name = text(role, "/metadata/name");
    if may(
        attributes,
        rbac,
        "escalate",
        &call.served.kind.info.plural,
        name,
        call.namespace,
    ) {
        return Ok(());
    }
    let rules = role.get("rules").and_then(Value::as_array);
    let mut rules: Vec<_> = rules.into_iter().flatten().map(Rule::of).collect();
    if role
        .get("aggregationRule")
        .is_some_and(|rule| !rule.is_null())
    {
        rules.extend(everything());
    }
    let missing = rbac.missing(
        attributes.snapshot,
        &call.options.user,
        call.namespace,
        &rules,
    );
    refuse(attributes, name, &missing)
}

/// A binding may not give more than its writer may do.
fn binding(attributes: &Attributes<'_>, rbac: &Rbac, binding: &Value) -> Result<(), ApiError> {
    let call = attributes.call;
    let (plural, scope) = match text(binding, "/roleRef/kind") {
        "ClusterRole" => ("clusterroles", ""),
        _ => ("roles", call.namespace),
    };
    let bound = text(binding, "/roleRef/name");
    if may(attributes, rbac, "bind", plural, bound, call.namespace) {
        return Ok(());
    }
    let rules = rbac
        .role(attributes.snapshot, scope, bound)
        .ok_or_else(|| {
            ApiError::NotFound(Target {
                group: GROUP.to_owned(),
                resource: plural.to_owned(),
                kind: String::new(),
                name: bound.to_owned(),
            })
        })?;
    let missing = rbac.missing(
        attributes.snapshot,
        &call.options.user,
        call.namespace,
        &rules,
    );
    refuse(attributes, text(binding, "/metadata/name"), &missing)
}

fn may(
    attributes: &Attributes<'_>,
    rbac: &Rbac,
    verb: &str,
    plural: &str,
    name: &str,
    namespace: &str,
) -> bool {
    let action = Action {
        verb,
        group: GROUP,
        resource: plural,
        name,
        ..Action::default()
    };
    rbac.allows(
        attributes.snapshot,
        &attributes.call.options.user,
        namespace,
        &action,
    )
}

fn everything() -> [Rule; 2] {
    let all = serde_json::json!(["*"]);
    [
        serde_json::json!({ "verbs": all, "apiGroups": all, "resources": all }),
        serde_json::json!({ "verbs": all, "nonResourceURLs": all }),
    ]
    .map(|rule| Rule::of(&rule))
}

fn refuse(attributes: &Attributes<'_>, name: &str, missing: &[Rule]) -> Result<(), ApiError> {
    if missing.is_empty() {
        return Ok(());
    }
    let UserInfo {
        name: user, groups, ..
    } = &attributes.call.options.user;
    let groups: Vec<_> = groups.iter().map(|group| format!("{group:?}")).collect();
    let rules: Vec<_> = missing.iter().map(Rule::to_string).collect();
    let info = &attributes.call.served.kind.info;
    Err(ApiError::Forbidden {
        target: Target {
            group: GROUP.to_owned(),
            resource: info.plural.to_string(),
            kind: info.gvk.kind.to_string(),
            name: name.to_owned(),
        },
        reason: format!(
            "user {user:?} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
            groups.join(" "),
            rules.join("\n")
        ),
        cause: None,
    })
}
