//! NetworkPolicy: which traffic pods may have.

use jiff::Timestamp;
use serde_json::{Value, json};
use windlass_api::resource::GroupVersionKind;

use super::GROUP;
use crate::registry::age;
use crate::registry::field_error::FieldError;
use crate::registry::kinds::field_path::Field;
use crate::registry::kinds::{count, default, label_selector, rules};
use crate::registry::object_meta as meta;
use crate::registry::strategy::{AGE, Column, Kind, NAME, Strategy};

struct NetworkPolicy;

/// The row of the table.
pub(in crate::registry::kinds) fn kind() -> Kind {
    let gvk = GroupVersionKind::of(GROUP, "v1", "NetworkPolicy");
    Kind::namespaced(gvk, "networkpolicies", &NetworkPolicy).short_names(&["netpol"])
}

const COLUMNS: &[Column] = &[
    NAME,
    Column::new("Pod-Selector", "string", "The pods it is for."),
    AGE,
];

const PROTOCOLS: &[&str] = &["TCP", "UDP", "SCTP"];
const POLICY_TYPES: &[&str] = &["Ingress", "Egress"];

/// Rules of each direction with the name of their peers.
const DIRECTIONS: [(&str, &str); 2] = [("ingress", "from"), ("egress", "to")];

impl Strategy for NetworkPolicy {
    fn set_defaults(&self, object: &mut Value) {
        let egress = count(object, "/spec/egress") > 0;
        let spec = meta::member_mut(object, "spec");
        if spec
            .get("policyTypes")
            .is_none_or(|types| *types == json!([]))
        {
            let types = if egress {
                json!(["Ingress", "Egress"])
            } else {
                json!(["Ingress"])
            };
            spec.insert("policyTypes".into(), types);
        }
        for (direction, _) in DIRECTIONS {
            let rules = spec.get_mut(direction).and_then(Value::as_array_mut);
            for rule in rules.into_iter().flatten() {
                let ports = rule.get_mut("ports").and_then(Value::as_array_mut);
                let ports = ports.into_iter().flatten();
                for port in ports.filter_map(Value::as_object_mut) {
                    default(port, "protocol", "TCP");
                }
            }
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let spec = Field::root(object).at("spec");
        let mut errors = rules::label_selector(&spec.at("podSelector"));
        for (direction, peers) in DIRECTIONS {
            for rule in spec.at(direction).items() {
                errors.extend(rule.at("ports").items().iter().flat_map(validate_port));
                errors.extend(rule.at(peers).items().iter().flat_map(validate_peer));
            }
        }
        let types = spec.at("policyTypes");
        if types.len() > POLICY_TYPES.len() {
            errors.push(types.invalid("may not specify more than two policyTypes"));
            return errors;
        }
        let types = types.items();
        errors.extend(types.iter().filter_map(|kind| kind.one_of(POLICY_TYPES)));
        errors
    }

    fn counts_generations(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let selector = Field::root(object).at("spec").at("podSelector");
        vec![
            meta::name(object).into(),
            label_selector::shown(selector.value()),
            age(object, now).into(),
        ]
    }
}

fn validate_port(rule: &Field<'_>) -> Vec<FieldError> {
    let (port, end) = (rule.at("port"), rule.at("endPort"));
    let mut errors = Vec::new();
    errors.extend(rule.at("protocol").one_of_if_set(PROTOCOLS));
    if end.is_set() {
        let detail = match port.value() {
            Value::Null => Some("may not be specified when `port` is not specified"),
            Value::String(_) => Some("may not be specified when `port` is non-numeric"),
            _ if end.integer() < port.integer() => Some("must be greater than or equal to `port`"),
            _ => None,
        };
        errors.extend(detail.map(|detail| end.invalid(detail)));
    }
    if port.is_set() {
        errors.extend(rules::port_or_name(&port));
        if end.is_set() && !port.value().is_string() {
            errors.extend(rules::port_number(&end));
        }
    }
    errors
}

fn validate_peer(peer: &Field<'_>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let selectors = [peer.at("podSelector"), peer.at("namespaceSelector")];
    let selectors: Vec<_> = selectors.into_iter().filter(Field::is_set).collect();
    errors.extend(selectors.iter().flat_map(rules::label_selector));
    let block = peer.at("ipBlock");
    if block.is_set() {
        errors.extend(validate_block(&block));
        if !selectors.is_empty() {
            let detail = "may not specify both ipBlock and another peer";
            errors.push(peer.forbidden(detail));
        }
    } else if selectors.is_empty() {
        errors.push(peer.required("must specify a peer"));
    }
    errors
}

fn validate_block(block: &Field<'_>) -> Vec<FieldError> {
    let cidr = block.at("cidr");
    if cidr.is_empty() {
        return vec![cidr.required("")];
    }
    let Some(network) = rules::parse_cidr(cidr.text()) else {
        return rules::cidr(&cidr).into_iter().collect();
    };
    let mut errors = Vec::new();
    for except in block.at("except").items() {
        match rules::parse_cidr(except.text()) {
            None => errors.extend(rules::cidr(&except)),
            Some((address, bits)) if !rules::contains(network, address) || network.1 >= bits => {
                errors.push(except.invalid("must be a strict subset of `cidr`"));
            }
            Some(_) => {}
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(spec: &Value) -> Value {
        let mut object = json!({"metadata": {"name": "p"}, "spec": spec});
        NetworkPolicy.set_defaults(&mut object);
        object
    }

    #[test]
    fn the_types_follow_from_the_rules() {
        let types = |spec: &Value| policy(spec)["spec"]["policyTypes"].clone();
        assert_eq!(types(&json!({"podSelector": {}})), json!(["Ingress"]));
        let both = json!({"podSelector": {}, "egress": [{}]});
        assert_eq!(types(&both), json!(["Ingress", "Egress"]));
    }

    #[test]
    fn ports_and_peers_are_checked_where_they_are() {
        let object = policy(&json!({"podSelector": {}, "ingress": [{
            "ports": [{"port": "web", "endPort": 90}, {"port": 90, "endPort": 80}],
            "from": [{}, {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", "11.0.0.0/16"]}}],
        }]}));
        let errors = NetworkPolicy.validate(&object);
        let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "spec.ingress[0].ports[0].endPort: Invalid value: 90: may not be specified when `port` is non-numeric",
                "spec.ingress[0].ports[1].endPort: Invalid value: 80: must be greater than or equal to `port`",
                "spec.ingress[0].from[0]: Required value: must specify a peer",
                r#"spec.ingress[0].from[1].ipBlock.except[1]: Invalid value: "11.0.0.0/16": must be a strict subset of `cidr`"#,
            ]
        );
    }
}
