//! Sets of field paths in the form objects carry them: `FieldsV1`.
//!
//! `FieldsV1` is already a trie with canonical keys (`f:name`, `k:{"name":"x"}`, `v:"x"`, `i:0`), so a
//! [`FieldSet`] is that JSON object and works on it in place: no decoding, no copy, and an operation costs
//! as much as the smaller set. A node is a member of the set if it is `{}` or holds the key `.`.
//!
//! Invariant: no node but the root is empty without being a member.

use serde_json::{Map, Value};

/// The children of a node of the trie, and whether it is a member.
pub(super) type Node = Map<String, Value>;

/// Marks a node with children as a member.
const MEMBER: &str = ".";

/// A set of paths to fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FieldSet(pub(super) Node);

impl FieldSet {
    /// Reads `fieldsV1`; `None` if it is not of its form.
    #[must_use]
    pub fn from_value(value: Value) -> Option<Self> {
        let Value::Object(mut root) = value else {
            return None;
        };
        canonicalize(&mut root).then_some(Self(root))
    }

    /// The set as `fieldsV1`.
    #[must_use]
    pub fn into_value(self) -> Value {
        Value::Object(self.0)
    }

    /// Whether no path is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a path given as trie keys.
    pub fn insert<K: AsRef<str>>(&mut self, path: impl IntoIterator<Item = K>) {
        if let Some(node) = self.descend(path) {
            make_member(node);
        }
    }

    /// Puts a node at a path that the set does not hold yet.
    pub(super) fn graft<K: AsRef<str>>(&mut self, path: impl IntoIterator<Item = K>, node: Node) {
        if let Some(place) = self.descend(path) {
            *place = node;
        }
    }

    /// The node of a path, made if it is not there: a new one is empty, so it must become a member or get
    /// children.
    fn descend<K: AsRef<str>>(&mut self, path: impl IntoIterator<Item = K>) -> Option<&mut Node> {
        let mut node = &mut self.0;
        let mut is_new = true;
        for key in path {
            // Descending from a bare member must keep it one.
            if node.is_empty() && !is_new {
                node.insert(MEMBER.to_owned(), Value::Object(Node::new()));
            }
            let key = key.as_ref();
            is_new = !node.contains_key(key);
            let child = node
                .entry(key)
                .or_insert_with(|| Value::Object(Node::new()));
            node = child.as_object_mut()?;
        }
        Some(node)
    }

    /// Adds all paths of another set.
    pub fn union(&mut self, other: &Self) {
        union(&mut self.0, &other.0);
    }

    /// Removes all paths of another set.
    pub fn subtract(&mut self, other: &Self) {
        subtract(&mut self.0, &other.0);
    }

    /// Removes a field, given by its names from the root, and everything under it.
    pub fn remove_subtree(&mut self, names: &[&str]) {
        remove_subtree(&mut self.0, names);
    }

    /// The paths in both sets, written as `.spec.containers[name="x"].image`.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Vec<String> {
        let mut paths = Vec::new();
        intersect(&self.0, &other.0, &mut String::new(), &mut paths);
        paths
    }

    /// Whether every path is also in the other set.
    #[must_use]
    pub fn is_subset(&self, other: &Self) -> bool {
        let mut rest = self.clone();
        rest.subtract(other);
        rest.is_empty()
    }
}

/// The children of a node.
pub(super) fn children(node: &Node) -> impl Iterator<Item = (&String, &Node)> {
    node.iter()
        .filter(|(key, _)| *key != MEMBER)
        .filter_map(|(key, child)| child.as_object().map(|child| (key, child)))
}

/// Whether a node (not the root) is in the set.
pub(super) fn is_member(node: &Node) -> bool {
    node.is_empty() || node.contains_key(MEMBER)
}

/// Puts a node (not the root) into the set.
pub(super) fn make_member(node: &mut Node) {
    if !node.is_empty() {
        node.insert(MEMBER.to_owned(), Value::Object(Node::new()));
    }
}

