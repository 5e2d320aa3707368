//! Plans played out against a pretended cluster, in which pods become available one step later.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetStatus};
use serde_json::{Value, json};

use super::plan::{Action, Observed, Plan, plan};
use super::revision::{self, REVISION};
use super::rolling::{available, replicas};
use crate::controllers::runtime::metadata::Metadata;

struct Cluster {
    deployment: Deployment,
    sets: Vec<ReplicaSet>,
    clock: i64,
    log: Vec<String>,
}

fn deployment(replicas: i32, image: &str, strategy: Value) -> Deployment {
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "d", "generation": 1},
        "spec": {
            "replicas": replicas, "strategy": strategy, "progressDeadlineSeconds": 600,
            "revisionHistoryLimit": 1, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": image}]}},
        },
    }))
    .unwrap()
}

fn rolling(surge: i32, unavailable: i32) -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}})
}

impl Cluster {
    fn new(deployment: Deployment) -> Self {
        Self {
            deployment,
            sets: Vec::new(),
            clock: 0,
            log: Vec::new(),
        }
    }

    fn set_image(&mut self, image: &str) {
        let metadata = &mut self.deployment.metadata;
        metadata.generation = metadata.generation.map(|generation| generation + 1);
        let spec = self.deployment.spec.as_mut().unwrap();
        spec.template.spec.as_mut().unwrap().containers[0].image = Some(image.into());
    }

    fn resize(&mut self, replicas: i32) {
        let metadata = &mut self.deployment.metadata;
        metadata.generation = metadata.generation.map(|generation| generation + 1);
        self.deployment.spec.as_mut().unwrap().replicas = Some(replicas);
    }

    fn plan(&self) -> Plan {
        let observed = Observed {
            deployment: &self.deployment,
            sets: self.sets.iter().cloned().map(Arc::new).collect(),
            now: Timestamp::from_second(self.clock).unwrap(),
        };
        plan(observed, |old| {
            old.iter().any(|set| {
                set.status
                    .as_ref()
                    .is_some_and(|status| status.replicas > 0)
            })
        })
    }

    /// One round; `false` when there was nothing to do.
    fn step(&mut self) -> bool {
        self.clock += 1;
        let plan = self.plan();
        let busy = !plan.actions.is_empty() || plan.status.is_some() || self.pods_move();
        for action in plan.actions {
            self.apply(action);
        }
        if let Some(status) = plan.status {
            self.deployment.status = Some(status);
        }
        busy
    }

    fn apply(&mut self, action: Action) {
        match action {
            Action::Create(mut set) => {
                self.log.push(format!("create {}", replicas(&set)));
                let time = Timestamp::from_second(self.clock).unwrap();
                set.metadata.creation_timestamp =
                    Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(time));
                set.metadata.uid = set.metadata.name.clone();
                set.metadata.generation = Some(1);
                self.sets.push(*set);
            }
            Action::Update(set) => self.replace(*set),
            Action::Scale { set, from } => {
                self.log.push(format!("{from}->{}", replicas(&set)));
                self.replace(*set);
            }
            Action::Delete(set) => self
                .sets
                .retain(|known| known.metadata.uid() != set.metadata.uid()),
            Action::SetRevision(revision) => {
                let annotations = self.deployment.metadata.annotations.get_or_insert_default();
                annotations.insert(REVISION.into(), revision);
            }
        }
    }

    fn replace(&mut self, set: ReplicaSet) {
        let known = self
            .sets
            .iter_mut()
            .find(|known| known.metadata.uid() == set.metadata.uid());
        *known.unwrap() = set;
    }

    /// Pods wanted in the last round exist now, those that existed are available.
    fn pods_move(&mut self) -> bool {
        let mut moved = false;
        for set in &mut self.sets {
            let wanted = replicas(set);
            let existing = set.status.as_ref().map_or(0, |status| status.replicas);
            let available = available(set).max(existing).min(wanted);
            let status = ReplicaSetStatus {
                replicas: wanted,
                ready_replicas: Some(available),
                available_replicas: Some(available),
                observed_generation: set.metadata.generation,
                ..ReplicaSetStatus::default()
            };
            moved |= set.status.as_ref() != Some(&status);
            set.status = Some(status);
        }
        moved
    }

    fn settle(&mut self, mut check: impl FnMut(&Self)) {
        for _ in 0..200 {
            if !self.step() {
                return;
            }
            check(self);
        }
        panic!("no rest after 200 rounds: {:?}", self.log);
    }

    fn sizes(&self) -> Vec<i32> {
        self.sets.iter().map(replicas).collect()
    }

    fn progress(&self) -> String {
        let status = self.deployment.status.as_ref().unwrap();
        let mut conditions = status.conditions.iter().flatten();
        let condition = conditions.find(|condition| condition.type_ == "Progressing");
        condition
            .and_then(|condition| condition.reason.clone())
            .unwrap_or_default()
    }
}

