//! containerd itself: one of the agent's own, or somebody else's at a socket; whether it answers, and its restart.
//!
//! ```text
//!   DATA/containerd/containerd.sock   where it listens
//!   DATA/containerd/config.toml       written at each start
//!   DATA/containerd/root, state       images, snapshots; what runs
//!   DATA/containerd/cni/bin, cni/conf the network's plugin, for whoever installs it there
//! ```
//!
//! 0. One of our own is not started before a container needs it: a node of wasm pods does not pay for it.
//! 1. Every few seconds it is asked for its version, as by kubelet. What was found is the runtime's state.
//! 2. One of our own that does not answer, and does not run, is started. One that an earlier process of the agent left
//!    running answers, and is used.
//! 3. Containers do not mind: each pod has a shim of its own, which lives on.
//! 4. When the agent stops, what it started is told to end.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::client::Client;
use super::cri::Cri;
use super::pause;
use crate::runtime::RuntimeState;

/// How often it is asked whether it is there.
const LOOK: Duration = Duration::from_secs(5);
/// How often while it is expected to come up.
const LOOK_STARTING: Duration = Duration::from_millis(50);
/// How long it may take to come up.
const START: Duration = Duration::from_secs(60);
/// How long is waited for one that may not come up at all.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// How long it may take to end.
const END: Duration = Duration::from_secs(10);
/// The longest path of a unix socket.
const MAX_SOCKET: usize = 107;
/// The magic number of overlay file systems, which can't be stacked at will. Source: statfs(2).
const OVERLAYFS: i64 = 0x794c_7630;
/// Number of CAP_SYS_RESOURCE, without which a process can't be made less likely to be killed than its parent.
const SYS_RESOURCE: u32 = 24;

/// A containerd that the agent runs.
#[derive(Clone, Debug)]
pub(super) struct Private {
    directory: PathBuf,
    program: PathBuf,
}

impl Private {
    /// One whose files are below a directory.
    ///
    /// # Errors
    /// Why there can be none, in words for the user.
    pub(super) fn find(directory: PathBuf) -> Result<Self, String> {
        let socket = directory.join("containerd.sock");
        if socket.as_os_str().len() > MAX_SOCKET {
            return Err(format!(
                "{} is longer than the {MAX_SOCKET} bytes that the path of a socket may have; choose a shorter data directory",
                socket.display()
            ));
        }
        for needed in ["runc", "mount", "umount"] {
            find_program(needed).ok_or_else(|| format!("{needed} is not installed"))?;
        }
        let program = find_program("containerd").ok_or("containerd is not installed")?;
        Ok(Self { directory, program })
    }

    /// Where it listens.
    pub(super) fn socket(&self) -> PathBuf {
        self.directory.join("containerd.sock")
    }

    /// Its name and version, while it does not run; a program that does not tell is called by its name alone.
    pub(super) async fn version(&self) -> String {
        let output = Command::new(&self.program).arg("--version").output().await;
        let text = output.map(|output| output.stdout).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let version = text.split_whitespace().nth(2);
        version.map_or_else(
            || "containerd".to_owned(),
            |version| format!("containerd://{version}"),
        )
    }

    /// Whether containers that an earlier process of the agent started may still run.
    pub(super) fn has_run(&self) -> bool {
        let tasks = self
            .directory
            .join("state/io.containerd.runtime.v2.task/k8s.io");
        std::fs::read_dir(tasks).is_ok_and(|mut entries| entries.next().is_some())
    }

    /// Starts it; it may take a moment until it answers.
    async fn start(&self) -> io::Result<Child> {
        for directory in ["root", "state", "cni/bin", "cni/conf"] {
            tokio::fs::create_dir_all(self.directory.join(directory)).await?;
        }
        let config = self.directory.join("config.toml");
        tokio::fs::write(&config, self.config()).await?;
        let log = std::fs::File::create(self.directory.join("containerd.log"))?;
        let mut command = Command::new(&self.program);
        command
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // A terminal's Ctrl-C is for the agent, which still needs it to end its pods.
            .process_group(0)
            .kill_on_drop(true);
        let child = command.spawn()?;
        if let Some(pid) = child.id() {
            tokio::fs::write(self.pid_file(), pid.to_string()).await?;
        }
        Ok(child)
    }

