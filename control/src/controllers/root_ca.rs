//! ConfigMap `kube-root-ca.crt`: every namespace holds the certificate that the API is trusted by.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::PostParams;

use super::Context;
use super::runtime::informers::ROOT_CA;
use super::runtime::key::Key;
use super::runtime::metadata::Metadata;
use super::runtime::worker::{Outcome, is_already_exists, is_namespace_terminating, work};
use super::service_account::is_active;

const DATA_KEY: &str = "ca.crt";
const DESCRIPTION: (&str, &str) = (
    "kubernetes.io/description",
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.",
);
const WORKERS: usize = 4;

/// Starts the controller.
pub(super) fn start(context: Context) -> BoxFuture<'static, ()> {
    Box::pin(run(context))
}

async fn run(context: Context) {
    let queue = context.queue();
    let informers = &context.informers;
    informers.namespaces.synced().await;
    informers.root_cas.synced().await;
    let (of_namespaces, of_maps) = (Arc::clone(&queue), Arc::clone(&queue));
    let _namespaces = informers.namespaces.subscribe(move |change| {
        if let Some(namespace) = change.new {
            of_namespaces.add(Key::of(&namespace.metadata));
        }
    });
    let _maps = informers.root_cas.subscribe(move |change| {
        if let (Some(map), Some(_)) = (change.either(), change.old) {
            of_maps.add(Key::cluster(map.metadata.namespace()));
        }
    });
    let mut changes = context.config.signer.changes();
    let everywhere = async {
        while changes.changed().await.is_ok() {
            for namespace in informers.namespaces.all() {
                queue.add(Key::of(&namespace.metadata));
            }
        }
        std::future::pending::<()>().await;
    };
    let stop = context.stop.clone();
    let publish = work(
        "root-ca-cert-publisher",
        Arc::clone(&queue),
        WORKERS,
        stop,
        |key| ensure(&context, key),
    );
    tokio::select! {
        () = everywhere => {}
        () = publish => {}
    }
}

async fn ensure(context: &Context, namespace: Key) -> Outcome {
    let found = context.informers.namespaces.get(&namespace);
    if !found.is_some_and(|namespace| is_active(&namespace)) {
        return Ok(None);
    }
    let data = BTreeMap::from([(DATA_KEY.into(), context.config.signer.trusted().to_string())]);
    let known = context
        .informers
        .root_cas
        .get(&Key::new(&namespace.name, ROOT_CA));
    let api: Api<ConfigMap> = Api::namespaced(context.client.clone(), &namespace.name);
    let Some(known) = known else {
        let map = ConfigMap {
            metadata: ObjectMeta {
                name: Some(ROOT_CA.into()),
                namespace: Some(namespace.name.to_string()),
                annotations: Some([(DESCRIPTION.0.into(), DESCRIPTION.1.into())].into()),
                ..ObjectMeta::default()
            },
            data: Some(data),
            ..ConfigMap::default()
        };
        return match api.create(&PostParams::default(), &map).await {
            Err(error) if !is_already_exists(&error) && !is_namespace_terminating(&error) => {
                Err(error.into())
            }
            _ => Ok(None),
        };
    };
    if known.data.as_ref() != Some(&data) {
        let mut map = ConfigMap::clone(&known);
        map.data = Some(data);
        api.replace(ROOT_CA, &PostParams::default(), &map).await?;
    }
    Ok(None)
}
