//! POST pods/NAME/eviction: a deletion that respects PodDisruptionBudgets.
//!
//! 1. A pod that is not running yet, has ended or is going already needs nobody's leave.
//! 2. A pod under no budget is deleted; one under several is refused, as upstream has it.
//! 3. A pod that is not ready may go without being counted, if its budget's policy says so.
//! 4. Otherwise one disruption is taken from the budget's status, in a write that fails if anything
//!    else changed the budget meanwhile; then the pod is marked (condition `DisruptionTarget`) and deleted.
//!
//! Invariant: for every pod deleted in step 4 one disruption was taken first, so that many evictions at
//! once never let more pods go than the budget allows. The disruption controller gives back what was
//! taken for a pod that was not deleted after all.

use async_trait::async_trait;
use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector as ObjectSelector;
use serde::Deserialize;
use serde_json::{Value, json};
use windlass_api::label_selector::LabelSelector;
use windlass_api::resource::GroupVersionKind;
use windlass_api::time::format_seconds;

use super::subresource::{Subresource, not_allowed, read};
use super::{Request, delete};
use crate::registry::delete::{DeleteOptions, Preconditions};
use crate::registry::error::ApiError;
use crate::registry::strategy::Endpoint;
use crate::registry::update::Update;
use crate::registry::{Call, Served, object_meta as meta, parse};
use crate::store::{Entry, Freshness, KeyRange};

const GROUP: &str = "policy";
const BUDGETS: &str = "poddisruptionbudgets";
/// More evictions than this that nobody confirmed: something is wrong with the controller.
const MAX_DISRUPTED: usize = 2000;
/// Seconds after which the controller should have looked at a changed budget.
const RETRY_AFTER: u32 = 10;

pub(super) struct Eviction;

#[async_trait]
impl Subresource for Eviction {
    fn name(&self) -> &'static str {
        "eviction"
    }

    async fn respond(&self, request: &Request<'_>, body: Body) -> Result<Response, ApiError> {
        if request.context.info.verb != "create" {
            return Err(not_allowed(request));
        }
        let gvk = GroupVersionKind::of(GROUP, "v1", "Eviction");
        let eviction = read(request, body, &gvk).await?.object;
        let (named, name) = (meta::name(&eviction), &*request.context.info.name);
        if !named.is_empty() && named != name {
            return Err(ApiError::BadRequest(
                "name in URL does not match name in Eviction object".into(),
            ));
        }
        let asked = eviction.get("deleteOptions").cloned();
        let mut options = delete::options_of(request, asked.unwrap_or_else(|| json!({})))?;
        let mut call = request.call();
        let dry_run = crate::registry::WriteOptions {
            dry_run: call.options.dry_run || !options.dry_run.is_empty(),
            ..call.options.clone()
        };
        call.options = &dry_run;
        evict(request, &call, &mut options).await?;
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201,
        });
        request.answer(StatusCode::CREATED, &status)
    }
}

async fn evict(
    request: &Request<'_>,
    call: &Call<'_>,
    options: &mut DeleteOptions,
) -> Result<(), ApiError> {
    let registry = request.server.registry();
    let entry = registry.get(call).await?;
    let pod = parse(&entry)?;
    if !needs_leave(&pod) {
        insist(options, &pod, true);
        registry.delete(call, options).await?;
        return Ok(());
    }
    let mut budgets = budgets_of(request, &entry).await?;
    let budget = match (budgets.pop(), budgets.pop()) {
        (Some(_), Some(_)) => return Err(ApiError::SeveralBudgets),
        (budget, _) => budget,
    };
    if let Some(budget) = budget {
        if !is_ready(&pod) && may_go_unready(&budget) {
            // What was read decided; a pod that became ready meanwhile is another matter.
            insist(options, &pod, true);
        } else {
            let served = registry
                .find(GROUP, "v1", BUDGETS)
                .ok_or(ApiError::NoSuchPath)?;
            take(request, call, served, &budget, meta::name(&pod)).await?;
            insist(options, &pod, false);
        }
    }
    mark(request, call).await?;
    registry.delete(call, options).await?;
    Ok(())
}

