//! How calls between agents ended, counted for metrics.
//!
//! The calling side counts each link that failed, and each call over one that stood; the answering side counts each
//! call, and how many connections it carries. Labels are the words of two enums, whoever calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Which of the two agents counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Called,
    Answered,
}

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The pods are connected.
    Opened,
    /// Nobody answers at an address of the node.
    Unreachable,
    /// The agent that answers shows no certificate of this node.
    Certificate,
    /// The link broke before there was an answer.
    Broken,
    /// The other agent says no.
    Refused,
    /// The request is no call, or can't be read.
    Malformed,
    /// The call is for an address that is no pod's of this node.
    ForeignTarget,
    /// The call is for a pod that is not of the node which calls.
    ForeignSource,
    /// As many connections as there may be are carried.
    TooMany,
    /// A policy of the pod that is called is against it.
    Denied,
    /// The pod does not take the connection.
    Failed,
}

/// Something with its word in metrics.
type Named<T> = (T, &'static str);

const SIDES: [Named<Side>; 2] = [(Side::Called, "called"), (Side::Answered, "answered")];

const OUTCOMES: [Named<Outcome>; 11] = [
    (Outcome::Opened, "opened"),
    (Outcome::Unreachable, "unreachable"),
    (Outcome::Certificate, "certificate"),
    (Outcome::Broken, "broken"),
    (Outcome::Refused, "refused"),
    (Outcome::Malformed, "malformed"),
    (Outcome::ForeignTarget, "foreign_target"),
    (Outcome::ForeignSource, "foreign_source"),
    (Outcome::TooMany, "too_many"),
    (Outcome::Denied, "denied"),
    (Outcome::Failed, "failed"),
];

/// Calls by side and outcome, and the connections that are carried.
#[derive(Debug, Default)]
pub(crate) struct TunnelCounts {
    calls: [[AtomicU64; OUTCOMES.len()]; SIDES.len()],
    carried: AtomicU64,
}

/// A connection that is carried for another node; counted until it is dropped.
pub(crate) struct Carried(Arc<TunnelCounts>);

impl Drop for Carried {
    fn drop(&mut self) {
        self.0.carried.fetch_sub(1, Ordering::Relaxed);
    }
}

impl TunnelCounts {
    pub(crate) fn count(&self, side: Side, outcome: Outcome) {
        let mut all = self.all();
        let found = all.find(|(of, what, _)| (of.0, what.0) == (side, outcome));
        if let Some((_, _, counter)) = found {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn carry(self: &Arc<Self>) -> Carried {
        self.carried.fetch_add(1, Ordering::Relaxed);
        Carried(self.clone())
    }

    /// How many connections are carried for other nodes.
    pub(crate) fn carried(&self) -> u64 {
        self.carried.load(Ordering::Relaxed)
    }

    /// Side, outcome and how many, of those that there were.
    pub(crate) fn told(&self) -> Vec<(&'static str, &'static str, u64)> {
        let all = self.all().map(|(side, outcome, counter)| {
            let count = counter.load(Ordering::Relaxed);
            (side.1, outcome.1, count)
        });
        all.filter(|(_, _, count)| *count > 0).collect()
    }

    fn all(&self) -> impl Iterator<Item = (Named<Side>, Named<Outcome>, &AtomicU64)> {
        let rows = SIDES.iter().zip(&self.calls);
        rows.flat_map(|(side, counters)| {
            let columns = OUTCOMES.iter().zip(counters);
            columns.map(move |(outcome, counter)| (*side, *outcome, counter))
        })
    }
}
