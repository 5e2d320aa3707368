//! containerd's own services: for what CRI has no word, or only one that streams over a server of its own (ADR 34).
//!
//! - [`Tasks`]: processes in containers, their streams being named pipes; a container's end, without polling.
//! - [`Blobs`]: blobs and images, as `image.rs` imports them.

pub(crate) mod messages;

use bytes::Bytes;
use tokio_stream::Stream;
use tonic::Streaming;

use super::client::{CallError, Client};
use messages::*;

/// How long a lease holds if nobody gives it back, in RFC 3339.
const LEASE_EXPIRES: &str = "containerd.io/gc.expire";
/// What makes an image one of CRI's.
pub(crate) const MANAGED: (&str, &str) = ("io.cri-containerd.image", "managed");
/// What a process is described as in `Exec`.
const PROCESS: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";

/// Containers, their first processes and others.
#[derive(Clone, Debug)]
pub(crate) struct Tasks(Client);

/// One process of a container; the first without `exec`.
#[derive(Clone, Debug)]
pub(crate) struct ProcessRef {
    pub(crate) container: String,
    pub(crate) exec: String,
}

impl ProcessRef {
    /// The container's first process.
    pub(crate) fn first(container: &str) -> Self {
        Self {
            container: container.to_owned(),
            exec: String::new(),
        }
    }

    fn id(&self) -> ProcessId {
        ProcessId {
            container_id: self.container.clone(),
            exec_id: self.exec.clone(),
        }
    }
}