/// Whether evicting the pod disturbs anything: pods that run count, all others do not.
fn needs_leave(pod: &Value) -> bool {
    let phase = pod.pointer("/status/phase").and_then(Value::as_str);
    !meta::is_terminating(pod)
        && !matches!(
            phase.unwrap_or_default(),
            "Succeeded" | "Failed" | "Pending"
        )
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|condition| {
        condition.get("type") == Some(&"Ready".into())
            && condition.get("status") == Some(&"True".into())
    })
}

/// Makes the deletion be of the pod that was looked at, and of no other revision if `exact`.
fn insist(options: &mut DeleteOptions, pod: &Value, exact: bool) {
    let preconditions = options
        .preconditions
        .get_or_insert_with(Preconditions::default);
    preconditions
        .uid
        .get_or_insert_with(|| meta::uid(pod).to_owned());
    if exact {
        preconditions
            .resource_version
            .get_or_insert_with(|| meta::text(pod, "resourceVersion").to_owned());
    }
}

/// The budgets of the pod's namespace that choose it.
async fn budgets_of(request: &Request<'_>, pod: &Entry) -> Result<Vec<Value>, ApiError> {
    let namespace = &request.context.info.namespace;
    let store = request.server.registry().store();
    let snapshot = store.snapshot(Freshness::Latest).await?;
    let mut chosen = Vec::new();
    for entry in snapshot.range(&KeyRange::namespace(GROUP, BUDGETS, namespace), None) {
        let budget = parse(entry)?;
        let selector = budget.pointer("/spec/selector");
        let selector = selector.map(ObjectSelector::deserialize).transpose();
        let selector = selector
            .map_err(|error| error.to_string())
            .and_then(|of| LabelSelector::from_object(of.as_ref()).map_err(|e| e.to_string()));
        let selector = selector.map_err(|error| {
            let name = meta::name(&budget);
            ApiError::Internal(format!("selector of disruption budget {name:?}: {error}"))
        })?;
        if selector.matches(&pod.labels) {
            chosen.push(budget);
        }
    }
    Ok(chosen)
}

/// Whether the budget lets a pod go that is not ready anyway, without counting it.
fn may_go_unready(budget: &Value) -> bool {
    let policy = budget.pointer("/spec/unhealthyPodEvictionPolicy");
    if policy.and_then(Value::as_str) == Some("AlwaysAllow") {
        return true;
    }
    let (current, desired) = (
        status(budget, "currentHealthy"),
        status(budget, "desiredHealthy"),
    );
    current >= desired && desired > 0
}

fn status(budget: &Value, field: &str) -> i64 {
    let value = budget.pointer(&format!("/status/{field}"));
    value.and_then(Value::as_i64).unwrap_or_default()
}

/// Takes one disruption from the budget, or says why there is none.
async fn take(
    request: &Request<'_>,
    call: &Call<'_>,
    served: &Served,
    budget: &Value,
    pod: &str,
) -> Result<(), ApiError> {
    let budget_call = Call {
        served,
        namespace: call.namespace,
        name: meta::name(budget),
        options: call.options,
    };
    // Runs again from the newer budget whenever somebody else changed it in between.
    let change = |current: Option<&Value>| {
        let current = current.ok_or_else(|| ApiError::NotFound(budget_call.target()))?;
        taken(current, pod, Timestamp::now())
    };
    let update = Update {
        endpoint: Endpoint::Status,
        change: &change,
        may_create: false,
        manages_fields: false,
    };
    request
        .server
        .registry()
        .update(&budget_call, &update)
        .await?;
    Ok(())
}

