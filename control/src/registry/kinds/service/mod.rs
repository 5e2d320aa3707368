//! Service, with the allocation of its addresses and node ports.
//!
//! Addresses and ports are claims (`strategy.rs`): each has a record of its own that is written in the
//! same commit as the Service, so that two Services can never hold one, and a restart forgets none.
//! `allocation` chooses them, `transition` carries them over from one state of a Service to the next,
//! `validation` has the rules.

mod allocation;
mod transition;
mod validation;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use windlass_api::resource::GroupVersionKind;

use super::field_path::Field;
use super::{default, default_text, integer, items, text};
use crate::registry::field_error::FieldError;
use crate::registry::object_meta as meta;
use crate::registry::strategy::{
    AGE, Claim, Column, Endpoint, Kind, NAME, NameRule, PROXY_VERBS, Strategy,
};
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

/// Seconds a client stays with its pod.
const AFFINITY_SECONDS: i64 = 10_800;

impl Strategy for Service {
    fn set_defaults(&self, object: &mut Value) {
        let spec = meta::member_mut(object, "spec");
        default_text(spec, "sessionAffinity", "None");
        default_text(spec, "type", "ClusterIP");
        set_affinity_defaults(spec);
        set_port_defaults(spec);
        if !is_type(spec, "ExternalName") {
            default(spec, "internalTrafficPolicy", "Cluster");
            set_family_defaults(spec);
        }
        if is_reached_from_outside(spec) {
            default_text(spec, "externalTrafficPolicy", "Cluster");
        }
        if is_type(spec, "LoadBalancer") {
            default(spec, "allocateLoadBalancerNodePorts", true);
            set_ingress_defaults(object);
        }
    }

    fn prepare_for_create(&self, object: &mut Value, _: &crate::identity::UserInfo) {
        transition::list_address(meta::member_mut(object, "spec"));
        if let Some(object) = object.as_object_mut() {
            object.insert("status".into(), json!({"loadBalancer": {}}));
        }
    }

