//! The engine all guests of a node share, and the threads they run on.
//!
//! - Pooling allocation with memory kept resident and `PAGEMAP_SCAN` resets makes a fresh instance cost
//!   microseconds. It reserves address space, not memory; where that is limited (`ulimit -v`) the
//!   engine falls back to allocation on demand and says so.
//! - Guests run on a tokio runtime of their own, which looks for I/O and timers after every task: a
//!   guest's turn may last a whole epoch tick, and tokio's usual 61 turns would starve the others.
//!   Nothing of the agent runs there.

use std::io;

use tokio::runtime::{Builder, Handle, Runtime};
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig,
    WasmBacktraceDetails,
};
use windlass_wasi_shims::cpu::Ticker;

/// Sizes of the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineConfig {
    /// Instances there may be at a time on this node.
    pub instances: u32,
    /// Bytes of a linear memory that stay resident when its slot is reused.
    pub keep_resident: usize,
    /// Threads that run guests; 0 is one per processor.
    pub threads: usize,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            instances: 2048,
            keep_resident: 256 * 1024,
            threads: 0,
        }
    }
}

/// Core instances of one component: a program, its adapters and the glue between them.
const CORE_INSTANCES: u32 = 5;

/// Memories and tables of one component on average; a few use more.
const MEMORIES: u32 = 2;

/// Bytes of a guest's stack that stay resident when its slot is reused.
const STACK_KEEP_RESIDENT: usize = 64 * 1024;

/// Bytes of a table that stay resident when its slot is reused.
const TABLE_KEEP_RESIDENT: usize = 16 * 1024;

/// Makes the engine, with a pool if one can be had.
pub(super) fn engine(config: EngineConfig) -> wasmtime::Result<Engine> {
    match Engine::new(&settings(Some(config))) {
        Ok(engine) => Ok(engine),
        Err(error) => {
            tracing::warn!(
                error = format!("{error:#}"),
                "no pool of instances can be reserved; instances are allocated one by one"
            );
            Engine::new(&settings(None))
        }
    }
}

/// The settings. Everything that changes compiled code belongs to the key of the cache, which
/// wasmtime computes itself.
fn settings(pool: Option<EngineConfig>) -> Config {
    let mut config = Config::new();
    config.epoch_interruption(true);
    // Backtraces name lines of the source where a component has them; what does not costs nothing.
    config.wasm_backtrace_details(WasmBacktraceDetails::Enable);
    if let Some(pool) = pool {
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pooling(pool)));
    }
    config
}

fn pooling(config: EngineConfig) -> PoolingAllocationConfig {
    let instances = config.instances;
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(CORE_INSTANCES))
        .total_memories(instances.saturating_mul(MEMORIES))
        .total_tables(instances.saturating_mul(MEMORIES))
        .total_stacks(instances)
        .max_component_instance_size(1 << 20)
        .max_core_instance_size(1 << 20)
        .table_elements(100_000)
        .linear_memory_keep_resident(config.keep_resident)
        .table_keep_resident(TABLE_KEEP_RESIDENT)
        .async_stack_keep_resident(STACK_KEEP_RESIDENT)
        .pagemap_scan(Enabled::Auto);
    pool
}

/// The threads that run guests, and the one that makes them take turns.
pub(super) struct Guests {
    runtime: Option<Runtime>,
    handle: Handle,
    _ticker: Ticker,
}

impl Guests {
    pub(super) fn start(engine: &Engine, threads: usize) -> io::Result<Self> {
        let mut builder = Builder::new_multi_thread();
        builder.thread_name("guest").event_interval(1).enable_all();
        if threads > 0 {
            builder.worker_threads(threads);
        }
        let runtime = builder.build()?;
        let handle = runtime.handle().clone();
        Ok(Self {
            runtime: Some(runtime),
            handle,
            _ticker: Ticker::start(engine.weak())?,
        })
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Guests {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Waiting for guests here would block whoever drops the agent.
            runtime.shutdown_background();
        }
    }
}
