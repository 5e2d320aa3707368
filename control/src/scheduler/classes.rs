//! Placed pods, grouped by everything that other pods' rules can ask of them.
//!
//! The replicas of a template are alike, so a selector is tried once per class instead of once per pod:
//! rules about other pods cost by the number of different pods, not by their number.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::pod_affinity::PodAffinity;

/// What is the same of all pods of a class.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Class {
    pub(super) namespace: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) is_terminating: bool,
    pub(super) affinity: PodAffinity,
}

/// Number of pods by name of their node.
pub(super) type ByNode = HashMap<Arc<str>, i64>;

/// All classes with pods.
#[derive(Debug, Default)]
pub(super) struct Classes {
    by_namespace: HashMap<String, HashMap<Arc<Class>, ByNode>>,
    /// Those that have something to say about other pods.
    with_affinity: HashSet<Arc<Class>>,
}

impl Classes {
    pub(super) fn add(&mut self, class: &Arc<Class>, node: &Arc<str>) {
        let namespace = match self.by_namespace.get_mut(&class.namespace) {
            Some(namespace) => namespace,
            None => self
                .by_namespace
                .entry(class.namespace.clone())
                .or_default(),
        };
        let nodes = namespace.entry(Arc::clone(class)).or_insert_with(|| {
            if !class.affinity.is_empty() {
                self.with_affinity.insert(Arc::clone(class));
            }
            ByNode::new()
        });
        *nodes.entry(Arc::clone(node)).or_default() += 1;
    }

    pub(super) fn remove(&mut self, class: &Arc<Class>, node: &str) {
        let Some(namespace) = self.by_namespace.get_mut(&class.namespace) else {
            return;
        };
        let Some(nodes) = namespace.get_mut(class) else {
            return;
        };
        if let Some(count) = nodes.get_mut(node) {
            *count -= 1;
            if *count == 0 {
                nodes.remove(node);
            }
        }
        if nodes.is_empty() {
            namespace.remove(class);
            self.with_affinity.remove(class);
        }
        if namespace.is_empty() {
            self.by_namespace.remove(&class.namespace);
        }
    }

    /// The namespaces that have pods on nodes.
    pub(super) fn namespaces(&self) -> impl Iterator<Item = &str> {
        self.by_namespace.keys().map(String::as_str)
    }

    /// The classes of a namespace, with where their pods are.
    pub(super) fn of(&self, namespace: &str) -> impl Iterator<Item = (&Class, &ByNode)> {
        let classes = self.by_namespace.get(namespace).into_iter().flatten();
        classes.map(|(class, nodes)| (&**class, nodes))
    }

    /// The classes that have something to say about other pods.
    pub(super) fn with_affinity(&self) -> impl Iterator<Item = (&Class, &ByNode)> {
        self.with_affinity.iter().filter_map(|class| {
            let nodes = self.by_namespace.get(&class.namespace)?.get(class)?;
            Some((&**class, nodes))
        })
    }
}
