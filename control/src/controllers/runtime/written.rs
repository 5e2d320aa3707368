//! Which of a controller's own writes its cache does not show yet.
//!
//! Some plans build on what was written last, such as the counts in a status. The caches of two kinds are
//! filled by two watches, so the cache of what was counted may be ahead of the cache of the count. A
//! controller that plans on both notes what it writes, and leaves the object alone until that is seen; the
//! watch that brings it wakes the controller.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::key::Key;
use super::metadata::Metadata;

/// The last own write of each object.
#[derive(Debug, Default)]
pub struct Written {
    last: Mutex<HashMap<Key, (String, u64)>>,
}

impl Written {
    /// Notes a write: `metadata` is what the API answered.
    pub fn note(&self, metadata: &ObjectMeta) {
        // Versions can be compared since Kubernetes 1.35.
        if let Ok(version) = metadata.version().parse() {
            let write = (metadata.uid().to_owned(), version);
            self.lock().insert(Key::of(metadata), write);
        }
    }

    /// Whether this state of an object has in it what was last written.
    #[must_use]
    pub fn is_seen(&self, metadata: &ObjectMeta) -> bool {
        let mut last = self.lock();
        let key = Key::of(metadata);
        let Some((uid, written)) = last.get(&key) else {
            return true;
        };
        let version = metadata.version().parse::<u64>().unwrap_or(u64::MAX);
        let seen = uid != metadata.uid() || version >= *written;
        if seen {
            last.remove(&key);
        }
        seen
    }

    /// Forgets an object that is gone.
    pub fn forget(&self, key: &Key) {
        self.lock().remove(key);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, (String, u64)>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_state_from_before_the_last_write_is_told_from_later_ones() {
        let state = |uid: &str, version: &str| -> ObjectMeta {
            let metadata = json!({"name": "a", "uid": uid, "resourceVersion": version});
            serde_json::from_value(metadata).unwrap()
        };
        let written = Written::default();
        assert!(written.is_seen(&state("u", "1")), "nothing was written");
        written.note(&state("u", "10"));
        assert!(!written.is_seen(&state("u", "9")));
        assert!(written.is_seen(&state("u", "10")));
        written.note(&state("u", "10"));
        assert!(written.is_seen(&state("other", "5")), "another object");
        written.note(&state("u", "10"));
        written.forget(&Key::of(&state("u", "10")));
        assert!(written.is_seen(&state("u", "9")));
    }
}
