//! What to do next for a pod: a pure function of the object, the facts and the time.
//!
//! 1. A pod that ends (deleted, failed, gone, or the agent stops) stops its containers, sidecars last and
//!    in reverse order, then gives back what was set up; a deleted one is then removed from the API.
//! 2. A pod whose containers are done stops its sidecars and gives everything back.
//! 3. Any other pod is set up, runs its init containers in order, then the others, and restarts what
//!    ended as its restart policy and the back-off say. Ephemeral containers start as soon as they are there, and once.
//!
//! Invariant: planning twice on the same facts gives the same actions, and every action changes the
//! facts it was planned from before the next plan, so nothing is done twice.
//!
//! Restarts wait 0, 10, 20, 40 ... 300 seconds after the end; ten minutes of running start over.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use super::facts::{ContainerFacts, Phase, PodFacts, Role, Setup, containers, names};
use crate::status::reason::{ContainerReason, EventReason};

/// First delay before a restart that follows a restart.
pub(crate) const INITIAL_BACK_OFF: Duration = Duration::from_secs(10);
/// Longest delay before a restart.
pub(crate) const MAX_BACK_OFF: Duration = Duration::from_secs(300);
/// A container that ran this long starts over with its back-off.
pub(crate) const BACK_OFF_RESET: Duration = Duration::from_secs(600);
/// How long `ErrImagePull` shows before it becomes `ImagePullBackOff`.
const PULL_ERROR_SHOWN: Duration = Duration::from_secs(2);
const DEFAULT_GRACE: i64 = 30;
/// Who uses more of the node than allowed has this long to end.
const EVICTION_GRACE: Duration = Duration::from_secs(1);

/// One step of a pod worker.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// Set up network and volumes.
    SetUp,
    /// Pull the image of this container and start it.
    Start(String),
    /// End this container.
    Stop {
        /// Its name.
        container: String,
        /// Time it has to end by itself.
        grace: Duration,
        /// Why, as the event `Killing` says after a colon; empty for an ordinary end.
        why: String,
    },
    /// A container that ended or could not be started now waits: show and say so.
    BackOff {
        /// Its name.
        container: String,
        /// Until when.
        until: Timestamp,
    },
    /// All init containers ended well.
    Initialized,
    /// Give back network and volumes.
    TearDown,
    /// The pod failed as a whole.
    Fail {
        /// Reason of the pod's status.
        reason: &'static str,
        /// Message of the pod's status.
        message: String,
    },
    /// Remove the pod from the API.
    FinishDeletion,
}

/// What to do, and when to plan again if nothing happens before.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// In order.
    pub(crate) actions: Vec<Action>,
    /// The next time that matters.
    pub(crate) wake_at: Option<Timestamp>,
}

impl Plan {
    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |other| other.min(at)));
    }

    fn act(&mut self, action: Action) {
        self.actions.push(action);
    }
}

/// Decides what to do next.
pub(crate) fn plan(pod: &Pod, facts: &PodFacts, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(spec) = &pod.spec else { return plan };
    if let Some(grace) = ending_grace(pod, spec, facts) {
        plan_end(&mut plan, pod, spec, facts, grace, now);
    } else if is_done(spec, facts) {
        plan_end(&mut plan, pod, spec, facts, grace_of(spec), now);
    } else if let Some(action) = check_deadline(&mut plan, spec, facts, now) {
        plan.act(action);
    } else {
        plan_run(&mut plan, spec, facts, now);
    }
    plan
}

/// The grace a pod ends with, if it must end.
fn ending_grace(pod: &Pod, spec: &PodSpec, facts: &PodFacts) -> Option<Duration> {
    if facts.gone {
        return Some(Duration::ZERO);
    }
    if pod.metadata.deletion_timestamp.is_some() {
        let grace = pod.metadata.deletion_grace_period_seconds;
        return Some(grace.map_or_else(|| grace_of(spec), seconds));
    }
    match &facts.failed {
        Some((reason, _)) if *reason == EventReason::Evicted.as_str() => Some(EVICTION_GRACE),
        failed => (failed.is_some() || facts.shutdown || was_terminal(pod)).then(|| grace_of(spec)),
    }
}

