//! Which pod is evicted when a resource runs out: a pure function of the pods and what they use.
//!
//! Those that use more than they asked for go first, among them those of the lowest priority, among them the one that is
//! furthest above its request. Critical pods are never evicted, static ones among them. Source: kubelet's ranking of pods for eviction.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use windlass_api::pod_resources::{self, amounts};

use super::{Below, Eviction, Scarce};
use crate::pods::facts;
use crate::static_pods::is_static;

/// Pods of this priority and above keep the cluster going.
const CRITICAL: i32 = 2_000_000_000;

/// What pods use, by uid: each container by its name, and under no name what the pod's volumes hold.
pub(super) type Uses = HashMap<String, BTreeMap<String, u64>>;

/// The pod to evict, if there is one that may be.
pub(super) fn victim(below: &Below, pods: &[Arc<Pod>], uses: &Uses) -> Option<Eviction> {
    let candidates = pods.iter().filter(|pod| may_be_evicted(pod));
    let ranked = candidates.filter_map(|pod| {
        let (used, requested) = (used_by(pod, uses), requested_by(pod, below.what));
        // Evicting who uses nothing frees nothing.
        (used > 0).then(|| {
            let priority = pod
                .spec
                .as_ref()
                .and_then(|spec| spec.priority)
                .unwrap_or(0);
            let above = used.saturating_sub(requested);
            ((used <= requested, priority, Reverse(above)), pod)
        })
    });
    let (_, pod) = ranked.min_by_key(|(rank, _)| *rank)?;
    Some(Eviction {
        uid: uid(pod).to_owned(),
        message: message(below, pod, uses),
    })
}

fn may_be_evicted(pod: &Pod) -> bool {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    let ended = matches!(phase, Some("Succeeded" | "Failed"));
    let critical = pod.spec.as_ref().and_then(|spec| spec.priority) >= Some(CRITICAL);
    !ended && !critical && !is_static(pod) && pod.metadata.deletion_timestamp.is_none()
}

fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

fn used_by(pod: &Pod, uses: &Uses) -> u64 {
    uses.get(uid(pod))
        .into_iter()
        .flat_map(BTreeMap::values)
        .sum()
}

fn requested_by(pod: &Pod, what: Scarce) -> u64 {
    let requests = pod
        .spec
        .as_ref()
        .map(pod_resources::requests)
        .unwrap_or_default();
    let amount = requests.get(what.name());
    amount.map_or(0, |amount| u64::try_from(amount.units()).unwrap_or(0))
}

/// In the words of kubelet.
fn message(below: &Below, pod: &Pod, uses: &Uses) -> String {
    let Below {
        what,
        available,
        threshold,
    } = below;
    let name = what.name();
    let mut text = format!(
        "The node was low on resource: {name}. Threshold quantity: {threshold}, available: {available}. "
    );
    // What can't be requested is not compared with a request.
    let has_requests = matches!(what, Scarce::Memory | Scarce::Disk);
    let uses = uses.get(uid(pod)).filter(|_| has_requests);
    for (container, used) in uses.into_iter().flatten() {
        let spec = pod.spec.as_ref();
        let found = spec.and_then(|spec| facts::container(spec, container));
        let Some(found) = found else { continue };
        let resources = found.resources.as_ref();
        let requests = amounts(resources.and_then(|resources| resources.requests.as_ref()));
        let requested = requests.get(name).map_or(0, |amount| amount.units());
        if i64::try_from(*used).unwrap_or(i64::MAX) > requested {
            text.push_str(&format!(
                "Container {container} was using {used}, request is {requested}, has larger \
                 consumption of {name}. "
            ));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const BELOW: Below = Below {
        what: Scarce::Memory,
        available: 50,
        threshold: 100,
    };

    fn pod(name: &str, request: u64, priority: i32, phase: &str) -> Arc<Pod> {
        let resources = json!({ "requests": { "memory": request.to_string() } });
        let pod = json!({
            "metadata": { "name": name, "uid": name },
            "spec": {
                "priority": priority,
                "containers": [{ "name": "a", "resources": resources }],
            },
            "status": { "phase": phase },
        });
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn victim_of(pods: &[(&str, u64, i32, &str, u64)]) -> Option<String> {
        let uses = pods
            .iter()
            .map(|(name, _, _, _, used)| {
                let uses = BTreeMap::from([("a".to_owned(), *used)]);
                ((*name).to_owned(), uses)
            })
            .collect();
        let pods: Vec<_> = pods
            .iter()
            .map(|(name, request, priority, phase, _)| pod(name, *request, *priority, phase))
            .collect();
        victim(&BELOW, &pods, &uses).map(|eviction| eviction.uid)
    }

    #[test]
    fn who_uses_more_than_asked_for_goes_first() {
        let cases: [(&[_], Option<&str>); 6] = [
            (
                &[
                    ("within", 100, 0, "Running", 90),
                    ("above", 10, 5, "Running", 20),
                ],
                Some("above"),
            ),
            (
                &[
                    ("low", 10, 0, "Running", 11),
                    ("high", 10, 5, "Running", 99),
                ],
                Some("low"),
            ),
            (
                &[
                    ("little", 10, 0, "Running", 11),
                    ("much", 10, 0, "Running", 99),
                ],
                Some("much"),
            ),
            (&[("within", 100, 0, "Running", 90)], Some("within")),
            (
                &[
                    ("critical", 0, CRITICAL, "Running", 90),
                    ("ended", 0, 0, "Failed", 90),
                ],
                None,
            ),
            (&[("idle", 0, 0, "Running", 0)], None),
        ];
        for (pods, wanted) in cases {
            assert_eq!(victim_of(pods).as_deref(), wanted, "{pods:?}");
        }
    }

    #[test]
    fn the_message_says_what_was_low_and_who_used_it() {
        let of_pod = BTreeMap::from([("a".to_owned(), 30), (String::new(), 5)]);
        let uses = HashMap::from([("p".to_owned(), of_pod)]);
        let found = victim(&BELOW, &[pod("p", 10, 0, "Running")], &uses).unwrap();
        assert_eq!(
            found.message,
            "The node was low on resource: memory. Threshold quantity: 100, available: 50. \
             Container a was using 30, request is 10, has larger consumption of memory. "
        );
    }
}
