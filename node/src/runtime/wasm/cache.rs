//! Compiled components, by the digest of what they were compiled from.
//!
//! ```text
//!   CACHE/<engine>/<digest>.cwasm     machine code, mapped into memory when loaded
//! ```
//!
//! 1. A component that is linked already is shared by all containers that run it.
//! 2. Else its machine code is mapped from the file; else it is compiled, at most
//!    [`COMPILATIONS`] at a time, written to a temporary file, synced and renamed.
//! 3. Whoever asks for the same digest meanwhile waits for the same work. A failure is told to all
//!    who waited, and the next who asks tries again.
//! 4. A file that can't be loaded is removed and made anew.
//! 5. Where there is too much, files go that were used longest ago (`compiled_files.rs`).
//!
//! Invariants: a file under its final name is whole; the directory belongs to the agent's user and
//! nobody else may enter it, because loading machine code is trusting it.

use std::collections::HashMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{OnceCell, Semaphore};
use wasmtime::Engine;
use wasmtime::component::{Component, Linker};
use windlass_oci::digest::Digest;
use windlass_wasi_shims::state::InstanceState;
use windlass_wasi_shims::world::{World, WorldError};

use super::compiled_files::{self, CompiledLimits};
use super::compiler::{CompileError, Compiler};

/// Compilations at a time; each uses all processors for much of its time.
const COMPILATIONS: usize = 2;

/// Linked components kept that no container uses.
const UNUSED: usize = 64;

/// Why a component can't be had.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It does not compile.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// It does not fit this host.
    #[error(transparent)]
    World(#[from] WorldError),
    /// Its machine code can't be kept or loaded.
    #[error("the compiled component can't be kept in {}", path.display())]
    Cache {
        /// The file.
        path: PathBuf,
        /// What failed.
        #[source]
        source: io::Error,
    },
}

/// The compiled components of one engine.
pub(super) struct Cache {
    root: PathBuf,
    directory: PathBuf,
    limits: CompiledLimits,
    linker: Linker<InstanceState>,
    /// Interfaces that the linker offers beside WASI.
    host: Vec<String>,
    compiler: Arc<dyn Compiler>,
    compilations: Semaphore,
    worlds: Mutex<HashMap<Digest, Arc<OnceCell<Loaded>>>>,
}

/// A component, ready to run.
#[derive(Clone)]
pub(super) struct Loaded {
    pub(super) world: World,
    /// How long compiling took, if it was not there in machine code.
    pub(super) compiling: Option<Duration>,
}

