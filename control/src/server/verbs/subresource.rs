//! Subresources that are more than a part of the stored object: the table [`SUBRESOURCES`].

use async_trait::async_trait;
use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};
use windlass_api::resource::GroupVersionKind;
use windlass_api::time::format_seconds;

use super::eviction::Eviction;
use super::token::Token;
use super::{Request, body, connect};
use crate::registry::error::ApiError;
use crate::registry::field_error::FieldError;
use crate::registry::kinds::scale_of;
use crate::registry::strategy::Endpoint;
use crate::registry::update::{Update, conflict};
use crate::registry::{Call, Registry, Written, object_meta as meta, parse};
use crate::store::Freshness;

/// A subresource with behaviour of its own.
#[async_trait]
pub(super) trait Subresource: Sync {
    /// Its path segment.
    fn name(&self) -> &'static str;

    /// Answers a request on it.
    async fn respond(&self, request: &Request<'_>, body: Body) -> Result<Response, ApiError>;
}

const SUBRESOURCES: &[&dyn Subresource] = &[
    &Binding,
    &Eviction,
    &Scale,
    &Log,
    &Token,
    &connect::Attach,
    &connect::Exec,
    &connect::PortForward,
    &connect::Proxy,
];

/// The subresource of that name, if it is one with behaviour of its own.
pub(super) fn find(name: &str) -> Option<&'static dyn Subresource> {
    SUBRESOURCES
        .iter()
        .copied()
        .find(|subresource| subresource.name() == name)
}

pub(super) fn not_allowed(request: &Request<'_>) -> ApiError {
    let verb = request.context.info.verb.to_owned();
    ApiError::MethodNotAllowed {
        target: request.target(),
        verb,
    }
}

pub(super) async fn read(
    request: &Request<'_>,
    body: Body,
    gvk: &GroupVersionKind,
) -> Result<body::Checked, ApiError> {
    let ty = request
        .server
        .registry()
        .schema()
        .kind(gvk)
        .ok_or(ApiError::NoSuchPath)?;
    body::of_kind(request, body, gvk, ty).await
}

/// POST pods/NAME/binding: the scheduler's decision.
struct Binding;

#[async_trait]
impl Subresource for Binding {
    fn name(&self) -> &'static str {
        "binding"
    }

    async fn respond(&self, request: &Request<'_>, body: Body) -> Result<Response, ApiError> {
        if request.context.info.verb != "create" {
            return Err(not_allowed(request));
        }
        let gvk = GroupVersionKind::of("", "v1", "Binding");
        let binding = read(request, body, &gvk).await?.object;
        bind_pod(request.server.registry(), &request.call(), &binding).await?;
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201,
        });
        request.answer(StatusCode::CREATED, &status)
    }
}

/// Binds the pod of `call` to the node that `binding` names.
pub(super) async fn bind_pod(
    registry: &Registry,
    call: &Call<'_>,
    binding: &Value,
) -> Result<(), ApiError> {
    let node = binding
        .pointer("/target/name")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if node.is_empty() {
        let errors = vec![FieldError::required("target.name", "")];
        return Err(ApiError::Invalid {
            target: call.target(),
            errors,
        });
    }
    let change = |current: Option<&Value>| {
        let current = current.ok_or_else(|| ApiError::NotFound(call.target()))?;
        let uid = meta::uid(binding);
        if !uid.is_empty() && uid != meta::uid(current) {
            return Err(conflict(
                call,
                "the pod is another one than the binding is for",
            ));
        }
        bind(current, node).map_err(|reason| conflict(call, &reason))
    };
    let update = Update {
        endpoint: Endpoint::Named("binding"),
        change: &change,
        may_create: false,
        manages_fields: false,
    };
    registry.update(call, &update).await?;
    Ok(())
}

