//! ServiceCIDR: a network that addresses of Services come from.

use jiff::Timestamp;
use serde_json::{Value, json};
use windlass_api::resource::GroupVersionKind;

use super::GROUP;
use crate::registry::age;
use crate::registry::field_error::FieldError;
use crate::registry::kinds::field_path::Field;
use crate::registry::kinds::rules;
use crate::registry::object_meta as meta;
use crate::registry::strategy::{AGE, Column, Endpoint, Kind, NAME, Strategy};

struct ServiceCidr;

/// The row of the table.
pub(in crate::registry::kinds) fn kind() -> Kind {
    let gvk = GroupVersionKind::of(GROUP, "v1", "ServiceCIDR");
    Kind::cluster(gvk, "servicecidrs", &ServiceCidr)
}

const COLUMNS: &[Column] = &[
    NAME,
    Column::new("CIDRs", "string", "The networks, one of each IP family."),
    AGE,
];

impl Strategy for ServiceCidr {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let spec = Field::root(object).at("spec");
        let cidrs = spec.at("cidrs");
        if cidrs.is_empty() {
            return vec![cidrs.required("at least one CIDR required")];
        }
        if cidrs.len() > 2 {
            let detail = "may only hold up to 2 values";
            let value = spec.value().clone();
            return vec![FieldError::invalid(cidrs.path(), value, detail)];
        }
        let all = cidrs.items();
        let mut errors: Vec<_> = all
            .iter()
            .flat_map(|cidr| cidr.checked(rules::strict_cidr))
            .collect();
        let families = all.iter().filter_map(|cidr| rules::parse_cidr(cidr.text()));
        let families: Vec<_> = families.map(|(address, _)| address.is_ipv4()).collect();
        if matches!(families.as_slice(), [first, second] if first == second) {
            let detail = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
            errors.push(cidrs.invalid(detail));
        }
        errors
    }

    fn validate_update(&self, old: &Value, new: &Value, endpoint: Endpoint) -> Vec<FieldError> {
        if endpoint == Endpoint::Status {
            return Vec::new();
        }
        let cidrs = |object| Field::root(object).at("spec").at("cidrs");
        let (old, new) = (cidrs(old), cidrs(new));
        let grows = old.len() == 1 && new.len() == 2;
        if old.len() != new.len() && !grows {
            return vec![new.invalid("field is immutable")];
        }
        let pairs = old.items().into_iter().zip(new.items());
        pairs.filter_map(|(old, new)| new.unchanged(&old)).collect()
    }

    fn not_enforced(&self) -> Option<&'static str> {
        Some(
            "ServiceCIDR is stored but Windlass takes addresses of Services from its own network only",
        )
    }

    fn prepare_for_create(&self, object: &mut Value, _: &crate::identity::UserInfo) {
        if let Some(object) = object.as_object_mut() {
            object.insert("status".into(), json!({}));
        }
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
        let cidrs = Field::root(object).at("spec").at("cidrs").texts();
        vec![
            meta::name(object).into(),
            cidrs.join(",").into(),
            age(object, now).into(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_family_may_be_added_and_nothing_else_changes() {
        let of = |cidrs: &[&str]| json!({"spec": {"cidrs": cidrs}});
        let old = of(&["10.0.0.0/16"]);
        for (new, valid) in [
            (of(&["10.0.0.0/16"]), true),
            (of(&["10.0.0.0/16", "2001:db8::/64"]), true),
            (of(&["10.1.0.0/16"]), false),
            (of(&[]), false),
        ] {
            let errors = ServiceCidr.validate_update(&old, &new, Endpoint::Main);
            assert_eq!(errors.is_empty(), valid, "{new}");
        }
        let twice = ServiceCidr.validate(&of(&["10.0.0.0/16", "10.1.0.0/16"]));
        assert_eq!(twice.len(), 1);
    }
}
