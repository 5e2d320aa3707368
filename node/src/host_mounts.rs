//! Mounts that the agent makes on the host for containers of Linux: file systems in memory, and bind mounts of what a
//! `subPath` means. Made by mount(8) and umount(8), as by kubelet.
//!
//! Invariant: nothing below a directory with mounts is deleted before they are gone: what is mounted there may be
//! somebody's data. [`remove_all`] sees to that, and every removal of a pod's directory goes through it.
//!
//! Mounts outlive the agent. What is mounted is therefore read from the kernel each time, never remembered.

use std::io;
#[cfg(feature = "containerd")]
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use tokio::process::Command;

/// Where the kernel lists the mounts that this process sees.
const MOUNTS: &str = "/proc/self/mountinfo";

/// Mounts an empty file system in memory, of at most so many bytes, unless something is mounted there.
///
/// # Errors
/// The directory can't be made, or mount(8) fails: its words.
pub(crate) async fn in_memory(at: &Path, size: Option<u64>, mode: u32) -> io::Result<()> {
    tokio::fs::create_dir_all(at).await?;
    if below(at).await?.iter().any(|mounted| mounted == at) {
        return Ok(());
    }
    let mut options = format!("mode={mode:o},nosuid,nodev");
    if let Some(size) = size {
        options.push_str(&format!(",size={size}"));
    }
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at);
    run(mount).await
}

/// Mounts what is open at a path, whatever became of its name since.
///
/// # Errors
/// mount(8) fails: its words.
#[cfg(feature = "containerd")]
pub(crate) async fn bind(what: BorrowedFd<'_>, at: &Path) -> io::Result<()> {
    let link = format!("/proc/{}/fd/{}", std::process::id(), what.as_raw_fd());
    let mut mount = Command::new("mount");
    // The link must be followed by the kernel: read by mount(8) it would be a name again, which may mean something else.
    mount.args(["--no-canonicalize", "--bind", &link]).arg(at);
    run(mount).await
}

/// Undoes every mount at and below a directory.
///
/// # Errors
/// One of them can't be undone.
pub(crate) async fn unmount(directory: &Path) -> io::Result<()> {
    for mounted in below(directory).await? {
        let mut umount = Command::new("umount");
        umount.arg("--no-canonicalize").arg(&mounted);
        if run(umount).await.is_err() {
            // Somebody has a file open there; it goes with the last user.
            let mut umount = Command::new("umount");
            umount.args(["--no-canonicalize", "--lazy"]).arg(&mounted);
            run(umount).await?;
        }
    }
    if let Some(left) = below(directory).await?.first() {
        let text = format!("{} is still mounted", left.display());
        return Err(io::Error::new(io::ErrorKind::ResourceBusy, text));
    }
    Ok(())
}

/// Removes a directory with all that is in it, but nothing of what is mounted there.
///
/// # Errors
/// A mount can't be undone, and nothing is removed; or the file system fails.
pub(crate) async fn remove_all(directory: &Path) -> io::Result<()> {
    unmount(directory).await?;
    match tokio::fs::remove_dir_all(directory).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The places below a directory, and that itself, where something is mounted; what was mounted last comes first.
async fn below(directory: &Path) -> io::Result<Vec<PathBuf>> {
    // The kernel names no links.
    let directory = match tokio::fs::canonicalize(directory).await {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let text = tokio::fs::read(MOUNTS).await?;
    Ok(places(&text, &directory))
}

fn places(mountinfo: &[u8], directory: &Path) -> Vec<PathBuf> {
    let lines = mountinfo.split(|byte| *byte == b'\n');
    let places = lines.filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    let places = places.map(|place| PathBuf::from(std::ffi::OsString::from_vec(unescape(place))));
    let mut places: Vec<_> = places
        .filter(|place| place.starts_with(directory))
        .collect();
    places.reverse();
    places
}

/// The kernel writes blanks and backslashes as three octal digits.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut found = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, more)) = rest.split_first() {
        let digits = more
            .get(..3)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        let code = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match (first, code, more.get(3..)) {
            (b'\\', Some(code), Some(after)) => {
                found.push(code);
                rest = after;
            }
            _ => {
                found.push(*first);
                rest = more;
            }
        }
    }
    found
}

async fn run(mut command: Command) -> io::Result<()> {
    let output = command.kill_on_drop(true).output().await;
    let name = command
        .as_std()
        .get_program()
        .to_string_lossy()
        .into_owned();
    let output =
        output.map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{name}: {}", said.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_mount_comes_first_and_names_are_read_as_they_are() {
        let text = b"22 1 0:1 / / rw - ext4 /dev/a rw\n\
            23 22 0:2 / /pods/u/a\\040b rw shared:1 - tmpfs tmpfs rw\n\
            24 23 0:3 /x /pods/u/a\\040b/c\\134 rw - ext4 /dev/a rw\n\
            25 22 0:4 / /pods/uu rw - tmpfs tmpfs rw\n";
        let found = places(text, Path::new("/pods/u"));
        let wanted = ["/pods/u/a b/c\\", "/pods/u/a b"].map(PathBuf::from);
        assert_eq!(found, wanted);
    }

    #[tokio::test]
    async fn a_directory_without_mounts_is_removed_and_one_that_is_gone_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pod");
        std::fs::create_dir_all(path.join("volumes/a")).unwrap();
        remove_all(&path).await.unwrap();
        assert!(!path.exists());
        remove_all(&path).await.unwrap();
    }

    #[tokio::test]
    async fn what_is_mounted_outlives_the_directory() {
        if !rustix::process::geteuid().is_root() {
            println!("SKIPPED: only root can mount");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (pod, data) = (dir.path().join("pod"), dir.path().join("data"));
        std::fs::create_dir_all(pod.join("mount")).unwrap();
        std::fs::create_dir_all(pod.join("memory")).unwrap();
        std::fs::create_dir(&data).unwrap();
        std::fs::write(data.join("precious"), "x").unwrap();
        let open = std::fs::File::open(&data).unwrap();
        bind(std::os::fd::AsFd::as_fd(&open), &pod.join("mount"))
            .await
            .unwrap();
        in_memory(&pod.join("memory"), Some(1 << 20), 0o755)
            .await
            .unwrap();
        // A second time changes nothing.
        std::fs::write(pod.join("memory/file"), "x").unwrap();
        in_memory(&pod.join("memory"), None, 0o755).await.unwrap();
        assert!(pod.join("memory/file").exists() && pod.join("mount/precious").exists());
        drop(open);
        remove_all(&pod).await.unwrap();
        assert!(!pod.exists() && data.join("precious").exists());
    }
}
