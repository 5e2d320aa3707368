//! A node that runs low on memory, disk, files or processes: it says so, takes no pods that would make it worse, and evicts.
//!
//! 1. Every ten seconds the machine is looked at ([`look`]) and compared with [`Thresholds`].
//! 2. A resource that is below its threshold, or was within five minutes, is a condition of the Node
//!    (`MemoryPressure`, `DiskPressure`, `PIDPressure`); pods come back slowly, not at the first free megabyte.
//! 3. While it is below, one pod at a time is evicted; [`plan`] says which.
//!
//! Differs from Kubernetes: soft thresholds are not known, and images are on the disk that `nodefs` means.

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use windlass_api::quantity::Quantity;

use crate::pods::{DiskUse, KnownPods, NodeContext};

mod plan;

use plan::Uses;

/// How often the machine is looked at.
const PERIOD: Duration = Duration::from_secs(10);
/// How long a resource counts as scarce after it was last below its threshold.
const TRANSITION: Duration = Duration::from_secs(300);

/// Which conditions the node has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pressure {
    pub(crate) memory: bool,
    pub(crate) disk: bool,
    pub(crate) processes: bool,
}

/// A resource that can be scarce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scarce {
    Memory,
    Disk,
    Inodes,
    Processes,
}

/// Each resource with its signal in `--eviction-hard` and its name in kubelet's messages.
const RESOURCES: [(Scarce, &str, &str); 4] = [
    (Scarce::Memory, "memory.available", "memory"),
    (Scarce::Disk, "nodefs.available", "ephemeral-storage"),
    (Scarce::Inodes, "nodefs.inodesFree", "inodes"),
    (Scarce::Processes, "pid.available", "pids"),
];

/// Something of each resource, in the order of [`RESOURCES`].
type OfEach<T> = [T; RESOURCES.len()];

impl Scarce {
    /// As kubelet's messages call it.
    fn name(self) -> &'static str {
        let mut all = RESOURCES.iter();
        all.find(|(what, _, _)| *what == self)
            .map_or("", |(_, _, name)| name)
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
    Amount(u64),
    Percent(f64),
}

impl Least {
    fn of(self, total: u64) -> u64 {
        match self {
            Self::Amount(amount) => amount,
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_precision_loss,
                clippy::cast_sign_loss,
                reason = "a share of an amount that is not exact"
            )]
            Self::Percent(percent) => (total as f64 * percent / 100.0) as u64,
        }
    }
}

/// What must be left free on a node, as kubelet's `--eviction-hard` writes it: `memory.available<100Mi,nodefs.available<5%`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds(OfEach<Option<Least>>);

impl Default for Thresholds {
    /// 100 MiB of memory; of the disk that holds the agent's directory 1 GiB, enough for the machine to go on, and of its
    /// files 5 %. None of processes.
    fn default() -> Self {
        Self([
            Some(Least::Amount(100 << 20)),
            Some(Least::Amount(1 << 30)),
            Some(Least::Percent(5.0)),
            None,
        ])
    }
}

/// A text that names no thresholds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a threshold: expected {}, then <, and a quantity or percentage",
    RESOURCES.map(|(_, signal, _)| signal).join(" or ")
)]
pub struct ThresholdError {
    text: String,
}

impl FromStr for Thresholds {
    type Err = ThresholdError;

    /// What is not named has no threshold.
    fn from_str(text: &str) -> Result<Self, ThresholdError> {
        let mut thresholds = Self(Default::default());
        let terms = text.split(',').map(str::trim);
        for term in terms.filter(|term| !term.is_empty()) {
            let wrong = || ThresholdError {
                text: term.to_owned(),
            };
            let (signal, least) = term.split_once('<').ok_or_else(wrong)?;
            let least = least_of(least.trim()).ok_or_else(wrong)?;
            let mut all = thresholds.0.iter_mut().zip(RESOURCES);
            let found = all.find(|(_, (_, known, _))| *known == signal.trim());
            *found.ok_or_else(wrong)?.0 = Some(least);
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
    u64::try_from(quantity.units()).ok().map(Least::Amount)
}

/// What a machine has of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Left {
    available: u64,
    total: u64,
}

/// What was seen of a machine; what can't be found out is not scarce.
type Seen = OfEach<Option<Left>>;

fn look(directory: &Path) -> Seen {
    let memory = |name| crate::registration::meminfo(name).and_then(|it| u64::try_from(it).ok());
    let memory = memory("MemAvailable").zip(memory("MemTotal"));
    let memory = memory.map(|(available, total)| Left { available, total });
    let found = rustix::fs::statvfs(directory).ok();
    let disk = found.as_ref().map(|found| Left {
        available: found.f_bavail.saturating_mul(found.f_frsize),
        total: found.f_blocks.saturating_mul(found.f_frsize),
    });
    // File systems that make inodes as they are needed say that they have none.
    let inodes = found.filter(|found| found.f_files > 0).map(|found| Left {
        available: found.f_favail,
        total: found.f_files,
    });
    [memory, disk, inodes, processes()]
}

/// Processes and threads that the machine may still start.
fn processes() -> Option<Left> {
    let number = |path: &str| {
        std::fs::read_to_string(path)
            .ok()?
            .trim()
            .parse::<u64>()
            .ok()
    };
    let kernel = ["pid_max", "threads-max"].map(|name| number(&format!("/proc/sys/kernel/{name}")));
    let total = kernel.into_iter().flatten().min()?;
    // Spec: proc_loadavg(5): the fourth field is RUNNING/ALL.
    let load = std::fs::read_to_string("/proc/loadavg").ok()?;
    let (_, all) = load.split(' ').nth(3)?.split_once('/')?;
    let available = total.saturating_sub(all.parse().ok()?);
    Some(Left { available, total })
}

/// Remembers how long ago resources were scarce.
#[derive(Debug)]
struct Monitor {
    thresholds: Thresholds,
    last: OfEach<Option<Instant>>,
}

/// A resource that is below its threshold now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Below {
    what: Scarce,
    available: u64,
    threshold: u64,
}

