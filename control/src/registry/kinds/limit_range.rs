//! LimitRange: bounds and defaults for the resources of single pods, containers and claims.

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use windlass_api::names;
use windlass_api::quantity::Quantity;
use windlass_api::resource::GroupVersionKind;

use super::field_path::{Field, repeated};
use super::resource_names;
use crate::registry::field_error::FieldError;
use crate::registry::strategy::{Kind, Strategy};

struct LimitRange;

/// The row of the table.
pub(super) fn kind() -> Kind {
    let gvk = GroupVersionKind::of("", "v1", "LimitRange");
    Kind::namespaced(gvk, "limitranges", &LimitRange).short_names(&["limits"])
}

const TYPES: &[&str] = &["Pod", "Container", "PersistentVolumeClaim"];

impl Strategy for LimitRange {
    fn set_defaults(&self, object: &mut Value) {
        let limits = object.pointer_mut("/spec/limits");
        let limits = limits.and_then(Value::as_array_mut).into_iter().flatten();
        for limit in limits.filter_map(Value::as_object_mut) {
            if limit.get("type").and_then(Value::as_str) == Some("Container") {
                fill(limit, "max", "default");
                fill(limit, "default", "defaultRequest");
                fill(limit, "min", "defaultRequest");
            }
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let limits = Field::root(object).at("spec").at("limits").items();
        let types: Vec<_> = limits.iter().map(|limit| limit.at("type")).collect();
        let mut errors: Vec<_> = limits.iter().flat_map(validate_limit).collect();
        errors.extend(repeated(&types));
        errors
    }

    fn creates_on_update(&self) -> bool {
        true
    }
}

/// Gives `to` the resources that only `from` has.
fn fill(limit: &mut Map<String, Value>, from: &str, to: &str) {
    let Some(from) = limit.get(from).and_then(Value::as_object).cloned() else {
        return;
    };
    let to = limit.entry(to).or_insert_with(|| Map::new().into());
    for (name, amount) in from {
        if let Some(to) = to.as_object_mut() {
            super::default(to, &name, amount);
        }
    }
}

fn validate_limit(limit: &Field<'_>) -> Vec<FieldError> {
    let kind = limit.at("type");
    let mut errors = kind.checked(names::qualified_name);
    if errors.is_empty() && !kind.text().contains('/') && !TYPES.contains(&kind.text()) {
        errors.push(kind.invalid("must be a standard limit type or fully qualified"));
    }
    let of_pod = kind.text() == "Pod";
    let mut resources = BTreeSet::new();
    for list in [
        "max",
        "min",
        "default",
        "defaultRequest",
        "maxLimitRequestRatio",
    ] {
        let list_field = limit.at(list);
        if of_pod && list.starts_with("default") {
            if !list_field.is_empty() {
                errors.push(list_field.forbidden("may not be specified when `type` is 'Pod'"));
            }
            continue;
        }
        for (name, amount) in list_field.entries() {
            errors.extend(match kind.text() {
                "Pod" | "Container" => resource_names::container_resource(&amount, name),
                _ => resource_names::resource(&amount, name),
            });
            resources.insert(name);
        }
    }
    let storage = |list| limit.at(list).key("storage").is_set();
    if kind.text() == "PersistentVolumeClaim" && !storage("min") && !storage("max") {
        let detail =
            "either minimum or maximum storage value is required, but neither was provided";
        errors.push(limit.at("limits").required(detail));
    }
    for name in resources {
        errors.extend(validate_resource(limit, name, of_pod));
    }
    errors
}

/// What must hold between the amounts of one resource.
fn validate_resource(limit: &Field<'_>, name: &str, of_pod: bool) -> Vec<FieldError> {
    let at = |list: &str| limit.at(list).key(name);
    let amount = |list: &str| at(list).quantity();
    let default = |list: &str| amount(list).filter(|_| !of_pod);
    let (min, max) = (amount("min"), amount("max"));
    let (limited, request) = (default("default"), default("defaultRequest"));
    let (least, most) = ((min, "min value"), (max, "max value"));
    let asked = (request, "default request value");
    let given = (limited, "default value");
    // Whose error it is and whose value it shows, then the lower amount and the higher one.
    let pairs = [
        ("min", "min", least, most),
        ("defaultRequest", "defaultRequest", least, asked),
        ("defaultRequest", "defaultRequest", asked, most),
        (
            "defaultRequest",
            "defaultRequest",
            asked,
            (limited, "default limit value"),
        ),
        ("default", "min", least, given),
        ("default", "max", given, most),
    ];
    let mut errors = Vec::new();
    for (list, shown, (low, low_name), (high, high_name)) in pairs {
        if let (Some(low), Some(high)) = (low, high)
            && low > high
        {
            let detail = format!("{low_name} {low} is greater than {high_name} {high}");
            let value = at(shown).value().clone();
            errors.push(FieldError::invalid(at(list).path(), value, detail));
        }
    }
    errors.extend(validate_ratio(&at("maxLimitRequestRatio"), min, max));
    if let (Some(limited), Some(request)) = (limited, request)
        && !resource_names::may_overcommit(name)
        && limited != request
    {
        let detail = format!(
            "default value {limited} must equal to defaultRequest value {request} in {name}"
        );
        errors.push(at("defaultRequest").invalid(detail));
    }
    errors
}

#[expect(
    clippy::cast_precision_loss,
    reason = "upstream compares the ratio as a floating-point number"
)]
fn validate_ratio(
    ratio: &Field<'_>,
    min: Option<Quantity>,
    max: Option<Quantity>,
) -> Vec<FieldError> {
    let Some(wanted) = ratio.quantity() else {
        return Vec::new();
    };
    let mut errors = Vec::new();
    if wanted.millis() < 1000 {
        errors.push(ratio.invalid(format!("ratio {wanted} is less than 1")));
    }
    if let (Some(min), Some(max)) = (min, max) {
        let most = max.millis() as f64 / min.millis() as f64;
        if wanted.millis() as f64 / 1000.0 > most {
            let detail = format!("ratio {wanted} is greater than max/min = {most:.6}");
            errors.push(ratio.invalid(detail));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn range(limit: &Value) -> Value {
        let mut object = json!({"metadata": {"name": "l"}, "spec": {"limits": [limit]}});
        LimitRange.set_defaults(&mut object);
        object
    }

    #[test]
    fn a_containers_defaults_follow_from_its_bounds() {
        let object = range(&json!({
            "type": "Container", "max": {"cpu": "2"}, "min": {"cpu": "1", "memory": "1Gi"},
        }));
        let limit = &object["spec"]["limits"][0];
        assert_eq!(limit["default"], json!({"cpu": "2"}));
        assert_eq!(
            limit["defaultRequest"],
            json!({"cpu": "2", "memory": "1Gi"})
        );
        assert_eq!(LimitRange.validate(&object), []);
    }

    #[test]
    fn bounds_that_contradict_each_other_are_refused() {
        let object = range(&json!({
            "type": "Container", "max": {"cpu": "1"}, "min": {"cpu": "2"},
            "maxLimitRequestRatio": {"cpu": "500m"},
        }));
        let errors = LimitRange.validate(&object);
        let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
        for expected in [
            r#"spec.limits[0].min[cpu]: Invalid value: "2": min value 2 is greater than max value 1"#,
            r#"spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: "500m": ratio 500m is less than 1"#,
        ] {
            assert!(texts.iter().any(|t| t == expected), "{texts:#?}");
        }
    }

    #[test]
    fn a_pods_limits_have_no_defaults() {
        let object = range(&json!({"type": "Pod", "default": {"cpu": "1"}}));
        assert_eq!(
            LimitRange.validate(&object),
            [FieldError::forbidden(
                "spec.limits[0].default",
                "may not be specified when `type` is 'Pod'"
            )]
        );
    }
}
