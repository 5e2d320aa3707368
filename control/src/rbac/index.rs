//! Roles and bindings by whom they are about: a decision looks at the bindings of one user and no others.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::Value;

use super::rule::{Action, Rule};
use crate::identity::UserInfo;

/// Whom a binding is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Subject {
    User(String),
    Group(String),
}

/// Where a role is: its namespace, empty for a ClusterRole, and its name.
type RoleKey = (String, String);

/// Where a binding is: its namespace, empty for a ClusterRoleBinding, and its name.
type BindingKey = (String, String);

#[derive(Clone, Debug)]
struct Binding {
    subjects: Vec<Subject>,
    role: RoleKey,
}

/// All roles and bindings.
#[derive(Debug, Default)]
pub(super) struct Index {
    roles: HashMap<RoleKey, Arc<[Rule]>>,
    bindings: HashMap<BindingKey, Binding>,
    /// Names of bindings by their namespace and whom they are about.
    by_subject: HashMap<(String, Subject), BTreeSet<String>>,
}

impl Index {
    /// A role, or a ClusterRole, is this now; `None`: it is gone.
    pub(super) fn put_role(&mut self, namespace: &str, name: &str, role: Option<&Value>) {
        let key = (namespace.to_owned(), name.to_owned());
        let Some(role) = role else {
            self.roles.remove(&key);
            return;
        };
        let rules = role.get("rules").and_then(Value::as_array);
        let rules = rules.into_iter().flatten().map(Rule::of).collect();
        self.roles.insert(key, rules);
    }

    /// A binding is this now; `None`: it is gone.
    pub(super) fn put_binding(&mut self, namespace: &str, name: &str, binding: Option<&Value>) {
        let key = (namespace.to_owned(), name.to_owned());
        if let Some(old) = self.bindings.remove(&key) {
            for subject in old.subjects {
                let place = (namespace.to_owned(), subject);
                if let Some(names) = self.by_subject.get_mut(&place) {
                    names.remove(name);
                    if names.is_empty() {
                        self.by_subject.remove(&place);
                    }
                }
            }
        }
        let Some(binding) = binding.and_then(|binding| read(namespace, binding)) else {
            return;
        };
        for subject in &binding.subjects {
            let place = (namespace.to_owned(), subject.clone());
            self.by_subject
                .entry(place)
                .or_default()
                .insert(name.to_owned());
        }
        self.bindings.insert(key, binding);
    }

    /// Every rule that applies to the user in the namespace; only cluster-wide ones without.
    pub(super) fn rules<'a>(
        &'a self,
        user: &'a UserInfo,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a Rule> {
        let subjects = std::iter::once(Subject::User(user.name.clone()))
            .chain(user.groups.iter().cloned().map(Subject::Group));
        let scopes: &[&str] = if namespace.is_empty() {
            &[""]
        } else {
            &["", namespace]
        };
        let scopes: Vec<String> = scopes.iter().map(|scope| (*scope).to_owned()).collect();
        let places = subjects.flat_map(move |subject| {
            let scopes = scopes.clone().into_iter();
            scopes.map(move |scope| (scope, subject.clone()))
        });
        let bindings = places.flat_map(move |place| {
            let names = self.by_subject.get(&place).into_iter().flatten();
            names.filter_map(move |name| self.bindings.get(&(place.0.clone(), name.clone())))
        });
        bindings
            .filter_map(|binding| self.roles.get(&binding.role))
            .flat_map(|rules| rules.iter())
    }

    /// Whether some binding lets the user do it.
    pub(super) fn allows(&self, user: &UserInfo, namespace: &str, action: &Action<'_>) -> bool {
        self.rules(user, namespace).any(|rule| rule.allows(action))
    }

    /// The rules of a role; none when it is not there.
    pub(super) fn role(&self, namespace: &str, name: &str) -> Option<Arc<[Rule]>> {
        let key = (namespace.to_owned(), name.to_owned());
        self.roles.get(&key).cloned()
    }

    /// What of the wanted rules the user does not have.
    pub(super) fn missing(&self, user: &UserInfo, namespace: &str, wanted: &[Rule]) -> Vec<Rule> {
        let own: Vec<_> = self.rules(user, namespace).collect();
        let atoms = wanted.iter().flat_map(Rule::atoms);
        let missing = atoms.filter(|atom| !own.iter().any(|rule| rule.covers(atom)));
        // The same action may be wanted twice.
        let unique: BTreeMap<String, Rule> = missing.map(|rule| (rule.to_string(), rule)).collect();
        unique.into_values().collect()
    }
}

