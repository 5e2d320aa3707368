//! What the pods of this node were promised, and whether another one fits.
//!
//! The scheduler counts too, but from an older look at the cluster, and whoever names a node in a pod goes around it. So
//! the node refuses what does not fit, as kubelet does, and the pod says why.
//!
//! Invariant: totals are kept, not added up: a pod costs the same among ten as among ten thousand.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;
use windlass_api::pod_resources::{self, QosClass};

use crate::pressure::Pressure;
use crate::registration::Machine;
use crate::status::reason::EventReason;

/// What a pod asks for, or a node has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Amounts {
    cpu_millis: i64,
    memory_bytes: i64,
}

/// What was missing for a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shortage {
    /// Reason of the pod's status, and of the event.
    pub(crate) reason: EventReason,
    /// Name of the resource: `cpu`, `memory`, `pods`.
    pub(crate) resource: &'static str,
    pub(crate) requested: i64,
    pub(crate) used: i64,
    pub(crate) capacity: i64,
}

impl Shortage {
    /// In the words of kubelet.
    pub(crate) fn message(&self) -> String {
        let Self {
            resource,
            requested,
            used,
            capacity,
            ..
        } = self;
        format!(
            "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, \
             capacity: {capacity}"
        )
    }

    /// Whether it would not even fit alone.
    pub(crate) const fn is_for_ever(&self) -> bool {
        self.requested > self.capacity
    }
}

/// Why the node does not take a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Reason of the pod's status, and of the event.
    pub(crate) reason: EventReason,
    pub(crate) message: String,
}

impl From<Shortage> for Refusal {
    fn from(shortage: Shortage) -> Self {
        Self {
            reason: shortage.reason,
            message: shortage.message(),
        }
    }
}

/// A node under pressure takes no pods that would make it worse: of memory, those that promise nothing.
pub(crate) fn refused_under(pressure: Pressure, pod: &Pod) -> Option<Refusal> {
    let best_effort = pod
        .spec
        .as_ref()
        .is_some_and(|spec| pod_resources::qos_class(spec) == QosClass::BestEffort);
    let condition = match pressure {
        Pressure { disk: true, .. } => "DiskPressure",
        Pressure {
            processes: true, ..
        } => "PIDPressure",
        Pressure { memory: true, .. } if best_effort => "MemoryPressure",
        _ => return None,
    };
    Some(Refusal {
        reason: EventReason::Evicted,
        message: format!("The node had condition: [{condition}]. "),
    })
}

/// The room on a node; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Room(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    capacity: Amounts,
    max_pods: i64,
    taken: Mutex<Taken>,
    freed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Taken {
    by_pod: HashMap<String, Amounts>,
    total: Amounts,
}

impl Room {
    /// All of a machine.
    pub(crate) fn of(machine: &Machine) -> Self {
        Self(Arc::new(Inner {
            capacity: Amounts {
                cpu_millis: machine.cpu_millis,
                memory_bytes: machine.memory_bytes,
            },
            max_pods: machine.max_pods.into(),
            taken: Mutex::default(),
            freed: watch::Sender::new(()),
        }))
    }

    /// Takes what the pod asks for, in place of what it had before.
    pub(crate) fn take(&self, uid: &str, pod: &Pod) -> Result<(), Shortage> {
        let wanted = requests(pod);
        let mut taken = self.lock();
        let before = taken.by_pod.get(uid).copied();
        let own = before.unwrap_or_default();
        let others = Amounts {
            cpu_millis: taken.total.cpu_millis - own.cpu_millis,
            memory_bytes: taken.total.memory_bytes - own.memory_bytes,
        };
        let pods = i64::try_from(taken.by_pod.len()).unwrap_or(i64::MAX);
        let pods = pods - i64::from(before.is_some());
        let (inner, capacity) = (&self.0, self.0.capacity);
        for (reason, resource, requested, used, capacity) in [
            (EventReason::OutOfPods, "pods", 1, pods, inner.max_pods),
            (
                EventReason::OutOfCpu,
                "cpu",
                wanted.cpu_millis,
                others.cpu_millis,
                capacity.cpu_millis,
            ),
            (
                EventReason::OutOfMemory,
                "memory",
                wanted.memory_bytes,
                others.memory_bytes,
                capacity.memory_bytes,
            ),
        ] {
            if requested > 0 && requested > capacity - used {
                return Err(Shortage {
                    reason,
                    resource,
                    requested,
                    used,
                    capacity,
                });
            }
        }
        taken.total = Amounts {
            cpu_millis: others.cpu_millis + wanted.cpu_millis,
            memory_bytes: others.memory_bytes + wanted.memory_bytes,
        };
        taken.by_pod.insert(uid.to_owned(), wanted);
        drop(taken);
        if wanted.cpu_millis < own.cpu_millis || wanted.memory_bytes < own.memory_bytes {
            self.0.freed.send_replace(());
        }
        Ok(())
    }

