//! Which connections NetworkPolicies allow.
//!
//! ```text
//!   NetworkPolicy ─┐
//!                  ├─► PolicyTable ── allows(traffic) ─► rules.rs, pure
//!   Namespace ─────┘        ▲
//!                           └ who the two ends are: pods of this node are known, pods of other nodes are
//!                             told by their own agents as a connection is made (`tunnel/`)
//! ```
//!
//! 1. Egress is checked at the pod's own node, ingress at the node of the pod that is connected to.
//! 2. A connection that is there goes on when policies change; each new one, and each datagram, goes by what
//!    holds then.
//! 3. Until the policies were listed nothing is let through: [`PolicyTable::known`] waits for that.
//! 4. What the node itself does to its pods (probes, port-forward) is not asked for, nor what a pod does to
//!    itself.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use tokio::sync::watch;
use windlass_wasi_shims::net::NetError;

use super::follow::{Feed, ObjectKey, follow};
use super::switch::CONNECT_TIMEOUT;

#[cfg(test)]
mod cases;
mod names;
mod rules;
#[cfg(test)]
mod tests;

pub(super) use names::{KnownNames, NamePattern};
pub(super) use rules::{Direction, Peer, Traffic};
use rules::{Labels, Policy};
pub use rules::{NamedPort, PodIdentity};

/// How long an API server that does not show its policies is left alone.
const RETRY: Duration = Duration::from_secs(60);

/// What is known of the policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Knowledge {
    /// Nobody watches them: everything is allowed.
    Unwatched,
    /// They are about to be listed.
    Awaited,
    Listed,
}

/// The cluster's NetworkPolicies, and the labels of its namespaces.
pub(super) struct PolicyTable {
    state: RwLock<State>,
    knowledge: watch::Sender<Knowledge>,
}

#[derive(Default)]
struct State {
    /// By namespace, then by name.
    policies: HashMap<String, BTreeMap<String, Policy>>,
    namespaces: HashMap<String, Labels>,
}

/// What isolates a pod in a direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Isolation {
    None,
    /// By rules about addresses and numbers.
    Addresses,
    /// By rules that ask which pod the other end is.
    Pods,
}

impl PolicyTable {
    pub(super) fn new() -> Self {
        Self {
            state: RwLock::default(),
            knowledge: watch::channel(Knowledge::Unwatched).0,
        }
    }

