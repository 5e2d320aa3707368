//! What changed between two objects, and which fields an object has, as sets of paths.
//!
//! [`compare`] runs on every write. It walks both values once, side by side, allocates nothing where they
//! agree, and pairs the items of keyed lists by position as long as their keys agree; only a list that was
//! reordered, grown or shrunk in the middle is indexed.

use std::collections::HashMap;
use std::fmt;
use std::fmt::Write as _;

use serde_json::{Map, Value};
use windlass_api::schema::{ListKind, ListType, Schema, Type, TypeRef};

use super::field_set::{FieldSet, Node, field_key, make_member};

/// The difference between two objects.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    /// Paths that only the new object has.
    pub added: FieldSet,
    /// Paths of values that differ.
    pub modified: FieldSet,
    /// Paths that only the old object has.
    pub removed: FieldSet,
}

impl Comparison {
    /// Whether nothing differs.
    #[must_use]
    pub fn is_same(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }
}

/// Paths, given as names from the root, whose changes nobody owns.
pub type Ignored<'a> = &'a [&'a [&'a str]];

/// Fields that belong to the server: no manager ever owns them.
const SERVERS_ROOT: &[&str] = &["apiVersion", "kind"];
const SERVERS_METADATA: &[&str] = &[
    "creationTimestamp",
    "generation",
    "managedFields",
    "name",
    "namespace",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// Compares two objects of a type, leaving out the server's own fields and the ignored ones.
#[must_use]
pub fn compare(
    schema: &Schema,
    ty: TypeRef,
    old: &Value,
    new: &Value,
    ignored: Ignored<'_>,
) -> Comparison {
    let mut walk = Walk {
        schema,
        ignored,
        path: Vec::new(),
        found: Comparison::default(),
    };
    walk.values(ty, Some(old), Some(new));
    walk.found
}

/// The fields a value has: what an apply of it owns. The server's own and the ignored ones are left out.
#[must_use]
pub fn fields_of(schema: &Schema, ty: TypeRef, value: &Value, ignored: Ignored<'_>) -> FieldSet {
    let mut root = Node::new();
    collect(schema, ty, value, &mut root, Containers::Implied);
    let mut fields = FieldSet(root);
    for name in SERVERS_ROOT {
        fields.remove_subtree(&[name]);
    }
    for name in SERVERS_METADATA {
        fields.remove_subtree(&["metadata", name]);
    }
    for path in ignored {
        fields.remove_subtree(path);
    }
    if fields
        .0
        .get("f:metadata")
        .and_then(Value::as_object)
        .is_some_and(Map::is_empty)
    {
        fields.remove_subtree(&["metadata"]);
    }
    fields
}

/// Objects that Go always writes, so that their appearing is nobody's doing.
const ALWAYS_THERE: &[&str] = &[
    "metadata",
    "resources",
    "securityContext",
    "spec",
    "status",
    "strategy",
    "template",
];

/// One step of a path, rendered only if something differs below it.
enum Step<'a> {
    Field(&'a str),
    Item(&'a ListType, &'a Value),
}

impl Step<'_> {
    fn is_field(&self, name: &str) -> bool {
        matches!(self, Self::Field(field) if *field == name)
    }

    fn key(&self) -> String {
        match self {
            Self::Field(name) => field_key(name),
            // The walk only steps into items that have a key.
            Self::Item(list, item) => item_key(list, item).unwrap_or_default(),
        }
    }
}

struct Walk<'a> {
    schema: &'a Schema,
    ignored: Ignored<'a>,
    path: Vec<Step<'a>>,
    found: Comparison,
}

impl<'a> Walk<'a> {
    fn values(&mut self, ty: TypeRef, old: Option<&'a Value>, new: Option<&'a Value>) {
        match (self.schema.get(ty), old, new) {
            (Type::Struct(of), ..) if of.atomic => self.leaf(old, new),
            (Type::Map(of), ..) if of.atomic => self.leaf(old, new),
            (_, None, Some(value @ (Value::Object(_) | Value::Array(_)))) => {
                self.one_sided(ty, value, true);
            }
            (_, Some(value @ (Value::Object(_) | Value::Array(_))), None) => {
                self.one_sided(ty, value, false);
            }
            (
                Type::Struct(_) | Type::Map(_) | Type::Any,
                Some(Value::Object(old)),
                Some(Value::Object(new)),
            ) => self.objects(ty, old, new),
            (Type::List(of), Some(Value::Array(old)), Some(Value::Array(new)))
                if !matches!(of.kind, ListKind::Atomic) =>
            {
                self.lists(of, old, new);
            }
            _ => self.leaf(old, new),
        }
    }

