//! Where metrics come from, by type, and what each of them asks for.
//!
//! | type | API | about |
//! |---|---|---|
//! | Resource, ContainerResource | metrics.k8s.io/v1beta1 | each pod |
//! | Pods | custom.metrics.k8s.io/v1beta2 | each pod |
//! | Object | custom.metrics.k8s.io/v1beta2 | one object |
//! | External | external.metrics.k8s.io/v1beta1 | something outside |

use std::collections::BTreeMap;
use std::sync::Arc;

use http::Request;
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{
    CrossVersionObjectReference, MetricIdentifier, MetricSpec, MetricStatus, MetricTarget,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as WireQuantity;
use kube::Client;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::OnceCell;
use windlass_api::label_selector::LabelSelector;
use windlass_api::metrics::PodMetrics;
use windlass_api::quantity::Quantity;

use super::Refused;
use super::replicas::{
    Proposal, Resource, Target, Tolerance, ValueTarget, for_pods, for_resource, for_value,
};
use super::status;
use crate::controllers::runtime::pod::Pod;
use crate::controllers::runtime::worker::message;

const CUSTOM: &str = "/apis/custom.metrics.k8s.io/v1beta2";
const EXTERNAL: &str = "/apis/external.metrics.k8s.io/v1beta1";

/// A metric's answer: the number of replicas, what it is called, and what is shown.
pub(super) struct Answer {
    pub(super) proposal: Proposal,
    pub(super) name: String,
    pub(super) shown: MetricStatus,
}

/// What is asked of every metric.
#[derive(Clone, Copy)]
pub(super) struct Question {
    /// Replicas there are to be now.
    pub(super) replicas: i64,
    pub(super) tolerance: Tolerance,
    pub(super) now: Timestamp,
}

/// What metrics of one autoscaler are about.
pub(super) struct Source {
    pub(super) client: Client,
    pub(super) namespace: String,
    /// The selector of its pods, as text.
    pub(super) selector: String,
    pub(super) pods: Vec<Arc<Pod>>,
    /// Asked for once, however many metrics are about resources.
    pub(super) resources: OnceCell<Result<Vec<PodMetrics>, String>>,
}

#[derive(Deserialize)]
struct PodMetricsList {
    items: Vec<PodMetrics>,
}

#[derive(Deserialize)]
struct Values {
    items: Vec<Value>,
}

/// A value of a custom or external metric.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Value {
    described_object: Option<Described>,
    value: WireQuantity,
}

#[derive(Deserialize)]
struct Described {
    #[serde(default)]
    name: String,
}

/// Reads what a path holds.
///
/// # Errors
/// What the API says.
async fn get<T: DeserializeOwned>(client: &Client, path: &str) -> Result<T, String> {
    let request = Request::get(path).body(Vec::new());
    let request = request.map_err(|error| error.to_string())?;
    let answer = client.request(request).await;
    answer.map_err(|error| message(&error))
}

impl Source {
    /// What one metric asks for.
    ///
    /// # Errors
    /// The reason and text of condition ScalingActive.
    pub(super) async fn answer(
        &self,
        metric: &MetricSpec,
        question: Question,
    ) -> Result<Answer, Refused> {
        let (reason, answer) = match metric.type_.as_str() {
            "Resource" => (
                "FailedGetResourceMetric",
                self.of_resource(metric, question).await,
            ),
            "ContainerResource" => (
                "FailedGetContainerResourceMetric",
                self.of_resource(metric, question).await,
            ),
            "Pods" => ("FailedGetPodsMetric", self.of_pods(metric, question).await),
            "Object" => (
                "FailedGetObjectMetric",
                self.of_object(metric, question).await,
            ),
            "External" => (
                "FailedGetExternalMetric",
                self.of_outside(metric, question).await,
            ),
            other => {
                let text = format!("unknown metric source type {other:?}");
                return Err(("InvalidMetricSourceType", text));
            }
        };
        answer.map_err(|error| {
            let text = format!("the HPA was unable to compute the replica count: {error}");
            (reason, text)
        })
    }

