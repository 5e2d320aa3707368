//! PodMetrics and NodeMetrics: computed of what nodes say (`server/verbs/computed`) and never stored.

use jiff::Timestamp;
use serde_json::Value;
use windlass_api::metrics::{NODE_METRICS, POD_METRICS};
use windlass_api::quantity::Quantity;

use super::{items, text};
use crate::registry::object_meta as meta;
use crate::registry::strategy::{Column, Kind, NAME, Strategy};

struct Metrics;

const READ: &[&str] = &["get", "list"];

/// The row of PodMetrics.
pub(super) fn pod_metrics() -> Kind {
    nameless(Kind::namespaced(POD_METRICS, "pods", &Metrics))
}

/// The row of NodeMetrics.
pub(super) fn node_metrics() -> Kind {
    nameless(Kind::cluster(NODE_METRICS, "nodes", &Metrics))
}

/// Without a name for one of them, as upstream has it: `pod` is a Pod.
fn nameless(kind: Kind) -> Kind {
    let mut kind = kind.computed(READ);
    kind.info.singular = "".into();
    kind
}

const COLUMNS: &[Column] = &[
    NAME,
    Column::new("cpu", "string", "Processor cores in use."),
    Column::new("memory", "string", "Memory in use."),
    Column::new("Window", "string", "The time over which rates were taken."),
];

impl Strategy for Metrics {
    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, _: Timestamp) -> Vec<Value> {
        vec![
            meta::name(object).into(),
            sum(object, "cpu").into(),
            sum(object, "memory").into(),
            text(object, "/window").into(),
        ]
    }
}

/// The amount of a resource that the object or all of its containers use.
fn sum(object: &Value, resource: &str) -> String {
    let of = |usage: &Value| -> Option<Quantity> { usage.get(resource)?.as_str()?.parse().ok() };
    let containers = items(object, "/containers").iter();
    let usages = containers.filter_map(|container| container.get("usage"));
    let all = usages.chain(object.get("usage")).filter_map(of);
    all.fold(Quantity::default(), |sum, amount| sum + amount)
        .to_string()
}
