//! Client libraries of other languages: each runs the script beside this file.
//!
//! A library is installed once, in the version named here, below the target directory. Where the
//! interpreter or the package registry cannot be had, the test says so and passes.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use windlass_tests::Cluster;

const PYTHON_CLIENT: &str = "kubernetes==35.0.0";
const NODE_CLIENT: &str = "@kubernetes/client-node@1.4.0";
/// A bound for a registry that does not answer, and for a script that hangs.
const BOUND: Duration = Duration::from_secs(180);

/// Runs a program to its end; what it said if it failed.
async fn run(command: &mut Command) -> Result<String, String> {
    let command = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let output = tokio::time::timeout(BOUND, command.output());
    let output = output.await.map_err(|_| "it takes too long".to_owned())?;
    let output = output.map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stdout) + &text(&output.stderr))
    }
}

fn directory(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("clients")
        .join(name)
}

/// The Python that has the client, installed when it is not.
async fn python() -> Result<PathBuf, String> {
    let environment = directory("python-client");
    let python = environment.join("bin/python");
    let pip = |arguments: &[&str]| {
        let mut command = Command::new(&python);
        command
            .args(["-m", "pip", "--disable-pip-version-check"])
            .args(arguments);
        command
    };
    let installed = run(&mut pip(&["freeze"])).await;
    if installed.is_ok_and(|list| list.lines().any(|line| line == PYTHON_CLIENT)) {
        return Ok(python);
    }
    run(Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(&environment))
    .await?;
    run(&mut pip(&["install", "--quiet", PYTHON_CLIENT])).await?;
    Ok(python)
}

/// The directory in which Node finds the client, installed when it is not. A module is looked up from
/// where the script lies, which is therefore copied there.
async fn node() -> Result<PathBuf, String> {
    let directory = directory("node-client");
    std::fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
    let npm = |arguments: &[&str]| {
        let mut command = Command::new("npm");
        command
            .current_dir(&directory)
            .args(arguments)
            .arg(NODE_CLIENT);
        command
    };
    if run(&mut npm(&["ls"])).await.is_err() {
        let quietly = [
            "install",
            "--prefix",
            ".",
            "--no-audit",
            "--no-fund",
            "--silent",
        ];
        run(&mut npm(&quietly)).await?;
    }
    std::fs::copy(script("node.mjs"), directory.join("node.mjs"))
        .map_err(|error| error.to_string())?;
    Ok(directory)
}

/// Runs a script against a new cluster, which it has to pass.
async fn passes(command: &mut Command) {
    let cluster = Cluster::control_plane().await.unwrap();
    let output = run(command.env("KUBECONFIG", cluster.kubeconfig().unwrap())).await;
    assert_eq!(output.as_deref().map(str::trim), Ok("passed"), "{output:?}");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_client_works_statically_and_dynamically() {
    match python().await {
        Ok(python) => passes(Command::new(python).arg(script("python.py"))).await,
        Err(reason) => println!("SKIPPED: {PYTHON_CLIENT} cannot be installed: {reason}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_javascript_client_works() {
    match node().await {
        Ok(directory) => passes(Command::new("node").arg(directory.join("node.mjs"))).await,
        Err(reason) => println!("SKIPPED: {NODE_CLIENT} cannot be installed: {reason}"),
    }
}
