//! What a program that hosts an agent does with its pods, without HTTP in between.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use crate::logs::{LogQuery, LogStream, ReadError};
use crate::pods::{KnownPods, NodeContext};
use crate::runtime::exec::{Collected, ExecError, ExecStreams, Running, collect};
use crate::runtime::{PodIdentity, RunningContainer, Usage};

/// Why the agent can't do what it is asked for.
#[derive(Debug, thiserror::Error)]
pub enum HandleError {
    /// The agent has no such pod.
    #[error("pod {namespace}/{name} is not on this node")]
    NoPod {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// The pod has no such container, or it does not run.
    #[error("container {0:?} does not run")]
    NotRunning(String),
    /// The log can't be read.
    #[error(transparent)]
    Log(#[from] ReadError),
    /// The command did not run.
    #[error(transparent)]
    Exec(#[from] ExecError),
}

/// The pods of an agent, for the program that hosts it. Cheap to clone; keeps nothing running.
#[derive(Clone)]
pub struct NodeHandle {
    context: Arc<NodeContext>,
    known: KnownPods,
}

impl NodeHandle {
    pub(crate) const fn new(context: Arc<NodeContext>, known: KnownPods) -> Self {
        Self { context, known }
    }

    /// The pods that the agent has, as it knows them.
    #[must_use]
    pub fn pods(&self) -> Vec<Arc<Pod>> {
        self.known.all()
    }

    /// The log of a container.
    ///
    /// # Errors
    /// There is no such pod, or no such log.
    pub async fn logs(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        query: LogQuery,
    ) -> Result<LogStream, HandleError> {
        let identity = self.find(namespace, pod)?;
        Ok(self.context.logs.read(&identity, container, query).await?)
    }

    /// Begins a command in a container; see [`RunningContainer::exec`].
    ///
    /// # Errors
    /// There is no such container.
    pub fn exec(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        command: Vec<String>,
        streams: ExecStreams,
    ) -> Result<Running, HandleError> {
        Ok(self
            .running(namespace, pod, container)?
            .exec(command, streams))
    }

    /// Runs a command without input, and answers how it ended and the begin of what it printed.
    ///
    /// # Errors
    /// There is no such container, or the command did not run.
    pub async fn run(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        command: &[String],
    ) -> Result<Collected, HandleError> {
        let running = self.running(namespace, pod, container)?;
        Ok(collect(running.as_ref(), command).await?)
    }

    /// What the containers of a pod use, by name; those that run.
    ///
    /// # Errors
    /// There is no such pod.
    pub fn usage(
        &self,
        namespace: &str,
        pod: &str,
    ) -> Result<BTreeMap<String, Usage>, HandleError> {
        let identity = self.find(namespace, pod)?;
        let running = self.context.containers.of_pod(&identity.uid);
        Ok(running
            .into_iter()
            .map(|(name, container)| (name, container.usage()))
            .collect())
    }

    fn find(&self, namespace: &str, name: &str) -> Result<PodIdentity, HandleError> {
        let pod = self.known.find(namespace, name);
        let pod = pod.ok_or_else(|| HandleError::NoPod {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })?;
        Ok(NodeContext::identity(&pod))
    }

    fn running(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
    ) -> Result<Arc<dyn RunningContainer>, HandleError> {
        let identity = self.find(namespace, pod)?;
        let found = self.context.containers.find(&identity.uid, container);
        found.ok_or_else(|| HandleError::NotRunning(container.to_owned()))
    }
}
