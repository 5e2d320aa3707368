//! Keys of stored objects and the ranges that lists and watches cover.
//!
//! A key is one string, `GROUP/PLURAL/NAMESPACE/NAME`, with an empty group for the core group and an
//! empty namespace for cluster-scoped objects. None of the four parts can contain a slash, so ordering
//! by key is ordering by resource, then namespace, then name, and a range is a prefix.

use std::fmt;
use std::sync::Arc;

/// Where an object lives in the store.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey(Arc<str>);

impl ObjectKey {
    /// The key of an object of resource `plural` in `group`; `namespace` is empty for cluster scope.
    #[must_use]
    pub fn new(group: &str, plural: &str, namespace: &str, name: &str) -> Self {
        Self(format!("{group}/{plural}/{namespace}/{name}").into())
    }

    /// A key from its stored form; `None` unless it has exactly four parts.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        (text.split('/').count() == 4).then(|| Self(text.into()))
    }

    /// `GROUP/PLURAL`, the unit of history and wake-ups.
    #[must_use]
    pub fn resource(&self) -> &str {
        let group_end = self.0.find('/').unwrap_or(0);
        let rest = self.0.get(group_end + 1..).unwrap_or_default();
        let plural_len = rest.find('/').unwrap_or(rest.len());
        self.0.get(..group_end + 1 + plural_len).unwrap_or_default()
    }

    /// The namespace, empty for cluster scope.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.0.split('/').nth(2).unwrap_or_default()
    }

    /// The object's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// The stored form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for ObjectKey {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// All objects of a resource, of a resource in one namespace, or one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    prefix: Arc<str>,
    resource_len: usize,
}

impl KeyRange {
    /// Every object of the resource, in every namespace.
    #[must_use]
    pub fn resource(group: &str, plural: &str) -> Self {
        let prefix = format!("{group}/{plural}/");
        Self {
            resource_len: prefix.len() - 1,
            prefix: prefix.into(),
        }
    }

    /// Every object of the resource in `namespace`.
    #[must_use]
    pub fn namespace(group: &str, plural: &str, namespace: &str) -> Self {
        let resource = Self::resource(group, plural);
        Self {
            prefix: format!("{}{namespace}/", resource.prefix).into(),
            ..resource
        }
    }

    /// Whether `key` lies in the range.
    #[must_use]
    pub fn contains(&self, key: &ObjectKey) -> bool {
        key.as_str().starts_with(&*self.prefix)
    }

    /// `GROUP/PLURAL` of the range.
    #[must_use]
    pub fn resource_name(&self) -> &str {
        self.prefix.get(..self.resource_len).unwrap_or_default()
    }

    /// The prefix that all keys of the range share.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_gives_back_its_parts() {
        let key = ObjectKey::new("apps", "deployments", "shop", "web");
        assert_eq!(
            (key.resource(), key.namespace(), key.name()),
            ("apps/deployments", "shop", "web")
        );
        let node = ObjectKey::new("", "nodes", "", "n1");
        assert_eq!(
            (node.resource(), node.namespace(), node.name()),
            ("/nodes", "", "n1")
        );
        assert_eq!(ObjectKey::parse(node.as_str()), Some(node));
        assert_eq!(ObjectKey::parse("three/parts/only"), None);
    }

    #[test]
    fn a_namespace_range_does_not_reach_into_longer_names() {
        let range = KeyRange::namespace("", "pods", "a");
        assert!(range.contains(&ObjectKey::new("", "pods", "a", "x")));
        assert!(!range.contains(&ObjectKey::new("", "pods", "ab", "x")));
        assert_eq!(range.resource_name(), "/pods");
    }
}
