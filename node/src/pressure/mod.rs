//! A node that runs low on memory or disk: it says so, takes no pods that would make it worse, and evicts.
//!
//! 1. Every ten seconds the machine is looked at ([`look`]) and compared with [`Thresholds`].
//! 2. A resource that is below its threshold, or was within five minutes, is a condition of the Node
//!    (`MemoryPressure`, `DiskPressure`); pods come back slowly, not at the first free megabyte.
//! 3. While it is below, one pod at a time is evicted; [`plan`] says which.
//!
//! Differs from Kubernetes: soft thresholds and those of inodes and process numbers are not known; wasm pods have no
//! processes.

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use windlass_api::quantity::Quantity;

use crate::pods::{KnownPods, NodeContext};

mod plan;

use plan::Uses;

/// How often the machine is looked at.
const PERIOD: Duration = Duration::from_secs(10);
/// How long a resource counts as scarce after it was last below its threshold.
const TRANSITION: Duration = Duration::from_secs(300);

/// Which resources are scarce.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pressure {
    pub(crate) memory: bool,
    pub(crate) disk: bool,
}

/// A resource that can be scarce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scarce {
    Memory,
    Disk,
}

impl Scarce {
    /// As kubelet's messages call it.
    const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "ephemeral-storage",
        }
    }
}

/// An eviction, for the pods' dispatcher.
#[derive(Debug)]
pub(crate) struct Eviction {
    /// `metadata.uid` of the pod.
    pub(crate) uid: String,
    /// Why, for its status.
    pub(crate) message: String,
}

/// How much must be left of a resource.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Least {
    Bytes(u64),
    Percent(f64),
}

impl Least {
    fn of(self, total: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_precision_loss,
                clippy::cast_sign_loss,
                reason = "a share of a size that is not exact to the byte"
            )]
            Self::Percent(percent) => (total as f64 * percent / 100.0) as u64,
        }
    }
}

/// What must be left free on a node, as kubelet's `--eviction-hard` writes it: `memory.available<100Mi,nodefs.available<5%`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    memory: Option<Least>,
    disk: Option<Least>,
}

impl Default for Thresholds {
    /// 100 MiB of memory, and 1 GiB of the disk that holds the agent's directory: enough for the machine to go on.
    fn default() -> Self {
        Self {
            memory: Some(Least::Bytes(100 << 20)),
            disk: Some(Least::Bytes(1 << 30)),
        }
    }
}

/// A text that names no thresholds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a threshold: expected memory.available or nodefs.available, <, and a quantity or percentage"
)]
pub struct ThresholdError {
    text: String,
}

impl FromStr for Thresholds {
    type Err = ThresholdError;

    /// What is not named has no threshold.
    fn from_str(text: &str) -> Result<Self, ThresholdError> {
        let mut thresholds = Self {
            memory: None,
            disk: None,
        };
        for term in text
            .split(',')
            .map(str::trim)
            .filter(|term| !term.is_empty())
        {
            let wrong = || ThresholdError {
                text: term.to_owned(),
            };
            let (signal, least) = term.split_once('<').ok_or_else(wrong)?;
            let least = least_of(least.trim()).ok_or_else(wrong)?;
            match signal.trim() {
                "memory.available" => thresholds.memory = Some(least),
                "nodefs.available" => thresholds.disk = Some(least),
                _ => return Err(wrong()),
            }
        }
        Ok(thresholds)
    }
}

fn least_of(text: &str) -> Option<Least> {
    if let Some(percent) = text.strip_suffix('%') {
        let percent = percent.parse::<f64>().ok()?;
        return (0.0..100.0)
            .contains(&percent)
            .then_some(Least::Percent(percent));
    }
    let quantity = text.parse::<Quantity>().ok()?;
    u64::try_from(quantity.units()).ok().map(Least::Bytes)
}

/// What a machine has, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Left {
    available: u64,
    total: u64,
}

/// What was seen of a machine; what can't be found out is not scarce.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    memory: Option<Left>,
    disk: Option<Left>,
}

fn look(directory: &Path) -> Seen {
    let memory = |name| crate::registration::meminfo(name).and_then(|it| u64::try_from(it).ok());
    let disk = rustix::fs::statvfs(directory).ok();
    Seen {
        memory: memory("MemAvailable")
            .zip(memory("MemTotal"))
            .map(|(available, total)| Left { available, total }),
        disk: disk.map(|found| Left {
            available: found.f_bavail.saturating_mul(found.f_frsize),
            total: found.f_blocks.saturating_mul(found.f_frsize),
        }),
    }
}

/// Remembers how long ago resources were scarce.
#[derive(Debug)]
struct Monitor {
    thresholds: Thresholds,
    memory: Option<Instant>,
    disk: Option<Instant>,
}

/// A resource that is below its threshold now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Below {
    what: Scarce,
    available: u64,
    threshold: u64,
}

