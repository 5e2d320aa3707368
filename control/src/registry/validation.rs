//! Validation of what every object has: its metadata.

use serde_json::Value;
use windlass_api::names;

use super::field_error::FieldError;
use super::strategy::NameRule;
use super::{Call, object_meta as meta};

/// All annotations of an object together, keys and values.
const MAX_ANNOTATIONS: usize = 256 << 10;

/// All that is wrong with a new object's metadata.
#[must_use]
pub fn metadata(call: &Call<'_>, object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let rule = call.served.kind.strategy.name_rule();
    let (name, prefix) = (meta::name(object), meta::text(object, "generateName"));
    if !prefix.is_empty() {
        let problems = names::prefix(check_of(rule), prefix);
        errors.extend(invalid("metadata.generateName", prefix, problems));
    }
    if name.is_empty() {
        let detail = "name or generateName is required";
        errors.push(FieldError::required("metadata.name", detail));
    } else {
        errors.extend(invalid("metadata.name", name, check_of(rule)(name)));
    }
    errors.extend(common(object));
    errors
}

/// All that is wrong with a changed object's metadata.
#[must_use]
pub fn metadata_update(_call: &Call<'_>, old: &Value, new: &Value) -> Vec<FieldError> {
    let mut errors = common(new);
    if meta::is_terminating(old) {
        let before = meta::finalizers(old);
        let added = meta::finalizers(new)
            .into_iter()
            .filter(|f| !before.contains(f));
        let added: Vec<_> = added.collect();
        if !added.is_empty() {
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers {added:?}"
            );
            errors.push(FieldError::forbidden("metadata.finalizers", detail));
        }
    }
    errors
}

fn check_of(rule: NameRule) -> fn(&str) -> Vec<String> {
    match rule {
        NameRule::Subdomain => names::dns1123_subdomain,
        NameRule::Label => names::dns1123_label,
        NameRule::Rfc1035Label => names::dns1035_label,
        NameRule::PathSegment => names::path_segment,
        NameRule::Other(rule) => rule,
    }
}

fn common(object: &Value) -> Vec<FieldError> {
    let mut errors = labels("metadata.labels", meta::get(object, "labels"));
    errors.extend(annotations(meta::get(object, "annotations")));
    errors.extend(finalizers(object));
    errors.extend(owner_references(object));
    errors
}

/// All that is wrong with a map of labels at `path`.
#[must_use]
pub fn labels(path: &str, labels: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (key, value) in labels.and_then(Value::as_object).into_iter().flatten() {
        errors.extend(invalid(path, key, names::qualified_name(key)));
        let value = value.as_str().unwrap_or_default();
        errors.extend(invalid(path, value, names::label_value(value)));
    }
    errors
}

fn annotations(annotations: Option<&Value>) -> Vec<FieldError> {
    const PATH: &str = "metadata.annotations";
    let mut errors = Vec::new();
    let mut size = 0;
    for (key, value) in annotations.and_then(Value::as_object).into_iter().flatten() {
        errors.extend(invalid(
            PATH,
            key,
            names::qualified_name(&key.to_lowercase()),
        ));
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > MAX_ANNOTATIONS {
        let problem = super::field_error::Problem::TooLong(MAX_ANNOTATIONS);
        errors.push(FieldError {
            path: PATH.into(),
            problem,
        });
    }
    errors
}

fn finalizers(object: &Value) -> Vec<FieldError> {
    const PATH: &str = "metadata.finalizers";
    const BARE: [&str; 3] = ["orphan", "foregroundDeletion", "kubernetes"];
    let mut errors = Vec::new();
    for finalizer in meta::finalizers(object) {
        errors.extend(invalid(PATH, finalizer, names::qualified_name(finalizer)));
        if !finalizer.contains('/') && !BARE.contains(&finalizer) {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            errors.push(FieldError::invalid(PATH, finalizer, detail));
        }
    }
    if ["orphan", "foregroundDeletion"]
        .iter()
        .all(|f| meta::finalizers(object).contains(f))
    {
        let detail = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.push(FieldError::invalid(PATH, "orphan", detail));
    }
    errors
}

fn owner_references(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut controllers = 0;
    let owners = meta::get(object, "ownerReferences").and_then(Value::as_array);
    for (at, owner) in owners.into_iter().flatten().enumerate() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner
                .get(field)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .is_empty()
            {
                let path = format!("metadata.ownerReferences[{at}].{field}");
                errors.push(FieldError::invalid(path, "", "must not be empty"));
            }
        }
        controllers += usize::from(owner.get("controller") == Some(&Value::Bool(true)));
    }
    if controllers > 1 {
        let detail = "Only one reference can have Controller set to true";
        errors.push(FieldError::invalid(
            "metadata.ownerReferences",
            controllers,
            detail,
        ));
    }
    errors
}

/// One error per problem of the value at `path`.
pub fn invalid<'a>(
    path: &'a str,
    value: &'a str,
    problems: Vec<String>,
) -> impl Iterator<Item = FieldError> + 'a {
    problems
        .into_iter()
        .map(move |problem| FieldError::invalid(path, value, problem))
}
