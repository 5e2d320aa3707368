//! What a container's specification grants its component.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use windlass_api::grants::{HOST_INTERFACES, INTERFACES, Interfaces};
use windlass_wasi_shims::cpu::Cpu;
use windlass_wasi_shims::fs::{MountError, Mounts};
use windlass_wasi_shims::limits::Memory;
use windlass_wasi_shims::pipe::Writer;
use windlass_wasi_shims::state::{Grants, Instances};
use windlass_wasi_shims::stdio::{self, Input, OutputSink};
use windlass_wasi_shims::world::World;

use super::Parts;
use crate::logs::{LogSink, Output};
use crate::network::PodNetwork;
use crate::runtime::{ContainerSpec, Mount, MountSource, StartError, TerminationMessage};

/// What a container was granted, and the end of its standard input that the agent holds.
pub(super) struct Granted {
    pub(super) grants: Arc<Grants>,
    pub(super) stdin: Option<Writer>,
}

/// One of a container's two output streams.
struct Stream(LogSink, Output);

impl OutputSink for Stream {
    fn write(&self, data: &[u8]) -> io::Result<()> {
        self.0.write(self.1, data);
        Ok(())
    }
}

pub(super) async fn grants(
    parts: &Parts,
    spec: &ContainerSpec,
    network: PodNetwork,
    logs: LogSink,
) -> Result<Granted, StartError> {
    let mounts = open_mounts(spec.mounts.clone(), spec.termination_message.clone()).await?;
    let (stdin, input) = if spec.stdin {
        Some(Input::piped())
    } else {
        None
    }
    .unzip();
    let grants = Grants {
        engine: parts.engine.clone(),
        host_state: parts.host.state(),
        container: format!("{}/{}/{}", spec.pod.namespace, spec.pod.name, spec.name).into(),
        args: spec.args.clone(),
        env: spec.env.clone(),
        working_dir: working_dir(spec),
        stdout: output(spec, Stream(logs.clone(), Output::Stdout)),
        stderr: output(spec, Stream(logs, Output::Stderr)),
        stdin: input.map(|input| match spec.tty {
            true => input.on_terminal(),
            false => input,
        }),
        mounts: Arc::new(mounts),
        network: Arc::new(network),
        tls: parts.tls.clone(),
        memory: Memory::new(spec.limits.memory_bytes),
        cpu: Cpu::new(spec.limits.cpu_millis),
        instances: Arc::new(Instances::new(spec.on_trap.clone())),
    };
    Ok(Granted {
        grants: Arc::new(grants),
        stdin,
    })
}

/// Spec: what the container says comes before what its image does.
fn working_dir(spec: &ContainerSpec) -> Option<String> {
    let container = spec.objects.container.working_dir.clone();
    let own = container.filter(|path| !path.is_empty());
    own.or_else(|| spec.image.working_dir.clone())
}

fn output(spec: &ContainerSpec, stream: Stream) -> stdio::Output {
    let output = stdio::Output::new(Arc::new(stream));
    if spec.tty {
        output.on_terminal()
    } else {
        output
    }
}

/// Refuses a component that imports what its pod was not granted.
pub(super) fn check(parts: &Parts, spec: &ContainerSpec, world: &World) -> Result<(), StartError> {
    let granted = spec.grants()?;
    let imports = world.imports();
    let (of_host, of_wasi): (Vec<&str>, Vec<&str>) = imports
        .iter()
        .map(String::as_str)
        .partition(|name| parts.host.include(name));
    for (annotation, imports, granted) in [
        (INTERFACES, of_wasi, granted.interfaces.unwrap_or_default()),
        (
            HOST_INTERFACES,
            of_host,
            granted.host_interfaces.unwrap_or(Interfaces::NONE),
        ),
    ] {
        let denied = imports.into_iter().filter(|name| !granted.include(name));
        let denied: Vec<_> = denied.collect();
        if !denied.is_empty() {
            let granted = match granted.to_string() {
                none if none.is_empty() => "none".to_owned(),
                some => some,
            };
            return Err(StartError::config(format!(
                "the component imports {}, annotation {annotation} of the pod grants {granted}",
                denied.join(", ")
            )));
        }
    }
    Ok(())
}

/// Opens what is to be mounted. Opening blocks, so it runs on a thread for that.
async fn open_mounts(
    specified: Vec<Mount>,
    termination_message: Option<TerminationMessage>,
) -> Result<Mounts, StartError> {
    let open = move || {
        let mut mounts = Mounts::new();
        for mount in &specified {
            insert(&mut mounts, mount)?;
        }
        if let Some(message) = termination_message {
            mounts.host(&message.path, &message.host, None, false)?;
        }
        Ok::<_, MountError>(mounts)
    };
    match tokio::task::spawn_blocking(open).await {
        Ok(Ok(mounts)) => Ok(mounts),
        Ok(Err(error)) => Err(mount_error(&error)),
        Err(error) => Err(StartError::run(format!(
            "opening the mounts failed: {error}"
        ))),
    }
}

fn insert(mounts: &mut Mounts, mount: &Mount) -> Result<(), MountError> {
    let sub_path = mount.sub_path.as_deref();
    match &mount.source {
        MountSource::Host { path, below, .. } => {
            let whole = match (below, sub_path) {
                (Some(below), Some(sub_path)) => Some(below.join(sub_path)),
                (below, sub_path) => below.clone().or_else(|| sub_path.map(PathBuf::from)),
            };
            mounts.host(&mount.path, path, whole.as_deref(), mount.read_only)
        }
        MountSource::Memory(tree) => mounts.memory(&mount.path, tree.clone(), sub_path),
    }
}

fn mount_error(error: &MountError) -> StartError {
    match std::error::Error::source(error) {
        Some(cause) => StartError::config(format!("{error}: {cause}")),
        None => StartError::config(error.to_string()),
    }
}
