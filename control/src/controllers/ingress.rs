//! Addresses of Ingresses: those of the nodes that serve them.
//!
//! 1. Ours are the Ingresses of a class whose controller is [`CONTROLLER`]; others are left alone.
//! 2. The nodes are those that an administrator labelled with [`NODE_LABEL`] and that are ready.
//! 3. A change of an Ingress wakes it; one of classes or nodes wakes all.
//!
//! What the nodes do with Ingresses is theirs; here is the one writer of `status.loadBalancer`.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use windlass_api::ingress::{CLASS_ANNOTATION, CONTROLLER, NODE_LABEL};

use super::Context;
use super::load_balancer::node_addresses;
use super::runtime::key::Key;
use super::runtime::metadata::Metadata;
use super::runtime::work_queue::WorkQueue;
use super::runtime::worker::{Outcome, unless_gone, work};

const NAME: &str = "ingress-controller";
const WORKERS: usize = 2;

/// Starts the controller.
pub(super) fn start(context: Context) -> BoxFuture<'static, ()> {
    Box::pin(run(context))
}

async fn run(context: Context) {
    let queue = context.queue();
    let informers = &context.informers;
    informers.ingress_classes.synced().await;
    informers.nodes.synced().await;
    let own = Arc::clone(&queue);
    let _ingresses = informers.ingresses.subscribe(move |change| {
        if let Some(ingress) = change.new {
            own.add(Key::of(&ingress.metadata));
        }
    });
    let wake_all = |queue: &Arc<WorkQueue<Key>>| {
        let (queue, ingresses) = (Arc::clone(queue), Arc::clone(&informers.ingresses));
        move || {
            for ingress in ingresses.all() {
                queue.add(Key::of(&ingress.metadata));
            }
        }
    };
    let (of_classes, of_nodes) = (wake_all(&queue), wake_all(&queue));
    let _classes = informers.ingress_classes.subscribe(move |_| of_classes());
    let _nodes = informers.nodes.subscribe(move |change| {
        let addresses = |node: Option<&Arc<Node>>| serving(node.map(AsRef::as_ref).into_iter());
        if addresses(change.old) != addresses(change.new) {
            of_nodes();
        }
    });
    let stop = context.stop.clone();
    work(NAME, queue, WORKERS, stop, |key| reconcile(&context, key)).await;
}

async fn reconcile(context: &Context, key: Key) -> Outcome {
    let informers = &context.informers;
    let Some(ingress) = informers.ingresses.get(&key) else {
        return Ok(None);
    };
    let classes = informers.ingress_classes.all();
    let nodes = informers.nodes.all();
    let nodes = serving(nodes.iter().map(AsRef::as_ref));
    let Some(addresses) = plan(&ingress, classes.iter().map(AsRef::as_ref), &nodes) else {
        return Ok(None);
    };
    let addresses: Vec<_> = addresses.iter().map(|ip| json!({ "ip": ip })).collect();
    let addresses = (!addresses.is_empty()).then_some(addresses);
    let patch = json!({
        "metadata": {"uid": ingress.metadata.uid()},
        "status": {"loadBalancer": {"ingress": addresses}},
    });
    let api: Api<Ingress> = Api::namespaced(context.client.clone(), &key.namespace);
    let params = PatchParams::default();
    let written = api
        .patch_status(&key.name, &params, &Patch::Merge(&patch))
        .await;
    unless_gone(written)?;
    Ok(None)
}

/// The addresses of the nodes that serve Ingresses.
fn serving<'a>(nodes: impl Iterator<Item = &'a Node>) -> Vec<String> {
    let labelled = |node: &&Node| {
        let label = node.metadata.labels().get(NODE_LABEL);
        label.is_some_and(|value| value == "true")
    };
    node_addresses(nodes.filter(labelled))
}

/// The addresses that an Ingress is to be given, if it is ours and has others.
fn plan<'a>(
    ingress: &Ingress,
    mut classes: impl Iterator<Item = &'a IngressClass>,
    nodes: &[String],
) -> Option<Vec<String>> {
    let spec = ingress.spec.as_ref();
    let named = spec.and_then(|spec| spec.ingress_class_name.as_ref());
    let class = named.or_else(|| ingress.metadata.annotations().get(CLASS_ANNOTATION))?;
    let class = classes.find(|it| it.metadata.name.as_ref() == Some(class))?;
    let controller = class.spec.as_ref()?.controller.as_deref();
    if controller != Some(CONTROLLER) || ingress.metadata.is_terminating() {
        return None;
    }
    let status = ingress.status.as_ref();
    let balancer = status.and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
    let has: BTreeSet<_> = balancer
        .into_iter()
        .flatten()
        .map(|it| it.ip.as_ref())
        .collect();
    let wanted: BTreeSet<_> = nodes.iter().map(Some).collect();
    (has != wanted).then(|| nodes.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn ingress(more: &Value) -> Ingress {
        let mut object = json!({"metadata": {"namespace": "a", "name": "web"}});
        json_patch::merge(&mut object, more);
        serde_json::from_value(object).unwrap()
    }

    fn class(name: &str, controller: &str) -> IngressClass {
        let object = json!({"metadata": {"name": name}, "spec": {"controller": controller}});
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn ingresses_of_our_classes_get_the_nodes_addresses() {
        let classes = [
            class("windlass", CONTROLLER),
            class("other", "example.com/c"),
        ];
        let nodes = ["192.0.2.1".to_owned(), "192.0.2.2".to_owned()];
        let of = |class: &str| json!({"spec": {"ingressClassName": class}});
        let with = |ips: &[&str]| {
            let ips: Vec<_> = ips.iter().map(|ip| json!({"ip": ip})).collect();
            let mut object = of("windlass");
            object["status"] = json!({"loadBalancer": {"ingress": ips}});
            object
        };
        let annotated = json!({"metadata": {"annotations": {CLASS_ANNOTATION: "windlass"}}});
        let mut leaving = of("windlass");
        leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        for (object, given) in [
            (of("windlass"), true),
            (annotated, true),
            (with(&["192.0.2.1"]), true),
            (with(&["192.0.2.2", "192.0.2.1"]), false),
            (of("other"), false),
            (of("nosuch"), false),
            (json!({}), false),
            (leaving, false),
        ] {
            let plan = plan(&ingress(&object), classes.iter(), &nodes);
            assert_eq!(plan, given.then(|| nodes.to_vec()), "{object}");
        }
        let none = plan(&ingress(&with(&["192.0.2.1"])), classes.iter(), &[]);
        assert_eq!(none, Some(Vec::new()));
    }

    #[test]
    fn only_nodes_that_were_made_to_serve_have_addresses() {
        let node = |label: Option<&str>, address: &str| -> Node {
            serde_json::from_value(
                json!({"metadata": {"labels": {NODE_LABEL: label}}, "status": {
                "conditions": [{"type": "Ready", "status": "True"}],
                "addresses": [{"type": "InternalIP", "address": address}]}}),
            )
            .unwrap()
        };
        let nodes = [
            node(Some("true"), "192.0.2.1"),
            node(Some("false"), "192.0.2.2"),
        ];
        assert_eq!(serving(nodes.iter()), ["192.0.2.1"]);
    }
}
