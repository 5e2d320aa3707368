//! Service, with the allocation of its addresses and node ports.
//!
//! Addresses and ports are claims (`strategy.rs`): each has a record of its own that is written in the
//! same commit as the Service, so that two Services can never hold one, and a restart forgets none.

use std::net::Ipv4Addr;

use jiff::Timestamp;
use rand::Rng;
use rand::RngExt;
use serde_json::{Map, Value, json};
use windlass_api::names;
use windlass_api::resource::GroupVersionKind;

use super::{default, integer, items, text};
use crate::registry::field_error::FieldError;
use crate::registry::object_meta as meta;
use crate::registry::strategy::{
    AGE, Claim, Column, Endpoint, Kind, NAME, NameRule, PROXY_VERBS, Strategy,
};
use crate::registry::validation::invalid;
use crate::registry::{Pools, age};

struct Service;

/// The row of the table.
pub(super) fn kind() -> Kind {
    let gvk = |name| GroupVersionKind::of("", "v1", name);
    Kind::namespaced(gvk("Service"), "services", &Service)
        .short_names(&["svc"])
        .categories(&["all"])
        .subresource("proxy", gvk("ServiceProxyOptions"), PROXY_VERBS)
}

const COLUMNS: &[Column] = &[
    NAME,
    Column::new("Type", "string", "How the service is reached."),
    Column::new("Cluster-IP", "string", "Its address within the cluster."),
    Column::new("External-IP", "string", "Its addresses from outside."),
    Column::new("Port(s)", "string", "Its ports, and ports of the node."),
    AGE,
    Column::wide("Selector", "string", "Which pods serve it."),
];

const TYPES: &[&str] = &["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"];
const PROTOCOLS: &[&str] = &["TCP", "UDP", "SCTP"];
const AFFINITIES: &[&str] = &["ClientIP", "None"];

/// Random draws before the range is searched in order.
const DRAWS: usize = 16;

impl Strategy for Service {
    fn set_defaults(&self, object: &mut Value) {
        let spec = meta::member_mut(object, "spec");
        default(spec, "sessionAffinity", "None");
        default(spec, "type", "ClusterIP");
        let kind = spec
            .get("type")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        let ports = spec.get_mut("ports").and_then(Value::as_array_mut);
        for port in ports.into_iter().flatten().filter_map(Value::as_object_mut) {
            default(port, "protocol", "TCP");
            let number = port.get("port").cloned().unwrap_or_default();
            let target = port.get("targetPort").cloned().unwrap_or_default();
            if target.is_null() || target == 0 || target == "" {
                port.insert("targetPort".into(), number);
            }
        }
        if kind == "ExternalName" {
            return;
        }
        default(spec, "internalTrafficPolicy", "Cluster");
        default(spec, "ipFamilies", json!(["IPv4"]));
        default(spec, "ipFamilyPolicy", "SingleStack");
        if kind == "NodePort" || kind == "LoadBalancer" {
            default(spec, "externalTrafficPolicy", "Cluster");
        }
        if kind == "LoadBalancer" {
            default(spec, "allocateLoadBalancerNodePorts", true);
        }
        set_affinity_default(spec);
    }

    fn prepare_for_create(&self, object: &mut Value, _: &crate::identity::UserInfo) {
        if let Some(object) = object.as_object_mut() {
            object.insert("status".into(), json!({"loadBalancer": {}}));
        }
    }

    fn prepare_for_update(&self, old: &Value, new: &mut Value, _: Endpoint) {
        keep_allocations(old, new);
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let kind = text(object, "/spec/type");
        if !TYPES.contains(&kind) {
            errors.push(FieldError::not_supported("spec.type", kind, TYPES));
        }
        let affinity = text(object, "/spec/sessionAffinity");
        if !AFFINITIES.contains(&affinity) {
            errors.push(FieldError::not_supported(
                "spec.sessionAffinity",
                affinity,
                AFFINITIES,
            ));
        }
        let headless = text(object, "/spec/clusterIP") == "None";
        if kind == "ExternalName" {
            let name = text(object, "/spec/externalName").trim_end_matches('.');
            if name.is_empty() {
                errors.push(FieldError::required("spec.externalName", ""));
            } else {
                errors.extend(invalid(
                    "spec.externalName",
                    name,
                    names::dns1123_subdomain(name),
                ));
            }
        } else if items(object, "/spec/ports").is_empty() && !headless {
            errors.push(FieldError::required("spec.ports", ""));
        }
        errors.extend(validate_ports(object));
        let selector = object.pointer("/spec/selector");
        errors.extend(crate::registry::validation::labels(
            "spec.selector",
            selector,
        ));
        errors
    }

