//! What a controller has done that its cache does not show yet.
//!
//! A controller that creates pods by generated names must not look at a cache that lags behind its own
//! writes, or it creates them twice. Before it writes it says what it expects to see; the subscriber of
//! the cache ticks that off; until all of it is seen (or is so old that an event must have been lost
//! between two lists) the controller leaves the object alone.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::key::Key;

/// Longer than any watch is behind; then the cache was listed anew and shows everything.
const LIFE: Duration = Duration::from_secs(300);

/// Expectations by owner.
#[derive(Debug, Default)]
pub struct Expectations {
    owners: Mutex<HashMap<Key, Expected>>,
}

#[derive(Debug)]
struct Expected {
    creations: usize,
    /// Uids of what is to go.
    deletions: HashSet<String>,
    since: Instant,
}

impl Expectations {
    /// Whether the cache shows everything that was done for `owner`; if not, for how long to wait for
    /// it at most.
    ///
    /// # Errors
    /// The time until the expectations lapse.
    pub fn check(&self, owner: &Key) -> Result<(), Duration> {
        let owners = self.lock();
        let Some(expected) = owners.get(owner) else {
            return Ok(());
        };
        let age = expected.since.elapsed();
        if expected.is_met() || age >= LIFE {
            return Ok(());
        }
        Err(LIFE - age)
    }

    /// Sets what is expected of `owner` from now on; what was expected before was met.
    pub fn expect(&self, owner: &Key, creations: usize, deletions: HashSet<String>) {
        let expected = Expected {
            creations,
            deletions,
            since: Instant::now(),
        };
        self.lock().insert(owner.clone(), expected);
    }

    /// `count` objects were created, or could not be.
    pub fn created(&self, owner: &Key, count: usize) {
        if let Some(expected) = self.lock().get_mut(owner) {
            expected.creations = expected.creations.saturating_sub(count);
        }
    }

    /// The object with this uid is going or gone, or could not be deleted.
    pub fn deleted(&self, owner: &Key, uid: &str) {
        if let Some(expected) = self.lock().get_mut(owner) {
            expected.deletions.remove(uid);
        }
    }

    /// Forgets an owner that is gone.
    pub fn forget(&self, owner: &Key) {
        self.lock().remove(owner);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Expected>> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Expected {
    fn is_met(&self) -> bool {
        self.creations == 0 && self.deletions.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_owner_is_left_alone_until_its_writes_are_seen_or_lapse() {
        let expectations = Expectations::default();
        let owner = Key::new("default", "web");
        assert_eq!(expectations.check(&owner), Ok(()));
        expectations.expect(&owner, 2, ["uid".to_owned()].into());
        assert!(expectations.check(&owner).is_err());
        expectations.created(&owner, 2);
        assert!(expectations.check(&owner).is_err());
        expectations.deleted(&owner, "uid");
        assert_eq!(expectations.check(&owner), Ok(()));
        expectations.expect(&owner, 1, HashSet::new());
        tokio::time::advance(LIFE).await;
        assert_eq!(expectations.check(&owner), Ok(()));
    }
}
