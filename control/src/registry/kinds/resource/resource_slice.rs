//! ResourceSlice: devices a driver offers, on a node or for several.

use jiff::Timestamp;
use serde_json::Value;
use windlass_api::names;
use windlass_api::quantity::Quantity;
use windlass_api::resource::GroupVersionKind;

use super::GROUP;
use super::device_rules::{list, pool_name, qualified_name, set, taint};
use crate::registry::age;
use crate::registry::field_error::FieldError;
use crate::registry::kinds::field_path::Field;
use crate::registry::kinds::{rules, text};
use crate::registry::object_meta as meta;
use crate::registry::strategy::{AGE, Column, Endpoint, Kind, NAME, Strategy};

struct ResourceSlice;

/// The row of the table.
pub(in crate::registry::kinds) fn kind() -> Kind {
    let gvk = GroupVersionKind::of(GROUP, "v1", "ResourceSlice");
    Kind::cluster(gvk, "resourceslices", &ResourceSlice)
}

const COLUMNS: &[Column] = &[
    NAME,
    Column::new("Node", "string", "The node that has the devices."),
    Column::new("Driver", "string", "The driver that offers them."),
    Column::new("Pool", "string", "The pool they belong to."),
    AGE,
];

const MAX_DEVICES: usize = 128;
/// The same, when a device has taints or consumes counters.
const MAX_ELABORATE_DEVICES: usize = 64;
const MAX_PROPERTIES: usize = 32;
const MAX_COUNTER_SETS: usize = 8;
const MAX_COUNTERS: usize = 32;
const MAX_TAINTS: usize = 16;
const MAX_CONSUMPTIONS: usize = 2;
const MAX_TEXT: usize = 64;

const OF_SLICE: [&str; 4] = [
    "nodeName",
    "nodeSelector",
    "allNodes",
    "perDeviceNodeSelection",
];
const OF_DEVICE: [&str; 3] = ["nodeName", "nodeSelector", "allNodes"];

impl Strategy for ResourceSlice {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let spec = Field::root(object).at("spec");
        let (devices, counters) = (spec.at("devices"), spec.at("sharedCounters"));
        let mut errors = rules::csi_driver_name(&spec.at("driver"));
        errors.extend(validate_pool(&spec.at("pool")));
        errors.extend(validate_nodes(&spec));
        if devices.is_set() && counters.is_set() {
            let detail = "only one of `sharedCounters` or `devices` is allowed";
            errors.push(FieldError::invalid(spec.path(), "", detail));
        }
        let elaborate = |device: &Field<'_>| {
            !device.at("taints").is_empty() || !device.at("consumesCounters").is_empty()
        };
        let max = if devices.items().iter().any(elaborate) {
            MAX_ELABORATE_DEVICES
        } else {
            MAX_DEVICES
        };
        let per_device = spec.at("perDeviceNodeSelection").is_true();
        errors.extend(set(&devices, max, "name", |device| {
            validate_device(device, per_device)
        }));
        errors.extend(set(&counters, MAX_COUNTER_SETS, "name", |counters| {
            validate_counters(counters, "name")
        }));
        errors
    }

    fn validate_update(&self, old: &Value, new: &Value, _: Endpoint) -> Vec<FieldError> {
        let (old, new) = (Field::root(old).at("spec"), Field::root(new).at("spec"));
        let mut errors = Vec::new();
        errors.extend(
            new.at("pool")
                .at("name")
                .unchanged(&old.at("pool").at("name")),
        );
        for field in ["driver", "nodeName"] {
            errors.extend(new.at(field).unchanged(&old.at(field)));
        }
        errors
    }

    fn not_enforced(&self) -> Option<&'static str> {
        Some("ResourceSlice is stored but Windlass allocates no devices yet")
    }

    fn counts_generations(&self) -> bool {
        true
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["spec.nodeName", "spec.driver"]
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![
            meta::name(object).into(),
            text(object, "/spec/nodeName").into(),
            text(object, "/spec/driver").into(),
            text(object, "/spec/pool/name").into(),
            age(object, now).into(),
        ]
    }
}

