//! ServiceAccount `default`: every namespace has one, so that every pod has an identity.

use std::sync::Arc;

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::PostParams;

use super::Context;
use super::runtime::key::Key;
use super::runtime::metadata::Metadata;
use super::runtime::worker::{Outcome, is_already_exists, is_namespace_terminating, work};

const DEFAULT: &str = "default";
const WORKERS: usize = 4;

/// Starts the controller.
pub(super) fn start(context: Context) -> BoxFuture<'static, ()> {
    Box::pin(run(context))
}

async fn run(context: Context) {
    let queue = context.queue();
    let informers = &context.informers;
    informers.namespaces.synced().await;
    informers.default_accounts.synced().await;
    let (of_namespaces, of_accounts) = (Arc::clone(&queue), Arc::clone(&queue));
    let _namespaces = informers.namespaces.subscribe(move |change| {
        if let Some(namespace) = change.new {
            of_namespaces.add(Key::of(&namespace.metadata));
        }
    });
    let _accounts = informers.default_accounts.subscribe(move |change| {
        if let (Some(old), None) = (change.old, change.new) {
            let namespace = super::runtime::informer::Cached::metadata(&**old).namespace();
            of_accounts.add(Key::cluster(namespace));
        }
    });
    let stop = context.stop.clone();
    work("service-account-controller", queue, WORKERS, stop, |key| {
        ensure(&context, key)
    })
    .await;
}

/// Whether things may be made in the namespace.
pub(super) fn is_active(namespace: &Namespace) -> bool {
    let phase = namespace
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    phase != Some("Terminating") && !namespace.metadata.is_terminating()
}

async fn ensure(context: &Context, namespace: Key) -> Outcome {
    let found = context.informers.namespaces.get(&namespace);
    let account = Key::new(&namespace.name, DEFAULT);
    let missing = context.informers.default_accounts.get(&account).is_none();
    if !found.is_some_and(|namespace| is_active(&namespace)) || !missing {
        return Ok(None);
    }
    let api: Api<ServiceAccount> = Api::namespaced(context.client.clone(), &namespace.name);
    let account = ServiceAccount {
        metadata: ObjectMeta {
            name: Some(DEFAULT.into()),
            namespace: Some(namespace.name.to_string()),
            ..ObjectMeta::default()
        },
        ..ServiceAccount::default()
    };
    match api.create(&PostParams::default(), &account).await {
        Err(error) if !is_already_exists(&error) && !is_namespace_terminating(&error) => {
            Err(error.into())
        }
        _ => Ok(None),
    }
}