impl Monitor {
    const fn new(thresholds: Thresholds) -> Self {
        Self {
            thresholds,
            memory: None,
            disk: None,
        }
    }

    /// What is below its threshold now, and what counts as scarce.
    fn take(&mut self, seen: Seen, now: Instant) -> (Vec<Below>, Pressure) {
        let mut below = Vec::new();
        let mut is_scarce =
            |what, least: Option<Least>, left: Option<Left>, last: &mut Option<Instant>| {
                if let (Some(least), Some(left)) = (least, left) {
                    let threshold = least.of(left.total);
                    if left.available < threshold {
                        *last = Some(now);
                        below.push(Below {
                            what,
                            available: left.available,
                            threshold,
                        });
                    }
                }
                last.is_some_and(|last| now.duration_since(last) < TRANSITION)
            };
        let Thresholds { memory, disk } = self.thresholds;
        let pressure = Pressure {
            memory: is_scarce(Scarce::Memory, memory, seen.memory, &mut self.memory),
            disk: is_scarce(Scarce::Disk, disk, seen.disk, &mut self.disk),
        };
        (below, pressure)
    }
}

/// Watches over the machine until dropped.
pub(crate) async fn run(
    context: Arc<NodeContext>,
    known: KnownPods,
    thresholds: Thresholds,
    pressure: watch::Sender<Pressure>,
    evictions: mpsc::UnboundedSender<Eviction>,
) {
    let mut monitor = Monitor::new(thresholds);
    loop {
        tokio::time::sleep(PERIOD).await;
        let directory = context.data_dir.clone();
        let Ok(seen) = tokio::task::spawn_blocking(move || look(&directory)).await else {
            continue;
        };
        let (below, now) = monitor.take(seen, Instant::now());
        pressure.send_if_modified(|before| std::mem::replace(before, now) != now);
        let Some(below) = below.first() else {
            continue;
        };
        let uses = uses(&context, &known, below.what).await;
        match plan::victim(below, &known.all(), &uses) {
            Some(eviction) => {
                tracing::warn!(pod = eviction.uid, eviction.message, "a pod is evicted");
                // The dispatcher is gone only when the agent is.
                let _ = evictions.send(eviction);
            }
            None => tracing::warn!(
                ?below,
                "the node runs low, and no pod can be evicted for it"
            ),
        }
    }
}

/// What the pods use of the resource.
async fn uses(context: &Arc<NodeContext>, known: &KnownPods, what: Scarce) -> Uses {
    let (context, pods) = (context.clone(), known.all());
    let of_pod = move |pod: &Pod| {
        let identity = NodeContext::identity(pod);
        let running = context.containers.of_pod(&identity.uid).into_iter();
        let mut used: BTreeMap<String, u64> = match what {
            Scarce::Memory => running
                .map(|(name, container)| (name, container.usage().memory_bytes))
                .collect(),
            Scarce::Disk => running
                .map(|(name, _)| (name.clone(), context.logs_of(&identity, &name)))
                .collect(),
        };
        if what == Scarce::Disk {
            used.insert(String::new(), context.volumes_of(&identity));
        }
        (identity.uid, used)
    };
    let measured =
        tokio::task::spawn_blocking(move || pods.iter().map(|pod| of_pod(pod)).collect());
    measured.await.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_written_as_for_kubelet() {
        let read: Thresholds = "memory.available<100Mi, nodefs.available<10%"
            .parse()
            .unwrap();
        assert_eq!(read.memory, Some(Least::Bytes(100 << 20)));
        assert_eq!(read.disk.unwrap().of(1000), 100);
        let none: Thresholds = "".parse().unwrap();
        assert_eq!((none.memory, none.disk), (None, None));
        for wrong in [
            "memory.available",
            "pid.available<10%",
            "memory.available<x",
            "nodefs.available<100%",
        ] {
            assert!(wrong.parse::<Thresholds>().is_err(), "{wrong}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_scarce_counts_so_for_a_while() {
        let mut monitor = Monitor::new("memory.available<100".parse().unwrap());
        let seen = |available| Seen {
            memory: Some(Left {
                available,
                total: 1000,
            }),
            disk: None,
        };
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        for (seconds, available, below, scarce) in [
            (0, 100, false, false),
            (10, 99, true, true),
            (20, 100, false, true),
            (300, 100, false, true),
            (311, 100, false, false),
        ] {
            let (found, pressure) = monitor.take(seen(available), at(seconds));
            assert_eq!(!found.is_empty(), below, "{seconds}");
            assert_eq!(pressure.memory, scarce, "{seconds}");
            assert!(!pressure.disk);
        }
    }

    #[test]
    fn this_machine_can_be_looked_at() {
        let seen = look(Path::new("/"));
        assert!(seen.memory.is_some_and(|left| left.available <= left.total));
        assert!(seen.disk.is_some_and(|left| left.available <= left.total));
    }
}
