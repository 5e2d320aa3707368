//! Turns components into machine code.

use std::path::Path;

use async_trait::async_trait;
use wasmtime::Engine;

/// Why a component could not be compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The file can't be read.
    #[error("the image's file can't be read")]
    Read(#[source] std::io::Error),
    /// It is not WebAssembly, or not a kind that can run.
    #[error("the image is not a valid WebAssembly component: {0:#}")]
    Invalid(wasmtime::Error),
    /// A core module that can't be made into a component.
    #[error("the core module can't be made into a component: {0}")]
    NotAdaptable(String),
    /// The compiler itself failed.
    #[error("the compiler failed: {0}")]
    Failed(String),
}

/// Compiles components for one engine.
#[async_trait]
pub trait Compiler: Send + Sync + 'static {
    /// The machine code of the component (or core module) in `wasm`, in the form
    /// `Component::deserialize` reads.
    ///
    /// # Errors
    /// [`CompileError`].
    async fn compile(&self, wasm: &Path) -> Result<Vec<u8>, CompileError>;
}

/// Compiles on a thread of this process.
pub struct InProcess(Engine);

impl InProcess {
    /// A compiler for this engine.
    #[must_use]
    pub fn new(engine: Engine) -> Self {
        Self(engine)
    }
}

#[async_trait]
impl Compiler for InProcess {
    async fn compile(&self, wasm: &Path) -> Result<Vec<u8>, CompileError> {
        let (engine, wasm) = (self.0.clone(), wasm.to_owned());
        let compile = move || {
            let bytes = std::fs::read(wasm).map_err(CompileError::Read)?;
            let component = super::core_module::into_component(bytes)?;
            engine
                .precompile_component(&component)
                .map_err(CompileError::Invalid)
        };
        match tokio::task::spawn_blocking(compile).await {
            Ok(result) => result,
            Err(error) => Err(CompileError::Failed(error.to_string())),
        }
    }
}