    fn pid_file(&self) -> PathBuf {
        self.directory.join("containerd.pid")
    }

    fn config(&self) -> String {
        let path = |name: &str| quoted(&self.directory.join(name).display().to_string());
        let snapshotter = if is_on_overlay(&self.directory) {
            "native"
        } else {
            "overlayfs"
        };
        let shims: String = shims()
            .into_iter()
            .map(|(name, kind)| {
                format!(
                    "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.{}]\n  runtime_type = {}\n",
                    quoted(&name),
                    quoted(&kind)
                )
            })
            .collect();
        format!(
            r#"# Written by the agent at each start of containerd.
version = 2
root = {root}
state = {state}
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.internal.v1.restart", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.nri.v1.nri"]
[grpc]
  address = {socket}
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = {pause}
  restrict_oom_score_adj = {restrict}
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "{snapshotter}"
  default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = {bin}
  conf_dir = {conf}
{shims}"#,
            root = path("root"),
            state = path("state"),
            socket = path("containerd.sock"),
            pause = quoted(&pause::name()),
            restrict = !may_raise_limits(),
            bin = path("cni/bin"),
            conf = path("cni/conf"),
        )
    }

    /// Tells the one that an earlier process of the agent left running to end, and waits for that.
    async fn end_left_behind(&self) {
        let Some(pid) = self.left_behind().await else {
            return;
        };
        if let Err(error) = kill_process(pid, Signal::TERM) {
            tracing::warn!(%error, "containerd runs on");
            return;
        }
        let gone = async {
            while self.left_behind().await.is_some() {
                tokio::time::sleep(LOOK_STARTING).await;
            }
        };
        if tokio::time::timeout(END, gone).await.is_err() {
            tracing::warn!("containerd does not end");
        }
    }

    /// The process of the file, if it is still that.
    async fn left_behind(&self) -> Option<Pid> {
        let text = tokio::fs::read_to_string(self.pid_file()).await.ok()?;
        let pid: i32 = text.trim().parse().ok()?;
        let command = tokio::fs::read(format!("/proc/{pid}/cmdline")).await.ok()?;
        let config = self.directory.join("config.toml");
        let mut words = command.split(|byte| *byte == 0);
        let ours = words.any(|word| word == config.as_os_str().as_encoded_bytes());
        Pid::from_raw(pid).filter(|_| ours)
    }
}

