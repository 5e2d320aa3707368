//! The fixed allow-lists: what the components of the control plane, node agents and joining nodes need.

use crate::rbac::GROUP;

/// Verbs on resources of a group; `*` stands for all.
pub(super) struct Rule {
    pub(super) verbs: &'static [&'static str],
    pub(super) group: &'static str,
    pub(super) resources: &'static [&'static str],
}

pub(super) const fn rule(
    verbs: &'static [&'static str],
    group: &'static str,
    resources: &'static [&'static str],
) -> Rule {
    Rule {
        verbs,
        group,
        resources,
    }
}

pub(super) const READ: &[&str] = &["get", "list", "watch"];
pub(super) const ALL: &[&str] = &["*"];
const EVENTS: Rule = rule(&["create", "patch", "update"], "", &["events"]);

/// What each component of the control plane needs, by the last part of its user name.
pub(super) const COMPONENTS: &[(&str, &[Rule])] = &[
    (
        // The shared informers of all controllers.
        "system:kube-controller-manager",
        &[
            rule(
                READ,
                "",
                &[
                    "pods",
                    "services",
                    "endpoints",
                    "nodes",
                    "namespaces",
                    "serviceaccounts",
                    "configmaps",
                    "replicationcontrollers",
                    "resourcequotas",
                    "persistentvolumeclaims",
                    "persistentvolumes",
                ],
            ),
            rule(
                READ,
                "apps",
                &[
                    "deployments",
                    "replicasets",
                    "statefulsets",
                    "daemonsets",
                    "controllerrevisions",
                ],
            ),
            rule(READ, "batch", &["jobs", "cronjobs"]),
            rule(READ, "autoscaling", &["horizontalpodautoscalers"]),
            rule(READ, "policy", &["poddisruptionbudgets"]),
            rule(READ, "discovery.k8s.io", &["endpointslices"]),
            rule(READ, "networking.k8s.io", &["ingresses", "ingressclasses"]),
            rule(READ, "coordination.k8s.io", &["leases"]),
            rule(READ, "certificates.k8s.io", &["certificatesigningrequests"]),
            rule(READ, GROUP, &["clusterroles"]),
        ],
    ),
    (
        "system:kube-scheduler",
        &[
            rule(
                READ,
                "",
                &[
                    "pods",
                    "nodes",
                    "namespaces",
                    "persistentvolumeclaims",
                    "persistentvolumes",
                ],
            ),
            rule(READ, "storage.k8s.io", &["storageclasses"]),
            rule(READ, "policy", &["poddisruptionbudgets"]),
            rule(&["create"], "", &["pods/binding"]),
            rule(&["patch", "update"], "", &["pods/status"]),
            // Pods of lower priority make room.
            rule(&["delete"], "", &["pods"]),
            rule(
                &["patch", "update"],
                "",
                &["persistentvolumeclaims", "persistentvolumes"],
            ),
            EVENTS,
        ],
    ),
    (
        "system:serviceaccount:kube-system:deployment-controller",
        &[
            rule(
                &["get", "list", "watch", "update", "patch"],
                "apps",
                &["deployments", "deployments/status"],
            ),
            rule(ALL, "apps", &["replicasets"]),
            rule(READ, "", &["pods"]),
            EVENTS,
        ],
    ),
    (
        "system:serviceaccount:kube-system:horizontal-pod-autoscaler",
        &[
            rule(
                &["update", "patch"],
                "autoscaling",
                &["horizontalpodautoscalers/status"],
            ),
            rule(
                &["get", "update"],
                "apps",
                &[
                    "deployments/scale",
                    "replicasets/scale",
                    "statefulsets/scale",
                ],
            ),
            rule(&["get", "update"], "", &["replicationcontrollers/scale"]),
            rule(&["list"], "metrics.k8s.io", &["pods"]),
            rule(&["get", "list"], "custom.metrics.k8s.io", &["*"]),
            rule(&["get", "list"], "external.metrics.k8s.io", &["*"]),
            EVENTS,
        ],
    ),
    (
        "system:serviceaccount:kube-system:replicaset-controller",
        &[
            rule(
                &["get", "list", "watch", "update", "patch"],
                "apps",
                &["replicasets", "replicasets/status"],
            ),
            rule(
                &["get", "list", "watch", "create", "delete", "patch"],
                "",
                &["pods"],
            ),
            EVENTS,
        ],
    ),
    (
        "system:serviceaccount:kube-system:replication-controller",
        &[
            rule(
                &["get", "list", "watch", "update", "patch"],
                "",
                &["replicationcontrollers", "replicationcontrollers/status"],
            ),
            rule(
                &["get", "list", "watch", "create", "delete", "patch"],
                "",
                &["pods"],
            ),
            EVENTS,
        ],
    ),
    (
        "system:serviceaccount:kube-system:statefulset-controller",
        &[
            rule(
                &["get", "list", "watch", "update", "patch"],
                "apps",
                &["statefulsets", "statefulsets/status"],
            ),
            rule(ALL, "apps", &["controllerrevisions"]),
            rule(
                &["get", "list", "watch", "create", "delete", "patch"],
                "",
                &["pods"],
            ),
            rule(&["get", "create", "patch"], "", &["persistentvolumeclaims"]),
            EVENTS,
        ],
    ),
    (
        "system:serviceaccount:kube-system:daemon-set-controller",
        &[
            rule(
                &["get", "list", "watch", "update", "patch"],
                "apps",
                &["daemonsets", "daemonsets/status"],
            ),
            rule(ALL, "apps", &["controllerrevisions"]),
            rule(
                &["get", "list", "watch", "create", "delete", "patch"],
                "",
                &["pods"],
            ),
            EVENTS,
        ],
    ),
    (
        "system:serviceaccount:kube-system:job-controller",
        &[
            rule(
                &["get", "list", "watch", "update", "patch"],
                "batch",
                &["jobs", "jobs/status"],
            ),
            rule(
                &["get", "list", "watch", "create", "delete", "patch"],
                "",
                &["pods"],
            ),
            EVENTS,
        ],
    ),
    (
        "system:serviceaccount:kube-system:cronjob-controller",
        &[
            rule(&["update"], "batch", &["cronjobs/status"]),
            rule(&["get", "create", "delete"], "batch", &["jobs"]),
            EVENTS,
        ],
    ),
    (
        "system:serviceaccount:kube-system:ttl-after-finished-controller",
        &[rule(&["delete"], "batch", &["jobs"]), EVENTS],
    ),
    (
        "system:serviceaccount:kube-system:resourcequota-controller",
        &[
            rule(&["list"], "*", ALL),
            rule(&["update"], "", &["resourcequotas/status"]),
        ],
    ),
    (
        "system:serviceaccount:kube-system:disruption-controller",
        &[
            rule(&["update"], "policy", &["poddisruptionbudgets/status"]),
            rule(&["get"], "apps", &["statefulsets/scale"]),
            rule(&["get"], "", &["replicationcontrollers/scale"]),
            EVENTS,
        ],
    ),
    (
        "system:serviceaccount:kube-system:endpointslice-controller",
        &[
            rule(READ, "", &["services", "pods", "nodes"]),
            rule(ALL, "discovery.k8s.io", &["endpointslices"]),
            rule(ALL, "", &["endpoints"]),
            EVENTS,
        ],
    ),
    (
        "system:serviceaccount:kube-system:service-controller",
        &[rule(&["update", "patch"], "", &["services/status"]), EVENTS],
    ),
    (
        "system:serviceaccount:kube-system:ingress-controller",
        &[rule(&["patch"], "networking.k8s.io", &["ingresses/status"])],
    ),
    (
        "system:serviceaccount:kube-system:endpointslicemirroring-controller",
        &[rule(ALL, "discovery.k8s.io", &["endpointslices"]), EVENTS],
    ),
    (
        "system:serviceaccount:kube-system:pvc-protection-controller",
        &[
            rule(&["patch"], "", &["persistentvolumeclaims"]),
            rule(&["list"], "", &["pods"]),
        ],
    ),
    (
        "system:serviceaccount:kube-system:pv-protection-controller",
        &[rule(&["patch"], "", &["persistentvolumes"])],
    ),
    (
        "system:serviceaccount:kube-system:namespace-controller",
        &[
            rule(
                &["get", "list", "watch", "delete", "update", "patch"],
                "",
                &["namespaces", "namespaces/finalize", "namespaces/status"],
            ),
            rule(&["get", "list", "delete", "deletecollection"], "*", ALL),
        ],
    ),
    (
        "system:serviceaccount:kube-system:service-account-controller",
        &[
            rule(
                &["get", "list", "watch", "create"],
                "",
                &["serviceaccounts", "namespaces"],
            ),
            EVENTS,
        ],
    ),
    (
        "system:serviceaccount:kube-system:root-ca-cert-publisher",
        &[
            rule(
                &["get", "list", "watch", "create", "update"],
                "",
                &["configmaps", "namespaces"],
            ),
            EVENTS,
        ],
    ),
    (
        "system:serviceaccount:kube-system:generic-garbage-collector",
        &[rule(
            &["get", "list", "watch", "patch", "update", "delete"],
            "*",
            ALL,
        )],
    ),
    (
        "system:serviceaccount:kube-system:ttl-controller",
        &[rule(&["patch", "update"], "", &["nodes"])],
    ),
    (
        "system:serviceaccount:kube-system:node-controller",
        &[
            rule(
                &["get", "list", "watch", "update", "patch"],
                "",
                &["nodes", "nodes/status"],
            ),
            rule(&["get", "list", "watch", "delete"], "", &["pods"]),
            rule(&["update", "patch"], "", &["pods/status"]),
            rule(READ, "coordination.k8s.io", &["leases"]),
            EVENTS,
        ],
    ),
    (
        "system:serviceaccount:kube-system:certificate-controller",
        &[
            rule(
                &["get", "list", "watch", "update", "patch", "delete"],
                "certificates.k8s.io",
                &[
                    "certificatesigningrequests",
                    "certificatesigningrequests/approval",
                    "certificatesigningrequests/status",
                ],
            ),
            rule(&["get"], "", &["nodes"]),
            EVENTS,
        ],
    ),
];