#[test]
fn a_new_deployment_gets_its_set_at_full_size() {
    let mut cluster = Cluster::new(deployment(3, "a", rolling(1, 1)));
    cluster.settle(|_| {});
    assert_eq!(cluster.log, ["create 3"]);
    assert_eq!(cluster.progress(), "NewReplicaSetAvailable");
    assert_eq!(cluster.deployment.metadata.annotation(REVISION), "1");
}

#[test]
fn a_rollout_stays_within_surge_and_unavailability() {
    for (replicas, surge, unavailable) in [
        (10, 3, 2),
        (4, 1, 0),
        (4, 0, 1),
        (1, 1, 0),
        (1, 0, 1),
        (7, 7, 7),
    ] {
        let mut cluster = Cluster::new(deployment(replicas, "a", rolling(surge, unavailable)));
        cluster.settle(|_| {});
        cluster.set_image("b");
        cluster.settle(|cluster| {
            let total: i32 = cluster.sizes().iter().sum();
            let ready: i32 = cluster.sets.iter().map(available).sum();
            assert!(total <= replicas + surge, "{:?}", cluster.log);
            assert!(ready >= replicas - unavailable, "{:?}", cluster.log);
        });
        assert_eq!(cluster.sizes(), [0, replicas]);
        assert_eq!(cluster.progress(), "NewReplicaSetAvailable");
    }
}

#[test]
fn recreate_stops_all_pods_before_the_first_new_one() {
    let mut cluster = Cluster::new(deployment(3, "a", json!({"type": "Recreate"})));
    cluster.settle(|_| {});
    cluster.set_image("b");
    cluster.settle(|_| {});
    assert_eq!(cluster.log, ["create 3", "3->0", "create 3"]);
}

#[test]
fn a_rollback_takes_the_old_set_and_the_next_revision() {
    let mut cluster = Cluster::new(deployment(2, "a", rolling(1, 0)));
    cluster.settle(|_| {});
    cluster.set_image("b");
    cluster.settle(|_| {});
    cluster.set_image("a");
    cluster.settle(|_| {});
    assert_eq!(cluster.sizes(), [2, 0]);
    let revisions: Vec<_> = cluster.sets.iter().map(revision::of).collect();
    assert_eq!(revisions, [3, 2]);
    assert_eq!(cluster.deployment.metadata.annotation(REVISION), "3");
}

#[test]
fn history_is_cleaned_up_after_a_rollout() {
    let mut cluster = Cluster::new(deployment(1, "a", rolling(1, 0)));
    for image in ["b", "c", "d"] {
        cluster.settle(|_| {});
        cluster.set_image(image);
    }
    cluster.settle(|_| {});
    let revisions: Vec<_> = cluster.sets.iter().map(revision::of).collect();
    assert_eq!(revisions, [3, 4]);
}

#[test]
fn a_resized_deployment_scales_its_only_set() {
    let mut cluster = Cluster::new(deployment(2, "a", rolling(1, 0)));
    cluster.settle(|_| {});
    cluster.resize(5);
    cluster.settle(|_| {});
    cluster.resize(0);
    cluster.settle(|_| {});
    assert_eq!(cluster.log, ["create 2", "2->5", "5->0"]);
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll_out() {
    let mut cluster = Cluster::new(deployment(2, "a", rolling(1, 0)));
    cluster.settle(|_| {});
    cluster.deployment.spec.as_mut().unwrap().paused = Some(true);
    cluster.set_image("b");
    cluster.resize(4);
    cluster.settle(|_| {});
    assert_eq!(cluster.log, ["create 2", "2->4"]);
    cluster.deployment.spec.as_mut().unwrap().paused = Some(false);
    cluster.settle(|_| {});
    assert_eq!(cluster.sizes(), [0, 4]);
}
