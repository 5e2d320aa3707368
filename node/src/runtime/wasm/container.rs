//! Containers of the WebAssembly runtime.
//!
//! ```text
//!   work      on the guests' threads: the command, or the http server
//!   supervise on the agent's threads: waits for the work, forces its end, publishes the exit status
//! ```
//!
//! A stop is a deadline that only ever moves closer: the work is told at once, and ended when the
//! deadline passes.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::Instant;
use windlass_api::node_info::{Component, Instances, Limits, Trap};
use windlass_wasi_shims::command::CommandEnd;
use windlass_wasi_shims::http::{HttpServer, HttpSettings};
use windlass_wasi_shims::net::{NetError, TcpListener, VirtualNetwork};
use windlass_wasi_shims::state::Grants;
use windlass_wasi_shims::world::World;

use super::Parts;
use super::exec::Commands;
use super::grants::Granted;
use crate::network::PodNetwork;
use crate::runtime::exec::{ExecStreams, Running};
use crate::runtime::{
    ContainerSpec, ExitStatus, Protocol, ResourceLimits, RunningContainer, StartError, Stdin, Usage,
};

/// The port of an http container that declares none.
const DEFAULT_PORT: u16 = 8080;

/// Connections that may wait at an http container's port.
const BACKLOG: usize = 1024;

/// Exit code of a trap: what a shell shows for SIGABRT.
const ABORTED: i32 = 134;

/// Exit code of a container that was told to end and did at once: what a shell shows for SIGTERM.
const TERMINATED: i32 = 143;

/// What a container runs.
pub(super) struct Program {
    pub(super) spec: ContainerSpec,
    pub(super) world: World,
    pub(super) component: Component,
}

/// A container that was started.
pub(super) struct WasmContainer {
    grants: Arc<Grants>,
    component: Component,
    commands: Commands,
    stdin: Option<Stdin>,
    work: AbortHandle,
    stop: watch::Sender<Option<Instant>>,
    exit: watch::Receiver<Option<ExitStatus>>,
}

/// Starts a container. A command runs when this returns; the ports of an http component listen.
pub(super) fn start(
    parts: &Arc<Parts>,
    program: Program,
    granted: Granted,
    network: &PodNetwork,
) -> Result<WasmContainer, StartError> {
    let Granted { grants, stdin } = granted;
    let Program {
        spec,
        world,
        component,
    } = program;
    let stdin = stdin.map(Stdin::new);
    let (stop, stopped) = watch::channel(None);
    let guests = parts.guests.handle();
    let work = match &world {
        World::Http(pre) => {
            let listeners = listeners(&spec, network)?;
            let mut settings = HttpSettings::new(parts.request_instances.clone());
            settings.requests_per_instance = spec.grants()?.requests_per_instance.unwrap_or(1);
            let server = HttpServer::new(pre.clone(), grants.clone(), settings);
            guests.spawn(serve_all(server, listeners, stopped.clone()))
        }
        World::CommandP2(_) | World::CommandP3(_) => {
            let world = world.clone();
            guests.spawn(command(
                world,
                grants.clone(),
                stdin.clone(),
                stopped.clone(),
            ))
        }
    };
    let (publish, exit) = watch::channel(None);
    let abort = work.abort_handle();
    tokio::spawn(async move {
        let status = supervise(work, stopped).await;
        publish.send_replace(Some(status));
    });
    Ok(WasmContainer {
        commands: Commands::new(parts.clone(), spec, world, grants.clone()),
        grants,
        component,
        stdin,
        work: abort,
        stop,
        exit,
    })
}

async fn command(
    world: World,
    grants: Arc<Grants>,
    stdin: Option<Stdin>,
    mut stopped: watch::Receiver<Option<Instant>>,
) -> ExitStatus {
    let mut running = std::pin::pin!(world.run_command(&grants));
    let told = async move {
        // An error means that the container is gone: the same.
        let _told = stopped.wait_for(Option::is_some).await;
    };
    let end = tokio::select! {
        end = &mut running => end,
        () = told => match stdin {
            // The end of its input is all that can tell a guest to finish.
            Some(stdin) => {
                stdin.close();
                running.await
            }
            // Differs from Kubernetes: there are no signals in WASI. Without an input to close, a
            // command ends as a process does that does not handle SIGTERM: at once.
            None => {
                return ExitStatus { exit_code: TERMINATED, ..ExitStatus::killed("stopped") };
            }
        }
    };
    exit_status(&grants, end)
}

pub(super) fn exit_status(grants: &Grants, end: Option<CommandEnd>) -> ExitStatus {
    let denied = grants.memory.take_denied();
    let out_of_memory = |message: String| ExitStatus {
        oom_killed: true,
        ..ExitStatus::killed(format!("the memory limit was reached: {message}"))
    };
    match end {
        Some(CommandEnd::Exited(code)) if denied && code != 0 => {
            out_of_memory(format!("exit code {code}"))
        }
        Some(CommandEnd::Exited(code)) => ExitStatus::exited(code),
        Some(CommandEnd::Trapped(message)) => {
            grants.report_trap(&message);
            if denied {
                out_of_memory(message)
            } else {
                ExitStatus {
                    message,
                    ..ExitStatus::exited(ABORTED)
                }
            }
        }
        None => ExitStatus {
            message: "not a command".to_owned(),
            ..ExitStatus::exited(ABORTED)
        },
    }
}