fn validate_pool(pool: &Field<'_>) -> Vec<FieldError> {
    let (slices, generation) = (pool.at("resourceSliceCount"), pool.at("generation"));
    let mut errors = pool_name(&pool.at("name"));
    if slices.integer() <= 0 {
        let detail = "must be greater than zero";
        errors.push(FieldError::invalid(slices.path(), slices.integer(), detail));
    }
    if generation.integer() < 0 {
        errors.push(generation.invalid("must be greater than or equal to zero"));
    }
    errors
}

/// Which of `fields` are set, as errors name them, and what is wrong with them.
fn node_fields(of: &Field<'_>, fields: &[&str], empty: &str) -> (Vec<String>, Vec<FieldError>) {
    let (mut set, mut errors) = (Vec::new(), Vec::new());
    for name in fields {
        let field = of.at(name);
        match field.value() {
            Value::Null => continue,
            Value::String(text) if text.is_empty() => {
                errors.push(field.invalid(empty));
                continue;
            }
            Value::Bool(false) => {
                errors.push(field.invalid("must be either unset or set to true"));
                continue;
            }
            Value::String(_) => errors.extend(field.follows(names::dns1123_subdomain)),
            Value::Object(_) => errors.extend(rules::node_selector(&field)),
            _ => {}
        }
        set.push(format!("`{name}`"));
    }
    (set, errors)
}

fn validate_nodes(spec: &Field<'_>) -> Vec<FieldError> {
    const ONE: &str = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    let empty = "must be either unset or set to a non-empty string";
    let (set, mut errors) = node_fields(spec, &OF_SLICE, empty);
    let terms = spec.at("nodeSelector").at("nodeSelectorTerms");
    if spec.at("nodeSelector").is_set() && terms.len() != 1 {
        // One term is what selectors of several slices can be merged from.
        errors.push(terms.invalid("must have exactly one node selector term"));
    }
    match set.len() {
        0 => errors.push(spec.required(ONE)),
        1 => {}
        _ => {
            let detail = format!("{ONE}, but multiple fields are set");
            let value = format!("{{{}}}", set.join(", "));
            errors.push(FieldError::invalid(spec.path(), value, detail));
        }
    }
    errors
}

fn validate_device(device: &Field<'_>, per_device: bool) -> Vec<FieldError> {
    let (attributes, capacity) = (device.at("attributes"), device.at("capacity"));
    let mut errors = device.at("name").checked(names::dns1123_label);
    let properties = attributes.len() + capacity.len();
    if properties > MAX_PROPERTIES {
        let detail = format!(
            "the total number of attributes and capacities must not exceed {MAX_PROPERTIES}"
        );
        errors.push(FieldError::invalid(device.path(), properties, detail));
    }
    for (name, attribute) in attributes.entries() {
        errors.extend(qualified_name(&attribute, name));
        errors.extend(validate_attribute(&attribute));
    }
    let shared = device.at("allowMultipleAllocations").is_true();
    for (name, capacity) in capacity.entries() {
        errors.extend(qualified_name(&capacity, name));
        errors.extend(validate_capacity(&capacity, shared));
    }
    errors.extend(list(&device.at("taints"), MAX_TAINTS, taint));
    let consumed = device.at("consumesCounters");
    errors.extend(set(&consumed, MAX_CONSUMPTIONS, "counterSet", |counters| {
        validate_counters(counters, "counterSet")
    }));
    errors.extend(validate_device_nodes(device, per_device));
    errors
}

fn validate_device_nodes(device: &Field<'_>, per_device: bool) -> Vec<FieldError> {
    const ONE: &str = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
    if !per_device {
        let detail = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
        let any = OF_DEVICE.iter().any(|field| device.at(field).is_set());
        let error = || FieldError::invalid(device.path(), Value::Null, detail);
        return any.then(error).into_iter().collect();
    }
    let (set, mut errors) = node_fields(device, &OF_DEVICE, "must not be empty");
    match set.len() {
        0 => errors.push(device.required(ONE)),
        1 => {}
        _ => {
            let value = format!("{{{}}}", set.join(", "));
            errors.push(FieldError::invalid(device.path(), value, ONE));
        }
    }
    errors
}

