//! One wasm pod with all that a pod has, and what people do with it.

use windlass_tests::{Cluster, PATIENCE, get, push};

use super::{Kubectl, newest};
use crate::built::guest;

/// An init container, a sidecar, two containers that speak over localhost, probes of all types, hooks, and volumes of
/// every type.
const POD: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: green}
---
apiVersion: v1
kind: Secret
metadata: {name: password}
stringData: {word: sesame}
---
apiVersion: v1
kind: Pod
metadata: {name: all, labels: {app: all}}
spec:
  terminationGracePeriodSeconds: 5
  initContainers:
  - name: prepare
    image: PROBE
    args: [write, /data/prepared, by the init container]
    volumeMounts: [{name: data, mountPath: /data}]
  - name: echo
    image: PROBE
    restartPolicy: Always
    args: [tcp-echo, '0.0.0.0:7', '100000']
    startupProbe: {tcpSocket: {port: 7}, periodSeconds: 1}
  containers:
  - name: web
    image: WEB
    ports: [{name: http, containerPort: 8080}]
    resources: {requests: {cpu: 10m, memory: 16Mi}, limits: {cpu: '1', memory: 64Mi}}
    readinessProbe: {httpGet: {path: /, port: http}, periodSeconds: 1}
    livenessProbe: {grpc: {port: 8080}, periodSeconds: 1}
    lifecycle:
      postStart: {httpGet: {path: /, port: http}}
      preStop: {sleep: {seconds: 1}}
    volumeMounts: &mounts
    - {name: data, mountPath: /data}
    - {name: settings, mountPath: /settings}
    - {name: password, mountPath: /password, readOnly: true}
    - {name: both, mountPath: /both}
    - {name: about, mountPath: /about}
    - {name: host, mountPath: /host}
    - {name: tools, mountPath: /tools}
  - name: shell
    image: PROBE
    args: [cat]
    stdin: true
    readinessProbe: {exec: {command: [probe, read, /data/prepared]}, periodSeconds: 1}
    lifecycle: {postStart: {exec: {command: [probe, write, /data/started, by the hook]}}}
    volumeMounts: *mounts
  volumes:
  - {name: data, emptyDir: {sizeLimit: 8Mi}}
  - {name: settings, configMap: {name: settings}}
  - {name: password, secret: {secretName: password}}
  - name: both
    projected:
      sources:
      - configMap: {name: settings}
      - secret: {name: password}
      - serviceAccountToken: {path: token}
  - name: about
    downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}
  - {name: host, hostPath: {path: HOST, type: DirectoryOrCreate}}
  - {name: tools, image: {reference: PROBE}}
"#;

/// A command in container `shell`, and what it prints.
const COMMANDS: &[(&str, &str)] = &[
    ("read /data/prepared", "by the init container"),
    ("read /data/started", "by the hook"),
    ("read /settings/colour", "green"),
    ("read /password/word", "sesame"),
    ("list /both", "colour,token,word"),
    ("read /about/labels", "app=\"all\""),
    ("read /host/note", "from the host"),
    ("tcp-ask 127.0.0.1:7 ping", "ping for 127.0.0.1"),
    ("resolve kubernetes.default", "10."),
    ("read /etc/hostname", "error: NotFound"),
];

struct Story {
    cluster: Cluster,
    kubectl: Kubectl,
    probe: String,
}

impl Story {
    /// The pod of this file, running and ready; `None` where kubectl or the guests can't be had, which is said.
    async fn begin() -> Option<Self> {
        let program = newest().await?;
        let (web, probe) = (guest("web")?, guest("probe")?);
        let cluster = Cluster::with_node().await.unwrap();
        let web = push(&cluster, "web", &std::fs::read(web).unwrap()).await;
        let probe = push(&cluster, "probe", &std::fs::read(probe).unwrap()).await;
        let host = cluster.host_directory().join("pod");
        std::fs::create_dir(&host).unwrap();
        std::fs::write(host.join("note"), "from the host").unwrap();
        let kubectl = Kubectl::new(&program, &cluster);
        let manifest = POD
            .replace("WEB", &web)
            .replace("PROBE", &probe)
            .replace("HOST", host.to_str().unwrap());
        kubectl.ok_with("apply -f -", &manifest).await;
        kubectl
            .ok("wait pod/all --for=condition=Ready --timeout=60s")
            .await;
        Some(Self {
            cluster,
            kubectl,
            probe,
        })
    }

