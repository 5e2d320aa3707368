//! Runs WebAssembly components under wasmtime.
//!
//! 1. `cache.rs` gives the component of an image, compiled once per digest and linked once.
//! 2. `grants.rs` turns a container's specification into what the component may use, and nothing
//!    else.
//! 3. `container.rs` runs it: a command (`wasi:cli/run`) from its start to its end, an http component
//!    (`wasi:http` handler) as a server that holds no instance while no request is served.
//! 4. `exec.rs` runs further commands in it.
//!
//! Guests run on threads of their own (`engine.rs`); the agent's never run guest code.
//!
//! | what happens | exit code | reason |
//! |---|---|---|
//! | returns, or exits with a code | 0, or the code | Completed, Error |
//! | traps | 134, as an abort does | Error |
//! | asks for more memory than its limit and fails | 137 | OOMKilled |
//! | is stopped | 0 if it ended by itself, 143 at once, 137 after the grace period | Error |

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
pub use guest_tls::GuestTls;
use tokio::sync::Semaphore;
use windlass_wasi_shims::http::TlsConfig;
use windlass_wasi_shims::state;

use super::{ContainerSpec, ImageKind, RunningContainer, Runtime, StartError};
use crate::logs::LogSink;
use crate::network::PodNetwork;

mod cache;
mod compiled_files;
mod compiler;
mod container;
mod core_module;
mod description;
mod digests;
mod engine;
mod exec;
mod grants;
mod guest_tls;
mod host_interfaces;
mod tools;

pub use cache::LoadError;
pub use compiled_files::CompiledLimits;
pub use compiler::{CompileError, Compiler, InProcess};
pub use engine::EngineConfig;
pub use host_interfaces::HostInterfaces;
pub use tools::{Tool, Tools};

use cache::Cache;
use container::Program;
use digests::Digests;
use engine::Guests;

/// How the runtime is set up.
#[derive(Clone, Default)]
pub struct WasmConfig {
    /// Where compiled components are kept; only the agent's user may enter it.
    pub cache: PathBuf,
    /// How much of them is kept.
    pub cache_limits: CompiledLimits,
    /// Sizes of the engine's pool.
    pub engine: EngineConfig,
    /// TLS for requests guests make; without it `https` is a configuration error for them.
    pub tls: Option<TlsConfig>,
    /// Commands that every container can be asked to run, beside its own.
    pub tools: Tools,
    /// Interfaces of the program's own, for pods that ask for them.
    pub host_interfaces: HostInterfaces,
}

/// Why the runtime can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum WasmSetupError {
    /// wasmtime refuses its settings on this machine.
    #[error("the WebAssembly engine can't be started: {0:#}")]
    Engine(wasmtime::Error),
    /// The directory of compiled components can't be used.
    #[error("the directory {} of compiled components can't be used", path.display())]
    Cache {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No threads for guests.
    #[error("the threads that run guests can't be started")]
    Threads(#[source] std::io::Error),
}

/// The runtime for WebAssembly.
pub struct WasmRuntime(Arc<Parts>);

/// What containers are made from.
struct Parts {
    engine: wasmtime::Engine,
    guests: Guests,
    cache: Cache,
    tls: Option<TlsConfig>,
    tools: Tools,
    digests: Digests,
    host: HostInterfaces,
    /// Instances that http requests may hold, all servers together; the rest is for commands.
    request_instances: Arc<Semaphore>,
}

impl WasmRuntime {
    /// Sets the engine, its threads and its cache up.
    ///
    /// # Errors
    /// [`WasmSetupError`].
    pub fn new(config: WasmConfig) -> Result<Self, WasmSetupError> {
        let engine = engine::engine(config.engine).map_err(WasmSetupError::Engine)?;
        let mut linker = state::linker(&engine).map_err(WasmSetupError::Engine)?;
        let host = config.host_interfaces;
        host.add_to(&mut linker).map_err(WasmSetupError::Engine)?;
        let compiler = Arc::new(InProcess::new(engine.clone()));
        let cache = Cache::open(
            &config.cache,
            config.cache_limits,
            linker,
            host.names(),
            compiler,
        );
        let cache = cache.map_err(|source| WasmSetupError::Cache {
            path: config.cache,
            source,
        })?;
        let guests = Guests::start(&engine, config.engine.threads);
        let guests = guests.map_err(WasmSetupError::Threads)?;
        let for_requests = (config.engine.instances / 4 * 3).max(1);
        let request_instances = Arc::new(Semaphore::new(for_requests as usize));
        Ok(Self(Arc::new(Parts {
            engine,
            guests,
            cache,
            tls: config.tls,
            tools: config.tools,
            digests: Digests::default(),
            host,
            request_instances,
        })))
    }
}

#[async_trait]
impl Runtime for WasmRuntime {
    fn handler(&self) -> &'static str {
        "wasm"
    }

    fn version(&self) -> String {
        format!("wasmtime://{WASMTIME}")
    }

    fn accepts(&self, kind: ImageKind) -> bool {
        matches!(kind, ImageKind::Component | ImageKind::CoreModule)
    }

    async fn start(
        &self,
        spec: ContainerSpec,
        network: PodNetwork,
        logs: LogSink,
    ) -> Result<Box<dyn RunningContainer>, StartError> {
        let begin = Instant::now();
        let parts = &self.0;
        let loaded = parts
            .cache
            .world(&spec.image.blob_digest, &spec.image.blob)
            .await;
        let loaded = loaded.map_err(|error| StartError::create(error_text(&error)))?;
        grants::check(parts, &spec, &loaded.world)?;
        let granted = grants::grants(parts, &spec, network.clone(), logs).await?;
        let component = description::describe(parts, &spec, &loaded, begin)?;
        let program = Program {
            spec,
            world: loaded.world,
            component,
        };
        Ok(Box::new(container::start(
            parts, program, granted, &network,
        )?))
    }
}

/// The version of wasmtime, which has no constant for it.
const WASMTIME: &str = "48";

/// An error with its causes.
fn error_text(error: &LoadError) -> String {
    let mut message = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        message = format!("{message}: {cause}");
        source = cause.source();
    }
    message
}
