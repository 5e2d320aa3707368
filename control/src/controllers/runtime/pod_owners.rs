//! What all controllers of pods share: a kind whose objects own pods.
//!
//! 1. A changed owner is worked on, and so is the owner of a changed pod; an orphan wakes every owner whose
//!    selector it matches.
//! 2. [`PodOwners::claim`] gives the pods of an owner, once it adopted and released what it must.
//! 3. [`PodOwners::change`] creates and deletes pods. While the cache does not show what was last done for
//!    an owner ([`PodOwners::settled`]), it must not be called again: a slow watch cannot make too many.

use std::collections::HashSet;
use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;
use windlass_api::label_selector::LabelSelector;

use super::expectations::Expectations;
use super::informer::{Cached, Change, Index, Informer};
use super::key::Key;
use super::metadata::{Metadata, controller_reference};
use super::ownership::claim;
use super::pod::Pod;
use super::recorder::{Recorder, Severity, reference};
use super::slow_start;
use super::work_queue::WorkQueue;
use super::worker::{
    Outcome, ReconcileError, is_namespace_terminating, is_not_found, message, work,
};

/// A kind whose objects own pods.
pub trait PodOwner:
    Cached<Object = Self>
    + kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + DeserializeOwned
{
    /// Finalizer of the owner's pods, if they have one: pods get it when they are adopted.
    const FINALIZER: Option<&'static str> = None;

    /// Which pods are the owner's.
    ///
    /// # Errors
    /// When the object's selector is none.
    fn selector(&self) -> Result<LabelSelector, ReconcileError>;
}

/// Reads a selector of an object's spec.
///
/// # Errors
/// When it is none.
pub fn selector_of(
    selector: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector>,
) -> Result<LabelSelector, ReconcileError> {
    LabelSelector::from_object(selector)
        .map_err(|error| ReconcileError::Object(format!("spec.selector: {error}")))
}

/// Why pods could not be created or deleted, for a condition of their owner.
#[derive(Debug)]
pub struct Failure {
    /// `FailedCreate` or `FailedDelete`.
    pub reason: &'static str,
    /// What the API said.
    pub message: String,
    /// The error itself.
    pub error: ReconcileError,
}

impl Failure {
    /// What was attempted, and why it failed.
    #[must_use]
    pub fn new(reason: &'static str, error: kube::Error) -> Self {
        Self {
            reason,
            message: message(&error),
            error: error.into(),
        }
    }
}

/// The owners of one kind and their pods.
pub struct PodOwners<K: PodOwner> {
    client: Client,
    recorder: Recorder,
    owners: Arc<Informer<K>>,
    pods: Arc<Informer<Pod>>,
    queue: Arc<WorkQueue<Key>>,
    expectations: Expectations,
}

