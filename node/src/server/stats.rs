//! `GET /stats/summary`: what the node and its pods use of processors and memory, in the form of kubelet's
//! summary. What the API server makes metrics.k8s.io of.
//!
//! A rate needs two looks. Every request is one; the looks of the last minute are kept, and a rate is taken
//! against the newest that is old enough to say something, or else against the start. The time between the
//! two is told with the rate (`window`, which kubelet's summary does not have). Nobody looks while nobody
//! asks.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::DaemonState;
use super::container_logs::container_names;
use crate::runtime::Usage;

/// A rate over less than this says more about the moment than about the container.
const SHORTEST: Duration = Duration::from_secs(5);
/// Looks older than this are forgotten.
const LONGEST: Duration = Duration::from_secs(60);
/// Between two looks that are kept.
const APART: Duration = Duration::from_secs(1);

/// Earlier looks at processor time, by what was looked at.
#[derive(Clone, Default)]
pub(crate) struct Looks(Arc<Mutex<HashMap<Subject, VecDeque<Look>>>>);

/// The uid of a pod and the name of a container; both empty for the node.
type Subject = (String, String);

#[derive(Clone, Copy)]
struct Look {
    at: Instant,
    cpu_nanos: u64,
}

/// How fast processor time is used, and over which time that was found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rate {
    nanos_per_second: u64,
    window: Duration,
}

impl Look {
    fn at(at: Instant, used: Usage) -> Self {
        Self {
            at,
            cpu_nanos: used.cpu_nanos,
        }
    }
}

impl Looks {
    /// The rate until `now`. A container that was started anew has used less than before; what was seen
    /// of the old one counts for nothing.
    fn rate(&self, subject: Subject, now: Look, started: Option<Instant>) -> Rate {
        let mut looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let looks = looks.entry(subject).or_default();
        if looks
            .back()
            .is_some_and(|last| last.cpu_nanos > now.cpu_nanos)
        {
            looks.clear();
        }
        while looks.front().is_some_and(|look| now.at - look.at > LONGEST) {
            looks.pop_front();
        }
        let begin = started.map(|at| Look { at, cpu_nanos: 0 });
        let old_enough = looks.iter().rev().find(|look| now.at - look.at >= SHORTEST);
        let base = old_enough.copied().or(begin).or(looks.front().copied());
        if looks.back().is_none_or(|last| now.at - last.at >= APART) {
            looks.push_back(now);
        }
        base.map_or(
            Rate {
                nanos_per_second: 0,
                window: Duration::ZERO,
            },
            |base| Rate::between(base, now),
        )
    }

    /// Forgets what is not there any more.
    fn keep(&self, is_there: impl Fn(&Subject) -> bool) {
        let mut looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        looks.retain(|subject, _| is_there(subject));
    }
}

impl Rate {
    fn between(base: Look, now: Look) -> Self {
        let window = now.at - base.at;
        let used = u128::from(now.cpu_nanos - base.cpu_nanos);
        let rate = (used * 1_000_000_000).checked_div(window.as_nanos());
        Self {
            nanos_per_second: rate.and_then(|rate| u64::try_from(rate).ok()).unwrap_or(0),
            window,
        }
    }
}

