//! When a request is tried again, and how long a registry may be silent.

use std::time::Duration;

use rand::RngExt;

use super::ClientError;

/// How patient a client is.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// How often something is tried that makes no progress.
    pub attempts: u32,
    /// The wait after the first failure; each further one doubles it.
    pub first_wait: Duration,
    /// The longest wait. A registry that asks for a longer one gets its way by the failure of the request: who wanted it
    /// backs off on their own.
    pub longest_wait: Duration,
    /// How long an answer may take to begin, and a body to go on.
    pub silence: Duration,
    /// How long an answer to something that is sent may take.
    pub upload: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            attempts: 5,
            first_wait: Duration::from_millis(250),
            longest_wait: Duration::from_secs(10),
            silence: Duration::from_secs(30),
            upload: Duration::from_secs(600),
        }
    }
}

/// Tries of one thing.
pub(super) struct Tries {
    patience: Patience,
    failed: u32,
}

impl Tries {
    pub(super) const fn new(patience: Patience) -> Self {
        Self {
            patience,
            failed: 0,
        }
    }

    /// There was progress: what failed before does not count.
    pub(super) const fn begin_anew(&mut self) {
        self.failed = 0;
    }

    /// Waits until the next try, or gives the error back if there is to be none.
    pub(super) async fn again(&mut self, error: ClientError) -> Result<(), ClientError> {
        match self.wait(&error) {
            Some(wait) => {
                tracing::debug!(%error, ?wait, "a registry failed, trying again");
                tokio::time::sleep(wait).await;
                Ok(())
            }
            None => Err(error),
        }
    }

    fn wait(&mut self, error: &ClientError) -> Option<Duration> {
        self.failed += 1;
        if !error.is_retriable() || self.failed >= self.patience.attempts {
            return None;
        }
        let longest = self.patience.longest_wait;
        if let Some(asked) = error.retry_after() {
            return (asked <= longest).then_some(asked);
        }
        let doubled = 2_u32.saturating_pow(self.failed - 1);
        let wait = self.patience.first_wait.saturating_mul(doubled);
        // Up to half as long again, so that the nodes of a cluster don't come back all at once.
        Some(
            wait.mul_f64(rand::rng().random_range(1.0..1.5))
                .min(longest),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unavailable(retry_after: Option<u64>) -> ClientError {
        ClientError::Status {
            what: "x".to_owned(),
            status: http::StatusCode::SERVICE_UNAVAILABLE,
            message: String::new(),
            retry_after: retry_after.map(Duration::from_secs),
        }
    }

    #[test]
    fn waits_double_up_to_a_bound_and_end() {
        let mut tries = Tries::new(Patience::default());
        let mut least = Duration::from_millis(250);
        for _ in 0..4 {
            let wait = tries.wait(&unavailable(None)).unwrap();
            assert!(wait >= least && wait < least * 2, "{wait:?}");
            least *= 2;
        }
        assert_eq!(tries.wait(&unavailable(None)), None);
        tries.begin_anew();
        assert!(tries.wait(&unavailable(None)).is_some());
    }

    #[test]
    fn the_registry_says_when_unless_that_is_too_late() {
        let mut tries = Tries::new(Patience::default());
        let second = Some(Duration::from_secs(1));
        assert_eq!(tries.wait(&unavailable(Some(1))), second);
        assert_eq!(tries.wait(&unavailable(Some(3600))), None);
        let missing = ClientError::NotFound("x".to_owned());
        assert_eq!(Tries::new(Patience::default()).wait(&missing), None);
    }
}