/// The named pipes of a process; empty where there is none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pipes {
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Tasks {
    pub(crate) const fn new(client: Client) -> Self {
        Self(client)
    }

    /// The specification that a container's runtime was given, as JSON.
    pub(crate) async fn container_spec(&self, container: &str) -> Result<Bytes, CallError> {
        let request = GetContainerRequest {
            id: container.to_owned(),
        };
        let path = "/containerd.services.containers.v1.Containers/Get";
        let found: GetContainerResponse = self.0.call(path, request).await?;
        let spec = found.container.and_then(|container| container.spec);
        Ok(spec.map(|spec| spec.value).unwrap_or_default())
    }

    /// The number of a process on the host; `None` if it has ended.
    pub(crate) async fn pid(&self, process: &ProcessRef) -> Result<Option<u32>, CallError> {
        let path = "/containerd.services.tasks.v1.Tasks/Get";
        match self.0.call::<_, GetTaskResponse>(path, process.id()).await {
            Ok(found) => Ok(found
                .process
                .map(|process| process.pid)
                .filter(|pid| *pid > 0)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a process in a container, from JSON as the OCI runtime specification has it; it does not run yet.
    pub(crate) async fn exec(
        &self,
        process: &ProcessRef,
        json: Bytes,
        pipes: Pipes,
        terminal: bool,
    ) -> Result<(), CallError> {
        let request = ExecProcessRequest {
            container_id: process.container.clone(),
            exec_id: process.exec.clone(),
            stdin: pipes.stdin,
            stdout: pipes.stdout,
            stderr: pipes.stderr,
            terminal,
            spec: Some(Any {
                type_url: PROCESS.to_owned(),
                value: json,
            }),
        };
        let path = "/containerd.services.tasks.v1.Tasks/Exec";
        let _done: Empty = self.0.call(path, request).await?;
        Ok(())
    }

    /// Lets a process run.
    pub(crate) async fn start(&self, process: &ProcessRef) -> Result<(), CallError> {
        let path = "/containerd.services.tasks.v1.Tasks/Start";
        let _started: StartedProcess = self.0.call(path, process.id()).await?;
        Ok(())
    }

    /// Waits for a process's end, however long that takes; answers its exit code.
    pub(crate) async fn wait(&self, process: &ProcessRef) -> Result<u32, CallError> {
        let path = "/containerd.services.tasks.v1.Tasks/Wait";
        let ended: WaitResponse = self.0.call_with_lease(path, process.id(), None).await?;
        Ok(ended.exit_status)
    }

    /// Forgets a process that has ended.
    pub(crate) async fn delete(&self, process: &ProcessRef) -> Result<(), CallError> {
        let path = "/containerd.services.tasks.v1.Tasks/DeleteProcess";
        // The answer tells the exit code again, which is not looked at.
        let _done: Empty = self.0.call(path, process.id()).await?;
        Ok(())
    }

    /// Sends a signal.
    pub(crate) async fn kill(&self, process: &ProcessRef, signal: u32) -> Result<(), CallError> {
        let request = KillRequest {
            container_id: process.container.clone(),
            exec_id: process.exec.clone(),
            signal,
        };
        let path = "/containerd.services.tasks.v1.Tasks/Kill";
        let _done: Empty = self.0.call(path, request).await?;
        Ok(())
    }

    /// Gives a process's terminal another size.
    pub(crate) async fn resize(
        &self,
        process: &ProcessRef,
        width: u16,
        height: u16,
    ) -> Result<(), CallError> {
        let request = ResizePtyRequest {
            container_id: process.container.clone(),
            exec_id: process.exec.clone(),
            width: width.into(),
            height: height.into(),
        };
        let path = "/containerd.services.tasks.v1.Tasks/ResizePty";
        let _done: Empty = self.0.call(path, request).await?;
        Ok(())
    }

    /// Ends a process's standard input.
    pub(crate) async fn close_stdin(&self, process: &ProcessRef) -> Result<(), CallError> {
        let request = CloseIoRequest {
            container_id: process.container.clone(),
            exec_id: process.exec.clone(),
            stdin: true,
        };
        let path = "/containerd.services.tasks.v1.Tasks/CloseIO";
        let _done: Empty = self.0.call(path, request).await?;
        Ok(())
    }
}

/// The content store, the images, and the leases that keep both from being collected.
#[derive(Clone, Debug)]
pub(crate) struct Blobs(Client);

impl Blobs {
    pub(crate) const fn new(client: Client) -> Self {
        Self(client)
    }

    /// Whether the blob is there.
    pub(crate) async fn has(&self, digest: &str) -> Result<bool, CallError> {
        let request = InfoRequest {
            digest: digest.to_owned(),
        };
        let path = "/containerd.services.content.v1.Content/Info";
        match self.0.call::<_, InfoResponse>(path, request).await {
            Ok(found) => Ok(found.info.is_some()),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Begins to write a blob; the answers come once per request.
    pub(crate) async fn write(
        &self,
        pieces: impl Stream<Item = WriteContentRequest> + Send + 'static,
        lease: &str,
    ) -> Result<Streaming<WriteContentResponse>, CallError> {
        let path = "/containerd.services.content.v1.Content/Write";
        self.0.stream(path, pieces, lease).await
    }

    /// What a failed write says.
    pub(crate) fn failed(&self, status: &tonic::Status) -> CallError {
        self.0.failed(status)
    }

    /// Names an image, in place of what had the name.
    pub(crate) async fn name_image(&self, image: Image, lease: &str) -> Result<(), CallError> {
        let request = OneImage { image: Some(image) };
        let path = "/containerd.services.images.v1.Images/Create";
        let made = self.0.call_with_lease(path, request.clone(), Some(lease));
        match made.await {
            Ok(OneImage { .. }) => Ok(()),
            Err(error) if error.is_already_there() => {
                let path = "/containerd.services.images.v1.Images/Update";
                let _updated: OneImage = self.0.call(path, request).await?;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// The images that this filter finds.
    pub(crate) async fn images(&self, filter: String) -> Result<Vec<Image>, CallError> {
        let request = ListImagesRequest {
            filters: vec![filter],
        };
        let path = "/containerd.services.images.v1.Images/List";
        let found: ListImagesResponse = self.0.call(path, request).await?;
        Ok(found.images)
    }

    /// Forgets a name; what only it kept is collected.
    pub(crate) async fn forget_image(&self, name: String) -> Result<(), CallError> {
        let path = "/containerd.services.images.v1.Images/Delete";
        match self.0.call(path, DeleteImageRequest { name }).await {
            Ok(Empty {}) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Takes a lease that ends at this time (RFC 3339) if it is not given back before.
    pub(crate) async fn lease(&self, id: &str, expires: String) -> Result<(), CallError> {
        let request = CreateLeaseRequest {
            id: id.to_owned(),
            labels: [(LEASE_EXPIRES.to_owned(), expires)].into(),
        };
        let path = "/containerd.services.leases.v1.Leases/Create";
        // The answer is the lease as it was asked for.
        let _made: Empty = self.0.call(path, request).await?;
        Ok(())
    }

    /// Has the lease keep a blob that is there already.
    pub(crate) async fn keep(&self, lease: &str, digest: &str) -> Result<(), CallError> {
        let request = AddResourceRequest {
            id: lease.to_owned(),
            resource: Some(LeasedResource {
                id: digest.to_owned(),
                kind: "content".to_owned(),
            }),
        };
        let path = "/containerd.services.leases.v1.Leases/AddResource";
        let _done: Empty = self.0.call(path, request).await?;
        Ok(())
    }

    /// Gives the lease back.
    pub(crate) async fn end_lease(&self, id: &str) -> Result<(), CallError> {
        let request = DeleteLeaseRequest { id: id.to_owned() };
        let path = "/containerd.services.leases.v1.Leases/Delete";
        match self.0.call(path, request).await {
            Ok(Empty {}) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }
}
