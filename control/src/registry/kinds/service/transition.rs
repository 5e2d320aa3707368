//! What an update carries over from the Service before it, and what it leaves behind.
//!
//! Clients replace Services without naming what the server allocated, and change the type without removing
//! what only the old type may have. What they did not touch is kept where the new type can have it and
//! removed where it can't; what they did name is left to validation.

use serde_json::{Map, Value, json};

use super::{has_health_check, has_node_ports, is_reached_from_outside, is_type};
use crate::registry::object_meta as meta;

type Spec = Map<String, Value>;

/// Whether a type can have the fields beside it.
type Has = fn(&Spec) -> bool;

/// Fields that only some types have.
const TYPED: &[(Has, &[&str])] = &[
    (
        has_addresses,
        &["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"],
    ),
    (is_external_name, &["externalName"]),
    (has_health_check, &["healthCheckNodePort"]),
    (is_reached_from_outside, &["externalTrafficPolicy"]),
    (
        is_load_balancer,
        &["allocateLoadBalancerNodePorts", "loadBalancerClass"],
    ),
];

fn has_addresses(spec: &Spec) -> bool {
    !is_external_name(spec)
}

fn is_external_name(spec: &Spec) -> bool {
    is_type(spec, "ExternalName")
}

fn is_load_balancer(spec: &Spec) -> bool {
    is_type(spec, "LoadBalancer")
}

/// Makes `new` the Service that follows `old`.
pub(super) fn carry_over(old: &Value, new: &mut Value) {
    let before = old.get("spec").and_then(Value::as_object).cloned();
    let before = before.unwrap_or_default();
    let spec = meta::member_mut(new, "spec");
    keep_allocated(&before, spec);
    follow_address(&before, spec);
    list_address(spec);
    leave_behind(&before, spec);
}

fn is_unset(spec: &Spec, field: &str) -> bool {
    let value = spec.get(field).unwrap_or(&Value::Null);
    value.is_null() || *value == "" || *value == 0 || *value == json!([])
}

fn copy(before: &Spec, spec: &mut Spec, field: &str) {
    if let Some(value) = before.get(field) {
        spec.insert(field.to_owned(), value.clone());
    }
}

/// A client that names nothing of what was allocated keeps it.
fn keep_allocated(before: &Spec, spec: &mut Spec) {
    if has_addresses(before) && has_addresses(spec) {
        if is_unset(spec, "clusterIP") {
            copy(before, spec, "clusterIP");
        }
        if is_unset(spec, "clusterIPs") && spec.get("clusterIP") == before.get("clusterIP") {
            copy(before, spec, "clusterIPs");
        }
    }
    if has_node_ports(before) && has_node_ports(spec) {
        keep_node_ports(before, spec);
    }
    if has_health_check(before) && has_health_check(spec) && is_unset(spec, "healthCheckNodePort") {
        copy(before, spec, "healthCheckNodePort");
    }
}

fn keep_node_ports(before: &Spec, spec: &mut Spec) {
    let ports = |spec: &Spec| spec.get("ports").and_then(Value::as_array).cloned();
    let before = ports(before).unwrap_or_default();
    let named: Vec<_> = ports(spec).unwrap_or_default();
    let named: Vec<_> = named.iter().filter_map(node_port).collect();
    let after = spec.get_mut("ports").and_then(Value::as_array_mut);
    for port in after.into_iter().flatten() {
        if node_port(port).is_some() {
            continue;
        }
        let same = |old: &&Value| {
            let field = |field: &str| old.get(field) == port.get(field);
            field("port") && field("protocol")
        };
        let kept = before.iter().find(same).and_then(node_port);
        let kept = kept.filter(|kept| !named.contains(kept));
        if let (Some((_, kept)), Some(port)) = (kept, port.as_object_mut()) {
            port.insert("nodePort".into(), kept.into());
        }
    }
}

/// Protocol and node port, if there is one.
fn node_port(port: &Value) -> Option<(String, i64)> {
    let number = super::integer(port, "/nodePort");
    (number != 0).then(|| (super::text(port, "/protocol").to_owned(), number))
}

