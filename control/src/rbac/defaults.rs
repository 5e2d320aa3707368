//! The roles and bindings every cluster has, from the table `default_roles.tsv`.
//!
//! Differs from Kubernetes: roles of components that Windlass has fixed lists for, or does not have, are left
//! out.

use std::collections::BTreeMap;

use serde_json::{Value, json};

const ROLES: &str = include_str!("default_roles.tsv");
const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "delete", "deletecollection", "patch", "update"];

/// The role that upstream's metrics server brings along; whoever may look at pods may look at what they use.
const METRICS_READER: &str = "system:aggregated-metrics-reader";

/// ClusterRoles that collect the rules of others: name, the label they collect by, the one they are
/// collected by in turn.
const COLLECTING: [(&str, &str, Option<&str>); 3] = [
    ("admin", "aggregate-to-admin", None),
    ("edit", "aggregate-to-edit", Some("aggregate-to-admin")),
    ("view", "aggregate-to-view", Some("aggregate-to-edit")),
];

/// ClusterRoles and the groups, or else the user, they are bound to.
const BINDINGS: [(&str, &str, &[&str]); 6] = [
    ("cluster-admin", "Group", &["system:masters"]),
    ("system:monitoring", "Group", &["system:monitoring"]),
    ("system:discovery", "Group", &["system:authenticated"]),
    ("system:basic-user", "Group", &["system:authenticated"]),
    (
        "system:public-info-viewer",
        "Group",
        &["system:authenticated", "system:unauthenticated"],
    ),
    (
        "system:controller:clusterrole-aggregation-controller",
        "ServiceAccount",
        &["clusterrole-aggregation-controller"],
    ),
];

/// The ClusterRoles.
pub(crate) fn roles() -> Vec<Value> {
    let mut rules: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for row in ROLES.lines().filter(|row| !row.starts_with('#')) {
        let mut columns = row.split('\t');
        let mut column = || columns.next().unwrap_or_default();
        let (role, verbs, groups, what) = (column(), column(), column(), column());
        let verbs: Vec<&str> = verbs.split(' ').flat_map(expand).collect();
        let what: Vec<&str> = what.split(' ').collect();
        let rule = match groups {
            "-" => json!({ "verbs": verbs, "nonResourceURLs": what }),
            group => {
                let group = if group == "core" { "" } else { group };
                json!({ "verbs": verbs, "apiGroups": [group], "resources": what })
            }
        };
        rules.entry(role).or_default().push(rule);
    }
    let stated = rules.into_iter().map(|(name, rules)| {
        let label = match name {
            METRICS_READER => Some("aggregate-to-view"),
            _ => name.strip_prefix("system:"),
        };
        let label = label.filter(|label| label.starts_with("aggregate-to-"));
        let mut role = named("ClusterRole", name, label);
        merge(&mut role, json!({ "rules": rules }));
        role
    });
    let collecting = COLLECTING.iter().map(|(name, by, label)| {
        let mut role = named("ClusterRole", name, *label);
        let selector = json!({ "matchLabels": { labelled(by): "true" } });
        merge(
            &mut role,
            json!({ "aggregationRule": { "clusterRoleSelectors": [selector] } }),
        );
        role
    });
    stated.chain(collecting).collect()
}

/// The ClusterRoleBindings.
pub(crate) fn bindings() -> Vec<Value> {
    let binding = |(role, kind, subjects): &(&str, &str, &[&str])| {
        let subject = |name: &&str| match *kind {
            "ServiceAccount" => json!({ "kind": kind, "name": name, "namespace": "kube-system" }),
            _ => json!({ "apiGroup": super::GROUP, "kind": kind, "name": name }),
        };
        let mut binding = named("ClusterRoleBinding", role, None);
        let of = json!({
            "roleRef": { "apiGroup": super::GROUP, "kind": "ClusterRole", "name": role },
            "subjects": subjects.iter().map(subject).collect::<Vec<_>>(),
        });
        merge(&mut binding, of);
        binding
    };
    BINDINGS.iter().map(binding).collect()
}

fn expand(verb: &str) -> impl Iterator<Item = &str> {
    let verbs: &[&str] = match verb {
        "read" => READ,
        "write" => WRITE,
        _ => &[],
    };
    let itself = verbs.is_empty().then_some(verb);
    verbs.iter().copied().chain(itself)
}

fn labelled(label: &str) -> String {
    format!("{}/{label}", super::GROUP)
}

fn named(kind: &str, name: &str, label: Option<&str>) -> Value {
    let mut labels = json!({ "kubernetes.io/bootstrapping": "rbac-defaults" });
    if let Some(label) = label {
        merge(&mut labels, json!({ labelled(label): "true" }));
    }
    json!({
        "apiVersion": format!("{}/v1", super::GROUP), "kind": kind,
        "metadata": {
            "name": name, "labels": labels,
            "annotations": { "rbac.authorization.kubernetes.io/autoupdate": "true" },
        },
    })
}

fn merge(object: &mut Value, members: Value) {
    if let (Value::Object(object), Value::Object(members)) = (object, members) {
        object.extend(members);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_makes_roles_with_whole_rules() {
        let roles = roles();
        let names: Vec<_> = roles
            .iter()
            .map(|role| role["metadata"]["name"].as_str().unwrap())
            .collect();
        for name in ["cluster-admin", "admin", "edit", "view", "system:discovery"] {
            assert!(names.contains(&name), "{name}");
        }
        for rule in roles
            .iter()
            .flat_map(|role| role["rules"].as_array().into_iter().flatten())
        {
            let filled = |field: &str| rule[field].as_array().is_some_and(|of| !of.is_empty());
            let whole = filled("nonResourceURLs") || (filled("apiGroups") && filled("resources"));
            assert!(filled("verbs") && whole, "{rule}");
        }
        let edit = roles
            .iter()
            .find(|role| role["metadata"]["name"] == "edit")
            .unwrap();
        assert_eq!(
            edit["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-admin"],
            "true"
        );
    }

    #[test]
    fn every_binding_is_to_a_role_there_is() {
        let roles: Vec<_> = roles()
            .iter()
            .map(|role| role["metadata"]["name"].clone())
            .collect();
        for binding in bindings() {
            assert!(roles.contains(&binding["roleRef"]["name"]), "{binding}");
        }
    }
}