impl Monitor {
    fn new(thresholds: Thresholds) -> Self {
        Self {
            thresholds,
            last: OfEach::default(),
        }
    }

    /// What is below its threshold now, and which conditions follow.
    fn take(&mut self, seen: Seen, now: Instant) -> (Vec<Below>, Pressure) {
        let mut below = Vec::new();
        let mut pressure = Pressure::default();
        let all = RESOURCES.iter().zip(self.thresholds.0).zip(seen);
        for ((((what, _, _), least), left), last) in all.zip(&mut self.last) {
            if let (Some(least), Some(left)) = (least, left) {
                let threshold = least.of(left.total);
                if left.available < threshold {
                    *last = Some(now);
                    below.push(Below {
                        what: *what,
                        available: left.available,
                        threshold,
                    });
                }
            }
            let condition = match what {
                Scarce::Memory => &mut pressure.memory,
                Scarce::Disk | Scarce::Inodes => &mut pressure.disk,
                Scarce::Processes => &mut pressure.processes,
            };
            *condition |= last.is_some_and(|last| now.duration_since(last) < TRANSITION);
        }
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
    let measured = tokio::task::spawn_blocking(move || {
        pods.iter().map(|pod| used(&context, pod, what)).collect()
    });
    measured.await.unwrap_or_default()
}

/// What a pod uses of the resource; what belongs to no container of its is under no name.
fn used(context: &NodeContext, pod: &Pod, what: Scarce) -> (String, BTreeMap<String, u64>) {
    let identity = NodeContext::identity(pod);
    let running = context.containers.of_pod(&identity.uid).into_iter();
    let on_disk = |directory: &Path| {
        let kept = DiskUse::of(directory);
        match what {
            Scarce::Inodes => kept.files,
            _ => kept.bytes,
        }
    };
    let mut used: BTreeMap<String, u64> = running
        .map(|(name, container)| {
            let used = match what {
                Scarce::Memory => container.usage().memory_bytes,
                Scarce::Processes => container.usage().processes,
                Scarce::Disk | Scarce::Inodes => on_disk(&context.logs.directory(&identity, &name)),
            };
            (name, used)
        })
        .collect();
    if matches!(what, Scarce::Disk | Scarce::Inodes) {
        used.insert(
            String::new(),
            on_disk(&context.volumes_directory(&identity)),
        );
    }
    (identity.uid, used)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(what: Scarce, left: Left) -> Seen {
        RESOURCES.map(|(resource, _, _)| (resource == what).then_some(left))
    }

    #[test]
    fn thresholds_are_written_as_for_kubelet() {
        let text =
            "memory.available<100Mi, nodefs.available<10%,nodefs.inodesFree<5%,pid.available<1k";
        let Thresholds(read) = text.parse().unwrap();
        assert_eq!(read[0], Some(Least::Amount(100 << 20)));
        assert_eq!(read[1].unwrap().of(1000), 100);
        assert_eq!(read[2].unwrap().of(1000), 50);
        assert_eq!(read[3], Some(Least::Amount(1000)));
        let none: Thresholds = "".parse().unwrap();
        assert_eq!(none.0, [None; 4]);
        for wrong in [
            "memory.available",
            "imagefs.available<10%",
            "memory.available<x",
            "nodefs.available<100%",
        ] {
            let error = wrong.parse::<Thresholds>().unwrap_err().to_string();
            assert!(
                error.contains("nodefs.inodesFree or pid.available"),
                "{error}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_scarce_counts_so_for_a_while() {
        let mut monitor = Monitor::new("memory.available<100".parse().unwrap());
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        for (seconds, available, below, scarce) in [
            (0, 100, false, false),
            (10, 99, true, true),
            (20, 100, false, true),
            (300, 100, false, true),
            (311, 100, false, false),
        ] {
            let left = Left {
                available,
                total: 1000,
            };
            let (found, pressure) = monitor.take(only(Scarce::Memory, left), at(seconds));
            assert_eq!(!found.is_empty(), below, "{seconds}");
            assert_eq!(pressure.memory, scarce, "{seconds}");
            assert!(!pressure.disk);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_resource_has_its_condition() {
        let (memory, disk, processes) = (true, true, true);
        let none = Pressure::default();
        for (what, wanted) in [
            (Scarce::Memory, Pressure { memory, ..none }),
            (Scarce::Disk, Pressure { disk, ..none }),
            (Scarce::Inodes, Pressure { disk, ..none }),
            (Scarce::Processes, Pressure { processes, ..none }),
        ] {
            let all = RESOURCES.map(|(_, signal, _)| format!("{signal}<10"));
            let mut monitor = Monitor::new(all.join(",").parse().unwrap());
            let left = Left {
                available: 9,
                total: 1000,
            };
            let (below, pressure) = monitor.take(only(what, left), Instant::now());
            assert_eq!(pressure, wanted, "{what:?}");
            let below: Vec<_> = below.iter().map(|below| below.what).collect();
            assert_eq!(below, [what]);
        }
    }

    #[test]
    fn this_machine_can_be_looked_at() {
        let [memory, disk, _, processes] = look(Path::new("/"));
        for left in [memory, disk, processes] {
            assert!(left.is_some_and(|left| left.available <= left.total));
        }
    }
}
