//! What the targets share: types to decode against, and pairs of an object and a patch.

use serde_json::Value;
use windlass_api::resource::GroupVersionKind;
use windlass_api::schema::{Schema, TypeRef, builtin_kinds, decode_json};

/// The kind that a byte of the input chooses, and the rest of the input.
#[must_use]
pub fn choose_kind(data: &[u8]) -> Option<(GroupVersionKind, TypeRef, &[u8])> {
    let (first, rest) = data.split_first()?;
    let kinds = builtin_kinds().count();
    let (gvk, _) = builtin_kinds().nth(usize::from(*first) % kinds)?;
    let ty = Schema::builtin().kind(&gvk)?;
    Some((gvk, ty, rest))
}

/// The type that patches are tried on: it has lists of every sort.
#[must_use]
pub fn deployment() -> Option<TypeRef> {
    Schema::builtin().kind(&GroupVersionKind::of("apps", "v1", "Deployment"))
}

/// An input as `[object, patch]` in JSON.
#[must_use]
pub fn pair(data: &[u8]) -> Option<(Value, Value)> {
    match decode_json(data).ok()?.value {
        Value::Array(items) => {
            let [object, patch] = <[Value; 2]>::try_from(items).ok()?;
            Some((object, patch))
        }
        _ => None,
    }
}
