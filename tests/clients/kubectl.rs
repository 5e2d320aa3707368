//! kubectl against a cluster with a node that runs wasm.
//!
//! Uses the `kubectl` on PATH and, where they lie beside it, versioned ones (`kubectl.1.29`). Says which
//! versions it used, or that it was skipped.

use std::path::{Path, PathBuf};
use std::process::Output;

use tokio::process::Command;
use windlass_tests::Cluster;

const APP: &str = "apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: blue}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 0
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: 'registry.windlass.local/default/web:1'}]}
";

/// Every kubectl of this machine that the project supports.
fn kubectls() -> Vec<PathBuf> {
    let Some(path) = std::env::var_os("PATH") else {
        return Vec::new();
    };
    let folders = std::env::split_paths(&path);
    let Some(found) = folders
        .map(|dir| dir.join("kubectl"))
        .find(|file| file.is_file())
    else {
        return Vec::new();
    };
    let real = std::fs::canonicalize(&found).unwrap_or_else(|_| found.clone());
    let folder = real.parent().unwrap_or(Path::new("/"));
    let versioned: Vec<_> = (29..=33)
        .map(|minor| folder.join(format!("kubectl.1.{minor}")))
        .filter(|file| file.is_file())
        .collect();
    if versioned.is_empty() {
        vec![found]
    } else {
        versioned
    }
}

struct Kubectl<'a> {
    program: &'a Path,
    kubeconfig: PathBuf,
    cache: PathBuf,
}

impl Kubectl<'_> {
    async fn output(&self, args: &[&str], input: &str) -> Output {
        use tokio::io::AsyncWriteExt;
        let mut command = Command::new(self.program);
        command
            .args(args)
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .arg("--cache-dir")
            .arg(&self.cache)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).await.unwrap();
        drop(stdin);
        let output = child.wait_with_output();
        tokio::time::timeout(windlass_tests::PATIENCE, output)
            .await
            .unwrap()
            .unwrap()
    }

    /// Runs kubectl, which must succeed; returns what it printed.
    async fn ok(&self, args: &[&str]) -> String {
        self.ok_with(args, "").await
    }

    async fn ok_with(&self, args: &[&str], input: &str) -> String {
        let output = self.output(args, input).await;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{} {args:?}: {error}",
            self.program.display()
        );
        text
    }

    /// Runs kubectl, which must fail; returns its complaint.
    async fn fails(&self, args: &[&str], input: &str) -> String {
        let output = self.output(args, input).await;
        assert!(!output.status.success(), "{args:?} should have failed");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_manages_objects_without_flags() {
    let programs = kubectls();
    if programs.is_empty() {
        println!("SKIPPED: kubectl is not on PATH");
        return;
    }
    for program in &programs {
        println!("using {}", program.display());
        let cluster = Cluster::control_plane().await.unwrap();
        let cache = cluster.directory().join("cache");
        let kubectl = Kubectl {
            program,
            kubeconfig: cluster.kubeconfig().unwrap(),
            cache,
        };
        objects(&kubectl).await;
        complaints(&kubectl).await;
        cluster.shutdown().await;
    }
}

async fn objects(kubectl: &Kubectl<'_>) {
    let applied = kubectl.ok_with(&["apply", "-f", "-"], APP).await;
    assert_eq!(
        applied,
        "configmap/settings created\ndeployment.apps/web created\n"
    );
    let again = kubectl.ok_with(&["apply", "-f", "-"], APP).await;
    assert_eq!(
        again,
        "configmap/settings unchanged\ndeployment.apps/web unchanged\n"
    );
    let changed = APP.replace("blue", "red");
    let diff = kubectl.output(&["diff", "-f", "-"], &changed).await;
    assert!(
        String::from_utf8_lossy(&diff.stdout).contains("+  colour: red"),
        "{diff:?}"
    );
    let applied = kubectl.ok_with(&["apply", "-f", "-"], &changed).await;
    assert!(
        applied.contains("configmap/settings configured"),
        "{applied}"
    );
    let applied = kubectl
        .ok_with(
            &["apply", "--server-side", "-f", "-", "--force-conflicts"],
            &changed,
        )
        .await;
    assert!(applied.contains("serverside-applied"), "{applied}");
    let table = kubectl
        .ok(&["get", "deployments,configmaps", "-o", "wide"])
        .await;
    assert!(table.contains("READY") && table.contains("DATA"), "{table}");
    let colour = kubectl
        .ok(&["get", "cm", "settings", "-o", "jsonpath={.data.colour}"])
        .await;
    assert_eq!(colour, "red");
    kubectl.ok(&["label", "cm", "settings", "tier=front"]).await;
    kubectl.ok(&["annotate", "cm", "settings", "note=x"]).await;
    let listed = kubectl
        .ok(&["get", "cm", "-l", "tier=front", "-o", "name"])
        .await;
    assert_eq!(listed, "configmap/settings\n");
    kubectl
        .ok(&[
            "set",
            "image",
            "deployment/web",
            "web=registry.windlass.local/default/web:2",
        ])
        .await;
    kubectl
        .ok(&["scale", "deployment/web", "--replicas=0"])
        .await;
    let described = kubectl.ok(&["describe", "deployment", "web"]).await;
    assert!(
        described.contains("registry.windlass.local/default/web:2"),
        "{described}"
    );
    let explained = kubectl.ok(&["explain", "deployment.spec.strategy"]).await;
    assert!(explained.contains("rollingUpdate"), "{explained}");
    kubectl
        .ok(&["patch", "cm", "settings", "-p", r#"{"data":{"size":"9"}}"#])
        .await;
    let raw = kubectl.ok(&["get", "--raw", "/openapi/v3"]).await;
    assert!(raw.contains("apis/apps/v1"), "{raw}");
    let resources = kubectl.ok(&["api-resources", "-o", "name"]).await;
    assert!(resources.contains("deployments.apps"), "{resources}");
    let deleted = kubectl.ok_with(&["delete", "-f", "-"], APP).await;
    assert!(
        deleted.contains(r#"deployment.apps "web" deleted"#),
        "{deleted}"
    );
}

async fn complaints(kubectl: &Kubectl<'_>) {
    let missing = kubectl.fails(&["get", "cm", "nothing"], "").await;
    assert!(
        missing.contains(r#"Error from server (NotFound): configmaps "nothing" not found"#),
        "{missing}"
    );
    let typo = APP.replace("replicas", "replica");
    let unknown = kubectl.fails(&["apply", "-f", "-"], &typo).await;
    assert!(
        unknown.contains(r#"unknown field "spec.replica""#),
        "{unknown}"
    );
}
