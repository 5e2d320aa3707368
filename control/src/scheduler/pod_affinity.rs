//! What a pod says about other pods: affinity, anti-affinity and spread over topologies, read once per pod.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    PodAffinityTerm, PodSpec, TopologySpreadConstraint, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector as ObjectSelector;
use windlass_api::label_selector::{LabelSelector, Operator, Requirement};

use super::classes::Class;
use super::snapshot::Namespaces;

type Labels = BTreeMap<String, String>;

/// What a pod wants of the pods around it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct PodAffinity {
    /// Pods that must be in the topology.
    pub(super) required: Vec<Term>,
    /// Pods that must not be there.
    pub(super) forbidden: Vec<Term>,
    /// Pods that are liked there by so much, or disliked.
    pub(super) preferred: Vec<(i64, Term)>,
}

/// Some pods, and the label of nodes that says how near is near.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Term {
    namespaces: Vec<String>,
    namespace_selector: LabelSelector,
    selector: LabelSelector,
    pub(super) topology_key: String,
}

impl PodAffinity {
    pub(super) fn of(spec: &PodSpec, namespace: &str, labels: &Labels) -> Self {
        let Some(affinity) = &spec.affinity else {
            return Self::default();
        };
        let all = |terms: &Option<Vec<PodAffinityTerm>>| {
            let terms = terms.iter().flatten();
            terms
                .map(|term| Term::of(term, namespace, labels))
                .collect()
        };
        let weighted = |terms: &Option<Vec<WeightedPodAffinityTerm>>, sign: i64| {
            let terms = terms.iter().flatten();
            let read = move |of: &WeightedPodAffinityTerm| {
                let term = Term::of(&of.pod_affinity_term, namespace, labels);
                (sign * i64::from(of.weight), term)
            };
            terms.map(read).collect::<Vec<_>>()
        };
        let mut found = Self::default();
        if let Some(near) = &affinity.pod_affinity {
            found.required = all(&near.required_during_scheduling_ignored_during_execution);
            found.preferred = weighted(
                &near.preferred_during_scheduling_ignored_during_execution,
                1,
            );
        }
        if let Some(apart) = &affinity.pod_anti_affinity {
            found.forbidden = all(&apart.required_during_scheduling_ignored_during_execution);
            let disliked = weighted(
                &apart.preferred_during_scheduling_ignored_during_execution,
                -1,
            );
            found.preferred.extend(disliked);
        }
        found
    }

    pub(super) fn is_empty(&self) -> bool {
        self.required.is_empty() && self.forbidden.is_empty() && self.preferred.is_empty()
    }
}

impl Term {
    /// Without namespaces the term is about the pod's own; one without a selector is about no pods.
    fn of(term: &PodAffinityTerm, namespace: &str, labels: &Labels) -> Self {
        let mut namespaces = term.namespaces.clone().unwrap_or_default();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.push(namespace.to_owned());
        }
        let mut keys = Vec::new();
        for (listed, wanted) in [
            (&term.match_label_keys, true),
            (&term.mismatch_label_keys, false),
        ] {
            keys.extend(listed.iter().flatten().map(|key| (key.as_str(), wanted)));
        }
        Self {
            namespaces,
            namespace_selector: selector(term.namespace_selector.as_ref(), &[], labels),
            selector: selector(term.label_selector.as_ref(), &keys, labels),
            topology_key: term.topology_key.clone(),
        }
    }

    /// Whether pods of the namespace can be meant.
    pub(super) fn covers(&self, namespace: &str, known: &Namespaces) -> bool {
        self.namespaces.iter().any(|own| own == namespace)
            || (self.namespace_selector.requirements().is_some()
                && known
                    .get(namespace)
                    .is_some_and(|labels| self.namespace_selector.matches(labels)))
    }

    /// Whether such pods are meant.
    pub(super) fn matches(&self, class: &Class, known: &Namespaces) -> bool {
        self.covers(&class.namespace, known) && self.selector.matches(&class.labels)
    }
}

/// How evenly some pods shall lie over the values of a label of nodes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) selector: LabelSelector,
    pub(super) topology_key: String,
    pub(super) max_skew: i64,
    /// With fewer values than these the emptiest counts as holding nothing.
    pub(super) min_domains: usize,
    /// Whether it is a condition, not a wish.
    pub(super) is_required: bool,
    /// Whether nodes that the pod does not select count for nothing.
    pub(super) honors_affinity: bool,
    /// Whether nodes with taints that the pod does not tolerate count for nothing.
    pub(super) honors_taints: bool,
}

impl Spread {
    pub(super) fn of(constraint: &TopologySpreadConstraint, labels: &Labels) -> Self {
        let keys = constraint.match_label_keys.iter().flatten();
        let keys: Vec<_> = keys.map(|key| (key.as_str(), true)).collect();
        let honors = |policy: &Option<String>, default| {
            policy
                .as_deref()
                .map_or(default, |policy| policy == "Honor")
        };
        Self {
            selector: selector(constraint.label_selector.as_ref(), &keys, labels),
            topology_key: constraint.topology_key.clone(),
            max_skew: constraint.max_skew.into(),
            min_domains: constraint
                .min_domains
                .and_then(|count| usize::try_from(count).ok())
                .unwrap_or(1),
            is_required: constraint.when_unsatisfiable == "DoNotSchedule",
            honors_affinity: honors(&constraint.node_affinity_policy, true),
            honors_taints: honors(&constraint.node_taints_policy, false),
        }
    }
}

/// The selector with the pod's own value of every key added: it must be the same, or must not.
///
/// Differs from Kubernetes: the keys are read here for affinity too; upstream's API server writes them into
/// the selector of the stored pod.
fn selector(
    selector: Option<&ObjectSelector>,
    keys: &[(&str, bool)],
    labels: &Labels,
) -> LabelSelector {
    // What validation let through can be read; the rest selects nothing.
    let base = LabelSelector::from_object(selector).unwrap_or_else(|_| LabelSelector::nothing());
    let own = keys.iter().filter_map(|(key, same)| {
        let value = labels.get(*key)?.clone();
        let operator = if *same { Operator::In } else { Operator::NotIn };
        Some(Requirement {
            key: (*key).to_owned(),
            operator: operator([value].into()),
        })
    });
    base.and(own)
}
