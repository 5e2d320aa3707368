//! Commands in a container: which component a name means, and running it with the container's grants.
//!
//! A name is looked for in this order:
//!
//! | name | what runs |
//! |---|---|
//! | an absolute path | the component in that file of the container's mounts, or of its image |
//! | the container's own program, by its first argument, its image's name or the container's | another instance of it |
//! | a component of the image, by its path, its file's name, or that without `.wasm` | that |
//! | a tool of the node ([`super::tools`]), such as `tar` | that |
//!
//! Whichever it is, it may import only what the pod was granted, and shares the container's accounts of memory and
//! processor time.

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use tokio::sync::{Semaphore, watch};
use tokio_util::task::AbortOnDropHandle;
use windlass_oci::digest::Digest;
use windlass_oci::reference::Reference;
use windlass_wasi_shims::state::Grants;
use windlass_wasi_shims::stdio::{Input, Output};
use windlass_wasi_shims::world::World;

use super::container::exit_status;
use super::{Parts, error_text, grants};
use crate::runtime::exec::{ExecError, ExecStreams, Running};
use crate::runtime::{ContainerSpec, ExitStatus, ImageComponent};

/// Commands that a container may run at a time.
const AT_ONCE: usize = 64;
/// Largest file that is run as a component.
const MAX_COMPONENT: u64 = 256 << 20;

/// What commands of one container are made from; cheap to clone.
#[derive(Clone)]
pub(super) struct Commands(Arc<Inner>);

struct Inner {
    parts: Arc<Parts>,
    spec: ContainerSpec,
    program: World,
    grants: Arc<Grants>,
    places: Arc<Semaphore>,
}

impl Commands {
    pub(super) fn new(
        parts: Arc<Parts>,
        spec: ContainerSpec,
        program: World,
        grants: Arc<Grants>,
    ) -> Self {
        let places = Arc::new(Semaphore::new(AT_ONCE));
        Self(Arc::new(Inner {
            parts,
            spec,
            program,
            grants,
            places,
        }))
    }

    /// Runs a command until it ends, or its container does.
    pub(super) fn run(
        &self,
        command: Vec<String>,
        streams: ExecStreams,
        mut container: watch::Receiver<Option<ExitStatus>>,
    ) -> Running {
        let commands = self.0.clone();
        async move {
            let running = commands.run(command, streams);
            tokio::select! {
                ended = running => ended,
                // An error means that the container is gone: the same.
                _ended = container.wait_for(Option::is_some) => {
                    Ok(ExitStatus::killed("the container has ended"))
                }
            }
        }
        .boxed()
    }
}

impl Inner {
    async fn run(
        self: Arc<Self>,
        command: Vec<String>,
        streams: ExecStreams,
    ) -> Result<ExitStatus, ExecError> {
        let name = command.first().ok_or(ExecError::Empty)?;
        let cannot = |message: String| ExecError::CannotRun {
            name: name.clone(),
            message,
        };
        let place = self.places.clone().try_acquire_owned();
        let place = place.map_err(|_| cannot(format!("{AT_ONCE} commands run already")))?;
        let world = self.find(name).await?;
        if let World::Http(_) = world {
            let text = "it serves HTTP and is no command; send it requests, by kubectl port-forward for example";
            return Err(cannot(text.to_owned()));
        }
        grants::check(&self.parts, &self.spec, &world).map_err(|error| cannot(error.message))?;
        let grants = self.grants(command, streams);
        let work = async move {
            let end = world.run_command(&grants).await;
            drop(place);
            exit_status(&grants, end)
        };
        let work = AbortOnDropHandle::new(self.parts.guests.handle().spawn(work));
        Ok(work.await.unwrap_or_else(|error| {
            ExitStatus::killed(format!("the host failed while running it: {error}"))
        }))
    }

    /// The container's grants with other streams and arguments.
    fn grants(&self, args: Vec<String>, streams: ExecStreams) -> Grants {
        let ExecStreams {
            stdin,
            stdout,
            stderr,
            terminal,
            // Guests have no terminal that could have a size.
            sizes: _,
        } = streams;
        let stdout = Output::piped(stdout);
        let stderr = stderr.map_or_else(|| stdout.clone(), Output::piped);
        let stdin = stdin.map(Input::new);
        let (stdin, stdout, stderr) = if terminal {
            let stdin = stdin.map(Input::on_terminal);
            (stdin, stdout.on_terminal(), stderr.on_terminal())
        } else {
            (stdin, stdout, stderr)
        };
        Grants {
            args,
            stdin,
            stdout,
            stderr,
            ..(*self.grants).clone()
        }
    }

