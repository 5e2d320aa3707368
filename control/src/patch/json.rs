//! JSON Patch, RFC 6902.
//!
//! The operations are `json-patch`'s. Two bounds are ours, as upstream has them: the number of operations
//! and the bytes that `copy` adds, which could otherwise double with every operation.

use json_patch::{PatchErrorKind, PatchOperation};
use serde_json::Value;

use super::PatchError;

/// Most operations of one patch.
const MAX_OPERATIONS: usize = 10_000;
/// Most bytes that the `copy` operations of one patch may add.
const MAX_COPIED: usize = 3 << 20;

/// Applies a list of operations, all or none.
pub fn patch(current: &Value, patch: &Value) -> Result<Value, PatchError> {
    let operations: Vec<PatchOperation> = serde_json::from_value(patch.clone())
        .map_err(|error| PatchError::Malformed(error.to_string()))?;
    if operations.len() > MAX_OPERATIONS {
        return Err(PatchError::TooLarge(format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
            operations.len()
        )));
    }
    let mut patched = current.clone();
    let mut copied = 0;
    for operation in &operations {
        if let PatchOperation::Copy(copy) = operation {
            let source = patched.pointer(copy.from.as_str());
            copied += source.map_or(0, |source| weight(source, MAX_COPIED));
            if copied > MAX_COPIED {
                return Err(PatchError::TooLarge(format!(
                    "unable to copy, the accumulated size increase of copy is over the limit of {MAX_COPIED} bytes"
                )));
            }
        }
        json_patch::patch_unsafe(&mut patched, std::slice::from_ref(operation))
            .map_err(|error| does_not_fit(operation, &error.kind))?;
    }
    Ok(patched)
}

fn does_not_fit(operation: &PatchOperation, kind: &PatchErrorKind) -> PatchError {
    let path = operation.path();
    PatchError::DoesNotFit(match kind {
        PatchErrorKind::TestFailed => format!("testing value {path} failed"),
        kind => format!("the patch cannot be applied at path {path}: {kind}"),
    })
}

/// About the bytes of a value as JSON; stops counting soon after `limit`.
fn weight(value: &Value, limit: usize) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
        Value::String(text) => text.len() + 2,
        Value::Array(items) => sum(items.iter().map(|item| (0, item)), limit),
        Value::Object(fields) => sum(
            fields.iter().map(|(key, value)| (key.len() + 3, value)),
            limit,
        ),
    }
}

fn sum<'a>(parts: impl Iterator<Item = (usize, &'a Value)>, limit: usize) -> usize {
    let mut total = 2_usize;
    for (extra, part) in parts {
        total += extra + 1 + weight(part, limit);
        if total > limit {
            break;
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn operations_apply_in_order() {
        let patched = patch(
            &json!({"a": {"b": 1}, "l": [1, 2]}),
            &json!([
                {"op": "test", "path": "/a/b", "value": 1},
                {"op": "replace", "path": "/a/b", "value": 2},
                {"op": "add", "path": "/l/-", "value": 3},
                {"op": "remove", "path": "/l/0"},
                {"op": "add", "path": "/a~1b", "value": true},
            ]),
        );
        assert_eq!(
            patched,
            Ok(json!({"a": {"b": 2}, "l": [2, 3], "a/b": true}))
        );
    }

    #[test]
    fn what_does_not_fit_and_what_is_malformed_differ() {
        for operation in [
            json!({"op": "test", "path": "/a", "value": 2}),
            json!({"op": "remove", "path": "/b"}),
            json!({"op": "replace", "path": "/x/y", "value": 1}),
        ] {
            let result = patch(&json!({"a": 1}), &json!([operation]));
            assert!(
                matches!(result, Err(PatchError::DoesNotFit(_))),
                "{operation}: {result:?}"
            );
        }
        for malformed in [
            json!({}),
            json!([{"op": "jump", "path": "/a"}]),
            json!([{"op": "add", "path": "a", "value": 1}]),
        ] {
            let result = patch(&json!({}), &malformed);
            assert!(
                matches!(result, Err(PatchError::Malformed(_))),
                "{malformed}: {result:?}"
            );
        }
    }

    #[test]
    fn copies_that_double_are_stopped() {
        let copy = json!({"op": "copy", "from": "/a", "path": "/a/-"});
        let result = patch(
            &json!({"a": ["x".repeat(64)]}),
            &Value::Array(vec![copy; 64]),
        );
        assert!(matches!(result, Err(PatchError::TooLarge(_))));
        let many = Value::Array(vec![
            json!({"op": "test", "path": "", "value": {}});
            MAX_OPERATIONS + 1
        ]);
        assert!(matches!(
            patch(&json!({}), &many),
            Err(PatchError::TooLarge(_))
        ));
    }
}