    async fn of_resource(&self, metric: &MetricSpec, of: Question) -> Result<Answer, String> {
        let of_pods = metric.resource.as_ref().map(|source| {
            let name = source.name.as_str();
            (
                Resource {
                    name,
                    container: None,
                },
                &source.target,
            )
        });
        let of_container = metric.container_resource.as_ref().map(|source| {
            let container = Some(source.container.as_str());
            let name = source.name.as_str();
            (Resource { name, container }, &source.target)
        });
        let (resource, target) = of_pods.or(of_container).ok_or("the metric has no source")?;
        let target = match (&target.average_value, target.average_utilization) {
            (Some(value), _) => Target::AverageValue(thousandths(value)?),
            (None, Some(percent)) => Target::Utilization(percent.into()),
            (None, None) => {
                return Err("invalid resource metric source: neither an average utilization nor an average value is set".into());
            }
        };
        let metrics = self.resources.get_or_init(|| self.resources()).await;
        let metrics = metrics.as_ref().map_err(|error| {
            let name = resource.name;
            format!("unable to get metrics for resource {name}: unable to fetch metrics from resource metrics API: {error}")
        })?;
        let seen = (self.pods.as_slice(), metrics.as_slice());
        let proposal = for_resource(of.replicas, resource, target, of.tolerance, seen, of.now)?;
        let kind = match target {
            Target::Utilization(_) => "resource utilization (percentage of request)",
            Target::AverageValue(_) => "resource",
        };
        let name = match resource.container {
            None => format!("{} {kind}", resource.name),
            Some(container) => format!("{} container {kind} of {container}", resource.name),
        };
        Ok(Answer {
            name,
            shown: status::resource(resource, &proposal),
            proposal,
        })
    }

    async fn resources(&self) -> Result<Vec<PodMetrics>, String> {
        let namespace = &self.namespace;
        let query = query(&[("labelSelector", &self.selector)]);
        let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods{query}");
        let list: PodMetricsList = get(&self.client, &path).await?;
        Ok(list.items)
    }

    async fn of_pods(&self, metric: &MetricSpec, of: Question) -> Result<Answer, String> {
        let source = metric.pods.as_ref().ok_or("the metric has no source")?;
        let average = average(&source.target)?.ok_or("the target has no averageValue")?;
        let (namespace, name) = (&self.namespace, &source.metric.name);
        let own = selector_of(&source.metric)?;
        let query = query(&[
            ("labelSelector", &self.selector),
            ("metricLabelSelector", &own),
        ]);
        let path = format!("{CUSTOM}/namespaces/{namespace}/pods/%2A/{name}{query}");
        let values = self.values(name, "custom", &path).await?;
        let mut by_pod = BTreeMap::new();
        for value in values {
            if let Some(pod) = value.described_object {
                by_pod.insert(pod.name, thousandths(&value.value)?);
            }
        }
        let proposal = for_pods(
            of.replicas,
            by_pod,
            average,
            of.tolerance,
            &self.pods,
            of.now,
        )?;
        Ok(Answer {
            name: format!("pods metric {name}"),
            shown: status::pods(&source.metric, &proposal),
            proposal,
        })
    }

    async fn of_object(&self, metric: &MetricSpec, of: Question) -> Result<Answer, String> {
        let source = metric.object.as_ref().ok_or("the metric has no source")?;
        let (namespace, name) = (&self.namespace, &source.metric.name);
        let described = &source.described_object;
        let own = selector_of(&source.metric)?;
        let query = query(&[("metricLabelSelector", &own)]);
        let about = path_of(described, namespace);
        let path = format!("{CUSTOM}/{about}/{name}{query}");
        let values = self.values(name, "custom", &path).await?;
        let value = values.first().ok_or("there is no value")?;
        let value = thousandths(&value.value)?;
        let proposal = self.compare(value, &source.target, of)?;
        Ok(Answer {
            name: format!("{} metric {name}", described.kind),
            shown: status::object(source, &proposal),
            proposal,
        })
    }

    async fn of_outside(&self, metric: &MetricSpec, of: Question) -> Result<Answer, String> {
        let source = metric.external.as_ref().ok_or("the metric has no source")?;
        let (namespace, name) = (&self.namespace, &source.metric.name);
        let own = selector_of(&source.metric)?;
        let query = query(&[("labelSelector", &own)]);
        let path = format!("{EXTERNAL}/namespaces/{namespace}/{name}{query}");
        let values = self.values(name, "external", &path).await?;
        let mut sum: i64 = 0;
        for value in values {
            sum = sum.saturating_add(thousandths(&value.value)?);
        }
        let proposal = self.compare(sum, &source.target, of)?;
        Ok(Answer {
            name: format!("external metric {name}"),
            shown: status::external(source, &proposal),
            proposal,
        })
    }

