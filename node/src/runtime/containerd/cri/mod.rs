//! The Container Runtime Interface: what containerd is asked to do with sandboxes and containers.
//!
//! Each method is one call of `runtime.v1`, by the same name.

pub(crate) mod messages;

use std::collections::BTreeMap;
use std::time::Duration;

use super::client::{CallError, Client};
use messages::*;

/// Whoever asks to stop a container waits this much longer than the container is given.
const STOP_MARGIN: Duration = Duration::from_secs(120);

/// The runtime service and what is needed of the image service.
#[derive(Clone, Debug)]
pub(crate) struct Cri(Client);

impl Cri {
    pub(crate) const fn new(client: Client) -> Self {
        Self(client)
    }

    pub(crate) async fn version(&self) -> Result<VersionResponse, CallError> {
        let request = VersionRequest {
            version: "v1".to_owned(),
        };
        self.0
            .call("/runtime.v1.RuntimeService/Version", request)
            .await
    }

    pub(crate) async fn run_pod_sandbox(
        &self,
        config: PodSandboxConfig,
        runtime_handler: String,
    ) -> Result<String, CallError> {
        let request = RunPodSandboxRequest {
            config: Some(config),
            runtime_handler,
        };
        let path = "/runtime.v1.RuntimeService/RunPodSandbox";
        let made: SandboxId = self.0.call(path, request).await?;
        Ok(made.pod_sandbox_id)
    }

    /// Ends the sandbox with all that runs in it.
    pub(crate) async fn stop_pod_sandbox(&self, id: &str) -> Result<(), CallError> {
        self.of_sandbox("/runtime.v1.RuntimeService/StopPodSandbox", id)
            .await
    }

    /// Forgets the sandbox and its containers.
    pub(crate) async fn remove_pod_sandbox(&self, id: &str) -> Result<(), CallError> {
        self.of_sandbox("/runtime.v1.RuntimeService/RemovePodSandbox", id)
            .await
    }

    async fn of_sandbox(&self, path: &'static str, id: &str) -> Result<(), CallError> {
        let request = SandboxId {
            pod_sandbox_id: id.to_owned(),
        };
        let _done: Empty = self.0.call(path, request).await?;
        Ok(())
    }

    /// The sandboxes with these labels.
    pub(crate) async fn list_pod_sandbox(
        &self,
        labels: BTreeMap<String, String>,
    ) -> Result<Vec<PodSandbox>, CallError> {
        let request = ListPodSandboxRequest {
            filter: Some(PodSandboxFilter {
                label_selector: labels,
            }),
        };
        let path = "/runtime.v1.RuntimeService/ListPodSandbox";
        let found: ListPodSandboxResponse = self.0.call(path, request).await?;
        Ok(found.items)
    }

    pub(crate) async fn create_container(
        &self,
        request: CreateContainerRequest,
    ) -> Result<String, CallError> {
        let path = "/runtime.v1.RuntimeService/CreateContainer";
        let made: ContainerId = self.0.call(path, request).await?;
        Ok(made.container_id)
    }

    pub(crate) async fn start_container(&self, id: &str) -> Result<(), CallError> {
        self.of_container("/runtime.v1.RuntimeService/StartContainer", id)
            .await
    }

    pub(crate) async fn remove_container(&self, id: &str) -> Result<(), CallError> {
        self.of_container("/runtime.v1.RuntimeService/RemoveContainer", id)
            .await
    }

    /// Has the container's log opened anew, after its file was renamed.
    pub(crate) async fn reopen_container_log(&self, id: &str) -> Result<(), CallError> {
        self.of_container("/runtime.v1.RuntimeService/ReopenContainerLog", id)
            .await
    }

    async fn of_container(&self, path: &'static str, id: &str) -> Result<(), CallError> {
        let request = ContainerId {
            container_id: id.to_owned(),
        };
        let _done: Empty = self.0.call(path, request).await?;
        Ok(())
    }

    /// Sends the image's stop signal, and SIGKILL after the grace; returns when the container has ended.
    pub(crate) async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), CallError> {
        let whole = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
        let request = StopContainerRequest {
            container_id: id.to_owned(),
            timeout: i64::try_from(whole).unwrap_or(i64::MAX),
        };
        let path = "/runtime.v1.RuntimeService/StopContainer";
        let limit = grace.saturating_add(STOP_MARGIN);
        let _done: Empty = self.0.call_within(path, request, limit).await?;
        Ok(())
    }

    /// The containers with these labels.
    pub(crate) async fn list_containers(
        &self,
        filter: ContainerFilter,
    ) -> Result<Vec<Container>, CallError> {
        let request = ListContainersRequest {
            filter: Some(filter),
        };
        let path = "/runtime.v1.RuntimeService/ListContainers";
        let found: ListContainersResponse = self.0.call(path, request).await?;
        Ok(found.containers)
    }

    /// What is known of a container; `None` if there is no such.
    pub(crate) async fn container_status(
        &self,
        id: &str,
    ) -> Result<Option<ContainerStatus>, CallError> {
        let request = ContainerId {
            container_id: id.to_owned(),
        };
        let path = "/runtime.v1.RuntimeService/ContainerStatus";
        let answer = self.0.call::<_, ContainerStatusResponse>(path, request);
        match answer.await {
            Ok(found) => Ok(found.status),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn update_container_resources(
        &self,
        id: &str,
        resources: LinuxContainerResources,
    ) -> Result<(), CallError> {
        let request = UpdateContainerResourcesRequest {
            container_id: id.to_owned(),
            linux: Some(resources),
        };
        let path = "/runtime.v1.RuntimeService/UpdateContainerResources";
        let _done: Empty = self.0.call(path, request).await?;
        Ok(())
    }

    /// Where the streams of a container can be connected to.
    pub(crate) async fn attach(&self, request: AttachRequest) -> Result<String, CallError> {
        let path = "/runtime.v1.RuntimeService/Attach";
        let answer: AttachResponse = self.0.call(path, request).await?;
        Ok(answer.url)
    }

    /// Whether containers can be made from the image of this id.
    pub(crate) async fn has_image(&self, id: &str) -> Result<bool, CallError> {
        let image = ImageSpec {
            image: id.to_owned(),
            ..ImageSpec::default()
        };
        let request = ImageStatusRequest { image: Some(image) };
        let path = "/runtime.v1.ImageService/ImageStatus";
        let answer: ImageStatusResponse = self.0.call(path, request).await?;
        Ok(answer.image.is_some())
    }
}
