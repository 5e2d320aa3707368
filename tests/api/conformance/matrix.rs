//! What every resource must do: the matrix of operations that conformance walks for each.
//!
//! 1. Discovery lists the resource and its `/status`.
//! 2. Two watches are opened before anything is there: of all namespaces, and of one.
//! 3. An object is created, read, listed, replaced, its status read and replaced.
//! 4. For each kind of patch it is made anew, and patched in both parts.
//! 5. With two more it is deleted as a collection.
//! 6. Both watches have told the same story, in order: added, then modified, then deleted.
//!
//! Every version is a number and grows with every write.

use std::collections::HashSet;

use http::StatusCode;
use serde_json::{Map, Value, json};
use windlass_tests::Cluster;

use super::collection::{
    Collection, PatchType, SELECTOR, Watch, expect, get, name_of, named, names_of, version_of,
};

/// The namespace of the matrix; each test has its own cluster.
pub(super) const NAMESPACE: &str = "conformance";

/// A resource, and what is done to it.
pub(super) struct Matrix {
    pub(super) group_version: &'static str,
    pub(super) kind: &'static str,
    pub(super) plural: &'static str,
    pub(super) namespaced: bool,
    /// Names of its objects, three.
    pub(super) names: [&'static str; 3],
    /// A new object but for its metadata.
    pub(super) object: Value,
    /// What is changed in an object, to be merged.
    pub(super) change: Value,
    /// The status it is given; null where it has none.
    pub(super) status: Value,
}

impl Matrix {
    /// A resource whose objects only change in their annotations, without a status.
    pub(super) fn new(
        group_version: &'static str,
        kind: &'static str,
        plural: &'static str,
        object: Value,
    ) -> Self {
        Self {
            group_version,
            kind,
            plural,
            namespaced: false,
            names: ["one", "two", "three"],
            object,
            change: json!({"metadata": {"annotations": {"changed": "yes"}}}),
            status: Value::Null,
        }
    }

    pub(super) fn namespaced(mut self) -> Self {
        self.namespaced = true;
        self
    }

    pub(super) fn names(mut self, names: [&'static str; 3]) -> Self {
        self.names = names;
        self
    }

    pub(super) fn change(mut self, change: Value) -> Self {
        self.change = change;
        self
    }

    pub(super) fn status(mut self, status: Value) -> Self {
        self.status = status;
        self
    }

    /// The collection that is walked.
    pub(super) fn collection<'a>(&self, cluster: &'a Cluster) -> Collection<'a> {
        let namespace = self.namespaced.then_some(NAMESPACE);
        Collection::new(cluster, self.group_version, self.plural, namespace)
    }

    /// Walks the matrix in a cluster of its own.
    pub(super) async fn walk(&self) {
        let cluster = with_namespace().await;
        self.walk_in(&cluster).await;
    }

    /// Walks the matrix.
    pub(super) async fn walk_in(&self, cluster: &Cluster) {
        let collection = self.collection(cluster);
        self.is_discovered(&collection).await;
        let everywhere = collection.watch_everywhere(SELECTOR).await;
        let here = collection.watch(SELECTOR).await;
        let mut writes = Writes::default();
        self.create_and_replace(&collection, &mut writes).await;
        for kind in PatchType::ALL {
            self.patch(&collection, kind, &mut writes).await;
        }
        self.delete_collection(&collection, &mut writes).await;
        let told = writes.are_told_by(everywhere).await;
        assert_eq!(told, writes.are_told_by(here).await);
    }

    async fn is_discovered(&self, collection: &Collection<'_>) {
        let cluster = collection.cluster;
        if let Some((group, _)) = self.group_version.split_once('/') {
            let groups = expect(get(cluster, "/apis").await, StatusCode::OK);
            let mut names = groups["groups"].as_array().unwrap().iter();
            assert!(names.any(|found| found["name"] == group), "{groups}");
            let group = get(cluster, &format!("/apis/{group}")).await;
            let group = expect(group, StatusCode::OK);
            let mut versions = group["versions"].as_array().unwrap().iter();
            assert!(versions.any(|version| version["groupVersion"] == self.group_version));
        }
        let document = expect(get(cluster, &collection.document()).await, StatusCode::OK);
        let found = |name: &str| {
            let mut resources = document["resources"].as_array().unwrap().iter();
            let found = resources.find(|resource| resource["name"] == name);
            found.unwrap_or_else(|| panic!("{name} is not in {document}"))
        };
        let resource = found(self.plural);
        assert_eq!(resource["kind"], self.kind);
        assert_eq!(resource["namespaced"], self.namespaced);
        if !self.status.is_null() {
            found(&format!("{}/status", self.plural));
        }
    }

    async fn create(&self, collection: &Collection<'_>, name: &str) -> Value {
        let created = collection.create(&named(name, &self.object)).await;
        assert_contains(&created, &self.object);
        assert!(!created["metadata"]["uid"].as_str().unwrap().is_empty());
        created
    }

    async fn create_and_replace(&self, collection: &Collection<'_>, writes: &mut Writes) {
        let name = self.names[0];
        let created = self.create(collection, name).await;
        assert_eq!(
            collection.get(name).await["metadata"]["uid"],
            created["metadata"]["uid"]
        );
        for found in [
            collection.list(SELECTOR).await,
            collection.list_everywhere(SELECTOR).await,
        ] {
            assert_eq!(names_of(&found), [name]);
        }
        let updated = collection.update(name, &self.change).await;
        assert_contains(&updated, &self.change);
        writes.changed(&created, &updated);
        if let Some(status) = self.new_status() {
            let part = format!("{name}/status");
            let answer = collection.update(&part, &status).await;
            assert_contains(&answer, &status);
            assert_contains(&answer, &self.change);
            assert_contains(&collection.get(&part).await, &status);
            writes.changed(&updated, &answer);
        }
    }

