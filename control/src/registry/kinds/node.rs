//! Node.

use jiff::Timestamp;
use serde_json::{Value, json};
use windlass_api::names;
use windlass_api::resource::GroupVersionKind;

use super::field_path::{Field, repeated};
use super::{items, resource_names, rules, text};
use crate::registry::age;
use crate::registry::field_error::FieldError;
use crate::registry::object_meta as meta;
use crate::registry::strategy::{AGE, Column, Endpoint, Kind, NAME, PROXY_VERBS, Strategy};

struct Node;

/// The row of the table.
pub(super) fn kind() -> Kind {
    let gvk = |name| GroupVersionKind::of("", "v1", name);
    Kind::cluster(gvk("Node"), "nodes", &Node)
        .short_names(&["no"])
        .subresource("proxy", gvk("NodeProxyOptions"), PROXY_VERBS)
}

const COLUMNS: &[Column] = &[
    NAME,
    Column::new(
        "Status",
        "string",
        "Whether the node is ready and takes pods.",
    ),
    Column::new("Roles", "string", "Roles, from the node's labels."),
    AGE,
    Column::new("Version", "string", "Version of the node agent."),
    Column::wide("Internal-IP", "string", "Address within the cluster."),
    Column::wide("External-IP", "string", "Address from outside."),
    Column::wide("OS-Image", "string", "Operating system."),
    Column::wide("Kernel-Version", "string", "Kernel."),
    Column::wide("Container-Runtime", "string", "What runs containers."),
];

const ROLE_PREFIX: &str = "node-role.kubernetes.io/";

impl Strategy for Node {
    fn prepare_for_create(&self, _: &mut Value, _: &crate::identity::UserInfo) {
        // A node registers itself with its status, so that it is schedulable from the first moment.
    }

    fn set_defaults(&self, object: &mut Value) {
        set_cidr_defaults(object);
        let status = object.get_mut("status").and_then(Value::as_object_mut);
        if let Some(status) = status.filter(|status| !status.contains_key("allocatable"))
            && let Some(capacity) = status.get("capacity").cloned()
        {
            status.insert("allocatable".into(), capacity);
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let node = Field::root(object);
        let mut errors = validate_taints(&node.at("spec").at("taints"));
        errors.extend(validate_cidrs(&node.at("spec").at("podCIDRs")));
        errors.extend(validate_amounts(&node.at("status")));
        errors
    }

    fn validate_update(&self, old: &Value, new: &Value, endpoint: Endpoint) -> Vec<FieldError> {
        let (old, new) = (Field::root(old), Field::root(new));
        let status = new.at("status");
        let mut errors = repeated(&status.at("addresses").items());
        if endpoint == Endpoint::Status {
            errors.extend(validate_amounts(&status));
            return errors;
        }
        let (before, after) = (old.at("spec"), new.at("spec"));
        for (field, detail) in [
            (
                "podCIDRs",
                "node updates may not change podCIDR except from \"\" to valid",
            ),
            (
                "providerID",
                "node updates may not change providerID except from \"\" to valid",
            ),
        ] {
            let (before, after) = (before.at(field), after.at(field));
            if !before.is_empty() && before.value() != after.value() {
                errors.push(after.forbidden(detail));
            }
        }
        errors
    }

    fn has_status(&self) -> bool {
        true
    }

    fn counts_generations(&self) -> bool {
        false
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["spec.unschedulable"]
    }

    fn selectable_field(&self, object: &Value, _: &str) -> String {
        (object.pointer("/spec/unschedulable") == Some(&Value::Bool(true))).to_string()
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let info = |field: &str| -> Value {
            let text = text(object, &format!("/status/nodeInfo/{field}"));
            if text.is_empty() {
                "<unknown>".into()
            } else {
                text.into()
            }
        };
        vec![
            meta::name(object).into(),
            status(object).into(),
            roles(object).into(),
            age(object, now).into(),
            info("kubeletVersion"),
            address(object, "InternalIP").into(),
            address(object, "ExternalIP").into(),
            info("osImage"),
            info("kernelVersion"),
            info("containerRuntimeVersion"),
        ]
    }
}

/// `podCIDR` is the first of `podCIDRs`: whoever knows one of them means both.
fn set_cidr_defaults(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else {
        return;
    };
    let first = spec.get("podCIDRs").and_then(|list| list.get(0)).cloned();
    let single = spec.get("podCIDR").cloned().filter(|single| *single != "");
    match (single, first) {
        (Some(single), None) => drop(spec.insert("podCIDRs".into(), json!([single]))),
        (None, Some(first)) => drop(spec.insert("podCIDR".into(), first)),
        _ => {}
    }
}

fn validate_taints(taints: &Field<'_>) -> Vec<FieldError> {
    const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];
    let mut errors = Vec::new();
    let mut seen = Vec::new();
    // Upstream says `metadata` where it means `spec`.
    for taint in Field::new("metadata.taints", taints.value()).items() {
        let (key, effect) = (taint.at("key"), taint.at("effect"));
        errors.extend(key.checked(names::qualified_name));
        errors.extend(taint.at("value").follows(names::label_value));
        errors.extend(effect.must_be_one_of(EFFECTS));
        let identity = (key.text(), effect.text());
        if seen.contains(&identity) {
            errors.push(taint.duplicate());
        }
        seen.push(identity);
    }
    errors
}

