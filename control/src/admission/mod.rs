//! Admission: what is decided about a write beyond its own fields.
//!
//! Differs from Kubernetes: whether a role or binding grants more than its writer has is asked here, not in
//! front of the store.
//!
//! A plugin sees the object after defaulting and before validation, and may change it or refuse it. The
//! table [`ADMISSION`] is in upstream's order; plugins run in that order on every create, update and
//! delete (a delete shows no object). A plugin is pure but for reading the snapshot it is given.

mod certificates;
mod default_class;
mod default_toleration_seconds;
mod limit_ranger;
mod namespace_lifecycle;
mod pod_security;
mod priority;
mod rbac_escalation;
mod runtime_class;
mod service_account;

use serde_json::Value;

use crate::identity::MASTERS;
use crate::rbac::{Action, Rbac};
use crate::registry::Call;
use crate::registry::error::ApiError;
use crate::registry::strategy::Endpoint;
use crate::store::Snapshot;
pub use pod_security::{PodSecurityConfiguration, PodSecurityError};

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
    /// What is asked of pods where a namespace says nothing.
    pub pod_security: &'a PodSecurityConfiguration,
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
}

/// A plugin.
pub trait Admission: Sync {
    /// Changes `object`, or refuses it. On a delete, `object` is null.
    ///
    /// # Errors
    /// The refusal.
    fn admit(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), ApiError>;

    /// What the writer is told about an object that every plugin has admitted.
    fn warn(&self, _attributes: &Attributes<'_>, _object: &Value) -> Vec<String> {
        Vec::new()
    }
}

/// Every plugin, in the order they run.
pub const ADMISSION: &[&dyn Admission] = &[
    &namespace_lifecycle::NamespaceLifecycle,
    &rbac_escalation::RbacEscalation,
    &limit_ranger::LimitRanger,
    &service_account::ServiceAccount,
    &pod_security::PodSecurity,
    &priority::Priority,
    &default_toleration_seconds::DefaultTolerationSeconds,
    &default_class::OF_CLAIMS,
    &runtime_class::RuntimeClass,
    &certificates::Approval,
    &certificates::Signing,
    &certificates::SubjectRestriction,
    &default_class::OF_INGRESSES,
];
