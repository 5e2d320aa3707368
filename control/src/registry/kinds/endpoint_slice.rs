//! EndpointSlice.

use jiff::Timestamp;
use serde_json::Value;
use windlass_api::resource::GroupVersionKind;

use super::{abbreviate, default, items, text};
use crate::registry::age;
use crate::registry::field_error::FieldError;
use crate::registry::object_meta as meta;
use crate::registry::strategy::{AGE, Column, Endpoint, Kind, NAME, Strategy};

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

const ADDRESS_TYPES: &[&str] = &["IPv4", "IPv6", "FQDN"];

impl Strategy for EndpointSlice {
    fn set_defaults(&self, object: &mut Value) {
        let ports = object.get_mut("ports").and_then(Value::as_array_mut);
        for port in ports.into_iter().flatten().filter_map(Value::as_object_mut) {
            default(port, "name", "");
            default(port, "protocol", "TCP");
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let kind = text(object, "/addressType");
        if kind.is_empty() {
            errors.push(FieldError::required("addressType", ""));
        } else if !ADDRESS_TYPES.contains(&kind) {
            errors.push(FieldError::not_supported(
                "addressType",
                kind,
                ADDRESS_TYPES,
            ));
        }
        for (at, endpoint) in items(object, "/endpoints").iter().enumerate() {
            if items(endpoint, "/addresses").is_empty() {
                let path = format!("endpoints[{at}].addresses");
                errors.push(FieldError::required(
                    path,
                    "must contain at least 1 address",
                ));
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_address_type_is_checked() {
        let errors = EndpointSlice.validate(&json!({"addressType": "IPX", "endpoints": [{}]}));
        let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                r#"addressType: Unsupported value: "IPX": supported values: "IPv4", "IPv6", "FQDN""#,
                "endpoints[0].addresses: Required value: must contain at least 1 address",
            ]
        );
    }
}
