//! Processor time of a container: metering, fair sharing and a quota.
//!
//! 1. The engine's epoch advances every [`TICK`] ([`Ticker`]). At each tick a running instance comes
//!    to [`Cpu::install`]'s callback and yields to the other tasks of its runtime: an endless loop
//!    costs its neighbours at most a tick per turn.
//! 2. [`Cpu::meter`] wraps the future that drives an instance and charges the thread time of every
//!    poll, host functions included.
//! 3. With a quota the callback parks an instance that has used up its share of the current
//!    [`PERIOD`] until the next one begins, as Linux' CFS bandwidth control does. What was used above
//!    the share is paid back in the periods that follow; unused share is not saved up.
//!
//! Work that host functions do on other threads (files) is not charged.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use wasmtime::{EngineWeak, Store, UpdateDeadline};

/// How long an instance runs before it yields.
pub const TICK: Duration = Duration::from_millis(1);

/// The period over which a quota is shared out, as in Kubernetes (`cpuCFSQuotaPeriod`).
pub const PERIOD: Duration = Duration::from_millis(100);

/// A share is never smaller than this: a container must be able to run at all.
const MIN_SHARE: Duration = Duration::from_millis(1);

/// Advances an engine's epoch every [`TICK`], until the engine is gone.
pub struct Ticker {
    _thread: JoinHandle<()>,
}

impl Ticker {
    /// Starts the thread that ticks for the engine.
    ///
    /// # Errors
    /// If the thread can't be started.
    pub fn start(engine: EngineWeak) -> std::io::Result<Self> {
        let tick = move || {
            while let Some(engine) = engine.upgrade() {
                engine.increment_epoch();
                drop(engine);
                std::thread::sleep(TICK);
            }
        };
        let thread = std::thread::Builder::new()
            .name("epoch".to_owned())
            .spawn(tick)?;
        Ok(Self { _thread: thread })
    }
}

/// The processor time of one container: all its instances together.
#[derive(Debug)]
pub struct Cpu {
    used: AtomicU64,
    throttled: AtomicU64,
    quota: Mutex<Option<Quota>>,
    born: Instant,
}

impl Cpu {
    /// An account with a quota in thousandths of a core; `None` has none.
    pub fn new(limit_millis: Option<u64>) -> Arc<Self> {
        Arc::new(Self {
            used: AtomicU64::new(0),
            throttled: AtomicU64::new(0),
            quota: Mutex::new(limit_millis.map(Quota::new)),
            born: Instant::now(),
        })
    }

    /// The quota in thousandths of a core, if there is one.
    pub fn limit(&self) -> Option<u64> {
        self.quota().map(|quota| quota.millis)
    }

    /// Sets another quota, which holds from now on: what was used before counts no more.
    pub fn set_limit(&self, limit_millis: Option<u64>) {
        let (now, used) = (nanos(self.born.elapsed()), self.used_nanos());
        let begin = |millis| Quota {
            period_start: now,
            used_at_start: used,
            ..Quota::new(millis)
        };
        *self.quota() = limit_millis.map(begin);
    }

    fn quota(&self) -> MutexGuard<'_, Option<Quota>> {
        self.quota.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Processor time used so far, in nanoseconds.
    pub fn used_nanos(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Time spent waiting for the quota, in nanoseconds.
    pub fn throttled_nanos(&self) -> u64 {
        self.throttled.load(Ordering::Relaxed)
    }

    /// Makes a store yield at every tick, and wait when the quota is used up.
    ///
    /// The store's engine must have epoch interruption on.
    pub fn install<T: 'static>(self: &Arc<Self>, store: &mut Store<T>) {
        let cpu = self.clone();
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(move |_| {
            let pause: Pin<Box<dyn Future<Output = ()> + Send>> = match cpu.pause() {
                None => Box::pin(Yield { yielded: false }),
                Some(pause) => {
                    cpu.throttled.fetch_add(nanos(pause), Ordering::Relaxed);
                    Box::pin(tokio::time::sleep(pause))
                }
            };
            Ok(UpdateDeadline::YieldCustom(1, pause))
        });
    }

    /// How long the container has to wait now.
    fn pause(&self) -> Option<Duration> {
        let mut quota = self.quota();
        let quota = quota.as_mut()?;
        let used = self.used_nanos() + POLL.with(|poll| poll.get().map_or(0, since));
        let now = nanos(self.born.elapsed());
        Some(Duration::from_nanos(quota.wait(now, used)?))
    }

