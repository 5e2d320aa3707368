//! The roles and bindings every cluster has, from the table `default_roles.tsv`.
//!
//! Roles of components that Windlass does not have are there too: what people install binds some of them.

use std::collections::{BTreeMap, BTreeSet};

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

/// The same for what nodes tell of pods' components and flows.
const NODE_INFO_READER: &str = "system:aggregated-node-info-reader";

/// Whom a role is bound to.
#[derive(Clone, Copy)]
enum Subject<'a> {
    User(&'a str),
    Group(&'a str),
    /// A ServiceAccount of namespace kube-system.
    Account(&'a str),
}

use Subject::{Account, Group, User};

/// ClusterRoles and whom they are bound to, besides those of controllers.
const BINDINGS: &[(&str, &[Subject<'_>])] = &[
    ("cluster-admin", &[Group("system:masters")]),
    ("system:monitoring", &[Group("system:monitoring")]),
    ("system:discovery", &[Group("system:authenticated")]),
    ("system:basic-user", &[Group("system:authenticated")]),
    (
        "system:public-info-viewer",
        &[
            Group("system:authenticated"),
            Group("system:unauthenticated"),
        ],
    ),
    ("system:node-proxier", &[User("system:kube-proxy")]),
    (
        "system:kube-controller-manager",
        &[User("system:kube-controller-manager")],
    ),
    ("system:kube-dns", &[Account("kube-dns")]),
    ("system:kube-scheduler", &[User("system:kube-scheduler")]),
    ("system:volume-scheduler", &[User("system:kube-scheduler")]),
    (
        "system:service-account-issuer-discovery",
        &[Group("system:serviceaccounts")],
    ),
    // What a node may do is not a matter of roles.
    ("system:node", &[]),
];

/// Prefix of the ClusterRoles of controllers; the rest is the name of their ServiceAccount.
const OF_CONTROLLERS: &str = "system:controller:";

/// RoleBindings: namespace, name, Role, subjects.
const IN_NAMESPACES: &[(&str, &str, &str, &[Subject<'_>])] = &[
    (
        "kube-public",
        "system:controller:bootstrap-signer",
        "system:controller:bootstrap-signer",
        &[Account("bootstrap-signer")],
    ),
    (
        "kube-system",
        "system::extension-apiserver-authentication-reader",
        "extension-apiserver-authentication-reader",
        &[
            User("system:kube-controller-manager"),
            User("system:kube-scheduler"),
        ],
    ),
    (
        "kube-system",
        "system::leader-locking-kube-controller-manager",
        "system::leader-locking-kube-controller-manager",
        &[
            User("system:kube-controller-manager"),
            Account("kube-controller-manager"),
            Account("leader-election-controller"),
        ],
    ),
    (
        "kube-system",
        "system::leader-locking-kube-scheduler",
        "system::leader-locking-kube-scheduler",
        &[User("system:kube-scheduler"), Account("kube-scheduler")],
    ),
    (
        "kube-system",
        "system:controller:bootstrap-signer",
        "system:controller:bootstrap-signer",
        &[Account("bootstrap-signer")],
    ),
    (
        "kube-system",
        "system:controller:cloud-provider",
        "system:controller:cloud-provider",
        &[Account("cloud-provider")],
    ),
    (
        "kube-system",
        "system:controller:token-cleaner",
        "system:controller:token-cleaner",
        &[Account("token-cleaner")],
    ),
];

/// The ClusterRoles and Roles.
pub(crate) fn roles() -> Vec<Value> {
    let mut rules: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for row in ROLES.lines().filter(|row| !row.starts_with('#')) {
        let mut columns = row.split('\t');
        let mut column = || columns.next().unwrap_or_default();
        let (role, verbs, groups, what, names) = (column(), column(), column(), column(), column());
        let verbs: Vec<&str> = verbs.split(' ').flat_map(expand).collect();
        let what: Vec<&str> = what.split(' ').collect();
        let rule = match groups {
            "-" => json!({ "verbs": verbs, "nonResourceURLs": what }),
            groups => {
                let groups = groups.split(' ');
                let groups = groups.map(|of| if of == "core" { "" } else { of });
                let groups: Vec<&str> = groups.collect();
                let mut rule = json!({ "verbs": verbs, "apiGroups": groups, "resources": what });
                if !names.is_empty() {
                    let names: Vec<&str> = names.split(' ').collect();
                    merge(&mut rule, json!({ "resourceNames": names }));
                }
                rule
            }
        };
        rules.entry(role).or_default().push(rule);
    }
    let stated = rules.into_iter().map(|(name, rules)| {
        let label = match name {
            METRICS_READER | NODE_INFO_READER => Some("aggregate-to-view"),
            _ => name.strip_prefix("system:"),
        };
        let label = label.filter(|label| label.starts_with("aggregate-to-"));
        let mut role = match name.split_once('/') {
            Some((namespace, name)) => in_namespace(namespace, named("Role", name, label)),
            None => named("ClusterRole", name, label),
        };
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

/// The ClusterRoleBindings and RoleBindings.
pub(crate) fn bindings() -> Vec<Value> {
    let rows = ROLES.lines().filter(|row| row.starts_with(OF_CONTROLLERS));
    let controllers: BTreeSet<&str> = rows.filter_map(|row| row.split('\t').next()).collect();
    let of_controllers = controllers.into_iter().map(|role| {
        let account = role.strip_prefix(OF_CONTROLLERS).unwrap_or(role);
        cluster_binding(role, &[Account(account)])
    });
    let stated = BINDINGS
        .iter()
        .map(|(role, subjects)| cluster_binding(role, subjects));
    // Differs from Kubernetes: nodes get their serving certificates without anybody approving them.
    let approver = bound(
        named(
            "ClusterRoleBinding",
            "windlass:kubelet-serving-approver",
            None,
        ),
        "ClusterRole",
        "system:certificates.k8s.io:kubelet-serving-approver",
        &[Account("certificate-controller")],
    );
    let in_namespaces = IN_NAMESPACES
        .iter()
        .map(|(namespace, name, role, subjects)| {
            let binding = in_namespace(namespace, named("RoleBinding", name, None));
            bound(binding, "Role", role, subjects)
        });
    let everywhere = stated.chain(of_controllers).chain([approver]);
    everywhere.chain(in_namespaces).collect()
}

fn cluster_binding(role: &str, subjects: &[Subject<'_>]) -> Value {
    let binding = named("ClusterRoleBinding", role, None);
    bound(binding, "ClusterRole", role, subjects)
}

fn bound(mut binding: Value, kind: &str, role: &str, subjects: &[Subject<'_>]) -> Value {
    let subject = |subject: &Subject<'_>| match subject {
        User(name) => json!({ "apiGroup": super::GROUP, "kind": "User", "name": name }),
        Group(name) => json!({ "apiGroup": super::GROUP, "kind": "Group", "name": name }),
        Account(name) => {
            json!({ "kind": "ServiceAccount", "name": name, "namespace": "kube-system" })
        }
    };
    let of = json!({
        "roleRef": { "apiGroup": super::GROUP, "kind": kind, "name": role },
        "subjects": subjects.iter().map(subject).collect::<Vec<_>>(),
    });
    merge(&mut binding, of);
    binding
}

fn in_namespace(namespace: &str, mut object: Value) -> Value {
    if let Some(metadata) = object.get_mut("metadata") {
        merge(metadata, json!({ "namespace": namespace }));
    }
    object
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
    use crate::identity::UserInfo;
    use crate::rbac::Action;

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
        let place = |kind: &Value, object: &Value, name: &Value| {
            let namespace = &object["metadata"]["namespace"];
            (kind.clone(), namespace.clone(), name.clone())
        };
        let roles: Vec<_> = roles()
            .iter()
            .map(|role| place(&role["kind"], role, &role["metadata"]["name"]))
            .collect();
        for binding in bindings() {
            let role = &binding["roleRef"];
            let place = place(&role["kind"], &binding, &role["name"]);
            assert!(roles.contains(&place), "{binding}");
        }
    }

    /// Every role, bound to a user of its name, against every row of the table read anew: what is asked about is every
    /// verb, resource, subresource, path and name that any row mentions, and some that none does.
    #[test]
    fn roles_allow_what_their_rows_say_and_nothing_else() {
        let rows: Vec<Vec<&'static str>> = ROLES
            .lines()
            .filter(|row| !row.starts_with('#'))
            .map(|row| row.split('\t').collect())
            .collect();
        let words = |row: &[&'static str], column: usize| -> Vec<&'static str> {
            let cell = row.get(column).copied().unwrap_or_default();
            cell.split(' ').flat_map(expand).collect()
        };
        let pairs = |row: &[&'static str]| -> Vec<(&'static str, &'static str)> {
            let (groups, things) = (words(row, 2), words(row, 3));
            let of = |group: &&'static str| {
                let group = *group;
                things.clone().into_iter().map(move |thing| (group, thing))
            };
            groups.iter().flat_map(of).collect()
        };
        let of_all = |column| rows.iter().flat_map(move |row| words(row, column));
        let verbs: BTreeSet<_> = of_all(1).chain(["use"]).collect();
        let groups: BTreeSet<_> = of_all(2).chain(["example.com"]).collect();
        let strange = [
            ("core", "example"),
            ("core", "pods/example"),
            ("-", "/example"),
        ];
        let everywhere: BTreeSet<_> = rows
            .iter()
            .flat_map(|row| pairs(row))
            .chain(strange)
            .collect();
        let mut index = super::super::index::Index::default();
        let mut subjects = BTreeSet::new();
        for role in roles() {
            let text = |pointer: &str| role.pointer(pointer).and_then(Value::as_str).unwrap_or("");
            let (kind, name) = (text("/kind"), text("/metadata/name"));
            let namespace = text("/metadata/namespace");
            index.put_role(namespace, name, Some(&role));
            let of_table = match namespace {
                "" => name.to_owned(),
                namespace => format!("{namespace}/{name}"),
            };
            let binding = named("Binding", name, None);
            let binding = bound(binding, kind, name, &[User(&of_table)]);
            index.put_binding(namespace, name, Some(&binding));
            if role.get("aggregationRule").is_none() {
                subjects.insert((namespace.to_owned(), of_table));
            }
        }
        assert!(subjects.len() > 70, "{}", subjects.len());
        let said = |cell: &str, word: &str| {
            let mut all = cell.split(' ').flat_map(expand);
            all.any(|own| own == "*" || own == word)
        };
        let mut asked = 0;
        for (namespace, role) in &subjects {
            let own: Vec<_> = rows.iter().filter(|row| row[0] == role.as_str()).collect();
            let user = UserInfo::authenticated(role.as_str(), &[]);
            // What a row says of one group it says of no other.
            let things = own.iter().flat_map(|row| words(row, 3));
            let nearby = things.flat_map(|thing| groups.iter().map(move |group| (*group, thing)));
            let places: BTreeSet<_> = everywhere.iter().copied().chain(nearby).collect();
            let names = own.iter().flat_map(|row| words(row, 4));
            let names: BTreeSet<_> = names.chain(["", "other"]).collect();
            for (group, thing) in places {
                let is_path = thing.starts_with('/');
                let (resource, subresource) = thing.split_once('/').unwrap_or((thing, ""));
                if is_path != (group == "-") || group == "*" || resource == "*" {
                    continue;
                }
                for (verb, name) in verbs
                    .iter()
                    .flat_map(|verb| names.iter().map(|of| (*verb, *of)))
                {
                    if verb == "*" {
                        continue;
                    }
                    let action = Action {
                        verb,
                        group: if group == "core" { "" } else { group },
                        resource: if is_path { "" } else { resource },
                        subresource: if is_path { "" } else { subresource },
                        name,
                        path: if is_path { thing } else { "" },
                    };
                    let below = format!("*/{subresource}");
                    let expected = own.iter().any(|row| {
                        let of_thing = if is_path {
                            let mut all = row[3].split(' ');
                            all.any(|own| {
                                let prefix = own.strip_suffix('*');
                                own == thing || prefix.is_some_and(|of| thing.starts_with(of))
                            })
                        } else {
                            said(row[3], thing) || (!subresource.is_empty() && said(row[3], &below))
                        };
                        let of_name = row
                            .get(4)
                            .is_none_or(|names| names.split(' ').any(|of| of == name));
                        let of_group = (row[2] == "-") == is_path && said(row[2], group);
                        said(row[1], verb) && of_group && of_thing && of_name
                    });
                    asked += 1;
                    let allowed = index.allows(&user, namespace, &action);
                    assert_eq!(allowed, expected, "{role} {verb} {group} {thing} {name:?}");
                }
            }
        }
        assert!(asked > 100_000, "{asked}");
    }
}
