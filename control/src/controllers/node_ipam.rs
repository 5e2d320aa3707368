//! Node IPAM: every node gets a network of its own for its pods.
//!
//! Networks are cut from the cluster's pod network, lowest first, and written to `spec.podCIDR`, which
//! never changes again. What is taken is read from the nodes themselves, so a restart needs no state; a
//! network given away counts as taken before the write, so that a stale cache cannot give it twice. One
//! worker: giving is serial.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::Context;
use super::runtime::informer::Change;
use super::runtime::key::Key;
use super::runtime::metadata::Metadata;
use super::runtime::recorder::reference;
use super::runtime::work_queue::WorkQueue;
use super::runtime::worker::{Outcome, is_not_found, work};

/// Starts the controller.
pub(super) fn start(context: Context) -> BoxFuture<'static, ()> {
    Box::pin(run(context))
}

async fn run(context: Context) {
    let queue = context.queue();
    let (network, length) = context.config.pod_network;
    let pool = Pool::new(network, length, context.config.node_cidr_bits);
    let controller = Arc::new(Controller {
        queue: Arc::clone(&queue),
        pool: Mutex::new(pool),
        context,
    });
    let informers = &controller.context.informers;
    informers.nodes.synced().await;
    let of_nodes = Arc::clone(&controller);
    // The first call comes for every node there is, before any worker runs: nothing taken is missed.
    let _nodes = informers
        .nodes
        .subscribe(move |change| of_nodes.node_changed(change));
    let stop = controller.context.stop.clone();
    work("node-ipam-controller", queue, 1, stop, |key| {
        controller.reconcile(key)
    })
    .await;
}

struct Controller {
    context: Context,
    queue: Arc<WorkQueue<Key>>,
    pool: Mutex<Pool>,
}

impl Controller {
    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn node_changed(&self, change: Change<'_, Node>) {
        match (change.old, change.new) {
            (_, Some(node)) => match pod_cidr(node) {
                Some(cidr) => self.pool().take(node.metadata.name(), cidr),
                None => self.queue.add(Key::of(&node.metadata)),
            },
            (Some(node), None) => {
                self.pool().release(node.metadata.name());
                // Somebody may have waited for it.
                for node in self.context.informers.nodes.all() {
                    if pod_cidr(&node).is_none() {
                        self.queue.add(Key::of(&node.metadata));
                    }
                }
            }
            (None, None) => {}
        }
    }

    async fn reconcile(&self, key: Key) -> Outcome {
        let Some(node) = self.context.informers.nodes.get(&key) else {
            return Ok(None);
        };
        if pod_cidr(&node).is_some() {
            return Ok(None);
        }
        let Some(cidr) = self.pool().give(&key.name) else {
            let about = reference("v1", "Node", &node.metadata);
            let text = format!("Node {} status is now: CIDRNotAvailable", key.name);
            self.context
                .recorder
                .warning(about, "CIDRNotAvailable", text);
            return Ok(None);
        };
        let api: Api<Node> = Api::all(self.context.client.clone());
        let patch = json!({"metadata": {"uid": node.metadata.uid()},
            "spec": {"podCIDR": cidr, "podCIDRs": [cidr]}});
        let params = PatchParams::default();
        match api
            .patch(&key.name, &params, &Patch::Strategic(&patch))
            .await
        {
            Ok(_) => Ok(None),
            Err(error) if is_not_found(&error) => {
                self.pool().release(&key.name);
                Ok(None)
            }
            // The write may have happened all the same: the network stays given to this node.
            Err(error) => Err(error.into()),
        }
    }
}

fn pod_cidr(node: &Node) -> Option<&str> {
    let cidr = node.spec.as_ref()?.pod_cidr.as_deref()?;
    (!cidr.is_empty()).then_some(cidr)
}

/// The networks nodes get.
#[derive(Debug)]
struct Pool {
    base: u32,
    /// Prefix length of a node's network.
    bits: u8,
    /// How many there are.
    size: u32,
    taken: BTreeSet<u32>,
    by_node: BTreeMap<String, u32>,
}