    fn prepare_for_update(&self, old: &Value, new: &mut Value, endpoint: Endpoint) {
        if endpoint == Endpoint::Main {
            transition::carry_over(old, new);
            // What the old type left behind may have been defaulted for the new one.
            self.set_defaults(new);
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        validation::validate(object)
    }

    fn validate_update(&self, old: &Value, new: &Value, endpoint: Endpoint) -> Vec<FieldError> {
        if endpoint == Endpoint::Status {
            validation::validate_status(new)
        } else {
            validation::validate_update(old, new)
        }
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        let spec = Field::root(object).at("spec");
        let external = !spec.at("externalIPs").is_empty();
        let mut warnings = Vec::new();
        if spec.at("clusterIP").text() == "None" {
            if external {
                let text = r#"spec.externalIPs is ignored when spec.clusterIP is "None""#;
                warnings.push(text.to_owned());
            }
            if spec.at("sessionAffinity").text() != "None" {
                let text = "spec.SessionAffinity is ignored for headless services";
                warnings.push(text.to_owned());
            }
        }
        if external && spec.at("type").text() == "ExternalName" {
            let text = r#"spec.externalIPs is ignored when spec.type is "ExternalName""#;
            warnings.push(text.to_owned());
        }
        warnings
    }

    fn allocate(
        &self,
        _old: Option<&Value>,
        object: &mut Value,
        pools: &Pools,
        taken: &dyn Fn(&str) -> bool,
    ) -> Result<(), Vec<FieldError>> {
        allocation::allocate(meta::member_mut(object, "spec"), pools, taken)
    }

    fn claims(&self, object: &Value) -> Vec<Claim> {
        allocation::claims(object)
    }

    fn has_status(&self) -> bool {
        true
    }

    fn counts_generations(&self) -> bool {
        false
    }

    fn creates_on_update(&self) -> bool {
        true
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

fn is_type(spec: &Map<String, Value>, kind: &str) -> bool {
    spec.get("type").and_then(Value::as_str) == Some(kind)
}

fn is_headless(spec: &Map<String, Value>) -> bool {
    spec.get("clusterIP").and_then(Value::as_str) == Some("None")
}

/// Whether anything outside the cluster reaches the Service.
fn is_reached_from_outside(spec: &Map<String, Value>) -> bool {
    let addresses = spec.get("externalIPs").and_then(Value::as_array);
    is_type(spec, "NodePort")
        || is_type(spec, "LoadBalancer")
        || (is_type(spec, "ClusterIP") && addresses.is_some_and(|list| !list.is_empty()))
}

/// Whether the ports have node ports.
fn has_node_ports(spec: &Map<String, Value>) -> bool {
    is_type(spec, "NodePort") || is_type(spec, "LoadBalancer")
}

/// Whether a load balancer asks each node if it has pods of the Service.
fn has_health_check(spec: &Map<String, Value>) -> bool {
    is_type(spec, "LoadBalancer") && spec.get("externalTrafficPolicy") == Some(&"Local".into())
}

fn set_affinity_defaults(spec: &mut Map<String, Value>) {
    if spec.get("sessionAffinity") != Some(&"ClientIP".into()) {
        spec.shift_remove("sessionAffinityConfig");
        return;
    }
    default(spec, "sessionAffinityConfig", json!({}));
    let config = spec.get_mut("sessionAffinityConfig");
    if let Some(config) = config.and_then(Value::as_object_mut) {
        default(config, "clientIP", json!({}));
        let client = config.get_mut("clientIP").and_then(Value::as_object_mut);
        if let Some(client) = client {
            default(client, "timeoutSeconds", AFFINITY_SECONDS);
        }
    }
}

fn set_port_defaults(spec: &mut Map<String, Value>) {
    let ports = spec.get_mut("ports").and_then(Value::as_array_mut);
    for port in ports.into_iter().flatten().filter_map(Value::as_object_mut) {
        default_text(port, "protocol", "TCP");
        let number = port.get("port").cloned().unwrap_or_default();
        let target = port.get("targetPort").cloned().unwrap_or_default();
        if target.is_null() || target == 0 || target == "" {
            port.insert("targetPort".into(), number);
        }
    }
}

/// The families of a Service follow from its addresses, from its policy, or from the cluster, which has
/// IPv4 only. What serves a headless Service without selector is the user's affair: it may have both.
fn set_family_defaults(spec: &mut Map<String, Value>) {
    let both = |field: &str| {
        let list = spec.get(field).and_then(Value::as_array);
        list.is_some_and(|list| list.len() == 2)
    };
    let selects = spec
        .get("selector")
        .is_some_and(|selector| *selector != json!({}));
    let free = is_headless(spec) && !selects;
    let policy = if free || both("ipFamilies") || both("clusterIPs") {
        "RequireDualStack"
    } else {
        "SingleStack"
    };
    default(spec, "ipFamilyPolicy", policy);
    let dual = spec.get("ipFamilyPolicy") != Some(&"SingleStack".into());
    let families = if free && dual {
        json!(["IPv4", "IPv6"])
    } else {
        json!(["IPv4"])
    };
    if spec.get("ipFamilies").is_none_or(|list| *list == json!([])) {
        spec.insert("ipFamilies".into(), families);
    }
}

fn set_ingress_defaults(object: &mut Value) {
    let ingress = object.pointer_mut("/status/loadBalancer/ingress");
    let ingress = ingress.and_then(Value::as_array_mut).into_iter().flatten();
    for ingress in ingress.filter_map(Value::as_object_mut) {
        if ingress.get("ip").is_some_and(|ip| ip != "") {
            default(ingress, "ipMode", "VIP");
        }
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

/// A Service with its defaults, for tests.
#[cfg(test)]
fn service(spec: &Value) -> Value {
    let mut object = json!({"metadata": {"name": "web"}, "spec": spec});
    Service.set_defaults(&mut object);
    Service.prepare_for_create(&mut object, &crate::identity::UserInfo::default());
    object
}

/// A Service as it is stored, for tests: `spec` with all that the server allocates.
#[cfg(test)]
fn stored(spec: &Value) -> Value {
    let mut object = service(spec);
    Service
        .allocate(None, &mut object, &Pools::default(), &|_| false)
        .unwrap();
    object
}
