//! Addresses of Services of type LoadBalancer: of a configured pool, or the nodes' own.
//!
//! All load balancers are planned together (`plan.rs`), so that no two get the same address; the one worker writes
//! what differs. What was assigned stands in `status.loadBalancer` and nowhere else: a restart reads it back. Nodes
//! listen at the addresses that are theirs.
//!
//! Addresses that somebody else writes meanwhile, which are neither of the pool nor of nodes, are left to them until
//! they are taken away again.

mod plan;
mod pool;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Node, Service};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

pub(super) use plan::node_addresses;
pub use pool::{AddressRange, AddressRangeError};

use super::Context;
use super::runtime::key::Key;
use super::runtime::metadata::Metadata;
use super::runtime::recorder::reference;
use super::runtime::worker::{Outcome, ReconcileError, unless_gone, work};
use plan::Verdict;

const NAME: &str = "service-lb-controller";

/// Starts the controller.
pub(super) fn start(context: Context) -> BoxFuture<'static, ()> {
    Box::pin(run(context))
}

/// The one key there is: all load balancers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct All;

impl std::fmt::Display for All {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("all")
    }
}

struct Controller {
    context: Context,
    /// Why Services wait, as their events said it last.
    told: Mutex<HashMap<Key, String>>,
    /// What Services were to have when they were looked at last.
    wanted: Mutex<HashMap<Key, Vec<String>>>,
}

async fn run(context: Context) {
    let queue = context.queue();
    let informers = &context.informers;
    informers.services.synced().await;
    informers.nodes.synced().await;
    // What is there at the start was assigned by whoever ran before.
    let there = informers.services.all();
    let there = there
        .iter()
        .map(|it| (Key::of(&it.metadata), plan::assigned(it)));
    let wanted = Mutex::new(there.collect());
    let [of_services, of_nodes] = [(); 2].map(|()| Arc::clone(&queue));
    let _services = informers.services.subscribe(move |change| {
        let mut both = change.both();
        if both.any(|service| plan::is_ours(service) || !plan::assigned(service).is_empty()) {
            of_services.add(All);
        }
    });
    let _nodes = informers.nodes.subscribe(move |change| {
        let addresses =
            |node: Option<&Arc<Node>>| node_addresses(node.map(AsRef::as_ref).into_iter());
        if addresses(change.old) != addresses(change.new) {
            of_nodes.add(All);
        }
    });
    let stop = context.stop.clone();
    let controller = Controller {
        context,
        told: Mutex::default(),
        wanted,
    };
    work(NAME, queue, 1, stop, |_| controller.reconcile()).await;
}

impl Controller {
    async fn reconcile(&self) -> Outcome {
        let informers = &self.context.informers;
        let all = informers.services.all();
        let nodes = informers.nodes.all();
        let nodes = node_addresses(nodes.iter().map(AsRef::as_ref));
        let ours = all.iter().map(AsRef::as_ref).filter(|it| plan::is_ours(it));
        let ours: Vec<&Service> = ours.filter(|it| !self.is_of_others(it, &nodes)).collect();
        let plan = plan::plan(&ours, &self.context.config.load_balancer_pool, &nodes);
        let mut failure = Ok(None);
        for service in &all {
            let key = Key::of(&service.metadata);
            let wanted = match plan.get(&key) {
                Some(Verdict::Addresses(addresses)) => addresses.as_slice(),
                Some(Verdict::Pending(why)) => {
                    self.tell(service, &key, why);
                    &[]
                }
                // Another class's addresses are its controller's.
                None if plan::is_balancer(service) => continue,
                None => &[],
            };
            self.remember(&key, wanted);
            if plan::assigned(service) != wanted
                && let Err(error) = self.write(service, &key, wanted).await
            {
                failure = Err(error);
            }
        }
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|key, _| matches!(plan.get(key), Some(Verdict::Pending(_))));
        drop(told);
        let keys: HashSet<Key> = all.iter().map(|it| Key::of(&it.metadata)).collect();
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        wanted.retain(|key, _| keys.contains(key));
        failure
    }

    fn remember(&self, key: &Key, addresses: &[String]) {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        wanted.insert(key.clone(), addresses.to_vec());
    }

    /// Whether the Service has addresses that somebody else wrote since it was looked at last.
    fn is_of_others(&self, service: &Service, nodes: &[String]) -> bool {
        let assigned = plan::assigned(service);
        let pool = &self.context.config.load_balancer_pool;
        let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        let known = wanted.get(&Key::of(&service.metadata));
        let differs = known.map_or(&[][..], Vec::as_slice) != assigned;
        differs
            && assigned
                .iter()
                .any(|ip| !nodes.contains(ip) && !plan::is_of_pool(ip, pool))
    }

    /// Says once why a Service waits.
    fn tell(&self, service: &Service, key: &Key, why: &str) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.insert(key.clone(), why.to_owned()).as_deref() != Some(why) {
            let about = reference("v1", "Service", &service.metadata);
            let reason = "AllocationFailed";
            self.context.recorder.warning(about, reason, why.to_owned());
        }
    }

    async fn write(
        &self,
        service: &Service,
        key: &Key,
        addresses: &[String],
    ) -> Result<(), ReconcileError> {
        let api: Api<Service> = Api::namespaced(self.context.client.clone(), &key.namespace);
        let ingress: Vec<_> = addresses.iter().map(|ip| json!({ "ip": ip })).collect();
        let ingress = (!ingress.is_empty()).then_some(ingress);
        let patch = json!({
            "metadata": {"uid": service.metadata.uid()},
            "status": {"loadBalancer": {"ingress": ingress}},
        });
        let params = PatchParams::default();
        let written = api
            .patch_status(&key.name, &params, &Patch::Merge(&patch))
            .await;
        unless_gone(written)?;
        Ok(())
    }
}
