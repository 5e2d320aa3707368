//! The network of containers of Linux: names, Services, policies, wasm pods beside them, and the machine itself.
//!
//! The machine is a network namespace that each test makes: nothing of the real one's tables is touched.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use k8s_openapi::api::core::v1::Pod;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::{Value, json};
use windlass_node::network::{
    KernelConfig, KernelNetwork, Network, NetworkConfig, check_kernel, install_plugin,
};
use windlass_tests::{Cluster, get, push};

use crate::{World, container, is_running};

/// The component of `examples/hello`.
const HELLO: &[u8] = include_bytes!("../../examples/hello/hello.wasm");

/// What the node's agent needs for its pods' network.
pub(crate) async fn join(
    cluster: &Cluster,
    directory: &Path,
    [bin, conf]: [PathBuf; 2],
) -> (Network, KernelNetwork) {
    let network = Network::new(NetworkConfig {
        cluster_cidr: Some("10.128.0.0/10".parse().unwrap()),
        api_server: Some(cluster.plane().address()),
        ..NetworkConfig::default()
    });
    let config = KernelConfig {
        services: Some("10.96.0.0/12".parse().unwrap()),
        directory: directory.join("network"),
    };
    let socket = config.socket();
    // The agent before may not quite have ended.
    while std::fs::read_to_string("/proc/thread-self/net/dev")
        .unwrap()
        .contains("windlass")
    {
        tokio::task::yield_now().await;
    }
    let kernel = network.open_kernel(config).await.unwrap();
    let plugin = Path::new(env!("CARGO_BIN_EXE_network-plugin"));
    install_plugin(plugin, &bin, &conf, &socket).unwrap();
    (network, kernel)
}

/// A network namespace, which is gone with this value.
struct Namespace(String);

impl Namespace {
    fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("wltest-{}-{number}-linux", std::process::id());
        let namespace = Self(name);
        namespace.ip(&["netns", "add", &namespace.0]);
        namespace.ip(&["-n", &namespace.0, "link", "set", "lo", "up"]);
        namespace
    }

    fn ip(&self, arguments: &[&str]) {
        let output = Command::new("ip").args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let removed = Command::new("ip").args(["netns", "del", &self.0]).status();
        if !std::thread::panicking() {
            assert!(removed.unwrap().success(), "{} stays", self.0);
        }
    }
}

/// Runs a test on a machine of its own, with a world whose pods have a network.
fn on_a_machine<F: Future<Output = ()>>(test: impl FnOnce(World) -> F + Send) {
    if let Err(missing) = check_kernel() {
        println!("SKIPPED: {missing}");
        return;
    }
    if let Some(missing) = crate::machine::missing() {
        println!("SKIPPED: {missing}");
        return;
    }
    let machine = Namespace::new();
    let path = Path::new("/run/netns").join(&machine.0);
    let enter = || {
        let namespace = File::open(&path).unwrap();
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        // Its threads, and the programs that they start, are born there.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            if let Some(world) = World::with_network().await {
                test(world).await;
            }
        });
    };
    std::thread::scope(|scope| scope.spawn(enter).join()).unwrap();
}

/// A pod of Linux in the pods' network.
fn linux(world: &World, name: &str, script: &str) -> Value {
    let mut pod = world.script(name, script);
    pod["metadata"]["labels"] = json!({ "app": name });
    let spec = pod["spec"].as_object_mut().unwrap();
    spec.remove("hostNetwork");
    pod
}

/// One that serves a page on port 8080.
fn server(world: &World, name: &str) -> Value {
    let script = format!(
        "mkdir /tmp/w; echo from {name} > /tmp/w/index.html; exec httpd -f -p 8080 -h /tmp/w"
    );
    let mut pod = linux(world, name, &script);
    let container = &mut pod["spec"]["containers"][0];
    container["ports"] = json!([{ "name": "http", "containerPort": 8080 }]);
    container["readinessProbe"] =
        json!({ "httpGet": { "path": "/", "port": "http" }, "periodSeconds": 1 });
    pod
}

