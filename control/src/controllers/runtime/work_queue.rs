//! Keys that wait for work.
//!
//! A key is queued at most once; one that is added while a worker has it runs again afterwards, never
//! at the same time. A key may be put off until a due time, and a key that failed waits longer each
//! time until it is forgiven. Workers sleep until there is a key or the next one is due: nothing polls.
//! When the wall clock jumps, every key that was put off runs at once, as its due time has to be found anew.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::clock::Clock;

const FIRST_RETRY: Duration = Duration::from_millis(5);
const LAST_RETRY: Duration = Duration::from_secs(300);

/// A queue of keys.
#[derive(Debug)]
pub struct WorkQueue<K: Ord> {
    inner: Mutex<Inner<K>>,
    changed: Notify,
    clock: Clock,
}

#[derive(Debug)]
struct Inner<K: Ord> {
    ready: VecDeque<K>,
    /// Keys that are to run: those in `ready`, and those that a worker has and that were added again.
    dirty: HashSet<K>,
    taken: HashSet<K>,
    failures: HashMap<K, u32>,
    /// Keys put off, earliest first; of several due times of a key the earliest counts.
    later: BinaryHeap<Reverse<(Instant, K)>>,
    due: HashMap<K, Instant>,
    /// The jumps of the clock that were accounted for.
    jumps: u64,
}

impl<K: Clone + Eq + Hash + Ord> WorkQueue<K> {
    /// A queue whose due times are those of `clock`.
    #[must_use]
    pub fn by(clock: Clock) -> Self {
        Self {
            inner: Mutex::new(Inner {
                ready: VecDeque::new(),
                dirty: HashSet::new(),
                taken: HashSet::new(),
                failures: HashMap::new(),
                later: BinaryHeap::new(),
                due: HashMap::new(),
                jumps: clock.jumps(),
            }),
            changed: Notify::new(),
            clock,
        }
    }

    /// Asks for work on `key`.
    pub fn add(&self, key: K) {
        if self.lock().add(key) {
            self.changed.notify_one();
        }
    }

    /// Asks for work on `key` once `delay` has passed, unless it is due sooner anyway.
    pub fn add_after(&self, key: K, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        if self.lock().put_off(key, Instant::now() + delay) {
            self.changed.notify_one();
        }
    }

    /// Asks for work on `key` again after a failure, later each time.
    pub fn retry(&self, key: K) -> Duration {
        let delay = {
            let mut inner = self.lock();
            let failures = inner.failures.entry(key.clone()).or_insert(0);
            *failures = failures.saturating_add(1);
            let factor = 2_u32.saturating_pow(failures.saturating_sub(1));
            FIRST_RETRY.saturating_mul(factor).min(LAST_RETRY)
        };
        self.add_after(key, delay);
        delay
    }

    /// Forgives the failures of `key`.
    pub fn forgive(&self, key: &K) {
        self.lock().failures.remove(key);
    }

    /// The next key; whoever takes it says [`Self::done`]. Dropping the future loses nothing.
    pub async fn take(&self) -> K {
        let mut jumps = self.clock.next_jump();
        loop {
            let next_due = {
                let mut inner = self.lock();
                inner.release(Instant::now(), self.clock.jumps());
                if let Some(key) = inner.take() {
                    // There may be more than the one wake-up that came.
                    if !inner.ready.is_empty() {
                        self.changed.notify_one();
                    }
                    return key;
                }
                inner.later.peek().map(|Reverse((due, _))| *due)
            };
            match next_due {
                Some(due) => tokio::select! {
                    () = self.changed.notified() => {}
                    () = tokio::time::sleep_until(due) => {}
                    () = jumps.next() => {}
                },
                None => self.changed.notified().await,
            }
        }
    }

    /// Says that work on `key` is over.
    pub fn done(&self, key: &K) {
        if self.lock().done(key) {
            self.changed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<K>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Clone + Eq + Hash + Ord> Inner<K> {
    fn add(&mut self, key: K) -> bool {
        if !self.dirty.insert(key.clone()) || self.taken.contains(&key) {
            return false;
        }
        self.ready.push_back(key);
        true
    }

    fn put_off(&mut self, key: K, due: Instant) -> bool {
        match self.due.get_mut(&key) {
            Some(known) if *known <= due => return false,
            Some(known) => *known = due,
            None => {
                self.due.insert(key.clone(), due);
            }
        }
        self.later.push(Reverse((due, key)));
        true
    }

    /// Moves what is due by now to the ready keys; after a jump of the clock all.
    fn release(&mut self, now: Instant, jumps: u64) {
        let jumped = std::mem::replace(&mut self.jumps, jumps) != jumps;
        while let Some(Reverse((due, _))) = self.later.peek()
            && (jumped || *due <= now)
        {
            let Some(Reverse((due, key))) = self.later.pop() else {
                return;
            };
            // An entry that was overtaken by an earlier one says nothing any more.
            if self.due.get(&key) == Some(&due) {
                self.due.remove(&key);
                self.add(key);
            }
        }
    }

    fn take(&mut self) -> Option<K> {
        let key = self.ready.pop_front()?;
        self.dirty.remove(&key);
        self.taken.insert(key.clone());
        Some(key)
    }

    fn done(&mut self, key: &K) -> bool {
        self.taken.remove(key);
        let again = self.dirty.contains(key);
        if again {
            self.ready.push_back(key.clone());
        }
        again
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn a_key_is_queued_once_and_runs_again_if_added_meanwhile() {
        let queue = WorkQueue::by(Clock::default());
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.take().await, "a");
        assert_eq!(queue.take().now_or_never(), None);
        queue.add("a");
        assert_eq!(queue.take().now_or_never(), None, "a worker still has it");
        queue.done(&"a");
        assert_eq!(queue.take().now_or_never(), Some("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_wait_longer_each_time_until_forgiven() {
        let queue = WorkQueue::by(Clock::default());
        let delays: Vec<_> = (0..3).map(|_| queue.retry("a").as_millis()).collect();
        assert_eq!(delays, [5, 10, 20]);
        queue.forgive(&"a");
        assert_eq!(queue.retry("a").as_millis(), 5);
        assert_eq!(queue.take().await, "a");
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_due_time_of_a_key_counts() {
        let queue = WorkQueue::by(Clock::default());
        let start = Instant::now();
        queue.add_after("late", Duration::from_secs(9));
        queue.add_after("early", Duration::from_secs(5));
        queue.add_after("early", Duration::from_secs(2));
        queue.add_after("early", Duration::from_secs(7));
        assert_eq!(
            (queue.take().await, start.elapsed().as_secs()),
            ("early", 2)
        );
        queue.done(&"early");
        assert_eq!((queue.take().await, start.elapsed().as_secs()), ("late", 9));
    }

    #[tokio::test(start_paused = true)]
    async fn a_jump_of_the_clock_makes_everything_due() {
        let clock = Clock::default();
        let (queue, start) = (WorkQueue::by(clock.clone()), Instant::now());
        queue.add_after("hourly", Duration::from_secs(3600));
        let (taken, ()) = tokio::join!(queue.take(), async {
            tokio::task::yield_now().await;
            clock.turn(jiff::SignedDuration::from_hours(1));
        });
        assert_eq!((taken, start.elapsed()), ("hourly", Duration::ZERO));
        queue.done(&"hourly");
        queue.add_after("hourly", Duration::from_secs(3600));
        assert_eq!(queue.take().now_or_never(), None, "no second time");
    }
}