    async fn values(&self, name: &str, api: &str, path: &str) -> Result<Vec<Value>, String> {
        let values = get::<Values>(&self.client, path).await;
        let values = values.map_err(|error| {
            format!("unable to get metric {name}: unable to fetch metrics from {api} metrics API: {error}")
        })?;
        if values.items.is_empty() {
            return Err(format!(
                "unable to get metric {name}: no metrics returned from {api} metrics API"
            ));
        }
        Ok(values.items)
    }

    fn compare(&self, value: i64, target: &MetricTarget, of: Question) -> Result<Proposal, String> {
        let target = match (&target.value, average(target)?) {
            (Some(value), _) => ValueTarget::Value(thousandths(value)?),
            (None, Some(average)) => ValueTarget::AverageValue(average),
            (None, None) => {
                return Err(
                    "invalid metric source: neither a value nor an average value is set".into(),
                );
            }
        };
        let ready = self.pods.iter().filter(|pod| pod.ready && pod.is_active());
        let counts = (of.replicas, ready.count());
        Ok(for_value(counts, value, target, of.tolerance))
    }
}

fn average(target: &MetricTarget) -> Result<Option<i64>, String> {
    target.average_value.as_ref().map(thousandths).transpose()
}

fn thousandths(amount: &WireQuantity) -> Result<i64, String> {
    let amount = amount.0.parse::<Quantity>();
    amount
        .map(Quantity::millis)
        .map_err(|error| error.to_string())
}

/// Which series of a metric are meant, as text; empty for all.
fn selector_of(metric: &MetricIdentifier) -> Result<String, String> {
    let Some(selector) = &metric.selector else {
        return Ok(String::new());
    };
    let selector = LabelSelector::from_object(Some(selector));
    selector
        .map(|selector| selector.to_string())
        .map_err(|error| error.to_string())
}

/// Parameters that are not empty.
fn query(pairs: &[(&str, &str)]) -> String {
    let given = pairs.iter().filter(|(_, value)| !value.is_empty());
    let text = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(given)
        .finish();
    if text.is_empty() {
        text
    } else {
        format!("?{text}")
    }
}

/// Where the metrics of an object are: `namespaces/NAMESPACE/RESOURCE.GROUP/NAME`.
fn path_of(described: &CrossVersionObjectReference, namespace: &str) -> String {
    let version = described.api_version.as_deref().unwrap_or_default();
    let (kind, name) = (described.kind.as_str(), &described.name);
    // Metrics of a namespace are in it.
    if kind == "Namespace" {
        return format!("namespaces/{name}/metrics");
    }
    let plural = plural(kind);
    let resource = match version.split_once('/') {
        Some((group, _)) => format!("{plural}.{group}"),
        None => plural,
    };
    format!("namespaces/{namespace}/{resource}/{name}")
}

/// The plural as every kind of Kubernetes forms it.
fn plural(kind: &str) -> String {
    let kind = kind.to_lowercase();
    match kind.as_bytes() {
        [.., b's'] | [.., b'x'] | [.., b'c', b'h'] => format!("{kind}es"),
        [.., b'a' | b'e' | b'i' | b'o' | b'u', b'y'] => format!("{kind}s"),
        [rest @ .., b'y'] => format!("{}ies", String::from_utf8_lossy(rest)),
        _ => format!("{kind}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_of_an_object_are_under_its_resource() {
        let path = |version: &str, kind: &str| {
            let described = CrossVersionObjectReference {
                api_version: Some(version.into()),
                kind: kind.into(),
                name: "n".into(),
            };
            path_of(&described, "ns")
        };
        assert_eq!(path("v1", "Service"), "namespaces/ns/services/n");
        let ingress = "namespaces/ns/ingresses.networking.k8s.io/n";
        assert_eq!(path("networking.k8s.io/v1", "Ingress"), ingress);
        let policy = "namespaces/ns/networkpolicies.networking.k8s.io/n";
        assert_eq!(path("networking.k8s.io/v1", "NetworkPolicy"), policy);
        assert_eq!(path("v1", "Namespace"), "namespaces/n/metrics");
    }
}
