//! How many replicas the use of pods asks for. Pure.
//!
//! Pods that do not count yet (starting, without metrics) are first left out; if the answer would change the
//! number, they are put in at the value that holds it back: as using all when fewer are wanted, as
//! using nothing when more are. Source: the horizontal pod autoscaler's documented algorithm.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use windlass_api::metrics::PodMetrics;
use windlass_api::quantity::Quantity;

use crate::controllers::runtime::clock;
use crate::controllers::runtime::metadata::Metadata;
use crate::controllers::runtime::pod::{ContainerRequests, Pod};

/// How long a pod may use more than usual because it starts, in seconds.
const START: i64 = 300;
/// How long a pod may take until it is ready for the first time, in seconds.
const FIRST_READY: i64 = 30;

/// A resource and of which containers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resource<'a> {
    pub(super) name: &'a str,
    /// One container, or all.
    pub(super) container: Option<&'a str>,
}

/// What the use should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Percent of what pods ask for.
    Utilization(i64),
    /// Thousandths, on average.
    AverageValue(i64),
}

/// What one value should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ValueTarget {
    /// Thousandths.
    Value(i64),
    /// Thousandths per pod.
    AverageValue(i64),
}

/// How many replicas are wanted, and what the use is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Proposal {
    pub(super) replicas: i64,
    /// Percent, where the target is one.
    pub(super) utilization: Option<i64>,
    /// Thousandths per pod.
    pub(super) average: i64,
}

/// How far the use may be off without a consequence, below and above.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tolerance {
    pub(super) down: f64,
    pub(super) up: f64,
}

impl Tolerance {
    fn covers(self, ratio: f64) -> bool {
        (1.0 - self.down..=1.0 + self.up).contains(&ratio)
    }
}

/// Pods by what they are good for.
#[derive(Debug, Default)]
struct Groups<'a> {
    ready: usize,
    unready: Vec<&'a str>,
    missing: Vec<&'a str>,
}

/// How many replicas the use of a resource asks for, with `current` there.
///
/// # Errors
/// Why that cannot be told, in upstream's words.
pub(super) fn for_resource(
    current: i64,
    resource: Resource<'_>,
    target: Target,
    tolerance: Tolerance,
    (pods, metrics): (&[Arc<Pod>], &[PodMetrics]),
    now: Timestamp,
) -> Result<Proposal, String> {
    let used = usage(metrics, resource);
    if used.is_empty() {
        let name = resource.name;
        return Err(format!(
            "unable to get metrics for resource {name}: no metrics returned from resource metrics API"
        ));
    }
    let by_name = metrics.iter().map(|of| (of.metadata.name(), of)).collect();
    let of = Pods {
        all: pods,
        metrics: by_name,
        resource: Some(resource),
    };
    for_usage(current, used, target, tolerance, &of, now)
}

/// How many replicas a metric asks for that each pod has a value of, in thousandths.
///
/// # Errors
/// Why that cannot be told, in upstream's words.
pub(super) fn for_pods(
    current: i64,
    values: BTreeMap<String, i64>,
    average: i64,
    tolerance: Tolerance,
    pods: &[Arc<Pod>],
    now: Timestamp,
) -> Result<Proposal, String> {
    let of = Pods {
        all: pods,
        metrics: BTreeMap::new(),
        resource: None,
    };
    let target = Target::AverageValue(average);
    for_usage(current, values, target, tolerance, &of, now)
}

/// How many replicas one value asks for that is about all of them, in thousandths.
pub(super) fn for_value(
    (current, ready): (i64, usize),
    value: i64,
    target: ValueTarget,
    tolerance: Tolerance,
) -> Proposal {
    let (ratio, wanted) = match target {
        ValueTarget::Value(target) => {
            let ratio = value as f64 / target.max(1) as f64;
            (ratio, ceil(ratio * ready as f64))
        }
        ValueTarget::AverageValue(average) => {
            let average = average.max(1) as f64;
            let ratio = value as f64 / (average * current.max(1) as f64);
            (ratio, ceil(value as f64 / average))
        }
    };
    Proposal {
        replicas: if tolerance.covers(ratio) {
            current
        } else {
            wanted
        },
        utilization: None,
        average: match target {
            ValueTarget::Value(_) => value,
            ValueTarget::AverageValue(_) => value / current.max(1),
        },
    }
}

/// The pods that use is about.
struct Pods<'a> {
    all: &'a [Arc<Pod>],
    metrics: BTreeMap<&'a str, &'a PodMetrics>,
    /// `None` for what is no resource.
    resource: Option<Resource<'a>>,
}

