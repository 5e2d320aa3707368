//! `GET /windlass/components` and `GET /windlass/flows`: what the API server makes `node.windlass.dev/v1` of.

use axum::extract::State;
use axum::response::Response;
use windlass_api::node_info::{Component, Flow, PodInfo};

use super::container_logs::container_names;
use super::{DaemonState, json};

pub(super) async fn components(State(state): State<DaemonState>) -> Response {
    let mut pods: Vec<PodInfo<Component>> = Vec::new();
    for pod in &state.pods.all() {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let running = container_names(pod).filter_map(|name| state.containers.find(uid, name));
        let items: Vec<_> = running
            .filter_map(|container| container.component())
            .collect();
        if !items.is_empty() {
            let uid = uid.to_owned();
            pods.push(PodInfo { uid, items });
        }
    }
    json(&pods)
}

pub(super) async fn flows(State(state): State<DaemonState>) -> Response {
    let pods: Vec<PodInfo<Flow>> = state.network.flows();
    json(&pods)
}
