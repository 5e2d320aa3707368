//! The sandboxes of this node's pods: made with a pod's first container of Linux, and removed with the pod.
//!
//! 1. A pod's entry is locked while its sandbox is looked for or made, so that its containers share one.
//! 2. A sandbox that is ready is used, also one that an earlier process of the agent made. One that died is removed, with
//!    what is left in it, and another takes its place.
//! 3. At its end, what is in the sandbox is ended, its network is given back by containerd, and the sandbox removed. A
//!    containerd that is down is waited for: nothing of a pod may run on when its name and address are given to another.
//!
//! A sandbox and its containers carry labels that tell whose they are; nothing is remembered that containerd does not know.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::client::{CallError, Client};
use super::config::{self, AGENT, POD_UID, SandboxFacts};
use super::cri::Cri;
use super::cri::messages::{
    Container, ContainerFilter, PodSandbox, PodSandboxConfig, PodSandboxState,
};
use super::trees::WrittenTree;
use crate::runtime::{ContainerSpec, PodIdentity};

/// How long after a failed try a sandbox's removal is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// A pod's sandbox.
#[derive(Clone, Debug)]
pub(super) struct Sandbox {
    pub(super) id: String,
    /// As it was made from.
    pub(super) config: PodSandboxConfig,
}

/// What of a pod's files is kept current.
#[derive(Debug, Default)]
pub(super) struct PodFiles {
    /// By volume.
    pub(super) trees: BTreeMap<String, WrittenTree>,
}

/// What is shared by the containers of a pod.
#[derive(Debug, Default)]
pub(super) struct PodState {
    pub(super) files: PodFiles,
}

/// All pods with containers of Linux.
pub(super) struct Pods {
    cri: Cri,
    agent: String,
    states: Mutex<HashMap<String, Arc<tokio::sync::Mutex<PodState>>>>,
}

impl Pods {
    pub(super) fn new(client: &Client, agent: String) -> Self {
        Self {
            cri: Cri::new(client.clone()),
            agent,
            states: Mutex::default(),
        }
    }

    /// What a pod's containers share.
    pub(super) fn state(&self, pod: &PodIdentity) -> Arc<tokio::sync::Mutex<PodState>> {
        let mut states = self.lock();
        states.entry(pod.uid.clone()).or_default().clone()
    }

    /// The pod's sandbox. Its state must be locked.
    pub(super) async fn sandbox(
        &self,
        spec: &ContainerSpec,
        mut facts: SandboxFacts,
        handler: &str,
    ) -> Result<Sandbox, CallError> {
        facts.agent.clone_from(&self.agent);
        let of = |sandbox: &PodSandbox| sandbox.metadata.as_ref().map_or(0, |of| of.attempt);
        let found = self.of_pod(&spec.pod).await?;
        if let Some(last) = found.iter().max_by_key(|sandbox| of(sandbox)) {
            facts.attempt = of(last);
            if last.state() == PodSandboxState::Ready {
                let config = config::sandbox(&spec.objects.pod, &spec.pod, &facts);
                let id = last.id.clone();
                return Ok(Sandbox { id, config });
            }
            facts.attempt += 1;
        }
        for dead in &found {
            self.remove(&dead.id).await?;
        }
        let config = config::sandbox(&spec.objects.pod, &spec.pod, &facts);
        let id = self.cri.run_pod_sandbox(config.clone(), handler.to_owned());
        Ok(Sandbox {
            id: id.await?,
            config,
        })
    }

    async fn of_pod(&self, pod: &PodIdentity) -> Result<Vec<PodSandbox>, CallError> {
        let labels = [(POD_UID, pod.uid.as_str()), (AGENT, &self.agent)];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
        self.cri.list_pod_sandbox(labels.into()).await
    }

    /// The containers of a pod, also those that have ended.
    pub(super) async fn containers(&self, pod: &PodIdentity) -> Result<Vec<Container>, CallError> {
        let labels = config::pod_labels(pod, &self.agent);
        let filter = ContainerFilter {
            label_selector: labels,
            ..ContainerFilter::default()
        };
        self.cri.list_containers(filter).await
    }

    /// All containers that this agent has, also those that have ended.
    pub(super) async fn all_containers(&self) -> Result<Vec<Container>, CallError> {
        let labels = [(AGENT.to_owned(), self.agent.clone())].into();
        let filter = ContainerFilter {
            label_selector: labels,
            ..ContainerFilter::default()
        };
        self.cri.list_containers(filter).await
    }

    /// Ends and removes everything of a pod, however long that takes.
    pub(super) async fn tear_down(&self, pod: &PodIdentity) {
        let state = self.lock().remove(&pod.uid);
        // Whoever makes the sandbox now ends first.
        if let Some(state) = state {
            state.lock().await.files.trees.clear();
        }
        let mut told = false;
        loop {
            match self.remove_of(pod).await {
                Ok(()) => return,
                Err(error) => {
                    if !told {
                        tracing::warn!(pod = pod.name, %error, "a pod's sandbox is not removed, will retry");
                    }
                    told = true;
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    async fn remove_of(&self, pod: &PodIdentity) -> Result<(), CallError> {
        for sandbox in self.of_pod(pod).await? {
            self.remove(&sandbox.id).await?;
        }
        Ok(())
    }

    async fn remove(&self, sandbox: &str) -> Result<(), CallError> {
        self.cri.stop_pod_sandbox(sandbox).await?;
        self.cri.remove_pod_sandbox(sandbox).await
    }

    /// Removes the sandboxes of pods that are not among these.
    pub(super) async fn remove_but(&self, uids: &HashSet<String>) -> Result<(), CallError> {
        let labels = [(AGENT.to_owned(), self.agent.clone())].into();
        for sandbox in self.cri.list_pod_sandbox(labels).await? {
            let uid = sandbox.metadata.as_ref().map(|of| of.uid.as_str());
            if uid.is_none_or(|uid| !uids.contains(uid)) {
                tracing::info!(sandbox.id, "remove the sandbox of a pod that is gone");
                self.remove(&sandbox.id).await?;
            }
        }
        Ok(())
    }

    fn lock(
        &self,
    ) -> std::sync::MutexGuard<'_, HashMap<String, Arc<tokio::sync::Mutex<PodState>>>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
