//! The kinds of node.windlass.dev/v1: what nodes know of their pods' components, and of what went between pods
//! and their peers.
//!
//! | kind | resource | what it tells |
//! |---|---|---|
//! | PodComponents | `podcomponents` | per container: imports and what satisfies each, exports, limits, instances, traps |
//! | PodFlows | `podflows` | per peer, direction and port: connections, refusals, bytes |
//!
//! Both are computed on request. Nodes answer with [`PodInfo`]; the API server adds what makes an object of it.

use std::borrow::Cow;
use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use schemars::generate::SchemaGenerator;
use schemars::{JsonSchema, Schema, json_schema};
use serde::{Deserialize, Serialize};

use crate::resource::GroupVersionKind;

/// Name of the group.
pub const GROUP: &str = "node.windlass.dev";
/// Kind of [`PodComponents`].
pub const POD_COMPONENTS: GroupVersionKind = GroupVersionKind::of(GROUP, "v1", "PodComponents");
/// Kind of [`PodFlows`].
pub const POD_FLOWS: GroupVersionKind = GroupVersionKind::of(GROUP, "v1", "PodFlows");

/// Path of a node's daemon endpoint that tells a [`PodInfo`] per pod with components.
pub const COMPONENTS_PATH: &str = "/windlass/components";
/// Path of a node's daemon endpoint that tells a [`PodInfo`] per pod with flows.
pub const FLOWS_PATH: &str = "/windlass/flows";

/// What a node tells of one pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodInfo<T> {
    /// `metadata.uid` of the pod.
    pub uid: String,
    /// What is told.
    pub items: Vec<T>,
}

/// What a container runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Component {
    /// Name of the container.
    pub name: String,
    /// The image as the pod names it.
    pub image: String,
    /// Digest of the component's bytes.
    pub digest: String,
    /// `wasi:cli/command` or `wasi:http/proxy`, with the version track.
    pub world: String,
    /// Interfaces that it calls.
    pub imports: Vec<Import>,
    /// Interfaces that it offers.
    pub exports: Vec<String>,
    /// What bounds it.
    pub limits: Limits,
    /// Its instances.
    pub instances: Instances,
    /// How long compiling took, if this agent compiled it since it started: machine code is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compile_milliseconds: Option<u64>,
    /// How long it took from the decision to start until it ran or listened, without the pull.
    pub start_microseconds: u64,
    /// The last instance that trapped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_trap: Option<Trap>,
}

/// An interface that a component calls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Import {
    /// Name with version, as `wasi:filesystem/types@0.2.6`.
    pub interface: String,
    /// Whether the pod may use it. A component that imports what was not granted does not start.
    pub granted: bool,
    /// What stands behind it.
    pub by: String,
}

/// What bounds a component.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Bytes of linear memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Thousandths of a core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_millis: Option<u64>,
    /// Requests that one instance serves.
    pub requests_per_instance: u64,
    /// Where it may connect to: `none`, `cluster` or `all`.
    pub egress: String,
}

/// Instances of a component.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instances {
    /// How many there are now.
    pub current: u64,
    /// How many there were since the container started.
    pub started: u64,
}

/// Why an instance ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trap {
    /// When.
    pub time: Time,
    /// The trap with its backtrace, a frame per line.
    pub message: String,
}

/// All traffic of a pod with one peer in one direction at one port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Flow {
    /// `Ingress` or `Egress`, as the pod sees it.
    pub direction: String,
    /// The other end.
    pub peer: FlowPeer,
    /// `TCP` or `UDP`.
    pub protocol: String,
    /// Port at the receiving end.
    pub port: u16,
    /// Connections that were made.
    pub connections: u64,
    /// Connections and datagrams that policies refused.
    pub denied: u64,
    /// Bytes that the pod sent.
    pub bytes_sent: u64,
    /// Bytes that the pod received.
    pub bytes_received: u64,
}

/// The other end of a flow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowPeer {
    /// `Pod`, `Service`, `Node`, `Outside`, or `Other` for all beyond those that are told apart.
    pub kind: String,
    /// Of a pod or Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Of a pod or Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Of who has no name here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
}

/// What the containers of a pod run.
pub struct PodComponents;

/// What went between a pod and its peers.
pub struct PodFlows;

/// An object with these properties, each a schema with a description.
fn object(description: &str, properties: &[(&str, &str, Schema)]) -> Schema {
    let properties = properties.iter().map(|(name, description, schema)| {
        let mut schema = schema.clone();
        schema.insert("description".to_owned(), (*description).into());
        ((*name).to_owned(), schema.to_value())
    });
    let properties: serde_json::Map<_, _> = properties.collect();
    json_schema!({"type": "object", "description": description, "properties": properties})
}

