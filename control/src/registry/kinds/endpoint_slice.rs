//! EndpointSlice.

use jiff::Timestamp;
use serde_json::Value;
use windlass_api::names;
use windlass_api::resource::GroupVersionKind;

use super::field_path::{Field, repeated};
use super::rules::{self, PROTOCOLS};
use super::{abbreviate, default, items, text};
use crate::registry::age;
use crate::registry::field_error::FieldError;
use crate::registry::object_meta as meta;
use crate::registry::strategy::{AGE, Column, Endpoint, Kind, NAME, Strategy};
use crate::registry::validation::labels;

struct EndpointSlice;

/// The row of the table.
pub(super) fn kind() -> Kind {
    let gvk = GroupVersionKind::of("discovery.k8s.io", "v1", "EndpointSlice");
    Kind::namespaced(gvk, "endpointslices", &EndpointSlice)
}

const COLUMNS: &[Column] = &[
    NAME,
    Column::new(
        "AddressType",
        "string",
        "What kind of addresses the slice holds.",
    ),
    Column::new("Ports", "string", "Ports of every endpoint."),
    Column::new("Endpoints", "string", "Addresses of the endpoints."),
    AGE,
];

const ADDRESS_TYPES: &[&str] = &["FQDN", "IPv4", "IPv6"];
const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20_000;
const MAX_TOPOLOGY: usize = 16;
const MAX_HINTS: usize = 8;

