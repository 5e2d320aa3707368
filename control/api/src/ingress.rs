//! What the control plane and the nodes that serve Ingresses agree on.

/// The controller that an IngressClass names to have its Ingresses served by the cluster's own nodes.
pub const CONTROLLER: &str = "windlass.dev/ingress";

/// The name of the class that every cluster has.
pub const CLASS: &str = "windlass";

/// The annotation that named the class of an Ingress before there was a field.
pub const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

/// A node with this label, with the value `true`, serves Ingresses: it may read the Secrets with their certificates, and
/// its addresses are theirs. A node cannot set it on itself: NodeRestriction keeps the domain from it.
pub const NODE_LABEL: &str = "node-restriction.kubernetes.io/ingress";
