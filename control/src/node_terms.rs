//! Which nodes a pod selects: `nodeSelector` and node affinity, read once per pod.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodSpec,
};
use windlass_api::label_selector::{LabelSelector, Labels, Operator, Requirement};

/// What a pod says about nodes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NodeTerms {
    selector: LabelSelector,
    required: Option<RequiredTerms>,
    /// Each that holds counts its weight.
    preferred: Vec<(i64, Term)>,
}

impl Default for NodeTerms {
    fn default() -> Self {
        Self {
            selector: LabelSelector::everything(),
            required: None,
            preferred: Vec::new(),
        }
    }
}

/// Terms of which one must hold.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RequiredTerms(Vec<Term>);

/// Requirements that all must hold. One that is empty, or cannot be understood, holds for no node.
#[derive(Clone, Debug, PartialEq)]
struct Term {
    labels: Vec<Requirement>,
    fields: Vec<Requirement>,
    is_valid: bool,
}

impl NodeTerms {
    pub(crate) fn of(spec: &PodSpec) -> Self {
        let affinity = spec.affinity.as_ref();
        let affinity = affinity.and_then(|affinity| affinity.node_affinity.as_ref());
        let selector = spec.node_selector.as_ref();
        Self {
            selector: selector.map_or_else(LabelSelector::everything, LabelSelector::from_map),
            ..affinity.map_or_else(Self::default, Self::of_affinity)
        }
    }

    /// What an affinity alone says.
    pub(crate) fn of_affinity(affinity: &NodeAffinity) -> Self {
        let required = &affinity.required_during_scheduling_ignored_during_execution;
        let preferred = &affinity.preferred_during_scheduling_ignored_during_execution;
        let preferred = preferred.iter().flatten();
        Self {
            selector: LabelSelector::everything(),
            required: required.as_ref().map(RequiredTerms::of),
            preferred: preferred
                .map(|term| (term.weight.into(), Term::of(&term.preference)))
                .collect(),
        }
    }

    /// Whether the node may be taken.
    pub(crate) fn match_node(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        let required = self.required.as_ref();
        self.selector.matches(labels) && required.is_none_or(|terms| terms.match_node(name, labels))
    }

    /// Whether any node is preferred over another.
    pub(crate) fn has_preferences(&self) -> bool {
        !self.preferred.is_empty()
    }

    /// How much the node is preferred.
    pub(crate) fn preference(&self, name: &str, labels: &BTreeMap<String, String>) -> i64 {
        let held = self
            .preferred
            .iter()
            .filter(|(_, term)| term.holds(name, labels));
        held.map(|(weight, _)| weight).sum()
    }
}

impl RequiredTerms {
    pub(crate) fn of(selector: &NodeSelector) -> Self {
        Self(selector.node_selector_terms.iter().map(Term::of).collect())
    }

    /// Whether the node may be taken.
    pub(crate) fn match_node(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().any(|term| term.holds(name, labels))
    }
}

/// The fields of a node that terms may ask for.
struct Fields<'a>(&'a str);

impl Labels for Fields<'_> {
    fn label(&self, key: &str) -> Option<&str> {
        (key == "metadata.name").then_some(self.0)
    }
}

impl Term {
    fn of(term: &NodeSelectorTerm) -> Self {
        let labels = requirements(term.match_expressions.as_deref());
        let fields = requirements(term.match_fields.as_deref());
        let is_valid = labels.is_some() && fields.is_some();
        Self {
            labels: labels.unwrap_or_default(),
            fields: fields.unwrap_or_default(),
            is_valid,
        }
    }

    fn holds(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        let is_empty = self.labels.is_empty() && self.fields.is_empty();
        self.is_valid
            && !is_empty
            && self
                .labels
                .iter()
                .all(|requirement| requirement.matches(labels))
            && self
                .fields
                .iter()
                .all(|requirement| requirement.matches(&Fields(name)))
    }
}

fn requirements(terms: Option<&[NodeSelectorRequirement]>) -> Option<Vec<Requirement>> {
    let read = |term: &NodeSelectorRequirement| {
        let values = term.values.clone().unwrap_or_default();
        let operator = Operator::from_object(&term.operator, values).ok()?;
        Some(Requirement {
            key: term.key.clone(),
            operator,
        })
    };
    terms.into_iter().flatten().map(read).collect()
}
