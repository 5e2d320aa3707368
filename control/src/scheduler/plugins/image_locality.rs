//! Nodes that have a pod's images already are better, the more so the larger the images and the more nodes
//! have them.

use super::{MAX_SCORE, Score};
use crate::scheduler::cycle::Cycle;
use crate::scheduler::snapshot::Node;

const MIB: i64 = 1 << 20;
/// What is fetched as fast as it is found.
const SMALL: i64 = 23 * MIB;
/// Larger images than this count as this.
const LARGE: i64 = 1000 * MIB;

pub(in super::super) struct ImageLocality;

impl Score for ImageLocality {
    fn score(&self, cycle: &Cycle<'_>, nodes: &[Node<'_>], scores: &mut [i64]) {
        let images = &cycle.pod.wants.images;
        let all = i64::try_from(cycle.snapshot.node_count())
            .unwrap_or(i64::MAX)
            .max(1);
        let large = LARGE.saturating_mul(i64::try_from(images.len()).unwrap_or(1));
        for (score, node) in scores.iter_mut().zip(nodes) {
            if node.facts.images.is_empty() {
                continue;
            }
            let there = images.iter().filter_map(|image| {
                let size = node.facts.images.get(image)?;
                let nodes = i64::try_from(cycle.snapshot.nodes_with(image)).ok()?;
                // An image that one node has must not draw every pod there.
                Some(size.saturating_mul(nodes) / all)
            });
            let sum: i64 = there.fold(0, i64::saturating_add);
            let range = (large - SMALL).max(1);
            *score = MAX_SCORE * (sum.clamp(SMALL, large.max(SMALL)) - SMALL) / range;
        }
    }
}