    async fn patch(&self, collection: &Collection<'_>, kind: PatchType, writes: &mut Writes) {
        let name = self.names[0];
        writes.deletes(collection, name).await;
        let created = self.create(collection, name).await;
        let patch = self.patch_of(kind, name, &self.change);
        let patched = collection.patch(kind, name, &patch).await;
        assert_contains(&patched, &self.change);
        writes.changed(&created, &patched);
        if let Some(status) = self.new_status() {
            let patch = self.patch_of(kind, name, &status);
            let part = format!("{name}/status");
            let answer = collection.patch(kind, &part, &patch).await;
            assert_contains(&answer, &status);
            assert_contains(&answer, &self.change);
            writes.changed(&patched, &answer);
        }
    }

    async fn delete_collection(&self, collection: &Collection<'_>, writes: &mut Writes) {
        for name in &self.names[1..] {
            self.create(collection, name).await;
        }
        let mut expected = self.names.to_vec();
        expected.sort_unstable();
        assert_eq!(names_of(&collection.list(SELECTOR).await), expected);
        assert_eq!(
            names_of(&collection.list_everywhere(SELECTOR).await),
            expected
        );
        collection.delete_all(SELECTOR).await;
        assert!(collection.list_everywhere(SELECTOR).await.is_empty());
        writes.deleted += expected.len();
    }

    fn new_status(&self) -> Option<Value> {
        (!self.status.is_null()).then(|| json!({"status": self.status}))
    }

    /// The patch of a kind that makes the change.
    fn patch_of(&self, kind: PatchType, name: &str, change: &Value) -> Value {
        match kind {
            PatchType::Strategic | PatchType::Merge => change.clone(),
            PatchType::Json => Value::Array(operations(change.as_object().unwrap())),
            PatchType::Apply => {
                let mut applied = change.clone();
                applied["apiVersion"] = json!(self.group_version);
                applied["kind"] = json!(self.kind);
                applied["metadata"]["name"] = json!(name);
                applied
            }
        }
    }
}

/// A cluster with the namespace of the matrix.
pub(super) async fn with_namespace() -> Cluster {
    let cluster = Cluster::control_plane().await.unwrap();
    let namespaces = Collection::new(&cluster, "v1", "namespaces", None);
    let namespace = json!({"metadata": {"name": NAMESPACE}});
    namespaces.create(&namespace).await;
    let accounts = Collection::new(&cluster, "v1", "serviceaccounts", Some(NAMESPACE));
    // Pods need it.
    let mut watch = accounts.watch("").await;
    watch
        .until(|event| name_of(&event["object"]) == "default")
        .await;
    cluster
}

/// A change as operations of a JSON patch: members of metadata and spec, and whole other fields.
fn operations(change: &Map<String, Value>) -> Vec<Value> {
    let add = |path: String, value: &Value| json!({"op": "add", "path": path, "value": value});
    let mut operations = Vec::new();
    for (field, value) in change {
        match value {
            Value::Object(members) if matches!(&**field, "metadata" | "spec") => {
                let of = |(member, value)| add(format!("/{field}/{member}"), value);
                operations.extend(members.iter().map(of));
            }
            _ => operations.push(add(format!("/{field}"), value)),
        }
    }
    operations
}

/// Fails unless every member of `expected` is in `found`; an empty object may be absent.
#[track_caller]
pub(super) fn assert_contains(found: &Value, expected: &Value) {
    assert!(contains(found, expected), "{expected} is not in {found:#}");
}

fn contains(found: &Value, expected: &Value) -> bool {
    match expected {
        Value::Object(members) => members
            .iter()
            .all(|(key, value)| contains(&found[key], value)),
        Value::Array(items) => {
            let found = found.as_array().map(Vec::as_slice).unwrap_or_default();
            let mut pairs = found.iter().zip(items);
            found.len() == items.len() && pairs.all(|(found, item)| contains(found, item))
        }
        other => found == other,
    }
}

/// How often the watches must have been told what.
#[derive(Default)]
struct Writes {
    modified: usize,
    deleted: usize,
}

impl Writes {
    fn changed(&mut self, before: &Value, after: &Value) {
        assert!(version_of(before) < version_of(after), "{after:#}");
        self.modified += 1;
    }

    async fn deletes(&mut self, collection: &Collection<'_>, name: &str) {
        collection.delete(name).await;
        self.deleted += 1;
    }

    /// The events of a watch up to the last deletion, which must be a story that can be true.
    async fn are_told_by(&self, mut watch: Watch) -> Vec<Value> {
        let mut deleted = 0;
        let last = |event: &Value| {
            deleted += usize::from(event["type"] == "DELETED");
            deleted == self.deleted
        };
        let events = watch.until(last).await;
        assert_is_in_order(&events);
        let modified = events.iter().filter(|event| event["type"] == "MODIFIED");
        assert!(modified.count() >= self.modified, "{events:#?}");
        events
    }
}

fn assert_is_in_order(events: &[Value]) {
    let mut alive = HashSet::new();
    let mut version = 0;
    for event in events {
        let object = &event["object"];
        let name = name_of(object);
        let possible = match event["type"].as_str().unwrap() {
            "ADDED" => alive.insert(name),
            "MODIFIED" => alive.contains(name),
            "DELETED" => alive.remove(name),
            _ => false,
        };
        assert!(possible && version_of(object) > version, "{events:#?}");
        version = version_of(object);
    }
    assert!(alive.is_empty(), "{events:#?}");
}