fn validate_attribute(attribute: &Field<'_>) -> Vec<FieldError> {
    let (string, version) = (attribute.at("string"), attribute.at("version"));
    let mut errors = Vec::new();
    if version.is_set() && !is_semantic_version(version.text()) {
        let detail = "must be a string compatible with semver.org spec 2.0.0";
        errors.push(version.invalid(detail));
    }
    let long = [&string, &version]
        .into_iter()
        .filter(|text| text.len() > MAX_TEXT);
    errors.extend(long.map(|text| text.too_long(MAX_TEXT)));
    let values = ["bool", "int", "string", "version"].iter();
    let set = values.filter(|kind| attribute.at(kind).is_set()).count();
    let detail = "exactly one value must be specified";
    match set {
        0 => errors.push(FieldError::invalid(attribute.path(), "", detail)),
        1 => {}
        _ => errors.push(attribute.invalid(detail)),
    }
    errors
}

/// `MAJOR.MINOR.PATCH-PRERELEASE+BUILD`, the last two optional.
fn is_semantic_version(text: &str) -> bool {
    let number = |part: &str| {
        let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        digits && (part == "0" || !part.starts_with('0'))
    };
    let word = |part: &str| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        !part.is_empty() && part.bytes().all(allowed)
    };
    let (text, build) = match text.split_once('+') {
        Some((text, build)) => (text, Some(build)),
        None => (text, None),
    };
    let (core, release) = match text.split_once('-') {
        Some((core, release)) => (core, Some(release)),
        None => (text, None),
    };
    let numeric = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    core.split('.').count() == 3
        && core.split('.').all(number)
        && build.is_none_or(|build| build.split('.').all(word))
        && release.is_none_or(|release| {
            let mut parts = release.split('.');
            parts.all(|part| word(part) && (!numeric(part) || number(part)))
        })
}

fn validate_counters(counters: &Field<'_>, name: &str) -> Vec<FieldError> {
    let all = counters.at("counters");
    let mut errors = counters.at(name).must_follow(names::dns1123_label);
    if all.is_empty() {
        errors.push(all.required(""));
    } else if all.len() > MAX_COUNTERS {
        errors.push(all.too_many(MAX_COUNTERS));
    }
    for (key, counter) in all.entries() {
        let problems = names::dns1123_label(key).into_iter();
        errors.extend(problems.map(|problem| FieldError::invalid(counter.path(), key, problem)));
    }
    errors
}

fn validate_capacity(capacity: &Field<'_>, shared: bool) -> Vec<FieldError> {
    let policy = capacity.at("requestPolicy");
    let (values, range) = (policy.at("validValues"), policy.at("validRange"));
    if !policy.is_set() {
        return Vec::new();
    }
    if !shared {
        return vec![policy.forbidden("allowMultipleAllocations must be true")];
    }
    if !values.is_empty() && range.is_set() {
        let detail = r#"exactly one policy can be specified, cannot specify "validValues" and "validRange" at the same time"#;
        return vec![policy.forbidden(detail)];
    }
    let bound = match (values.is_empty(), range.is_set()) {
        (false, _) => "validValues",
        (true, true) => "validRange",
        (true, false) => return Vec::new(),
    };
    let most = capacity.at("value").quantity().unwrap_or_default();
    match policy.at("default").quantity() {
        None => {
            let detail = format!("required when {bound} is defined");
            vec![policy.at("default").required(&detail)]
        }
        Some(default) if bound == "validValues" => validate_values(&values, default, most),
        Some(default) => validate_range(&range, default, most),
    }
}

fn validate_values(values: &Field<'_>, default: Quantity, most: Quantity) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let options: Vec<_> = values.items();
    let amounts: Vec<_> = options.iter().filter_map(Field::quantity).collect();
    let pairs = amounts.iter().zip(amounts.iter().skip(1));
    for ((before, after), option) in pairs.zip(options.iter().skip(1)) {
        if before > after {
            errors.push(option.invalid("values must be sorted in ascending order"));
        } else if before == after {
            errors.push(option.duplicate());
        }
    }
    for (option, amount) in options.iter().zip(&amounts) {
        if *amount > most {
            let detail = format!("option is larger than capacity value: {most}");
            errors.push(option.invalid(detail));
        }
    }
    if !amounts.contains(&default) {
        let detail = "default value is not valid according to the requestPolicy";
        let value = default.to_string();
        errors.push(FieldError::invalid(values.path(), value, detail));
    }
    errors
}

