//! The example as its README runs it.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

const PATIENCE: Duration = Duration::from_secs(120);

/// The program with these arguments, and a directory of its own.
fn embed(data_dir: &std::path::Path, args: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_embed"))
        .args(args)
        .arg("--data-dir")
        .arg(data_dir)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// Reads lines until each text was in one.
async fn until(child: &mut Child, texts: &[&str]) {
    let mut left = texts.to_vec();
    let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    let read = async {
        while !left.is_empty() {
            let line = lines.next_line().await.unwrap().expect("the program ended");
            left.retain(|text| !line.contains(text));
        }
    };
    if tokio::time::timeout(PATIENCE, read).await.is_err() {
        panic!("not said: {left:?}");
    }
}

#[tokio::test]
async fn pods_of_a_folder_use_the_program_they_run_in() {
    let dir = tempfile::tempdir().unwrap();
    let pods = concat!(env!("CARGO_MANIFEST_DIR"), "/pods");
    let mut child = embed(dir.path(), &[pods]);
    let not_granted = "imports example:shop/stock@1.0.0, annotation \
                       wasm.windlass.dev/host-interfaces of the pod grants none";
    until(&mut child, &["pod shopper: Succeeded", not_granted]).await;
    let pid = child.id().unwrap().to_string();
    let interrupted = Command::new("kill").args(["-INT", &pid]).status().await;
    assert!(interrupted.unwrap().success());
    let mut rest = String::new();
    let mut stdout = child.stdout.take().unwrap();
    let read = stdout.read_to_string(&mut rest);
    tokio::time::timeout(PATIENCE, read).await.unwrap().unwrap();
    assert!(child.wait().await.unwrap().success());
    let taken =
        "default/shopper/shopper took apples\n".repeat(2) + "default/shopper/shopper took pears\n";
    assert!(rest.ends_with(&taken), "{rest}");
}
