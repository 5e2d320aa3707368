//! Many pods that wait: who is asked when, and that nobody is in another's way.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::pod_info::PodInfo;
use super::profile::Profiles;
use super::snapshot::NodeFacts;
use super::state::{Decision, State};
use crate::controllers::runtime::informer::{Cached, Change};
use crate::controllers::runtime::metadata::Metadata;

const MANY: usize = 10_000;

fn node(cpu: u32, note: &str) -> Arc<NodeFacts> {
    let object = json!({
        "metadata": {"name": "n", "annotations": {"note": note}},
        "status": {"allocatable": {"cpu": cpu.to_string(), "memory": "4Gi", "pods": "200"}},
    });
    Arc::new(NodeFacts::project(serde_json::from_value(object).unwrap()))
}

fn pod(name: &str, cpu: u32) -> Arc<PodInfo> {
    let object = json!({"metadata": {"name": name, "uid": name}, "spec": {
        "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu.to_string()}}}]}});
    Arc::new(PodInfo::project(serde_json::from_value(object).unwrap()))
}

fn comes(state: &mut State, pod: &Arc<PodInfo>) {
    state.pod_changed(Change {
        old: None,
        new: Some(pod),
    });
}

/// Decides about everybody who can be decided about now: how many were refused, and who was placed.
fn decide_all(state: &mut State) -> (usize, Vec<String>) {
    let (mut refused, mut placed) = (0, Vec::new());
    while let Ok(decision) = state.decide_next() {
        match decision {
            Decision::Explain(_) => refused += 1,
            Decision::Bind(pod, _) => placed.push(pod.metadata.name().to_owned()),
            _ => panic!("nobody needs anything else"),
        }
    }
    (refused, placed)
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_that_wait_are_asked_once_each_and_in_nobodys_way() {
    let mut state = State::new(Profiles::default());
    let mut known = node(2, "");
    state.node_changed(Change {
        old: None,
        new: Some(&known),
    });
    let mut turn = |state: &mut State, next: Arc<NodeFacts>| {
        let old = std::mem::replace(&mut known, next);
        state.node_changed(Change {
            old: Some(&old),
            new: Some(&known),
        })
    };
    for number in 0..MANY {
        comes(&mut state, &pod(&format!("big-{number:05}"), 4));
    }
    assert_eq!(decide_all(&mut state), (MANY, vec![]));
    // Nothing is asked again for what cannot help, however often it happens.
    for at in 0..100 {
        assert!(!turn(&mut state, node(2, &at.to_string())));
    }
    tokio::time::advance(Duration::from_secs(20)).await;
    assert_eq!(decide_all(&mut state), (0, vec![]));
    // Whoever fits does not wait behind those who don't.
    comes(&mut state, &pod("small", 1));
    assert_eq!(decide_all(&mut state), (0, vec!["small".to_owned()]));
    // Room for two of them: the first two get it, and the others are asked once.
    assert!(turn(&mut state, node(10, "")));
    tokio::time::advance(Duration::from_secs(20)).await;
    let first = ["big-00000", "big-00001"].map(str::to_owned);
    assert_eq!(decide_all(&mut state), (MANY - 2, first.to_vec()));
}