    fn leaf(&mut self, old: Option<&'a Value>, new: Option<&'a Value>) {
        match (old, new) {
            (Some(old), Some(new)) if old == new => {}
            (Some(_), Some(_)) => self.found.modified.insert(self.path.iter().map(Step::key)),
            (None, Some(_)) => self.found.added.insert(self.path.iter().map(Step::key)),
            (Some(_), None) => self.found.removed.insert(self.path.iter().map(Step::key)),
            (None, None) => {}
        }
    }

    fn objects(&mut self, ty: TypeRef, old: &'a Map<String, Value>, new: &'a Map<String, Value>) {
        for (name, value) in new {
            self.field(ty, name, old.get(name), Some(value));
        }
        for (name, value) in old.iter().filter(|(name, _)| !new.contains_key(*name)) {
            self.field(ty, name, Some(value), None);
        }
    }

    /// An object or list that only one side has. Everything in it is added or removed, so its fields are
    /// written in one go, unless some of them are nobody's.
    fn one_sided(&mut self, ty: TypeRef, value: &'a Value, is_new: bool) {
        if let (true, Value::Object(object)) = (self.holds_nobodys(), value) {
            for (name, value) in object {
                let (old, new) = if is_new {
                    (None, Some(value))
                } else {
                    (Some(value), None)
                };
                self.field(ty, name, old, new);
            }
            return;
        }
        let mut node = Node::new();
        collect(self.schema, ty, value, &mut node, Containers::Counted);
        if !self.is_always_there() {
            make_member(&mut node);
        }
        let found = if is_new {
            &mut self.found.added
        } else {
            &mut self.found.removed
        };
        found.graft(self.path.iter().map(Step::key), node);
    }

    /// Whether the object the walk is at has fields that belong to the server or are ignored.
    fn holds_nobodys(&self) -> bool {
        let leads_on = |path: &&[&str]| {
            path.len() > self.path.len()
                && self
                    .path
                    .iter()
                    .zip(*path)
                    .all(|(step, name)| step.is_field(name))
        };
        matches!(self.path.as_slice(), [] | [Step::Field("metadata")])
            || self.ignored.iter().any(leads_on)
    }

    fn is_always_there(&self) -> bool {
        match self.path.last() {
            Some(Step::Field(name)) => ALWAYS_THERE.contains(name),
            Some(Step::Item(..)) => false,
            None => true,
        }
    }

    fn field(
        &mut self,
        ty: TypeRef,
        name: &'a str,
        old: Option<&'a Value>,
        new: Option<&'a Value>,
    ) {
        if self.is_nobodys(name) {
            return;
        }
        self.path.push(Step::Field(name));
        self.values(self.schema.field_type(ty, name), old, new);
        self.path.pop();
    }

    /// Whether a field of the object the walk is at belongs to the server or is ignored.
    fn is_nobodys(&self, name: &str) -> bool {
        let servers = match self.path.as_slice() {
            [] => SERVERS_ROOT,
            [Step::Field("metadata")] => SERVERS_METADATA,
            _ => &[],
        };
        let is_here = |path: &&[&str]| {
            let Some((last, parents)) = path.split_last() else {
                return false;
            };
            *last == name
                && parents.len() == self.path.len()
                && self
                    .path
                    .iter()
                    .zip(parents)
                    .all(|(step, parent)| step.is_field(parent))
        };
        servers.contains(&name) || self.ignored.iter().any(is_here)
    }

    fn lists(&mut self, list: &'a ListType, old: &'a [Value], new: &'a [Value]) {
        // Most lists are untouched, and telling so allocates nothing; keys do.
        if old == new {
            return;
        }
        if !are_keyed(list, old) || !are_keyed(list, new) {
            return self.found.modified.insert(self.path.iter().map(Step::key));
        }
        let aligned = old
            .iter()
            .zip(new)
            .take_while(|(old, new)| same_key(list, old, new))
            .count();
        for (old, new) in old.iter().zip(new).take(aligned) {
            self.item(list, Some(old), Some(new));
        }
        let (old_rest, new_rest) = (old.get(aligned..), new.get(aligned..));
        self.unaligned(
            list,
            old_rest.unwrap_or_default(),
            new_rest.unwrap_or_default(),
        );
    }

    fn unaligned(&mut self, list: &'a ListType, old: &'a [Value], new: &'a [Value]) {
        if old.is_empty() && new.is_empty() {
            return;
        }
        let mut by_key: HashMap<String, &Value> = old
            .iter()
            .filter_map(|item| Some((item_key(list, item)?, item)))
            .collect();
        for item in new {
            let old = item_key(list, item).and_then(|key| by_key.remove(&key));
            self.item(list, old, Some(item));
        }
        for item in old
            .iter()
            .filter(|item| item_key(list, item).is_some_and(|key| by_key.contains_key(&key)))
        {
            self.item(list, Some(item), None);
        }
    }

