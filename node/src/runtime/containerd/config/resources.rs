//! What control groups bound of a container, and of a pod.
//!
//! Source: kubelet's `kuberuntime_container_linux.go`, `cm/helpers_linux.go` and `qos/policy.go`.

use k8s_openapi::api::core::v1::{Container, PodSpec};
use windlass_api::pod_resources::{self, QosClass, ResourceList, amounts};

use crate::runtime::ResourceLimits;
use crate::runtime::containerd::cri::messages::{HugepageLimit, LinuxContainerResources};

/// In microseconds.
const PERIOD: i64 = 100_000;
const MIN_QUOTA: i64 = 1000;
const MIN_SHARES: i64 = 2;
const MAX_SHARES: i64 = 262_144;
/// `oom_score_adj` of what is killed last.
const GUARANTEED: i64 = -997;
/// And of what is killed first.
const BEST_EFFORT: i64 = 1000;
/// From this priority on a pod is critical to the system.
const SYSTEM_CRITICAL: i32 = 2_000_000_000;
const HUGE_PAGES: &str = "hugepages-";

/// What one container is bound to.
pub(super) fn of_container(
    spec: &PodSpec,
    container: &Container,
    node_memory: i64,
) -> LinuxContainerResources {
    let resources = container.resources.as_ref();
    let limits = amounts(resources.and_then(|resources| resources.limits.as_ref()));
    let requests = amounts(resources.and_then(|resources| resources.requests.as_ref()));
    LinuxContainerResources {
        oom_score_adj: oom_score_adj(spec, units(&requests, "memory"), node_memory),
        hugepage_limits: huge_pages(&limits),
        ..of_lists(&requests, &limits)
    }
}

/// What a container is bound to from now on.
pub(in crate::runtime::containerd) fn of_limits(
    limits: &ResourceLimits,
) -> LinuxContainerResources {
    let number = |value: Option<u64>| value.and_then(|value| i64::try_from(value).ok());
    bounds(
        number(limits.cpu_request_millis),
        number(limits.cpu_millis),
        number(limits.memory_bytes),
    )
}

/// What the pod as a whole asks for, for runtimes that size something by it.
pub(super) fn of_pod(spec: &PodSpec) -> LinuxContainerResources {
    let overhead = amounts(spec.overhead.as_ref());
    let without = |mut list: ResourceList| {
        for (name, amount) in &overhead {
            if let Some(whole) = list.get_mut(name) {
                *whole -= *amount;
            }
        }
        list
    };
    of_lists(
        &without(pod_resources::requests(spec)),
        &without(pod_resources::limits(spec)),
    )
}

/// What the sandbox needs for itself, if its RuntimeClass says so.
pub(super) fn overhead(spec: &PodSpec) -> Option<LinuxContainerResources> {
    let overhead = amounts(spec.overhead.as_ref());
    (!overhead.is_empty()).then(|| of_lists(&overhead, &overhead))
}

fn of_lists(requests: &ResourceList, limits: &ResourceList) -> LinuxContainerResources {
    let millis = |list: &ResourceList| list.get("cpu").map(|amount| amount.millis());
    bounds(
        millis(requests),
        millis(limits),
        limits.get("memory").map(|amount| amount.units()),
    )
}

fn bounds(
    cpu_request: Option<i64>,
    cpu_limit: Option<i64>,
    memory_limit: Option<i64>,
) -> LinuxContainerResources {
    // Spec: an absent request is the limit.
    let shares = cpu_request.or(cpu_limit).unwrap_or(0);
    let quota = match cpu_limit {
        Some(millis) if millis > 0 => (millis * PERIOD / 1000).max(MIN_QUOTA),
        _ => 0,
    };
    LinuxContainerResources {
        cpu_period: PERIOD,
        cpu_quota: quota,
        cpu_shares: (shares.saturating_mul(1024) / 1000).clamp(MIN_SHARES, MAX_SHARES),
        memory_limit_in_bytes: memory_limit.unwrap_or(0),
        ..LinuxContainerResources::default()
    }
}

fn units(list: &ResourceList, name: &str) -> i64 {
    list.get(name).map_or(0, |amount| amount.units())
}

