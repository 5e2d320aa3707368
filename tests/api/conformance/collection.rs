//! A collection of the API, through raw requests as clients send them.
//!
//! Everything is written with `fieldValidation=Strict`, as the conformance suite does, and every answer's
//! code is checked; what is told of a failure is the whole answer.

use futures::stream::LocalBoxStream;
use futures::{AsyncBufReadExt, StreamExt};
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use windlass_control::patch::merge;
use windlass_tests::{Answer, Cluster, PATIENCE};

/// The query that selects what these tests make, by the label [`labelled`] gives.
pub(super) const SELECTOR: &str = "labelSelector=conformance%3Dyes";

const JSON: &str = "application/json";

/// Metadata with a name and the label that [`SELECTOR`] asks for.
pub(super) fn labelled(name: &str) -> Value {
    json!({"name": name, "labels": {"conformance": "yes"}})
}

/// An object with [`labelled`] metadata.
pub(super) fn named(name: &str, object: &Value) -> Value {
    merged(object, &json!({"metadata": labelled(name)}))
}

/// `object` with `change` merged into it.
pub(super) fn merged(object: &Value, change: &Value) -> Value {
    merge::patch(object, change).unwrap()
}

/// The name of an object.
pub(super) fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

/// The names of objects.
pub(super) fn names_of(objects: &[Value]) -> Vec<&str> {
    objects.iter().map(name_of).collect()
}

/// The resourceVersion of an object, which is a number and comparable as one.
pub(super) fn version_of(object: &Value) -> u64 {
    let version = object["metadata"]["resourceVersion"].as_str().unwrap();
    version.parse().unwrap()
}

/// The four kinds of patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PatchType {
    Strategic,
    Apply,
    Merge,
    Json,
}

impl PatchType {
    pub(super) const ALL: [Self; 4] = [Self::Strategic, Self::Apply, Self::Merge, Self::Json];

    fn content_type(self) -> &'static str {
        match self {
            Self::Strategic => "application/strategic-merge-patch+json",
            Self::Apply => "application/apply-patch+yaml",
            Self::Merge => "application/merge-patch+json",
            Self::Json => "application/json-patch+json",
        }
    }

    fn query(self) -> &'static str {
        match self {
            Self::Apply => "fieldValidation=Strict&fieldManager=test-apply&force=true",
            _ => "fieldValidation=Strict",
        }
    }
}

/// A namespace's objects of one resource, or all objects of a resource of the cluster.
pub(super) struct Collection<'a> {
    pub(super) cluster: &'a Cluster,
    /// `apps/v1`, or `v1`.
    pub(super) group_version: &'static str,
    pub(super) plural: &'static str,
    namespace: Option<&'static str>,
}

impl<'a> Collection<'a> {
    /// A resource's objects in `namespace`, or everywhere.
    pub(super) fn new(
        cluster: &'a Cluster,
        group_version: &'static str,
        plural: &'static str,
        namespace: Option<&'static str>,
    ) -> Self {
        Self {
            cluster,
            group_version,
            plural,
            namespace,
        }
    }

    /// The same resource in another namespace.
    pub(super) fn of(&self, namespace: &'static str) -> Self {
        Self::new(
            self.cluster,
            self.group_version,
            self.plural,
            Some(namespace),
        )
    }

    /// The path of the document of the resource's group and version.
    pub(super) fn document(&self) -> String {
        let root = match self.group_version.contains('/') {
            true => "apis",
            false => "api",
        };
        format!("/{root}/{}", self.group_version)
    }

    /// The path of the resource's objects of all namespaces.
    pub(super) fn everywhere(&self) -> String {
        format!("{}/{}", self.document(), self.plural)
    }

    /// The path of the collection.
    pub(super) fn path(&self) -> String {
        match self.namespace {
            Some(namespace) => {
                let document = self.document();
                format!("{document}/namespaces/{namespace}/{}", self.plural)
            }
            None => self.everywhere(),
        }
    }

    /// The path of an object, or of a subresource as `NAME/SUBRESOURCE`.
    pub(super) fn object(&self, name: &str) -> String {
        format!("{}/{name}", self.path())
    }

    /// Sends a request with a body of JSON.
    pub(super) async fn send(&self, method: Method, path: &str, body: &Value) -> Answer {
        send(self.cluster, method, path, JSON, body.to_string()).await
    }

    /// Creates an object.
    pub(super) async fn create(&self, object: &Value) -> Value {
        let path = format!("{}?fieldValidation=Strict", self.path());
        let answer = self.send(Method::POST, &path, object).await;
        expect(answer, StatusCode::CREATED)
    }

    /// Tries to create an object; the answer's Status.
    pub(super) async fn refused(&self, object: &Value, code: u16) -> Value {
        let answer = self.send(Method::POST, &self.path(), object).await;
        expect(answer, StatusCode::from_u16(code).unwrap())
    }

    /// Reads an object.
    pub(super) async fn get(&self, name: &str) -> Value {
        expect(self.try_get(name).await, StatusCode::OK)
    }

    async fn try_get(&self, name: &str) -> Answer {
        get(self.cluster, &self.object(name)).await
    }

    /// Replaces an object, or a part of it, by itself with `change` merged; again where a controller was
    /// faster.
    pub(super) async fn update(&self, name: &str, change: &Value) -> Value {
        loop {
            let object = merged(&self.get(name).await, change);
            let answer = self.put(name, &object).await;
            if answer.status != StatusCode::CONFLICT {
                return expect(answer, StatusCode::OK);
            }
        }
    }

