//! HorizontalPodAutoscalers: as many replicas as the use of their pods asks for.
//!
//! Per autoscaler, once per period (15 seconds), because use tells nobody when it changes:
//!
//! 1. the scale of its target, through the API;
//! 2. what the pods under that scale's selector use, from metrics.k8s.io, and other metrics from
//!    custom.metrics.k8s.io and external.metrics.k8s.io ([`sources`]);
//! 3. [`replicas`] proposes a number per metric, the largest counts, [`behavior`] bounds it;
//! 4. the scale is written if it changes, and the status.
//!
//! Differs from Kubernetes: servers of custom and external metrics cannot be joined yet; until then an
//! autoscaler that asks for them says in its condition ScalingActive that there are none.

mod behavior;
mod replicas;
mod sources;
mod status;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::autoscaling::v2::{
    CrossVersionObjectReference, HPAScalingRules, HorizontalPodAutoscaler,
    HorizontalPodAutoscalerSpec, HorizontalPodAutoscalerStatus, MetricStatus,
};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, PostParams};
use tokio::sync::OnceCell;
use windlass_api::label_selector::LabelSelector;
use windlass_api::quantity::Quantity;

use super::Context;
use super::runtime::informer::{Change, Index};
use super::runtime::key::Key;
use super::runtime::metadata::Metadata;
use super::runtime::pod::Pod;
use super::runtime::recorder::reference;
use super::runtime::work_queue::WorkQueue;
use super::runtime::worker::{Outcome, ReconcileError, message, unless_gone, work};
use behavior::{History, allow};
use replicas::Tolerance;
use sources::{Answer, Question, Source};
use status::Condition;

const NAME: &str = "horizontal-pod-autoscaler";
const WORKERS: usize = 5;
/// How far use may be off without a consequence, if the autoscaler says nothing.
const TOLERANCE: f64 = 0.1;

/// Targets with a scale: group, kind, plural.
const SCALABLE: [(&str, &str, &str); 4] = [
    ("apps", "Deployment", "deployments"),
    ("apps", "ReplicaSet", "replicasets"),
    ("apps", "StatefulSet", "statefulsets"),
    ("", "ReplicationController", "replicationcontrollers"),
];

/// Starts the controller.
pub(super) fn start(context: Context) -> BoxFuture<'static, ()> {
    Box::pin(run(context))
}

async fn run(context: Context) {
    let queue = context.queue();
    let controller = Arc::new(Controller {
        queue: Arc::clone(&queue),
        known: Mutex::default(),
        context,
    });
    let informers = &controller.context.informers;
    informers.pods.synced().await;
    informers.autoscalers.synced().await;
    let changed = Arc::clone(&controller);
    let _autoscalers = informers
        .autoscalers
        .subscribe(move |change| changed.autoscaler_changed(change));
    let stop = controller.context.stop.clone();
    work(NAME, queue, WORKERS, stop, |key| controller.reconcile(key)).await;
}

struct Controller {
    context: Context,
    queue: Arc<WorkQueue<Key>>,
    known: Mutex<HashMap<Key, Known>>,
}

/// What is remembered of an autoscaler from one look to the next.
#[derive(Default)]
struct Known {
    history: History,
    /// Whose use counts, once that was found out.
    selector: Option<LabelSelector>,
}

/// What was found out about an autoscaler, and what is to be done.
struct Finding {
    /// Replicas that there are.
    current: i64,
    /// Replicas that the target asks for.
    replicas: i64,
    /// Replicas that it shall ask for.
    desired: i64,
    /// Why the number changes.
    reason: String,
    conditions: Vec<Condition>,
    /// `None` leaves what was shown.
    metrics: Option<Vec<MetricStatus>>,
    /// What went wrong: reason and text of an event.
    trouble: Option<Refused>,
}