    fn item(&mut self, list: &'a ListType, old: Option<&'a Value>, new: Option<&'a Value>) {
        let Some(item) = new.or(old) else { return };
        self.path.push(Step::Item(list, item));
        self.values(list.item, old, new);
        self.path.pop();
    }
}

/// Whether every item of a list has a key and no two have the same.
pub(super) fn are_keyed(list: &ListType, items: &[Value]) -> bool {
    match items {
        [] => true,
        [one] => has_key(list, one),
        [first, second] => {
            has_key(list, first) && has_key(list, second) && !same_key(list, first, second)
        }
        many => {
            let keys: Option<std::collections::HashSet<_>> =
                many.iter().map(|item| item_key(list, item)).collect();
            keys.is_some_and(|keys| keys.len() == many.len())
        }
    }
}

fn has_key(list: &ListType, item: &Value) -> bool {
    match &list.kind {
        ListKind::Atomic => false,
        ListKind::Set => true,
        ListKind::Map(keys) => {
            item.is_object() && {
                let given = |(key, default): &(windlass_api::schema::Text, Option<Value>)| {
                    item.get(&**key).or(default.as_ref()).is_some()
                };
                keys.iter().any(given)
            }
        }
    }
}

fn same_key(list: &ListType, a: &Value, b: &Value) -> bool {
    match &list.kind {
        ListKind::Atomic => false,
        ListKind::Set => a == b,
        ListKind::Map(keys) => keys.iter().all(|(key, default)| {
            let value = |item: &'_ Value| item.get(&**key).or(default.as_ref()).cloned();
            match (a.get(&**key), b.get(&**key)) {
                (Some(a), Some(b)) => a == b,
                _ => value(a) == value(b),
            }
        }),
    }
}

/// The trie key of a list's item: its key fields with their defaults, or its value.
#[must_use]
pub(super) fn item_key(list: &ListType, item: &Value) -> Option<String> {
    match &list.kind {
        ListKind::Atomic => None,
        ListKind::Set => Some(format!("v:{item}")),
        ListKind::Map(keys) => {
            let object = item.as_object()?;
            let mut text = String::from("k:{");
            for (key, default) in keys {
                let Some(value) = object.get(&**key).or(default.as_ref()) else {
                    continue;
                };
                let comma = if text.ends_with('{') { "" } else { "," };
                // Writing to a String can't fail.
                let _ = write!(text, "{comma}{}:{value}", Quoted(key));
            }
            text.push('}');
            (text.len() > "k:{}".len()).then_some(text)
        }
    }
}

/// A key as JSON writes it; hardly any needs escapes.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self
            .0
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        {
            write!(f, "\"{}\"", self.0)
        } else {
            write!(f, "{}", Value::from(self.0))
        }
    }
}

/// Which paths [`collect`] counts besides leaves and items.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Containers {
    /// Objects and lists too, as for what appears or vanishes with them.
    Counted,
    /// Only entries of maps, as for what an apply states.
    Implied,
}

/// Adds what a value has to a node: nothing for a scalar, whose node is itself the member. Answers whether
/// the node stands for anything: an empty keyed list has no item and is no leaf.
fn collect(
    schema: &Schema,
    ty: TypeRef,
    value: &Value,
    node: &mut Node,
    containers: Containers,
) -> bool {
    match (schema.get(ty), value) {
        (Type::Struct(of), _) if of.atomic => true,
        (Type::Map(of), _) if of.atomic => true,
        (Type::Struct(_) | Type::Map(_) | Type::Any, Value::Object(object)) => {
            for (name, value) in object {
                collect_field(schema, ty, (name, value), node, containers);
            }
            object.is_empty() || !node.is_empty()
        }
        (Type::List(of), Value::Array(items)) if are_keyed(of, items) => {
            for item in items {
                let Some(key) = item_key(of, item) else {
                    continue;
                };
                let mut child = Node::new();
                collect(schema, of.item, item, &mut child, containers);
                make_member(&mut child);
                node.insert(key, Value::Object(child));
            }
            matches!(of.kind, ListKind::Atomic) || !node.is_empty()
        }
        _ => true,
    }
}

