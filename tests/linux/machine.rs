//! What these tests need of the machine, and what they must not leave behind.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Why the tests can't run here, if they can't.
pub(crate) fn missing() -> Option<String> {
    let is_root =
        fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    if !is_root {
        return Some("containers of Linux need root".to_owned());
    }
    for program in ["containerd", "runc", "mount", "tar"] {
        if find(program).is_none() {
            return Some(format!("{program} is not installed"));
        }
    }
    let busybox = busybox().and_then(|path| fs::read(path).ok());
    match busybox {
        None => Some("busybox-static is not installed".to_owned()),
        Some(bytes) if has_loader(&bytes) => {
            Some("busybox is not static; Debian's busybox-static is".to_owned())
        }
        Some(_) => None,
    }
}

/// Whether a program of 64 bits names a loader, and so does not run in an image that has none. Source: elf(5).
fn has_loader(program: &[u8]) -> bool {
    const PT_INTERP: u32 = 3;
    let number = |at: usize, length: usize| {
        let bytes = program.get(at..at + length).unwrap_or_default();
        let value = bytes
            .iter()
            .rev()
            .fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
        usize::try_from(value).unwrap_or(0)
    };
    let (headers, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    (0..count).any(|index| number(headers + index * size, 4) == PT_INTERP as usize)
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut places = std::env::split_paths(&path).map(|directory| directory.join(program));
    places.find(|place| place.is_file())
}

/// A busybox to make images of.
pub(crate) fn busybox() -> Option<PathBuf> {
    find("busybox")
}

/// Processes with an argument below a directory, and all their descendants.
pub(crate) fn processes_of(directory: &Path) -> Vec<u32> {
    let all: Vec<u32> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    let own = std::process::id();
    let names_it = |pid: &&u32| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let wanted = directory.as_os_str().as_encoded_bytes();
        **pid != own && command.windows(wanted.len()).any(|part| part == wanted)
    };
    let mut found: HashSet<u32> = all.iter().filter(names_it).copied().collect();
    loop {
        let children = all
            .iter()
            .filter(|pid| !found.contains(pid) && **pid != own);
        let children: Vec<u32> = children
            .filter(|pid| parent(**pid).is_some_and(|parent| found.contains(&parent)))
            .copied()
            .collect();
        if children.is_empty() {
            return found.into_iter().collect();
        }
        found.extend(children);
    }
}

fn parent(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let mut lines = status.lines();
    lines
        .find_map(|line| line.strip_prefix("PPid:"))?
        .trim()
        .parse()
        .ok()
}

/// The mounts at and below a directory, last first.
pub(crate) fn mounts_below(directory: &Path) -> Vec<PathBuf> {
    let text = fs::read("/proc/self/mountinfo").unwrap_or_default();
    let places = text.split(|byte| *byte == b'\n').filter_map(|line| {
        let place = line.split(|byte| *byte == b' ').nth(4)?;
        Some(PathBuf::from(OsString::from_vec(place.to_vec())))
    });
    let mut places: Vec<_> = places
        .filter(|place| place.starts_with(directory))
        .collect();
    places.reverse();
    places
}

/// Ends what a test left running and undoes what it left mounted, however it ended.
pub(crate) struct CleanUp {
    directory: PathBuf,
    /// The network namespaces that were there before.
    namespaces: HashSet<OsString>,
}

impl CleanUp {
    /// Of a test that keeps everything below a directory, and begins now.
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            namespaces: network_namespaces(),
        }
    }
}

/// The network namespaces that were made for sandboxes.
fn network_namespaces() -> HashSet<OsString> {
    let all = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let names = all.map(|entry| entry.file_name());
    names
        .filter(|name| name.as_encoded_bytes().starts_with(b"cni-"))
        .collect()
}

impl Drop for CleanUp {
    fn drop(&mut self) {
        let directory = &self.directory;
        let tasks = directory.join("containerd/state/io.containerd.runtime.v2.task/k8s.io");
        let tasks = fs::read_dir(tasks).into_iter().flatten().flatten();
        let tasks: Vec<_> = tasks.map(|entry| entry.file_name()).collect();
        for _ in 0..50 {
            let left = processes_of(directory);
            if left.is_empty() {
                break;
            }
            for pid in left {
                // One that has ended meanwhile is as well.
                let _gone = Command::new("kill")
                    .args(["-KILL", &pid.to_string()])
                    .output();
            }
            std::thread::yield_now();
        }
        for mounted in mounts_below(directory) {
            let undone = Command::new("umount").arg("--lazy").arg(&mounted).status();
            if !undone.is_ok_and(|status| status.success()) {
                eprintln!("{} stays mounted", mounted.display());
            }
        }
        for namespace in network_namespaces().difference(&self.namespaces) {
            let mut remove = Command::new("ip");
            remove.args(["netns", "del"]).arg(namespace);
            if !remove.status().is_ok_and(|status| status.success()) {
                eprintln!("{} stays", namespace.display());
            }
        }
        for task in tasks {
            for group in cgroups(&task) {
                // Only an empty one can be removed.
                let _busy = fs::remove_dir(group);
            }
        }
    }
}

/// The control groups of a container.
fn cgroups(task: &std::ffi::OsStr) -> Vec<PathBuf> {
    let controllers = fs::read_dir("/sys/fs/cgroup")
        .into_iter()
        .flatten()
        .flatten();
    let places = controllers.map(|controller| controller.path().join("k8s.io").join(task));
    let own = PathBuf::from("/sys/fs/cgroup/k8s.io").join(task);
    places.chain([own]).filter(|place| place.is_dir()).collect()
}