fn read(namespace: &str, binding: &Value) -> Option<Binding> {
    let text = |value: &Value, field: &str| {
        let value = value.get(field).and_then(Value::as_str);
        value.unwrap_or_default().to_owned()
    };
    let role = binding.get("roleRef")?;
    let scope = if text(role, "kind") == "ClusterRole" {
        ""
    } else {
        namespace
    };
    let subjects = binding.get("subjects").and_then(Value::as_array);
    let subject = |subject: &Value| {
        let name = text(subject, "name");
        Some(match text(subject, "kind").as_str() {
            "User" => Subject::User(name),
            "Group" => Subject::Group(name),
            "ServiceAccount" => {
                let own = text(subject, "namespace");
                let own = if own.is_empty() { namespace } else { &own };
                Subject::User(format!("system:serviceaccount:{own}:{name}"))
            }
            _ => return None,
        })
    };
    Some(Binding {
        subjects: subjects.into_iter().flatten().filter_map(subject).collect(),
        role: (scope.to_owned(), text(role, "name")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn user(name: &str, groups: &[&str]) -> UserInfo {
        UserInfo {
            name: name.to_owned(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            ..UserInfo::default()
        }
    }

    fn reads_pods() -> Value {
        json!({"rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]})
    }

    const GET: Action<'static> = Action {
        verb: "get",
        group: "",
        resource: "pods",
        subresource: "",
        name: "a",
        path: "",
    };

    #[test]
    fn bindings_hold_for_their_subjects_where_they_are() {
        let mut index = Index::default();
        index.put_role("", "reader", Some(&reads_pods()));
        let binding = json!({
            "roleRef": {"kind": "ClusterRole", "name": "reader"},
            "subjects": [
                {"kind": "User", "name": "ann"}, {"kind": "Group", "name": "team"},
                {"kind": "ServiceAccount", "name": "robot", "namespace": "x"},
            ],
        });
        index.put_binding("x", "b", Some(&binding));
        let robot = user("system:serviceaccount:x:robot", &[]);
        for allowed in [user("ann", &[]), user("bob", &["team"]), robot] {
            assert!(index.allows(&allowed, "x", &GET), "{}", allowed.name);
            assert!(!index.allows(&allowed, "y", &GET) && !index.allows(&allowed, "", &GET));
        }
        assert!(!index.allows(&user("team", &["ann"]), "x", &GET));
        index.put_binding("", "everywhere", Some(&binding));
        assert!(
            index.allows(&user("ann", &[]), "y", &GET) && index.allows(&user("ann", &[]), "", &GET)
        );
        index.put_binding("", "everywhere", None);
        index.put_binding("x", "b", None);
        assert!(!index.allows(&user("ann", &[]), "x", &GET));
        assert!(index.by_subject.is_empty() && index.bindings.is_empty());
    }

    #[test]
    fn a_role_means_what_it_says_when_it_is_asked() {
        let mut index = Index::default();
        let binding = json!({
            "roleRef": {"kind": "Role", "name": "reader"},
            "subjects": [{"kind": "User", "name": "ann"}],
        });
        index.put_binding("x", "b", Some(&binding));
        let ann = user("ann", &[]);
        assert!(!index.allows(&ann, "x", &GET));
        index.put_role("", "reader", Some(&reads_pods()));
        assert!(!index.allows(&ann, "x", &GET));
        index.put_role("x", "reader", Some(&reads_pods()));
        assert!(index.allows(&ann, "x", &GET));
        index.put_role("x", "reader", None);
        assert!(!index.allows(&ann, "x", &GET));
    }

    #[test]
    fn what_a_user_may_not_do_is_missing() {
        let mut index = Index::default();
        index.put_role("x", "reader", Some(&reads_pods()));
        let binding = json!({
            "roleRef": {"kind": "Role", "name": "reader"},
            "subjects": [{"kind": "User", "name": "ann"}],
        });
        index.put_binding("x", "b", Some(&binding));
        let wanted = [Rule::of(&json!({
            "verbs": ["get", "delete"], "apiGroups": [""], "resources": ["pods"],
        }))];
        let missing = index.missing(&user("ann", &[]), "x", &wanted);
        let missing: Vec<_> = missing.iter().map(Rule::to_string).collect();
        assert_eq!(
            missing,
            [r#"{APIGroups:[""], Resources:["pods"], Verbs:["delete"]}"#]
        );
    }
}