/// Who is killed first when the node is out of memory.
fn oom_score_adj(spec: &PodSpec, memory_request: i64, node_memory: i64) -> i64 {
    if spec.priority.unwrap_or(0) >= SYSTEM_CRITICAL {
        return GUARANTEED;
    }
    match pod_resources::qos_class(spec) {
        QosClass::Guaranteed => GUARANTEED,
        QosClass::BestEffort => BEST_EFFORT,
        QosClass::Burstable => {
            let share = 1000 * i128::from(memory_request) / i128::from(node_memory.max(1));
            let score = 1000 - i64::try_from(share).unwrap_or(1000);
            // Between those that are killed last and those that are killed first.
            score.clamp(1000 + GUARANTEED, BEST_EFFORT - 1)
        }
    }
}

/// `hugepages-2Mi: 4Mi` bounds pages of `2MB`.
fn huge_pages(limits: &ResourceList) -> Vec<HugepageLimit> {
    let limits = limits.iter().filter_map(|(name, amount)| {
        let size = name.strip_prefix(HUGE_PAGES)?.strip_suffix('i')?;
        Some(HugepageLimit {
            page_size: format!("{size}B"),
            limit: u64::try_from(amount.units()).ok()?,
        })
    });
    limits.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(resources: &Value) -> LinuxContainerResources {
        let container = json!({ "name": "c", "resources": resources });
        let spec: PodSpec = serde_json::from_value(json!({ "containers": [container] })).unwrap();
        of_container(&spec, &spec.containers[0], 1000 << 20)
    }

    #[test]
    fn requests_and_limits_become_shares_quota_and_scores() {
        for (resources, shares, quota, memory, score) in [
            (json!({}), 2, 0, 0, 1000),
            (json!({ "requests": { "cpu": "250m" } }), 256, 0, 0, 999),
            (json!({ "limits": { "cpu": "500m" } }), 512, 50_000, 0, 999),
            (json!({ "limits": { "cpu": "1m" } }), 2, 1000, 0, 999),
            (json!({ "requests": { "cpu": "1000" } }), 262_144, 0, 0, 999),
            (
                json!({ "requests": { "memory": "500Mi" }, "limits": { "memory": "600Mi" } }),
                2,
                0,
                600 << 20,
                500,
            ),
            (json!({ "requests": { "memory": "1000Mi" } }), 2, 0, 0, 3),
            (
                json!({ "requests": { "cpu": "1", "memory": "1Mi" }, "limits": { "cpu": "1", "memory": "1Mi" } }),
                1024,
                100_000,
                1 << 20,
                -997,
            ),
        ] {
            let found = of(&resources);
            assert_eq!(found.cpu_shares, shares, "{resources}");
            assert_eq!(found.cpu_quota, quota, "{resources}");
            assert_eq!(found.memory_limit_in_bytes, memory, "{resources}");
            assert_eq!(found.oom_score_adj, score, "{resources}");
            assert_eq!(found.cpu_period, 100_000);
        }
    }

    #[test]
    fn pages_are_named_as_control_groups_name_them() {
        let found = of(&json!({ "limits": { "hugepages-2Mi": "4Mi", "hugepages-1Gi": "1Gi" } }));
        let pages = found
            .hugepage_limits
            .iter()
            .map(|page| (page.page_size.as_str(), page.limit));
        assert_eq!(
            pages.collect::<Vec<_>>(),
            [("1GB", 1 << 30), ("2MB", 4 << 20)]
        );
    }

    #[test]
    fn the_pods_sum_is_without_its_overhead() {
        let spec = json!({
            "containers": [
                { "name": "a", "resources": { "requests": { "cpu": "1" }, "limits": { "cpu": "1", "memory": "1Mi" } } },
                { "name": "b", "resources": { "requests": { "cpu": "1" }, "limits": { "cpu": "1", "memory": "1Mi" } } },
            ],
            "overhead": { "cpu": "500m", "memory": "1Mi" },
        });
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        assert_eq!(of_pod(&spec).cpu_shares, 2048);
        assert_eq!(of_pod(&spec).memory_limit_in_bytes, 2 << 20);
        assert_eq!(overhead(&spec).unwrap().cpu_quota, 50_000);
        let limits = ResourceLimits {
            memory_bytes: Some(5),
            cpu_millis: Some(2000),
            cpu_request_millis: None,
        };
        assert_eq!(of_limits(&limits).cpu_quota, 200_000);
        assert_eq!(of_limits(&limits).cpu_shares, 2048);
    }
}