fn validate_cidrs(cidrs: &Field<'_>) -> Vec<FieldError> {
    let all = cidrs.items();
    let mut errors: Vec<_> = all.iter().filter_map(rules::cidr).collect();
    let networks = all.iter().filter_map(|cidr| rules::parse_cidr(cidr.text()));
    let families: Vec<_> = networks.map(|(address, _)| address.is_ipv4()).collect();
    if all.len() > 2 || matches!(families.as_slice(), [first, second] if first == second) {
        let detail = "may specify no more than one CIDR for each IP family";
        errors.push(cidrs.invalid(detail));
    }
    errors.extend(repeated(&all));
    errors
}

fn validate_amounts(status: &Field<'_>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for list in ["capacity", "allocatable"] {
        let list = status.at(list);
        for (name, amount) in list.entries() {
            // Upstream writes the key as if it were a field.
            let amount = Field::new(format!("{}.{name}", list.path()), amount.value());
            errors.extend(resource_names::amount(&amount, name));
        }
    }
    errors
}

fn status(object: &Value) -> String {
    let conditions = items(object, "/status/conditions").iter();
    let mut ready = conditions
        .filter(|c| text(c, "/type") == "Ready")
        .map(|c| text(c, "/status"));
    let ready = match ready.next_back() {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    let closed = object.pointer("/spec/unschedulable") == Some(&Value::Bool(true));
    if closed {
        format!("{ready},SchedulingDisabled")
    } else {
        ready.into()
    }
}

fn roles(object: &Value) -> String {
    let labels = object
        .pointer("/metadata/labels")
        .and_then(Value::as_object);
    let roles = labels.into_iter().flatten().filter_map(|(key, value)| {
        let role = key
            .strip_prefix(ROLE_PREFIX)
            .filter(|role| !role.is_empty());
        role.or_else(|| {
            (key == "kubernetes.io/role")
                .then(|| value.as_str())
                .flatten()
        })
    });
    let mut roles: Vec<_> = roles.collect();
    roles.sort_unstable();
    if roles.is_empty() {
        "<none>".into()
    } else {
        roles.join(",")
    }
}

fn address<'a>(object: &'a Value, kind: &str) -> &'a str {
    let addresses = items(object, "/status/addresses");
    let found = addresses
        .iter()
        .find(|address| text(address, "/type") == kind);
    found.map_or("<none>", |address| text(address, "/address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nodes_network_and_provider_are_set_once() {
        let of = |spec: &Value| {
            let mut object = json!({"spec": spec});
            Node.set_defaults(&mut object);
            object
        };
        let empty = of(&json!({}));
        let set = of(&json!({"podCIDR": "10.0.0.0/24", "providerID": "p://1"}));
        assert_eq!(set["spec"]["podCIDRs"], json!(["10.0.0.0/24"]));
        let update = |old: &Value, new: &Value| Node.validate_update(old, new, Endpoint::Main);
        assert_eq!(update(&empty, &set), []);
        let moved = of(&json!({"podCIDR": "10.1.0.0/24", "providerID": "p://2"}));
        assert_eq!(update(&set, &moved).len(), 2);
    }

    #[test]
    fn taints_differ_in_key_or_effect() {
        let taint = |effect: &str| json!({"key": "a", "effect": effect});
        let errors = |taints: Value| Node.validate(&json!({"spec": {"taints": taints}})).len();
        assert_eq!(errors(json!([taint("NoSchedule"), taint("NoExecute")])), 0);
        assert_eq!(errors(json!([taint("NoSchedule"), taint("NoSchedule")])), 1);
        assert_eq!(errors(json!([taint("Never")])), 1);
    }
}