    fn validate_update(&self, old: &Value, new: &Value, endpoint: Endpoint) -> Vec<FieldError> {
        let address = |object| text(object, "/spec/clusterIP");
        let (before, after) = (address(old), address(new));
        let wants_none = text(new, "/spec/type") == "ExternalName";
        if endpoint == Endpoint::Status || before.is_empty() || before == after || wants_none {
            return Vec::new();
        }
        vec![FieldError::invalid(
            "spec.clusterIPs[0]",
            json!([after]),
            "may not change once set",
        )]
    }

    fn allocate(
        &self,
        _old: Option<&Value>,
        object: &mut Value,
        pools: &Pools,
        taken: &dyn Fn(&str) -> bool,
    ) -> Result<(), Vec<FieldError>> {
        let kind = text(object, "/spec/type").to_owned();
        let spec = meta::member_mut(object, "spec");
        if kind == "ExternalName" {
            for field in ["clusterIP", "clusterIPs"] {
                spec.shift_remove(field);
            }
            return Ok(());
        }
        allocate_address(spec, pools, taken)?;
        let wants_ports = kind == "NodePort"
            || (kind == "LoadBalancer"
                && spec.get("allocateLoadBalancerNodePorts") != Some(&Value::Bool(false)));
        if wants_ports {
            allocate_ports(spec, pools, taken)
        } else {
            release_ports(spec);
            Ok(())
        }
    }

    fn claims(&self, object: &Value) -> Vec<Claim> {
        let mut claims = Vec::new();
        let address = text(object, "/spec/clusterIP");
        if !address.is_empty() && address != "None" {
            let detail = "failed to allocate IP: provided IP is already allocated";
            let taken = FieldError::invalid("spec.clusterIPs", json!([address]), detail);
            claims.push(Claim {
                what: format!("ip/{address}"),
                taken,
            });
        }
        for (index, port) in items(object, "/spec/ports").iter().enumerate() {
            let number = integer(port, "/nodePort");
            if number > 0 {
                let path = format!("spec.ports[{index}].nodePort");
                let taken = FieldError::invalid(path, number, "provided port is already allocated");
                let what = format!("node-port/{}/{number}", text(port, "/protocol"));
                claims.push(Claim { what, taken });
            }
        }
        claims
    }

    fn has_status(&self) -> bool {
        true
    }

    fn counts_generations(&self) -> bool {
        false
    }

    fn name_rule(&self) -> NameRule {
        NameRule::Rfc1035Label
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["spec.clusterIP", "spec.type"]
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let or_none =
            |text: &str| -> Value { if text.is_empty() { "<none>" } else { text }.into() };
        let ports: Vec<_> = items(object, "/spec/ports").iter().map(port_text).collect();
        let selector = object.pointer("/spec/selector").and_then(Value::as_object);
        let selector: Vec<_> = selector
            .into_iter()
            .flatten()
            .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
            .collect();
        vec![
            meta::name(object).into(),
            text(object, "/spec/type").into(),
            or_none(text(object, "/spec/clusterIP")),
            external(object).into(),
            or_none(&ports.join(",")),
            age(object, now).into(),
            or_none(&selector.join(",")),
        ]
    }
}

fn set_affinity_default(spec: &mut Map<String, Value>) {
    if spec.get("sessionAffinity") == Some(&"ClientIP".into()) {
        default(
            spec,
            "sessionAffinityConfig",
            json!({"clientIP": {"timeoutSeconds": 10_800}}),
        );
    }
}

fn validate_ports(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let ports = items(object, "/spec/ports");
    let mut names_seen = std::collections::HashSet::new();
    let mut ports_seen = std::collections::HashSet::new();
    for (index, port) in ports.iter().enumerate() {
        let path = format!("spec.ports[{index}]");
        let (name, number) = (text(port, "/name"), integer(port, "/port"));
        if name.is_empty() && ports.len() > 1 {
            errors.push(FieldError::required(format!("{path}.name"), ""));
        } else if !name.is_empty() {
            errors.extend(invalid(
                &format!("{path}.name"),
                name,
                names::dns1123_label(name),
            ));
            if !names_seen.insert(name) {
                errors.push(FieldError::duplicate(format!("{path}.name"), name));
            }
        }
        let problems = names::port_number(number).into_iter();
        errors.extend(problems.map(|p| FieldError::invalid(format!("{path}.port"), number, p)));
        let protocol = text(port, "/protocol");
        if !PROTOCOLS.contains(&protocol) {
            let path = format!("{path}.protocol");
            errors.push(FieldError::not_supported(path, protocol, PROTOCOLS));
        }
        if !ports_seen.insert((protocol, number)) {
            let value = json!({"protocol": protocol, "port": number});
            errors.push(FieldError::duplicate(path.clone(), value));
        }
        errors.extend(validate_target(&path, port));
    }
    errors
}

