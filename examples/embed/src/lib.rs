//! A program that hosts the node agent and lets pods use a part of itself: its stock.
//!
//! ```text
//!   pod's component ── example:shop/stock ──> Stock (this program)
//!        └── WASI, limits, volumes, network ──> windlass_node
//! ```

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use windlass_node::runtime::wasm::{HostInterfaces, WasmConfig, WasmRuntime};
use windlass_wasi_shims::state::InstanceState;

mod bindings {
    wasmtime::component::bindgen!({ path: "wit", world: "shopper" });
}

use bindings::example::shop::stock;

/// What is on the shelves, and who took what.
#[derive(Clone, Debug, Default)]
pub struct Stock(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    shelves: BTreeMap<String, u32>,
    taken: Vec<(String, String)>,
}

impl Stock {
    /// A stock of these.
    pub fn of<const N: usize>(items: [(&str, u32); N]) -> Self {
        let shelves = items.map(|(item, count)| (item.to_owned(), count)).into();
        let taken = Vec::new();
        Self(Arc::new(Mutex::new(State { shelves, taken })))
    }

    /// Who took what so far: the container, as `namespace/pod/container`, and the item.
    pub fn taken(&self) -> Vec<(String, String)> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .taken
            .clone()
    }

    fn take(&self, container: &str, item: &str) -> Result<u32, String> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = state
            .shelves
            .get_mut(item)
            .ok_or("there is no such shelf")?;
        *count = count.checked_sub(1).ok_or("sold out")?;
        let left = *count;
        state.taken.push((container.to_owned(), item.to_owned()));
        Ok(left)
    }
}

/// One instance's view of the stock.
struct Customer<'a>(&'a InstanceState);

/// Says that [`Customer`] is what the interface is called on.
struct OfCustomer;

impl wasmtime::component::HasData for OfCustomer {
    type Data<'a> = Customer<'a>;
}

impl stock::Host for Customer<'_> {
    fn take(&mut self, item: String) -> Result<u32, String> {
        let stock: &Stock = self.0.host_state().ok_or("the shop is closed")?;
        stock.take(self.0.container(), &item)
    }
}

/// The runtime for WebAssembly with the stock as an interface beside WASI. Blocks for a moment.
///
/// # Errors
/// The directory of compiled components can't be used, or the engine not be started.
pub fn runtime(stock: &Stock, cache: &Path) -> anyhow::Result<WasmRuntime> {
    let host_interfaces = HostInterfaces::default()
        .with("example:shop/stock", |linker| {
            stock::add_to_linker::<InstanceState, OfCustomer>(linker, |state| Customer(state))
        })
        .with_state(stock.clone());
    Ok(WasmRuntime::new(WasmConfig {
        cache: cache.to_owned(),
        host_interfaces,
        ..WasmConfig::default()
    })?)
}
