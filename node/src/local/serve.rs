//! The part of Kubernetes' API that a node agent asks for, over a local [`Store`].
//!
//! | request | answer |
//! |---|---|
//! | GET of a collection, with `watch` or without | what there is; of most resources nothing |
//! | GET, POST, PATCH, DELETE of an object | as one expects; a status that is sent replaces the old one |
//! | `/v2/…` | the local image registry |
//! | anything else | 404, as a Kubernetes Status |

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use http::{Method, Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use jiff::Timestamp;
use kube::client::Body;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::store::{Change, Key, Store, TooOld};
use super::{Inner, LocalEvent, set};

/// The body of an answer.
pub(super) type Answer = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// A request that can't be answered as it wishes.
#[derive(Debug)]
pub(super) struct Refused {
    status: StatusCode,
    reason: &'static str,
    message: String,
}

impl Refused {
    fn new(status: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            status,
            reason,
            message,
        }
    }

    fn not_found(path: &str) -> Self {
        let message = format!("{path} is not found in this agent's local API");
        Self::new(StatusCode::NOT_FOUND, "NotFound", message)
    }

    fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    fn status(&self) -> Value {
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "reason": self.reason, "message": self.message, "code": self.status.as_u16(),
        })
    }
}

/// What a path is about.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    resource: String,
    namespace: Option<String>,
    name: Option<String>,
    subresource: Option<String>,
}

impl Target {
    fn parse(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let (version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => ((*version).to_owned(), rest),
            ["apis", group, version, rest @ ..] => (format!("{group}/{version}"), rest),
            _ => return None,
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some(*namespace), rest),
            rest => (None, rest),
        };
        let mut rest = rest.iter().map(|part| (*part).to_owned());
        let resource = format!("{version}/{}", rest.next()?);
        let (name, subresource) = (rest.next(), rest.next());
        rest.next().is_none().then(|| Self {
            resource,
            namespace: namespace.map(str::to_owned),
            name,
            subresource,
        })
    }

    fn key(&self, name: &str) -> Key {
        Key {
            resource: self.resource.clone(),
            namespace: self.namespace.clone().unwrap_or_default(),
            name: name.to_owned(),
        }
    }
}

/// The fields that a list or watch asks for: pairs of a JSON pointer and a text.
type Selector = Vec<(&'static str, String)>;

/// What a query says, of what an agent sends.
#[derive(Debug, Default)]
struct Query {
    watch: bool,
    revision: Option<u64>,
    selector: Selector,
}

impl Query {
    fn parse(text: &str) -> Result<Self, Refused> {
        let mut query = Self::default();
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            match &*name {
                "watch" => query.watch = matches!(&*value, "1" | "true"),
                "resourceVersion" => query.revision = value.parse().ok(),
                "fieldSelector" => {
                    for term in value.split(',').filter(|term| !term.is_empty()) {
                        query.selector.push(selected(term)?);
                    }
                }
                _ => {}
            }
        }
        Ok(query)
    }

    fn selects(&self, object: &Value) -> bool {
        self.selector
            .iter()
            .all(|(at, wanted)| object.pointer(at).and_then(Value::as_str) == Some(wanted))
    }
}

fn selected(term: &str) -> Result<(&'static str, String), Refused> {
    let (field, value) = term.split_once('=').unwrap_or((term, ""));
    let at = match field {
        "metadata.name" => "/metadata/name",
        "metadata.namespace" => "/metadata/namespace",
        "spec.nodeName" => "/spec/nodeName",
        other => {
            return Err(Refused::bad(format!(
                "field selector {other:?} is not known here"
            )));
        }
    };
    Ok((at, value.trim_start_matches('=').to_owned()))
}

/// Answers one request.
pub(super) async fn answer(inner: Arc<Inner>, request: Request<Body>) -> Response<Answer> {
    if request.uri().path().starts_with("/v2") {
        return registry(&inner, request).await;
    }
    match try_answer(&inner, request).await {
        Ok(response) => response,
        Err(refused) => reply(refused.status, &refused.status()),
    }
}

async fn registry(inner: &Inner, request: Request<Body>) -> Response<Answer> {
    let routes = inner.registry.clone();
    let response = match routes.oneshot(request.map(axum::body::Body::new)).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    response.map(|body| body.map_err(Into::into).boxed_unsync())
}

