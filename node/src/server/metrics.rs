//! Metrics in Prometheus' text format, as kubelet has them.
//!
//! | path | what |
//! |---|---|
//! | `/metrics` | the agent itself, and what went over the node's network, DNS and Ingress servers |
//! | `/metrics/resource` | processor time and memory of the node, its pods and containers |
//! | `/metrics/cadvisor` | the same of containers in the words of cAdvisor, with limits and the pods' network |
//!
//! Everything is read when somebody asks. Series are of what is there: those of a pod end with it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header;
use k8s_openapi::api::core::v1::{Container, Pod};
use windlass_api::node_info::Flow;
use windlass_api::pod_resources::amounts;

use super::DaemonState;
use super::container_logs::container_names;
use super::stats::machine;
use crate::network::tunnel::TunnelCounts;
use crate::network::{BUCKETS, Requests};
use crate::pods::facts;
use crate::runtime::Usage;

/// The version of the format, which is the first and the one that everybody reads.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// The period of the scheduler's quotas, in microseconds.
const PERIOD: f64 = 100_000.0;

/// A metric: name, type and what it means.
type Family = (&'static str, &'static str, &'static str);
/// A metric of containers, and how it is taken from one.
type OfContainer = (Family, fn(&Running) -> Option<f64>);
/// A metric of flows.
type OfFlow = (Family, fn(&Flow) -> u64);

/// `/metrics/resource`, of containers.
const RESOURCE: &[OfContainer] = &[
    (
        (
            "container_cpu_usage_seconds_total",
            "counter",
            "Cumulative cpu time consumed by the container in core-seconds",
        ),
        |it| Some(seconds(it.used.cpu_nanos)),
    ),
    (
        (
            "container_memory_working_set_bytes",
            "gauge",
            "Current working set of the container in bytes",
        ),
        |it| Some(it.used.memory_bytes as f64),
    ),
    (
        (
            "container_start_time_seconds",
            "gauge",
            "Start time of the container since unix epoch in seconds",
        ),
        |it| Some(it.started),
    ),
];

/// `/metrics/cadvisor`.
const CADVISOR: &[OfContainer] = &[
    (
        (
            "container_cpu_usage_seconds_total",
            "counter",
            "Cumulative cpu time consumed in seconds.",
        ),
        |it| Some(seconds(it.used.cpu_nanos)),
    ),
    (
        (
            "container_last_seen",
            "gauge",
            "Last time a container was seen by the exporter",
        ),
        |_| Some(now()),
    ),
    (
        (
            "container_memory_usage_bytes",
            "gauge",
            "Current memory usage in bytes, including all memory regardless of when it was accessed",
        ),
        |it| Some(it.used.memory_bytes as f64),
    ),
    (
        (
            "container_memory_working_set_bytes",
            "gauge",
            "Current working set in bytes.",
        ),
        |it| Some(it.used.memory_bytes as f64),
    ),
    (
        (
            "container_spec_cpu_period",
            "gauge",
            "CPU period of the container.",
        ),
        |it| it.amount(true, "cpu").map(|_| PERIOD),
    ),
    (
        (
            "container_spec_cpu_quota",
            "gauge",
            "CPU quota of the container.",
        ),
        |it| it.amount(true, "cpu").map(|cores| cores * PERIOD),
    ),
    (
        (
            "container_spec_cpu_shares",
            "gauge",
            "CPU share of the container.",
        ),
        // Spec: kubelet's shares: 1,024 for a core, and no fewer than two.
        |it| {
            Some(
                (it.amount(false, "cpu").unwrap_or(0.0) * 1024.0)
                    .floor()
                    .max(2.0),
            )
        },
    ),
    (
        (
            "container_spec_memory_limit_bytes",
            "gauge",
            "Memory limit for the container.",
        ),
        |it| Some(it.amount(true, "memory").unwrap_or(0.0)),
    ),
    (
        (
            "container_start_time_seconds",
            "gauge",
            "Start time of the container since unix epoch in seconds.",
        ),
        |it| Some(it.started),
    ),
    (
        (
            "container_threads",
            "gauge",
            "Number of threads running inside the container",
        ),
        |it| Some(it.used.processes as f64),
    ),
];

/// What went between pods and their peers, as each flow counts it.
const FLOWS: [OfFlow; 4] = [
    (
        (
            "windlass_network_connections_total",
            "counter",
            "Connections, and peers of datagrams, of pods of the node",
        ),
        |it| it.connections,
    ),
    (
        (
            "windlass_network_denied_total",
            "counter",
            "Connections and datagrams of pods of the node that were not let through",
        ),
        |it| it.denied,
    ),
    (
        (
            "windlass_network_sent_bytes_total",
            "counter",
            "Bytes that pods of the node sent",
        ),
        |it| it.bytes_sent,
    ),
    (
        (
            "windlass_network_received_bytes_total",
            "counter",
            "Bytes that pods of the node received",
        ),
        |it| it.bytes_received,
    ),
];

/// What cAdvisor tells of a pod's network.
const NETWORK: [OfFlow; 2] = [
    (
        (
            "container_network_receive_bytes_total",
            "counter",
            "Cumulative count of bytes received",
        ),
        |it| it.bytes_received,
    ),
    (
        (
            "container_network_transmit_bytes_total",
            "counter",
            "Cumulative count of bytes transmitted",
        ),
        |it| it.bytes_sent,
    ),
];

/// A container that runs.
struct Running {
    pod: Arc<Pod>,
    name: String,
    used: Usage,
    /// Seconds since the epoch.
    started: f64,
}

impl Running {
    fn spec(&self) -> Option<Cow<'_, Container>> {
        facts::container(self.pod.spec.as_ref()?, &self.name)
    }

    /// A limit or a request, in whole units.
    fn amount(&self, is_limit: bool, resource: &str) -> Option<f64> {
        let spec = self.spec()?;
        let resources = spec.resources.as_ref()?;
        let wanted = match is_limit {
            true => resources.limits.as_ref(),
            false => resources.requests.as_ref(),
        };
        let found = amounts(wanted).get(resource).copied()?;
        Some(match resource {
            "cpu" => found.millis() as f64 / 1000.0,
            _ => found.units() as f64,
        })
    }

    fn labels(&self) -> [(&'static str, &str); 3] {
        let [namespace, pod] = named(&self.pod);
        [("container", &self.name), namespace, pod]
    }
}

fn named(pod: &Pod) -> [(&'static str, &str); 2] {
    let metadata = &pod.metadata;
    [
        (
            "namespace",
            metadata.namespace.as_deref().unwrap_or_default(),
        ),
        ("pod", metadata.name.as_deref().unwrap_or_default()),
    ]
}

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}

/// The containers that run, in the order of their pods.
fn running(state: &DaemonState) -> Vec<Running> {
    let mut all = Vec::new();
    for pod in state.pods.all() {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        for name in container_names(&pod) {
            if let Some((container, started)) = state.containers.find_with_start(&uid, name) {
                all.push(Running {
                    pod: pod.clone(),
                    name: name.to_owned(),
                    used: container.usage(),
                    started: now() - started.elapsed().as_secs_f64(),
                });
            }
        }
    }
    all
}

/// Text in Prometheus' format.
#[derive(Default)]
struct Text(String);

impl Text {
    fn family(&mut self, (name, kind, help): Family) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (at, (label, text)) in labels.iter().enumerate() {
            let separator = if at == 0 { '{' } else { ',' };
            let text = text.replace('\\', "\\\\").replace('"', "\\\"");
            let text = text.replace('\n', "\\n");
            let _ = write!(self.0, "{separator}{label}=\"{text}\"");
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }

    /// A metric that has one sample.
    fn one(&mut self, family: Family, labels: &[(&str, &str)], value: impl Display) {
        self.family(family);
        self.sample(family.0, labels, value);
    }
}

impl IntoResponse for Text {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, CONTENT_TYPE)], self.0).into_response()
    }
}

