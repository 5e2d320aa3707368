//! Liveness, readiness and startup probes: one table of types, one task per probe.
//!
//! 1. The worker starts a container's startup probe when it runs, and the others once that has passed.
//! 2. [`run`] waits the initial delay, then probes every period and counts; a verdict is sent when a
//!    threshold is reached.
//! 3. The plan acts on verdicts; a probe itself changes nothing.
//!
//! To add a type: a file with a [`Prober`] and a line in [`PROBES`].

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Container, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::events::{EventType, ObjectEvents};
use crate::network::HostNetwork;
use crate::runtime::RunningContainer;
use crate::status::reason::EventReason;

mod exec;
mod grpc;
mod http_get;
mod tcp_socket;

pub(crate) use http_get::get as http_get;

/// Every probe type there is.
static PROBES: &[&dyn Prober] = &[
    &exec::Exec,
    &grpc::Grpc,
    &http_get::HttpGet,
    &tcp_socket::TcpSocket,
];

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Success,
    Failure(String),
}

/// One type of probe.
#[async_trait]
trait Prober: Sync {
    /// Whether the probe is of this type.
    fn claims(&self, probe: &Probe) -> bool;

    /// Probes once; the caller bounds the time.
    async fn probe(&self, target: &Target, probe: &Probe) -> Outcome;
}

/// Where a probe or a hook looks.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) instance: Arc<dyn RunningContainer>,
    pub(crate) network: HostNetwork,
    pub(crate) pod_ip: IpAddr,
    pub(crate) container: Arc<Container>,
}

impl Target {
    /// The number of a port that may be given by name.
    fn port(&self, port: &IntOrString) -> Result<u16, String> {
        let number = match port {
            IntOrString::Int(number) => Some(*number),
            IntOrString::String(name) => {
                let mut ports = self.container.ports.iter().flatten();
                let named = ports.find(|port| port.name.as_deref() == Some(name));
                named
                    .map(|port| port.container_port)
                    .or_else(|| name.parse().ok())
            }
        };
        number
            .and_then(|number| u16::try_from(number).ok())
            .filter(|number| *number > 0)
            .ok_or_else(|| {
                format!(
                    "couldn't find port {port:?} of container {}",
                    self.container.name
                )
            })
    }
}

/// What a probe is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Startup,
    Liveness,
    Readiness,
}

impl Purpose {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

/// What a probe's thresholds say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The startup probe has passed.
    Started,
    /// The readiness probe has changed its mind.
    Ready(bool),
    /// The container is to be killed: why, as the event says.
    Unhealthy(String),
}

/// Counts outcomes against thresholds.
#[derive(Debug)]
struct Counter {
    purpose: Purpose,
    success_threshold: u32,
    failure_threshold: u32,
    last_success: Option<bool>,
    run: u32,
    ready: bool,
}

impl Counter {
    fn new(purpose: Purpose, probe: &Probe) -> Self {
        let count = |value: Option<i32>, default: u32| {
            value
                .and_then(|value| u32::try_from(value).ok())
                .filter(|value| *value > 0)
                .unwrap_or(default)
        };
        Self {
            purpose,
            success_threshold: count(probe.success_threshold, 1),
            failure_threshold: count(probe.failure_threshold, 3),
            last_success: None,
            run: 0,
            ready: false,
        }
    }

    /// Takes one outcome; answers a verdict if this one made a difference.
    fn count(&mut self, success: bool, container: &str) -> Option<Verdict> {
        self.run = if self.last_success == Some(success) {
            self.run.saturating_add(1)
        } else {
            1
        };
        self.last_success = Some(success);
        let threshold = if success {
            self.success_threshold
        } else {
            self.failure_threshold
        };
        if self.run < threshold {
            return None;
        }
        match (self.purpose, success) {
            (Purpose::Startup, true) => Some(Verdict::Started),
            (Purpose::Readiness, ready) => {
                let changed = self.ready != ready;
                self.ready = ready;
                changed.then_some(Verdict::Ready(ready))
            }
            (Purpose::Liveness, true) => None,
            (Purpose::Liveness | Purpose::Startup, false) => {
                let purpose = self.purpose.as_str().to_lowercase();
                Some(Verdict::Unhealthy(format!(
                    "Container {container} failed {purpose} probe, will be restarted"
                )))
            }
        }
    }
}

