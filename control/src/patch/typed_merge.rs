//! Merging an applied configuration into an object, and taking fields out of it, along its schema.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};
use windlass_api::schema::{ListKind, ListType, Schema, Type, TypeRef};

use super::compare::{are_keyed, item_key};
use super::field_set::{Node, children, is_member, make_member};

/// Merges `config` into `live`: its leaves win, its maps and keyed lists merge, everything else stays.
pub(super) fn merge(schema: &Schema, ty: TypeRef, live: &mut Value, config: &Value) {
    match (schema.get(ty), &mut *live, config) {
        (Type::Struct(of), ..) if of.atomic => live.clone_from(config),
        (Type::Map(of), ..) if of.atomic => live.clone_from(config),
        (
            Type::Struct(_) | Type::Map(_) | Type::Any,
            Value::Object(live),
            Value::Object(config),
        ) => {
            for (name, value) in config {
                match live.get_mut(name) {
                    Some(live) => merge(schema, schema.field_type(ty, name), live, value),
                    None => {
                        live.insert(name.clone(), value.clone());
                    }
                }
            }
        }
        (Type::List(of), Value::Array(items), Value::Array(config))
            if !matches!(of.kind, ListKind::Atomic)
                && are_keyed(of, items)
                && are_keyed(of, config) =>
        {
            let live = std::mem::take(items);
            *items = merge_items(schema, of, live, config);
        }
        _ => live.clone_from(config),
    }
}

/// Merges keyed lists. The configuration's items keep their order; an item that only the object has stays
/// where it is relative to the shared item before it, and comes before new ones.
fn merge_items(schema: &Schema, list: &ListType, live: Vec<Value>, config: &[Value]) -> Vec<Value> {
    let key = |item: &Value| item_key(list, item).unwrap_or_default();
    let config: Vec<_> = config.iter().map(|item| (key(item), item)).collect();
    let config_keys: HashSet<&str> = config.iter().map(|(key, _)| key.as_str()).collect();
    let mut live: Vec<_> = live
        .into_iter()
        .map(|item| (key(&item), Some(item)))
        .collect();
    let places: HashMap<String, usize> = live
        .iter()
        .enumerate()
        .map(|(at, (key, _))| (key.clone(), at))
        .collect();

    let mut merged = Vec::with_capacity(live.len() + config.len());
    let mut passed = 0;
    let mut shared = config
        .iter()
        .filter_map(|(key, _)| places.get(key).copied())
        .peekable();
    for (key, item) in &config {
        // Up to the next shared item, what only the object has comes first.
        let until = shared.peek().map_or(live.len(), |next| next + 1);
        for (key, own) in live.iter_mut().take(until).skip(passed) {
            if !config_keys.contains(key.as_str()) {
                merged.extend(own.take());
            }
        }
        passed = passed.max(until);
        let Some(place) = places.get(key) else {
            merged.push((*item).clone());
            continue;
        };
        shared.next();
        if let Some(mut own) = live.get_mut(*place).and_then(|(_, own)| own.take()) {
            merge(schema, list.item, &mut own, item);
            merged.push(own);
        }
    }
    merged.extend(live.into_iter().filter_map(|(_, own)| own));
    merged
}

/// Takes the members of a set out of a value; containers that become empty go too.
pub(super) fn remove(schema: &Schema, ty: TypeRef, value: &mut Value, fields: &Node) {
    match (schema.get(ty), value) {
        (Type::List(list), Value::Array(items)) => {
            items.retain_mut(|item| {
                let node = item_key(list, item).and_then(|key| fields.get(&key)?.as_object());
                keep(schema, list.item, item, node)
            });
        }
        (_, Value::Object(object)) => remove_fields(schema, ty, object, fields),
        _ => {}
    }
}

fn remove_fields(schema: &Schema, ty: TypeRef, object: &mut Map<String, Value>, fields: &Node) {
    for (key, node) in children(fields) {
        let Some(name) = key.strip_prefix("f:") else {
            continue;
        };
        let Some(value) = object.get_mut(name) else {
            continue;
        };
        if !keep(schema, schema.field_type(ty, name), value, Some(node)) {
            object.shift_remove(name);
        }
    }
}