pub(super) async fn serve(State(state): State<DaemonState>) -> Response {
    let (now, time) = (Instant::now(), Timestamp::now());
    let mut pods = Vec::new();
    let known = state.pods.all();
    for pod in &known {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let names = container_names(pod);
        let containers = names.filter_map(|name| {
            let (container, started) = state.containers.find_with_start(uid, name)?;
            let used = container.usage();
            let subject = (uid.to_owned(), name.to_owned());
            let rate = state
                .looks
                .rate(subject, Look::at(now, used), Some(started));
            Some(told(("name", name), time, used, rate))
        });
        let containers: Vec<_> = containers.collect();
        if containers.is_empty() {
            continue;
        }
        let metadata = &pod.metadata;
        pods.push(json!({
            "podRef": {"name": metadata.name, "namespace": metadata.namespace, "uid": uid},
            "startTime": pod.status.as_ref().and_then(|status| status.start_time.as_ref()),
            "containers": containers,
        }));
    }
    let uids = known.iter().filter_map(|pod| pod.metadata.uid.as_deref());
    let uids: HashSet<&str> = uids.collect();
    state
        .looks
        .keep(|(uid, _)| uid.is_empty() || uids.contains(uid.as_str()));
    let mut summary = json!({ "pods": pods });
    if let Some(used) = machine()
        && let Some(summary) = summary.as_object_mut()
    {
        let rate = state
            .looks
            .rate(Subject::default(), Look::at(now, used), None);
        let node = ("nodeName", &*state.node);
        summary.insert("node".into(), told(node, time, used, rate));
    }
    let json = [(header::CONTENT_TYPE, "application/json")];
    (json, summary.to_string()).into_response()
}

/// What is said of a container or of the node, under its name.
fn told((field, name): (&str, &str), time: Timestamp, used: Usage, rate: Rate) -> Value {
    let time = format!("{time:.3}");
    json!({
        field: name,
        "cpu": {
            "time": time, "usageCoreNanoSeconds": used.cpu_nanos,
            "usageNanoCores": rate.nanos_per_second,
            "window": format!("{:.3}s", rate.window.as_secs_f64()),
        },
        "memory": {
            "time": time, "usageBytes": used.memory_bytes, "workingSetBytes": used.memory_bytes,
        },
    })
}

/// Processor time and memory of the whole machine; `None` where /proc does not tell.
pub(super) fn machine() -> Option<Usage> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let memory = std::fs::read_to_string("/proc/meminfo").ok()?;
    Some(Usage {
        cpu_nanos: busy_nanos(&stat)?,
        memory_bytes: memory_in_use(&memory)?,
        processes: 0,
    })
}

/// All that processors did but wait. The times are in hundredths of a second on every architecture.
fn busy_nanos(stat: &str) -> Option<u64> {
    const TICK: u64 = 10_000_000;
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let times = line.split_whitespace().map(str::parse::<u64>);
    let times: Vec<u64> = times.collect::<Result<_, _>>().ok()?;
    // user nice system idle iowait irq softirq steal; guests are part of user.
    let waiting = times.get(3)? + times.get(4)?;
    let all: u64 = times.iter().take(8).sum();
    Some((all - waiting) * TICK)
}

fn memory_in_use(meminfo: &str) -> Option<u64> {
    let amount = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
        Some(kilobytes * 1024)
    };
    amount("MemTotal:")?.checked_sub(amount("MemAvailable:")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_taken_over_the_time_between_looks() {
        let looks = Looks::default();
        let begin = Instant::now();
        let look = |seconds: u64, cpu_nanos: u64| Look {
            at: begin + Duration::from_secs(seconds),
            cpu_nanos,
        };
        let rate = |look: Look| {
            let rate = looks.rate(("u".into(), "c".into()), look, Some(begin));
            (rate.nanos_per_second, rate.window.as_secs())
        };
        assert_eq!(rate(look(10, 1000)), (100, 10), "since the start");
        assert_eq!(rate(look(12, 1000)), (83, 12), "the last look is too close");
        assert_eq!(rate(look(20, 2000)), (125, 8));
        assert_eq!(rate(look(100, 2000)), (20, 100), "old looks are forgotten");
        assert_eq!(rate(look(110, 500)), (4, 110), "another container");
        looks.keep(|_| false);
        assert!(looks.0.lock().unwrap().is_empty());
    }

    #[test]
    fn what_the_machine_does_is_read_from_proc() {
        let stat = "cpu  100 0 50 900 50 0 0 0 0 0\ncpu0 1 1 1 1\n";
        assert_eq!(busy_nanos(stat), Some(1_500_000_000));
        let meminfo = "MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:  400 kB\n";
        assert_eq!(memory_in_use(meminfo), Some(600 * 1024));
        assert_eq!(busy_nanos("nothing"), None);
    }
}
