//! `load linux`: from creating a pod of Linux until a watch says that it is Ready, against `ctr run` of the same image on
//! the node's own containerd, and against a wasm pod of the same server.
//!
//! One of each goes before, so that images are pulled, unpacked and compiled. Then each is started one after the other.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::pods::Pods;
use crate::process;
use crate::table::{self, Latencies, millis};

/// Arguments of `load linux`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The kubeconfig of the server.
    #[arg(long, env = "KUBECONFIG")]
    kubeconfig: PathBuf,
    /// The image for Linux, by digest, as the server's registry has it; it must have `sleep`.
    #[arg(long)]
    image: String,
    /// The image of the wasm pods.
    #[arg(long)]
    wasm_image: String,
    /// The socket of the node's containerd: DATA-DIR/node/containerd/containerd.sock.
    #[arg(long)]
    containerd_socket: PathBuf,
    /// Where the pods are created.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Starts of each.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=500))]
    count: u16,
}

/// Measures and prints; what it created is deleted whatever happens.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let command = json!(["sleep", "600"]);
    let linux = json!({
        "hostNetwork": true,
        "containers": [{"name": "app", "image": args.image, "command": command}],
    });
    let wasm = json!({"containers": [{"name": "app", "image": args.wasm_image}]});
    let linux = lot(&args, linux).await?;
    let wasm = lot(&args, wasm).await?;
    let references = references(&args).await?;
    table::head()?;
    for percent in [50, 99] {
        let own = linux.percentile(percent);
        for (name, other) in [("ctr run", &references), ("wasm pod", &wasm)] {
            let other = other.percentile(percent);
            table::row(
                &format!("Linux pod create→Ready, {} pods: p{percent}", linux.count()),
                &millis(own),
                &format!("{name} {}", millis(other)),
                table::ratio(own, other),
            )?;
        }
    }
    Ok(())
}

async fn lot(args: &Args, spec: Value) -> anyhow::Result<Latencies> {
    let client = process::client(&args.kubeconfig).await?;
    let pods = Pods::watch(&args.namespace, spec, client).await?;
    let measured = async {
        pods.lot("warm", 1, 1).await?;
        pods.lot("one", args.count, 1).await
    };
    let measured = measured.await;
    pods.delete_all().await?;
    measured
}

/// How long `ctr run` takes until the container runs.
async fn references(args: &Args) -> anyhow::Result<Latencies> {
    let mut latencies = Vec::new();
    for number in 0..=args.count {
        let id = format!("load-{number}");
        let started = ctr_run(args, &id).await;
        ctr(args, &["task", "kill", "--signal", "SIGKILL", &id]).await?;
        // The task is gone a moment after it was killed.
        while ctr(args, &["task", "delete", &id]).await.is_err() {
            anyhow::ensure!(
                ctr(args, &["task", "metrics", &id]).await.is_ok(),
                "{id} stays"
            );
        }
        ctr(args, &["container", "delete", &id]).await?;
        if number > 0 {
            latencies.push(started?);
        }
    }
    Ok(Latencies::new(latencies))
}

async fn ctr_run(args: &Args, id: &str) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let words = [
        "run",
        "--detach",
        "--net-host",
        &args.image,
        id,
        "sleep",
        "600",
    ];
    ctr(args, &words).await?;
    Ok(began.elapsed())
}

async fn ctr(args: &Args, words: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("ctr")
        .arg("--address")
        .arg(&args.containerd_socket)
        .args(["--namespace", "k8s.io"])
        .args(words)
        .stdin(Stdio::null())
        .output()
        .await
        .context("run ctr")?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "ctr {}: {said}", words.join(" "));
    Ok(())
}
