//! What a store holds, and the linker that fits it.
//!
//! [`Grants`] is everything a container was given; [`InstanceState`] is one instance's use of it.
//! Both are concrete: the bindings of all interfaces are compiled once, in this crate.
//!
//! Invariant: kernel-backed `wasi:sockets` and ambient files are never linked. An import that is
//! not in [`OFFERED`](crate::world::OFFERED) is an error at link time, not a trap later.

use std::any::Any;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use wasmtime::component::{HasData, Linker, ResourceTable};
use wasmtime::{Engine, Store};
use wasmtime_wasi::cli::{StdinStream, WasiCli, WasiCliView};
use wasmtime_wasi::clocks::{WasiClocks, WasiClocksView};
use wasmtime_wasi::filesystem::WasiFilesystemCtxView;
use wasmtime_wasi::p2::bindings::{cli, clocks, random};
use wasmtime_wasi::random::WasiRandom;
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::cpu::Cpu;
use crate::fs::{self, FilesystemView, HasFiles, MAX_LISTINGS, Mounts};
use crate::http::{Outgoing, TlsConfig};
use crate::limits::{Limits, Memory};
use crate::net::VirtualNetwork;
use crate::sockets::{self, NetworkView};
use crate::stdio::{Input, Output};
use tokio::sync::Semaphore;

/// Anything of the embedder's.
pub type HostState = Arc<dyn Any + Send + Sync>;

/// Everything one container was given. Nothing else is reachable from it.
#[derive(Clone)]
pub struct Grants {
    /// The engine its instances run in; epoch interruption must be on.
    pub engine: Engine,
    /// What the embedder calls the container; for its own interfaces.
    pub container: Arc<str>,
    /// What the embedder's own interfaces work on.
    pub host_state: Option<HostState>,
    /// Arguments, the program's name first.
    pub args: Vec<String>,
    /// Environment variables.
    pub env: Vec<(String, String)>,
    /// The directory it starts in, if it asks; relative paths begin there.
    pub working_dir: Option<String>,
    /// Where standard output goes.
    pub stdout: Output,
    /// Where standard error goes, and what the host has to say of the container's instances.
    pub stderr: Output,
    /// Standard input; `None` is at its end from the start.
    pub stdin: Option<Input>,
    /// Files.
    pub mounts: Arc<Mounts>,
    /// Network.
    pub network: Arc<dyn VirtualNetwork>,
    /// TLS for outgoing `https`; without it `https` is a configuration error.
    pub tls: Option<TlsConfig>,
    /// The account of its memory.
    pub memory: Arc<Memory>,
    /// The account of its processor time.
    pub cpu: Arc<Cpu>,
    /// Its instances, counted.
    pub instances: Arc<Instances>,
}

/// Instances of one container, and how the last of them failed.
#[derive(Debug, Default)]
pub struct Instances {
    current: AtomicU64,
    started: AtomicU64,
    last_trap: Mutex<Option<(SystemTime, String)>>,
    listener: Option<TrapListener>,
}

/// Hears of every trap, with its backtrace. It is called where guests run, and must not wait.
#[derive(Clone)]
pub struct TrapListener(Arc<dyn Fn(&str) + Send + Sync>);

impl TrapListener {
    /// Calls a function.
    pub fn new(listener: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(listener))
    }
}

impl fmt::Debug for TrapListener {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("TrapListener")
    }
}

impl Instances {
    /// How many there are now.
    pub fn current(&self) -> u64 {
        self.current.load(Ordering::Relaxed)
    }

    /// How many there were.
    pub fn started(&self) -> u64 {
        self.started.load(Ordering::Relaxed)
    }

    /// None yet, with somebody who hears of their traps.
    pub fn new(listener: Option<TrapListener>) -> Self {
        Self {
            listener,
            ..Self::default()
        }
    }

