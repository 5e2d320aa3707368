//! The kinds of metrics.k8s.io/v1beta1: what pods and nodes use now.
//!
//! They belong to no release of Kubernetes' own API, so `k8s-openapi` does not have them. Source: the
//! resource metrics API (k8s.io/metrics).

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use schemars::generate::SchemaGenerator;
use schemars::{JsonSchema, Schema, json_schema};
use serde::{Deserialize, Serialize};

use crate::resource::GroupVersionKind;

/// Name of the group.
pub const GROUP: &str = "metrics.k8s.io";
/// The version that is served.
pub const VERSION: &str = "v1beta1";

/// Kind of [`PodMetrics`].
pub const POD_METRICS: GroupVersionKind = GroupVersionKind::of(GROUP, VERSION, "PodMetrics");
/// Kind of [`NodeMetrics`].
pub const NODE_METRICS: GroupVersionKind = GroupVersionKind::of(GROUP, VERSION, "NodeMetrics");

/// Amounts by name of the resource: `cpu` in cores, `memory` in bytes.
pub type Usage = BTreeMap<String, Quantity>;

/// What the containers of a pod use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PodMetrics {
    /// Name, namespace and labels of the pod.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// When this was found out.
    pub timestamp: Option<Time>,
    /// The time before that over which rates were taken, such as `15s`.
    #[serde(default)]
    pub window: String,
    /// Its containers that run.
    #[serde(default)]
    pub containers: Vec<ContainerMetrics>,
}

/// What a container uses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ContainerMetrics {
    /// Name of the container.
    pub name: String,
    /// How much it uses.
    #[serde(default)]
    pub usage: Usage,
}

/// What a node uses, pods and everything else together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeMetrics {
    /// Name and labels of the node.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// When this was found out.
    pub timestamp: Option<Time>,
    /// The time before that over which rates were taken.
    #[serde(default)]
    pub window: String,
    /// How much it uses.
    #[serde(default)]
    pub usage: Usage,
}

fn usage(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "description": "Amounts by name of the resource; memory is the working set.",
        "additionalProperties": generator.subschema_for::<Quantity>(),
    })
}

/// A kind whose last field is `field`.
fn kind(generator: &mut SchemaGenerator, description: &str, field: &str, of: &Schema) -> Schema {
    let time = |generator: &mut SchemaGenerator| generator.subschema_for::<Time>();
    json_schema!({
        "type": "object",
        "description": description,
        "required": ["timestamp", "window", field],
        "properties": {
            "apiVersion": {"type": "string", "description": "Version of the form that this object is in."},
            "kind": {"type": "string", "description": "What this object is."},
            "metadata": {
                "description": "Standard object's metadata.",
                "allOf": [generator.subschema_for::<ObjectMeta>()],
            },
            "timestamp": {
                "description": "When this was found out.",
                "allOf": [time(generator)],
            },
            "window": {
                "type": "string",
                "description": "The time before that over which rates were taken.",
            },
            field: of,
        },
    })
}

impl JsonSchema for PodMetrics {
    fn schema_name() -> Cow<'static, str> {
        "io.k8s.metrics.pkg.apis.metrics.v1beta1.PodMetrics".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let containers = json_schema!({
            "type": "array",
            "description": "The containers that run.",
            "items": generator.subschema_for::<ContainerMetrics>(),
        });
        let description = "What the containers of a pod use.";
        kind(generator, description, "containers", &containers)
    }
}

impl JsonSchema for ContainerMetrics {
    fn schema_name() -> Cow<'static, str> {
        "io.k8s.metrics.pkg.apis.metrics.v1beta1.ContainerMetrics".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "description": "What a container uses.",
            "required": ["name", "usage"],
            "properties": {
                "name": {"type": "string", "description": "Name of the container."},
                "usage": usage(generator),
            },
        })
    }
}

impl JsonSchema for NodeMetrics {
    fn schema_name() -> Cow<'static, str> {
        "io.k8s.metrics.pkg.apis.metrics.v1beta1.NodeMetrics".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let usage = usage(generator);
        let description = "What a node uses, pods and everything else together.";
        kind(generator, description, "usage", &usage)
    }
}
