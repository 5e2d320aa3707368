//! ResourceClaim: devices that pods are to share. The wish never changes; who has what is in the status.

use jiff::Timestamp;
use serde_json::{Value, json};
use windlass_api::names;
use windlass_api::resource::GroupVersionKind;

use super::GROUP;
use super::device_claim::{self, RequestNames};
use super::device_rules::{MAX_ITEMS, configuration, list, pool_name, raw_object, set, toleration};
use crate::registry::age;
use crate::registry::field_error::FieldError;
use crate::registry::kinds::field_path::{Field, repeated};
use crate::registry::kinds::{count, rules};
use crate::registry::object_meta as meta;
use crate::registry::strategy::{AGE, Column, Endpoint, Kind, NAME, Strategy};

struct ResourceClaim;

/// The row of the table.
pub(in crate::registry::kinds) fn kind() -> Kind {
    let gvk = GroupVersionKind::of(GROUP, "v1", "ResourceClaim");
    Kind::namespaced(gvk, "resourceclaims", &ResourceClaim)
}

const COLUMNS: &[Column] = &[
    NAME,
    Column::new(
        "State",
        "string",
        "Whether devices are allocated and in use.",
    ),
    AGE,
];

const MAX_CONSUMERS: usize = 256;
const MAX_CONDITIONS: usize = 8;
const MAX_INTERFACE_NAME: usize = 256;
const MAX_HARDWARE_ADDRESS: usize = 128;
const SOURCES: &[&str] = &["FromClaim", "FromClass"];

impl Strategy for ResourceClaim {
    fn set_defaults(&self, object: &mut Value) {
        device_claim::set_defaults(meta::member_mut(object, "spec"));
    }

    fn prepare_for_create(&self, object: &mut Value, _: &crate::identity::UserInfo) {
        if let Some(object) = object.as_object_mut() {
            object.insert("status".into(), json!({}));
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        device_claim::validate(&Field::root(object).at("spec"))
    }

    fn validate_update(&self, old: &Value, new: &Value, endpoint: Endpoint) -> Vec<FieldError> {
        if endpoint == Endpoint::Status {
            return validate_status(old, new);
        }
        let spec = |object| Field::root(object).at("spec");
        spec(new).unchanged(&spec(old)).into_iter().collect()
    }

    fn not_enforced(&self) -> Option<&'static str> {
        Some("ResourceClaim is stored but Windlass allocates no devices yet")
    }

    fn has_status(&self) -> bool {
        true
    }

    fn counts_generations(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let deleted = meta::is_terminating(object);
        let allocated = object.pointer("/status/allocation").is_some();
        let reserved = allocated && count(object, "/status/reservedFor") > 0;
        let states = [
            ("deleted", deleted),
            ("pending", !allocated && !deleted),
            ("allocated", allocated),
            ("reserved", reserved),
        ];
        let states: Vec<_> = states.iter().filter(|(_, holds)| *holds).collect();
        let states: Vec<_> = states.iter().map(|(state, _)| *state).collect();
        vec![
            meta::name(object).into(),
            states.join(",").into(),
            age(object, now).into(),
        ]
    }
}

fn validate_status(old: &Value, new: &Value) -> Vec<FieldError> {
    let requests = RequestNames::of(&Field::root(new).at("spec").at("devices"));
    let (before, status) = (Field::root(old).at("status"), Field::root(new).at("status"));
    let (consumers, allocation) = (status.at("reservedFor"), status.at("allocation"));
    let mut errors = set(&consumers, MAX_CONSUMERS, "uid", |consumer| {
        let fields = ["resource", "name", "uid"].map(|field| consumer.at(field));
        let missing = fields.iter().filter(|field| field.is_empty());
        missing.map(|field| field.required("")).collect()
    });
    errors.extend(validate_devices(&status));
    if !consumers.is_empty() && !allocation.is_set() {
        let detail = "may not be specified when `allocated` is not set";
        errors.push(consumers.forbidden(detail));
    } else if meta::is_terminating(new) {
        let old_consumers = before.at("reservedFor").items();
        let known = |one: &Field<'_>| old_consumers.iter().any(|old| old.value() == one.value());
        if !consumers.items().iter().all(known) {
            let detail = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
            errors.push(consumers.forbidden(detail));
        }
    }
    if allocation.is_set() && before.at("allocation").is_set() {
        errors.extend(allocation.unchanged(&before.at("allocation")));
    } else if allocation.is_set() {
        errors.extend(validate_allocation(&allocation, &requests));
    }
    errors
}

