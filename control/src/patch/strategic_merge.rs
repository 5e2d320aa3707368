//! Strategic merge patch: a merge patch whose lists merge by key, as the schema says.
//!
//! Objects merge field by field and `null` removes. A list whose field has the strategy `merge` merges
//! item by item: objects by the field's merge key, scalars as a set. Any other list is replaced.
//! Directives inside the patch:
//!
//! | directive | where | what |
//! |---|---|---|
//! | `$patch: replace` | object, or an item of a list | what is there is dropped, the rest of the patch takes its place |
//! | `$patch: delete` | object, or a keyed item | the object or item is removed |
//! | `$patch: merge` | object, or a keyed item | the default, said aloud |
//! | `$retainKeys: [..]` | object | every other key is dropped |
//! | `$deleteFromPrimitiveList/F: [..]` | object | these scalars leave the list `F` |
//! | `$setElementOrder/F: [..]` | object | the items of `F` come in this order |
//!
//! Spec: apimachinery's `strategicpatch`. An item that only the object has keeps its place relative to the
//! object's other items as far as the patch's order allows.

use std::collections::HashMap;

use serde_json::{Map, Value};
use windlass_api::schema::{PatchStrategy, Schema, Type, TypeRef};

use super::PatchError;

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const SET_ORDER: &str = "$setElementOrder/";

type Object = Map<String, Value>;

/// Applies a strategic merge patch to an object of a type.
pub fn patch(
    schema: &Schema,
    ty: TypeRef,
    current: &Value,
    patch: &Value,
) -> Result<Value, PatchError> {
    let (Value::Object(current), Value::Object(patch)) = (current, patch) else {
        return Err(malformed("a strategic merge patch must be a JSON object"));
    };
    let mut object = current.clone();
    Merge { schema }.objects(ty, &mut object, patch)?;
    Ok(Value::Object(object))
}

fn malformed(text: impl Into<String>) -> PatchError {
    PatchError::Malformed(text.into())
}

struct Merge<'a> {
    schema: &'a Schema,
}

