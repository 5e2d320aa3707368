//! Sockets of WASI 0.3: one guest's checks, on a pod's network and on wasmtime's own, have to say the same.

use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime::{Engine, Store};
use wasmtime_wasi::p2::pipe::MemoryOutputPipe;
use wasmtime_wasi::p3::bindings::Command;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::*;

/// The checks, and what they say.
const CHECKS: &[(&str, &str)] = &[
    ("bind twice", "ErrorCode::InvalidState"),
    ("bind what is taken", "ErrorCode::AddressInUse"),
    ("bind another family", "ErrorCode::InvalidArgument"),
    ("bind a stranger's", "ErrorCode::AddressNotBindable"),
    ("bind a group's", "ErrorCode::InvalidArgument"),
    (
        "addresses of nothing",
        "ErrorCode::InvalidState ErrorCode::InvalidState",
    ),
    (
        "connect to nobody",
        "ErrorCode::ConnectionRefused ErrorCode::InvalidState",
    ),
    ("connect to port 0", "ErrorCode::InvalidArgument"),
    ("connect to all", "ErrorCode::InvalidArgument"),
    ("connect another family", "ErrorCode::InvalidArgument"),
    ("connect twice", "ErrorCode::InvalidState"),
    ("echo", "PING"),
    ("much", "true"),
    ("addresses of a connection", "true"),
    ("send twice", "ErrorCode::InvalidState"),
    ("receive twice", "ErrorCode::InvalidState"),
    ("send unconnected", "ErrorCode::InvalidState"),
    ("receive unconnected", "ErrorCode::InvalidState"),
    ("listen twice", "ErrorCode::InvalidState true"),
    ("listen connected", "ErrorCode::InvalidState"),
    ("listen unbound", "true"),
    (
        "options of nothing",
        "ErrorCode::InvalidArgument ErrorCode::InvalidArgument ErrorCode::InvalidArgument \
         ErrorCode::InvalidArgument ErrorCode::InvalidArgument",
    ),
    ("options", "true 3 42"),
    ("datagrams", "PING"),
    ("datagrams of a peer", "peer ErrorCode::InvalidArgument"),
    ("a datagram to nobody", "ErrorCode::InvalidArgument"),
    ("a datagram to port 0", "ErrorCode::InvalidArgument"),
    ("a datagram too large", "ErrorCode::DatagramTooLarge"),
    ("receive unbound", "ErrorCode::InvalidState"),
    ("disconnect unconnected", "ErrorCode::InvalidState"),
    ("resolve an address", "[IpAddress::Ipv4((127, 0, 0, 1))]"),
    ("resolve no name", "ErrorCode::InvalidArgument"),
];

struct State {
    wasi: WasiCtx,
    table: ResourceTable,
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

/// wasmtime with the sockets of the kernel; the checks stay on its loopback.
struct Plain {
    engine: Engine,
    component: Component,
    linker: Linker<State>,
}

impl Plain {
    fn new(file: &std::path::Path) -> Self {
        let mut config = wasmtime::Config::new();
        config.wasm_component_model_async(true);
        let engine = Engine::new(&config).unwrap();
        let component = Component::from_file(&engine, file).unwrap();
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker).unwrap();
        wasmtime_wasi::p3::add_to_linker(&mut linker).unwrap();
        Self {
            engine,
            component,
            linker,
        }
    }

    async fn says(&self, check: &str) -> String {
        let output = MemoryOutputPipe::new(1 << 20);
        let wasi = WasiCtx::builder()
            .args(&["sockets3", check])
            .stdout(output.clone())
            .inherit_network()
            .allow_tcp(true)
            .allow_udp(true)
            .allow_ip_name_lookup(true)
            .build();
        let state = State {
            wasi,
            table: ResourceTable::new(),
        };
        let mut store = Store::new(&self.engine, state);
        let command = Command::instantiate_async(&mut store, &self.component, &self.linker);
        let command = command.await.unwrap();
        let run = store.run_concurrent(async |store| command.wasi_cli_run().call_run(store).await);
        run.await.unwrap().unwrap().unwrap();
        drop(store);
        let said = String::from_utf8(output.contents().to_vec()).unwrap();
        said.trim_end().to_owned()
    }
}

#[tokio::test]
async fn a_pods_sockets_do_as_wasmtimes() {
    let file = some!(built::guest("sockets3"));
    let (node, plain) = (Node::new(), Plain::new(&file));
    let mut differ = Vec::new();
    for (check, wanted) in CHECKS {
        let mut spec = spec(file.clone(), ImageKind::Component);
        spec.args = vec!["sockets3".to_owned(), (*check).to_owned()];
        let container = node.start(&spec, &node.pod()).await.unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(60), container.wait()).await;
        let ended = ended.unwrap_or_else(|_| panic!("{check}: it hangs"));
        assert_eq!(ended, ExitStatus::exited(0), "{check}");
        let said = node.printed(&spec);
        let on_plain = tokio::time::timeout(Duration::from_secs(60), plain.says(check)).await;
        let on_plain = on_plain.unwrap_or_else(|_| panic!("{check}: it hangs on wasmtime"));
        if (said.as_str(), on_plain.as_str()) != (*wanted, *wanted) {
            differ.push(format!(
                "{check}: {said}, on wasmtime {on_plain}, not {wanted}"
            ));
        }
    }
    assert!(differ.is_empty(), "{differ:#?}");
}
