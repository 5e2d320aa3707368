//! Nodes that are cordoned.

use k8s_openapi::api::core::v1::Taint;

use super::{Filter, NodeFacts, NodeInfo, PodInfo, Wake};
use crate::taints::{NO_SCHEDULE, tolerates};

const TAINT: &str = "node.kubernetes.io/unschedulable";

pub(super) struct NodeUnschedulable;

impl Filter for NodeUnschedulable {
    fn refuse(&self, pod: &PodInfo, facts: &NodeFacts, _: &NodeInfo) -> Vec<String> {
        if !facts.unschedulable {
            return Vec::new();
        }
        let taint = Taint {
            key: TAINT.into(),
            effect: NO_SCHEDULE.into(),
            ..Taint::default()
        };
        if pod
            .wants
            .tolerations
            .iter()
            .any(|toleration| tolerates(toleration, &taint))
        {
            return Vec::new();
        }
        vec!["node(s) were unschedulable".into()]
    }

    fn helped_by(&self) -> &'static [Wake] {
        &[Wake::Node]
    }
}