    /// When an instance trapped last, and the trap with its backtrace.
    pub fn last_trap(&self) -> Option<(SystemTime, String)> {
        let last = self.last_trap.lock();
        last.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// An instance, as long as it is there.
struct Counted(Arc<Instances>);

impl Counted {
    fn new(instances: &Arc<Instances>) -> Self {
        instances.current.fetch_add(1, Ordering::Relaxed);
        instances.started.fetch_add(1, Ordering::Relaxed);
        Self(instances.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.current.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Grants {
    /// A store for a new instance.
    pub fn store(&self) -> Store<InstanceState> {
        let mut store = Store::new(&self.engine, InstanceState::new(self));
        store.limiter(|state| &mut state.limits);
        self.cpu.install(&mut store);
        store
    }

    /// Tells of an instance that trapped: on the container's standard error, its listener, and whoever asks for the last
    /// one.
    pub fn report_trap(&self, text: &str) {
        self.report(text);
        if let Some(TrapListener(listener)) = &self.instances.listener {
            listener(text);
        }
        let last = self.instances.last_trap.lock();
        *last.unwrap_or_else(PoisonError::into_inner) = Some((SystemTime::now(), text.to_owned()));
    }

    /// Writes a line about the container to its standard error.
    pub fn report(&self, text: &str) {
        if let Err(error) = self.stderr.report(text) {
            tracing::warn!(%error, text, "a container's standard error can't be written");
        }
    }
}

/// What one instance holds on the host's side.
pub struct InstanceState {
    container: Arc<str>,
    host_state: Option<HostState>,
    table: ResourceTable,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    outgoing: Outgoing,
    network: Arc<dyn VirtualNetwork>,
    mounts: Arc<Mounts>,
    open_files: usize,
    listings: Arc<Semaphore>,
    limits: Limits,
    _counted: Counted,
}

impl InstanceState {
    fn new(grants: &Grants) -> Self {
        let mut wasi = WasiCtxBuilder::new();
        wasi.args(&grants.args)
            .envs(&grants.env)
            .stdout(grants.stdout.clone())
            .stderr(grants.stderr.clone());
        if let Some(directory) = &grants.working_dir {
            wasi.initial_cwd(directory);
        }
        if let Some(stdin) = &grants.stdin {
            wasi.stdin(stdin.clone());
        } else {
            wasi.stdin(closed_input());
        }
        Self {
            container: grants.container.clone(),
            host_state: grants.host_state.clone(),
            table: ResourceTable::new(),
            wasi: wasi.build(),
            http: WasiHttpCtx::new(),
            outgoing: Outgoing::new(grants.network.clone(), grants.tls.clone()),
            network: grants.network.clone(),
            mounts: grants.mounts.clone(),
            open_files: 0,
            listings: Arc::new(Semaphore::new(MAX_LISTINGS)),
            limits: Limits::new(grants.memory.clone()),
            _counted: Counted::new(&grants.instances),
        }
    }

    /// What the embedder calls the container that this is an instance of.
    pub fn container(&self) -> &str {
        &self.container
    }

    /// What the embedder's own interfaces work on, if there is that.
    pub fn host_state<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.host_state.as_deref()?.downcast_ref()
    }

    /// The resources of the instance, for interfaces of the embedder's own that have some.
    pub fn table(&mut self) -> &mut ResourceTable {
        &mut self.table
    }

    fn sockets(&mut self) -> NetworkView<'_> {
        NetworkView {
            network: self.network.as_ref(),
            table: &mut self.table,
        }
    }
}

impl HasFiles for InstanceState {
    fn files(&mut self) -> FilesystemView<'_> {
        FilesystemView {
            host: WasiFilesystemCtxView {
                ctx: self.wasi.filesystem(),
                table: &mut self.table,
            },
            mounts: &self.mounts,
            open: &mut self.open_files,
            listings: &self.listings,
        }
    }
}

fn closed_input() -> impl StdinStream + 'static {
    tokio::io::empty()
}

impl WasiView for InstanceState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl WasiHttpView for InstanceState {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            hooks: &mut self.outgoing,
            table: &mut self.table,
            ctx: &mut self.http,
        }
    }
}

struct HasTable;

impl HasData for HasTable {
    type Data<'a> = &'a mut ResourceTable;
}

/// A linker with everything a component may be offered.
///
/// # Errors
/// Only if two interfaces clash, which is a mistake in this function.
pub fn linker(engine: &Engine) -> wasmtime::Result<Linker<InstanceState>> {
    let mut linker = Linker::new(engine);
    add_io_and_clocks(&mut linker)?;
    add_cli_and_random(&mut linker)?;
    fs::add_to_linker(&mut linker)?;
    sockets::add_to_linker(&mut linker, InstanceState::sockets)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    // 0.3 beside 0.2: other version numbers, no clash. Its sockets are not offered: wasmtime-wasi's
    // are the kernel's.
    wasmtime_wasi::p3::cli::add_to_linker(&mut linker)?;
    wasmtime_wasi::p3::clocks::add_to_linker(&mut linker)?;
    wasmtime_wasi::p3::random::add_to_linker(&mut linker)?;
    wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
    Ok(linker)
}

fn add_io_and_clocks(linker: &mut Linker<InstanceState>) -> wasmtime::Result<()> {
    use wasmtime_wasi_io::bindings::wasi::io::{error, poll, streams};
    error::add_to_linker::<InstanceState, HasTable>(linker, |state| &mut state.table)?;
    poll::add_to_linker::<InstanceState, HasTable>(linker, |state| &mut state.table)?;
    streams::add_to_linker::<InstanceState, HasTable>(linker, |state| &mut state.table)?;
    clocks::wall_clock::add_to_linker::<_, WasiClocks>(linker, InstanceState::clocks)?;
    clocks::monotonic_clock::add_to_linker::<_, WasiClocks>(linker, InstanceState::clocks)
}

fn add_cli_and_random(linker: &mut Linker<InstanceState>) -> wasmtime::Result<()> {
    type State = InstanceState;
    random::random::add_to_linker::<State, WasiRandom>(linker, |state| state.wasi.random())?;
    random::insecure::add_to_linker::<State, WasiRandom>(linker, |state| state.wasi.random())?;
    random::insecure_seed::add_to_linker::<State, WasiRandom>(linker, |state| state.wasi.random())?;
    cli::exit::add_to_linker::<_, WasiCli>(linker, State::cli)?;
    cli::environment::add_to_linker::<_, WasiCli>(linker, State::cli)?;
    cli::stdin::add_to_linker::<_, WasiCli>(linker, State::cli)?;
    cli::stdout::add_to_linker::<_, WasiCli>(linker, State::cli)?;
    cli::stderr::add_to_linker::<_, WasiCli>(linker, State::cli)?;
    cli::terminal_input::add_to_linker::<_, WasiCli>(linker, State::cli)?;
    cli::terminal_output::add_to_linker::<_, WasiCli>(linker, State::cli)?;
    cli::terminal_stdin::add_to_linker::<_, WasiCli>(linker, State::cli)?;
    cli::terminal_stdout::add_to_linker::<_, WasiCli>(linker, State::cli)?;
    cli::terminal_stderr::add_to_linker::<_, WasiCli>(linker, State::cli)
}
