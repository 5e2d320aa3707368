//! Endpoints.

use jiff::Timestamp;
use serde_json::Value;
use windlass_api::names;
use windlass_api::resource::GroupVersionKind;

use super::field_path::Field;
use super::rules::{self, PROTOCOLS};
use super::{abbreviate, default_text, integer, items, text};
use crate::registry::age;
use crate::registry::field_error::FieldError;
use crate::registry::object_meta as meta;
use crate::registry::strategy::{AGE, Column, Kind, NAME, Strategy};

struct Endpoints;

/// The row of the table.
pub(super) fn kind() -> Kind {
    Kind::namespaced(
        GroupVersionKind::of("", "v1", "Endpoints"),
        "endpoints",
        &Endpoints,
    )
    .short_names(&["ep"])
}

const COLUMNS: &[Column] = &[
    NAME,
    Column::new("Endpoints", "string", "Addresses and ports that are ready."),
    AGE,
];

impl Strategy for Endpoints {
    fn set_defaults(&self, object: &mut Value) {
        let subsets = object.get_mut("subsets").and_then(Value::as_array_mut);
        for subset in subsets.into_iter().flatten() {
            let ports = subset.get_mut("ports").and_then(Value::as_array_mut);
            for port in ports.into_iter().flatten().filter_map(Value::as_object_mut) {
                default_text(port, "protocol", "TCP");
            }
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let subsets = Field::root(object).at("subsets").items();
        let anywhere = rules::is_of_api_server(object);
        let check = |subset| validate_subset(subset, anywhere);
        subsets.iter().flat_map(check).collect()
    }

    fn creates_on_update(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let mut shown = Vec::new();
        for subset in items(object, "/subsets") {
            for port in items(subset, "/ports") {
                let addresses = items(subset, "/addresses").iter();
                let port = integer(port, "/port");
                shown.extend(addresses.map(|address| format!("{}:{port}", text(address, "/ip"))));
            }
        }
        vec![
            meta::name(object).into(),
            abbreviate(&shown, 3).into(),
            age(object, now).into(),
        ]
    }
}

fn validate_subset(subset: &Field<'_>, anywhere: bool) -> Vec<FieldError> {
    let lists = [subset.at("addresses"), subset.at("notReadyAddresses")];
    let mut errors = Vec::new();
    if lists.iter().all(Field::is_empty) {
        let detail = "must specify `addresses` or `notReadyAddresses`";
        errors.push(subset.required(detail));
    }
    for address in lists.iter().flat_map(Field::items) {
        errors.extend(validate_address(&address, anywhere));
    }
    let ports = subset.at("ports").items();
    let several = ports.len() > 1;
    errors.extend(ports.iter().flat_map(|port| validate_port(port, several)));
    errors
}

fn validate_address(address: &Field<'_>, anywhere: bool) -> Vec<FieldError> {
    let ip = address.at("ip");
    let mut errors: Vec<_> = rules::ip(&ip).into_iter().collect();
    errors.extend(address.at("hostname").follows(names::dns1123_label));
    let node = address.at("nodeName");
    if node.is_set() {
        errors.extend(node.checked(names::dns1123_subdomain));
    }
    if !anywhere {
        errors.extend(rules::not_special(&ip));
    }
    errors
}

fn validate_port(port: &Field<'_>, several: bool) -> Vec<FieldError> {
    let name = port.at("name");
    let mut errors = if several {
        name.must_follow(names::dns1123_label)
    } else {
        name.follows(names::dns1123_label)
    };
    errors.extend(rules::port_number(&port.at("port")));
    errors.extend(port.at("protocol").one_of(PROTOCOLS));
    let protocol = port.at("appProtocol");
    if protocol.is_set() {
        errors.extend(protocol.checked(names::qualified_name));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_subset_has_addresses_that_can_be_reached() {
        let mut object = json!({"subsets": [
            {"ports": [{"port": 80}]},
            {"addresses": [{"ip": "127.0.0.1"}], "ports": [{"port": 0, "name": "a"}]},
        ]});
        Endpoints.set_defaults(&mut object);
        let errors = Endpoints.validate(&object);
        let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`",
                r#"subsets[1].addresses[0].ip: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)"#,
                "subsets[1].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            ]
        );
    }
}