fn for_usage(
    current: i64,
    mut used: BTreeMap<String, i64>,
    target: Target,
    tolerance: Tolerance,
    of: &Pods<'_>,
    now: Timestamp,
) -> Result<Proposal, String> {
    let pods = of.all;
    if pods.is_empty() {
        return Err("no pods returned by selector while calculating replica count".into());
    }
    let groups = group(of, &used, now);
    let known: BTreeMap<&str, &Arc<Pod>> =
        pods.iter().map(|pod| (pod.metadata.name(), pod)).collect();
    // Metrics of pods that are not selected, or do not count yet, say nothing.
    used.retain(|name, _| {
        let pod = known.get(name.as_str());
        pod.is_some_and(|pod| pod.is_active()) && !groups.unready.contains(&name.as_str())
    });
    if used.is_empty() {
        return Err("did not receive metrics for targeted pods (pods might be unready)".into());
    }
    let requests = match (target, of.resource) {
        (Target::Utilization(_), Some(resource)) => requests(pods, resource)?,
        _ => BTreeMap::new(),
    };
    let measure = |used: &BTreeMap<String, i64>| measure(used, &requests, target);
    let (ratio, shown) = measure(&used)?;
    let keep = Proposal {
        replicas: current,
        ..shown
    };
    let is_held_back = !groups.unready.is_empty() && ratio > 1.0;
    if !is_held_back && groups.missing.is_empty() {
        if tolerance.covers(ratio) {
            return Ok(keep);
        }
        return Ok(Proposal {
            replicas: ceil(ratio * groups.ready as f64),
            ..shown
        });
    }
    for name in &groups.missing {
        let as_if = match target {
            _ if ratio >= 1.0 => 0,
            Target::AverageValue(value) => value,
            Target::Utilization(percent) => {
                requests.get(*name).copied().unwrap_or(0) * percent.max(100) / 100
            }
        };
        if ratio != 1.0 {
            used.insert((*name).to_owned(), as_if);
        }
    }
    if is_held_back {
        for name in &groups.unready {
            used.insert((*name).to_owned(), 0);
        }
    }
    let (corrected, _) = measure(&used)?;
    let has_turned = (ratio < 1.0 && corrected > 1.0) || (ratio > 1.0 && corrected < 1.0);
    if tolerance.covers(corrected) || has_turned {
        return Ok(keep);
    }
    let wanted = ceil(corrected * used.len() as f64);
    let goes_back = (corrected < 1.0 && wanted > current) || (corrected > 1.0 && wanted < current);
    Ok(if goes_back {
        keep
    } else {
        Proposal {
            replicas: wanted,
            ..shown
        }
    })
}

/// How much each pod uses, in thousandths.
fn usage(metrics: &[PodMetrics], resource: Resource<'_>) -> BTreeMap<String, i64> {
    let of_pod = |pod: &PodMetrics| {
        let containers = pod.containers.iter();
        let wanted = containers.filter(|of| resource.container.is_none_or(|name| of.name == name));
        let amounts = wanted.map(|of| {
            let amount: Quantity = of.usage.get(resource.name)?.0.parse().ok()?;
            Some(amount.millis())
        });
        // A pod of which a part is not known is not known.
        let amounts: Vec<i64> = amounts.collect::<Option<_>>()?;
        let sum = amounts.iter().sum();
        (!amounts.is_empty()).then(|| (pod.metadata.name().to_owned(), sum))
    };
    metrics.iter().filter_map(of_pod).collect()
}

fn group<'a>(of: &Pods<'a>, used: &BTreeMap<String, i64>, now: Timestamp) -> Groups<'a> {
    let is_cpu = of.resource.is_some_and(|resource| resource.name == "cpu");
    let mut groups = Groups::default();
    for pod in of.all {
        let name = pod.metadata.name();
        if pod.metadata.is_terminating() || pod.phase == "Failed" {
            continue;
        }
        if pod.phase == "Pending" {
            groups.unready.push(name);
            continue;
        }
        if !used.contains_key(name) {
            groups.missing.push(name);
            continue;
        }
        let metrics = of.metrics.get(name);
        if is_cpu && is_starting(pod, metrics.copied(), now) {
            groups.unready.push(name);
            continue;
        }
        groups.ready += 1;
    }
    groups
}