impl Merge<'_> {
    fn objects(&self, ty: TypeRef, object: &mut Object, patch: &Object) -> Result<(), PatchError> {
        match directive(patch)? {
            Some(Directive::Replace) => object.clear(),
            Some(Directive::Delete) => {
                object.clear();
                return Ok(());
            }
            Some(Directive::Merge) | None => {}
        }
        retain_keys(object, patch)?;
        for (key, scalars) in patch {
            if let Some(name) = key.strip_prefix(DELETE_FROM) {
                delete_scalars(object, name, scalars)?;
            }
        }
        for (name, value) in patch.iter().filter(|(name, _)| !name.starts_with('$')) {
            self.field(ty, object, name, value, patch)?;
        }
        self.order_untouched_lists(ty, object, patch)
    }

    fn field(
        &self,
        ty: TypeRef,
        object: &mut Object,
        name: &str,
        value: &Value,
        patch: &Object,
    ) -> Result<(), PatchError> {
        if value.is_null() {
            object.shift_remove(name);
            return Ok(());
        }
        let field_ty = self.schema.field_type(ty, name);
        match (value, object.get_mut(name)) {
            (Value::Object(value), Some(Value::Object(own))) => self.objects(field_ty, own, value),
            // Directives and nulls of the patch must not end up in the object.
            (Value::Object(value), _) => {
                if directive(value)? == Some(Directive::Delete) {
                    object.shift_remove(name);
                    return Ok(());
                }
                let mut fresh = Object::new();
                self.objects(field_ty, &mut fresh, value)?;
                object.insert(name.to_owned(), Value::Object(fresh));
                Ok(())
            }
            (Value::Array(items), own) => {
                let own = match own {
                    Some(Value::Array(own)) => std::mem::take(own),
                    _ => Vec::new(),
                };
                let order = order(patch, name)?;
                let merged = self.lists(ty, name, own, items, order)?;
                object.insert(name.to_owned(), Value::Array(merged));
                Ok(())
            }
            (scalar, _) => {
                object.insert(name.to_owned(), scalar.clone());
                Ok(())
            }
        }
    }

    fn strategy(&self, ty: TypeRef, name: &str) -> PatchStrategy {
        match self.schema.get(ty) {
            Type::Struct(of) => of
                .field(name)
                .map(|field| field.patch.clone())
                .unwrap_or_default(),
            _ => PatchStrategy::default(),
        }
    }

    fn lists(
        &self,
        ty: TypeRef,
        name: &str,
        own: Vec<Value>,
        items: &[Value],
        order: Option<&[Value]>,
    ) -> Result<Vec<Value>, PatchError> {
        let strategy = self.strategy(ty, name);
        let item_ty = self.schema.item_type(self.schema.field_type(ty, name));
        let before = own.clone();
        match (strategy.merge, strategy.merge_key.as_deref()) {
            (true, Some(key)) => {
                let (merged, named) = self.keyed_items(item_ty, key, own, items)?;
                Ok(arrange(merged, order.unwrap_or(&named), &before, Some(key)))
            }
            (true, None) => {
                let mut merged = own;
                for item in items {
                    if !merged.contains(item) {
                        merged.push(item.clone());
                    }
                }
                Ok(arrange(merged, order.unwrap_or(items), &before, None))
            }
            (false, _) => items.iter().map(|item| self.plain(item_ty, item)).collect(),
        }
    }

    /// An item that replaces what was there, without directives and nulls.
    fn plain(&self, ty: TypeRef, item: &Value) -> Result<Value, PatchError> {
        let Value::Object(patch) = item else {
            return Ok(item.clone());
        };
        let mut fresh = Object::new();
        self.objects(ty, &mut fresh, patch)?;
        Ok(Value::Object(fresh))
    }

    /// Merges the items of a patch into a list by key. Also answers the items that count for the order.
    fn keyed_items(
        &self,
        ty: TypeRef,
        key: &str,
        mut own: Vec<Value>,
        items: &[Value],
    ) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
        let mut named = Vec::new();
        for item in items {
            let Value::Object(patch) = item else {
                return Err(malformed(format!(
                    "invalid list item {item}: an object with the merge key {key} is expected"
                )));
            };
            match directive(patch)? {
                Some(Directive::Replace) if !patch.contains_key(key) => own.clear(),
                Some(Directive::Delete) => {
                    let gone = merge_key(patch, key)?;
                    own.retain(|item| item.get(key) != Some(gone));
                }
                _ => {
                    let wanted = merge_key(patch, key)?;
                    named.push(item.clone());
                    match own.iter_mut().find(|item| item.get(key) == Some(wanted)) {
                        Some(Value::Object(found)) => self.objects(ty, found, patch)?,
                        _ => own.push(self.plain(ty, item)?),
                    }
                }
            }
        }
        Ok((own, named))
    }

    /// Orders lists that the patch orders without changing any of their items.
    fn order_untouched_lists(
        &self,
        ty: TypeRef,
        object: &mut Object,
        patch: &Object,
    ) -> Result<(), PatchError> {
        for name in patch.keys().filter_map(|key| key.strip_prefix(SET_ORDER)) {
            let strategy = self.strategy(ty, name);
            let (Some(order), true) = (order(patch, name)?, strategy.merge) else {
                continue;
            };
            let Some(Value::Array(own)) = object.get_mut(name) else {
                continue;
            };
            if !patch.contains_key(name) {
                let before = own.clone();
                let items = std::mem::take(own);
                *own = arrange(items, order, &before, strategy.merge_key.as_deref());
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Directive {
    Merge,
    Replace,
    Delete,
}

fn directive(patch: &Object) -> Result<Option<Directive>, PatchError> {
    let Some(directive) = patch.get(DIRECTIVE) else {
        return Ok(None);
    };
    match directive.as_str() {
        Some("merge") => Ok(Some(Directive::Merge)),
        Some("replace") => Ok(Some(Directive::Replace)),
        Some("delete") => Ok(Some(Directive::Delete)),
        _ => Err(malformed(format!(
            "unrecognized directive {directive} for {DIRECTIVE}"
        ))),
    }
}

fn list<'a>(key: &str, value: &'a Value) -> Result<&'a [Value], PatchError> {
    let items = value.as_array().map(Vec::as_slice);
    items.ok_or_else(|| malformed(format!("{key} must be a list")))
}

fn order<'a>(patch: &'a Object, name: &str) -> Result<Option<&'a [Value]>, PatchError> {
    let key = format!("{SET_ORDER}{name}");
    patch.get(&key).map(|order| list(&key, order)).transpose()
}

fn merge_key<'a>(item: &'a Object, key: &str) -> Result<&'a Value, PatchError> {
    item.get(key).ok_or_else(|| {
        let item = Value::Object(item.clone());
        malformed(format!(
            "map: {item} does not contain declared merge key: {key}"
        ))
    })
}

fn retain_keys(object: &mut Object, patch: &Object) -> Result<(), PatchError> {
    let Some(retained) = patch.get(RETAIN_KEYS) else {
        return Ok(());
    };
    let retained = list(RETAIN_KEYS, retained)?;
    let is_retained = |key: &str| {
        retained
            .iter()
            .any(|retained| retained.as_str() == Some(key))
    };
    let stated = |(key, value): &(&String, &Value)| !key.starts_with('$') && !value.is_null();
    if let Some((key, _)) = patch
        .iter()
        .filter(stated)
        .find(|(key, _)| !is_retained(key))
    {
        return Err(malformed(format!(
            "{RETAIN_KEYS} must contain all fields present in the patch: {key} is missing"
        )));
    }
    object.retain(|key, _| is_retained(key));
    Ok(())
}

