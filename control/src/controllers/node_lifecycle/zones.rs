//! How fast nodes may be given up, by zone.
//!
//! A node that is lost has its pods moved; many lost at once are more likely a network that failed, and moving
//! everything would make it worse. So each zone gives up a node every ten seconds at most, more slowly
//! or not at all when most of it is silent, and nothing is given up while no node anywhere is heard of.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use tokio::time::Instant;

use super::plan;
use crate::controllers::runtime::metadata::Metadata;

/// Between two nodes of a zone that are given up.
const USUAL: Duration = Duration::from_secs(10);
/// The same when most of a large zone is silent.
const CAREFUL: Duration = Duration::from_secs(100);
/// A zone of more nodes is large.
const LARGE: usize = 50;
/// Percent of a zone's nodes that are most of it.
const MOST: usize = 55;

const REGION: &str = "topology.kubernetes.io/region";
const ZONE: &str = "topology.kubernetes.io/zone";

/// Region and zone of a node; empty where it does not say.
pub(super) type Zone = (String, String);

/// The zone of a node.
pub(super) fn zone_of(node: &Node) -> Zone {
    let label = |key: &str| node.metadata.labels().get(key).cloned().unwrap_or_default();
    (label(REGION), label(ZONE))
}

/// How the nodes of a zone are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Health {
    ready: usize,
    silent: usize,
}

impl Health {
    /// Time between two nodes given up; `None` gives up none.
    fn pace(self) -> Option<Duration> {
        let all = self.ready + self.silent;
        let is_partly_lost = self.ready > 0 && self.silent > 2 && self.silent * 100 >= MOST * all;
        match is_partly_lost {
            false => Some(USUAL),
            true if all > LARGE => Some(CAREFUL),
            true => None,
        }
    }
}

/// When each zone last gave up a node.
#[derive(Debug, Default)]
pub(super) struct Zones(HashMap<Zone, Instant>);

/// Why a node is not given up now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// Its turn comes after that time.
    For(Duration),
    /// Until other nodes are heard of.
    WithTheOthers,
}

impl Zones {
    /// Whether `node` may be given up, which then counts as done.
    ///
    /// # Errors
    /// It may not.
    pub(super) fn give_up<'a>(
        &mut self,
        node: &Node,
        all: impl Iterator<Item = &'a Node>,
        now: Instant,
    ) -> Result<(), Kept> {
        let zone = zone_of(node);
        let (mut here, mut anywhere) = (Health::default(), 0);
        for other in all {
            let is_ready = plan::ready(other) == "True";
            anywhere += usize::from(is_ready);
            if zone_of(other) == zone {
                here.ready += usize::from(is_ready);
                here.silent += usize::from(!is_ready);
            }
        }
        if anywhere == 0 {
            return Err(Kept::WithTheOthers);
        }
        let pace = here.pace().ok_or(Kept::WithTheOthers)?;
        let due = self.0.get(&zone).map(|last| *last + pace);
        if let Some(due) = due.filter(|due| *due > now) {
            return Err(Kept::For(due - now));
        }
        self.0.insert(zone, now);
        Ok(())
    }
}

/// Whether no node is heard of: then it is this side that is cut off.
pub(super) fn is_cut_off<'a>(mut all: impl Iterator<Item = &'a Node>) -> bool {
    !all.any(|node| plan::ready(node) == "True")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(name: &str, zone: &str, ready: bool) -> Node {
        let status = if ready { "True" } else { "Unknown" };
        serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {ZONE: zone}},
            "status": {"conditions": [{"type": "Ready", "status": status}]},
        }))
        .unwrap()
    }

    fn nodes(zone: &str, ready: usize, silent: usize) -> Vec<Node> {
        let all = (0..ready + silent).map(|at| node(&format!("{zone}{at}"), zone, at < ready));
        all.collect()
    }

    #[test]
    fn a_zone_gives_up_one_node_after_the_other() {
        let all = nodes("a", 4, 2);
        let (mut zones, now) = (Zones::default(), Instant::now());
        let mut give_up = |at: usize, seconds| {
            zones.give_up(&all[at], all.iter(), now + Duration::from_secs(seconds))
        };
        assert_eq!(give_up(4, 0), Ok(()));
        assert_eq!(give_up(5, 4), Err(Kept::For(Duration::from_secs(6))));
        assert_eq!(give_up(5, 10), Ok(()));
    }

    #[test]
    fn a_zone_that_is_mostly_silent_keeps_its_pods() {
        let now = Instant::now();
        let give_up = |all: &[Node]| {
            let lost = all.iter().find(|node| plan::ready(node) != "True").unwrap();
            Zones::default().give_up(lost, all.iter(), now)
        };
        assert_eq!(give_up(&nodes("a", 2, 3)), Err(Kept::WithTheOthers));
        assert_eq!(give_up(&nodes("a", 1, 2)), Ok(()), "two may fail by chance");
        assert_eq!(give_up(&nodes("a", 20, 40)), Ok(()), "at a slower pace");
        // A zone that is gone altogether is given up, as long as another is there.
        let mut all = nodes("a", 0, 5);
        assert_eq!(give_up(&all), Err(Kept::WithTheOthers));
        assert!(is_cut_off(all.iter()));
        all.extend(nodes("b", 1, 0));
        assert_eq!(give_up(&all), Ok(()));
    }
}
