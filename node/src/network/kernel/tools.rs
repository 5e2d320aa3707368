//! Runs `ip` and `nft`, which own the formats of what the kernel is told.
//!
//! Each script is one transaction of `nft`, or stops at the first line that `ip` can't carry out.

use std::io;
use std::path::Path;
use std::process::{Output, Stdio};

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// A tool that did not do as told.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// It can't be run at all.
    #[error("run {program}: {source}; it comes with the package {package}")]
    Absent {
        /// Its name.
        program: &'static str,
        /// What to install.
        package: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// It failed.
    #[error("{program}: {said}")]
    Failed {
        /// Its name.
        program: &'static str,
        /// What it said.
        said: String,
    },
}

/// The tools, and the packages that they come with.
const TOOLS: [(&str, &str); 3] = [
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("nsenter", "util-linux"),
];

/// The first tool that is not on `PATH`, and its package.
pub(super) fn missing() -> Option<(&'static str, &'static str)> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |program: &str| {
        std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
    };
    TOOLS.into_iter().find(|(program, _)| !is_there(program))
}

/// Has `ip` carry out a script.
pub(super) async fn ip(script: &str) -> Result<(), ToolError> {
    let mut command = Command::new("ip");
    command.args(["-batch", "-"]);
    run(TOOLS[0], command, script).await
}

/// The same within a network namespace.
pub(super) async fn ip_within(netns: &Path, script: &str) -> Result<(), ToolError> {
    let mut command = Command::new("nsenter");
    let mut net = std::ffi::OsString::from("--net=");
    net.push(netns);
    command.arg(net).args(["ip", "-batch", "-"]);
    run(TOOLS[2], command, script).await
}

/// Has `nft` carry out a script, whole or not at all.
pub(super) async fn nft(script: &str) -> Result<(), ToolError> {
    let mut command = Command::new("nft");
    command.args(["-f", "-"]);
    run(TOOLS[1], command, script).await
}

async fn run(
    (program, package): (&'static str, &'static str),
    mut command: Command,
    script: &str,
) -> Result<(), ToolError> {
    let output = feed(&mut command, script).await;
    let output = output.map_err(|source| ToolError::Absent {
        program,
        package,
        source,
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(ToolError::Failed { program, said })
}

async fn feed(command: &mut Command, script: &str) -> io::Result<Output> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take()
        && let Err(error) = stdin.write_all(script.as_bytes()).await
        // It has ended early, and says why by itself.
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        return Err(error);
    }
    child.wait_with_output().await
}
