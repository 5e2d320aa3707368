//! IPAddress: an address of a Service that is taken, named by the address itself.

use jiff::Timestamp;
use serde_json::Value;
use windlass_api::names;
use windlass_api::resource::GroupVersionKind;

use super::GROUP;
use crate::registry::field_error::FieldError;
use crate::registry::kinds::field_path::Field;
use crate::registry::kinds::{rules, text};
use crate::registry::object_meta as meta;
use crate::registry::strategy::{Column, Endpoint, Kind, NAME, NameRule, Strategy};

struct IpAddress;

/// The row of the table.
pub(in crate::registry::kinds) fn kind() -> Kind {
    let gvk = GroupVersionKind::of(GROUP, "v1", "IPAddress");
    Kind::cluster(gvk, "ipaddresses", &IpAddress).short_names(&["ip"])
}

const COLUMNS: &[Column] = &[
    NAME,
    Column::new("ParentRef", "string", "What the address belongs to."),
];

impl Strategy for IpAddress {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let parent = Field::root(object).at("spec").at("parentRef");
        if !parent.is_set() {
            return vec![parent.required("")];
        }
        let mut errors = parent.at("group").follows(names::dns1123_subdomain);
        errors.extend(parent.at("resource").must_follow(names::path_segment));
        errors.extend(parent.at("name").must_follow(names::path_segment));
        errors.extend(parent.at("namespace").follows(names::path_segment));
        errors
    }

    fn validate_update(&self, old: &Value, new: &Value, _: Endpoint) -> Vec<FieldError> {
        let parent = |object| Field::root(object).at("spec").at("parentRef");
        parent(new).unchanged(&parent(old)).into_iter().collect()
    }

    fn not_enforced(&self) -> Option<&'static str> {
        Some("IPAddress is stored but Windlass keeps addresses of Services by other means")
    }

    fn name_rule(&self) -> NameRule {
        NameRule::Other(rules::strict_ip)
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, _: Timestamp) -> Vec<Value> {
        let of = |field: &str| text(object, &format!("/spec/parentRef/{field}"));
        let resource = match of("group") {
            "" => of("resource").to_owned(),
            group => format!("{}.{group}", of("resource")),
        };
        let parts = [resource.as_str(), of("namespace"), of("name")];
        let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        vec![meta::name(object).into(), parts.join("/").into()]
    }
}