/// The grace period of a pod that nobody gave another one.
pub(crate) fn grace_of(spec: &PodSpec) -> Duration {
    seconds(
        spec.termination_grace_period_seconds
            .unwrap_or(DEFAULT_GRACE),
    )
}

fn seconds(count: i64) -> Duration {
    Duration::from_secs(u64::try_from(count).unwrap_or(0))
}

/// The API says that the pod has ended; nothing brings it back.
fn was_terminal(pod: &Pod) -> bool {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether every container that matters has ended for good.
pub(crate) fn is_done(spec: &PodSpec, facts: &PodFacts) -> bool {
    let final_end = |role: Role, container: &Container| {
        let found = facts.containers.get(&container.name);
        found
            .is_some_and(|found| found.ended().is_some() && !restarts(spec, role, container, found))
    };
    if !facts.initialized {
        // An init container that failed for good fails the pod.
        return containers(spec).any(|(role, container)| {
            let failed = |facts: &ContainerFacts| !facts.ended_well();
            role == Role::Init
                && final_end(role, container)
                && facts.containers.get(&container.name).is_some_and(failed)
        });
    }
    spec.containers
        .iter()
        .all(|container| final_end(Role::App, container))
}

/// Whether a container that ended is to be started again: by its own rules and policy, else by the pod's.
fn restarts(spec: &PodSpec, role: Role, container: &Container, facts: &ContainerFacts) -> bool {
    if role == Role::Sidecar || rules_restart(container, facts) {
        return true;
    }
    let own = container.restart_policy.as_deref();
    let policy = own.or(spec.restart_policy.as_deref()).unwrap_or("Always");
    match (role, policy) {
        (Role::Ephemeral, _) | (_, "Never") => false,
        (Role::App, "Always") => true,
        _ => !facts.ended_well(),
    }
}

/// Whether a rule of the container names the exit code it ended with.
fn rules_restart(container: &Container, facts: &ContainerFacts) -> bool {
    let Some(ended) = facts.ended() else {
        return false;
    };
    let rules = container.restart_policy_rules.iter().flatten();
    let mut codes = rules
        .filter(|rule| rule.action == "Restart")
        .filter_map(|rule| rule.exit_codes.as_ref());
    codes.any(|codes| {
        let named = codes
            .values
            .iter()
            .flatten()
            .any(|code| *code == ended.exit_code);
        match codes.operator.as_str() {
            "In" => named,
            "NotIn" => !named,
            _ => false,
        }
    })
}

fn plan_end(
    plan: &mut Plan,
    pod: &Pod,
    spec: &PodSpec,
    facts: &PodFacts,
    grace: Duration,
    now: Timestamp,
) {
    let spent = facts
        .ending_since
        .map_or(SignedDuration::ZERO, |since| now.duration_since(since));
    let grace = grace.saturating_sub(spent.try_into().unwrap_or(Duration::ZERO));
    let active = |name: &str| {
        let found = facts.containers.get(name);
        found.is_some_and(ContainerFacts::is_active)
    };
    let running: Vec<_> = names(spec).filter(|(_, name)| active(name)).collect();
    let (sidecars, others): (Vec<_>, Vec<_>) = running
        .into_iter()
        .partition(|(role, _)| *role == Role::Sidecar);
    let to_stop = if others.is_empty() {
        sidecars.into_iter().last().into_iter().collect()
    } else {
        others
    };
    for (_, container) in &to_stop {
        let stopping = facts
            .containers
            .get(*container)
            .is_some_and(|found| matches!(found.phase, Phase::Stopping { .. }));
        if !stopping {
            plan.act(Action::Stop {
                container: (*container).to_owned(),
                grace,
                why: String::new(),
            });
        }
    }
    if !to_stop.is_empty() {
        return;
    }
    match facts.setup {
        Setup::TornDown if pod.metadata.deletion_timestamp.is_some() && !facts.gone => {
            plan.act(Action::FinishDeletion);
        }
        Setup::TornDown => {}
        _ => plan.act(Action::TearDown),
    }
}

fn check_deadline(
    plan: &mut Plan,
    spec: &PodSpec,
    facts: &PodFacts,
    now: Timestamp,
) -> Option<Action> {
    let deadline = facts.start_time + SignedDuration::from_secs(spec.active_deadline_seconds?);
    if now < deadline {
        plan.wake(deadline);
        return None;
    }
    Some(Action::Fail {
        reason: "DeadlineExceeded",
        message: "Pod was active on the node longer than the specified deadline".to_owned(),
    })
}

fn plan_run(plan: &mut Plan, spec: &PodSpec, facts: &PodFacts, now: Timestamp) {
    match facts.setup {
        Setup::Due(at) if at <= now => return plan.act(Action::SetUp),
        Setup::Due(at) => return plan.wake(at),
        Setup::Working | Setup::TornDown => return,
        Setup::Done => {}
    }
    for container in spec.ephemeral_containers.iter().flatten() {
        let Some(found) = facts.containers.get(&container.name) else {
            continue;
        };
        plan_container(plan, spec, (&container.name, found), false, now);
    }
    for (role, container) in containers(spec) {
        let Some(found) = facts.containers.get(&container.name) else {
            continue;
        };
        if role == Role::App && !facts.initialized {
            plan.act(Action::Initialized);
            return;
        }
        // Init containers are over once all have ended well; only sidecars are kept running.
        if role == Role::Init && facts.initialized {
            continue;
        }
        let again = restarts(spec, role, container, found);
        plan_container(plan, spec, (&container.name, found), again, now);
        let may_go_on = match role {
            Role::Init => found.ended_well(),
            Role::Sidecar => facts.initialized || (found.is_running() && found.started),
            Role::App | Role::Ephemeral => true,
        };
        if !may_go_on {
            return;
        }
    }
}

/// Plans for one container; `again` says that it is started again if it has ended.
fn plan_container(
    plan: &mut Plan,
    spec: &PodSpec,
    (name, facts): (&str, &ContainerFacts),
    again: bool,
    now: Timestamp,
) {
    match &facts.phase {
        Phase::Waiting { retry_at: None, .. } => plan.act(Action::Start(name.to_owned())),
        Phase::Waiting {
            reason,
            since,
            retry_at: Some(at),
            ..
        } => {
            plan_retry(plan, name, (*reason, *since, *at), now);
        }
        Phase::Running { .. } => {
            if let Some(why) = &facts.unhealthy {
                let grace = grace_of(spec);
                plan.act(Action::Stop {
                    container: name.to_owned(),
                    grace,
                    why: why.clone(),
                });
            }
        }
        Phase::Ended(ended) if again => {
            let until = ended.finished_at + back_off_of(facts);
            if until <= now {
                plan.act(Action::Start(name.to_owned()));
            } else {
                plan.act(Action::BackOff {
                    container: name.to_owned(),
                    until,
                });
            }
        }
        Phase::Starting | Phase::Stopping { .. } | Phase::Ended(_) => {}
    }
}

fn plan_retry(
    plan: &mut Plan,
    name: &str,
    (reason, since, at): (ContainerReason, Timestamp, Timestamp),
    now: Timestamp,
) {
    if at <= now {
        return plan.act(Action::Start(name.to_owned()));
    }
    let shown_until = since + PULL_ERROR_SHOWN;
    if reason != ContainerReason::ErrImagePull {
        plan.wake(at);
    } else if shown_until <= now {
        plan.act(Action::BackOff {
            container: name.to_owned(),
            until: at,
        });
    } else {
        plan.wake(at.min(shown_until));
    }
}

/// The delay before the next restart; nothing after a long run.
fn back_off_of(facts: &ContainerFacts) -> Duration {
    if ran_long(facts) {
        Duration::ZERO
    } else {
        facts.back_off
    }
}

fn ran_long(facts: &ContainerFacts) -> bool {
    facts.ended().is_some_and(|ended| {
        let ran = ended
            .started_at
            .map(|start| ended.finished_at.duration_since(start));
        ran.is_some_and(|ran| ran >= SignedDuration::try_from(BACK_OFF_RESET).unwrap_or_default())
    })
}

/// The delay after the restart that is about to happen.
pub(crate) fn back_off_after_restart(facts: &ContainerFacts) -> Duration {
    next_back_off(back_off_of(facts))
}

/// The delay that follows `back_off` when a container is restarted.
fn next_back_off(back_off: Duration) -> Duration {
    (back_off * 2).clamp(INITIAL_BACK_OFF, MAX_BACK_OFF)
}

#[cfg(test)]
mod tests {
    use super::super::facts::Ended;
    use super::*;
    use crate::runtime::Survivor;
    use k8s_openapi::api::core::v1::EphemeralContainer;
    use serde_json::json;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    fn pod(spec: &serde_json::Value) -> Pod {
        serde_json::from_value(json!({ "metadata": { "name": "p", "uid": "u" }, "spec": spec }))
            .unwrap()
    }

    fn one(policy: &str) -> Pod {
        pod(&json!({ "restartPolicy": policy, "containers": [{ "name": "a" }] }))
    }

    fn with_init() -> Pod {
        pod(&json!({
            "initContainers": [
                { "name": "i" },
                { "name": "s", "restartPolicy": "Always" },
                { "name": "j" },
            ],
            "containers": [{ "name": "a" }, { "name": "b" }],
        }))
    }

    fn ready(pod: &Pod) -> PodFacts {
        PodFacts {
            setup: Setup::Done,
            ..PodFacts::begin(pod, at(0), &[])
        }
    }

    fn running(facts: &mut PodFacts, name: &str) {
        let container = facts.containers.get_mut(name).unwrap();
        container.phase = Phase::Running { since: at(0) };
        container.started = true;
    }

    fn ended(facts: &mut PodFacts, name: &str, exit_code: i32, ran: i64) {
        let container = facts.containers.get_mut(name).unwrap();
        container.phase = Phase::Ended(Ended {
            exit_code,
            signal: None,
            reason: String::new(),
            message: String::new(),
            started_at: Some(at(0)),
            finished_at: at(ran),
            container_id: None,
        });
    }

    fn start(name: &str) -> Action {
        Action::Start(name.to_owned())
    }

    fn stop(name: &str, grace: u64) -> Action {
        let grace = Duration::from_secs(grace);
        Action::Stop {
            container: name.to_owned(),
            grace,
            why: String::new(),
        }
    }

    #[test]
    fn a_new_pod_is_set_up_before_anything_starts() {
        let pod = one("Always");
        let mut facts = PodFacts::begin(&pod, at(0), &[]);
        assert_eq!(plan(&pod, &facts, at(0)).actions, [Action::SetUp]);
        facts.setup = Setup::Working;
        assert_eq!(plan(&pod, &facts, at(0)), Plan::default());
        facts.setup = Setup::Due(at(5));
        assert_eq!(plan(&pod, &facts, at(0)).wake_at, Some(at(5)));
    }

    #[test]
    fn init_containers_run_in_order_and_sidecars_beside_them() {
        let pod = with_init();
        let mut facts = ready(&pod);
        assert_eq!(plan(&pod, &facts, at(0)).actions, [start("i")]);
        running(&mut facts, "i");
        assert_eq!(plan(&pod, &facts, at(0)), Plan::default());
        ended(&mut facts, "i", 0, 1);
        assert_eq!(plan(&pod, &facts, at(1)).actions, [start("s")]);
        running(&mut facts, "s");
        facts.containers.get_mut("s").unwrap().started = false;
        assert_eq!(plan(&pod, &facts, at(1)).actions, []);
        facts.containers.get_mut("s").unwrap().started = true;
        assert_eq!(plan(&pod, &facts, at(1)).actions, [start("j")]);
        ended(&mut facts, "j", 0, 1);
        assert_eq!(plan(&pod, &facts, at(1)).actions, [Action::Initialized]);
        facts.initialized = true;
        assert_eq!(plan(&pod, &facts, at(1)).actions, [start("a"), start("b")]);
        ended(&mut facts, "s", 1, 1);
        running(&mut facts, "a");
        running(&mut facts, "b");
        assert_eq!(plan(&pod, &facts, at(1)).actions, [start("s")]);
    }

    #[test]
    fn a_failed_init_container_is_restarted_or_fails_the_pod() {
        let mut spec =
            json!({ "initContainers": [{ "name": "i" }], "containers": [{ "name": "a" }] });
        let pod_always = pod(&spec);
        let mut facts = ready(&pod_always);
        ended(&mut facts, "i", 1, 1);
        assert_eq!(plan(&pod_always, &facts, at(1)).actions, [start("i")]);
        spec["restartPolicy"] = json!("Never");
        let pod_never = pod(&spec);
        assert!(is_done(pod_never.spec.as_ref().unwrap(), &facts));
        assert_eq!(plan(&pod_never, &facts, at(1)).actions, [Action::TearDown]);
    }

    #[test]
    fn restart_policy_decides_about_what_ended() {
        let cases = [
            ("Always", 0, true),
            ("Always", 1, true),
            ("OnFailure", 0, false),
            ("OnFailure", 1, true),
            ("Never", 0, false),
            ("Never", 1, false),
        ];
        for (policy, exit_code, restarted) in cases {
            let pod = one(policy);
            let mut facts = PodFacts {
                initialized: true,
                ..ready(&pod)
            };
            ended(&mut facts, "a", exit_code, 1);
            let want = if restarted {
                start("a")
            } else {
                Action::TearDown
            };
            assert_eq!(
                plan(&pod, &facts, at(1)).actions,
                [want],
                "{policy} {exit_code}"
            );
        }
    }

    #[test]
    fn restarts_back_off_and_a_long_run_starts_over() {
        let delays: Vec<u64> =
            std::iter::successors(Some(Duration::ZERO), |delay| Some(next_back_off(*delay)))
                .map(|delay| delay.as_secs())
                .take(8)
                .collect();
        assert_eq!(delays, [0, 10, 20, 40, 80, 160, 300, 300]);

        let pod = one("Always");
        let mut facts = PodFacts {
            initialized: true,
            ..ready(&pod)
        };
        facts.containers.get_mut("a").unwrap().back_off = Duration::from_secs(40);
        ended(&mut facts, "a", 1, 5);
        let wait = Action::BackOff {
            container: "a".to_owned(),
            until: at(45),
        };
        assert_eq!(plan(&pod, &facts, at(5)).actions, [wait]);
        assert_eq!(plan(&pod, &facts, at(45)).actions, [start("a")]);
        ended(&mut facts, "a", 1, 600);
        assert_eq!(plan(&pod, &facts, at(600)).actions, [start("a")]);
    }

    #[test]
    fn a_failed_pull_shows_its_error_and_then_its_back_off() {
        let pod = one("Always");
        let mut facts = PodFacts {
            initialized: true,
            ..ready(&pod)
        };
        let waiting = |reason| Phase::Waiting {
            reason,
            message: String::new(),
            since: at(0),
            retry_at: Some(at(10)),
        };
        facts.containers.get_mut("a").unwrap().phase = waiting(ContainerReason::ErrImagePull);
        assert_eq!(plan(&pod, &facts, at(0)).wake_at, Some(at(2)));
        let wait = Action::BackOff {
            container: "a".to_owned(),
            until: at(10),
        };
        assert_eq!(plan(&pod, &facts, at(2)).actions, [wait]);
        facts.containers.get_mut("a").unwrap().phase = waiting(ContainerReason::ImagePullBackOff);
        assert_eq!(plan(&pod, &facts, at(2)).wake_at, Some(at(10)));
        assert_eq!(plan(&pod, &facts, at(10)).actions, [start("a")]);
    }

    #[test]
    fn an_unhealthy_container_is_killed_once() {
        let pod = one("Always");
        let mut facts = PodFacts {
            initialized: true,
            ..ready(&pod)
        };
        running(&mut facts, "a");
        let why = "Container a failed liveness probe, will be restarted".to_owned();
        facts.containers.get_mut("a").unwrap().unhealthy = Some(why.clone());
        let grace = Duration::from_secs(30);
        let kill = Action::Stop {
            container: "a".to_owned(),
            grace,
            why,
        };
        assert_eq!(plan(&pod, &facts, at(1)).actions, [kill]);
        facts.containers.get_mut("a").unwrap().phase = Phase::Stopping { since: at(0) };
        assert_eq!(plan(&pod, &facts, at(1)).actions, []);
    }

    #[test]
    fn a_deleted_pod_stops_sidecars_last_and_is_removed_when_all_is_given_back() {
        let mut pod = with_init();
        pod.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(10)));
        pod.metadata.deletion_grace_period_seconds = Some(7);
        let mut facts = PodFacts {
            initialized: true,
            ..ready(&pod)
        };
        for name in ["s", "a", "b"] {
            running(&mut facts, name);
        }
        facts.ending_since = Some(at(0));
        assert_eq!(
            plan(&pod, &facts, at(2)).actions,
            [stop("a", 5), stop("b", 5)]
        );
        facts.containers.get_mut("a").unwrap().phase = Phase::Stopping { since: at(0) };
        facts.containers.get_mut("b").unwrap().phase = Phase::Stopping { since: at(0) };
        assert_eq!(plan(&pod, &facts, at(2)).actions, []);
        ended(&mut facts, "a", 0, 3);
        ended(&mut facts, "b", 0, 3);
        assert_eq!(plan(&pod, &facts, at(9)).actions, [stop("s", 0)]);
        ended(&mut facts, "s", 0, 9);
        assert_eq!(plan(&pod, &facts, at(9)).actions, [Action::TearDown]);
        facts.setup = Setup::TornDown;
        assert_eq!(plan(&pod, &facts, at(9)).actions, [Action::FinishDeletion]);
        facts.gone = true;
        assert_eq!(plan(&pod, &facts, at(9)).actions, []);
    }

    #[test]
    fn containers_restart_by_their_own_policies_and_rules() {
        let rule = |operator: &str, values: &[i32]| json!([{ "action": "Restart", "exitCodes": { "operator": operator, "values": values } }]);
        for (policy, own, rules, exit_code, again) in [
            ("Never", json!("Always"), json!(null), 0, true),
            ("Always", json!("Never"), json!(null), 1, false),
            ("Always", json!("OnFailure"), json!(null), 0, false),
            ("Never", json!("OnFailure"), json!(null), 1, true),
            ("Always", json!("Never"), rule("In", &[42]), 42, true),
            ("Always", json!("Never"), rule("In", &[42]), 1, false),
            ("Always", json!("Never"), rule("NotIn", &[42]), 1, true),
            ("Always", json!("Never"), rule("NotIn", &[42]), 42, false),
        ] {
            let container =
                json!({ "name": "a", "restartPolicy": own, "restartPolicyRules": rules });
            let pod = pod(&json!({ "restartPolicy": policy, "containers": [container] }));
            let mut facts = PodFacts {
                initialized: true,
                ..ready(&pod)
            };
            ended(&mut facts, "a", exit_code, 3);
            let expected = if again { start("a") } else { Action::TearDown };
            assert_eq!(plan(&pod, &facts, at(9)).actions, [expected], "{container}");
        }
    }

    #[test]
    fn ephemeral_containers_start_once_beside_whatever_else_runs() {
        let mut pod = with_init();
        let mut facts = ready(&pod);
        let spec = pod.spec.as_mut().unwrap();
        spec.ephemeral_containers = Some(vec![EphemeralContainer {
            name: "debug".to_owned(),
            ..EphemeralContainer::default()
        }]);
        facts.follow(&pod, at(1));
        let both = [start("debug"), start("i")];
        assert_eq!(plan(&pod, &facts, at(1)).actions, both);
        running(&mut facts, "i");
        ended(&mut facts, "debug", 1, 3);
        assert_eq!(plan(&pod, &facts, at(9)).actions, []);
        running(&mut facts, "debug");
        facts.shutdown = true;
        let both = [stop("i", 30), stop("debug", 30)];
        assert_eq!(plan(&pod, &facts, at(9)).actions, both);
    }

    #[test]
    fn the_deadline_fails_the_pod() {
        let pod = pod(&json!({ "activeDeadlineSeconds": 60, "containers": [{ "name": "a" }] }));
        let mut facts = PodFacts {
            initialized: true,
            ..ready(&pod)
        };
        running(&mut facts, "a");
        assert_eq!(plan(&pod, &facts, at(1)).wake_at, Some(at(60)));
        let actions = plan(&pod, &facts, at(60)).actions;
        assert!(matches!(
            actions.as_slice(),
            [Action::Fail {
                reason: "DeadlineExceeded",
                ..
            }]
        ));
        facts.failed = Some(("DeadlineExceeded", String::new()));
        assert_eq!(plan(&pod, &facts, at(60)).actions, [stop("a", 30)]);
    }

    #[test]
    fn a_pod_found_ended_is_not_run_again() {
        let mut pod = one("Always");
        pod.status = serde_json::from_value(json!({ "phase": "Failed" })).unwrap();
        let mut facts = PodFacts::begin(&pod, at(0), &[]);
        assert_eq!(plan(&pod, &facts, at(0)).actions, [Action::TearDown]);
        facts.setup = Setup::TornDown;
        assert_eq!(plan(&pod, &facts, at(0)), Plan::default());
    }

    #[test]
    fn containers_of_an_earlier_agent_run_again_and_count_as_restarts() {
        let mut pod = one("Always");
        pod.status = serde_json::from_value(json!({
            "phase": "Running",
            "containerStatuses": [{
                "name": "a", "image": "i", "imageID": "i", "ready": true, "restartCount": 3,
                "state": { "running": { "startedAt": "2023-11-14T22:13:20Z" } },
            }],
        }))
        .unwrap();
        let facts = PodFacts {
            initialized: true,
            setup: Setup::Done,
            ..PodFacts::begin(&pod, at(9), &[])
        };
        assert_eq!(facts.containers["a"].restart_count, 3);
        assert_eq!(facts.containers["a"].ended().unwrap().exit_code, 137);
        assert_eq!(plan(&pod, &facts, at(9)).actions, [start("a")]);
        let never = Pod {
            spec: one("Never").spec,
            ..pod
        };
        assert_eq!(plan(&never, &facts, at(9)).actions, [Action::TearDown]);
    }

    #[test]
    fn containers_that_outlived_an_agent_are_taken_over_under_their_number() {
        let survivor = |container: &str, attempt| Survivor {
            uid: String::new(),
            container: container.to_owned(),
            attempt,
        };
        let spec = json!({ "initContainers": [{ "name": "i" }], "containers": [{ "name": "a" }] });
        let mut pod = pod(&spec);
        let status = |restarts: u32, state: serde_json::Value| {
            let init =
                json!({ "terminated": { "exitCode": 0, "finishedAt": "2023-11-14T22:13:20Z" } });
            let of = |name: &str, restarts, state| json!({ "name": name, "image": "i", "imageID": "i", "ready": true, "restartCount": restarts, "state": state });
            serde_json::from_value(json!({
                "phase": "Running",
                "initContainerStatuses": [of("i", 0, init)],
                "containerStatuses": [of("a", restarts, state)],
            }))
            .unwrap()
        };
        let running = json!({ "running": { "startedAt": "2023-11-14T22:13:20Z" } });
        let ended =
            json!({ "terminated": { "exitCode": 4, "finishedAt": "2023-11-14T22:13:20Z" } });
        for (restarts, state, survives, resumes, count) in [
            (3, &running, 3, true, 3),
            // Started again, which the status does not say yet.
            (3, &running, 4, true, 4),
            (3, &ended, 4, true, 4),
            // An end that was told already.
            (3, &ended, 3, false, 3),
        ] {
            pod.status = status(restarts, state.clone());
            let facts = PodFacts::begin(&pod, at(9), &[survivor("i", 0), survivor("a", survives)]);
            assert_eq!(facts.containers["a"].resume, resumes, "{state} {survives}");
            assert_eq!(facts.containers["a"].restart_count, count);
            // The sandbox is still there, and what was done in it.
            assert!(facts.containers["i"].ended_well());
        }
        pod.status = status(3, running);
        let facts = PodFacts {
            initialized: true,
            setup: Setup::Done,
            ..PodFacts::begin(&pod, at(9), &[survivor("a", 3)])
        };
        assert!(facts.is_resuming());
        assert_eq!(plan(&pod, &facts, at(9)).actions, [start("a")]);
    }
}