/// The declared TCP ports of an http component, listening.
fn listeners(
    spec: &ContainerSpec,
    network: &PodNetwork,
) -> Result<Vec<Box<dyn TcpListener>>, StartError> {
    let tcp = spec
        .ports
        .iter()
        .filter(|port| port.protocol == Protocol::Tcp);
    let mut ports: Vec<u16> = tcp.map(|port| port.port).collect();
    if ports.is_empty() {
        ports.push(DEFAULT_PORT);
    }
    ports.sort_unstable();
    ports.dedup();
    let listen = |port: u16| {
        let bound = network.bind_tcp(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)));
        bound
            .and_then(|binding| binding.listen(BACKLOG))
            .map_err(|error| match error {
                NetError::AddressInUse => StartError::run(format!(
                    "port {port} is used by another container of the pod"
                )),
                error => StartError::run(format!("port {port} can't be opened: {error}")),
            })
    };
    ports.into_iter().map(listen).collect()
}

async fn serve_all(
    server: Arc<HttpServer>,
    listeners: Vec<Box<dyn TcpListener>>,
    stopped: watch::Receiver<Option<Instant>>,
) -> ExitStatus {
    let serving = listeners.into_iter().map(|listener| {
        let mut stopped = stopped.clone();
        server.clone().serve(listener, async move {
            // An error means that the container is gone: the same.
            let _told = stopped.wait_for(Option::is_some).await;
        })
    });
    match futures::future::try_join_all(serving).await {
        Ok(_) => ExitStatus::exited(0),
        Err(error) => {
            let message = format!("the port was closed: {error}");
            ExitStatus {
                message,
                ..ExitStatus::exited(1)
            }
        }
    }
}

/// Waits for the work's end, and forces it at the deadline.
async fn supervise(
    mut work: JoinHandle<ExitStatus>,
    mut stopped: watch::Receiver<Option<Instant>>,
) -> ExitStatus {
    let mut abandoned = false;
    loop {
        let deadline = *stopped.borrow_and_update();
        let overdue = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = &mut work => return match ended {
                Ok(status) => status,
                Err(error) if error.is_panic() => ExitStatus {
                    message: "the host failed while running the container".to_owned(),
                    ..ExitStatus::exited(ABORTED)
                },
                Err(_) => ExitStatus::killed("killed"),
            },
            () = overdue, if !work.is_finished() => {
                work.abort();
                // The abort takes effect at the guest's next yield.
                return match (&mut work).await {
                    Ok(status) => status,
                    Err(_) => ExitStatus::killed("killed at the end of the grace period"),
                };
            }
            changed = stopped.changed(), if !abandoned => abandoned = changed.is_err(),
        }
    }
}

#[async_trait]
impl RunningContainer for WasmContainer {
    async fn wait(&self) -> ExitStatus {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(status)) => status.clone(),
            Ok(None) | Err(_) => ExitStatus::killed("the agent is shutting down"),
        }
    }

    async fn stop(&self, grace: Duration) {
        let deadline = Instant::now() + grace;
        self.stop.send_if_modified(|current| {
            let sooner = current.is_none_or(|current| deadline < current);
            if sooner {
                *current = Some(deadline);
            }
            sooner
        });
        self.wait().await;
    }

    fn usage(&self) -> Usage {
        Usage {
            cpu_nanos: self.grants.cpu.used_nanos(),
            memory_bytes: self.grants.memory.used() as u64,
            processes: 0,
        }
    }

    fn stdin(&self) -> Option<Stdin> {
        self.stdin.clone()
    }

    fn exec(&self, command: Vec<String>, streams: ExecStreams) -> Running {
        self.commands.run(command, streams, self.exit.clone())
    }

    fn resize(&self, limits: ResourceLimits) -> Result<(), String> {
        let used = self.grants.memory.used();
        if !self.grants.memory.set_limit(limits.memory_bytes) {
            return Err(format!(
                "attempting to set its memory limit below its current usage ({used})"
            ));
        }
        self.grants.cpu.set_limit(limits.cpu_millis);
        Ok(())
    }

    fn component(&self) -> Option<Component> {
        let instances = &self.grants.instances;
        let trap = |(time, message)| {
            let time = Time(jiff::Timestamp::try_from(time).ok()?);
            Some(Trap { time, message })
        };
        Some(Component {
            instances: Instances {
                current: instances.current(),
                started: instances.started(),
            },
            last_trap: instances.last_trap().and_then(trap),
            limits: Limits {
                memory_bytes: self.grants.memory.limit(),
                cpu_millis: self.grants.cpu.limit(),
                ..self.component.limits.clone()
            },
            ..self.component.clone()
        })
    }
}

impl Drop for WasmContainer {
    fn drop(&mut self) {
        self.work.abort();
    }
}
