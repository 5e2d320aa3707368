//! OpenAPI definitions of the built-in kinds.
//!
//! `k8s-openapi` describes every type as JSON Schema (types, formats, required fields, descriptions) but
//! knows no list types, merge keys or defaults; `facts.tsv` does. Both are joined here into the form that
//! upstream publishes, which `compile` reads and `/openapi/v3` serves. The descriptions are large, so the
//! joined form is made when asked for and not kept: compiling takes what checking needs.
//!
//! `facts.tsv` has one row per fact: definition, field (empty: the definition itself), patchStrategy,
//! patchMergeKey, listType, listMapKeys, mapType, default (as JSON). To add a kind: one line in `KINDS`.

use k8s_openapi::Resource;
use k8s_openapi::api::{
    admissionregistration::v1 as admissionregistration, apps::v1 as apps,
    authentication::v1 as authentication, authorization::v1 as authorization,
    autoscaling::v1 as autoscaling, autoscaling::v2 as autoscaling_v2, batch::v1 as batch,
    certificates::v1 as certificates, coordination::v1 as coordination, core::v1 as core,
    discovery::v1 as discovery, events::v1 as events, flowcontrol::v1 as flowcontrol,
    networking::v1 as networking, node::v1 as node, policy::v1 as policy, rbac::v1 as rbac,
    resource::v1 as resource, scheduling::v1 as scheduling, storage::v1 as storage,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, Schema as JsonSchemaObject};
use serde_json::{Map, Value, json};

use super::{Schema, protobuf};
use crate::metrics::{self, NodeMetrics, PodMetrics};
use crate::node_info::{self, PodComponents, PodFlows};
use crate::resource::GroupVersionKind;

const FACTS: &str = include_str!("facts.tsv");

/// One built-in kind: its names and how to describe it.
struct BuiltinKind {
    gvk: GroupVersionKind,
    definition: fn() -> std::borrow::Cow<'static, str>,
    describe: fn(&mut SchemaGenerator) -> JsonSchemaObject,
}

const fn kind<T: Resource + JsonSchema>() -> BuiltinKind {
    named::<T>(GroupVersionKind::of(T::GROUP, T::VERSION, T::KIND))
}

const fn named<T: JsonSchema>(gvk: GroupVersionKind) -> BuiltinKind {
    BuiltinKind {
        gvk,
        definition: T::schema_name,
        describe: |generator| generator.subschema_for::<T>(),
    }
}

/// Every built-in kind whose objects are decoded or served. To add one: a line.
static KINDS: &[BuiltinKind] = &[
    kind::<core::Binding>(),
    kind::<core::ComponentStatus>(),
    kind::<core::ConfigMap>(),
    kind::<core::Endpoints>(),
    kind::<core::Event>(),
    kind::<core::LimitRange>(),
    kind::<core::Namespace>(),
    kind::<core::Node>(),
    kind::<core::PersistentVolume>(),
    kind::<core::PersistentVolumeClaim>(),
    kind::<core::Pod>(),
    kind::<core::PodTemplate>(),
    kind::<core::ReplicationController>(),
    kind::<core::ResourceQuota>(),
    kind::<core::Secret>(),
    kind::<core::Service>(),
    kind::<core::ServiceAccount>(),
    kind::<admissionregistration::ValidatingAdmissionPolicy>(),
    kind::<admissionregistration::ValidatingAdmissionPolicyBinding>(),
    kind::<apps::ControllerRevision>(),
    kind::<apps::DaemonSet>(),
    kind::<apps::Deployment>(),
    kind::<apps::ReplicaSet>(),
    kind::<apps::StatefulSet>(),
    kind::<authentication::SelfSubjectReview>(),
    kind::<authentication::TokenRequest>(),
    kind::<authentication::TokenReview>(),
    kind::<authorization::LocalSubjectAccessReview>(),
    kind::<authorization::SelfSubjectAccessReview>(),
    kind::<authorization::SelfSubjectRulesReview>(),
    kind::<authorization::SubjectAccessReview>(),
    kind::<autoscaling::HorizontalPodAutoscaler>(),
    kind::<autoscaling::Scale>(),
    kind::<autoscaling_v2::HorizontalPodAutoscaler>(),
    kind::<batch::CronJob>(),
    kind::<batch::Job>(),
    kind::<certificates::CertificateSigningRequest>(),
    kind::<coordination::Lease>(),
    kind::<discovery::EndpointSlice>(),
    kind::<events::Event>(),
    kind::<flowcontrol::FlowSchema>(),
    kind::<flowcontrol::PriorityLevelConfiguration>(),
    kind::<networking::IPAddress>(),
    kind::<networking::Ingress>(),
    kind::<networking::IngressClass>(),
    kind::<networking::NetworkPolicy>(),
    kind::<networking::ServiceCIDR>(),
    kind::<node::RuntimeClass>(),
    kind::<policy::Eviction>(),
    kind::<policy::PodDisruptionBudget>(),
    kind::<rbac::ClusterRole>(),
    kind::<rbac::ClusterRoleBinding>(),
    kind::<rbac::Role>(),
    kind::<rbac::RoleBinding>(),
    kind::<resource::DeviceClass>(),
    kind::<resource::ResourceClaim>(),
    kind::<resource::ResourceClaimTemplate>(),
    kind::<resource::ResourceSlice>(),
    kind::<scheduling::PriorityClass>(),
    kind::<storage::CSIDriver>(),
    kind::<storage::CSINode>(),
    kind::<storage::CSIStorageCapacity>(),
    kind::<storage::StorageClass>(),
    kind::<storage::VolumeAttachment>(),
    kind::<storage::VolumeAttributesClass>(),
    named::<NodeMetrics>(metrics::NODE_METRICS),
    named::<PodMetrics>(metrics::POD_METRICS),
    named::<PodComponents>(node_info::POD_COMPONENTS),
    named::<PodFlows>(node_info::POD_FLOWS),
    kind::<meta::Status>(),
    named::<meta::DeleteOptions>(GroupVersionKind::of("", "v1", "DeleteOptions")),
];