async fn try_answer(
    inner: &Arc<Inner>,
    request: Request<Body>,
) -> Result<Response<Answer>, Refused> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    let target = Target::parse(path).ok_or_else(|| Refused::not_found(path))?;
    let query = Query::parse(parts.uri.query().unwrap_or_default())?;
    let body = body.collect().await;
    let body = body
        .map_err(|error| Refused::bad(error.to_string()))?
        .to_bytes();
    let object = || {
        let read = serde_json::from_slice::<Value>(&body);
        read.map_err(|error| Refused::bad(error.to_string()))
    };
    match (parts.method, target.name.as_deref()) {
        (Method::GET, None) if query.watch => Ok(watch(inner, target, query)),
        (Method::GET, None) => Ok(list(&inner.objects, &target, &query)),
        (Method::GET, Some(name)) => {
            let found = inner.objects.get(&target.key(name));
            let found = found.ok_or_else(|| Refused::not_found(path))?;
            Ok(reply(StatusCode::OK, &found))
        }
        (Method::POST, None) => {
            let created = create(inner, &target, object()?)?;
            Ok(reply(StatusCode::CREATED, &created))
        }
        (Method::PATCH, Some(name)) => {
            let key = target.key(name);
            let is_status = target.subresource.as_deref() == Some("status");
            let patched = patch(inner, &key, is_status, &object()?, path)?;
            Ok(reply(StatusCode::OK, &patched))
        }
        (Method::DELETE, Some(name)) => {
            let options = if body.is_empty() {
                Value::Null
            } else {
                object()?
            };
            let removed = inner.remove(&target.key(name), options.pointer("/preconditions/uid"));
            let removed = removed.ok_or_else(|| Refused::not_found(path))?;
            Ok(reply(StatusCode::OK, &removed))
        }
        _ => Err(Refused::not_found(path)),
    }
}

fn list(objects: &Store, target: &Target, query: &Query) -> Response<Answer> {
    let (items, revision) = objects.list(&target.resource, target.namespace.as_deref());
    let items: Vec<_> = items.iter().filter(|item| query.selects(item)).collect();
    let metadata = json!({ "resourceVersion": revision.to_string() });
    reply(
        StatusCode::OK,
        &json!({ "metadata": metadata, "items": items }),
    )
}

fn watch(inner: &Arc<Inner>, target: Target, query: Query) -> Response<Answer> {
    let begin = query.revision.unwrap_or_default();
    let lines = changes(inner.clone(), begin).filter_map(move |found| {
        let line = match found {
            Ok(change) => {
                let of_target = change.key.resource == target.resource
                    && target
                        .namespace
                        .as_ref()
                        .is_none_or(|of| *of == change.key.namespace)
                    && query.selects(&change.object);
                of_target.then(|| json!({ "type": change.kind, "object": *change.object }))
            }
            Err(TooOld) => {
                let gone = Refused::new(StatusCode::GONE, "Expired", "too old resource version");
                Some(json!({ "type": "ERROR", "object": gone.status() }))
            }
        };
        let frame = line.map(|line| Ok(Frame::data(Bytes::from(format!("{line}\n")))));
        async move { frame }
    });
    let mut response = Response::new(StreamBody::new(lines).boxed_unsync());
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("application/json"),
    );
    response
}

/// All changes after a revision, as they come.
fn changes(inner: Arc<Inner>, begin: u64) -> BoxStream<'static, Result<Change, TooOld>> {
    let newest = inner.objects.newest();
    stream::unfold(Some((inner, newest, begin)), |state| async move {
        let (inner, mut newest, seen) = state?;
        loop {
            newest.mark_unchanged();
            match inner.objects.since(seen) {
                Err(old) => return Some((vec![Err(old)], None)),
                Ok(changes) if changes.is_empty() => newest.changed().await.ok()?,
                Ok(changes) => {
                    let seen = changes.last().map_or(seen, |last| last.revision);
                    let found = changes.into_iter().map(Ok).collect::<Vec<_>>();
                    return Some((found, Some((inner, newest, seen))));
                }
            }
        }
    })
    .flat_map(stream::iter)
    .boxed()
}

fn create(inner: &Inner, target: &Target, mut object: Value) -> Result<Arc<Value>, Refused> {
    if target.resource == "v1/events" {
        inner.tell(LocalEvent::of_event(&object));
        return Ok(Arc::new(object));
    }
    let name = object.pointer("/metadata/name").and_then(Value::as_str);
    let name = name.ok_or_else(|| Refused::bad("metadata.name is missing"))?;
    let key = target.key(name);
    if target.resource == "v1/nodes" {
        inner.complete_node(&mut object);
    }
    stamp(&mut object);
    let conflict = || {
        let message = format!("{} {:?} already exists", key.resource, key.name);
        Refused::new(StatusCode::CONFLICT, "AlreadyExists", message)
    };
    let created = inner.objects.update(&key, |before| match before {
        Some(_) => Err(conflict()),
        None => Ok(Some(object)),
    })?;
    created.ok_or_else(|| Refused::not_found(&key.name))
}