/// Probes until dropped, or until the verdict is final (started, or to be killed).
pub(crate) async fn run(
    purpose: Purpose,
    probe: Probe,
    target: Target,
    events: ObjectEvents,
    verdict: impl Fn(Verdict),
) {
    let name = target.container.name.clone();
    let Some(prober) = PROBES.iter().find(|prober| prober.claims(&probe)) else {
        let text = format!("{} probe has no action", purpose.as_str());
        events.container(&name, EventType::Warning, EventReason::NotSupported, text);
        return;
    };
    let timeout = seconds(probe.timeout_seconds, 1);
    let mut counter = Counter::new(purpose, &probe);
    tokio::time::sleep(delay(probe.initial_delay_seconds)).await;
    let mut period = tokio::time::interval(seconds(probe.period_seconds, 10));
    period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        period.tick().await;
        let outcome = match tokio::time::timeout(timeout, prober.probe(&target, &probe)).await {
            Ok(outcome) => outcome,
            Err(_) => Outcome::Failure(format!("timed out after {}s", timeout.as_secs())),
        };
        if let Outcome::Failure(message) = &outcome {
            let text = format!("{} probe failed: {message}", purpose.as_str());
            events.container(&name, EventType::Warning, EventReason::Unhealthy, text);
        }
        if let Some(found) = counter.count(outcome == Outcome::Success, &name) {
            let is_final = !matches!(found, Verdict::Ready(_));
            verdict(found);
            if is_final {
                return;
            }
        }
    }
}

fn seconds(value: Option<i32>, default: u64) -> Duration {
    let value = value
        .and_then(|value| u64::try_from(value).ok())
        .filter(|value| *value > 0);
    Duration::from_secs(value.unwrap_or(default))
}

fn delay(value: Option<i32>) -> Duration {
    Duration::from_secs(
        value
            .and_then(|value| u64::try_from(value).ok())
            .unwrap_or(0),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Network, NetworkConfig, PodNetwork, PodNetworkRequest};
    use crate::runtime::fake::FakeRuntime;

    /// A pod with an address, and what its probes look at.
    pub(super) fn target() -> (Target, PodNetwork) {
        let network = Network::new(NetworkConfig::default());
        network.set_pod_cidr("10.64.0.0/24".parse().unwrap());
        let pod = network.set_up(&PodNetworkRequest::default()).unwrap();
        let target = Target {
            instance: FakeRuntime::container(),
            network: network.host(),
            pod_ip: pod.ip(),
            container: Arc::default(),
        };
        (target, pod)
    }

    fn verdicts(purpose: Purpose, outcomes: &[bool]) -> Vec<Option<Verdict>> {
        let probe = Probe {
            success_threshold: Some(2),
            failure_threshold: Some(3),
            ..Probe::default()
        };
        let mut counter = Counter::new(purpose, &probe);
        outcomes
            .iter()
            .map(|success| counter.count(*success, "c"))
            .collect()
    }

    #[test]
    fn readiness_changes_at_its_thresholds_and_only_then() {
        let found = verdicts(
            Purpose::Readiness,
            &[
                true, true, true, false, false, true, false, false, false, false,
            ],
        );
        let at: Vec<_> = found
            .iter()
            .enumerate()
            .filter_map(|(at, v)| v.clone().map(|v| (at, v)))
            .collect();
        assert_eq!(at, [(1, Verdict::Ready(true)), (8, Verdict::Ready(false))]);
    }

    #[test]
    fn liveness_kills_after_failures_in_a_row() {
        let found = verdicts(
            Purpose::Liveness,
            &[true, false, false, true, false, false, false],
        );
        assert!(found[..6].iter().all(Option::is_none));
        let text = "Container c failed liveness probe, will be restarted".to_owned();
        assert_eq!(found[6], Some(Verdict::Unhealthy(text)));
    }

    #[test]
    fn startup_passes_or_kills() {
        assert_eq!(
            verdicts(Purpose::Startup, &[true, true])[1],
            Some(Verdict::Started)
        );
        assert!(matches!(
            verdicts(Purpose::Startup, &[false, false, false])[2],
            Some(Verdict::Unhealthy(_))
        ));
    }
}