impl Strategy for EndpointSlice {
    fn set_defaults(&self, object: &mut Value) {
        let ports = object.get_mut("ports").and_then(Value::as_array_mut);
        for port in ports.into_iter().flatten().filter_map(Value::as_object_mut) {
            default(port, "name", "");
            default(port, "protocol", "TCP");
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let slice = Field::root(object);
        let (kind, endpoints) = (slice.at("addressType"), slice.at("endpoints"));
        let mut errors: Vec<_> = kind.must_be_one_of(ADDRESS_TYPES).into_iter().collect();
        if endpoints.len() > MAX_ENDPOINTS {
            errors.push(endpoints.too_many(MAX_ENDPOINTS));
        } else {
            let endpoints = endpoints.items();
            let anywhere = rules::is_of_api_server(object);
            let check = |endpoint| validate_endpoint(endpoint, kind.text(), anywhere);
            errors.extend(endpoints.iter().flat_map(check));
        }
        errors.extend(validate_ports(&slice.at("ports")));
        errors
    }

    fn validate_update(&self, old: &Value, new: &Value, _: Endpoint) -> Vec<FieldError> {
        let (old, new) = (text(old, "/addressType"), text(new, "/addressType"));
        if old == new {
            Vec::new()
        } else {
            vec![FieldError::immutable("addressType", new)]
        }
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let port = |port: &Value| match port.get("port") {
            Some(Value::Number(number)) => number.to_string(),
            _ => "*".into(),
        };
        let ports: Vec<_> = items(object, "/ports").iter().map(port).collect();
        let endpoints = items(object, "/endpoints").iter();
        let addresses = endpoints.flat_map(|endpoint| items(endpoint, "/addresses"));
        let addresses: Vec<_> = addresses
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        let unset = |texts: &[String]| match texts.len() {
            0 => "<unset>".to_owned(),
            _ => abbreviate(texts, 3),
        };
        vec![
            meta::name(object).into(),
            text(object, "/addressType").into(),
            unset(&ports).into(),
            unset(&addresses).into(),
            age(object, now).into(),
        ]
    }

    fn counts_generations(&self) -> bool {
        true
    }
}

fn validate_endpoint(endpoint: &Field<'_>, kind: &str, anywhere: bool) -> Vec<FieldError> {
    let (addresses, topology) = (endpoint.at("addresses"), endpoint.at("deprecatedTopology"));
    let mut errors = Vec::new();
    if addresses.is_empty() {
        errors.push(addresses.required("must contain at least 1 address"));
    } else if addresses.len() > MAX_ADDRESSES {
        errors.push(addresses.too_many(MAX_ADDRESSES));
    }
    let checked = addresses.items();
    errors.extend(
        checked
            .iter()
            .flat_map(|one| validate_address(one, kind, anywhere)),
    );
    if endpoint.at("nodeName").is_set() {
        let node = endpoint.at("nodeName");
        errors.extend(node.checked(names::dns1123_subdomain));
    }
    if topology.len() > MAX_TOPOLOGY {
        errors.push(topology.too_many(MAX_TOPOLOGY));
    }
    errors.extend(labels(topology.path(), Some(topology.value())));
    errors.extend(endpoint.at("hostname").follows(names::dns1123_label));
    for hint in ["forZones", "forNodes"] {
        errors.extend(validate_hints(&endpoint.at("hints").at(hint)));
    }
    errors
}

fn validate_address(address: &Field<'_>, kind: &str, anywhere: bool) -> Vec<FieldError> {
    let family = |v4: bool| {
        let text = address.text().parse::<std::net::IpAddr>();
        let wrong = text.is_ok_and(|parsed| parsed.is_ipv4() != v4);
        let detail = format!("must be an {kind} address");
        let wrong = wrong.then(|| address.invalid(detail));
        let error = rules::ip(address).or(wrong);
        let special = || rules::not_special(address).filter(|_| !anywhere);
        let error = error.or_else(special);
        error.into_iter().collect()
    };
    match kind {
        "IPv4" => family(true),
        "IPv6" => family(false),
        "FQDN" => address.checked(names::dns1123_subdomain),
        _ => Vec::new(),
    }
}

fn validate_hints(hints: &Field<'_>) -> Vec<FieldError> {
    if hints.len() > MAX_HINTS {
        return vec![hints.too_many(MAX_HINTS)];
    }
    let items = hints.items();
    let names: Vec<_> = items.iter().map(|hint| hint.at("name")).collect();
    let mut errors = repeated(&names);
    errors.extend(
        names
            .iter()
            .flat_map(|name| name.checked(names::label_value)),
    );
    errors
}

fn validate_ports(ports: &Field<'_>) -> Vec<FieldError> {
    if ports.len() > MAX_PORTS {
        return vec![ports.too_many(MAX_PORTS)];
    }
    let ports = ports.items();
    let names: Vec<_> = ports.iter().map(|port| port.at("name")).collect();
    let mut errors = repeated(&names);
    for port in &ports {
        let (number, protocol) = (port.at("port"), port.at("appProtocol"));
        errors.extend(port.at("name").follows(names::dns1123_label));
        errors.extend(port.at("protocol").must_be_one_of(PROTOCOLS));
        if number.is_set() {
            errors.extend(rules::port_number(&number));
        }
        if protocol.is_set() {
            errors.extend(protocol.checked(names::qualified_name));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn addresses_are_of_the_slices_type() {
        let errors = |kind: &str, address: &str| {
            let endpoints = json!([{"addresses": [address]}]);
            EndpointSlice
                .validate(&json!({"addressType": kind, "endpoints": endpoints}))
                .len()
        };
        assert_eq!(errors("IPv4", "10.0.0.1"), 0);
        assert_eq!(errors("IPv4", "2001:db8::1"), 1);
        assert_eq!(errors("IPv6", "2001:db8::1"), 0);
        assert_eq!(errors("FQDN", "a.example.com"), 0);
        assert_eq!(errors("IPv4", "169.254.0.1"), 1);
    }

    #[test]
    fn the_address_type_is_checked() {
        let errors = EndpointSlice.validate(&json!({"addressType": "IPX", "endpoints": [{}]}));
        let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                r#"addressType: Unsupported value: "IPX": supported values: "FQDN", "IPv4", "IPv6""#,
                "endpoints[0].addresses: Required value: must contain at least 1 address",
            ]
        );
    }
}
