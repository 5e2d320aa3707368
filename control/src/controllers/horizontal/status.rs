//! What an autoscaler says about itself: conditions and the metrics it saw. Pure.

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricStatus, ExternalMetricSource, ExternalMetricStatus,
    HorizontalPodAutoscalerCondition, MetricIdentifier, MetricStatus, MetricTarget,
    MetricValueStatus, ObjectMetricSource, ObjectMetricStatus, PodsMetricStatus,
    ResourceMetricStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::replicas::{Proposal, Resource};

/// A condition that is to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    kind: &'static str,
    holds: bool,
    pub(super) reason: &'static str,
    message: String,
}

impl Condition {
    pub(super) fn able(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new("AbleToScale", true, reason, message)
    }

    pub(super) fn unable(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new("AbleToScale", false, reason, message)
    }

    pub(super) fn active(message: impl Into<String>) -> Self {
        Self::new("ScalingActive", true, "ValidMetricFound", message)
    }

    pub(super) fn inactive(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new("ScalingActive", false, reason, message)
    }

    pub(super) fn limited(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new("ScalingLimited", true, reason, message)
    }

    pub(super) fn too_few() -> Self {
        let text = "the desired replica count is less than the minimum replica count";
        Self::limited("TooFewReplicas", text)
    }

    pub(super) fn too_many() -> Self {
        let text = "the desired replica count is more than the maximum replica count";
        Self::limited("TooManyReplicas", text)
    }

    pub(super) fn unlimited() -> Self {
        let text = "the desired count is within the acceptable range";
        Self::new("ScalingLimited", false, "DesiredWithinRange", text)
    }

    fn new(
        kind: &'static str,
        holds: bool,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            holds,
            reason,
            message: message.into(),
        }
    }
}

/// The known conditions with `said` in their place; the last word on a type counts.
pub(super) fn merge(
    known: Option<&[HorizontalPodAutoscalerCondition]>,
    said: &[Condition],
    now: Timestamp,
) -> Vec<HorizontalPodAutoscalerCondition> {
    let mut all = known.unwrap_or_default().to_vec();
    for Condition {
        kind,
        holds,
        reason,
        message,
    } in said
    {
        let status = if *holds { "True" } else { "False" };
        let (reason, message) = (Some((*reason).to_owned()), Some(message.clone()));
        if let Some(known) = all.iter_mut().find(|of| of.type_ == *kind) {
            if known.status != status {
                known.last_transition_time = Some(Time(now));
            }
            status.clone_into(&mut known.status);
            known.reason = reason;
            known.message = message;
            continue;
        }
        all.push(HorizontalPodAutoscalerCondition {
            type_: (*kind).to_owned(),
            status: status.to_owned(),
            reason,
            message,
            last_transition_time: Some(Time(now)),
        });
    }
    all
}

/// What is shown of a resource.
pub(super) fn resource(resource: Resource<'_>, proposal: &Proposal) -> MetricStatus {
    let percent = proposal.utilization;
    let current = MetricValueStatus {
        average_utilization: percent.map(|percent| i32::try_from(percent).unwrap_or(i32::MAX)),
        average_value: Some(match resource.name {
            "cpu" => thousandths(proposal.average),
            _ => Quantity((proposal.average / 1000).to_string()),
        }),
        value: None,
    };
    let name = resource.name.to_owned();
    match resource.container {
        None => MetricStatus {
            type_: "Resource".into(),
            resource: Some(ResourceMetricStatus { current, name }),
            ..MetricStatus::default()
        },
        Some(container) => MetricStatus {
            type_: "ContainerResource".into(),
            container_resource: Some(ContainerResourceMetricStatus {
                container: container.to_owned(),
                current,
                name,
            }),
            ..MetricStatus::default()
        },
    }
}

/// What is shown of a metric of each pod.
pub(super) fn pods(metric: &MetricIdentifier, proposal: &Proposal) -> MetricStatus {
    let current = MetricValueStatus {
        average_value: Some(thousandths(proposal.average)),
        ..MetricValueStatus::default()
    };
    MetricStatus {
        type_: "Pods".into(),
        pods: Some(PodsMetricStatus {
            current,
            metric: metric.clone(),
        }),
        ..MetricStatus::default()
    }
}

/// What is shown of a metric of an object.
pub(super) fn object(source: &ObjectMetricSource, proposal: &Proposal) -> MetricStatus {
    MetricStatus {
        type_: "Object".into(),
        object: Some(ObjectMetricStatus {
            current: value(&source.target, proposal),
            described_object: source.described_object.clone(),
            metric: source.metric.clone(),
        }),
        ..MetricStatus::default()
    }
}

/// What is shown of a metric of the outside.
pub(super) fn external(source: &ExternalMetricSource, proposal: &Proposal) -> MetricStatus {
    MetricStatus {
        type_: "External".into(),
        external: Some(ExternalMetricStatus {
            current: value(&source.target, proposal),
            metric: source.metric.clone(),
        }),
        ..MetricStatus::default()
    }
}

/// Shown in the form of the target.
fn value(target: &MetricTarget, proposal: &Proposal) -> MetricValueStatus {
    let amount = Some(thousandths(proposal.average));
    if target.value.is_some() {
        return MetricValueStatus {
            value: amount,
            ..MetricValueStatus::default()
        };
    }
    MetricValueStatus {
        average_value: amount,
        ..MetricValueStatus::default()
    }
}

fn thousandths(amount: i64) -> Quantity {
    Quantity(windlass_api::quantity::Quantity::from_millis(amount).to_string())
}