fn union(node: &mut Node, other: &Node) {
    for (key, theirs) in children(other) {
        match node.get_mut(key) {
            Some(Value::Object(ours)) => {
                let member = is_member(ours) || is_member(theirs);
                union(ours, theirs);
                if member {
                    make_member(ours);
                }
            }
            _ => {
                node.insert(key.clone(), Value::Object(theirs.clone()));
            }
        }
    }
}

fn subtract(node: &mut Node, other: &Node) {
    for (key, theirs) in children(other) {
        let Some(Value::Object(ours)) = node.get_mut(key) else {
            continue;
        };
        let member = is_member(ours) && !is_member(theirs);
        ours.remove(MEMBER);
        subtract(ours, theirs);
        match (ours.is_empty(), member) {
            (true, false) => {
                node.remove(key);
            }
            (true, true) => {}
            (false, true) => make_member(ours),
            (false, false) => {}
        }
    }
}

fn remove_subtree(node: &mut Node, names: &[&str]) {
    let Some((name, rest)) = names.split_first() else {
        return;
    };
    let key = field_key(name);
    if rest.is_empty() {
        node.remove(&key);
        return;
    }
    let Some(Value::Object(child)) = node.get_mut(&key) else {
        return;
    };
    let member = is_member(child);
    remove_subtree(child, rest);
    if child.is_empty() && !member {
        node.remove(&key);
    }
}

fn intersect(ours: &Node, theirs: &Node, path: &mut String, paths: &mut Vec<String>) {
    for (key, our_child) in children(ours) {
        let Some(Value::Object(their_child)) = theirs.get(key) else {
            continue;
        };
        let mark = path.len();
        push_element(path, key);
        if is_member(our_child) && is_member(their_child) {
            paths.push(path.clone());
        }
        intersect(our_child, their_child, path, paths);
        path.truncate(mark);
    }
}

/// The trie key of a field.
#[must_use]
pub fn field_key(name: &str) -> String {
    let mut key = String::with_capacity(name.len() + 2);
    key.push_str("f:");
    key.push_str(name);
    key
}

/// Appends a trie key as people read it: `.name`, `[name="x",port=80]`, `[="x"]`, `[0]`.
fn push_element(path: &mut String, key: &str) {
    match key.split_once(':') {
        Some(("f", name)) => {
            path.push('.');
            path.push_str(name);
        }
        Some(("k", keys)) => {
            let keys = serde_json::from_str::<Node>(keys).unwrap_or_default();
            let keys: Vec<_> = keys
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            path.push_str(&format!("[{}]", keys.join(",")));
        }
        Some(("v", value)) => path.push_str(&format!("[={value}]")),
        Some((_, index)) => path.push_str(&format!("[{index}]")),
        None => {}
    }
}

/// Checks the form of what a client sent and rewrites keys whose JSON is spaced or ordered otherwise.
fn canonicalize(node: &mut Node) -> bool {
    let mut rewrites = Vec::new();
    for (key, child) in node.iter_mut() {
        let Value::Object(child) = child else {
            return false;
        };
        let well_formed = match key.split_once(':') {
            Some(("k", json)) if json.contains([' ', '\n', '\t']) => match canonical_keys(json) {
                Some(canonical) => {
                    rewrites.push((key.clone(), canonical));
                    true
                }
                None => false,
            },
            Some(("f" | "v" | "k" | "i", _)) => true,
            _ => key == MEMBER && child.is_empty(),
        };
        if !well_formed || !canonicalize(child) {
            return false;
        }
    }
    for (from, to) in rewrites {
        if let Some(child) = node.remove(&from) {
            node.insert(to, child);
        }
    }
    true
}