/// Whether what the pod uses of processors says more about its start than about its load.
fn is_starting(pod: &Pod, metrics: Option<&PodMetrics>, now: Timestamp) -> bool {
    let (Some(started), Some(changed)) = (pod.started, pod.ready_since) else {
        return true;
    };
    if clock::after(started, START) <= now {
        return !pod.ready && clock::after(started, FIRST_READY) > changed;
    }
    let taken = metrics.and_then(|of| Some((of.timestamp.as_ref()?.0, window(&of.window)?)));
    let is_too_early = taken.is_some_and(|(at, window)| {
        let begun = changed.checked_add(window);
        begun.is_ok_and(|begun| at < begun)
    });
    !pod.ready || is_too_early
}

/// A duration as Go writes one in seconds.
fn window(text: &str) -> Option<SignedDuration> {
    let seconds: f64 = text.strip_suffix('s')?.parse().ok()?;
    SignedDuration::try_from_secs_f64(seconds).ok()
}

/// What each pod asks for, in thousandths.
fn requests<'a>(
    pods: &'a [Arc<Pod>],
    resource: Resource<'_>,
) -> Result<BTreeMap<&'a str, i64>, String> {
    let mut requests = BTreeMap::new();
    for pod in pods {
        let name = pod.metadata.name();
        let mut sum = 0;
        for container in &pod.requests {
            if resource
                .container
                .is_some_and(|wanted| wanted != container.name)
            {
                continue;
            }
            let asked = amount(container, resource.name).ok_or_else(|| {
                format!(
                    "missing request for {} in container {} of Pod {name}",
                    resource.name, container.name
                )
            })?;
            sum += asked;
        }
        if let Some(wanted) = resource.container
            && !pod.requests.iter().any(|of| of.name == wanted)
        {
            return Err(format!("container {wanted} not found in Pod {name}"));
        }
        requests.insert(name, sum);
    }
    Ok(requests)
}

fn amount(container: &ContainerRequests, resource: &str) -> Option<i64> {
    match resource {
        "cpu" => container.cpu,
        "memory" => container.memory,
        _ => None,
    }
}

