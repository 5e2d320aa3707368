//! How many requests may be in flight at once, those that last by nature not counted.
//!
//! Reads and writes have a bound each, and one user may take no more than a share of it, so that a client
//! that runs wild is told to slow down while everybody else is served. Components of this process and
//! `system:masters` are exempt: they are what mends an overloaded cluster.
//!
//! Differs from Kubernetes: FlowSchemas and PriorityLevelConfigurations are stored and have no effect;
//! these bounds stand in for them, and a request beyond them is refused instead of queued.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::identity::{MASTERS, UserInfo};
use crate::registry::error::ApiError;

/// Reads in flight; upstream's `--max-requests-inflight`.
const MAX_READS: usize = 400;
/// Writes in flight; upstream's `--max-mutating-requests-inflight`.
const MAX_WRITES: usize = 200;
/// The part of each bound that one user may take.
const SHARE: usize = 2;

/// Whether a request changes anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Read,
    Write,
}

impl Class {
    /// The class of a verb, in discovery's words or a method in lower case.
    pub(super) fn of(verb: &str) -> Self {
        match verb {
            "get" | "list" | "watch" | "head" | "options" => Self::Read,
            _ => Self::Write,
        }
    }

    fn bound(self) -> usize {
        match self {
            Self::Read => MAX_READS,
            Self::Write => MAX_WRITES,
        }
    }
}

/// Requests in flight of one class.
#[derive(Debug, Default)]
struct InFlight {
    all: usize,
    /// By user; who has none in flight is not in the map, so it is no larger than the bound.
    by_user: HashMap<String, usize>,
}

/// The bounds, and what is in flight.
#[derive(Debug, Default)]
pub(super) struct Limits {
    reads: Mutex<InFlight>,
    writes: Mutex<InFlight>,
}

/// A request in flight; leaves when dropped.
#[derive(Debug)]
pub(super) struct Permit<'a> {
    in_flight: &'a Mutex<InFlight>,
    user: String,
}

impl Limits {
    /// Lets a request in.
    ///
    /// # Errors
    /// [`ApiError::TooManyRequests`] beyond the bound or the user's share of it.
    pub(super) fn enter(
        &self,
        user: &UserInfo,
        class: Class,
    ) -> Result<Option<Permit<'_>>, ApiError> {
        if user.is_in(MASTERS) {
            return Ok(None);
        }
        let in_flight = match class {
            Class::Read => &self.reads,
            Class::Write => &self.writes,
        };
        let mut now = lock(in_flight);
        let own = now.by_user.get(&user.name).copied().unwrap_or_default();
        if now.all >= class.bound() || own >= class.bound() / SHARE {
            return Err(ApiError::TooManyRequests(
                "The server has received too many requests and has asked us to try again later"
                    .into(),
            ));
        }
        now.all += 1;
        now.by_user.insert(user.name.clone(), own + 1);
        Ok(Some(Permit {
            in_flight,
            user: user.name.clone(),
        }))
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut now = lock(self.in_flight);
        now.all = now.all.saturating_sub(1);
        if let Some(own) = now.by_user.get_mut(&self.user) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                now.by_user.remove(&self.user);
            }
        }
    }
}

fn lock(in_flight: &Mutex<InFlight>) -> MutexGuard<'_, InFlight> {
    in_flight.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserInfo {
        UserInfo::authenticated(name, &[])
    }

    #[test]
    fn a_user_at_its_share_leaves_room_for_others() {
        let limits = Limits::default();
        let (wild, calm) = (user("wild"), user("calm"));
        let taken: Vec<_> = (0..MAX_WRITES / SHARE)
            .map(|_| limits.enter(&wild, Class::Write).unwrap())
            .collect();
        let refused = limits.enter(&wild, Class::Write);
        assert!(matches!(refused, Err(ApiError::TooManyRequests(_))));
        assert!(limits.enter(&calm, Class::Write).is_ok());
        assert!(limits.enter(&wild, Class::Read).is_ok());
        drop(taken);
        assert!(limits.enter(&wild, Class::Write).is_ok());
    }

    #[test]
    fn the_bound_holds_for_all_together_but_masters() {
        let limits = Limits::default();
        let mut taken = Vec::new();
        for at in 0..MAX_READS {
            taken.push(limits.enter(&user(&format!("user-{}", at % 4)), Class::Read));
        }
        assert!(limits.enter(&user("late"), Class::Read).is_err());
        let admin = UserInfo::authenticated("admin", &[MASTERS]);
        assert!(limits.enter(&admin, Class::Read).unwrap().is_none());
        drop(taken);
        assert!(lock(&limits.reads).by_user.is_empty());
    }
}