pub(super) async fn resource(State(state): State<DaemonState>) -> Response {
    let (running, mut text) = (running(&state), Text::default());
    for (family, value) in RESOURCE {
        text.family(*family);
        for container in &running {
            if let Some(value) = value(container) {
                text.sample(family.0, &container.labels(), value);
            }
        }
    }
    of_pods(&running, &mut text);
    let node = machine();
    if let Some(used) = node {
        let cpu = "Cumulative cpu time consumed by the node in core-seconds";
        let cpu = ("node_cpu_usage_seconds_total", "counter", cpu);
        text.one(cpu, &[], seconds(used.cpu_nanos));
        let memory = "Current working set of the node in bytes";
        let memory = ("node_memory_working_set_bytes", "gauge", memory);
        text.one(memory, &[], used.memory_bytes);
    }
    let failed = "1 if there was an error while getting container metrics, 0 otherwise";
    let failed = ("resource_scrape_error", "gauge", failed);
    text.one(failed, &[], u8::from(node.is_none()));
    text.into_response()
}

/// What the containers of each pod use together.
fn of_pods(running: &[Running], text: &mut Text) {
    let mut sums: BTreeMap<[(&str, &str); 2], Usage> = BTreeMap::new();
    for container in running {
        let sum = sums.entry(named(&container.pod)).or_default();
        sum.cpu_nanos += container.used.cpu_nanos;
        sum.memory_bytes += container.used.memory_bytes;
    }
    let cpu = "Cumulative cpu time consumed by the pod in core-seconds";
    let cpu = ("pod_cpu_usage_seconds_total", "counter", cpu);
    text.family(cpu);
    for (pod, sum) in &sums {
        text.sample(cpu.0, pod, seconds(sum.cpu_nanos));
    }
    let memory = "Current working set of the pod in bytes";
    let memory = ("pod_memory_working_set_bytes", "gauge", memory);
    text.family(memory);
    for (pod, sum) in &sums {
        text.sample(memory.0, pod, sum.memory_bytes);
    }
}