/// The use over what it should be, and how it is shown.
fn measure(
    used: &BTreeMap<String, i64>,
    requests: &BTreeMap<&str, i64>,
    target: Target,
) -> Result<(f64, Proposal), String> {
    let count = i64::try_from(used.len()).unwrap_or(i64::MAX).max(1);
    let total: i64 = used.values().sum();
    let mut shown = Proposal {
        replicas: 0,
        utilization: None,
        average: total / count,
    };
    match target {
        Target::AverageValue(value) => Ok((shown.average as f64 / value.max(1) as f64, shown)),
        Target::Utilization(percent) => {
            let asked = used.keys().filter_map(|name| requests.get(name.as_str()));
            let asked: i64 = asked.sum();
            if asked == 0 {
                return Err("no metrics returned matched known pods".into());
            }
            let utilization = total * 100 / asked;
            shown.utilization = Some(utilization);
            Ok((utilization as f64 / percent.max(1) as f64, shown))
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "numbers of replicas")]
fn ceil(value: f64) -> i64 {
    value.ceil() as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::runtime::informer::Cached;
    use serde_json::json;

    const NOW: &str = "2026-01-01T01:00:00Z";
    const USUAL: Tolerance = Tolerance { down: 0.1, up: 0.1 };
    const CPU: Resource<'_> = Resource {
        name: "cpu",
        container: None,
    };

    fn pod(name: &str, phase: &str, ready: bool, since: &str) -> Arc<Pod> {
        let pod = json!({
            "metadata": {"name": name},
            "spec": {"containers": [
                {"name": "a", "resources": {"requests": {"cpu": "100m", "memory": "100Mi"}}}]},
            "status": {"phase": phase, "startTime": "2026-01-01T00:00:00Z", "conditions": [
                {"type": "Ready", "status": if ready { "True" } else { "False" }, "lastTransitionTime": since}]},
        });
        Arc::new(Pod::project(serde_json::from_value(pod).unwrap()))
    }

    fn uses(name: &str, cpu: &str) -> PodMetrics {
        serde_json::from_value(json!({
            "metadata": {"name": name}, "timestamp": NOW, "window": "15s",
            "containers": [{"name": "a", "usage": {"cpu": cpu, "memory": "50Mi"}}],
        }))
        .unwrap()
    }

    fn running(name: &str) -> Arc<Pod> {
        pod(name, "Running", true, "2026-01-01T00:01:00Z")
    }

    fn wanted(
        target: Target,
        pods: &[Arc<Pod>],
        metrics: &[PodMetrics],
    ) -> Result<(i64, Option<i64>), String> {
        let current = i64::try_from(pods.len()).unwrap();
        let now = NOW.parse().unwrap();
        let proposal = for_resource(current, CPU, target, USUAL, (pods, metrics), now)?;
        Ok((proposal.replicas, proposal.utilization))
    }

    #[test]
    fn the_number_follows_the_use() {
        let pods = ["a", "b"].map(running);
        for (cpu, target, expected) in [
            ("50m", Target::Utilization(50), (2, Some(50))),
            ("54m", Target::Utilization(50), (2, Some(54))),
            ("80m", Target::Utilization(50), (4, Some(80))),
            ("1000m", Target::Utilization(50), (40, Some(1000))),
            ("10m", Target::Utilization(50), (1, Some(10))),
            ("0", Target::Utilization(50), (0, Some(0))),
            ("90m", Target::AverageValue(30), (6, None)),
            ("15000000n", Target::AverageValue(30), (1, None)),
        ] {
            let metrics = ["a", "b"].map(|name| uses(name, cpu));
            assert_eq!(
                wanted(target, &pods, &metrics),
                Ok(expected),
                "{cpu} {target:?}"
            );
        }
    }

    #[test]
    fn pods_that_do_not_count_yet_hold_the_number() {
        let target = Target::Utilization(50);
        let starting = pod("c", "Pending", false, NOW);
        let pods = [running("a"), running("b"), starting];
        let metrics = [uses("a", "100m"), uses("b", "100m")];
        // 200 % of two is four, but with the third at nothing it is 133 % of three.
        assert_eq!(wanted(target, &pods, &metrics), Ok((4, Some(100))));
        let metrics = [uses("a", "60m"), uses("b", "60m")];
        assert_eq!(
            wanted(target, &pods, &metrics),
            Ok((3, Some(60))),
            "it would turn"
        );
        // One without metrics counts as busy when fewer are wanted, as idle when more are.
        let pods = ["a", "b", "c"].map(running);
        let metrics = [uses("a", "10m"), uses("b", "10m")];
        assert_eq!(wanted(target, &pods, &metrics), Ok((3, Some(10))));
        let metrics = [uses("a", "100m"), uses("b", "100m")];
        assert_eq!(wanted(target, &pods, &metrics), Ok((4, Some(100))));
    }

    #[test]
    fn one_value_for_all_of_them_is_divided_or_compared() {
        let wanted = |value, target| for_value((4, 3), value, target, USUAL).replicas;
        assert_eq!(wanted(10_500, ValueTarget::Value(10_000)), 4);
        assert_eq!(wanted(20_000, ValueTarget::Value(10_000)), 6);
        assert_eq!(wanted(2_000, ValueTarget::Value(10_000)), 1);
        assert_eq!(wanted(41_000, ValueTarget::AverageValue(10_000)), 4);
        assert_eq!(wanted(61_000, ValueTarget::AverageValue(10_000)), 7);
        let pods = ["a", "b"].map(running);
        let values = [("a".to_owned(), 5_000), ("b".to_owned(), 7_000)].into();
        let now = NOW.parse().unwrap();
        let found = for_pods(2, values, 2_000, USUAL, &pods, now).unwrap();
        assert_eq!((found.replicas, found.average), (6, 6_000));
    }

    #[test]
    fn what_cannot_be_told_is_said_in_upstreams_words() {
        let target = Target::Utilization(50);
        let pods = [running("a")];
        let refused =
            |pods: &[Arc<Pod>], metrics: &[PodMetrics]| wanted(target, pods, metrics).unwrap_err();
        assert_eq!(
            refused(&pods, &[]),
            "unable to get metrics for resource cpu: no metrics returned from resource metrics API"
        );
        assert_eq!(
            refused(&[], &[uses("a", "1m")]),
            "no pods returned by selector while calculating replica count"
        );
        let young = [pod("a", "Running", false, NOW)];
        let mut starting = (*young[0]).clone();
        starting.started = NOW.parse().ok();
        assert_eq!(
            refused(&[Arc::new(starting)], &[uses("a", "1m")]),
            "did not receive metrics for targeted pods (pods might be unready)"
        );
        let mut silent = (*running("a")).clone();
        silent.requests[0].cpu = None;
        assert_eq!(
            refused(&[Arc::new(silent)], &[uses("a", "1m")]),
            "missing request for cpu in container a of Pod a"
        );
    }
}
