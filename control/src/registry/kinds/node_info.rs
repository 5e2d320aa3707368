//! PodComponents and PodFlows: computed of what nodes say (`server/verbs/computed`) and never stored.

use jiff::Timestamp;
use serde_json::Value;
use windlass_api::node_info::{POD_COMPONENTS, POD_FLOWS};

use super::items;
use crate::registry::object_meta as meta;
use crate::registry::strategy::{Column, Kind, NAME, Strategy};

const READ: &[&str] = &["get", "list"];

struct Components;
struct Flows;

/// The row of PodComponents.
pub(super) fn pod_components() -> Kind {
    Kind::namespaced(POD_COMPONENTS, "podcomponents", &Components).computed(READ)
}

/// The row of PodFlows.
pub(super) fn pod_flows() -> Kind {
    Kind::namespaced(POD_FLOWS, "podflows", &Flows).computed(READ)
}

const COMPONENT_COLUMNS: &[Column] = &[
    NAME,
    Column::new("Containers", "integer", "Containers that run."),
    Column::new("World", "string", "What kind of programs they are."),
    Column::new("Instances", "integer", "Instances there are now."),
];

impl Strategy for Components {
    fn columns(&self) -> &'static [Column] {
        COMPONENT_COLUMNS
    }

    fn cells(&self, object: &Value, _: Timestamp) -> Vec<Value> {
        let containers = items(object, "/containers");
        let worlds = containers
            .iter()
            .filter_map(|each| each.get("world")?.as_str());
        let worlds: Vec<&str> = worlds.collect();
        vec![
            meta::name(object).into(),
            containers.len().into(),
            worlds.join(",").into(),
            sum(object, "/containers", "/instances/current").into(),
        ]
    }
}

const FLOW_COLUMNS: &[Column] = &[
    NAME,
    Column::new("Peers", "integer", "Peers and ports that are told apart."),
    Column::new("Connections", "integer", "Connections that were made."),
    Column::new(
        "Denied",
        "integer",
        "Connections and datagrams that policies refused.",
    ),
    Column::new("Sent", "integer", "Bytes sent."),
    Column::new("Received", "integer", "Bytes received."),
];

impl Strategy for Flows {
    fn columns(&self) -> &'static [Column] {
        FLOW_COLUMNS
    }

    fn cells(&self, object: &Value, _: Timestamp) -> Vec<Value> {
        let total = |of| sum(object, "/flows", of);
        vec![
            meta::name(object).into(),
            items(object, "/flows").len().into(),
            total("/connections").into(),
            total("/denied").into(),
            total("/bytesSent").into(),
            total("/bytesReceived").into(),
        ]
    }
}

/// The sum of a number over the entries of a list.
fn sum(object: &Value, list: &str, number: &str) -> u64 {
    let numbers = items(object, list).iter();
    let numbers = numbers.filter_map(|entry| entry.pointer(number)?.as_u64());
    numbers.sum()
}
