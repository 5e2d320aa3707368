//! The time as pod workers see it: the machine's, or in tests tokio's pausable one.

use jiff::Timestamp;

/// Tells the time; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) enum Clock {
    /// The machine's clock.
    System,
    /// Moves with tokio's clock, so that a paused runtime pauses it too.
    #[cfg(test)]
    Tokio(Timestamp, tokio::time::Instant),
}

impl Clock {
    /// A clock that tests can pause and advance.
    #[cfg(test)]
    pub(crate) fn tokio() -> Self {
        Self::Tokio(Timestamp::now(), tokio::time::Instant::now())
    }

    /// The time.
    pub(crate) fn now(&self) -> Timestamp {
        match self {
            Self::System => Timestamp::now(),
            #[cfg(test)]
            Self::Tokio(base, since) => *base + since.elapsed(),
        }
    }
}