async fn service(world: &World, name: &str, target: &str) {
    let object = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": name },
        "spec": {
            "selector": { "app": target },
            "ports": [{ "port": 80, "targetPort": "http" }],
        },
    });
    let services = "/api/v1/namespaces/default/services";
    world.cluster.create(services, &object).await.unwrap();
}

async fn until_ready(world: &World, name: &str) -> Pod {
    let ready = |pod: &Pod| is_running(pod) && container(pod).ready;
    world.until(name, "ready", ready).await
}

fn address(pod: &Pod) -> String {
    pod.status.as_ref().unwrap().pod_ip.clone().unwrap()
}

/// The page of a server at an address or a name, to a client in a pod, once there is one.
///
/// A static busybox asks for names with `nslookup` only: its other programs would load libraries for that.
async fn page(world: &World, pod: &str, host: &str, port: u16) -> String {
    let ask = r#"
        at() { nslookup $1 | awk '/^Address/ { last = $NF } END { print last }'; }
        case $0 in *[a-z]*) host=$(at $0) ;; *) host=$0 ;; esac
        ask() { printf 'GET / HTTP/1.0\r\nHost: test\r\n\r\n'; sleep 1; }
        until ask | nc -w 2 $host $1; do sleep 0.1; done
    "#;
    let port = port.to_string();
    let (code, text) = world
        .exec(pod, &["timeout", "30", "sh", "-c", ask, host, &port], "")
        .await;
    assert_eq!(code, 0, "{host} {port}: {text}");
    text
}

/// Whether a client in a pod can connect; no if it is refused.
async fn connects(world: &World, pod: &str, host: &str, port: u16) -> bool {
    let port = port.to_string();
    let ask = [
        "timeout",
        "5",
        "sh",
        "-c",
        "nc -w 3 $0 $1 </dev/null",
        host,
        &port,
    ];
    world.exec(pod, &ask, "").await.0 == 0
}

/// Conformance: Networking Granular Checks: Pods should function for intra-pod communication: http
/// Conformance: Services should serve a basic endpoint from pods
/// Conformance: DNS should provide DNS for services
#[test]
fn pods_of_linux_and_of_wasm_reach_each_other_by_address_and_by_name() {
    on_a_machine(|world| async move {
        let hello = push(&world.cluster, "hello", HELLO).await;
        let wasm = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": "wasm", "labels": { "app": "wasm" } },
            "spec": { "terminationGracePeriodSeconds": 1, "containers": [{
                "name": "c", "image": hello, "ports": [{ "name": "http", "containerPort": 8080 }],
                "env": [{ "name": "POD_NAME", "value": "wasm" }],
            }] },
        });
        world.create(&wasm).await;
        world.create(&server(&world, "server")).await;
        world.create(&linux(&world, "client", "sleep 1000")).await;
        service(&world, "server", "server").await;
        service(&world, "wasm", "wasm").await;
        let server = until_ready(&world, "server").await;
        world.until_running("client").await;
        let wasm = world.until_running("wasm").await;
        // By address, and by the Service's name.
        for (host, port) in [
            (address(&server).as_str(), 8080),
            ("server.default.svc.cluster.local", 80),
        ] {
            let text = page(&world, "client", host, port).await;
            assert!(text.ends_with("from server\n"), "{text}");
        }
        for (host, port) in [
            (address(&wasm).as_str(), 8080),
            ("wasm.default.svc.cluster.local", 80),
        ] {
            let text = page(&world, "client", host, port).await;
            assert!(text.contains("Hello from wasm"), "{text}");
        }
        // The machine's own programs.
        let url = format!("http://{}:8080/", address(&server));
        assert_eq!(get(&url).await.unwrap().1, "from server\n");
        // A port that is not open is refused.
        assert!(connects(&world, "client", &address(&server), 8080).await);
        assert!(!connects(&world, "client", &address(&server), 8081).await);
        // The API is a Service like others.
        assert!(connects(&world, "client", "10.96.0.1", 443).await);
        let (_, interfaces) = world.exec("client", &["ip", "-o", "addr"], "").await;
        let own = address(&world.until_running("client").await);
        assert!(interfaces.contains(&format!("{own}/32")), "{interfaces}");
        for name in ["client", "server", "wasm"] {
            world.delete(name).await;
        }
        // What is theirs goes once they are gone.
        let no_links = async {
            let links = || std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
            while links().contains("wlp") {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(windlass_tests::PATIENCE, no_links)
            .await
            .expect("no link is left");
        world.end().await;
    });
}

