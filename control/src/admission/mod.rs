//! Admission: what is decided about a write beyond its own fields.
//!
//! Differs from Kubernetes: whether a role or binding grants more than its writer has is asked here, not in
//! front of the store.
//!
//! A plugin sees the object after defaulting and before validation, and may change it or refuse it. The
//! table [`ADMISSION`] is in upstream's order; plugins run in that order on every create, update and
//! delete (a delete shows no object). A plugin is pure but for reading the snapshot it is given.

mod always_pull_images;
mod certificates;
mod configuration;
mod default_class;
mod default_toleration_seconds;
mod limit_ranger;
mod namespace_lifecycle;
mod node_restriction;
mod pod_security;
mod priority;
mod rbac_escalation;
mod runtime_class;
mod service_account;
mod storage_in_use;
mod taint_nodes;
mod wasm_grants;

use serde_json::Value;

use crate::identity::MASTERS;
use crate::rbac::{Action, Rbac};
use crate::registry::Call;
use crate::registry::error::ApiError;
use crate::registry::object_meta as meta;
use crate::registry::strategy::Endpoint;
use crate::store::Snapshot;
pub use configuration::{AdmissionConfiguration, NoSuchPlugin};
pub use pod_security::{PodSecurityConfiguration, PodSecurityError};
pub(crate) use storage_in_use::{CLAIM, VOLUME};

/// What a plugin is told.
pub struct Attributes<'a> {
    /// Kind, namespace, name, user.
    pub call: &'a Call<'a>,
    /// The part being written.
    pub endpoint: Endpoint,
    /// The cluster as of now.
    pub snapshot: &'a Snapshot,
    /// The object before; `None` on creation.
    pub old: Option<&'a Value>,
    /// Who may do what by roles; `None` before the first request.
    pub rbac: Option<&'a Rbac>,
    /// What plugins are told by whoever runs the cluster.
    pub configuration: &'a AdmissionConfiguration,
}

impl Attributes<'_> {
    /// The kind of the object.
    fn kind(&self) -> &str {
        &self.call.served.kind.info.gvk.kind
    }

    /// Whether the user may also do this, cluster-wide.
    fn may(&self, action: &Action<'_>) -> bool {
        let user = &self.call.options.user;
        let by_role = |rbac: &Rbac| rbac.allows(self.snapshot, user, "", action);
        user.is_in(MASTERS) || self.rbac.is_some_and(by_role)
    }

    /// Whether this is the creation of an object of `kind`.
    fn creates(&self, kind: &str) -> bool {
        self.old.is_none() && self.kind() == kind
    }

    /// The refusal to write `object`.
    fn forbidden(&self, object: &Value, reason: impl Into<String>) -> ApiError {
        let name = match meta::name(object) {
            "" => self.call.name,
            name => name,
        };
        ApiError::Forbidden {
            target: self.call.target_of(name),
            reason: reason.into(),
            cause: None,
        }
    }
}

/// A plugin.
pub trait Admission: Sync {
    /// Changes `object`, or refuses it. On a delete, `object` is null.
    ///
    /// # Errors
    /// The refusal.
    fn admit(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), ApiError>;

    /// What is to be said about an object that every plugin has admitted.
    fn remark(&self, _attributes: &Attributes<'_>, _object: &Value, _remarks: &mut Remarks) {}
}

/// What is said about a write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remarks {
    /// To the writer.
    pub warnings: Vec<String>,
    /// To the audit log: annotations of the request's events.
    pub annotations: Vec<(&'static str, String)>,
}

/// A row of the table.
pub struct Plugin {
    /// What it is called in options.
    pub name: &'static str,
    /// Whether it runs unless it is disabled; others run if they are enabled.
    pub by_default: bool,
    /// What it does.
    pub plugin: &'static dyn Admission,
}

const fn plugin(name: &'static str, plugin: &'static dyn Admission) -> Plugin {
    Plugin {
        name,
        by_default: true,
        plugin,
    }
}

const fn optional(name: &'static str, plugin: &'static dyn Admission) -> Plugin {
    Plugin {
        name,
        by_default: false,
        plugin,
    }
}

/// Every plugin, in the order they run.
pub const ADMISSION: &[Plugin] = &[
    plugin(
        "NamespaceLifecycle",
        &namespace_lifecycle::NamespaceLifecycle,
    ),
    plugin(RBAC_ESCALATION, &rbac_escalation::RbacEscalation),
    plugin("LimitRanger", &limit_ranger::LimitRanger),
    plugin("ServiceAccount", &service_account::ServiceAccount),
    plugin("NodeRestriction", &node_restriction::NodeRestriction),
    plugin("TaintNodesByCondition", &taint_nodes::TaintNodes),
    optional("AlwaysPullImages", &always_pull_images::AlwaysPullImages),
    plugin("PodSecurity", &pod_security::PodSecurity),
    plugin(WASM_GRANTS, &wasm_grants::WasmGrants),
    plugin("Priority", &priority::Priority),
    plugin(
        "DefaultTolerationSeconds",
        &default_toleration_seconds::DefaultTolerationSeconds,
    ),
    plugin("DefaultStorageClass", &default_class::OF_CLAIMS),
    plugin(
        "StorageObjectInUseProtection",
        &storage_in_use::StorageInUse,
    ),
    plugin("RuntimeClass", &runtime_class::RuntimeClass),
    plugin("CertificateApproval", &certificates::Approval),
    plugin("CertificateSigning", &certificates::Signing),
    plugin(
        "CertificateSubjectRestriction",
        &certificates::SubjectRestriction,
    ),
    plugin("DefaultIngressClass", &default_class::OF_INGRESSES),
];

/// Upstream asks this in front of the store and lets nobody disable it; so no option names it here either.
const RBAC_ESCALATION: &str = "";
/// Ours, and no less needed.
const WASM_GRANTS: &str = "";