    async fn find(&self, name: &str) -> Result<World, ExecError> {
        if name.starts_with('/')
            && let Some(found) = self.file(name).await?
        {
            return Ok(found);
        }
        if self.own_names().iter().any(|own| own == name) {
            return Ok(self.program.clone());
        }
        if let Some(component) = self.spec.image.component(name) {
            let loaded = self.parts.cache.world(&component.digest, &component.blob);
            let loaded = loaded.await;
            return loaded
                .map(|loaded| loaded.world)
                .map_err(|error| cannot_run(name, error_text(&error)));
        }
        if let Some(tool) = self.parts.tools.find(name) {
            let tool = tool.clone();
            let hashed = tokio::task::spawn_blocking(move || (tool.digest().clone(), tool)).await;
            let (digest, tool) = hashed.map_err(|error| cannot_run(name, error.to_string()))?;
            return self
                .load(name, &digest, move || Ok(tool.wasm().clone()))
                .await;
        }
        Err(ExecError::NotFound {
            name: name.to_owned(),
            known: self.known(),
        })
    }

    /// The component in a file of the mounts, if there is that file.
    async fn file(&self, path: &str) -> Result<Option<World>, ExecError> {
        let (mounts, parts) = (self.grants.mounts.clone(), self.parts.clone());
        let name = path.to_owned();
        let opened = tokio::task::spawn_blocking(move || {
            let file = mounts.open(&name)?;
            let digest = parts.digests.of(&file, MAX_COMPONENT)?;
            Ok((file, digest))
        });
        let opened: std::io::Result<_> = opened
            .await
            .map_err(|error| cannot_run(path, error.to_string()))?;
        let (file, digest) = match opened {
            Ok(opened) => opened,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(None);
            }
            Err(error) => return Err(cannot_run(path, error.to_string())),
        };
        let world = self.load(path, &digest, move || file.read(MAX_COMPONENT));
        world.await.map(Some)
    }

    async fn load(
        &self,
        name: &str,
        digest: &Digest,
        read: impl FnOnce() -> std::io::Result<Bytes> + Send + 'static,
    ) -> Result<World, ExecError> {
        let loaded = self.parts.cache.world_of(digest, read).await;
        let loaded = loaded.map_err(|error| cannot_run(name, error_text(&error)))?;
        Ok(loaded.world)
    }

    /// What the container's own program is called by, each name once.
    fn own_names(&self) -> Vec<String> {
        let mut names = vec![self.spec.name.clone()];
        if let Some(program) = self.spec.args.first() {
            let file = program.rsplit('/').next().unwrap_or(program);
            let stem = file.strip_suffix(".wasm").unwrap_or(file);
            names.extend([program, file, stem].map(str::to_owned));
        }
        if let Ok(reference) = self.spec.image.reference.parse::<Reference>() {
            names.extend(reference.repository().rsplit('/').next().map(str::to_owned));
        }
        names.sort_unstable();
        names.dedup();
        names
    }

    /// What there is to run, for those who asked for something else.
    fn known(&self) -> String {
        let own = match self.program {
            World::Http(_) => "its program serves HTTP".to_owned(),
            _ => format!(
                "the container's own program is {}",
                self.own_names().join(" or ")
            ),
        };
        let others = self.spec.image.components.iter();
        let mut others: Vec<_> = others.map(ImageComponent::stem).collect();
        others.dedup();
        let others = match others.as_slice() {
            [] | [_] => String::new(),
            _ => format!(", the components of its image are {}", others.join(", ")),
        };
        let tools = self.parts.tools.describe();
        format!("{own}{others}, {tools}; components in volumes are run by their absolute paths")
    }
}

fn cannot_run(name: &str, message: String) -> ExecError {
    ExecError::CannotRun {
        name: name.to_owned(),
        message,
    }
}
