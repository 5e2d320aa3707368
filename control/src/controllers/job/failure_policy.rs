//! What a failed pod means to its Job: the first rule of `podFailurePolicy` that matches decides.

use k8s_openapi::api::batch::v1::{
    PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule,
};

use crate::controllers::runtime::metadata::Metadata;
use crate::controllers::runtime::pod::Pod;

/// What a failed pod means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It counts, as without a policy.
    Count,
    /// It is replaced and does not count.
    Ignore,
    /// Its index has failed.
    FailIndex,
    /// The Job has failed, for this reason.
    FailJob(String),
}

/// What the policy says about a failed pod.
pub(super) fn judge(policy: Option<&PodFailurePolicy>, pod: &Pod) -> Verdict {
    let Some(policy) = policy.filter(|_| pod.phase == "Failed") else {
        return Verdict::Count;
    };
    for (at, rule) in policy.rules.iter().enumerate() {
        let Some(matched) = matched(rule, pod) else {
            continue;
        };
        return match &*rule.action {
            "FailJob" => Verdict::FailJob(format!("{matched} matching FailJob rule at index {at}")),
            "FailIndex" => Verdict::FailIndex,
            "Ignore" => Verdict::Ignore,
            _ => Verdict::Count,
        };
    }
    Verdict::Count
}

/// What of the pod the rule is about, in words; `None` if nothing is.
fn matched(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<String> {
    let (namespace, name) = (pod.metadata.namespace(), pod.metadata.name());
    if let Some(codes) = &rule.on_exit_codes {
        let exit = pod
            .exits
            .iter()
            .find(|(container, code)| exits(codes, container, *code));
        return exit.map(|(container, code)| {
            format!("Container {container} for pod {namespace}/{name} failed with exit code {code}")
        });
    }
    let patterns = rule.on_pod_conditions.iter().flatten();
    let holds = |(kind, status): &(String, String)| {
        let mut patterns = patterns.clone();
        patterns.any(|of| of.type_ == *kind && of.status.as_deref().unwrap_or("True") == status)
    };
    let condition = pod.conditions.iter().find(|condition| holds(condition));
    condition.map(|(kind, _)| format!("Pod {namespace}/{name} has condition {kind}"))
}

fn exits(codes: &PodFailurePolicyOnExitCodesRequirement, container: &str, code: i32) -> bool {
    let named = codes
        .container_name
        .as_deref()
        .is_none_or(|name| name == container);
    let listed = codes.values.contains(&code);
    // Exit code 0 is no failure.
    named && code != 0 && listed == (codes.operator == "In")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_first_rule_that_matches_decides() {
        let policy: PodFailurePolicy = serde_json::from_value(json!({"rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "FailJob", "onExitCodes": {"containerName": "main", "operator": "In", "values": [42]}},
            {"action": "FailIndex", "onExitCodes": {"operator": "NotIn", "values": [1, 42]}},
        ]}))
        .unwrap();
        let pod = |exits: &[(&str, i32)], condition: Option<&str>| Pod {
            metadata: serde_json::from_value(json!({"name": "p", "namespace": "x"})).unwrap(),
            phase: "Failed".into(),
            exits: exits
                .iter()
                .map(|(name, code)| ((*name).to_owned(), *code))
                .collect(),
            conditions: condition
                .map(|kind| (kind.to_owned(), "True".to_owned()))
                .into_iter()
                .collect(),
            ..Pod::default()
        };
        let fatal =
            "Container main for pod x/p failed with exit code 42 matching FailJob rule at index 1";
        let cases = [
            (
                pod(&[("main", 42)], Some("DisruptionTarget")),
                Verdict::Ignore,
            ),
            (pod(&[("main", 42)], None), Verdict::FailJob(fatal.into())),
            (pod(&[("side", 42)], None), Verdict::Count),
            (pod(&[("main", 0), ("side", 7)], None), Verdict::FailIndex),
            (pod(&[("main", 1)], Some("Other")), Verdict::Count),
        ];
        for (pod, expected) in cases {
            assert_eq!(judge(Some(&policy), &pod), expected, "{:?}", pod.exits);
            assert_eq!(judge(None, &pod), Verdict::Count);
        }
    }
}