/// A reason and what is said with it.
type Refused = (&'static str, String);

impl Finding {
    /// It cannot be told whose use counts.
    fn without_selector(mut self, (reason, why): Refused) -> Self {
        self.conditions
            .push(Condition::inactive(reason, why.clone()));
        self.trouble = Some((reason, why));
        self
    }
}

impl Controller {
    fn autoscaler_changed(&self, change: Change<'_, HorizontalPodAutoscaler>) {
        let Some(autoscaler) = change.either() else {
            return;
        };
        // Its own status is no news; the next look is due already.
        let old = change.old.map(|old| &old.spec);
        if change.new.is_none() || old != Some(&autoscaler.spec) {
            self.queue.add(Key::of(&autoscaler.metadata));
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Key, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn reconcile(&self, key: Key) -> Outcome {
        let Some(autoscaler) = self.context.informers.autoscalers.get(&key) else {
            // Not when it goes: a look that had begun would bring it back.
            self.known().remove(&key);
            return Ok(None);
        };
        let Some(spec) = &autoscaler.spec else {
            return Ok(None);
        };
        let now = self.context.now();
        let about = reference(
            "autoscaling/v2",
            "HorizontalPodAutoscaler",
            &autoscaler.metadata,
        );
        let recorder = &self.context.recorder;
        let finding = match self.scale_of(&key, &spec.scale_target_ref).await {
            Ok((api, scale)) => {
                let mut finding = self.find(&key, spec, &scale, now).await;
                if finding.desired != finding.replicas {
                    self.rescale(&key, &api, scale, &mut finding, about.clone(), now)
                        .await;
                }
                finding
            }
            Err(error) => {
                let known = autoscaler.status.as_ref();
                let desired = known.map_or(0, |of| of.desired_replicas).into();
                let text = format!(
                    "the HPA controller was unable to get the target's current scale: {error}"
                );
                Finding {
                    current: known.and_then(|of| of.current_replicas).unwrap_or(0).into(),
                    replicas: desired,
                    desired,
                    reason: String::new(),
                    conditions: vec![Condition::unable("FailedGetScale", text)],
                    metrics: None,
                    trouble: Some(("FailedGetScale", error)),
                }
            }
        };
        if let Some((reason, text)) = &finding.trouble {
            recorder.warning(about, reason, text.clone());
        }
        self.write(&autoscaler, &finding, now).await?;
        Ok(Some(self.context.config.autoscaling_period))
    }

    /// The API of the target, and its scale.
    async fn scale_of(
        &self,
        key: &Key,
        target: &CrossVersionObjectReference,
    ) -> Result<(Api<DynamicObject>, Scale), String> {
        let api_version = target.api_version.clone().unwrap_or_default();
        let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
        let kind = &target.kind;
        let row = SCALABLE.iter().find(|row| (row.0, row.1) == (group, kind));
        let (_, _, plural) =
            row.ok_or_else(|| format!("no matches for kind {kind:?} in group {group:?}"))?;
        let resource = ApiResource {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: kind.clone(),
            plural: (*plural).to_owned(),
            api_version,
        };
        let client = self.context.client.clone();
        let api = Api::namespaced_with(client, &key.namespace, &resource);
        let scale = api.get_scale(&target.name).await;
        let scale = scale.map_err(|error| message(&error))?;
        Ok((api, scale))
    }

    /// What the metrics want, and what of it is allowed.
    async fn find(
        &self,
        key: &Key,
        spec: &HorizontalPodAutoscalerSpec,
        scale: &Scale,
        now: Timestamp,
    ) -> Finding {
        let replicas = scale.spec.as_ref().and_then(|spec| spec.replicas);
        let replicas = i64::from(replicas.unwrap_or(0));
        let status = scale.status.as_ref();
        let text = "the HPA controller was able to get the target's current scale";
        let mut finding = Finding {
            current: status.map_or(0, |status| status.replicas).into(),
            replicas,
            desired: replicas,
            reason: String::new(),
            conditions: vec![Condition::able("SucceededGetScale", text)],
            metrics: None,
            trouble: None,
        };
        let (least, most) = (
            i64::from(spec.min_replicas.unwrap_or(1)),
            i64::from(spec.max_replicas),
        );
        self.known()
            .entry(key.clone())
            .or_default()
            .history
            .begin(replicas, now);
        if replicas == 0 && least != 0 {
            let text = "scaling is disabled since the replica count of the target is zero";
            finding.desired = 0;
            let disabled = Condition::inactive("ScalingDisabled", text);
            finding.conditions.push(disabled);
            return finding;
        }
        if replicas > most {
            finding.reason = "Current number of replicas above Spec.MaxReplicas".into();
            finding.desired = most;
            return finding;
        }
        if replicas < least {
            finding.reason = "Current number of replicas below Spec.MinReplicas".into();
            finding.desired = least;
            return finding;
        }
        let selector = status.and_then(|status| status.selector.as_deref());
        let selector = selector.unwrap_or_default();
        let pods = match self.pods_of(key, selector) {
            Ok(pods) => pods,
            Err(refused) => return finding.without_selector(refused),
        };
        let (answers, failed) = self
            .measure(key, spec, replicas, (selector, pods), now)
            .await;
        finding.metrics = Some(answers.iter().map(|of| of.shown.clone()).collect());
        let best = answers.iter().max_by_key(|of| of.proposal.replicas);
        // Fewer only if every metric agrees: one that is not known may need them.
        let best = best.filter(|of| failed.is_none() || of.proposal.replicas > replicas);
        let Some(best) = best else {
            let (reason, text) = failed.unwrap_or(("InvalidMetricSourceType", "no metric".into()));
            finding
                .conditions
                .push(Condition::inactive(reason, text.clone()));
            let all = spec.metrics.as_ref().map_or(0, Vec::len);
            let invalid = all - answers.len();
            let text =
                format!("invalid metrics ({invalid} invalid out of {all}), first error is: {text}");
            finding.trouble = Some(("FailedComputeMetricsReplicas", text));
            return finding;
        };
        let name = &best.name;
        finding.conditions.push(Condition::active(format!(
            "the HPA was able to successfully calculate a replica count from {name}"
        )));
        let wanted = best.proposal.replicas;
        finding.reason = match wanted.cmp(&replicas) {
            std::cmp::Ordering::Greater => format!("{name} above target"),
            _ => "All metrics below target".into(),
        };
        let mut known = self.known();
        let history = &mut known.entry(key.clone()).or_default().history;
        let allowed = allow(spec, replicas, wanted, history, now);
        finding.desired = allowed.replicas;
        finding.conditions.extend(allowed.conditions);
        finding
    }

    /// The pods whose use counts; if another autoscaler counts one of them too, neither can know what it does.
    fn pods_of(&self, key: &Key, text: &str) -> Result<Vec<Arc<Pod>>, Refused> {
        let invalid = |text: String| ("InvalidSelector", text);
        if text.is_empty() {
            return Err(invalid(
                "the HPA target's scale is missing a selector".into(),
            ));
        }
        let selector = LabelSelector::parse(text).map_err(|error| {
            invalid(format!(
                "the HPA target's scale has an invalid selector: {error}"
            ))
        })?;
        let index = Index::Namespace(key.namespace.to_string());
        let mut pods = self.context.informers.pods.by(&index);
        pods.retain(|pod| selector.matches(pod.metadata.labels()));
        let mut known = self.known();
        known.entry(key.clone()).or_default().selector = Some(selector);
        let counts = |selector: &LabelSelector| {
            pods.iter()
                .any(|pod| selector.matches(pod.metadata.labels()))
        };
        let counting = known.iter().filter(|(other, known)| {
            *other != key
                && other.namespace == key.namespace
                && known.selector.as_ref().is_some_and(counts)
        });
        let mut counting: Vec<_> = counting.map(|(other, _)| other.to_string()).collect();
        if counting.is_empty() {
            return Ok(pods);
        }
        counting.push(key.to_string());
        counting.sort_unstable();
        let text = format!(
            "pods by selector {text} are controlled by multiple HPAs: [{}]",
            counting.join(" ")
        );
        Err(("AmbiguousSelector", text))
    }

    /// What each metric answers, and what the first that does not says.
    async fn measure(
        &self,
        key: &Key,
        spec: &HorizontalPodAutoscalerSpec,
        replicas: i64,
        (selector, pods): (&str, Vec<Arc<Pod>>),
        now: Timestamp,
    ) -> (Vec<Answer>, Option<Refused>) {
        let source = Source {
            client: self.context.client.clone(),
            namespace: key.namespace.to_string(),
            selector: selector.to_owned(),
            pods,
            resources: OnceCell::new(),
        };
        let question = Question {
            replicas,
            tolerance: tolerance(spec),
            now,
        };
        let (mut answers, mut failed) = (Vec::new(), None);
        for metric in spec.metrics.iter().flatten() {
            match source.answer(metric, question).await {
                Ok(answer) => answers.push(answer),
                Err(error) if failed.is_none() => failed = Some(error),
                Err(_) => {}
            }
        }
        (answers, failed)
    }

    /// Writes the number of replicas.
    async fn rescale(
        &self,
        key: &Key,
        api: &Api<DynamicObject>,
        mut scale: Scale,
        finding: &mut Finding,
        about: ObjectReference,
        now: Timestamp,
    ) {
        let desired = i32::try_from(finding.desired).unwrap_or(i32::MAX);
        scale.spec.get_or_insert_default().replicas = Some(desired);
        let reason = &finding.reason;
        let params = PostParams::default();
        match api
            .replace_scale(scale.metadata.name(), &params, &scale)
            .await
        {
            Ok(_) => {
                let text = format!("New size: {desired}; reason: {reason}");
                self.context
                    .recorder
                    .normal(about, "SuccessfulRescale", text);
                let mut known = self.known();
                let history = &mut known.entry(key.clone()).or_default().history;
                history.scaled(finding.replicas, finding.desired, now);
                finding.conditions.push(Condition::able(
                    "SucceededRescale",
                    format!("the HPA controller was able to update the target scale to {desired}"),
                ));
            }
            Err(error) => {
                let error = message(&error);
                let text = format!("New size: {desired}; reason: {reason}; error: {error}");
                finding.trouble = Some(("FailedRescale", text));
                finding.conditions.push(Condition::unable(
                    "FailedUpdateScale",
                    format!("the HPA controller was unable to update the target scale: {error}"),
                ));
                finding.desired = finding.replicas;
            }
        }
    }

    async fn write(
        &self,
        autoscaler: &HorizontalPodAutoscaler,
        finding: &Finding,
        now: Timestamp,
    ) -> Result<(), ReconcileError> {
        let known = autoscaler.status.clone().unwrap_or_default();
        let number = |count: i64| i32::try_from(count).unwrap_or(i32::MAX);
        let mut said = finding.conditions.iter();
        let has_scaled = said.any(|of| of.reason == "SucceededRescale");
        let status = HorizontalPodAutoscalerStatus {
            conditions: Some(status::merge(
                known.conditions.as_deref(),
                &finding.conditions,
                now,
            )),
            current_metrics: finding.metrics.clone().or(known.current_metrics.clone()),
            current_replicas: Some(number(finding.current)),
            desired_replicas: number(finding.desired),
            last_scale_time: if has_scaled {
                Some(Time(now))
            } else {
                known.last_scale_time.clone()
            },
            observed_generation: autoscaler.metadata.generation,
        };
        if status == known {
            return Ok(());
        }
        let mut written = autoscaler.clone();
        written.status = Some(status);
        let api: Api<HorizontalPodAutoscaler> =
            Api::namespaced(self.context.client.clone(), autoscaler.metadata.namespace());
        let params = PostParams::default();
        let name = autoscaler.metadata.name();
        unless_gone(api.replace_status(name, &params, &written).await)?;
        Ok(())
    }
}

fn tolerance(spec: &HorizontalPodAutoscalerSpec) -> Tolerance {
    let behavior = spec.behavior.as_ref();
    let of = |rules: Option<&HPAScalingRules>| {
        let given = rules.and_then(|rules| rules.tolerance.as_ref());
        let given: Option<Quantity> = given.and_then(|given| given.0.parse().ok());
        given.map_or(TOLERANCE, |given| given.millis() as f64 / 1000.0)
    };
    Tolerance {
        down: of(behavior.and_then(|of| of.scale_down.as_ref())),
        up: of(behavior.and_then(|of| of.scale_up.as_ref())),
    }
}
