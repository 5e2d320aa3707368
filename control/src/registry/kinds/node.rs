//! Node.

use jiff::Timestamp;
use serde_json::Value;
use windlass_api::resource::GroupVersionKind;

use super::{items, text};
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

    fn validate_update(&self, old: &Value, new: &Value, endpoint: Endpoint) -> Vec<FieldError> {
        let (before, after) = (text(old, "/spec/podCIDR"), text(new, "/spec/podCIDR"));
        if endpoint == Endpoint::Main && !before.is_empty() && before != after {
            let detail = "node updates may not change podCIDR except from \"\" to valid";
            return vec![FieldError::forbidden("spec.podCIDRs", detail)];
        }
        Vec::new()
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
