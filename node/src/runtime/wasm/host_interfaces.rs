//! Interfaces that the program which hosts the agent offers to components: its own WIT, beside WASI.
//!
//! No component gets one that its pod does not ask for by annotation
//! [`HOST_INTERFACES`](windlass_api::grants::HOST_INTERFACES): what a program offers may be powerful.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use wasmtime::component::Linker;
use windlass_wasi_shims::state::{HostState, InstanceState};

/// Adds one interface to a linker, as the `add_to_linker` that `bindgen!` makes.
type Add = Arc<dyn Fn(&mut Linker<InstanceState>) -> wasmtime::Result<()> + Send + Sync>;

/// The interfaces of a host program.
#[derive(Clone, Default)]
pub struct HostInterfaces {
    all: Vec<(String, Add)>,
    state: Option<HostState>,
}

impl HostInterfaces {
    /// These, and one more: `name` is package and interface without a version, such as `example:counter/counter`.
    ///
    /// `add` is what `bindgen!` makes, or calls the linker itself. Whom it is called for is told by
    /// [`InstanceState::container`], and what it works on by [`InstanceState::host_state`].
    #[must_use]
    pub fn with(
        mut self,
        name: impl Into<String>,
        add: impl Fn(&mut Linker<InstanceState>) -> wasmtime::Result<()> + Send + Sync + 'static,
    ) -> Self {
        self.all.push((name.into(), Arc::new(add)));
        self
    }

    /// What the interfaces work on.
    #[must_use]
    pub fn with_state(mut self, state: impl Any + Send + Sync) -> Self {
        self.state = Some(Arc::new(state));
        self
    }

    pub(super) fn state(&self) -> Option<HostState> {
        self.state.clone()
    }

    /// Whether an import, such as `example:counter/counter@1.0.0`, is one of these.
    pub(super) fn include(&self, import: &str) -> bool {
        let (interface, _) = import.split_once('@').unwrap_or((import, ""));
        self.all.iter().any(|(name, _)| name == interface)
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.all.iter().map(|(name, _)| name.clone()).collect()
    }

    pub(super) fn add_to(&self, linker: &mut Linker<InstanceState>) -> wasmtime::Result<()> {
        self.all.iter().try_for_each(|(_, add)| add(linker))
    }
}

impl fmt::Debug for HostInterfaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.all.iter().map(|(name, _)| name))
            .finish()
    }
}