/// Gives a new object what an API server gives it.
pub(super) fn stamp(object: &mut Value) {
    let Some(object) = object.as_object_mut() else {
        return;
    };
    let metadata = object.entry("metadata").or_insert_with(|| json!({}));
    if let Some(metadata) = metadata.as_object_mut() {
        metadata.insert("uid".to_owned(), uuid::Uuid::new_v4().to_string().into());
        metadata.insert("generation".to_owned(), 1.into());
        let now = windlass_api::time::to_seconds(Timestamp::now());
        metadata.insert("creationTimestamp".to_owned(), now.to_string().into());
    }
}

fn patch(
    inner: &Inner,
    key: &Key,
    is_status: bool,
    patch: &Value,
    path: &str,
) -> Result<Arc<Value>, Refused> {
    let patched = inner.objects.update(key, |before| {
        let mut object = before.cloned().ok_or_else(|| Refused::not_found(path))?;
        let uid = patch.pointer("/metadata/uid");
        if uid.is_some_and(|uid| Some(uid) != object.pointer("/metadata/uid")) {
            let message = format!("{path} is another object by now");
            return Err(Refused::new(StatusCode::CONFLICT, "Conflict", message));
        }
        if is_status {
            let status = patch.get("status").unwrap_or(&Value::Null);
            set(&mut object, &["status"], without_directives(status));
        } else {
            merge(&mut object, patch);
        }
        Ok(Some(object))
    })?;
    let patched = patched.ok_or_else(|| Refused::not_found(path))?;
    if is_status && key.resource == "v1/pods" {
        inner.tell(LocalEvent::of_status(&patched));
    }
    Ok(patched)
}

/// A status as it is sent is whole: what tells a merge how to treat lists has nothing to say.
fn without_directives(value: &Value) -> Value {
    match value {
        Value::Array(items) => items
            .iter()
            .filter(|item| item.get("$patch").is_none())
            .map(without_directives)
            .collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| (name.clone(), without_directives(value)))
            .collect(),
        other => other.clone(),
    }
}

/// A JSON merge patch (RFC 7396).
fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    let Some(members) = object.as_object_mut() else {
        return;
    };
    for (name, value) in fields {
        if value.is_null() {
            members.remove(name);
        } else {
            merge(members.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

fn reply(status: StatusCode, body: &Value) -> Response<Answer> {
    let body = Full::new(Bytes::from(body.to_string()));
    let mut response = Response::new(body.map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("application/json"),
    );
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_about_what_they_name() {
        let of =
            |resource: &str, namespace: Option<&str>, name: Option<&str>, sub: Option<&str>| {
                Some(Target {
                    resource: resource.to_owned(),
                    namespace: namespace.map(str::to_owned),
                    name: name.map(str::to_owned),
                    subresource: sub.map(str::to_owned),
                })
            };
        for (path, target) in [
            ("/api/v1/pods", of("v1/pods", None, None, None)),
            (
                "/api/v1/namespaces/a/pods/p/status",
                of("v1/pods", Some("a"), Some("p"), Some("status")),
            ),
            (
                "/api/v1/namespaces/a",
                of("v1/namespaces", None, Some("a"), None),
            ),
            (
                "/apis/coordination.k8s.io/v1/namespaces/n/leases/x",
                of("coordination.k8s.io/v1/leases", Some("n"), Some("x"), None),
            ),
            ("/api/v1", None),
            ("/version", None),
            ("/api/v1/pods/a/b/c", None),
        ] {
            assert_eq!(Target::parse(path), target, "{path}");
        }
    }

    #[test]
    fn patches_merge_and_statuses_lose_directives() {
        let mut object = json!({ "a": 1, "b": { "c": 2, "d": 3 } });
        merge(
            &mut object,
            &json!({ "a": null, "b": { "c": { "e": [1] } } }),
        );
        assert_eq!(object, json!({ "b": { "c": { "e": [1] }, "d": 3 } }));
        let status = json!({ "podIPs": [{ "$patch": "replace" }, { "ip": "10.0.0.1" }] });
        let plain = json!({ "podIPs": [{ "ip": "10.0.0.1" }] });
        assert_eq!(without_directives(&status), plain);
    }
}