/// A client that knows only `clusterIP` changes that one, and means the list too.
fn follow_address(before: &Spec, spec: &mut Spec) {
    let same_list = before.get("clusterIPs") == spec.get("clusterIPs");
    if has_addresses(before) && same_list && before.get("clusterIP") != spec.get("clusterIP") {
        spec.shift_remove("clusterIPs");
    }
}

/// An address is also the first of the list.
pub(super) fn list_address(spec: &mut Spec) {
    if !is_unset(spec, "clusterIP") && is_unset(spec, "clusterIPs") {
        let address = spec.get("clusterIP").cloned().unwrap_or_default();
        spec.insert("clusterIPs".into(), json!([address]));
    }
}

/// Removes what the old type had, the new one can't have, and the client did not touch.
fn leave_behind(before: &Spec, spec: &mut Spec) {
    for (has, fields) in TYPED {
        if !has(before) || has(spec) {
            continue;
        }
        for field in *fields {
            if before.get(*field) == spec.get(*field) {
                spec.shift_remove(*field);
            }
        }
    }
    if has_node_ports(before) && !has_node_ports(spec) {
        let numbers = |spec: &Spec| {
            let ports = spec.get("ports").and_then(Value::as_array);
            ports
                .into_iter()
                .flatten()
                .filter_map(node_port)
                .collect::<Vec<_>>()
        };
        let before = numbers(before);
        if numbers(spec).iter().all(|port| before.contains(port)) {
            remove_node_ports(spec);
        }
    }
}

fn remove_node_ports(spec: &mut Spec) {
    let ports = spec.get_mut("ports").and_then(Value::as_array_mut);
    for port in ports.into_iter().flatten().filter_map(Value::as_object_mut) {
        port.shift_remove("nodePort");
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Service, service, stored};
    use crate::registry::strategy::{Endpoint, Strategy};
    use serde_json::{Value, json};

    fn update(old: &Value, mut new: Value) -> Value {
        Service.set_defaults(&mut new);
        Service.prepare_for_update(old, &mut new, Endpoint::Main);
        new
    }

    #[test]
    fn replacing_a_service_keeps_its_address_and_ports() {
        let old = stored(&json!({"type": "NodePort", "ports": [{"port": 80}]}));
        let new = json!({"metadata": {"name": "web"}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
        let new = update(&old, new);
        assert_eq!(Service.claims(&old), Service.claims(&new));
        assert_eq!(Service.validate_update(&old, &new, Endpoint::Main), []);
    }

    #[test]
    fn a_type_leaves_behind_what_the_next_one_cannot_have() {
        let old = stored(
            &json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local",
            "ports": [{"port": 80}]}),
        );
        assert_eq!(Service.claims(&old).len(), 3);
        for (kind, claims) in [("NodePort", 2), ("ClusterIP", 1), ("ExternalName", 0)] {
            let mut new = old.clone();
            new["spec"]["type"] = kind.into();
            new["spec"]["externalName"] = if kind == "ExternalName" {
                "a.b".into()
            } else {
                "".into()
            };
            let new = update(&old, new);
            assert_eq!(Service.validate(&new), [], "{kind}: {new}");
            assert_eq!(Service.validate_update(&old, &new, Endpoint::Main), []);
            assert_eq!(Service.claims(&new).len(), claims, "{kind}");
        }
    }

    #[test]
    fn an_address_does_not_move() {
        let old = stored(&json!({"ports": [{"port": 80}]}));
        let mut new = old.clone();
        new["spec"]["clusterIP"] = "10.96.9.9".into();
        let new = update(&old, new);
        let errors = Service.validate_update(&old, &new, Endpoint::Main);
        let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [r#"spec.clusterIPs[0]: Invalid value: ["10.96.9.9"]: may not change once set"#]
        );
        let named = service(&json!({"type": "ExternalName", "externalName": "a.b"}));
        let new = json!({"metadata": {"name": "web"}, "spec": {"clusterIP": "10.96.9.9", "ports": [{"port": 80}]}});
        let new = update(&named, new);
        assert_eq!(Service.validate_update(&named, &new, Endpoint::Main), []);
    }
}