    /// Asks again until kubectl prints this.
    async fn until(&self, line: &str, expected: &str) {
        let asked = async {
            loop {
                let output = self.kubectl.output(line, "").await;
                if String::from_utf8_lossy(&output.stdout).contains(expected) {
                    return;
                }
            }
        };
        let asked = tokio::time::timeout(PATIENCE, asked).await;
        asked.unwrap_or_else(|_| panic!("{line} does not print {expected:?}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wasm_pod_is_a_pod() {
    let Some(story) = Story::begin().await else {
        return;
    };
    let kubectl = &story.kubectl;
    for (command, expected) in COMMANDS {
        let line = format!("exec all -c shell -- probe {command}");
        let printed = match expected.starts_with("error") {
            true => kubectl.fails(&line, "").await,
            false => kubectl.ok(&line).await,
        };
        assert!(printed.contains(expected), "{command}: {printed}");
    }
    kubectl
        .each_prints(&[
            (
                "exec all -c web -- /tools/probe.wasm read /data/started",
                "by the hook",
            ),
            ("exec all -c shell -- probe list /tools", "probe.wasm"),
        ])
        .await;
    let failed = kubectl
        .fails("exec all -c shell -- probe write /tools/probe.wasm x", "")
        .await;
    assert!(failed.contains("terminated with exit code 1"), "{failed}");
    let typed = kubectl
        .ok_with("exec -i all -c shell -- probe cat", "typed")
        .await;
    assert_eq!(typed.trim_end(), "typed");
    let failed = kubectl.fails("exec all -c shell -- probe exit 3", "").await;
    assert!(failed.contains("terminated with exit code 1"), "{failed}");
    let failed = kubectl.fails("exec all -c shell -- ls", "").await;
    let expected = "exec: \"ls\": executable file not found: the container's own program is";
    assert!(failed.contains(expected), "{failed}");

    let folder = story.cluster.directory().join("cp");
    std::fs::create_dir_all(folder.join("sub")).unwrap();
    std::fs::write(folder.join("sub/large"), vec![b'x'; 3 << 20]).unwrap();
    std::fs::write(folder.join("small"), "a copy").unwrap();
    let folder = folder.to_str().unwrap();
    kubectl
        .ok(&format!("cp {folder} all:/data/copied -c web"))
        .await;
    kubectl
        .each_prints(&[
            (
                "exec all -c shell -- probe read /data/copied/small",
                "a copy",
            ),
            (
                "exec all -c shell -- probe size /data/copied/sub/large",
                "3145728",
            ),
        ])
        .await;
    kubectl
        .ok(&format!("cp all:/data/copied {folder}-back -c shell"))
        .await;
    let back = std::fs::read(format!("{folder}-back/sub/large")).unwrap();
    assert_eq!(back.len(), 3 << 20);

    let mut forward = kubectl.start("port-forward pod/all :8080");
    let line = forward.says("Forwarding from 127.0.0.1:").await;
    let port = line.split([':', ' ']).nth(3).unwrap();
    let (status, text) = get(&format!("http://127.0.0.1:{port}/file?/data/started"))
        .await
        .unwrap();
    assert_eq!((status, text.as_str()), (200, "by the hook"));

    story.until("top pod all --containers", "shell").await;
    story.cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wasm_pod_is_debugged_and_resized_while_it_runs() {
    let Some(story) = Story::begin().await else {
        return;
    };
    let kubectl = &story.kubectl;
    let debug = format!(
        "debug all --image={} -c debugger --attach=false -- probe tcp-ask 127.0.0.1:7 seen",
        story.probe
    );
    kubectl.ok(&debug).await;
    story
        .until("logs all -c debugger", "seen for 127.0.0.1")
        .await;
    story
        .until("describe pod all", "Ephemeral Containers:\n  debugger:")
        .await;

    let eat = "exec all -c shell -- probe eat 40";
    kubectl.each_prints(&[(eat, "ate 40")]).await;
    if kubectl.minor >= 32 {
        let resize = r#"patch pod all --subresource resize -p '{"spec": {"containers": [{"name": "web",
            "resources": {"requests": {"cpu": "20m"}, "limits": {"cpu": "500m", "memory": "128Mi"}}}]}}'"#;
        kubectl.ok(resize).await;
        let told = "get pod all -o jsonpath={.status.containerStatuses[?(@.name==\"web\")].resources.limits}";
        story
            .until(told, "\"cpu\":\"500m\",\"memory\":\"128Mi\"")
            .await;
    } else {
        println!(
            "SKIPPED: kubectl 1.{} knows no subresource resize",
            kubectl.minor
        );
    }
    let count = "get pod all -o jsonpath={.status.containerStatuses[*].restartCount}";
    kubectl.each_prints(&[(count, "0 0")]).await;
    kubectl.ok("delete pod all").await;
    let events = kubectl.ok("get events").await;
    for failed in ["Unhealthy", "FailedPostStartHook", "FailedPreStopHook"] {
        assert!(!events.contains(failed), "{events}");
    }
    story.cluster.shutdown().await;
}