fn delete_scalars(object: &mut Object, name: &str, scalars: &Value) -> Result<(), PatchError> {
    let scalars = list(DELETE_FROM, scalars)?;
    if let Some(Value::Array(own)) = object.get_mut(name) {
        own.retain(|item| !scalars.contains(item));
    }
    Ok(())
}

/// Orders merged items: those that `order` names, in its order; the others, in the order they had, each
/// before the first named item that used to follow it. So new items come before the others.
fn arrange(items: Vec<Value>, order: &[Value], before: &[Value], key: Option<&str>) -> Vec<Value> {
    let identity = |item: &Value| match key {
        Some(key) => item.get(key).map(ToString::to_string),
        None => Some(item.to_string()),
    };
    let places = |items: &[Value]| -> HashMap<String, usize> {
        let named = |(at, item)| identity(item).map(|identity| (identity, at));
        // Of equal items the first place counts.
        items.iter().enumerate().rev().filter_map(named).collect()
    };
    let (ordered_at, before_at) = (places(order), places(before));
    let place = |places: &HashMap<String, usize>, item: &Value| {
        identity(item).and_then(|identity| places.get(&identity).copied())
    };
    let (mut named, mut others): (Vec<_>, Vec<_>) = items
        .into_iter()
        .partition(|item| place(&ordered_at, item).is_some());
    named.sort_by_key(|item| place(&ordered_at, item));
    others.sort_by_key(|item| place(&before_at, item).unwrap_or(usize::MAX));

    let mut arranged = Vec::with_capacity(named.len() + others.len());
    let mut others = others.into_iter().peekable();
    for item in named {
        let at = place(&before_at, &item);
        let precedes = |other: &Value| match (place(&before_at, other), at) {
            (Some(other), Some(at)) => other < at,
            _ => false,
        };
        while let Some(other) = others.next_if(|other| precedes(other)) {
            arranged.push(other);
        }
        arranged.push(item);
    }
    arranged.extend(others);
    arranged
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;
    use windlass_api::resource::GroupVersionKind;

    fn deployment() -> (&'static Schema, TypeRef) {
        let schema = Schema::builtin();
        let ty = schema.kind(&GroupVersionKind::of("apps", "v1", "Deployment"));
        (schema, ty.expect("is built in"))
    }

    fn apply(current: &Value, change: &Value) -> Result<Value, PatchError> {
        let (schema, ty) = deployment();
        patch(schema, ty, current, change)
    }

    fn pod(spec: &Value) -> Value {
        json!({"spec": {"template": {"spec": spec}}})
    }

    fn table(cases: &[(&str, Value, Value, Value)]) {
        for (name, current, change, expected) in cases {
            let result = apply(&pod(current), &pod(change));
            assert_eq!(result, Ok(pod(expected)), "{name}");
        }
    }

    #[test]
    fn keyed_lists_merge_item_by_item() {
        let one = json!({"name": "one", "image": "a"});
        let two = json!({"name": "two", "image": "b"});
        table(&[
            (
                "an item is changed",
                json!({"containers": [one, two]}),
                json!({"containers": [{"name": "two", "image": "c"}]}),
                json!({"containers": [one, {"name": "two", "image": "c"}]}),
            ),
            (
                "an item is added, in front as upstream puts it",
                json!({"containers": [one]}),
                json!({"containers": [two]}),
                json!({"containers": [two, one]}),
            ),
            (
                "an item is deleted",
                json!({"containers": [one, two]}),
                json!({"containers": [{"name": "one", "$patch": "delete"}]}),
                json!({"containers": [two]}),
            ),
            (
                "the list is replaced",
                json!({"containers": [one]}),
                json!({"containers": [{"$patch": "replace"}, two]}),
                json!({"containers": [two]}),
            ),
            (
                "an item is replaced",
                json!({"containers": [one]}),
                json!({"containers": [{"$patch": "replace", "name": "one", "args": ["x"]}]}),
                json!({"containers": [{"name": "one", "args": ["x"]}]}),
            ),
            (
                "nulls in new items vanish",
                json!({}),
                json!({"containers": [{"name": "x", "image": null}], "nodeSelector": {"a": null}}),
                json!({"containers": [{"name": "x"}], "nodeSelector": {}}),
            ),
            (
                "nested lists merge too",
                json!({"containers": [{"name": "c", "env": [{"name": "A", "value": "1"}], "args": ["x"]}]}),
                json!({"containers": [{"name": "c", "env": [{"name": "B", "value": "2"}], "args": ["y"]}]}),
                json!({"containers": [{"name": "c", "env": [{"name": "B", "value": "2"}, {"name": "A", "value": "1"}], "args": ["y"]}]}),
            ),
            (
                "lists without a strategy are replaced",
                json!({"tolerations": [{"key": "a"}]}),
                json!({"tolerations": [{"key": "b"}]}),
                json!({"tolerations": [{"key": "b"}]}),
            ),
        ]);
    }

    #[test]
    fn the_patch_decides_the_order_of_what_it_names() {
        let named =
            |names: &[&str]| -> Value { names.iter().map(|name| json!({"name": name})).collect() };
        table(&[
            (
                "order alone",
                json!({"containers": named(&["a", "b", "c"])}),
                json!({"$setElementOrder/containers": named(&["c", "b", "a"])}),
                json!({"containers": named(&["c", "b", "a"])}),
            ),
            (
                "with a new item in front",
                json!({"containers": named(&["a", "b"])}),
                json!({"$setElementOrder/containers": named(&["new", "a", "b"]), "containers": named(&["new"])}),
                json!({"containers": named(&["new", "a", "b"])}),
            ),
            (
                "items of others stay where they were",
                json!({"containers": named(&["a", "other", "b"])}),
                json!({"$setElementOrder/containers": named(&["b", "a"]), "containers": named(&["a", "b"])}),
                json!({"containers": named(&["other", "b", "a"])}),
            ),
        ]);
    }

    #[test]
    fn scalars_of_merged_lists_form_a_set() {
        let finalizers = |names: Value| json!({"metadata": {"finalizers": names}});
        for (current, change, expected) in [
            (
                json!(["a"]),
                json!({"finalizers": ["b", "a"]}),
                json!(["b", "a"]),
            ),
            (
                json!(["a", "b"]),
                json!({"$deleteFromPrimitiveList/finalizers": ["a"]}),
                json!(["b"]),
            ),
            (
                json!(["a", "b"]),
                json!({"$setElementOrder/finalizers": ["c", "b"], "finalizers": ["c"],
                "$deleteFromPrimitiveList/finalizers": ["a"]}),
                json!(["c", "b"]),
            ),
        ] {
            let result = apply(&finalizers(current), &json!({"metadata": change.clone()}));
            assert_eq!(result, Ok(finalizers(expected)), "{change}");
        }
    }

    #[test]
    fn objects_are_replaced_deleted_and_trimmed_by_directives() {
        let strategy = |strategy: Value| json!({"spec": {"strategy": strategy}});
        let rolling = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}});
        for (change, expected) in [
            (
                json!({"$retainKeys": ["type"], "type": "Recreate"}),
                json!({"type": "Recreate"}),
            ),
            (
                json!({"$patch": "replace", "type": "Recreate"}),
                json!({"type": "Recreate"}),
            ),
            (json!({"$patch": "delete"}), json!({})),
            (
                json!({"rollingUpdate": null}),
                json!({"type": "RollingUpdate"}),
            ),
        ] {
            assert_eq!(
                apply(&strategy(rolling.clone()), &strategy(change.clone())),
                Ok(strategy(expected)),
                "{change}"
            );
        }
    }

    #[test]
    fn malformed_patches_are_refused() {
        for change in [
            json!([]),
            json!({"spec": {"$patch": "jump"}}),
            json!({"spec": {"strategy": {"$retainKeys": "type"}}}),
            json!({"spec": {"strategy": {"$retainKeys": [], "type": "Recreate"}}}),
            pod(&json!({"containers": [{"image": "x"}]})),
            pod(&json!({"containers": ["x"]})),
            pod(&json!({"$setElementOrder/containers": 1, "containers": []})),
        ] {
            let result = apply(&json!({"spec": {"strategy": {"type": "x"}}}), &change);
            assert!(
                matches!(result, Err(PatchError::Malformed(_))),
                "{change}: {result:?}"
            );
        }
    }

    fn container() -> impl Strategy<Value = Value> {
        (
            "[abc]",
            "[xyz]",
            prop::collection::vec(("[AB]", "[12]"), 0..3),
        )
            .prop_map(|(name, image, env)| {
                let env: std::collections::BTreeMap<_, _> = env.into_iter().collect();
                let env: Vec<_> = env
                    .into_iter()
                    .map(|(name, value)| json!({"name": name, "value": value}))
                    .collect();
                json!({"name": name, "image": image, "env": env})
            })
    }

    fn containers() -> impl Strategy<Value = Value> {
        prop::collection::vec(container(), 0..4).prop_map(|mut containers| {
            containers.sort_by_key(|c| c["name"].to_string());
            containers.dedup_by_key(|c| c["name"].to_string());
            pod(&json!({"containers": containers}))
        })
    }

    proptest! {
        #[test]
        fn applying_a_patch_twice_changes_nothing_more(current in containers(), change in containers()) {
            let once = apply(&current, &change).expect("applies");
            prop_assert_eq!(apply(&once, &change).expect("applies"), once);
        }
    }
}
