//! Revisions: the history of a Deployment's templates, kept in annotations of its ReplicaSets.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};

use super::rolling::{DESIRED, Leeway, MAX, replicas, wanted};
use crate::controllers::runtime::metadata::Metadata;

/// Annotation: the revision.
pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
/// Annotation: the revisions a set had before rollbacks, joined by commas.
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// Longest history kept, in characters.
const HISTORY_MAX: usize = 2000;

/// Annotations of a Deployment that are not its sets' business.
const OWN: [&str; 5] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    HISTORY,
    DESIRED,
    MAX,
];

/// A set's revision, 0 if it has none.
pub(super) fn of(set: &ReplicaSet) -> i64 {
    set.metadata.annotation(REVISION).parse().unwrap_or(0)
}

/// The revision that the new set is to have.
pub(super) fn next(old: &[Arc<ReplicaSet>]) -> i64 {
    old.iter().map(|set| of(set)).max().unwrap_or(0) + 1
}

/// Gives `set` the revision and the Deployment's annotations; whether that changed anything.
pub(super) fn annotate(deployment: &Deployment, set: &mut ReplicaSet, revision: i64) -> bool {
    let old = of(set);
    let annotations = set.metadata.annotations.get_or_insert_default();
    let before = annotations.clone();
    let own = deployment.metadata.annotations().iter();
    for (key, value) in own.filter(|(key, _)| !OWN.contains(&key.as_str())) {
        annotations.insert(key.clone(), value.clone());
    }
    // A revision never goes down: this one may have been the newest when others were cleaned up.
    if old < revision
        && let Some(old) = annotations.insert(REVISION.into(), revision.to_string())
    {
        remember(annotations, &old);
    }
    *annotations != before
}

fn remember(annotations: &mut BTreeMap<String, String>, revision: &str) {
    let history = annotations.entry(HISTORY.into()).or_default();
    if !history.is_empty() {
        history.push(',');
    }
    history.push_str(revision);
    while history.len() > HISTORY_MAX {
        let Some((_, rest)) = history.split_once(',') else {
            return;
        };
        *history = rest.to_owned();
    }
}

/// Notes on `set` for what size of Deployment it is sized; whether that changed anything.
pub(super) fn note_size(deployment: &Deployment, set: &mut ReplicaSet) -> bool {
    let wanted = wanted(deployment);
    let max = wanted.saturating_add(Leeway::of(deployment).surge);
    let annotations = set.metadata.annotations.get_or_insert_default();
    let desired = annotations.insert(DESIRED.into(), wanted.to_string());
    let old_max = annotations.insert(MAX.into(), max.to_string());
    desired != Some(wanted.to_string()) || old_max != Some(max.to_string())
}

/// The old sets beyond the limit on history, oldest revision first: those that are empty and settled.
pub(super) fn surplus<'a>(
    deployment: &Deployment,
    old: &'a [Arc<ReplicaSet>],
) -> Vec<&'a Arc<ReplicaSet>> {
    let limit = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.revision_history_limit);
    let Some(limit) = limit.and_then(|limit| usize::try_from(limit).ok()) else {
        return Vec::new();
    };
    let mut kept: Vec<_> = old
        .iter()
        .filter(|set| !set.metadata.is_terminating())
        .collect();
    let surplus = kept.len().saturating_sub(limit);
    kept.sort_by_key(|set| (of(set), set.metadata.created()));
    kept.truncate(surplus);
    kept.retain(|set| is_spent(set));
    kept
}

fn is_spent(set: &ReplicaSet) -> bool {
    let status = set.status.as_ref();
    let observed = status.and_then(|status| status.observed_generation);
    replicas(set) == 0
        && status.is_none_or(|status| status.replicas == 0)
        && set.metadata.generation <= observed
}

#[cfg(test)]
#[expect(
    clippy::needless_pass_by_value,
    reason = "json! values read better unborrowed"
)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn set(name: &str, revision: i64, size: i32) -> Arc<ReplicaSet> {
        let object = json!({
            "metadata": {"name": name, "generation": 1, "annotations": {REVISION: revision.to_string()}},
            "spec": {"replicas": size}, "status": {"replicas": size, "observedGeneration": 1}});
        Arc::new(serde_json::from_value(object).unwrap())
    }

    fn deployment(spec: Value) -> Deployment {
        let annotations = json!({"team": "a", OWN[0]: "{}", REVISION: "1"});
        let object = json!({"metadata": {"annotations": annotations}, "spec": spec});
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn a_rolled_back_set_gets_a_new_revision_and_remembers_the_old() {
        let mut set = ReplicaSet::clone(&set("a", 1, 0));
        assert!(annotate(&deployment(json!({})), &mut set, 4));
        let annotations = set.metadata.annotations();
        assert_eq!(
            (
                annotations[REVISION].as_str(),
                annotations[HISTORY].as_str()
            ),
            ("4", "1")
        );
        assert_eq!(annotations["team"], "a");
        assert!(!annotations.contains_key(OWN[0]));
        assert!(!annotate(&deployment(json!({})), &mut set, 3));
    }

    #[test]
    fn history_beyond_the_limit_goes_oldest_first_once_empty() {
        let old = [
            set("three", 3, 0),
            set("one", 1, 0),
            set("two", 2, 4),
            set("four", 4, 0),
        ];
        for (limit, expected) in [
            (json!({"revisionHistoryLimit": 10}), vec![]),
            (json!({"revisionHistoryLimit": 3}), vec!["one"]),
            (json!({"revisionHistoryLimit": 1}), vec!["one", "three"]),
            (
                json!({"revisionHistoryLimit": 0}),
                vec!["one", "three", "four"],
            ),
            (json!({}), vec![]),
        ] {
            let surplus = surplus(&deployment(limit.clone()), &old);
            let names: Vec<_> = surplus.iter().map(|set| set.metadata.name()).collect();
            assert_eq!(names, expected, "{limit}");
        }
    }
}