/// The budget with one disruption less, spent on `pod`.
fn taken(budget: &Value, pod: &str, now: Timestamp) -> Result<Value, ApiError> {
    let name = meta::name(budget);
    if status(budget, "observedGeneration") < meta::generation(budget) {
        return Err(ApiError::DisruptionBudget {
            cause: format!("The disruption budget {name} is still being processed by the server."),
            retry_after: Some(RETRY_AFTER),
        });
    }
    let allowed = status(budget, "disruptionsAllowed");
    let forbidden = |reason: &str| ApiError::Forbidden {
        target: crate::registry::error::Target {
            group: GROUP.into(),
            resource: BUDGETS.into(),
            kind: "PodDisruptionBudget".into(),
            name: name.into(),
        },
        reason: reason.into(),
        cause: None,
    };
    if allowed < 0 {
        return Err(forbidden("pdb disruptions allowed is negative"));
    }
    let disrupted = budget.pointer("/status/disruptedPods");
    let disrupted = disrupted
        .and_then(Value::as_object)
        .map_or(0, |map| map.len());
    if disrupted > MAX_DISRUPTED {
        return Err(forbidden(
            "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
        ));
    }
    if allowed == 0 {
        let (desired, current) = (
            status(budget, "desiredHealthy"),
            status(budget, "currentHealthy"),
        );
        return Err(ApiError::DisruptionBudget {
            cause: format!(
                "The disruption budget {name} needs {desired} healthy pods and has {current} currently"
            ),
            retry_after: None,
        });
    }
    let mut budget = budget.clone();
    let status = meta::member_mut(&mut budget, "status");
    status.insert("disruptionsAllowed".into(), (allowed - 1).into());
    let disrupted = status.entry("disruptedPods").or_insert_with(|| json!({}));
    if let Some(disrupted) = disrupted.as_object_mut() {
        disrupted.insert(pod.to_owned(), format_seconds(now).into());
    }
    Ok(budget)
}

/// Notes on the pod why it goes.
async fn mark(request: &Request<'_>, call: &Call<'_>) -> Result<(), ApiError> {
    let change = |current: Option<&Value>| {
        let current = current.ok_or_else(|| ApiError::NotFound(call.target()))?;
        let mut pod = current.clone();
        let evicted = json!({
            "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
            "message": "Eviction API: evicting",
            "lastTransitionTime": format_seconds(Timestamp::now()),
        });
        meta::set_condition(&mut pod, evicted);
        Ok(pod)
    };
    let update = Update {
        endpoint: Endpoint::Status,
        change: &change,
        may_create: false,
        manages_fields: false,
    };
    request.server.registry().update(call, &update).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(allowed: i64, observed: i64) -> Value {
        json!({
            "metadata": {"name": "b", "generation": 2},
            "status": {
                "disruptionsAllowed": allowed, "observedGeneration": observed,
                "currentHealthy": 3, "desiredHealthy": 3,
            },
        })
    }

    #[test]
    fn a_disruption_is_taken_and_noted() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let after = taken(&budget(1, 2), "p", now).unwrap();
        assert_eq!(after["status"]["disruptionsAllowed"], 0);
        assert_eq!(
            after["status"]["disruptedPods"]["p"],
            "2026-01-01T00:00:00Z"
        );
    }

    #[test]
    fn a_budget_without_disruptions_says_what_it_needs() {
        for (budget, cause, retry_after) in [
            (
                budget(0, 2),
                "The disruption budget b needs 3 healthy pods and has 3 currently",
                Value::Null,
            ),
            (
                budget(1, 1),
                "The disruption budget b is still being processed by the server.",
                json!(10),
            ),
        ] {
            let error = taken(&budget, "p", Timestamp::UNIX_EPOCH).unwrap_err();
            let status = crate::server::status::of(&error);
            assert_eq!(status["code"], 429);
            assert_eq!(
                status["message"],
                "Cannot evict pod as it would violate the pod's disruption budget."
            );
            assert_eq!(status["details"]["causes"][0]["reason"], "DisruptionBudget");
            assert_eq!(status["details"]["causes"][0]["message"], cause);
            assert_eq!(status["details"]["retryAfterSeconds"], retry_after);
        }
    }

    #[test]
    fn pods_that_do_not_run_need_no_leave() {
        for (phase, needs) in [
            ("Running", true),
            ("Pending", false),
            ("Succeeded", false),
            ("Failed", false),
        ] {
            let pod = json!({"metadata": {}, "status": {"phase": phase}});
            assert_eq!(needs_leave(&pod), needs, "{phase}");
        }
    }
}