/// Keeps containerd running from when it is wanted, and says whether it does, until told to stop.
pub(super) async fn keep(
    client: Client,
    private: Option<Private>,
    state: watch::Sender<RuntimeState>,
    wanted: CancellationToken,
    stop: CancellationToken,
) {
    let cri = Cri::new(client);
    tokio::select! {
        () = wanted.cancelled() => {}
        () = stop.cancelled() => {}
    }
    let mut child: Option<Child> = None;
    let mut due = None;
    while !stop.is_cancelled() {
        let found = match cri.version().await {
            Ok(version) => {
                due = None;
                let version = format!("{}://{}", version.runtime_name, version.runtime_version);
                RuntimeState::Ready { version }
            }
            Err(error) => RuntimeState::Down {
                message: error.to_string(),
            },
        };
        let is_down = matches!(found, RuntimeState::Down { .. });
        // Nothing is said of one that was never started, or is coming up.
        let is_new = private.is_some() && child.is_none();
        let is_late = due.is_none_or(|due| tokio::time::Instant::now() > due);
        if !is_down || (is_late && !is_new) {
            publish(&state, found);
        }
        if let (true, Some(private)) = (is_down, &private)
            && has_ended(&mut child)
        {
            match private.start().await {
                Ok(started) => {
                    tracing::info!("started containerd");
                    child = Some(started);
                    due = Some(tokio::time::Instant::now() + START);
                }
                Err(error) => {
                    let message = format!("start {}: {error}", private.program.display());
                    publish(&state, RuntimeState::Down { message });
                }
            }
        }
        let look = if is_down && due.is_some() {
            LOOK_STARTING
        } else {
            LOOK
        };
        let ended = async {
            match &mut child {
                Some(child) if !is_down => child.wait().await.map(drop),
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => break,
            _ended = ended => {}
            () = tokio::time::sleep(look) => {}
        }
    }
    if let Some(private) = private {
        private.end_left_behind().await;
    }
}

fn publish(state: &watch::Sender<RuntimeState>, found: RuntimeState) {
    state.send_if_modified(|known| {
        let is_new = *known != found;
        if is_new {
            if let RuntimeState::Down { message } = &found {
                tracing::warn!(message, "containers of Linux can't be started");
            }
            *known = found;
        }
        is_new
    });
}

/// Whether there is no process of ours, so that one may be started.
fn has_ended(child: &mut Option<Child>) -> bool {
    match child {
        Some(running) => matches!(running.try_wait(), Ok(Some(_))),
        None => true,
    }
}

fn quoted(text: &str) -> String {
    // A string of TOML is one of JSON, but for what no path of ours has.
    serde_json::Value::from(text).to_string()
}

/// The program of that name on `PATH`.
fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut places = std::env::split_paths(&path).map(|directory| directory.join(name));
    places.find(|place| place.is_file())
}

/// Other shims on `PATH`: the handler by which a RuntimeClass names each, and what containerd calls it.
pub(super) fn shims() -> Vec<(String, String)> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).filter_map(|path| std::fs::read_dir(path).ok());
    let names = directories.flat_map(|entries| entries.flatten().map(|entry| entry.file_name()));
    let mut found: Vec<_> = names.filter_map(|name| shim(name.to_str()?)).collect();
    found.sort_unstable();
    found.dedup_by(|one, other| one.0 == other.0);
    found
}

/// `containerd-shim-NAME-v2` is `io.containerd.NAME.v2`. runc's own are there anyway.
fn shim(file: &str) -> Option<(String, String)> {
    let (name, version) = file.strip_prefix("containerd-shim-")?.rsplit_once("-v")?;
    let is_usable = name != "runc" && name != "wasm" && version.parse::<u8>().is_ok();
    is_usable.then(|| (name.to_owned(), format!("io.containerd.{name}.v{version}")))
}

fn is_on_overlay(directory: &Path) -> bool {
    let existing = directory.ancestors().find(|path| path.exists());
    let found = existing.and_then(|path| rustix::fs::statfs(path).ok());
    found.is_some_and(|found| found.f_type == OVERLAYFS)
}

/// Whether this process may protect others from being killed.
fn may_raise_limits() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let held = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let held = held.and_then(|held| u64::from_str_radix(held.trim(), 16).ok());
    held.is_some_and(|held| held & (1 << SYS_RESOURCE) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shim_is_called_as_its_program() {
        let kata = Some(("kata".to_owned(), "io.containerd.kata.v2".to_owned()));
        for (file, wanted) in [
            ("containerd-shim-kata-v2", kata),
            ("containerd-shim-runc-v2", None),
            ("containerd-shim", None),
            ("containerd-shim-x-vy", None),
            ("runc", None),
        ] {
            assert_eq!(shim(file), wanted, "{file}");
        }
    }

    #[test]
    fn the_configuration_points_below_the_data_directory() {
        let private = Private {
            directory: "/data \"x\"/containerd".into(),
            program: "containerd".into(),
        };
        let config = private.config();
        assert!(
            config.contains("root = \"/data \\\"x\\\"/containerd/root\"\n"),
            "{config}"
        );
        assert!(config.contains("conf_dir = \"/data \\\"x\\\"/containerd/cni/conf\"\n"));
        let long = Private::find(PathBuf::from("/".to_owned() + &"x".repeat(120)));
        assert!(
            long.unwrap_err()
                .contains("choose a shorter data directory")
        );
    }
}
