//! Pods that wait for a node.
//!
//! ```text
//!   new ──> active ──take──> in flight ──bound──> (gone)
//!             ^  ^               │
//!             │  └── back-off <──┤ binding failed
//!             │         ^        │
//!             └─────────┴── unschedulable <── no node fits
//!                 an event that may help
//! ```
//!
//! Active pods go by priority, then first come first served. The back-off after an attempt is 1 s and
//! doubles up to 10 s. A pod that fits nowhere waits, without a timer, for an event that one of the
//! filters that refused it says may help; events that none of these filters hears cost nothing.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::event::Event;
use super::plugins::{Filter, PLUGINS, position};
use super::pod_info::PodInfo;
use crate::controllers::runtime::metadata::Metadata;

const FIRST_BACK_OFF: Duration = Duration::from_secs(1);
const LAST_BACK_OFF: Duration = Duration::from_secs(10);

/// A set of filters, by their positions in [`PLUGINS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Filters(u32);

const _: () = assert!(PLUGINS.len() <= 32, "a set of filters is 32 bits wide");

impl Filters {
    /// The filter of that name alone.
    pub(super) fn of(name: &str) -> Self {
        let mut filters = Self::default();
        position(name).into_iter().for_each(|at| filters.insert(at));
        filters
    }

    pub(super) fn insert(&mut self, position: usize) {
        self.0 |= 1 << position;
    }

    fn positions(self) -> impl Iterator<Item = usize> {
        (0..PLUGINS.len()).filter(move |at| self.0 & (1 << at) != 0)
    }

    pub(super) fn filters(self) -> impl Iterator<Item = &'static dyn Filter> {
        self.positions().filter_map(|at| PLUGINS.get(at)?.filter)
    }

    fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

#[derive(Debug)]
struct Entry {
    pod: Arc<PodInfo>,
    attempts: u32,
    last: Instant,
    place: Place,
    arrival: u64,
}

#[derive(Debug)]
enum Place {
    Active,
    InFlight,
    BackOff(Instant),
    Unschedulable { refused_by: Filters },
}

type Rank = (Reverse<i32>, u64);

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Queue {
    entries: HashMap<String, Entry>,
    active: BTreeMap<Rank, String>,
    waiting: BTreeSet<(Instant, String)>,
    unschedulable: HashSet<String>,
    /// How many unschedulable pods each filter refused.
    refused_by: [usize; PLUGINS.len()],
    arrivals: u64,
}

impl Entry {
    fn rank(&self) -> Rank {
        (Reverse(self.pod.wants.priority), self.arrival)
    }

    fn ready_at(&self) -> Instant {
        let doubled =
            FIRST_BACK_OFF.saturating_mul(2_u32.saturating_pow(self.attempts.saturating_sub(1)));
        self.last + doubled.min(LAST_BACK_OFF)
    }
}

impl Queue {
    /// A pod waits, or one that does has changed.
    pub(super) fn put(&mut self, pod: &Arc<PodInfo>, now: Instant) {
        let uid = pod.metadata.uid().to_owned();
        let Some(mut entry) = self.detach(&uid) else {
            self.arrivals += 1;
            let entry = Entry {
                pod: Arc::clone(pod),
                attempts: 0,
                last: now,
                place: Place::Active,
                arrival: self.arrivals,
            };
            return self.attach(uid, entry);
        };
        let changed = !entry.pod.is_alike(pod);
        entry.pod = Arc::clone(pod);
        if changed && matches!(entry.place, Place::Unschedulable { .. }) {
            entry.place = Place::BackOff(entry.ready_at());
        }
        self.attach(uid, entry);
    }

    /// A pod waits no longer.
    pub(super) fn remove(&mut self, uid: &str) {
        self.detach(uid);
    }

    /// The next pod, counted as in flight from now on.
    pub(super) fn take(&mut self, now: Instant) -> Option<Arc<PodInfo>> {
        self.release(now);
        let (_, uid) = self.active.pop_first()?;
        let entry = self.entries.get_mut(&uid)?;
        entry.place = Place::InFlight;
        entry.attempts = entry.attempts.saturating_add(1);
        entry.last = now;
        Some(Arc::clone(&entry.pod))
    }

