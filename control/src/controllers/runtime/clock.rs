//! The wall clock as controllers see it, and spans between its times.
//!
//! Due times are waited for by the monotonic clock, so a wall clock that is set (or that went on while the machine
//! slept) would make schedules early or late. A [`Clock`] tells of such jumps; [`super::work_queue::WorkQueue`]
//! then hands out everything that was put off, and each plan finds its due time anew.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Tells the time, and when it jumped; clones are the same clock.
#[derive(Clone, Debug)]
pub struct Clock(Arc<watch::Sender<State>>);

#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// How far it is ahead of the machine's clock.
    ahead: SignedDuration,
    jumps: u64,
}

/// Waits for jumps of a clock.
#[derive(Debug)]
pub struct Jumps(watch::Receiver<State>);

impl Default for Clock {
    /// The machine's clock.
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(State::default())))
    }
}

impl Clock {
    /// The time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let ahead = self.0.borrow().ahead;
        Timestamp::now()
            .checked_add(ahead)
            .unwrap_or(Timestamp::MAX)
    }

    /// Turns the clock by a span, back if it is negative: for tests of what happens by the clock.
    pub fn turn(&self, by: SignedDuration) {
        self.0.send_modify(|state| {
            state.ahead = state.ahead.saturating_add(by);
            state.jumps += 1;
        });
    }

    /// How often it has jumped.
    #[must_use]
    pub fn jumps(&self) -> u64 {
        self.0.borrow().jumps
    }

    /// To wait for the next jump.
    #[must_use]
    pub fn next_jump(&self) -> Jumps {
        Jumps(self.0.subscribe())
    }

    /// Has jumps of the machine's clock told until `stop`.
    #[cfg(target_os = "linux")]
    pub async fn follow_machine(self, stop: CancellationToken) {
        if let Some(Err(error)) = stop.run_until_cancelled(self.follow()).await {
            tracing::warn!(%error, "jumps of the clock are not seen: schedules may be late after one");
        }
    }

    /// Has jumps of the machine's clock told until `stop`; this system does not tell of them.
    #[cfg(not(target_os = "linux"))]
    pub async fn follow_machine(self, _: CancellationToken) {}

    /// A timer that never comes is cancelled by the kernel whenever the clock is set or the machine wakes up.
    #[cfg(target_os = "linux")]
    async fn follow(&self) -> std::io::Result<()> {
        use std::os::fd::OwnedFd;

        use rustix::io::Errno;
        use rustix::time::{
            Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
            timerfd_settime,
        };

        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer: OwnedFd = timerfd_create(TimerfdClockId::Realtime, flags)?;
        let timer = crate::descriptor::register(timer)?;
        let never = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec {
                tv_sec: i64::from(u32::MAX),
                tv_nsec: 0,
            },
        };
        loop {
            let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
            match timerfd_settime(&timer, flags, &never) {
                Ok(_) | Err(Errno::CANCELED) => {}
                Err(error) => return Err(error.into()),
            }
            let mut ready = timer.readable().await?;
            let mut expirations = [0; 8];
            match rustix::io::read(&timer, &mut expirations) {
                Err(Errno::CANCELED) => self.turn(SignedDuration::ZERO),
                Ok(_) | Err(Errno::AGAIN) => {}
                Err(error) => return Err(error.into()),
            }
            ready.clear_ready();
        }
    }
}

impl Jumps {
    /// Returns at the next jump.
    pub async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            // The clock is gone, and so is everything that could turn it.
            std::future::pending::<()>().await;
        }
    }
}

/// How long from `now` until `due`; zero if that has passed.
#[must_use]
pub fn until(due: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(due.duration_since(now)).unwrap_or_default()
}

/// `time` and some seconds.
#[must_use]
pub fn after(time: Timestamp, seconds: i64) -> Timestamp {
    time.checked_add(SignedDuration::from_secs(seconds))
        .unwrap_or(Timestamp::MAX)
}
