//! EndpointSlices of Services with a selector, and the Endpoints of the same name.
//!
//! A Service is looked at when it, one of its pods or one of its slices changes. `endpoints.rs` says who
//! is behind it, `slices.rs` how that is best spread over slices, `mirror.rs` what the Endpoints show.
//! The Endpoints of Services without a selector are their user's business; `mirroring.rs`, a controller of its
//! own, makes slices of them.

mod endpoints;
mod mirror;
mod mirroring;
mod slices;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Endpoints, Node, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use windlass_api::label_selector::LabelSelector;

use super::Context;
use super::runtime::informer::{Change, Index};
use super::runtime::informers::SERVICE_NAME;
use super::runtime::key::Key;
use super::runtime::metadata::Metadata;
use super::runtime::pod::Pod;
use super::runtime::work_queue::WorkQueue;
use super::runtime::worker::{
    Outcome, ReconcileError, is_namespace_terminating, unless_gone, work,
};

const NAME: &str = "endpointslice-controller";
const WORKERS: usize = 4;
const ZONE: &str = "topology.kubernetes.io/zone";

pub(super) use mirroring::start as start_mirroring;

/// Starts the controller.
pub(super) fn start(context: Context) -> BoxFuture<'static, ()> {
    Box::pin(run(context))
}

async fn run(context: Context) {
    let queue = context.queue();
    let controller = Arc::new(Controller {
        queue: Arc::clone(&queue),
        context,
    });
    let informers = &controller.context.informers;
    informers.services.synced().await;
    informers.pods.synced().await;
    informers.nodes.synced().await;
    informers.endpoint_slices.synced().await;
    informers.endpoints.synced().await;
    let [of_services, of_pods, of_slices, of_endpoints] = [(); 4].map(|()| Arc::clone(&controller));
    let _services = informers.services.subscribe(move |change| {
        if let Some(service) = change.either() {
            of_services.queue.add(Key::of(&service.metadata));
        }
    });
    let _pods = informers
        .pods
        .subscribe(move |change| of_pods.pod_changed(change));
    let _slices = informers.endpoint_slices.subscribe(move |change| {
        // Its own new slices are no news; changed and removed ones are repaired.
        if let Some(old) = change
            .old
            .filter(|old| slices::is_managed(old, slices::MANAGER))
        {
            of_slices.wake_owner(old);
        }
    });
    let _endpoints = informers.endpoints.subscribe(move |change| {
        if let Some(old) = change.old {
            of_endpoints.queue.add(Key::of(&old.metadata));
        }
    });
    let stop = controller.context.stop.clone();
    work(NAME, queue, WORKERS, stop, |key| controller.reconcile(key)).await;
}

struct Controller {
    context: Context,
    queue: Arc<WorkQueue<Key>>,
}

impl Controller {
    fn pod_changed(&self, change: Change<'_, Pod>) {
        if let (Some(old), Some(new)) = (change.old, change.new)
            && !endpoints::differ(old, new)
        {
            return;
        }
        let Some(pod) = change.either() else { return };
        let namespace = Index::Namespace(pod.metadata.namespace().to_owned());
        for service in self.context.informers.services.by(&namespace) {
            let Some(selector) = selector_of(&service) else {
                continue;
            };
            if change
                .both()
                .any(|pod| selector.matches(pod.metadata.labels()))
            {
                self.queue.add(Key::of(&service.metadata));
            }
        }
    }

    fn wake_owner(&self, slice: &EndpointSlice) {
        if let Some(service) = slice.metadata.labels().get(SERVICE_NAME) {
            self.queue
                .add(Key::new(slice.metadata.namespace(), service));
        }
    }

    async fn reconcile(&self, key: Key) -> Outcome {
        let Some(service) = self.context.informers.services.get(&key) else {
            self.remove_endpoints(&key).await?;
            return Ok(None);
        };
        if service.metadata.is_terminating() || selector_of(&service).is_none() {
            return Ok(None);
        }
        let pods = self.pods_of(&service);
        let zones = |node: &str| self.zone(node);
        let groups = endpoints::groups(&service, &pods, &zones);
        let result = async {
            let owner = slices::Owner::service(&service);
            write_slices(&self.context, &key, &owner, slices::MANAGER, &groups).await?;
            self.write_endpoints(&key, &service, &pods).await
        };
        match result.await {
            Err(error) if is_namespace_terminating(&error) => Ok(None),
            Err(error) => Err(error.into()),
            Ok(()) => Ok(None),
        }
    }

