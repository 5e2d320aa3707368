//! Rules that requests for devices and devices themselves share.

use windlass_api::names;

use crate::registry::field_error::FieldError;
use crate::registry::kinds::field_path::{Field, repeated};
use crate::registry::kinds::rules;

/// Elements of most lists of requests, selectors, constraints and settings.
pub(super) const MAX_ITEMS: usize = 32;
/// Bytes of an expression, and of the parameters of a driver.
const MAX_BYTES: usize = 10 << 10;
/// Characters of a pool's name.
const MAX_POOL_NAME: usize = 253;
/// Characters of an attribute's name behind its domain.
const MAX_IDENTIFIER: usize = 32;

const OPERATORS: &[&str] = &["Equal", "Exists"];
const EFFECTS: &[&str] = &["NoExecute", "NoSchedule", "None"];

/// The elements by `rule`, if there are no more than `max`.
pub(super) fn list(
    list: &Field<'_>,
    max: usize,
    rule: impl Fn(&Field<'_>) -> Vec<FieldError>,
) -> Vec<FieldError> {
    if list.len() > max {
        return vec![list.too_many(max)];
    }
    list.items().iter().flat_map(rule).collect()
}

/// The same, and no two elements have the same `key`.
pub(super) fn set(
    elements: &Field<'_>,
    max: usize,
    key: &str,
    rule: impl Fn(&Field<'_>) -> Vec<FieldError>,
) -> Vec<FieldError> {
    let mut errors = list(elements, max, rule);
    if elements.len() <= max {
        let items = elements.items();
        // Upstream names the element, with the key as its value.
        let keys: Vec<_> = items
            .iter()
            .map(|item| match key {
                "" => item.clone(),
                key => Field::new(item.path(), item.at(key).value()),
            })
            .collect();
        errors.extend(repeated(&keys));
    }
    errors
}

/// What may be asked of devices.
pub(super) fn selectors(selectors: &Field<'_>) -> Vec<FieldError> {
    list(selectors, MAX_ITEMS, |selector| {
        let cel = selector.at("cel");
        let expression = cel.at("expression");
        if !cel.is_set() {
            vec![cel.required("")]
        } else if expression.len() > MAX_BYTES {
            vec![expression.too_long(MAX_BYTES)]
        } else {
            Vec::new()
        }
    })
}

/// What a driver is to know of a device.
pub(super) fn configuration(config: &Field<'_>) -> Vec<FieldError> {
    let opaque = config.at("opaque");
    if !opaque.is_set() {
        return vec![opaque.required("")];
    }
    let mut errors = rules::csi_driver_name(&opaque.at("driver"));
    errors.extend(raw_object(&opaque.at("parameters")));
    errors
}

/// An object of any shape, not too large.
pub(super) fn raw_object(raw: &Field<'_>) -> Option<FieldError> {
    if !raw.is_set() {
        Some(raw.required(""))
    } else if raw.value().to_string().len() > MAX_BYTES {
        Some(raw.too_long(MAX_BYTES))
    } else if !raw.value().is_object() {
        let detail = "must be a valid JSON object";
        Some(FieldError::invalid(raw.path(), "<value omitted>", detail))
    } else {
        None
    }
}

/// The name of a pool: DNS subdomains between slashes.
pub(super) fn pool_name(name: &Field<'_>) -> Vec<FieldError> {
    if name.is_empty() {
        return vec![name.required("")];
    }
    let mut errors = Vec::new();
    if name.len() > MAX_POOL_NAME {
        errors.push(name.too_long(MAX_POOL_NAME));
    }
    for part in name.text().split('/') {
        let problems = names::dns1123_subdomain(part).into_iter();
        errors.extend(problems.map(|problem| FieldError::invalid(name.path(), part, problem)));
    }
    errors
}

/// `name` is an identifier, with or without the domain of who defines it. `field` is where it stands.
pub(super) fn qualified_name(field: &Field<'_>, name: &str) -> Vec<FieldError> {
    let at = |detail: &str| FieldError::invalid(field.path(), "", detail);
    let mut parts = name.split('/');
    let (first, second, third) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    let Some(second) = second else {
        return identifier(field, first);
    };
    if third.is_some() {
        let detail = "must not contain more than one slash";
        return vec![FieldError::invalid(field.path(), name, detail)];
    }
    let mut errors = Vec::new();
    if first.is_empty() {
        errors.push(at("the domain must not be empty"));
    } else {
        let domain = first.into();
        errors.extend(rules::csi_driver_name(&Field::new(field.path(), &domain)));
    }
    if second.is_empty() {
        errors.push(at("the name must not be empty"));
    } else {
        errors.extend(identifier(field, second));
    }
    errors
}

/// The text is a name with its domain.
pub(super) fn fully_qualified_name(field: &Field<'_>) -> Vec<FieldError> {
    let mut errors = qualified_name(field, field.text());
    if !field.text().contains('/') {
        let detail = "a fully qualified name must be a domain and a name separated by a slash";
        errors.push(field.invalid(detail));
    }
    errors
}

fn identifier(field: &Field<'_>, name: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if name.len() > MAX_IDENTIFIER {
        errors.push(field.too_long(MAX_IDENTIFIER));
    }
    let problems = names::c_identifier(name).into_iter();
    errors.extend(problems.map(|problem| FieldError::invalid(field.path(), name, problem)));
    errors
}

/// A taint of a device.
pub(super) fn taint(taint: &Field<'_>) -> Vec<FieldError> {
    let mut errors = taint.at("key").checked(names::qualified_name);
    errors.extend(taint.at("value").follows(names::label_value));
    errors.extend(taint.at("effect").must_be_one_of(EFFECTS));
    errors
}

/// A toleration of devices' taints.
pub(super) fn toleration(toleration: &Field<'_>) -> Vec<FieldError> {
    let (operator, value) = (toleration.at("operator"), toleration.at("value"));
    let mut errors = toleration.at("key").follows(names::qualified_name);
    match operator.text() {
        "Exists" if !value.is_empty() => {
            errors.push(value.invalid("must be empty for operator `Exists`"));
        }
        "Equal" => errors.extend(value.follows(names::label_value)),
        _ => errors.extend(operator.must_be_one_of(OPERATORS)),
    }
    let effect = toleration.at("effect");
    if !effect.is_empty() {
        errors.extend(effect.one_of(EFFECTS));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn attributes_are_identifiers_with_or_without_a_domain() {
        let value = json!(1);
        let field = Field::new("a", &value);
        for (name, valid) in [
            ("memory", true),
            ("gpu.example.com/memory", true),
            ("/memory", false),
            ("gpu.example.com/", false),
            ("a/b/c", false),
            ("1x", false),
        ] {
            assert_eq!(qualified_name(&field, name).is_empty(), valid, "{name}");
        }
    }
}