impl Pool {
    fn new(network: Ipv4Addr, length: u8, bits: u8) -> Self {
        let (length, bits) = (length.min(32), bits.clamp(length.min(32), 32));
        let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
        let count = 1_u64 << (bits - length);
        Self {
            base: u32::from(network) & mask,
            bits,
            size: u32::try_from(count).unwrap_or(u32::MAX),
            taken: BTreeSet::new(),
            by_node: BTreeMap::new(),
        }
    }

    fn cidr(&self, at: u32) -> String {
        let offset = at.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
        format!(
            "{}/{}",
            Ipv4Addr::from(self.base.wrapping_add(offset)),
            self.bits
        )
    }

    /// The place of a network among the pool's; `None` if it is another size or lies elsewhere.
    fn place(&self, cidr: &str) -> Option<u32> {
        let (address, length) = cidr.split_once('/')?;
        let address = u32::from(address.parse::<Ipv4Addr>().ok()?);
        let offset = address.checked_sub(self.base)?;
        let at = offset.checked_shr(32 - u32::from(self.bits)).unwrap_or(0);
        (length.parse() == Ok(self.bits) && at < self.size && self.cidr(at) == cidr).then_some(at)
    }

    /// A node has this network.
    fn take(&mut self, node: &str, cidr: &str) {
        if let Some(at) = self.place(cidr)
            && self.by_node.get(node) != Some(&at)
        {
            self.release(node);
            self.taken.insert(at);
            self.by_node.insert(node.to_owned(), at);
        }
    }

    /// The node's network: the one it was given, or the lowest free one.
    fn give(&mut self, node: &str) -> Option<String> {
        if let Some(at) = self.by_node.get(node) {
            return Some(self.cidr(*at));
        }
        let free = self
            .taken
            .iter()
            .zip(0..)
            .find(|(taken, at)| **taken != *at);
        let at = free.map_or_else(|| u32::try_from(self.taken.len()).ok(), |(_, at)| Some(at))?;
        if at >= self.size {
            return None;
        }
        self.taken.insert(at);
        self.by_node.insert(node.to_owned(), at);
        Some(self.cidr(at))
    }

    fn release(&mut self, node: &str) {
        if let Some(at) = self.by_node.remove(node) {
            self.taken.remove(&at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_given_lowest_first_and_never_twice() {
        let mut pool = Pool::new(Ipv4Addr::new(10, 64, 0, 0), 10, 18);
        pool.take("b", "10.64.64.0/18");
        pool.take("elsewhere", "192.168.0.0/18");
        pool.take("other-size", "10.64.0.0/24");
        assert_eq!(pool.give("a").as_deref(), Some("10.64.0.0/18"));
        assert_eq!(pool.give("c").as_deref(), Some("10.64.128.0/18"));
        assert_eq!(
            pool.give("a").as_deref(),
            Some("10.64.0.0/18"),
            "asked again"
        );
        pool.release("a");
        assert_eq!(pool.give("d").as_deref(), Some("10.64.0.0/18"));
    }

    #[test]
    fn an_exhausted_pool_gives_nothing_until_something_is_released() {
        let mut pool = Pool::new(Ipv4Addr::new(10, 0, 0, 0), 23, 24);
        assert_eq!(pool.give("a").as_deref(), Some("10.0.0.0/24"));
        assert_eq!(pool.give("b").as_deref(), Some("10.0.1.0/24"));
        assert_eq!(pool.give("c"), None);
        pool.release("a");
        assert_eq!(pool.give("c").as_deref(), Some("10.0.0.0/24"));
    }

    #[test]
    fn a_pool_of_one_is_given_once() {
        let mut pool = Pool::new(Ipv4Addr::new(10, 0, 0, 7), 24, 8);
        assert_eq!(pool.give("a").as_deref(), Some("10.0.0.0/24"));
        assert_eq!(pool.give("b"), None);
    }
}