    /// Replaces an object, or a part of it.
    pub(super) async fn put(&self, name: &str, object: &Value) -> Answer {
        let path = format!("{}?fieldValidation=Strict", self.object(name));
        self.send(Method::PUT, &path, object).await
    }

    /// Patches an object, or a part of it.
    pub(super) async fn patch(&self, kind: PatchType, name: &str, patch: &Value) -> Value {
        expect(self.try_patch(kind, name, patch).await, StatusCode::OK)
    }

    /// Patches an object; what the server says of it.
    pub(super) async fn try_patch(&self, kind: PatchType, name: &str, patch: &Value) -> Answer {
        let path = format!("{}?{}", self.object(name), kind.query());
        let body = patch.to_string();
        send(
            self.cluster,
            Method::PATCH,
            &path,
            kind.content_type(),
            body,
        )
        .await
    }

    /// The collection's objects that `query` selects.
    pub(super) async fn list(&self, query: &str) -> Vec<Value> {
        list(self.cluster, &self.path(), query).await
    }

    /// The resource's objects of all namespaces that `query` selects.
    pub(super) async fn list_everywhere(&self, query: &str) -> Vec<Value> {
        list(self.cluster, &self.everywhere(), query).await
    }

    /// Deletes an object and waits until it is gone.
    pub(super) async fn delete(&self, name: &str) {
        let query = format!("fieldSelector=metadata.name%3D{name}");
        let mut watch = self.watch(&query).await;
        let answer = self
            .send(Method::DELETE, &self.object(name), &json!({}))
            .await;
        expect(answer, StatusCode::OK);
        watch.until(|event| event["type"] == "DELETED").await;
        assert_eq!(self.try_get(name).await.status, StatusCode::NOT_FOUND);
    }

    /// Deletes the collection's objects that `query` selects and waits until they are gone.
    pub(super) async fn delete_all(&self, query: &str) {
        let mut left = self.list(query).await.len();
        let mut watch = self.watch(query).await;
        let path = format!("{}?{query}", self.path());
        expect(
            self.send(Method::DELETE, &path, &json!({})).await,
            StatusCode::OK,
        );
        while left > 0 {
            left -= usize::from(watch.next().await["type"] == "DELETED");
        }
        assert!(self.list(query).await.is_empty());
    }

    /// Watches the collection's objects that `query` selects.
    pub(super) async fn watch(&self, query: &str) -> Watch {
        Watch::open(self.cluster, &self.path(), query).await
    }

    /// Watches the resource's objects of all namespaces that `query` selects.
    pub(super) async fn watch_everywhere(&self, query: &str) -> Watch {
        Watch::open(self.cluster, &self.everywhere(), query).await
    }
}

/// Sends a request.
pub(super) async fn send(
    cluster: &Cluster,
    method: Method,
    path: &str,
    content_type: &str,
    body: String,
) -> Answer {
    let headers = [("content-type", content_type)];
    cluster.request(method, path, &headers, body).await.unwrap()
}

/// Reads a path.
pub(super) async fn get(cluster: &Cluster, path: &str) -> Answer {
    cluster.request(Method::GET, path, &[], "").await.unwrap()
}

async fn list(cluster: &Cluster, path: &str, query: &str) -> Vec<Value> {
    let answer = get(cluster, &format!("{path}?{query}")).await;
    let mut list = expect(answer, StatusCode::OK);
    serde_json::from_value(list["items"].take()).unwrap()
}

/// The body of an answer that has the code it must have.
pub(super) fn expect(answer: Answer, status: StatusCode) -> Value {
    assert_eq!(answer.status, status, "{answer:#?}");
    answer.body
}

/// The events of a watch.
pub(super) struct Watch {
    path: String,
    events: LocalBoxStream<'static, Value>,
}

impl Watch {
    async fn open(cluster: &Cluster, path: &str, query: &str) -> Self {
        let path = format!("{path}?watch=true&{query}");
        let request = Request::get(&path).body(Vec::new()).unwrap();
        let lines = cluster.client().request_stream(request).await.unwrap();
        let lines = lines.lines();
        let events = lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap());
        Self {
            path,
            events: events.boxed_local(),
        }
    }

    /// The next event.
    pub(super) async fn next(&mut self) -> Value {
        match tokio::time::timeout(PATIENCE, self.events.next()).await {
            Ok(Some(event)) => event,
            Ok(None) => panic!("{} ended", self.path),
            Err(_) => panic!("{}: no event came", self.path),
        }
    }

    /// The next events, as many as asked for.
    pub(super) async fn take(&mut self, count: usize) -> Vec<Value> {
        let mut events = Vec::new();
        while events.len() < count {
            events.push(self.next().await);
        }
        events
    }

    /// The events up to the first that is accepted.
    pub(super) async fn until(&mut self, mut accept: impl FnMut(&Value) -> bool) -> Vec<Value> {
        let mut events = Vec::new();
        loop {
            let event = self.next().await;
            let last = accept(&event);
            events.push(event);
            if last {
                return events;
            }
        }
    }
}

/// Types and names of events.
pub(super) fn told(events: &[Value]) -> Vec<(&str, &str)> {
    let types = events.iter().map(|event| event["type"].as_str().unwrap());
    types
        .zip(events.iter().map(|event| name_of(&event["object"])))
        .collect()
}