/// The pod bound to `node`, and the condition that says so.
fn bind(pod: &Value, node: &str) -> Result<Value, String> {
    let name = meta::name(pod);
    if meta::is_terminating(pod) {
        return Err(format!(
            "pod {name} is being deleted, cannot be assigned to a host"
        ));
    }
    let assigned = pod
        .pointer("/spec/nodeName")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if !assigned.is_empty() {
        return Err(format!(
            "pod {name} is already assigned to node {assigned:?}"
        ));
    }
    let gates = pod
        .pointer("/spec/schedulingGates")
        .and_then(Value::as_array);
    if gates.is_some_and(|gates| !gates.is_empty()) {
        return Err(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    let mut pod = pod.clone();
    meta::member_mut(&mut pod, "spec").insert("nodeName".into(), node.into());
    // The promise is kept, on this node or on a better one.
    meta::member_mut(&mut pod, "status").remove("nominatedNodeName");
    let scheduled = json!({
        "type": "PodScheduled", "status": "True", "lastProbeTime": null,
        "lastTransitionTime": format_seconds(Timestamp::now()),
    });
    meta::set_condition(&mut pod, scheduled);
    Ok(pod)
}

/// GET, PUT and PATCH of NAME/scale.
struct Scale;

#[async_trait]
impl Subresource for Scale {
    fn name(&self) -> &'static str {
        "scale"
    }

    async fn respond(&self, request: &Request<'_>, body: Body) -> Result<Response, ApiError> {
        let registry = request.server.registry();
        let entry = registry.get(&request.call()).await?;
        let current = scale_of(&parse(&entry)?);
        let verb = request.context.info.verb;
        if verb == "patch" && super::patch::is_apply(request) {
            let scale = apply_scale(request, body).await?;
            return request.answer(StatusCode::OK, &scale);
        }
        let wanted = match verb {
            "get" => return request.answer(StatusCode::OK, &current),
            "update" => read(request, body, &SCALE).await?.object,
            "patch" => {
                let bytes = body::read(body).await?;
                let patch = windlass_api::schema::decode_json(&bytes)
                    .map_err(|error| ApiError::BadRequest(error.to_string()))?;
                super::patch::generic(request, &current, &patch.value)?
            }
            _ => return Err(not_allowed(request)),
        };
        let replicas = replicas_of(request, &wanted)?.unwrap_or(0);
        let version = meta::text(&wanted, "resourceVersion").to_owned();
        let patched = verb == "patch";
        let change = |current: Option<&Value>| {
            let mut object = current
                .cloned()
                .ok_or_else(|| ApiError::NotFound(request.target()))?;
            if !version.is_empty() && !patched {
                meta::set(&mut object, "resourceVersion", version.clone());
            }
            meta::member_mut(&mut object, "spec").insert("replicas".into(), replicas.into());
            Ok(object)
        };
        let update = Update {
            endpoint: Endpoint::Named("scale"),
            change: &change,
            may_create: false,
            manages_fields: false,
        };
        let written = registry.update(&request.call(), &update).await?;
        request.answer(StatusCode::OK, &scale_written(&written)?)
    }
}

const SCALE: GroupVersionKind = GroupVersionKind::of("autoscaling", "v1", "Scale");

/// The replicas that a Scale asks for, if it names them.
fn replicas_of(request: &Request<'_>, scale: &Value) -> Result<Option<i64>, ApiError> {
    let replicas = scale.pointer("/spec/replicas").and_then(Value::as_i64);
    match replicas {
        Some(negative) if negative < 0 => {
            let detail = "must be greater than or equal to 0";
            let errors = vec![FieldError::invalid("spec.replicas", negative, detail)];
            let target = request.target();
            Err(ApiError::Invalid { target, errors })
        }
        replicas => Ok(replicas),
    }
}

/// Server-side apply of a Scale: what it says is applied to the object it scales, and owned there, under
/// the name of the subresource.
async fn apply_scale(request: &Request<'_>, body: Body) -> Result<Value, ApiError> {
    let bytes = body::read(body).await?;
    let decoded = windlass_api::schema::decode_yaml(&bytes)
        .map_err(|error| ApiError::BadRequest(format!("error decoding patch: {error}")))?;
    let registry = request.server.registry();
    let ty = registry.schema().kind(&SCALE).ok_or(ApiError::NoSuchPath)?;
    let checked = body::check(request, &SCALE, ty, decoded.value, &decoded.duplicates)?;
    let replicas = replicas_of(request, &checked.object)?;
    let spec = replicas.map_or_else(|| json!({}), |replicas| json!({"replicas": replicas}));
    let gvk = &request.call().served.kind.info.gvk;
    let config = json!({
        "apiVersion": gvk.api_version(), "kind": gvk.kind,
        "metadata": {"name": request.context.info.name}, "spec": spec,
    });
    let endpoint = Endpoint::Named("scale");
    let written = super::patch::apply(request, endpoint, &config).await?;
    scale_written(&written)
}

/// The Scale of an object just written.
fn scale_written(written: &Written) -> Result<Value, ApiError> {
    let object = serde_json::from_slice(&written.bytes)
        .map_err(|error| ApiError::Internal(error.to_string()))?;
    Ok(scale_of(&object))
}

/// GET pods/NAME/log: from the node that runs the pod.
struct Log;

#[async_trait]
impl Subresource for Log {
    fn name(&self) -> &'static str {
        "log"
    }

    async fn respond(&self, request: &Request<'_>, _: Body) -> Result<Response, ApiError> {
        if request.context.info.verb != "get" {
            return Err(not_allowed(request));
        }
        let entry = request.server.registry().get(&request.call()).await?;
        let pod = parse(&entry)?;
        let snapshot = request
            .server
            .registry()
            .store()
            .snapshot(Freshness::Latest)
            .await?;
        request
            .server
            .nodes
            .logs(&pod, request.context, &snapshot)
            .await
    }
}