/// Group, version and kind of every built-in kind with the name of its definition.
pub fn builtin_kinds() -> impl Iterator<Item = (GroupVersionKind, String)> {
    KINDS
        .iter()
        .map(|kind| (kind.gvk.clone(), (kind.definition)().into_owned()))
}

/// The definitions of all built-in kinds and what they refer to, as `/openapi/v3` publishes them
/// (`components.schemas`), by name. Made anew on each call: about 5 ms and 1 MB.
#[must_use]
pub fn builtin_definitions() -> Map<String, Value> {
    let mut settings = SchemaSettings::draft2020_12();
    settings.definitions_path = "/components/schemas".into();
    settings.meta_schema = None;
    let mut generator = settings.into_generator();
    for kind in KINDS {
        (kind.describe)(&mut generator);
    }
    generator.subschema_for::<meta::ListMeta>();
    let mut definitions = generator.take_definitions(true);
    for fact in FACTS.lines().skip(1).filter_map(Fact::parse) {
        fact.add_to(&mut definitions);
    }
    for kind in KINDS {
        add_kind(&mut definitions, kind);
    }
    definitions
}

/// Compiles the built-in definitions. They are constants of the program: that they compile is tested.
#[expect(
    clippy::expect_used,
    reason = "definitions and kinds are constants; a test compiles them"
)]
pub(super) fn compile_builtin() -> Schema {
    let definitions = builtin_definitions();
    let names: Vec<_> = builtin_kinds().collect();
    let kinds: Vec<_> = names
        .iter()
        .map(|(gvk, name)| (gvk.clone(), name.as_str()))
        .collect();
    let mut schema = Schema::compile(&definitions, &kinds).expect("built-in definitions compile");
    protobuf::join(&mut schema);
    schema
}

fn add_kind(definitions: &mut Map<String, Value>, kind: &BuiltinKind) {
    let Some(Value::Object(definition)) = definitions.get_mut(&*(kind.definition)()) else {
        return;
    };
    let gvk = json!({
        "group": kind.gvk.group, "version": kind.gvk.version, "kind": kind.gvk.kind,
    });
    // `k8s-openapi` requires what its Rust types always hold; a manifest may leave it out.
    if let Some(Value::Array(required)) = definition.get_mut("required") {
        required
            .retain(|field| !matches!(field.as_str(), Some("apiVersion" | "kind" | "metadata")));
        if required.is_empty() {
            definition.shift_remove("required");
        }
    }
    let kinds = definition
        .entry("x-kubernetes-group-version-kind")
        .or_insert_with(|| json!([]));
    if let Value::Array(kinds) = kinds {
        kinds.push(gvk);
    }
}

/// One row of the facts table.
struct Fact<'a> {
    definition: &'a str,
    field: &'a str,
    patch_strategy: &'a str,
    patch_merge_key: &'a str,
    list_type: &'a str,
    list_map_keys: &'a str,
    map_type: &'a str,
    default: &'a str,
}

impl<'a> Fact<'a> {
    fn parse(row: &'a str) -> Option<Self> {
        let mut columns = row.split('\t');
        Some(Self {
            definition: columns.next()?,
            field: columns.next()?,
            patch_strategy: columns.next()?,
            patch_merge_key: columns.next()?,
            list_type: columns.next()?,
            list_map_keys: columns.next()?,
            map_type: columns.next()?,
            default: columns.next()?,
        })
    }