fn collect_field(
    schema: &Schema,
    ty: TypeRef,
    (name, value): (&str, &Value),
    node: &mut Node,
    containers: Containers,
) {
    let (ty, is_declared) = match schema.get(ty) {
        Type::Struct(of) => match of.field(name) {
            Some(field) => (field.ty, true),
            None => (TypeRef::ANY, false),
        },
        Type::Map(of) => (of.value, false),
        _ => (TypeRef::ANY, false),
    };
    let is_member = match containers {
        Containers::Counted => !is_declared || !ALWAYS_THERE.contains(&name),
        Containers::Implied => !is_declared,
    };
    let mut child = Node::new();
    let stands = collect(schema, ty, value, &mut child, containers);
    if is_member {
        make_member(&mut child);
    }
    if is_member || stands {
        node.insert(field_key(name), Value::Object(child));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use windlass_api::resource::GroupVersionKind;

    fn deployment() -> (&'static Schema, TypeRef) {
        let schema = Schema::builtin();
        let ty = schema.kind(&GroupVersionKind::of("apps", "v1", "Deployment"));
        (schema, ty.expect("is built in"))
    }

    fn pod_template(spec: &Value) -> Value {
        json!({"spec": {"template": {"spec": spec}}})
    }

    #[test]
    fn differences_are_found_field_by_field() {
        let (schema, ty) = deployment();
        let old = json!({"metadata": {"name": "a", "resourceVersion": "1", "labels": {"a": "1", "b": "1"}},
            "spec": {"replicas": 1, "paused": true, "selector": {"matchLabels": {"a": "1"}}}});
        let new = json!({"metadata": {"name": "b", "resourceVersion": "2", "labels": {"a": "1", "c": "1"}},
            "spec": {"replicas": 2, "selector": {"matchLabels": {"a": "2"}}}, "status": {"replicas": 1}});
        let found = compare(schema, ty, &old, &new, &[&["status"]]);
        assert_eq!(
            found.added.into_value(),
            json!({"f:metadata": {"f:labels": {"f:c": {}}}})
        );
        assert_eq!(
            found.modified.into_value(),
            json!({"f:spec": {"f:replicas": {}, "f:selector": {}}})
        );
        assert_eq!(
            found.removed.into_value(),
            json!({"f:metadata": {"f:labels": {"f:b": {}}}, "f:spec": {"f:paused": {}}})
        );
        assert!(compare(schema, ty, &old, &old, &[]).is_same());
    }

    #[test]
    fn items_of_keyed_lists_are_paired_by_key_in_any_order() {
        let (schema, ty) = deployment();
        let a = json!({"name": "a", "image": "x", "ports": [{"containerPort": 80}, {"containerPort": 80, "protocol": "UDP"}]});
        let a2 = json!({"name": "a", "image": "y", "ports": [{"containerPort": 80, "protocol": "UDP"}, {"containerPort": 80}]});
        let b = json!({"name": "b"});
        let old = pod_template(&json!({"containers": [a, b]}));
        let new = pod_template(&json!({"containers": [b, a2]}));
        let found = compare(schema, ty, &old, &new, &[]);
        assert!(
            found.added.is_empty() && found.removed.is_empty(),
            "{found:?}"
        );
        assert_eq!(
            found.modified.into_value(),
            json!({"f:spec": {"f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {"f:image": {}}}}}}})
        );
    }

    #[test]
    fn new_items_and_maps_are_members_with_what_they_hold() {
        let (schema, ty) = deployment();
        let old = pod_template(&json!({"containers": []}));
        let new =
            pod_template(&json!({"containers": [{"name": "a", "ports": [{"containerPort": 80}]}]}));
        let found = compare(schema, ty, &old, &new, &[]);
        assert_eq!(
            found.added.into_value(),
            json!({"f:spec": {"f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {
                ".": {}, "f:name": {}, "f:ports": {".": {},
                    "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}}}}}}})
        );
    }

    #[test]
    fn applied_fields_are_leaves_items_and_map_entries() {
        let (schema, ty) = deployment();
        let value = json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "x", "labels": {"a": "b"}, "finalizers": ["f"]},
            "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"spec": {
                "nodeSelector": {"x": "y"}, "containers": [{"name": "c", "args": ["a"]}]}}}});
        assert_eq!(
            fields_of(schema, ty, &value, &[]).into_value(),
            json!({"f:metadata": {"f:labels": {"f:a": {}}, "f:finalizers": {"v:\"f\"": {}}},
                "f:spec": {"f:selector": {}, "f:template": {"f:spec": {"f:nodeSelector": {},
                    "f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:name": {}, "f:args": {}}}}}}})
        );
    }

    #[test]
    fn lists_with_repeated_keys_are_compared_as_a_whole() {
        let (schema, ty) = deployment();
        let env = |value: &str| {
            let env =
                json!([{"name": "A", "value": "1"}, {"name": "A", "value": value}, {"name": "B"}]);
            pod_template(&json!({"containers": [{"name": "c", "env": env}]}))
        };
        let found = compare(schema, ty, &env("2"), &env("3"), &[]);
        assert_eq!(
            found.modified.intersection(&found.modified),
            [".spec.template.spec.containers[name=\"c\"].env"]
        );
    }
}