    /// Charges the container for every poll of `future`.
    pub fn meter<F: Future>(self: &Arc<Self>, future: F) -> Metered<F> {
        Metered {
            future: Box::pin(future),
            cpu: self.clone(),
        }
    }
}

/// Lets every other task of the runtime have its turn.
///
/// Not `tokio::task::yield_now`: that one is woken from the scheduler's own hands and lands in the
/// slot for the task to run next, so that two endless loops on one thread keep it to themselves. A
/// task that wakes itself while it runs goes to the end of the queue.
struct Yield {
    yielded: bool,
}

impl Future for Yield {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// A future whose polls are charged: see [`Cpu::meter`].
pub struct Metered<F> {
    future: Pin<Box<F>>,
    cpu: Arc<Cpu>,
}

thread_local! {
    /// When the poll that runs on this thread began, in thread time.
    static POLL: std::cell::Cell<Option<u64>> = const { std::cell::Cell::new(None) };
}

impl<F: Future> Future for Metered<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let start = thread_nanos();
        let outer = POLL.replace(Some(start));
        let polled = self.future.as_mut().poll(cx);
        POLL.set(outer);
        self.cpu.used.fetch_add(since(start), Ordering::Relaxed);
        polled
    }
}

fn since(start: u64) -> u64 {
    thread_nanos().saturating_sub(start)
}

/// Processor time of this thread.
fn thread_nanos() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds * 1_000_000_000 + nanos
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// How much of the current period is used. All times in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Quota {
    millis: u64,
    share: u64,
    period_start: u64,
    used_at_start: u64,
}

impl Quota {
    fn new(millis: u64) -> Self {
        let share = (millis.saturating_mul(nanos(PERIOD)) / 1000).max(nanos(MIN_SHARE));
        Self {
            millis,
            share,
            period_start: 0,
            used_at_start: 0,
        }
    }

    /// How long to wait at time `now` after having used `used` in all.
    fn wait(&mut self, now: u64, used: u64) -> Option<u64> {
        let period = nanos(PERIOD);
        let passed = now.saturating_sub(self.period_start) / period;
        if passed > 0 {
            let earned = self.share.saturating_mul(passed);
            let debt = used
                .saturating_sub(self.used_at_start)
                .saturating_sub(earned);
            self.period_start += passed * period;
            self.used_at_start = used - debt.min(used);
        }
        let in_period = used.saturating_sub(self.used_at_start);
        if in_period < self.share {
            return None;
        }
        // Whole shares that are owed are whole periods to wait.
        let periods = in_period / self.share;
        Some(
            (self.period_start + periods * period)
                .saturating_sub(now)
                .max(1),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_share_is_spent_and_waited_for() {
        let mut quota = Quota::new(250);
        // (now, used in all, wait), in milliseconds
        for (now, used, want) in [
            (0, 0, None),
            (10, 10, None),
            (25, 25, Some(75)),
            (30, 26, Some(70)),
            (100, 26, None),
            (124, 49, None),
            (130, 51, Some(70)),
            (1000, 51, None),
            (1030, 75, None),
            (1031, 76, Some(69)),
        ] {
            let got = quota.wait(now * MS, used * MS);
            assert_eq!(got, want.map(|wait: u64| wait * MS), "at {now}");
        }
    }

    #[test]
    fn a_debt_is_paid_over_several_periods() {
        let mut quota = Quota::new(100);
        assert_eq!(quota.wait(50 * MS, 35 * MS), Some(250 * MS));
        assert_eq!(quota.wait(300 * MS, 35 * MS), None);
    }

    #[test]
    fn the_smallest_share_still_runs() {
        assert_eq!(Quota::new(0).share, MS);
        assert_eq!(Quota::new(1).share, MS);
        assert_eq!(Quota::new(2000).share, 200 * MS);
    }

    #[test]
    fn another_quota_starts_anew() {
        let cpu = Cpu::new(Some(1));
        cpu.used.store(10 * MS, Ordering::Relaxed);
        assert!(cpu.pause().is_some());
        cpu.set_limit(Some(500));
        assert_eq!((cpu.limit(), cpu.pause()), (Some(500), None));
        cpu.used.store(70 * MS, Ordering::Relaxed);
        assert!(cpu.pause().is_some());
        cpu.set_limit(None);
        assert_eq!((cpu.limit(), cpu.pause()), (None, None));
    }

    #[tokio::test]
    async fn polls_are_charged() {
        let cpu = Cpu::new(None);
        let work = async {
            let start = thread_nanos();
            while since(start) < MS {
                std::hint::spin_loop();
            }
        };
        cpu.meter(work).await;
        assert!(cpu.used_nanos() >= MS);
    }
}
