//! RBAC: who may do what by roles and bindings.
//!
//! `rule.rs` says what one rule allows, `index.rs` finds the rules of a user. [`Rbac`] keeps the index as
//! current as the store: before each decision it takes in what changed among roles and bindings, which its
//! watches tell without waiting. A decision therefore knows of every write that was acknowledged before it,
//! and costs what the user's own bindings cost, however many others there are.

pub(crate) mod defaults;
mod index;
mod rule;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use crate::identity::UserInfo;
use crate::store::{Entry, Freshness, KeyRange, Snapshot, Store, StoreError, Watch};
use index::Index;
pub use rule::{Action, Rule};

/// The API group of roles and bindings.
pub const GROUP: &str = "rbac.authorization.k8s.io";
/// Its resources; whether each is a role or a binding.
const RESOURCES: [(&str, bool); 4] = [
    ("clusterroles", true),
    ("roles", true),
    ("clusterrolebindings", false),
    ("rolebindings", false),
];

/// Decides by roles and bindings; by default by none.
#[derive(Default)]
pub struct Rbac {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    index: Index,
    /// One for each of [`RESOURCES`].
    watches: Vec<Watch>,
}

impl Rbac {
    /// Over the roles and bindings in `store`.
    ///
    /// # Errors
    /// What the store says.
    pub async fn open(store: &dyn Store) -> Result<Self, StoreError> {
        let snapshot = store.snapshot(Freshness::Latest).await?;
        let mut watches = Vec::with_capacity(RESOURCES.len());
        for (plural, _) in RESOURCES {
            let range = KeyRange::resource(GROUP, plural);
            watches.push(store.watch(range, snapshot.revision()).await?);
        }
        let index = index_of(&snapshot);
        Ok(Self {
            state: Mutex::new(State { index, watches }),
        })
    }

    /// The state with everything taken in that has happened. `snapshot` is what to begin anew from should
    /// the history of roles and bindings have been dropped meanwhile.
    fn current(&self, snapshot: &Snapshot) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { index, watches } = &mut *state;
        let mut is_behind = false;
        for (watch, (_, is_role)) in watches.iter_mut().zip(RESOURCES) {
            loop {
                let Ok(events) = watch.ready() else {
                    is_behind = true;
                    break;
                };
                if events.is_empty() {
                    break;
                }
                for event in events {
                    put(index, is_role, &event.entry, event.deleted);
                }
            }
        }
        if is_behind {
            *index = index_of(snapshot);
            for watch in watches {
                watch.restart(snapshot.revision());
            }
        }
        state
    }

    /// Whether some binding lets the user do it; in a namespace, or cluster-wide without one.
    #[must_use]
    pub fn allows(
        &self,
        snapshot: &Snapshot,
        user: &UserInfo,
        namespace: &str,
        action: &Action<'_>,
    ) -> bool {
        self.current(snapshot).index.allows(user, namespace, action)
    }

    /// Every rule that applies to the user there.
    #[must_use]
    pub fn rules(&self, snapshot: &Snapshot, user: &UserInfo, namespace: &str) -> Vec<Rule> {
        let state = self.current(snapshot);
        state.index.rules(user, namespace).cloned().collect()
    }

    /// What of the wanted rules the user does not have there.
    #[must_use]
    pub fn missing(
        &self,
        snapshot: &Snapshot,
        user: &UserInfo,
        namespace: &str,
        wanted: &[Rule],
    ) -> Vec<Rule> {
        self.current(snapshot)
            .index
            .missing(user, namespace, wanted)
    }

    /// The rules of a role, or of a ClusterRole without a namespace, if it is there.
    #[must_use]
    pub fn role(&self, snapshot: &Snapshot, namespace: &str, name: &str) -> Option<Arc<[Rule]>> {
        self.current(snapshot).index.role(namespace, name)
    }
}

fn index_of(snapshot: &Snapshot) -> Index {
    let mut index = Index::default();
    for (plural, is_role) in RESOURCES {
        for entry in snapshot.range(&KeyRange::resource(GROUP, plural), None) {
            put(&mut index, is_role, entry, false);
        }
    }
    index
}

fn put(index: &mut Index, is_role: bool, entry: &Entry, deleted: bool) {
    // What cannot be read grants nothing.
    let object: Option<Value> = serde_json::from_slice(&entry.bytes).ok();
    let object = object.filter(|_| !deleted);
    let (namespace, name) = (entry.key.namespace(), entry.key.name());
    if is_role {
        index.put_role(namespace, name, object.as_ref());
    } else {
        index.put_binding(namespace, name, object.as_ref());
    }
}

impl std::fmt::Debug for Rbac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rbac")
    }
}