fn canonical_keys(json: &str) -> Option<String> {
    let mut keys: Node = serde_json::from_str(json).ok()?;
    keys.sort_keys();
    Some(format!("k:{}", Value::Object(keys)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;
    use std::collections::BTreeSet;

    fn set(value: Value) -> FieldSet {
        FieldSet::from_value(value).expect("is FieldsV1")
    }

    #[test]
    fn members_with_children_carry_a_dot() {
        let mut fields = FieldSet::default();
        fields.insert(["f:a", "f:b"]);
        assert_eq!(fields, set(json!({"f:a": {"f:b": {}}})));
        fields.insert(["f:a"]);
        assert_eq!(fields, set(json!({"f:a": {".": {}, "f:b": {}}})));
        fields.insert(["f:c"]);
        fields.insert(["f:c", "f:d"]);
        assert_eq!(
            fields,
            set(json!({"f:a": {".": {}, "f:b": {}}, "f:c": {".": {}, "f:d": {}}}))
        );
    }

    #[test]
    fn paths_are_written_as_people_read_them() {
        let fields = set(
            json!({"f:spec": {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {"f:name": {}}},
            "f:finalizers": {"v:\"x\"": {}}, "f:list": {"i:3": {}}}}),
        );
        assert_eq!(
            fields.intersection(&fields),
            [
                ".spec.ports[port=80,protocol=\"TCP\"].name",
                ".spec.finalizers[=\"x\"]",
                ".spec.list[3]"
            ]
        );
    }

    #[test]
    fn what_is_not_fields_v1_is_refused() {
        for bad in [
            json!([]),
            json!({"a": {}}),
            json!({"f:a": 1}),
            json!({".": {"f:a": {}}}),
            json!({"k:{ ": {}}),
        ] {
            assert_eq!(FieldSet::from_value(bad.clone()), None, "{bad}");
        }
        assert_eq!(
            set(json!({"f:a": {"k:{\"b\": 1, \"a\": 2}": {}}})),
            set(json!({"f:a": {"k:{\"a\":2,\"b\":1}": {}}}))
        );
    }

    #[test]
    fn a_subtree_goes_with_its_empty_parents() {
        let mut fields =
            set(json!({"f:metadata": {"f:name": {}}, "f:spec": {".": {}, "f:a": {"f:b": {}}}}));
        fields.remove_subtree(&["metadata", "name"]);
        fields.remove_subtree(&["spec", "a"]);
        fields.remove_subtree(&["none", "x"]);
        assert_eq!(fields.into_value(), json!({"f:spec": {".": {}}}));
    }

    type Paths = BTreeSet<Vec<String>>;

    fn paths() -> impl Strategy<Value = Paths> {
        prop::collection::btree_set(prop::collection::vec("f:[abc]", 1..4), 0..8)
    }

    fn from_paths(paths: &Paths) -> FieldSet {
        let mut fields = FieldSet::default();
        for path in paths {
            fields.insert(path);
        }
        fields
    }

    fn to_paths(node: &Node, at: &[String], paths: &mut Paths) {
        for (key, child) in children(node) {
            let mut path = at.to_vec();
            path.push(key.clone());
            to_paths(child, &path, paths);
            if is_member(child) {
                paths.insert(path);
            }
        }
    }

    proptest! {
        #[test]
        fn set_operations_are_those_of_sets_of_paths(a in paths(), b in paths()) {
            let read = |fields: &FieldSet| {
                let mut paths = Paths::new();
                to_paths(&fields.0, &[], &mut paths);
                paths
            };
            let (x, y) = (from_paths(&a), from_paths(&b));
            prop_assert_eq!(&read(&x), &a);
            let mut union = x.clone();
            union.union(&y);
            prop_assert_eq!(read(&union), &a | &b);
            let mut difference = x.clone();
            difference.subtract(&y);
            prop_assert_eq!(read(&difference), &a - &b);
            prop_assert_eq!(x.intersection(&y).len(), (&a & &b).len());
            prop_assert_eq!(x.is_subset(&y), a.is_subset(&b));
            prop_assert_eq!(FieldSet::from_value(union.clone().into_value()), Some(union));
        }
    }
}
