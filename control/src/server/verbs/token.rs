//! POST serviceaccounts/NAME/token: a token for an account, bound to an object if asked for.
//!
//! A bound token dies with its object: a Pod that runs as the account, a Secret beside it, or a Node. One
//! bound to a Pod says on which Node the Pod runs.

use async_trait::async_trait;
use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use uuid::Uuid;
use windlass_api::resource::GroupVersionKind;
use windlass_api::time::format_seconds;

use super::Request;
use super::subresource::{Subresource, not_allowed, read};
use crate::pki::service_account::{Bound, Claims, Reference};
use crate::registry::error::{ApiError, Target};
use crate::registry::field_error::FieldError;
use crate::registry::kinds::text;
use crate::registry::{object_meta as meta, parse};
use crate::store::{Freshness, ObjectKey, Snapshot};

/// The subresource.
pub(super) struct Token;

/// Shortest and longest life of a token, and the life of one that asks for none, in seconds.
const LIFE: (i64, i64, i64) = (600, 86_400, 3600);

#[async_trait]
impl Subresource for Token {
    fn name(&self) -> &'static str {
        "token"
    }

    async fn respond(&self, request: &Request<'_>, body: Body) -> Result<Response, ApiError> {
        if request.context.info.verb != "create" {
            return Err(not_allowed(request));
        }
        let gvk = GroupVersionKind::of("authentication.k8s.io", "v1", "TokenRequest");
        let mut answer = read(request, body, &gvk).await?.object;
        let entry = request.server.registry().get(&request.call()).await?;
        let account = parse(&entry)?;
        let seconds = life(request, &answer)?;
        let (namespace, name) = (
            &*request.context.info.namespace,
            &*request.context.info.name,
        );
        let store = request.server.registry().store();
        let snapshot = store.snapshot(Freshness::Latest).await?;
        let mut bound = match answer.pointer("/spec/boundObjectRef") {
            Some(reference) if !reference.is_null() => bind(&snapshot, &account, reference)?,
            _ => Bound::default(),
        };
        if let Some(node) = request.context.user.node_name() {
            restrict(node, &answer, &snapshot, &bound, request)?;
        }
        namespace.clone_into(&mut bound.namespace);
        bound.serviceaccount = reference(&account);
        let issuer = request.server.tokens.issuer();
        let now = Timestamp::now();
        let claims = Claims {
            jti: Uuid::new_v4().to_string(),
            iss: issuer.to_owned(),
            sub: format!("system:serviceaccount:{namespace}:{name}"),
            aud: audiences(&answer, issuer),
            exp: now.as_second() + seconds,
            iat: now.as_second(),
            nbf: now.as_second(),
            bound,
        };
        let token = request.server.tokens.sign(&claims);
        let token = token.map_err(|error| ApiError::Internal(error.to_string()))?;
        let end = now
            .saturating_add(SignedDuration::from_secs(seconds))
            .unwrap_or(now);
        let status = meta::member_mut(&mut answer, "status");
        status.insert("token".into(), token.into());
        status.insert("expirationTimestamp".into(), format_seconds(end).into());
        let spec = meta::member_mut(&mut answer, "spec");
        spec.insert("expirationSeconds".into(), seconds.into());
        spec.insert("audiences".into(), json!(claims.aud));
        request.answer(StatusCode::CREATED, &answer)
    }
}

/// How long the token lives, in seconds.
fn life(request: &Request<'_>, asked: &Value) -> Result<i64, ApiError> {
    const FIELD: &str = "spec.expirationSeconds";
    let (shortest, longest, usual) = LIFE;
    let seconds = asked.pointer("/spec/expirationSeconds");
    let seconds = seconds.and_then(Value::as_i64).unwrap_or(usual);
    if seconds < shortest {
        let detail = "may not specify a duration less than 10 minutes";
        return Err(ApiError::Invalid {
            target: request.target(),
            errors: vec![FieldError::invalid(FIELD, seconds, detail)],
        });
    }
    Ok(seconds.min(longest))
}