fn validate_range(range: &Field<'_>, default: Quantity, most: Quantity) -> Vec<FieldError> {
    let (min_field, max_field, step_field) = (range.at("min"), range.at("max"), range.at("step"));
    let Some(min) = min_field.quantity() else {
        return vec![min_field.required("required when validRange is defined")];
    };
    let at_default = |detail: String| {
        let path = format!("{}.default", range.path());
        FieldError::invalid(path, default.to_string(), detail)
    };
    let mut errors = Vec::new();
    if min > most {
        errors.push(min_field.invalid(format!("min is larger than capacity value: {most}")));
    }
    if default < min {
        errors.push(at_default(format!("default is less than min: {min}")));
    }
    if let Some(max) = max_field.quantity() {
        if min > max {
            let detail = format!("min is larger than max: {max}");
            errors.push(FieldError::invalid(
                max_field.path(),
                min.to_string(),
                detail,
            ));
        }
        if max > most {
            errors.push(max_field.invalid(format!("max is larger than capacity value: {most}")));
        }
        if default > max {
            errors.push(at_default(format!("default is more than max: {max}")));
        }
    }
    if let Some(step) = step_field.quantity() {
        let ends = [Some(default), max_field.quantity()];
        errors.extend(validate_step(&step_field, step, (min, most), &ends));
    }
    errors
}

fn validate_step(
    field: &Field<'_>,
    step: Quantity,
    (min, most): (Quantity, Quantity),
    ends: &[Option<Quantity>],
) -> Vec<FieldError> {
    if step <= Quantity::ZERO {
        return vec![field.invalid("must be greater than zero")];
    }
    let mut errors = Vec::new();
    if min + step > most {
        let detail = format!(
            "one step {} is larger than capacity value: {most}",
            min + step
        );
        errors.push(field.invalid(detail));
    }
    for end in ends.iter().flatten() {
        let over = end.units().saturating_sub(min.units());
        if over.checked_rem(step.units()).is_some_and(|rest| rest != 0) {
            let detail = format!("value is not a multiple of a given step ({step}) from ({min})");
            errors.push(FieldError::invalid(field.path(), end.to_string(), detail));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn texts(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut object = json!({"metadata": {"name": "s"}, "spec": {
            "driver": "gpu.example.com", "nodeName": "n",
            "pool": {"name": "n", "resourceSliceCount": 1},
            "devices": [{"name": "gpu-0", "attributes": {"model": {"string": "x"}},
                "capacity": {"memory": {"value": "8Gi"}}}],
        }});
        change(&mut object);
        let errors = ResourceSlice.validate(&object);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_slice_says_whose_devices_it_has_and_where() {
        assert_eq!(texts(|_| {}), [""; 0]);
        assert_eq!(
            texts(|s| s["spec"]["allNodes"] = true.into()),
            [
                r#"spec: Invalid value: "{`nodeName`, `allNodes`}": exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required, but multiple fields are set"#
            ]
        );
        assert_eq!(
            texts(|s| s["spec"]["devices"][0]["attributes"]["model"] = json!({})),
            [
                r#"spec.devices[0].attributes[model]: Invalid value: "": exactly one value must be specified"#
            ]
        );
    }

    #[test]
    fn shared_capacity_is_asked_for_within_its_policy() {
        let with = |policy: Value| {
            texts(|s| {
                let device = &mut s["spec"]["devices"][0];
                device["allowMultipleAllocations"] = true.into();
                device["capacity"]["memory"]["requestPolicy"] = policy;
            })
        };
        let range = |min: &str, step: &str| json!({"default": "4Gi", "validRange": {"min": min, "step": step}});
        assert_eq!(with(range("2Gi", "1Gi")), [""; 0]);
        assert_eq!(with(range("1Gi", "2Gi")).len(), 1);
        let values = json!({"default": "3Gi", "validValues": ["1Gi", "2Gi", "16Gi"]});
        assert_eq!(with(values).len(), 2);
    }

    #[test]
    fn versions_are_semantic() {
        for (version, valid) in [
            ("1.2.3", true),
            ("1.2.3-rc.1+build.5", true),
            ("1.2", false),
            ("01.2.3", false),
            ("1.2.3-01", false),
            ("1.2.3+", false),
        ] {
            assert_eq!(is_semantic_version(version), valid, "{version}");
        }
    }
}
