//! Taints: those that forbid, and those that are better avoided.

use super::{Filter, NodeFacts, NodeInfo, PodInfo, Score, Wake, scale_to_worst};
use crate::taints::{NO_EXECUTE, NO_SCHEDULE, PREFER_NO_SCHEDULE, tolerates, untolerated};

pub(super) struct TaintToleration;

impl Filter for TaintToleration {
    fn refuse(&self, pod: &PodInfo, facts: &NodeFacts, _: &NodeInfo) -> Vec<String> {
        let forbidding = [NO_SCHEDULE, NO_EXECUTE];
        match untolerated(&facts.taints, &forbidding, &pod.wants.tolerations) {
            Some(_) => vec!["node(s) had untolerated taint(s)".into()],
            None => Vec::new(),
        }
    }

    fn helped_by(&self) -> &'static [Wake] {
        &[Wake::Node]
    }
}

impl Score for TaintToleration {
    /// How many taints would rather not have the pod.
    fn score(&self, pod: &PodInfo, facts: &NodeFacts, _: &NodeInfo) -> i64 {
        let tolerations = &pod.wants.tolerations;
        let shy = facts
            .taints
            .iter()
            .filter(|taint| taint.effect == PREFER_NO_SCHEDULE);
        let left = shy.filter(|taint| !tolerations.iter().any(|t| tolerates(t, taint)));
        i64::try_from(left.count()).unwrap_or(i64::MAX)
    }

    fn normalize(&self, scores: &mut [i64]) {
        scale_to_worst(scores);
    }
}