/// Refuses tokens that no pod of the node that asks needs.
fn restrict(
    node: &str,
    asked: &Value,
    snapshot: &Snapshot,
    bound: &Bound,
    request: &Request<'_>,
) -> Result<(), ApiError> {
    let refuse = |reason: String| {
        Err(ApiError::Forbidden {
            target: request.target(),
            reason,
            cause: None,
        })
    };
    let Some(pod) = &bound.pod else {
        return refuse("node requested token not bound to a pod".into());
    };
    if text(asked, "/spec/boundObjectRef/uid").is_empty() {
        return refuse("node requested token with a pod binding without a uid".into());
    }
    if bound.node.as_ref().is_none_or(|bound| bound.name != node) {
        return refuse("node requested token bound to a pod scheduled on a different node".into());
    }
    let namespace = &*request.context.info.namespace;
    let key = ObjectKey::new("", "pods", namespace, &pod.name);
    let pod = snapshot.get(&key).map(|pod| parse(pod)).transpose()?;
    let issuer = request.server.tokens.issuer();
    let wanted = pod.iter().flat_map(|pod| token_audiences(pod, issuer));
    let wanted: Vec<String> = wanted.collect();
    for audience in audiences(asked, issuer) {
        if !wanted.contains(&audience) {
            return refuse(format!(
                "audience {audience:?} not found in pod spec volume"
            ));
        }
    }
    Ok(())
}

/// Whom the tokens in a pod's volumes are for.
fn token_audiences(pod: &Value, issuer: &str) -> Vec<String> {
    let volumes = pod.pointer("/spec/volumes").and_then(Value::as_array);
    let sources = volumes.into_iter().flatten().filter_map(|volume| {
        let sources = volume.pointer("/projected/sources")?;
        sources.as_array()
    });
    let tokens = sources.flatten().filter_map(|source| {
        let token = source.get("serviceAccountToken")?;
        Some(match text(token, "/audience") {
            "" => issuer.to_owned(),
            audience => audience.to_owned(),
        })
    });
    tokens.collect()
}

/// Whom the token is for: the API itself unless the request says so.
fn audiences(asked: &Value, issuer: &str) -> Vec<String> {
    let audiences = asked.pointer("/spec/audiences").and_then(Value::as_array);
    let audiences = audiences.into_iter().flatten().filter_map(Value::as_str);
    let audiences: Vec<String> = audiences.map(str::to_owned).collect();
    if audiences.is_empty() {
        return vec![issuer.to_owned()];
    }
    audiences
}

/// The objects that a token with this `boundObjectRef` stands for.
fn bind(snapshot: &Snapshot, account: &Value, wanted: &Value) -> Result<Bound, ApiError> {
    let (kind, name) = (text(wanted, "/kind"), text(wanted, "/name"));
    let namespace = meta::namespace(account);
    let target = |resource: &str| Target {
        group: String::new(),
        resource: resource.to_owned(),
        kind: kind.to_owned(),
        name: name.to_owned(),
    };
    let get = |resource: &str, namespace: &str, name: &str| {
        let entry = snapshot.get(&ObjectKey::new("", resource, namespace, name));
        entry.map(|entry| parse(entry)).transpose()
    };
    let find = |resource: &str, namespace: &str| {
        get(resource, namespace, name)?.ok_or_else(|| ApiError::NotFound(target(resource)))
    };
    let mut bound = Bound::default();
    let object = match (text(wanted, "/apiVersion"), kind) {
        ("" | "v1", "Pod") => {
            let pod = find("pods", namespace)?;
            let account = meta::name(account);
            if text(&pod, "/spec/serviceAccountName") != account {
                return Err(ApiError::BadRequest(format!(
                    "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
                )));
            }
            let node = text(&pod, "/spec/nodeName");
            if !node.is_empty() {
                // A Pod may be bound to a Node that is not there, or gone.
                let found = get("nodes", "", node)?;
                bound.node = Some(Reference {
                    name: node.to_owned(),
                    uid: found
                        .map(|node| meta::uid(&node).to_owned())
                        .unwrap_or_default(),
                });
            }
            bound.pod = Some(reference(&pod));
            pod
        }
        ("" | "v1", "Secret") => {
            let secret = find("secrets", namespace)?;
            bound.secret = Some(reference(&secret));
            secret
        }
        ("" | "v1", "Node") => {
            let node = find("nodes", "")?;
            bound.node = Some(reference(&node));
            node
        }
        (api_version, kind) => {
            let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
            return Err(ApiError::BadRequest(format!(
                "cannot bind token to object of type {group}/{version}, Kind={kind}"
            )));
        }
    };
    let uid = text(wanted, "/uid");
    if !uid.is_empty() && uid != meta::uid(&object) {
        return Err(ApiError::Conflict {
            // Upstream names the kind where others name the resource.
            target: target(kind),
            reason: format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
            ),
        });
    }
    Ok(bound)
}

fn reference(object: &Value) -> Reference {
    Reference {
        name: meta::name(object).to_owned(),
        uid: meta::uid(object).to_owned(),
    }
}