fn validate_target(path: &str, port: &Value) -> Vec<FieldError> {
    let path = format!("{path}.targetPort");
    match port.get("targetPort") {
        Some(Value::String(name)) => invalid(&path, name, names::port_name(name)).collect(),
        Some(value) => {
            let problems = names::port_number(value.as_i64().unwrap_or_default()).into_iter();
            problems
                .map(|p| FieldError::invalid(path.as_str(), value.clone(), p))
                .collect()
        }
        None => Vec::new(),
    }
}

/// A client that replaces a Service without naming what was allocated keeps it.
fn keep_allocations(old: &Value, new: &mut Value) {
    if text(new, "/spec/type") == "ExternalName" {
        return;
    }
    let old_ports = items(old, "/spec/ports");
    let spec = meta::member_mut(new, "spec");
    for field in ["clusterIP", "clusterIPs"] {
        if let Some(value) = old.pointer(&format!("/spec/{field}"))
            && spec
                .get(field)
                .is_none_or(|value| value == "" || value.is_null())
        {
            spec.insert(field.into(), value.clone());
        }
    }
    let ports = spec.get_mut("ports").and_then(Value::as_array_mut);
    for port in ports.into_iter().flatten().filter_map(Value::as_object_mut) {
        let same = |old: &&Value| {
            old.get("port") == port.get("port") && old.get("protocol") == port.get("protocol")
        };
        let kept = old_ports
            .iter()
            .find(same)
            .and_then(|old| old.get("nodePort"));
        if let Some(kept) = kept {
            default(port, "nodePort", kept.clone());
        }
    }
}

fn allocate_address(
    spec: &mut Map<String, Value>,
    pools: &Pools,
    taken: &dyn Fn(&str) -> bool,
) -> Result<(), Vec<FieldError>> {
    const PATH: &str = "spec.clusterIPs[0]";
    let wanted = spec
        .get("clusterIP")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    let address = match wanted.as_str() {
        "" => free_address(pools, taken)
            .map(|address| address.to_string())
            .ok_or_else(|| {
                let detail = "failed to allocate a serviceIP: range is full";
                vec![FieldError::invalid("spec.clusterIP", "", detail)]
            })?,
        "None" => wanted,
        _ => match wanted.parse::<Ipv4Addr>() {
            Err(_) => {
                let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
                return Err(vec![FieldError::invalid(PATH, wanted, detail)]);
            }
            Ok(address) if !contains(pools, address) => {
                let (network, bits) = pools.service_network;
                let detail = format!(
                    "failed to allocate IP {wanted}: the provided IP ({wanted}) is not in the valid range. The range of valid IPs is {network}/{bits}"
                );
                return Err(vec![FieldError::invalid(
                    "spec.clusterIPs",
                    json!([wanted]),
                    detail,
                )]);
            }
            Ok(_) => wanted,
        },
    };
    spec.insert("clusterIP".into(), address.clone().into());
    spec.insert("clusterIPs".into(), json!([address]));
    Ok(())
}

fn size(pools: &Pools) -> u32 {
    1u32.checked_shl(32 - u32::from(pools.service_network.1))
        .unwrap_or(u32::MAX)
}

fn contains(pools: &Pools, address: Ipv4Addr) -> bool {
    let offset = u32::from(address).wrapping_sub(u32::from(pools.service_network.0));
    offset > 0 && offset < size(pools).saturating_sub(1)
}

/// An address nobody holds: drawn at random, and searched for when the range is nearly full. The
/// lowest addresses are left to those who ask for one by name, as the cluster's own Services do.
fn free_address(pools: &Pools, taken: &dyn Fn(&str) -> bool) -> Option<Ipv4Addr> {
    let base = u32::from(pools.service_network.0);
    let last = size(pools).saturating_sub(2);
    let reserved = (last / 16).clamp(1, 256).min(last);
    let mut rng = rand::rng();
    let drawn = (0..DRAWS)
        .map(|_| rng.random_range(reserved..=last))
        .collect::<Vec<_>>();
    let rest = (reserved..=last).chain(1..reserved);
    drawn
        .into_iter()
        .chain(rest)
        .map(|offset| Ipv4Addr::from(base + offset))
        .find(|address| !taken(&format!("ip/{address}")))
}