    /// Gives back what the pod had.
    pub(crate) fn release(&self, uid: &str) {
        let mut taken = self.lock();
        let Some(had) = taken.by_pod.remove(uid) else {
            return;
        };
        taken.total.cpu_millis -= had.cpu_millis;
        taken.total.memory_bytes -= had.memory_bytes;
        drop(taken);
        self.0.freed.send_replace(());
    }

    /// Changes whenever there is more room than before.
    pub(crate) fn freed(&self) -> watch::Receiver<()> {
        self.0.freed.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn requests(pod: &Pod) -> Amounts {
    let requests = pod.spec.as_ref().map(pod_resources::requests);
    let requests = requests.unwrap_or_default();
    Amounts {
        cpu_millis: requests.get("cpu").map_or(0, |amount| amount.millis()),
        memory_bytes: requests.get("memory").map_or(0, |amount| amount.units()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn room() -> Room {
        let mut machine = Machine::inspect();
        (machine.cpu_millis, machine.memory_bytes) = (1000, 1 << 20);
        machine.max_pods = 3;
        Room::of(&machine)
    }

    fn pod(cpu: &str, memory: &str) -> Pod {
        let resources = json!({ "requests": { "cpu": cpu, "memory": memory } });
        let containers = json!([{ "name": "a", "resources": resources }]);
        serde_json::from_value(json!({ "spec": { "containers": containers } })).unwrap()
    }

    #[test]
    fn pods_are_taken_while_they_fit() {
        let room = room();
        room.take("a", &pod("600m", "0")).unwrap();
        let short = room.take("b", &pod("500m", "0")).unwrap_err();
        assert_eq!(
            (short.reason.as_str(), short.is_for_ever()),
            ("OutOfcpu", false)
        );
        assert_eq!(
            short.message(),
            "Node didn't have enough resource: cpu, requested: 500, used: 600, capacity: 1000"
        );
        let short = room.take("b", &pod("0", "2Mi")).unwrap_err();
        assert_eq!(
            (short.reason.as_str(), short.is_for_ever()),
            ("OutOfmemory", true)
        );
        room.take("b", &pod("0", "0")).unwrap();
        room.take("c", &pod("0", "0")).unwrap();
        let short = room.take("d", &pod("0", "0")).unwrap_err();
        assert_eq!(short.reason.as_str(), "OutOfpods");
        room.release("a");
        room.take("d", &pod("1", "1Mi")).unwrap();
    }

    #[test]
    fn a_node_under_pressure_takes_what_it_can_bear() {
        let (memory, disk, processes) = (true, true, true);
        let none = Pressure::default();
        for (pressure, best_effort, burstable) in [
            (none, None, None),
            (Pressure { memory, ..none }, Some("[MemoryPressure]"), None),
            (
                Pressure { disk, ..none },
                Some("[DiskPressure]"),
                Some("[DiskPressure]"),
            ),
            (
                Pressure { processes, ..none },
                Some("[PIDPressure]"),
                Some("[PIDPressure]"),
            ),
        ] {
            let empty = serde_json::from_value(json!({ "spec": { "containers": [] } })).unwrap();
            for (pod, wanted) in [(empty, best_effort), (pod("1m", "1"), burstable)] {
                let refused = refused_under(pressure, &pod).map(|refused| refused.message);
                let wanted = wanted.map(|of| format!("The node had condition: {of}. "));
                assert_eq!(refused, wanted);
            }
        }
    }

    #[test]
    fn a_pod_that_asks_anew_gives_back_what_it_had() {
        let room = room();
        room.take("a", &pod("600m", "0")).unwrap();
        let mut freed = room.freed();
        room.take("a", &pod("1", "0")).unwrap();
        assert!(!freed.has_changed().unwrap());
        assert!(room.take("a", &pod("1001m", "0")).is_err());
        room.take("a", &pod("1m", "0")).unwrap();
        assert!(freed.has_changed().unwrap());
        freed.mark_unchanged();
        room.release("a");
        assert!(freed.has_changed().unwrap());
    }
}