#[test]
fn policies_hold_and_containers_of_both_kinds_share_a_pod() {
    on_a_machine(|world| async move {
        let hello = push(&world.cluster, "hello", HELLO).await;
        let mut mixed = linux(
            &world,
            "mixed",
            r"ask() { printf 'GET / HTTP/1.0\r\nHost: test\r\n\r\n'; sleep 1; }
              until ask | nc -w 2 127.0.0.1 8080; do sleep 0.1; done; echo; sleep 1000",
        );
        let containers = mixed["spec"]["containers"].as_array_mut().unwrap();
        containers.push(json!({
            "name": "wasm", "image": hello, "ports": [{ "name": "http", "containerPort": 8080 }],
            "env": [{ "name": "POD_NAME", "value": "beside you" }],
        }));
        world.create(&mixed).await;
        world.create(&linux(&world, "client", "sleep 1000")).await;
        let mixed = world.until_running("mixed").await;
        world.until_running("client").await;
        let params = kube::api::LogParams {
            container: Some("c".to_owned()),
            ..kube::api::LogParams::default()
        };
        let own_page = async {
            loop {
                let text = world.pods().logs("mixed", &params).await.unwrap();
                if text.contains("beside you") {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(windlass_tests::PATIENCE, own_page)
            .await
            .expect("the wasm container is at loopback of the other");
        let to = address(&mixed);
        assert!(
            page(&world, "client", &to, 8080)
                .await
                .contains("beside you")
        );
        let policy = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": { "name": "alone" },
            "spec": { "podSelector": { "matchLabels": { "app": "client" } }, "policyTypes": ["Egress"] },
        });
        let policies = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies";
        world.cluster.create(policies, &policy).await.unwrap();
        let until_refused = "while nc -w 2 $0 8080 </dev/null; do sleep 0.1; done; echo refused";
        let (_, text) = world
            .exec(
                "client",
                &["timeout", "30", "sh", "-c", until_refused, &to],
                "",
            )
            .await;
        assert_eq!(text, "refused\n");
        for name in ["client", "mixed"] {
            world.delete(name).await;
        }
        world.end().await;
    });
}

#[test]
fn a_pod_keeps_its_address_and_its_peers_while_no_agent_runs() {
    on_a_machine(|mut world| async move {
        world.create(&server(&world, "server")).await;
        let count = "i=0; while true; do echo $i; i=$((i+1)); sleep 0.1; done | nc $SERVER 9000";
        // Its own side stays open: nobody ends the connection.
        let sink = "sleep 1000 | nc -l -p 9000 > /tmp/got";
        world.create(&linux(&world, "sink", sink)).await;
        let sink = world.until_running("sink").await;
        let mut client = linux(&world, "client", count);
        client["spec"]["containers"][0]["env"] =
            json!([{ "name": "SERVER", "value": address(&sink) }]);
        client["spec"]["restartPolicy"] = json!("Always");
        world.create(&client).await;
        let before = until_ready(&world, "server").await;
        let got = "until [ $(wc -l < /tmp/got) -gt $0 ]; do sleep 0.1; done; wc -l < /tmp/got";
        let (_, seen) = world.exec("sink", &["sh", "-c", got, "3"], "").await;
        world.cluster.kill_node(crate::NODE);
        world.start_node().await;
        world.exec_eventually("sink", &["true"]).await;
        let more = format!("{}", seen.trim().parse::<u32>().unwrap() + 10);
        let (code, _) = world.exec("sink", &["sh", "-c", got, &more], "").await;
        assert_eq!(code, 0, "the connection went on");
        let after = until_ready(&world, "server").await;
        assert_eq!(address(&before), address(&after));
        let text = page(&world, "client", &address(&after), 8080).await;
        assert!(text.ends_with("from server\n"), "{text}");
        for name in ["client", "sink", "server"] {
            world.delete(name).await;
        }
        world.end().await;
    });
}