/// What a node agent needs, before the restriction to its own node.
pub(super) const NODE: &[Rule] = &[
    rule(READ, "", &["services", "nodes"]),
    rule(READ, "discovery.k8s.io", &["endpointslices"]),
    rule(READ, "node.k8s.io", &["runtimeclasses"]),
    rule(
        READ,
        "networking.k8s.io",
        &["networkpolicies", "ingresses", "ingressclasses"],
    ),
    rule(
        &["create", "update", "patch"],
        "",
        &["nodes", "nodes/status"],
    ),
    rule(READ, "", &["pods"]),
    rule(&["update", "patch"], "", &["pods/status"]),
    rule(&["create", "delete"], "", &["pods"]),
    rule(READ, "", &["configmaps", "secrets"]),
    rule(READ, "", &["namespaces"]),
    rule(&["get"], "", &["serviceaccounts"]),
    rule(&["create"], "", &["serviceaccounts/token"]),
    rule(
        &["get", "create", "update", "patch", "delete"],
        "coordination.k8s.io",
        &["leases"],
    ),
    rule(
        &["get", "list", "watch", "create"],
        "certificates.k8s.io",
        &["certificatesigningrequests"],
    ),
    EVENTS,
];

pub(super) const BOOTSTRAP: &[Rule] = &[rule(
    &["get", "list", "watch", "create"],
    "certificates.k8s.io",
    &["certificatesigningrequests"],
)];
