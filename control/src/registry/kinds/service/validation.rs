//! The rules of Services.

use std::net::IpAddr;

use serde_json::{Map, Value, json};
use windlass_api::names;

use super::{has_health_check, is_headless, is_reached_from_outside, is_type};
use crate::registry::field_error::FieldError;
use crate::registry::kinds::field_path::{Field, repeated};
use crate::registry::kinds::rules::{self, PROTOCOLS};
use crate::registry::validation::labels;

const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const AFFINITIES: &[&str] = &["ClientIP", "None"];
const POLICIES: &[&str] = &["Cluster", "Local"];
const FAMILIES: &[&str] = &["IPv4", "IPv6"];
const FAMILY_POLICIES: &[&str] = &["PreferDualStack", "RequireDualStack", "SingleStack"];
const DISTRIBUTIONS: &[&str] = &["PreferClose", "PreferSameNode", "PreferSameZone"];
const IP_MODES: &[&str] = &["Proxy", "VIP"];

/// Most seconds a client can stay with its pod.
const MAX_AFFINITY: i64 = 86_400;
const BALANCER_ONLY: &str = "may only be used when `type` is 'LoadBalancer'";
const SET_ONCE: &str = "may not change once set";
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

/// All that is wrong with a Service.
pub(super) fn validate(object: &Value) -> Vec<FieldError> {
    let empty = Map::new();
    let members = object.get("spec").and_then(Value::as_object);
    let members = members.unwrap_or(&empty);
    let spec = Field::root(object).at("spec");
    let mut errors = validate_type(&spec, members);
    errors.extend(validate_ports(&spec, members));
    let selector = spec.at("selector");
    errors.extend(labels(selector.path(), Some(selector.value())));
    errors.extend(validate_affinity(&spec));
    if !is_type(members, "ExternalName") {
        errors.extend(validate_addresses(&spec));
        errors.extend(validate_families(&spec, members));
    }
    for address in spec.at("externalIPs").items() {
        let wrong = rules::ip(&address);
        errors.extend(wrong.or_else(|| rules::not_special(&address)));
    }
    errors.extend(validate_balancer(object, &spec, members));
    errors.extend(validate_traffic(&spec, members));
    errors
}

fn validate_type(spec: &Field<'_>, members: &Map<String, Value>) -> Vec<FieldError> {
    let kind = spec.at("type");
    let headless = is_headless(members);
    let mut errors: Vec<_> = kind.one_of(TYPES).into_iter().collect();
    if spec.at("ports").is_empty() && !headless && kind.text() != "ExternalName" {
        errors.push(spec.at("ports").required(""));
    }
    match kind.text() {
        "LoadBalancer" | "NodePort" if headless => {
            let detail = format!("may not be set to 'None' for {} services", kind.text());
            errors.push(FieldError::invalid("spec.clusterIPs[0]", "None", detail));
        }
        "ExternalName" => {
            for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                let field = spec.at(field);
                if !field.is_empty() {
                    errors.push(field.forbidden("may not be set for ExternalName services"));
                }
            }
            let name = spec.at("externalName");
            let stem = name.text().strip_suffix('.').unwrap_or(name.text()).into();
            errors.extend(Field::new(name.path(), &stem).must_follow(names::dns1123_subdomain));
        }
        _ => {}
    }
    errors
}

fn validate_ports(spec: &Field<'_>, members: &Map<String, Value>) -> Vec<FieldError> {
    let ports = spec.at("ports").items();
    let several = ports.len() > 1;
    let mut errors: Vec<_> = ports
        .iter()
        .flat_map(|port| validate_port(port, several))
        .collect();
    let names = ports.iter().map(|port| port.at("name"));
    let names: Vec<_> = names.filter(|name| !name.is_empty()).collect();
    errors.extend(repeated(&names));
    if is_type(members, "ClusterIP") {
        let node_ports = ports.iter().map(|port| port.at("nodePort"));
        let node_ports = node_ports.filter(|port| port.integer() != 0);
        let detail = "may not be used when `type` is 'ClusterIP'";
        errors.extend(node_ports.map(|port| port.forbidden(detail)));
    }
    errors.extend(repeated_ports(&ports));
    errors
}