pub(super) async fn cadvisor(State(state): State<DaemonState>) -> Response {
    let (running, mut text) = (running(&state), Text::default());
    for (family, value) in CADVISOR {
        text.family(*family);
        for container in &running {
            let uid = container.pod.metadata.uid.as_deref().unwrap_or_default();
            let id = format!("/pod{uid}/{}", container.name);
            let spec = container.spec();
            let image = spec.as_ref().and_then(|spec| spec.image.as_deref());
            let [name, namespace, pod] = container.labels();
            let image = ("image", image.unwrap_or_default());
            let labels = [name, ("id", &id), image, ("name", name.1), namespace, pod];
            if let Some(value) = value(container) {
                text.sample(family.0, &labels, value);
            }
        }
    }
    let flows = flows(&state);
    for (family, count) in NETWORK {
        text.family(family);
        for (pod, flows) in &flows {
            let [namespace, name] = named(pod);
            let sum: u64 = flows.iter().map(count).sum();
            text.sample(family.0, &[("interface", "eth0"), namespace, name], sum);
        }
    }
    text.into_response()
}

/// The flows of each pod.
fn flows(state: &DaemonState) -> Vec<(Arc<Pod>, Vec<Flow>)> {
    let pods = state.pods.all();
    let told = state.network.flows().into_iter();
    told.filter_map(|of_pod| {
        let mut pods = pods.iter();
        let pod = pods.find(|pod| pod.metadata.uid.as_ref() == Some(&of_pod.uid))?;
        Some((pod.clone(), of_pod.items))
    })
    .collect()
}

pub(super) async fn of_agent(State(state): State<DaemonState>) -> Response {
    let mut text = Text::default();
    let name = (
        "kubelet_node_name",
        "gauge",
        "The node's name. The count is always 1.",
    );
    text.one(name, &[("node", &state.node)], 1);
    let pods = "Number of pods that have a running pod sandbox";
    let pods = ("kubelet_running_pods", "gauge", pods);
    let running = running(&state);
    let mut uids: Vec<_> = running.iter().map(|it| &it.pod.metadata.uid).collect();
    uids.dedup();
    text.one(pods, &[], uids.len());
    let containers = (
        "kubelet_running_containers",
        "gauge",
        "Number of containers currently running",
    );
    text.one(containers, &[("container_state", "running")], running.len());
    of_network(&flows(&state), &mut text);
    let questions = "Questions that the node's DNS answered";
    let questions = ("windlass_dns_questions_total", "counter", questions);
    text.family(questions);
    for (kind, code, count) in state.network.dns_answers() {
        text.sample(questions.0, &[("code", code), ("type", kind)], count);
    }
    of_ingress(&state.network.ingress_requests(), &mut text);
    of_tunnel(state.network.tunnel_counts(), &mut text);
    text.into_response()
}

/// Flows by pod, direction and kind of peer, and connections by Service: as few series as there are pods and Services.
fn of_network(flows: &[(Arc<Pod>, Vec<Flow>)], text: &mut Text) {
    for (family, count) in FLOWS {
        text.family(family);
        for (pod, flows) in flows {
            let mut sums: BTreeMap<(&str, &str), u64> = BTreeMap::new();
            for flow in flows {
                *sums.entry((&flow.direction, &flow.peer.kind)).or_default() += count(flow);
            }
            let [namespace, name] = named(pod);
            for ((direction, peer), sum) in sums {
                let labels = [("direction", direction), namespace, ("peer", peer), name];
                text.sample(family.0, &labels, sum);
            }
        }
    }
    let mut services: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for flow in flows.iter().flat_map(|(_, flows)| flows) {
        let peer = &flow.peer;
        if let ("Service", Some(namespace), Some(name)) = (&*peer.kind, &peer.namespace, &peer.name)
        {
            *services.entry((namespace, name)).or_default() += flow.connections;
        }
    }
    let family = "Connections of pods of the node to Services";
    let family = ("windlass_service_connections_total", "counter", family);
    text.family(family);
    for ((namespace, service), sum) in services {
        text.sample(
            family.0,
            &[("namespace", namespace), ("service", service)],
            sum,
        );
    }
}