    fn add_to(&self, definitions: &mut Map<String, Value>) {
        let definition = definitions.get_mut(self.definition);
        let place = match (definition, self.field) {
            (Some(definition), "") => definition.as_object_mut(),
            (Some(definition), field) => definition
                .get_mut("properties")
                .and_then(|properties| properties.get_mut(field))
                .and_then(Value::as_object_mut),
            (None, _) => None,
        };
        if let Some(place) = place {
            self.write(place);
        }
    }

    fn write(&self, place: &mut Map<String, Value>) {
        let texts = [
            ("x-kubernetes-patch-strategy", self.patch_strategy),
            ("x-kubernetes-patch-merge-key", self.patch_merge_key),
            ("x-kubernetes-list-type", self.list_type),
            ("x-kubernetes-map-type", self.map_type),
        ];
        for (extension, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
            place.insert(extension.to_owned(), text.into());
        }
        if !self.list_map_keys.is_empty() {
            let keys: Vec<_> = self.list_map_keys.split(',').collect();
            place.insert("x-kubernetes-list-map-keys".to_owned(), keys.into());
        }
        if let Ok(default) = serde_json::from_str(self.default) {
            place.insert("default".to_owned(), default);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{ListKind, Type};

    #[test]
    fn every_builtin_kind_compiles_to_a_root_type() {
        let schema = Schema::builtin();
        for (gvk, name) in builtin_kinds() {
            let root = schema.kind(&gvk).expect("kind has a root");
            assert_eq!(schema.name(root), Some(name.as_str()));
        }
        assert!(schema.len() < 3_000, "{} types", schema.len());
    }

    #[test]
    fn every_fact_names_its_eight_columns_and_valid_defaults() {
        for row in FACTS.lines().skip(1) {
            let fact = Fact::parse(row).unwrap_or_else(|| panic!("row {row:?}"));
            assert_eq!(row.split('\t').count(), 8, "{row}");
            assert!(
                fact.default.is_empty() || serde_json::from_str::<Value>(fact.default).is_ok(),
                "{row}"
            );
        }
    }

    #[test]
    fn every_fact_about_a_known_definition_finds_its_field() {
        let definitions = builtin_definitions();
        for fact in FACTS.lines().skip(1).filter_map(Fact::parse) {
            let Some(definition) = definitions.get(fact.definition) else {
                continue;
            };
            let found = fact.field.is_empty() || definition["properties"].get(fact.field).is_some();
            assert!(found, "{}.{}", fact.definition, fact.field);
        }
    }

    #[test]
    fn roots_require_neither_their_type_nor_metadata() {
        let definitions = builtin_definitions();
        for (_, name) in builtin_kinds() {
            let required = definitions[&name]
                .get("required")
                .cloned()
                .unwrap_or_default();
            assert!(
                !required.to_string().contains("metadata"),
                "{name}: {required}"
            );
        }
        assert_eq!(
            definitions["io.k8s.api.discovery.v1.EndpointSlice"]["required"],
            json!(["addressType", "endpoints"])
        );
    }

    #[test]
    fn container_ports_are_keyed_by_port_and_defaulted_protocol() {
        let schema = Schema::builtin();
        let container = schema
            .definition("io.k8s.api.core.v1.Container")
            .expect("defined");
        let Type::Struct(container) = schema.get(container) else {
            panic!("not a struct")
        };
        let ports = container.field("ports").expect("declared");
        assert_eq!(ports.patch.merge_key.as_deref(), Some("containerPort"));
        let Type::List(list) = schema.get(ports.ty) else {
            panic!("not a list")
        };
        let ListKind::Map(keys) = &list.kind else {
            panic!("not a map list")
        };
        let keys: Vec<_> = keys
            .iter()
            .map(|(key, default)| (&**key, default.clone()))
            .collect();
        assert_eq!(
            keys,
            [("containerPort", None), ("protocol", Some(json!("TCP")))]
        );
    }

    #[test]
    fn types_without_a_schema_of_their_own_are_recognised() {
        let schema = Schema::builtin();
        for (name, expected) in [
            ("io.k8s.apimachinery.pkg.api.resource.Quantity", "Quantity"),
            (
                "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime",
                "MicroTime",
            ),
            ("io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1", "Any"),
            (
                "io.k8s.apimachinery.pkg.util.intstr.IntOrString",
                "IntOrString",
            ),
        ] {
            let ty = schema.definition(name).expect("defined");
            assert_eq!(format!("{:?}", schema.get(ty)), expected, "{name}");
        }
    }
}