impl<K: PodOwner> PodOwners<K> {
    /// The owners in one cache, and those of `pods` that are theirs; `queue` is to be theirs alone.
    #[must_use]
    pub fn new(
        client: Client,
        recorder: Recorder,
        owners: &Arc<Informer<K>>,
        pods: &Arc<Informer<Pod>>,
        queue: Arc<WorkQueue<Key>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            client,
            recorder,
            owners: Arc::clone(owners),
            pods: Arc::clone(pods),
            queue,
            expectations: Expectations::default(),
        })
    }

    /// The keys to work on. A controller adds those that something else than pods makes it look at.
    #[must_use]
    pub fn queue(&self) -> &Arc<WorkQueue<Key>> {
        &self.queue
    }

    /// Works on every owner that changed or whose pods did, until `stop`.
    pub async fn run<F, Fut>(
        self: Arc<Self>,
        name: &'static str,
        workers: usize,
        stop: CancellationToken,
        reconcile: F,
    ) where
        F: Fn(Key) -> Fut,
        Fut: Future<Output = Outcome>,
    {
        self.pods.synced().await;
        self.owners.synced().await;
        let (of_owners, of_pods) = (Arc::clone(&self), Arc::clone(&self));
        let _owners = self
            .owners
            .subscribe(move |change| of_owners.owner_changed(change));
        let _pods = self
            .pods
            .subscribe(move |change| of_pods.pod_changed(change));
        let queue = Arc::clone(&self.queue);
        work(name, queue, workers, stop, reconcile).await;
    }

    fn owner_changed(&self, change: Change<'_, K>) {
        let Some(owner) = change.either() else { return };
        let key = Key::of(owner.metadata());
        if change.new.is_none() {
            self.expectations.forget(&key);
        }
        self.queue.add(key);
    }

    fn pod_changed(&self, change: Change<'_, Pod>) {
        self.observe(change);
        let owners = change.both().filter_map(|pod| owner_key::<K>(pod));
        owners.for_each(|owner| self.queue.add(owner));
        if let Some(orphan) = change.new.filter(|pod| pod.metadata.controller().is_none()) {
            self.wake_adopters(orphan);
        }
    }

    /// Ticks off what was expected.
    fn observe(&self, change: Change<'_, Pod>) {
        let Some((pod, owner)) = change
            .either()
            .and_then(|pod| Some((pod, owner_key::<K>(pod)?)))
        else {
            return;
        };
        if change.new.is_none() || pod.metadata.is_terminating() {
            self.expectations.deleted(&owner, pod.metadata.uid());
        }
        if change.old.is_none() {
            self.expectations.created(&owner, 1);
        }
    }

    fn wake_adopters(&self, orphan: &Pod) {
        let namespace = Index::Namespace(orphan.metadata.namespace().to_owned());
        for owner in self.owners.by(&namespace) {
            let selector = owner.selector();
            if selector.is_ok_and(|selector| selector.matches(orphan.metadata.labels())) {
                self.queue.add(Key::of(owner.metadata()));
            }
        }
    }

    /// The owner of that key.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.owners.get(key)
    }

    /// Whether the cache shows everything that was done for the owner; if not, for how long to wait for it
    /// at most.
    ///
    /// # Errors
    /// The time until what was expected is given up.
    pub fn settled(&self, key: &Key) -> Result<(), Duration> {
        self.expectations.check(key)
    }

    /// The pods of the owner among those that `counts` lets through; it adopts and releases what it must.
    ///
    /// # Errors
    /// When the API refuses, or the selector is none.
    pub async fn claim(
        &self,
        owner: &K,
        counts: impl Fn(&Pod) -> bool,
    ) -> Result<Vec<Arc<Pod>>, ReconcileError> {
        let metadata = Cached::metadata(owner);
        let selector = owner.selector()?;
        let key = Key::of(metadata);
        let mut candidates = self.pods.by(&Index::Controller(metadata.uid().to_owned()));
        candidates.extend(self.pods.by(&Index::Orphan(key.namespace.to_string())));
        candidates.retain(|pod| counts(pod));
        let mut claims = claim(metadata, &selector, candidates);
        claims.finalizer = K::FINALIZER;
        let reference = controller_reference(&K::api_version(&()), &K::kind(&()), metadata);
        let (pods, owners) = (self.api::<core::Pod>(&key), self.api::<K>(&key));
        claims.carry_out(&pods, &owners, &reference).await
    }

    /// A pod of the owner's template; the API completes its name.
    #[must_use]
    pub fn pod(owner: &K, template: Option<&core::PodTemplateSpec>) -> core::Pod {
        let metadata = Cached::metadata(owner);
        let template = template.cloned().unwrap_or_default();
        let of_template = template.metadata.unwrap_or_default();
        core::Pod {
            metadata: ObjectMeta {
                generate_name: Some(format!("{}-", metadata.name())),
                namespace: metadata.namespace.clone(),
                labels: of_template.labels,
                annotations: of_template.annotations,
                finalizers: of_template.finalizers,
                owner_references: Some(vec![controller_reference(
                    &K::api_version(&()),
                    &K::kind(&()),
                    metadata,
                )]),
                ..ObjectMeta::default()
            },
            spec: template.spec,
            status: None,
        }
    }

    /// Creates pods, few at first, and deletes others. The next change waits until the cache shows this one.
    ///
    /// # Errors
    /// The first failure; the rest of a batch is attempted all the same.
    pub async fn change(
        &self,
        owner: &K,
        new: &[core::Pod],
        victims: &[Arc<Pod>],
    ) -> Result<(), Failure> {
        if new.is_empty() && victims.is_empty() {
            return Ok(());
        }
        let key = Key::of(Cached::metadata(owner));
        let uids = victims.iter().map(|pod| pod.metadata.uid().to_owned());
        let uids: HashSet<_> = uids.collect();
        self.expectations.expect(&key, new.len(), uids);
        let (created, deleted) = tokio::join!(
            self.create(&key, owner, new),
            self.delete(&key, owner, victims),
        );
        created.and(deleted)
    }

    async fn create(&self, key: &Key, owner: &K, new: &[core::Pod]) -> Result<(), Failure> {
        let api: Api<core::Pod> = self.api(key);
        let create = async |pod: &core::Pod| {
            let created = api.create(&PostParams::default(), pod).await?;
            let name = created.metadata.name();
            self.normal(owner, "SuccessfulCreate", format!("Created pod: {name}"));
            Ok::<_, kube::Error>(())
        };
        let step = |at| {
            let pod = new.get(at);
            async move {
                match pod {
                    Some(pod) => create(pod).await,
                    None => Ok(()),
                }
            }
        };
        let (successes, error) = slow_start::repeat(new.len(), step).await;
        self.expectations.created(key, new.len() - successes);
        let Some(error) = error else { return Ok(()) };
        if !is_namespace_terminating(&error) {
            let text = format!("Error creating: {}", message(&error));
            self.warning(owner, "FailedCreate", text);
        }
        Err(Failure::new("FailedCreate", error))
    }

    async fn delete(&self, key: &Key, owner: &K, victims: &[Arc<Pod>]) -> Result<(), Failure> {
        let deletions = victims.iter().map(|pod| self.delete_one(key, owner, pod));
        let results = futures::future::join_all(deletions).await;
        match results.into_iter().find_map(Result::err) {
            Some(error) => Err(Failure::new("FailedDelete", error)),
            None => Ok(()),
        }
    }

    async fn delete_one(&self, key: &Key, owner: &K, pod: &Pod) -> Result<(), kube::Error> {
        let api: Api<core::Pod> = self.api(key);
        let (name, uid) = (pod.metadata.name(), pod.metadata.uid());
        let params = DeleteParams::default().preconditions(Preconditions {
            uid: Some(uid.to_owned()),
            resource_version: None,
        });
        match api.delete(name, &params).await {
            Ok(_) => {
                self.normal(owner, "SuccessfulDelete", format!("Deleted pod: {name}"));
                Ok(())
            }
            Err(error) => {
                self.expectations.deleted(key, uid);
                if is_not_found(&error) {
                    return Ok(());
                }
                let text = format!("Error deleting: {}", message(&error));
                self.warning(owner, "FailedDelete", text);
                Err(error)
            }
        }
    }

    /// Tells people that things go the owner's way.
    pub fn normal(&self, owner: &K, reason: &'static str, message: String) {
        self.say(owner, Severity::Normal, reason, message);
    }

    /// Tells people that something is wrong with the owner.
    pub fn warning(&self, owner: &K, reason: &'static str, message: String) {
        self.say(owner, Severity::Warning, reason, message);
    }

    fn say(&self, owner: &K, severity: Severity, reason: &'static str, message: String) {
        let about = reference(&K::api_version(&()), &K::kind(&()), Cached::metadata(owner));
        self.recorder.event(about, severity, reason, message);
    }

    /// The objects of a kind in the key's namespace.
    pub fn api<T>(&self, key: &Key) -> Api<T>
    where
        T: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &key.namespace)
    }
}

/// The key of the pod's controller, if that is one of the kind.
fn owner_key<K: PodOwner>(pod: &Pod) -> Option<Key> {
    let owner = pod.metadata.controller()?;
    let group = owner.api_version.rsplit_once('/');
    let group = group.map(|(group, _)| group).unwrap_or_default();
    let is_own = owner.kind == K::kind(&()) && group == K::group(&());
    is_own.then(|| Key::new(pod.metadata.namespace(), &owner.name))
}

impl<K: PodOwner> Debug for PodOwners<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PodOwners({})", K::kind(&()))
    }
}