fn of_ingress(requests: &Requests, text: &mut Text) {
    let family = "Requests to Ingresses that the node answered";
    let family = ("windlass_ingress_requests_total", "counter", family);
    text.family(family);
    for ((namespace, service, code), count) in &requests.answered {
        let code = code.to_string();
        let labels = [
            ("code", &*code),
            ("namespace", namespace),
            ("service", service),
        ];
        text.sample(family.0, &labels, count);
    }
    let family = "Time until the head of an answer to a request to an Ingress";
    let name = "windlass_ingress_request_duration_seconds";
    text.family((name, "histogram", family));
    let bucket = format!("{name}_bucket");
    let mut count = 0;
    let bounds = BUCKETS.iter().map(f64::to_string);
    for (bound, of_bucket) in bounds.chain(["+Inf".to_owned()]).zip(requests.durations) {
        count += of_bucket;
        text.sample(&bucket, &[("le", &bound)], count);
    }
    text.sample(&format!("{name}_sum"), &[], requests.total.as_secs_f64());
    text.sample(&format!("{name}_count"), &[], count);
}

fn of_tunnel(counts: &TunnelCounts, text: &mut Text) {
    let calls = "Calls between the agents of nodes, for connections of pods";
    let calls = ("windlass_tunnel_calls_total", "counter", calls);
    text.family(calls);
    for (side, outcome, count) in counts.told() {
        let labels = [("outcome", outcome), ("side", side)];
        text.sample(calls.0, &labels, count);
    }
    let carried = "Connections of other nodes that are carried to pods of this one";
    let carried = ("windlass_tunnel_connections", "gauge", carried);
    text.one(carried, &[], counts.carried());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::tunnel::{Outcome, Side};
    use std::time::Duration;

    #[test]
    fn calls_between_agents_are_told_apart() {
        let counts = Arc::new(TunnelCounts::default());
        counts.count(Side::Called, Outcome::Certificate);
        counts.count(Side::Answered, Outcome::ForeignSource);
        counts.count(Side::Answered, Outcome::ForeignSource);
        let carried = counts.carry();
        let mut text = Text::default();
        of_tunnel(&counts, &mut text);
        let samples: Vec<_> = text.0.lines().filter(|it| !it.starts_with('#')).collect();
        let wanted = [
            "windlass_tunnel_calls_total{outcome=\"certificate\",side=\"called\"} 1",
            "windlass_tunnel_calls_total{outcome=\"foreign_source\",side=\"answered\"} 2",
            "windlass_tunnel_connections 1",
        ];
        assert_eq!(samples, wanted);
        drop(carried);
        assert_eq!(counts.carried(), 0);
    }

    #[test]
    fn labels_are_escaped() {
        let mut text = Text::default();
        text.one(("a", "gauge", "b"), &[("c", "\"\\\n")], 1);
        assert_eq!(
            text.0,
            "# HELP a b\n# TYPE a gauge\na{c=\"\\\"\\\\\\n\"} 1\n"
        );
    }

    #[test]
    fn durations_add_up() {
        let mut requests = Requests::default();
        requests
            .answered
            .insert(("a".to_owned(), "web".to_owned(), 200), 3);
        requests.durations[0] = 2;
        requests.durations[BUCKETS.len()] = 1;
        requests.total = Duration::from_millis(1500);
        let mut text = Text::default();
        of_ingress(&requests, &mut text);
        for line in [
            "windlass_ingress_requests_total{code=\"200\",namespace=\"a\",service=\"web\"} 3",
            "windlass_ingress_request_duration_seconds_bucket{le=\"0.005\"} 2",
            "windlass_ingress_request_duration_seconds_bucket{le=\"10\"} 2",
            "windlass_ingress_request_duration_seconds_bucket{le=\"+Inf\"} 3",
            "windlass_ingress_request_duration_seconds_sum 1.5",
            "windlass_ingress_request_duration_seconds_count 3",
        ] {
            assert!(
                text.0.lines().any(|found| found == line),
                "{line}: {}",
                text.0
            );
        }
    }
}