fn validate_allocation(allocation: &Field<'_>, requests: &RequestNames) -> Vec<FieldError> {
    let devices = allocation.at("devices");
    let mut errors = list(&devices.at("results"), MAX_ITEMS, |result| {
        let mut errors = requests.validate_one(&result.at("request"));
        errors.extend(rules::csi_driver_name(&result.at("driver")));
        errors.extend(pool_name(&result.at("pool")));
        errors.extend(result.at("device").checked(names::dns1123_label));
        let tolerations = result.at("tolerations").items();
        errors.extend(tolerations.iter().flat_map(toleration));
        errors
    });
    errors.extend(list(&devices.at("config"), 2 * MAX_ITEMS, |config| {
        let mut errors: Vec<_> = config
            .at("source")
            .must_be_one_of(SOURCES)
            .into_iter()
            .collect();
        errors.extend(requests.validate(&config.at("requests")));
        errors.extend(configuration(config));
        errors
    }));
    let selector = allocation.at("nodeSelector");
    if selector.is_set() {
        errors.extend(rules::node_selector(&selector));
    }
    errors
}

/// Driver, pool, device and share: what tells one allocated device from another.
fn identity(device: &Field<'_>) -> Value {
    let fields = ["driver", "pool", "device", "shareID"];
    let identity = fields.map(|field| device.at(field).text().to_owned());
    json!(identity)
}

fn validate_devices(status: &Field<'_>) -> Vec<FieldError> {
    let results = status.at("allocation").at("devices").at("results").items();
    let allocated: Vec<_> = results.iter().map(identity).collect();
    let devices = status.at("devices").items();
    let identities: Vec<_> = devices.iter().map(identity).collect();
    let mut errors = Vec::new();
    for (device, identity) in devices.iter().zip(&identities) {
        errors.extend(validate_device(device));
        if !allocated.contains(identity) {
            let detail = "must be an allocated device in the claim";
            errors.push(FieldError::invalid(device.path(), identity.clone(), detail));
        }
    }
    let pairs = devices.iter().zip(&identities);
    let keys: Vec<_> = pairs
        .map(|(device, identity)| Field::new(device.path(), identity))
        .collect();
    errors.extend(repeated(&keys));
    errors
}

fn validate_device(device: &Field<'_>) -> Vec<FieldError> {
    let mut errors = rules::csi_driver_name(&device.at("driver"));
    errors.extend(pool_name(&device.at("pool")));
    errors.extend(device.at("device").checked(names::dns1123_label));
    let conditions = device.at("conditions");
    if conditions.len() > MAX_CONDITIONS {
        errors.push(conditions.too_many(MAX_CONDITIONS));
    }
    errors.extend(rules::conditions(&conditions));
    if device.at("data").is_set() {
        errors.extend(raw_object(&device.at("data")));
    }
    let network = device.at("networkData");
    for (field, max) in [
        ("interfaceName", MAX_INTERFACE_NAME),
        ("hardwareAddress", MAX_HARDWARE_ADDRESS),
    ] {
        let field = network.at(field);
        errors.extend((field.len() > max).then(|| field.too_long(max)));
    }
    let addresses = network.at("ips").items();
    errors.extend(addresses.iter().filter_map(rules::cidr));
    errors.extend(repeated(&addresses));
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(requests: &Value) -> Value {
        let mut object =
            json!({"metadata": {"name": "c"}, "spec": {"devices": {"requests": requests}}});
        ResourceClaim.set_defaults(&mut object);
        object
    }

    fn texts(errors: &[FieldError]) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_request_is_for_one_device_unless_it_says_otherwise() {
        let object = claim(&json!([{"name": "gpu", "exactly": {"deviceClassName": "gpu"}}]));
        let exactly = &object["spec"]["devices"]["requests"][0]["exactly"];
        assert_eq!(exactly["allocationMode"], "ExactCount");
        assert_eq!(exactly["count"], 1);
        assert_eq!(ResourceClaim.validate(&object), []);
    }

    #[test]
    fn requests_and_references_to_them_are_checked() {
        let mut object = claim(&json!([{"name": "gpu"}, {"name": "gpu", "exactly": {
            "deviceClassName": "gpu", "allocationMode": "All", "count": 2}}]));
        object["spec"]["devices"]["constraints"] =
            json!([{"requests": ["nic"], "matchAttribute": "example.com/numa"}]);
        assert_eq!(
            texts(&ResourceClaim.validate(&object)),
            [
                "spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required",
                "spec.devices.requests[1].exactly.count: Invalid value: 2: must not be specified when allocationMode is 'All'",
                r#"spec.devices.requests[1]: Duplicate value: "gpu""#,
                r#"spec.devices.constraints[0].requests[0]: Invalid value: "nic": must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"#,
            ]
        );
    }

    #[test]
    fn only_allocated_claims_are_reserved() {
        let old = claim(&json!([{"name": "gpu", "exactly": {"deviceClassName": "gpu"}}]));
        let mut new = old.clone();
        new["status"]["reservedFor"] = json!([{"resource": "pods", "name": "p", "uid": "u"}]);
        let update = |new: &Value| ResourceClaim.validate_update(&old, new, Endpoint::Status);
        assert_eq!(
            texts(&update(&new)),
            ["status.reservedFor: Forbidden: may not be specified when `allocated` is not set"]
        );
        let result = json!({"request": "gpu", "driver": "d", "pool": "p", "device": "g0"});
        new["status"]["allocation"] = json!({"devices": {"results": [result]}});
        assert_eq!(update(&new), []);
    }
}