fn allocate_ports(
    spec: &mut Map<String, Value>,
    pools: &Pools,
    taken: &dyn Fn(&str) -> bool,
) -> Result<(), Vec<FieldError>> {
    let mut errors = Vec::new();
    let mut chosen: Vec<(String, u16)> = Vec::new();
    let ports = spec.get_mut("ports").and_then(Value::as_array_mut);
    for (index, port) in ports.into_iter().flatten().enumerate() {
        let path = format!("spec.ports[{index}].nodePort");
        let protocol = text(port, "/protocol").to_owned();
        let number = integer(port, "/nodePort");
        if number == 0 {
            let free = |number: &u16| {
                !taken(&format!("node-port/{protocol}/{number}"))
                    && !chosen.contains(&(protocol.clone(), *number))
            };
            let drawn = draw_port(pools, &mut rand::rng(), &free);
            let Some(number) = drawn else {
                errors.push(FieldError::invalid(
                    path,
                    0,
                    "failed to allocate a nodePort: range is full",
                ));
                continue;
            };
            chosen.push((protocol, number));
            if let Some(port) = port.as_object_mut() {
                port.insert("nodePort".into(), number.into());
            }
        } else if !u16::try_from(number).is_ok_and(|number| pools.node_ports.contains(&number)) {
            let detail = format!(
                "provided port is not in the valid range. The range of valid ports is {}-{}",
                pools.node_ports.start(),
                pools.node_ports.end()
            );
            errors.push(FieldError::invalid(path, number, detail));
        }
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(errors)
    }
}

fn draw_port(pools: &Pools, rng: &mut impl Rng, free: &dyn Fn(&u16) -> bool) -> Option<u16> {
    let drawn: Vec<_> = (0..DRAWS)
        .map(|_| rng.random_range(pools.node_ports.clone()))
        .collect();
    drawn.into_iter().chain(pools.node_ports.clone()).find(free)
}

fn release_ports(spec: &mut Map<String, Value>) {
    let ports = spec.get_mut("ports").and_then(Value::as_array_mut);
    for port in ports.into_iter().flatten().filter_map(Value::as_object_mut) {
        port.shift_remove("nodePort");
    }
}

fn port_text(port: &Value) -> String {
    let (number, protocol) = (integer(port, "/port"), text(port, "/protocol"));
    match integer(port, "/nodePort") {
        0 => format!("{number}/{protocol}"),
        node_port => format!("{number}:{node_port}/{protocol}"),
    }
}

fn external(object: &Value) -> String {
    let external = items(object, "/spec/externalIPs")
        .iter()
        .filter_map(Value::as_str);
    let ingress = items(object, "/status/loadBalancer/ingress").iter();
    let ingress = ingress.map(|ingress| match text(ingress, "/ip") {
        "" => text(ingress, "/hostname"),
        ip => ip,
    });
    let all: Vec<_> = external.chain(ingress).collect();
    match text(object, "/spec/type") {
        "ExternalName" => text(object, "/spec/externalName").to_owned(),
        "LoadBalancer" if all.is_empty() => "<pending>".into(),
        _ if all.is_empty() => "<none>".into(),
        _ => all.join(","),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(spec: &Value) -> Value {
        let mut object = json!({"metadata": {"name": "web"}, "spec": spec});
        Service.set_defaults(&mut object);
        object
    }

    #[test]
    fn a_node_port_service_gets_an_address_and_ports_that_are_free() {
        let mut object = service(&json!({"type": "NodePort", "ports": [{"port": 80}]}));
        let pools = Pools {
            node_ports: 30000..=30001,
            ..Pools::default()
        };
        let taken = |claim: &str| claim == "node-port/TCP/30000";
        Service.allocate(None, &mut object, &pools, &taken).unwrap();
        assert_eq!(integer(&object, "/spec/ports/0/nodePort"), 30001);
        assert_eq!(integer(&object, "/spec/ports/0/targetPort"), 80);
        assert!(contains(
            &pools,
            text(&object, "/spec/clusterIP").parse().unwrap()
        ));
        assert_eq!(Service.claims(&object).len(), 2);
    }

    #[test]
    fn a_full_range_is_an_error_and_not_a_loop() {
        let mut object = service(&json!({"type": "NodePort", "ports": [{"port": 80}]}));
        let everything = |_: &str| true;
        assert!(
            Service
                .allocate(None, &mut object, &small(), &everything)
                .is_err()
        );
    }

    fn small() -> Pools {
        Pools {
            service_network: (Ipv4Addr::new(10, 0, 0, 0), 28),
            node_ports: 30000..=30003,
        }
    }

    #[test]
    fn every_address_of_a_small_range_is_found() {
        let last_free = |claim: &str| claim != "ip/10.0.0.1";
        assert_eq!(
            free_address(&small(), &last_free),
            Some(Ipv4Addr::new(10, 0, 0, 1))
        );
    }

    #[test]
    fn replacing_a_service_keeps_its_address_and_ports() {
        let mut old = service(&json!({"type": "NodePort", "ports": [{"port": 80}]}));
        Service
            .allocate(None, &mut old, &Pools::default(), &|_| false)
            .unwrap();
        let mut new = service(&json!({"type": "NodePort", "ports": [{"port": 80}]}));
        Service.prepare_for_update(&old, &mut new, Endpoint::Main);
        assert_eq!(Service.claims(&old), Service.claims(&new));
    }
}