impl Cache {
    /// A cache below `root`, which is made if need be.
    pub(super) fn open(
        root: &Path,
        limits: CompiledLimits,
        linker: Linker<InstanceState>,
        host: Vec<String>,
        compiler: Arc<dyn Compiler>,
    ) -> io::Result<Self> {
        let directory = root.join(engine_key(linker.engine()));
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)?;
        fs::set_permissions(root, fs::Permissions::from_mode(0o700))?;
        remove_leftovers(&directory)?;
        compiled_files::collect(root, &limits)?;
        let (compilations, worlds) = (Semaphore::new(COMPILATIONS), Mutex::default());
        Ok(Self {
            root: root.to_owned(),
            directory,
            limits,
            linker,
            host,
            compiler,
            compilations,
            worlds,
        })
    }

    /// The component with that digest, linked; `wasm` is the file it comes from.
    ///
    /// # Errors
    /// [`LoadError`].
    pub(super) async fn world(&self, digest: &Digest, wasm: &Path) -> Result<Loaded, LoadError> {
        let cell = self.cell(digest);
        let world = cell.get_or_try_init(|| self.load(digest, wasm)).await?;
        Ok(world.clone())
    }

    /// The same, of a component that `read` reads, if it must be compiled. That blocks.
    ///
    /// # Errors
    /// [`LoadError`].
    pub(super) async fn world_of(
        &self,
        digest: &Digest,
        read: impl FnOnce() -> io::Result<Bytes> + Send + 'static,
    ) -> Result<Loaded, LoadError> {
        if let Some(loaded) = self.cell(digest).get() {
            return Ok(loaded.clone());
        }
        let (directory, expected) = (self.directory.clone(), digest.clone());
        let file = blocking(move || {
            let wasm = read()?;
            if !expected.matches(&wasm) {
                return Err(io::Error::other("it changed while it was read"));
            }
            let mut file = tempfile::Builder::new()
                .suffix(".tmp")
                .tempfile_in(directory)?;
            file.write_all(&wasm)?;
            Ok(file)
        });
        let file = file.await.map_err(|source| LoadError::Cache {
            path: self.directory.clone(),
            source,
        })?;
        self.world(digest, file.path()).await
    }

    fn cell(&self, digest: &Digest) -> Arc<OnceCell<Loaded>> {
        let mut worlds = self.worlds.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cell) = worlds.get(digest) {
            return cell.clone();
        }
        if worlds.len() >= UNUSED {
            // A container holds the world itself, a waiter holds the cell.
            worlds.retain(|_, cell| {
                Arc::strong_count(cell) > 1 || cell.get().is_some_and(|it| it.world.is_in_use())
            });
        }
        worlds.entry(digest.clone()).or_default().clone()
    }

    async fn load(&self, digest: &Digest, wasm: &Path) -> Result<Loaded, LoadError> {
        let path = self
            .directory
            .join(format!("{}.cwasm", digest.to_string().replace(':', "-")));
        let failed = |source| LoadError::Cache {
            path: path.clone(),
            source,
        };
        if let Some(component) = self.map(&path).await.map_err(failed)? {
            return self.linked(&component, None);
        }
        let permit = self.compilations.acquire().await;
        let begin = Instant::now();
        let code = self.compiler.compile(wasm).await?;
        let compiling = begin.elapsed();
        drop(permit);
        blocking({
            let path = path.clone();
            move || write(&path, &code)
        })
        .await
        .map_err(failed)?;
        let missing = || failed(io::Error::other("it can't be loaded after it was written"));
        let component = self.map(&path).await.map_err(failed)?.ok_or_else(missing)?;
        // Mapped, it may be among what goes.
        let (root, limits) = (self.root.clone(), self.limits);
        if let Err(error) = blocking(move || compiled_files::collect(&root, &limits)).await {
            tracing::warn!(%error, "compiled components are not collected");
        }
        self.linked(&component, Some(compiling))
    }

    fn linked(
        &self,
        component: &Component,
        compiling: Option<Duration>,
    ) -> Result<Loaded, LoadError> {
        let world = World::link(&self.linker, &self.host, component)?;
        Ok(Loaded { world, compiling })
    }

    /// Maps a compiled component; nothing if there is none, or none that this engine can use.
    async fn map(&self, path: &Path) -> io::Result<Option<Component>> {
        let (engine, path) = (self.linker.engine().clone(), path.to_owned());
        blocking(move || {
            if !path.exists() {
                return Ok(None);
            }
            match load_machine_code(&engine, &path) {
                Ok(component) => {
                    compiled_files::touch(&path)?;
                    Ok(Some(component))
                }
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::warn!(path = %path.display(), error, "compiling again");
                    fs::remove_file(&path)?;
                    Ok(None)
                }
            }
        })
        .await
    }
}

#[expect(
    unsafe_code,
    reason = "loading machine code is what a compilation cache does"
)]
fn load_machine_code(engine: &Engine, path: &Path) -> wasmtime::Result<Component> {
    // SAFETY: the file must be what `precompile_component` of a compatible engine wrote, and must
    // not change while it is mapped. It was written by this program (`write`), under a name that it
    // gets only when it is whole and synced, into a directory that only the agent's user may enter.
    // It is never written again under that name; removing it leaves the mapping intact. That the
    // engine is compatible is part of the directory's name and checked by wasmtime once more.
    unsafe { Component::deserialize_file(engine, path) }
}