fn keep(schema: &Schema, ty: TypeRef, value: &mut Value, node: Option<&Node>) -> bool {
    let Some(node) = node else { return true };
    if is_member(node) {
        return false;
    }
    let was_empty = is_empty(value);
    remove(schema, ty, value, node);
    was_empty || !is_empty(value)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(object) => object.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// Makes members of all declared fields on the way to members: who gives up `spec.a` gives up `spec`,
/// unless somebody still owns something in it.
pub(super) fn include_parents(schema: &Schema, ty: TypeRef, node: &mut Node) {
    for (key, child) in node.iter_mut() {
        let Value::Object(child) = child else {
            continue;
        };
        if child.is_empty() {
            continue;
        }
        let (ty, declared) = match (key.strip_prefix("f:"), schema.get(ty)) {
            (Some(name), Type::Struct(of)) => {
                let field = of.field(name);
                (
                    field.map_or(TypeRef::ANY, |field| field.ty),
                    field.is_some(),
                )
            }
            (Some(name), _) => (schema.field_type(ty, name), false),
            (None, _) => (schema.item_type(ty), false),
        };
        include_parents(schema, ty, child);
        if declared {
            make_member(child);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use windlass_api::resource::GroupVersionKind;

    fn pod() -> (&'static Schema, TypeRef) {
        let schema = Schema::builtin();
        (
            schema,
            schema
                .kind(&GroupVersionKind::of("", "v1", "Pod"))
                .expect("is built in"),
        )
    }

    fn containers(names: &[&str]) -> Value {
        let containers: Vec<_> = names.iter().map(|name| json!({ "name": name })).collect();
        json!({ "spec": { "containers": containers } })
    }

    #[test]
    fn merged_items_follow_the_configurations_order_and_others_keep_their_place() {
        let (schema, ty) = pod();
        for (live, config, merged) in [
            (&["a", "b"][..], &["b"][..], &["a", "b"][..]),
            (&["a", "b"], &["b", "a"], &["b", "a"]),
            (&["a", "x", "b"], &["a", "b"], &["a", "x", "b"]),
            (&["a", "x", "b"], &["b", "a"], &["x", "b", "a"]),
            (&["x"], &["new"], &["x", "new"]),
            (&["a", "x"], &["new", "a"], &["new", "a", "x"]),
            (&["a", "b"], &["a", "new", "b"], &["a", "new", "b"]),
        ] {
            let mut object = containers(live);
            merge(schema, ty, &mut object, &containers(config));
            assert_eq!(object, containers(merged), "{live:?} + {config:?}");
        }
    }

    #[test]
    fn atomic_objects_and_lists_are_replaced() {
        let (schema, ty) = pod();
        let mut live = json!({"spec": {"nodeSelector": {"a": "1"}, "tolerations": [{"key": "a"}],
            "hostname": "h"}});
        let config = json!({"spec": {"nodeSelector": {"b": "1"}, "tolerations": [{"key": "b"}]}});
        merge(schema, ty, &mut live, &config);
        assert_eq!(
            live,
            json!({"spec": {"nodeSelector": {"b": "1"}, "tolerations": [{"key": "b"}], "hostname": "h"}})
        );
    }

    #[test]
    fn containers_emptied_by_a_removal_go_too() {
        let (schema, ty) = pod();
        let mut object = json!({"metadata": {"labels": {"a": "1"}, "annotations": {}},
            "spec": {"containers": [{"name": "a", "image": "i"}, {"name": "b"}]}});
        let fields = json!({"f:metadata": {"f:labels": {"f:a": {}}, "f:annotations": {"f:x": {}}},
            "f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {"f:image": {}}, "k:{\"name\":\"b\"}": {".": {}}}}});
        remove(
            schema,
            ty,
            &mut object,
            fields.as_object().expect("is an object"),
        );
        assert_eq!(
            object,
            json!({"metadata": {"annotations": {}}, "spec": {"containers": [{"name": "a"}]}})
        );
    }
}
