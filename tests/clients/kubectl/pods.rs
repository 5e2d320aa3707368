//! kubectl against a node that runs wasm: logs, streams, and the node itself.
//!
//! Before 1.31 kubectl streams over SPDY, since then over WebSockets.

use std::time::Duration;

use tokio::net::TcpStream;
use windlass_tests::{Cluster, push};

use super::read::ask;
use super::{Kubectl, Program, programs};

/// The component of `examples/hello`.
const HELLO: &[u8] = include_bytes!("../../../examples/hello/hello.wasm");
/// How often a request is repeated that somebody attached is to see.
const ATTEMPTS: usize = 60;

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_reaches_pods_and_drains_their_node() {
    let programs = programs().await;
    if programs.is_empty() {
        return;
    }
    let cluster = Cluster::with_node().await.unwrap();
    let image = push(&cluster, "hello", HELLO).await;
    for program in programs.into_iter().filter(Program::is_thorough) {
        println!("using {}", program.path.display());
        let kubectl = Kubectl::new(&program, &cluster);
        deploy(&kubectl, &image).await;
        let pod = kubectl
            .ok("get pods -l app=hello -o jsonpath={.items[0].metadata.name}")
            .await;
        forwarded(&kubectl, &pod).await;
        logs(&kubectl, &pod).await;
        attached(&kubectl, &pod).await;
        drained(&kubectl).await;
        kubectl.each_prints(NODE).await;
        kubectl
            .ok("delete deployment,service,pdb hello --cascade=foreground")
            .await;
    }
    cluster.shutdown().await;
}

async fn deploy(kubectl: &Kubectl, image: &str) {
    let create = format!("create deployment hello --image={image} --port=8080");
    kubectl.ok(&create).await;
    let steps = [
        ("rollout status deployment/hello", "successfully rolled out"),
        (
            "wait --for=condition=Available deployment/hello",
            "deployment.apps/hello condition met",
        ),
        (
            "wait --for=condition=Ready pod -l app=hello",
            "condition met",
        ),
        (
            "expose deployment hello --port=80 --target-port=8080",
            "service/hello exposed",
        ),
        ("get pods -l app=hello -o wide", "node-1"),
        ("describe pod -l app=hello", "Started container hello"),
    ];
    kubectl.each_prints(&steps).await;
}

/// A local port leads to the pod, named itself or through its Deployment or Service.
async fn forwarded(kubectl: &Kubectl, pod: &str) {
    for line in [
        format!("port-forward pod/{pod} :8080"),
        "port-forward service/hello :80".to_owned(),
    ] {
        let mut forward = kubectl.start(&line);
        let says = forward.says("Forwarding from 127.0.0.1:").await;
        let address = says.split_whitespace().nth(2).unwrap().to_owned();
        for path in ["/", "/forwarded"] {
            let answer = ask(TcpStream::connect(&address).await.unwrap(), path).await;
            assert!(answer.starts_with("HTTP/1.1 "), "{line}: {answer}");
        }
    }
}

/// Conformance: [sig-cli] Kubectl logs logs should be able to retrieve and filter logs [Conformance]
async fn logs(kubectl: &Kubectl, pod: &str) {
    let all = kubectl.ok(&format!("logs {pod}")).await;
    assert!(all.contains("/forwarded 404"), "{all}");
    let tail = kubectl.ok(&format!("logs {pod} --tail=1")).await;
    assert_eq!(tail.lines().count(), 1, "{tail}");
    let few = kubectl.ok(&format!("logs {pod} --limit-bytes=1")).await;
    assert_eq!(few.len(), 1, "{few}");
    let stamped = kubectl
        .ok(&format!("logs {pod} --tail=1 --timestamps"))
        .await;
    let time = stamped.split(' ').next().unwrap();
    assert!(time.parse::<jiff::Timestamp>().is_ok(), "{stamped}");
    let since = kubectl.ok(&format!("logs {pod} --since=24h")).await;
    assert_eq!(since, all);
    let selected = kubectl.ok("logs -l app=hello --prefix").await;
    assert!(
        selected.contains(&format!("[pod/{pod}/hello]")),
        "{selected}"
    );
}

/// Who attaches sees what the container prints from then on.
async fn attached(kubectl: &Kubectl, pod: &str) {
    let mut attached = kubectl.start(&format!("attach {pod}"));
    let path = format!("get --raw /api/v1/namespaces/default/pods/{pod}:8080/proxy/attached");
    for _ in 0..ATTEMPTS {
        // The component has no such page, and says so in its output.
        kubectl.fails(&path, "").await;
        let seen = attached.says("/attached 404");
        if tokio::time::timeout(Duration::from_secs(1), seen)
            .await
            .is_ok()
        {
            return;
        }
    }
    panic!("nothing was seen through attach");
}

/// A budget keeps the node from being drained until it allows a disruption.
async fn drained(kubectl: &Kubectl) {
    kubectl
        .ok("create pdb hello --selector=app=hello --min-available=1")
        .await;
    let known = "wait --for=jsonpath={.status.currentHealthy}=1 pdb/hello";
    kubectl.ok(known).await;
    let said = kubectl
        .fails("drain node-1 --ignore-daemonsets --timeout=2s", "")
        .await;
    let expected = "Cannot evict pod as it would violate the pod's disruption budget.";
    assert!(said.contains(expected), "{said}");
    let steps = [
        ("get nodes", "Ready,SchedulingDisabled"),
        (
            r#"patch pdb hello --type=merge -p '{"spec":{"minAvailable":0}}'"#,
            "patched",
        ),
        (
            "wait --for=jsonpath={.status.disruptionsAllowed}=1 pdb/hello",
            "condition met",
        ),
        ("drain node-1 --ignore-daemonsets", "node/node-1 drained"),
        (
            "get pods -l app=hello -o jsonpath={.items[*].status.phase}",
            "Pending",
        ),
        ("uncordon node-1", "node/node-1 uncordoned"),
        ("rollout status deployment/hello", "successfully rolled out"),
    ];
    kubectl.each_prints(&steps).await;
}

/// What an administrator does with a node.
const NODE: &[(&str, &str)] = &[
    ("cordon node-1", "node/node-1 cordoned"),
    (
        "get node node-1 -o jsonpath={.spec.taints[0].key}",
        "node.kubernetes.io/unschedulable",
    ),
    ("uncordon node-1", "node/node-1 uncordoned"),
    (
        "taint node node-1 dedicated=x:PreferNoSchedule",
        "node/node-1 tainted",
    ),
    ("describe node node-1", "dedicated=x:PreferNoSchedule"),
    ("taint node node-1 dedicated-", "node/node-1 untainted"),
    ("label node node-1 disk=fast --overwrite", "node/node-1"),
    ("get nodes -l disk=fast -o wide", "CONTAINER-RUNTIME"),
    ("get --raw /api/v1/nodes/node-1/proxy/healthz", "ok"),
];