    /// The pods that the Service selects, found by its rarest label.
    fn pods_of(&self, service: &Service) -> Vec<Arc<Pod>> {
        let selector = selector_of(service).unwrap_or_else(LabelSelector::nothing);
        let labels = service
            .spec
            .as_ref()
            .and_then(|spec| spec.selector.as_ref());
        let namespace = service.metadata.namespace();
        let cache = &self.context.informers.pods;
        let indexes = labels
            .into_iter()
            .flatten()
            .map(|(key, value)| Index::Label(namespace.to_owned(), key.clone(), value.clone()));
        let Some(rarest) = indexes.min_by_key(|index| cache.count(index)) else {
            return Vec::new();
        };
        let mut pods = cache.by(&rarest);
        pods.retain(|pod| selector.matches(pod.metadata.labels()));
        pods.sort_by(|a, b| a.metadata.name().cmp(b.metadata.name()));
        pods
    }

    fn zone(&self, node: &str) -> Option<String> {
        let node: Arc<Node> = self.context.informers.nodes.get(&Key::cluster(node))?;
        node.metadata.labels().get(ZONE).cloned()
    }

    async fn write_endpoints(
        &self,
        key: &Key,
        service: &Service,
        pods: &[Arc<Pod>],
    ) -> Result<(), kube::Error> {
        let known = self.context.informers.endpoints.get(key);
        let Some(wanted) = mirror::plan(service, pods, known.as_deref()) else {
            return Ok(());
        };
        let api = self.endpoints(key);
        if known.is_some() {
            api.replace(&key.name, &PostParams::default(), &wanted)
                .await?;
        } else {
            api.create(&PostParams::default(), &wanted).await?;
        }
        Ok(())
    }

    /// The Endpoints of a Service go with it.
    async fn remove_endpoints(&self, key: &Key) -> Result<(), ReconcileError> {
        if self
            .context
            .informers
            .endpoints
            .get(key)
            .is_some_and(|it| mirror::is_managed(&it))
        {
            let api = self.endpoints(key);
            unless_gone(api.delete(&key.name, &DeleteParams::default()).await)?;
        }
        Ok(())
    }

    fn endpoints(&self, key: &Key) -> Api<Endpoints> {
        Api::namespaced(self.context.client.clone(), &key.namespace)
    }
}

/// Makes the slices that `manager` has made of a Service show `groups`.
async fn write_slices(
    context: &Context,
    key: &Key,
    owner: &slices::Owner,
    manager: &str,
    groups: &BTreeMap<endpoints::Group, Vec<Endpoint>>,
) -> Result<(), kube::Error> {
    let index = Index::Service(key.namespace.to_string(), key.name.to_string());
    let mut known = context.informers.endpoint_slices.by(&index);
    known.retain(|slice| slices::is_managed(slice, manager));
    let api: Api<EndpointSlice> = Api::namespaced(context.client.clone(), &key.namespace);
    for action in slices::plan(owner, groups, &known) {
        match action {
            slices::Action::Create(slice) => {
                api.create(&PostParams::default(), &slice).await?;
            }
            slices::Action::Update(slice) => {
                api.replace(slice.metadata.name(), &PostParams::default(), &slice)
                    .await?;
            }
            slices::Action::Delete(name) => {
                unless_gone(api.delete(&name, &DeleteParams::default()).await)?;
            }
        }
    }
    Ok(())
}

/// The selector, if the Service has one that selects something.
fn selector_of(service: &Service) -> Option<LabelSelector> {
    let spec = service.spec.as_ref()?;
    let labels = spec.selector.as_ref().filter(|labels| !labels.is_empty())?;
    (spec.type_.as_deref() != Some("ExternalName")).then(|| LabelSelector::from_map(labels))
}

/// Whether the Service has no address of its own.
fn is_headless(service: &Service) -> bool {
    let address = service
        .spec
        .as_ref()
        .and_then(|spec| spec.cluster_ip.as_deref());
    address == Some("None")
}