fn repeated_ports(ports: &[Field<'_>]) -> Vec<FieldError> {
    let (mut numbers, mut node_ports) = (Vec::new(), Vec::new());
    let mut errors = Vec::new();
    for port in ports {
        let protocol = port.at("protocol").text();
        let (number, node_port) = (port.at("port").integer(), port.at("nodePort"));
        let at_node = (protocol, node_port.integer());
        if at_node.1 != 0 && node_ports.contains(&at_node) {
            errors.push(node_port.duplicate());
        }
        node_ports.push(at_node);
        if numbers.contains(&(protocol, number)) {
            let value = json!({"protocol": protocol, "port": number});
            errors.push(FieldError::duplicate(port.path(), value));
        }
        numbers.push((protocol, number));
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
    errors.extend(rules::port_or_name(&port.at("targetPort")));
    let protocol = port.at("appProtocol");
    if protocol.is_set() {
        errors.extend(protocol.checked(names::qualified_name));
    }
    errors
}

fn validate_affinity(spec: &Field<'_>) -> Vec<FieldError> {
    let affinity = spec.at("sessionAffinity");
    let timeout = spec
        .at("sessionAffinityConfig")
        .at("clientIP")
        .at("timeoutSeconds");
    let mut errors: Vec<_> = affinity.one_of(AFFINITIES).into_iter().collect();
    let allowed = (1..=MAX_AFFINITY).contains(&timeout.integer());
    if affinity.text() == "ClientIP" && !allowed {
        let detail = format!("must be greater than 0 and less than {MAX_AFFINITY}");
        errors.push(timeout.invalid(detail));
    }
    errors
}

/// `clusterIP` and `clusterIPs` agree, and hold addresses, one of each family at most.
fn validate_addresses(spec: &Field<'_>) -> Vec<FieldError> {
    let (address, list) = (spec.at("clusterIP"), spec.at("clusterIPs"));
    let addresses = list.texts();
    let mut errors = Vec::new();
    match (address.text(), addresses.first()) {
        ("", Some(_)) => {
            let detail = "must be empty when `clusterIP` is not specified";
            errors.push(list.invalid(detail));
        }
        ("", None) => {}
        (_, None) => errors.push(list.required("")),
        (address, Some(first)) if address != *first => {
            errors.push(list.invalid("first value must match `clusterIP`"));
        }
        _ => {}
    }
    if addresses.first() == Some(&"None") {
        if addresses.len() > 1 {
            errors.push(list.invalid("'None' must be the first and only value"));
        }
        return errors;
    }
    let wrong: Vec<_> = list.items().iter().filter_map(rules::ip).collect();
    if addresses.len() > 2 {
        errors.push(list.invalid("may only hold up to 2 values"));
    }
    if !wrong.is_empty() {
        errors.extend(wrong);
        return errors;
    }
    let is_v4 = |text: &str| {
        text.parse::<IpAddr>()
            .is_ok_and(|address| address.is_ipv4())
    };
    let families: Vec<_> = addresses.iter().map(|address| is_v4(address)).collect();
    if matches!(families.as_slice(), [first, rest @ ..] if rest.contains(first)) {
        let detail = "may specify no more than one IP for each IP family";
        errors.push(list.invalid(detail));
    }
    let named = spec.at("ipFamilies").texts();
    let pairs = list.items().into_iter().zip(families).zip(named);
    for (index, ((address, is_v4), family)) in pairs.enumerate() {
        if FAMILIES.contains(&family) && is_v4 != (family == "IPv4") {
            let detail =
                format!("expected an {family} value as indicated by `ipFamilies[{index}]`");
            errors.push(address.invalid(detail));
        }
    }
    errors
}

/// Families and policy are known ones, and the cluster has them.
fn validate_families(spec: &Field<'_>, members: &Map<String, Value>) -> Vec<FieldError> {
    let (families, policy) = (spec.at("ipFamilies"), spec.at("ipFamilyPolicy"));
    let all = families.items();
    let mut errors: Vec<_> = all.iter().filter_map(|one| one.one_of(FAMILIES)).collect();
    errors.extend(repeated(&all));
    errors.extend(policy.one_of_if_set(FAMILY_POLICIES));
    if policy.text() == "SingleStack" {
        for (list, what) in [
            (&families, "IP families"),
            (&spec.at("clusterIPs"), "cluster IPs"),
        ] {
            if list.len() > 1 {
                let detail = format!(
                    "must be RequireDualStack or PreferDualStack when multiple {what} are specified"
                );
                errors.push(policy.invalid(detail));
            }
        }
    }
    // What serves a headless Service without selector does not get addresses from the cluster.
    if is_headless(members) && spec.at("selector").is_empty() {
        return errors;
    }
    let absent = all.iter().filter(|family| family.text() == "IPv6");
    errors.extend(absent.map(|family| family.invalid("not configured on this cluster")));
    if policy.text() == "RequireDualStack" {
        let detail = "this cluster is not configured for dual-stack services";
        errors.push(policy.invalid(detail));
    }
    errors
}

fn validate_balancer(
    object: &Value,
    spec: &Field<'_>,
    members: &Map<String, Value>,
) -> Vec<FieldError> {
    let balances = is_type(members, "LoadBalancer");
    let (ranges, class) = (
        spec.at("loadBalancerSourceRanges"),
        spec.at("loadBalancerClass"),
    );
    let mut errors = validate_ranges(object, &ranges, balances);
    let allocates = spec.at("allocateLoadBalancerNodePorts");
    for field in [&allocates, &class] {
        if field.is_set() && !balances {
            errors.push(field.forbidden(BALANCER_ONLY));
        }
    }
    if class.is_set() && balances {
        errors.extend(class.checked(names::qualified_name));
    }
    errors
}

/// The networks that may use the balancer, from the field or the annotation before it.
fn validate_ranges(object: &Value, ranges: &Field<'_>, balances: bool) -> Vec<FieldError> {
    let annotations = Field::root(object).at("metadata").at("annotations");
    let annotation = annotations.key(SOURCE_RANGES);
    let mut errors = Vec::new();
    if !ranges.is_empty() {
        // The capital letter is upstream's.
        let ranges = Field::new("spec.LoadBalancerSourceRanges", ranges.value());
        if !balances {
            errors.push(ranges.forbidden(BALANCER_ONLY));
        }
        errors.extend(ranges.items().iter().filter_map(rules::cidr));
    } else if annotation.is_set() {
        if !balances {
            errors.push(annotation.forbidden(BALANCER_ONLY));
        }
        let all = annotation
            .text()
            .split(',')
            .map(|range| Value::from(range.trim()));
        for range in all.filter(|_| !annotation.text().trim().is_empty()) {
            errors.extend(rules::cidr(&Field::new(annotation.path(), &range)));
        }
    }
    errors
}

fn validate_traffic(spec: &Field<'_>, members: &Map<String, Value>) -> Vec<FieldError> {
    let (outside, inside) = (
        spec.at("externalTrafficPolicy"),
        spec.at("internalTrafficPolicy"),
    );
    let mut errors = Vec::new();
    if is_reached_from_outside(members) {
        errors.extend(outside.must_be_one_of(POLICIES));
    } else if !outside.is_empty() {
        let detail = "may only be set for externally-accessible services";
        errors.push(outside.invalid(detail));
    }
    let check = spec.at("healthCheckNodePort");
    if !has_health_check(members) && check.integer() != 0 {
        let detail =
            "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        errors.push(check.invalid(detail));
    } else if has_health_check(members) {
        errors.extend(rules::port_number(&check));
    }
    errors.extend(inside.one_of_if_set(POLICIES));
    errors.extend(spec.at("trafficDistribution").one_of_if_set(DISTRIBUTIONS));
    errors
}

/// All that is wrong with a change: addresses, families and the like are set once.
pub(super) fn validate_update(old: &Value, new: &Value) -> Vec<FieldError> {
    let (old, new) = (Field::root(old).at("spec"), Field::root(new).at("spec"));
    let kind = |spec: &Field<'_>, of: &str| spec.at("type").text() == of;
    let mut errors = Vec::new();
    if !kind(&old, "ExternalName") && !kind(&new, "ExternalName") {
        errors.extend(validate_kept(&old, &new));
    }
    let class = new.at("loadBalancerClass");
    let balances = kind(&old, "LoadBalancer") && kind(&new, "LoadBalancer");
    if balances && old.at("loadBalancerClass").value() != class.value() {
        errors.push(class.invalid(SET_ONCE));
    }
    let check = |spec: &Field<'_>| spec.at("healthCheckNodePort").integer();
    let local = |spec: &Field<'_>| spec.at("externalTrafficPolicy").text() == "Local";
    if balances && local(&old) && local(&new) && check(&old) != check(&new) {
        let check = new.at("healthCheckNodePort");
        errors.push(check.forbidden("field is immutable"));
    }
    errors
}

fn validate_kept(old: &Field<'_>, new: &Field<'_>) -> Vec<FieldError> {
    let headless = |spec: &Field<'_>| spec.at("clusterIP").text() == "None";
    let mut errors = Vec::new();
    if headless(old) && headless(new) {
        return errors;
    }
    let (before, after) = (old.at("clusterIPs"), new.at("clusterIPs"));
    if let (Some(first), Some(now)) = (before.texts().first(), after.texts().first())
        && first != now
    {
        let path = format!("{}[0]", after.path());
        errors.push(FieldError::invalid(path, after.value().clone(), SET_ONCE));
    } else if !before.is_empty() && after.is_empty() {
        let path = format!("{}[0]", after.path());
        let detail = "primary clusterIP can not be unset";
        errors.push(FieldError::invalid(path, after.value().clone(), detail));
    }
    let (families, now) = (old.at("ipFamilies"), new.at("ipFamilies"));
    let moved = families.texts().first() != now.texts().first();
    if headless(old) == headless(new) && !families.is_empty() && moved {
        let path = format!("{}[0]", now.path());
        errors.push(FieldError::invalid(path, now.value().clone(), SET_ONCE));
    }
    errors
}

/// All that is wrong with a status: where a load balancer is reached.
pub(super) fn validate_status(object: &Value) -> Vec<FieldError> {
    let root = Field::root(object);
    let ingress = root.at("status").at("loadBalancer").at("ingress");
    if root.at("spec").at("type").text() != "LoadBalancer" && !ingress.is_empty() {
        let detail = "may only be used when `spec.type` is LoadBalancer";
        return vec![ingress.forbidden(detail)];
    }
    ingress.items().iter().flat_map(validate_ingress).collect()
}

fn validate_ingress(ingress: &Field<'_>) -> Vec<FieldError> {
    let (ip, mode, host) = (
        ingress.at("ip"),
        ingress.at("ipMode"),
        ingress.at("hostname"),
    );
    let mut errors = Vec::new();
    if !ip.is_empty() {
        errors.extend(rules::ip(&ip));
        if !mode.is_set() {
            errors.push(mode.required("must be specified when `ip` is set"));
        }
    } else if mode.is_set() {
        errors.push(mode.forbidden("may not be specified when `ip` is not set"));
    }
    errors.extend(mode.one_of_if_set(IP_MODES));
    if !host.is_empty() {
        errors.extend(host.follows(names::dns1123_subdomain));
        if rules::ip(&host).is_none() {
            errors.push(host.invalid("must be a DNS name, not an IP address"));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::super::service;
    use super::*;

    #[test]
    fn each_rule_answers_where_it_is_broken() {
        let port = json!([{"port": 80}]);
        let cases = [
            (json!({"ports": port}), None),
            (json!({"clusterIP": "None"}), None),
            (json!({}), Some("spec.ports: Required value")),
            (
                json!({"ports": [{"port": 80}, {"port": 81}]}),
                Some("spec.ports[0].name: Required value"),
            ),
            (
                json!({"ports": [{"port": 80, "nodePort": 30000}]}),
                Some(
                    "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
                ),
            ),
            (
                json!({"ports": [{"port": 80, "protocol": "ICMP"}]}),
                Some(
                    r#"spec.ports[0].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP""#,
                ),
            ),
            (
                json!({"ports": port, "type": "NodePort", "clusterIP": "None"}),
                Some(
                    r#"spec.clusterIPs[0]: Invalid value: "None": may not be set to 'None' for NodePort services"#,
                ),
            ),
            (
                json!({"type": "ExternalName", "externalName": "a.b.", "clusterIP": "10.96.0.9"}),
                Some("spec.clusterIPs: Forbidden: may not be set for ExternalName services"),
            ),
            (
                json!({"ports": port, "sessionAffinity": "ClientIP",
                    "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 0}}}),
                Some(
                    "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 0: must be greater than 0 and less than 86400",
                ),
            ),
            (
                json!({"ports": port, "ipFamilies": ["IPv6"]}),
                Some(
                    r#"spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster"#,
                ),
            ),
            (
                json!({"ports": port, "externalIPs": ["127.0.0.1"]}),
                Some(
                    r#"spec.externalIPs[0]: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)"#,
                ),
            ),
            (
                json!({"ports": port, "externalTrafficPolicy": "Local"}),
                Some(
                    r#"spec.externalTrafficPolicy: Invalid value: "Local": may only be set for externally-accessible services"#,
                ),
            ),
            (
                json!({"ports": port, "loadBalancerClass": "a.b/c"}),
                Some(
                    "spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'",
                ),
            ),
            (
                json!({"ports": port, "trafficDistribution": "Far"}),
                Some(
                    r#"spec.trafficDistribution: Unsupported value: "Far": supported values: "PreferClose", "PreferSameNode", "PreferSameZone""#,
                ),
            ),
        ];
        for (spec, expected) in cases {
            let errors = validate(&service(&spec));
            let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
            match expected {
                None => assert!(texts.is_empty(), "{spec}: {texts:?}"),
                Some(text) => assert!(texts.iter().any(|t| t == text), "{spec}: {texts:?}"),
            }
        }
    }

    #[test]
    fn only_a_load_balancer_is_reached_by_one() {
        let mut object = service(&json!({"ports": [{"port": 80}]}));
        object["status"]["loadBalancer"]["ingress"] = json!([{"ip": "1.2.3.4"}]);
        assert_eq!(validate_status(&object).len(), 1);
    }
}