    /// Waits until the policies are known. Cancel-safe.
    ///
    /// # Errors
    /// They were not in time.
    pub(super) async fn known(&self) -> Result<(), NetError> {
        if self.are_known() {
            return Ok(());
        }
        let mut knowledge = self.knowledge.subscribe();
        let known = knowledge.wait_for(|knowledge| *knowledge != Knowledge::Awaited);
        match tokio::time::timeout(CONNECT_TIMEOUT, known).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(NetError::Timeout),
        }
    }

    /// Whether the policies are known now.
    pub(super) fn are_known(&self) -> bool {
        *self.knowledge.borrow() != Knowledge::Awaited
    }

    /// What isolates the pod in that direction.
    pub(super) fn isolation(&self, pod: &PodIdentity, direction: Direction) -> Isolation {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let all = state.policies.get(&pod.namespace);
        let mut isolation = Isolation::None;
        for policy in all.into_iter().flat_map(BTreeMap::values) {
            if policy.isolates(pod, direction) {
                if policy.asks_for_pods(direction) {
                    return Isolation::Pods;
                }
                isolation = Isolation::Addresses;
            }
        }
        isolation
    }

    /// Whether the policies let the traffic through.
    pub(super) fn allows(&self, traffic: &Traffic<'_>) -> bool {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let Some(all) = state.policies.get(&traffic.subject.namespace) else {
            return true;
        };
        let mut isolated = false;
        for policy in all.values() {
            if policy.isolates(traffic.subject, traffic.direction) {
                isolated = true;
                if policy.allows(traffic, |namespace| state.namespaces.get(namespace)) {
                    return true;
                }
            }
        }
        !isolated
    }

    /// From now on policies are to be known before anything is allowed.
    pub(super) fn await_policies(&self) {
        self.knowledge.send_if_modified(|knowledge| {
            let changes = *knowledge == Knowledge::Unwatched;
            if changes {
                *knowledge = Knowledge::Awaited;
            }
            changes
        });
    }

    /// Keeps the table in step until dropped.
    pub(super) async fn watch(&self, client: Client) {
        self.await_policies();
        let policies = Api::<NetworkPolicy>::all(client.clone());
        self.until_readable(&policies).await;
        let namespaces = follow(Api::<Namespace>::all(client), NamespaceFeed(self));
        tokio::join!(namespaces, follow(policies, PolicyFeed(self)));
    }

    /// An API server may not show its policies to nodes: then they are not for this agent to enforce.
    async fn until_readable(&self, policies: &Api<NetworkPolicy>) {
        let one = ListParams::default().limit(1);
        while let Err(kube::Error::Api(status)) = policies.list(&one).await
            && status.code == 403
        {
            if self.knowledge.send_replace(Knowledge::Unwatched) == Knowledge::Awaited {
                let message = status.message;
                tracing::warn!(message, "NetworkPolicies are not enforced on this node");
            }
            tokio::time::sleep(RETRY).await;
        }
        self.await_policies();
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// Takes one policy in, as the watch would.
    pub(super) fn apply_policy(&self, object: &NetworkPolicy) {
        let listed = object.annotations().get(names::ANNOTATION);
        let (names, wrong) = listed.map_or_else(Default::default, |value| NamePattern::list(value));
        let key = ObjectKey::of(object);
        for name in wrong {
            let (namespace, policy) = (&key.namespace, &key.name);
            let annotation = names::ANNOTATION;
            tracing::warn!(
                namespace,
                policy,
                name,
                annotation,
                "not a name: opens nothing"
            );
        }
        let policy = Policy::compile(object, names);
        self.change(|state| {
            let of_namespace = state.policies.entry(policy.namespace().to_owned());
            of_namespace.or_default().insert(key.name, policy);
        });
    }

    /// Takes the labels of a namespace in, as the watch would.
    pub(super) fn apply_namespace(&self, name: &str, labels: Labels) {
        self.change(|state| {
            state.namespaces.insert(name.to_owned(), labels);
        });
    }
}

struct PolicyFeed<'a>(&'a PolicyTable);

impl Feed<NetworkPolicy> for PolicyFeed<'_> {
    fn apply(&self, object: &NetworkPolicy) {
        self.0.apply_policy(object);
    }

    fn delete(&self, key: &ObjectKey) {
        self.0.change(|state| {
            if let Some(policies) = state.policies.get_mut(&key.namespace) {
                policies.remove(&key.name);
                if policies.is_empty() {
                    state.policies.remove(&key.namespace);
                }
            }
        });
    }

    fn retain(&self, present: &HashSet<ObjectKey>) {
        self.0.change(|state| {
            state.policies.retain(|namespace, policies| {
                policies.retain(|name, _| present.contains(&ObjectKey::new(namespace, name)));
                !policies.is_empty()
            });
        });
        self.0.knowledge.send_replace(Knowledge::Listed);
    }
}

struct NamespaceFeed<'a>(&'a PolicyTable);

impl Feed<Namespace> for NamespaceFeed<'_> {
    fn apply(&self, object: &Namespace) {
        self.0
            .apply_namespace(&object.name_any(), object.labels().clone());
    }

    fn delete(&self, key: &ObjectKey) {
        self.0.change(|state| {
            state.namespaces.remove(&key.name);
        });
    }

    fn retain(&self, present: &HashSet<ObjectKey>) {
        self.0.change(|state| {
            state
                .namespaces
                .retain(|name, _| present.contains(&ObjectKey::new("", name)));
        });
    }
}