/// Names the engine's version and settings.
fn engine_key(engine: &Engine) -> String {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// Ends of a crash between writing and renaming.
fn remove_leftovers(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "tmp") {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn write(path: &Path, code: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = fs::File::create(&temporary)?;
    file.write_all(code)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use windlass_wasi_shims::state;

    use super::super::compiler::InProcess;
    use super::*;

    /// Counts what it compiles.
    struct Counting(InProcess, Arc<AtomicUsize>);

    #[async_trait]
    impl Compiler for Counting {
        async fn compile(&self, wasm: &Path) -> Result<Vec<u8>, CompileError> {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.compile(wasm).await
        }
    }

    struct Setup {
        dir: tempfile::TempDir,
        wasm: PathBuf,
        digest: Digest,
        compiled: Arc<AtomicUsize>,
    }

    impl Setup {
        /// A component that imports and exports next to nothing.
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let bytes = wat::parse_str(
                r#"(component
                    (core module $m (func (export "run") (result i32) (i32.const 0)))
                    (core instance $i (instantiate $m))
                    (func $run (result (result)) (canon lift (core func $i "run")))
                    (instance $cli (export "run" (func $run)))
                    (export "wasi:cli/run@0.2.0" (instance $cli)))"#,
            )
            .unwrap();
            let wasm = dir.path().join("component.wasm");
            fs::write(&wasm, &bytes).unwrap();
            Self {
                dir,
                wasm,
                digest: Digest::sha256(&bytes),
                compiled: Arc::default(),
            }
        }

        fn open(&self) -> Cache {
            let engine = Engine::default();
            let linker = state::linker(&engine).unwrap();
            let compiler = Counting(InProcess::new(engine), self.compiled.clone());
            Cache::open(
                &self.dir.path().join("cache"),
                CompiledLimits::default(),
                linker,
                Vec::new(),
                Arc::new(compiler),
            )
            .unwrap()
        }

        fn compiled(&self) -> usize {
            self.compiled.load(Ordering::Relaxed)
        }
    }

    #[tokio::test]
    async fn a_digest_is_compiled_once_however_many_ask() {
        let setup = Setup::new();
        let cache = setup.open();
        let asked = (0..8).map(|_| cache.world(&setup.digest, &setup.wasm));
        for world in futures::future::join_all(asked).await {
            world.unwrap();
        }
        assert_eq!(setup.compiled(), 1);
    }

    #[tokio::test]
    async fn machine_code_outlives_the_process() {
        let setup = Setup::new();
        setup
            .open()
            .world(&setup.digest, &setup.wasm)
            .await
            .unwrap();
        setup
            .open()
            .world(&setup.digest, &setup.wasm)
            .await
            .unwrap();
        assert_eq!(setup.compiled(), 1);
    }

    #[tokio::test]
    async fn a_damaged_file_is_made_anew() {
        let setup = Setup::new();
        let cache = setup.open();
        let path = cache.directory.join(format!(
            "{}.cwasm",
            setup.digest.to_string().replace(':', "-")
        ));
        fs::write(&path, "damaged").unwrap();
        cache.world(&setup.digest, &setup.wasm).await.unwrap();
        assert_eq!(setup.compiled(), 1);
        assert!(fs::metadata(&path).unwrap().len() > 100);
    }

    #[tokio::test]
    async fn a_failure_is_not_remembered() {
        let setup = Setup::new();
        let cache = setup.open();
        let missing = setup.dir.path().join("missing.wasm");
        assert!(cache.world(&setup.digest, &missing).await.is_err());
        cache.world(&setup.digest, &setup.wasm).await.unwrap();
    }

    #[test]
    fn the_directory_is_closed_to_others_and_cleared_of_leftovers() {
        let setup = Setup::new();
        let cache = setup.open();
        let leftover = cache.directory.join("x.tmp");
        fs::write(&leftover, "half").unwrap();
        setup.open();
        assert!(!leftover.exists());
        for path in [&cache.directory, &setup.dir.path().join("cache")] {
            assert_eq!(
                fs::metadata(path).unwrap().permissions().mode() & 0o777,
                0o700
            );
        }
    }
}