    /// When the next pod will be active, if none is.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.waiting.first().map(|(due, _)| *due)
    }

    /// No node fits the pod, because of these filters.
    pub(super) fn unschedulable(&mut self, uid: &str, refused_by: Filters) {
        self.move_to(uid, |_| Place::Unschedulable { refused_by });
    }

    /// The pod's binding failed: again after a while.
    pub(super) fn back_off(&mut self, uid: &str) {
        self.move_to(uid, |entry| Place::BackOff(entry.ready_at()));
    }

    /// Something happened: those it may help try again. Whether there are any.
    pub(super) fn wake(&mut self, event: Event<'_>) -> bool {
        let mut hearing = Filters::default();
        for (at, plugin) in PLUGINS.iter().enumerate() {
            let waits = self.refused_by.get(at).is_some_and(|count| *count > 0);
            if waits && plugin.filter.is_some_and(|filter| filter.hears(event)) {
                hearing.insert(at);
            }
        }
        if hearing == Filters::default() {
            return false;
        }
        let helped = self.unschedulable.iter().filter(|uid| {
            let Some(entry) = self.entries.get(*uid) else {
                return false;
            };
            let Place::Unschedulable { refused_by } = entry.place else {
                return false;
            };
            refused_by.intersects(hearing)
                && refused_by
                    .filters()
                    .any(|filter| filter.hears(event) && filter.may_help(&entry.pod, event))
        });
        let helped: Vec<_> = helped.cloned().collect();
        for uid in &helped {
            self.back_off(uid);
        }
        !helped.is_empty()
    }

    fn move_to(&mut self, uid: &str, place: impl FnOnce(&Entry) -> Place) {
        if let Some(mut entry) = self.detach(uid) {
            entry.place = place(&entry);
            self.attach(uid.to_owned(), entry);
        }
    }

    fn release(&mut self, now: Instant) {
        while let Some((due, uid)) = self.waiting.first().cloned()
            && due <= now
        {
            self.move_to(&uid, |_| Place::Active);
        }
    }

    fn detach(&mut self, uid: &str) -> Option<Entry> {
        let entry = self.entries.remove(uid)?;
        match &entry.place {
            Place::Active => {
                self.active.remove(&entry.rank());
            }
            Place::BackOff(due) => {
                self.waiting.remove(&(*due, uid.to_owned()));
            }
            Place::Unschedulable { refused_by } => {
                self.unschedulable.remove(uid);
                self.count(*refused_by, |count| count.saturating_sub(1));
            }
            Place::InFlight => {}
        }
        Some(entry)
    }

    fn attach(&mut self, uid: String, entry: Entry) {
        match &entry.place {
            Place::Active => {
                self.active.insert(entry.rank(), uid.clone());
            }
            Place::BackOff(due) => {
                self.waiting.insert((*due, uid.clone()));
            }
            Place::Unschedulable { refused_by } => {
                self.unschedulable.insert(uid.clone());
                self.count(*refused_by, |count| count + 1);
            }
            Place::InFlight => {}
        }
        self.entries.insert(uid, entry);
    }

    fn count(&mut self, filters: Filters, change: impl Fn(usize) -> usize) {
        for at in filters.positions() {
            if let Some(count) = self.refused_by.get_mut(at) {
                *count = change(*count);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::snapshot::NodeFacts;
    use serde_json::json;

    fn pod(uid: &str, priority: i32) -> Arc<PodInfo> {
        let mut pod = PodInfo {
            metadata: serde_json::from_value(json!({"name": uid, "uid": uid})).unwrap(),
            ..PodInfo::default()
        };
        pod.wants.priority = priority;
        Arc::new(pod)
    }

    fn take(queue: &mut Queue, now: Instant) -> Option<String> {
        queue.take(now).map(|pod| pod.metadata.uid().to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn pods_go_by_priority_and_then_in_order() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for (uid, priority) in [("a", 0), ("b", 5), ("c", 0), ("d", 5)] {
            queue.put(&pod(uid, priority), now);
        }
        queue.put(&pod("c", 9), now);
        queue.remove("d");
        let order: Vec<_> = std::iter::from_fn(|| take(&mut queue, now)).collect();
        assert_eq!(order, ["c", "b", "a"]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_unschedulable_pod_waits_for_what_may_help_and_then_backs_off() {
        let (mut queue, start) = (Queue::default(), Instant::now());
        queue.put(&pod("a", 0), start);
        for back_off in [1, 2, 4, 8, 10, 10] {
            let now = queue.next_due().unwrap_or(start);
            assert_eq!(take(&mut queue, now).as_deref(), Some("a"));
            queue.unschedulable("a", Filters::of("NodeName"));
            queue.put(&pod("a", 0), now);
            assert!(!queue.wake(Event::PodGone(&PodInfo::default())));
            assert_eq!(queue.next_due(), None);
            let node = NodeFacts::default();
            assert!(queue.wake(Event::Node {
                old: None,
                new: &node
            }));
            assert_eq!(queue.next_due(), Some(now + Duration::from_secs(back_off)));
            assert_eq!(take(&mut queue, now), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_in_flight_is_not_handed_out_again() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.put(&pod("a", 0), now);
        assert!(take(&mut queue, now).is_some());
        queue.put(&pod("a", 0), now);
        assert_eq!(take(&mut queue, now), None);
        queue.back_off("a");
        assert!(take(&mut queue, now + FIRST_BACK_OFF).is_some());
    }
}