fn text() -> Schema {
    json_schema!({"type": "string"})
}

fn number() -> Schema {
    json_schema!({"type": "integer", "format": "int64"})
}

fn list(of: &Schema) -> Schema {
    json_schema!({"type": "array", "items": of})
}

/// A kind whose own field is `field`.
fn kind(
    generator: &mut SchemaGenerator,
    description: &str,
    (field, field_description): (&str, &str),
    of: &Schema,
) -> Schema {
    let metadata = json_schema!({"allOf": [generator.subschema_for::<ObjectMeta>()]});
    let time = json_schema!({"allOf": [generator.subschema_for::<Time>()]});
    object(
        description,
        &[
            (
                "apiVersion",
                "Version of the form that this object is in.",
                text(),
            ),
            ("kind", "What this object is.", text()),
            (
                "metadata",
                "Name, namespace and labels of the pod.",
                metadata,
            ),
            ("timestamp", "When this was found out.", time),
            (field, field_description, list(of)),
        ],
    )
}

impl JsonSchema for PodComponents {
    fn schema_name() -> Cow<'static, str> {
        "dev.windlass.node.v1.PodComponents".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let import = object(
            "An interface that a component calls.",
            &[
                ("interface", "Name with version.", text()),
                (
                    "granted",
                    "Whether the pod may use it.",
                    json_schema!({"type": "boolean"}),
                ),
                ("by", "What stands behind it.", text()),
            ],
        );
        let limits = object(
            "What bounds a component.",
            &[
                ("memoryBytes", "Bytes of linear memory.", number()),
                ("cpuMillis", "Thousandths of a core.", number()),
                (
                    "requestsPerInstance",
                    "Requests that one instance serves.",
                    number(),
                ),
                (
                    "egress",
                    "Where it may connect to: none, cluster or all.",
                    text(),
                ),
            ],
        );
        let instances = object(
            "Instances of a component.",
            &[
                ("current", "How many there are now.", number()),
                (
                    "started",
                    "How many there were since the container started.",
                    number(),
                ),
            ],
        );
        let time = json_schema!({"allOf": [generator.subschema_for::<Time>()]});
        let trap = object(
            "Why an instance ended.",
            &[
                ("time", "When.", time),
                ("message", "The trap with its backtrace.", text()),
            ],
        );
        let component = object(
            "What a container runs.",
            &[
                ("name", "Name of the container.", text()),
                ("image", "The image as the pod names it.", text()),
                ("digest", "Digest of the component's bytes.", text()),
                ("world", "What kind of program it is.", text()),
                ("imports", "Interfaces that it calls.", list(&import)),
                ("exports", "Interfaces that it offers.", list(&text())),
                ("limits", "What bounds it.", limits),
                ("instances", "Its instances.", instances),
                (
                    "compileMilliseconds",
                    "How long compiling took, if it was compiled since the agent started.",
                    number(),
                ),
                (
                    "startMicroseconds",
                    "How long the start took, without the pull.",
                    number(),
                ),
                ("lastTrap", "The last instance that trapped.", trap),
            ],
        );
        let field = ("containers", "The containers that run.");
        kind(
            generator,
            "What the containers of a pod run.",
            field,
            &component,
        )
    }
}

impl JsonSchema for PodFlows {
    fn schema_name() -> Cow<'static, str> {
        "dev.windlass.node.v1.PodFlows".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let peer = object(
            "The other end of a flow.",
            &[
                ("kind", "Pod, Service, Node, Outside or Other.", text()),
                ("namespace", "Namespace of a pod or Service.", text()),
                ("name", "Name of a pod or Service.", text()),
                ("address", "Address of who has no name here.", text()),
            ],
        );
        let flow = object(
            "All traffic of a pod with one peer in one direction at one port.",
            &[
                (
                    "direction",
                    "Ingress or Egress, as the pod sees it.",
                    text(),
                ),
                ("peer", "The other end.", peer),
                ("protocol", "TCP or UDP.", text()),
                (
                    "port",
                    "Port at the receiving end.",
                    json_schema!({"type": "integer", "format": "int32"}),
                ),
                ("connections", "Connections that were made.", number()),
                (
                    "denied",
                    "Connections and datagrams that policies refused.",
                    number(),
                ),
                ("bytesSent", "Bytes that the pod sent.", number()),
                ("bytesReceived", "Bytes that the pod received.", number()),
            ],
        );
        let field = ("flows", "What went between the pod and each peer.");
        kind(
            generator,
            "What went between a pod and its peers.",
            field,
            &flow,
        )
    }
}
