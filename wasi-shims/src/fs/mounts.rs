//! What a guest may see of files: its mounts.
//!
//! A mount becomes a preopened directory. A single file can't be one, so files are gathered under a
//! directory made up for them, which holds nothing else:
//!
//! ```text
//!   /data            a directory of the host       → preopen /data
//!   /etc/config      a tree in memory              → preopen /etc/config
//!   /etc/app.conf    one file of either            → preopen /etc with the one entry app.conf
//! ```
//!
//! Invariant: a path below a volume is resolved inside that volume (cap-std), so that a symbolic
//! link in it leads nowhere else.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use cap_std::ambient_authority;
use cap_std::fs::OpenOptions;
use wasmtime_wasi::filesystem::{Dir, File, FsPerms, OpenMode};

use super::memory::{MemoryNode, MemoryTree};

/// Why a mount can't be made.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The guest's path is not absolute, or has `..` in it.
    #[error("mount path {0:?} is not an absolute path")]
    NotAbsolute(String),
    /// Two mounts at one path.
    #[error("mount path {0:?} is used twice")]
    Duplicate(String),
    /// A file would lie in a directory that is another mount.
    #[error("the file {0:?} can't be mounted inside the mounted directory that holds it")]
    FileInMount(String),
    /// The path below the volume does not exist, or leads out of it.
    #[error("{sub_path:?} is not a path of the volume mounted at {guest:?}")]
    NoSuchSubPath {
        /// Where it was to be mounted.
        guest: String,
        /// The path below the volume.
        sub_path: String,
        /// What the file system said, for a volume that has one.
        #[source]
        source: Option<io::Error>,
    },
    /// The host's directory can't be opened.
    #[error("{} can't be opened for the mount at {guest:?}", host.display())]
    Host {
        /// Where it was to be mounted.
        guest: String,
        /// The path on the host.
        host: PathBuf,
        /// What the file system said.
        #[source]
        source: io::Error,
    },
}

/// One mounted file.
#[derive(Clone)]
pub(super) enum FileMount {
    Memory { data: Bytes, tree: Arc<MemoryTree> },
    Host(File),
}

/// A directory a guest begins with.
#[derive(Clone)]
pub(super) enum Preopen {
    Host(Dir),
    Memory(Arc<MemoryTree>),
    Files(Arc<BTreeMap<String, FileMount>>),
}

/// The mounts of a container; made once and shared by its instances.
#[derive(Clone, Default)]
pub struct Mounts {
    preopens: BTreeMap<String, Preopen>,
}

impl Mounts {
    /// No files at all.
    pub fn new() -> Self {
        Self::default()
    }

    /// Mounts a directory or a file of the host, or what lies at `sub_path` below it. A directory
    /// `sub_path` that is not there is made, as Kubernetes does it.
    ///
    /// Opens files: call it where blocking is allowed.
    ///
    /// # Errors
    /// [`MountError`].
    pub fn host(
        &mut self,
        guest: &str,
        host: &Path,
        sub_path: Option<&Path>,
        read_only: bool,
    ) -> Result<(), MountError> {
        let failed = |source| MountError::Host {
            guest: guest.to_owned(),
            host: host.to_owned(),
            source,
        };
        // A file of the host is reached through its directory.
        let is_file = std::fs::metadata(host).map_err(failed)?.is_file();
        let (root, below) = match (is_file, host.parent(), host.file_name()) {
            (true, Some(parent), Some(name)) => (parent, Some(PathBuf::from(name))),
            _ => (
                host,
                sub_path
                    .filter(|path| !path.as_os_str().is_empty())
                    .map(Path::to_owned),
            ),
        };
        let root = cap_std::fs::Dir::open_ambient_dir(root, ambient_authority()).map_err(failed)?;
        let Some(below) = below else {
            return self.insert(guest, Preopen::Host(directory(root, read_only)));
        };
        let opened = open_below(&root, &below, read_only);
        let opened = opened.map_err(|source| MountError::NoSuchSubPath {
            guest: guest.to_owned(),
            sub_path: below.display().to_string(),
            source: Some(source),
        })?;
        match opened {
            Opened::Directory(dir) => self.insert(guest, Preopen::Host(dir)),
            Opened::File(file) => self.insert_file(guest, FileMount::Host(file)),
        }
    }

    /// Mounts a tree in memory, or what lies at `sub_path` in it now: as in Kubernetes, such a part
    /// does not follow later changes of the tree.
    ///
    /// # Errors
    /// [`MountError`].
    pub fn memory(
        &mut self,
        guest: &str,
        tree: Arc<MemoryTree>,
        sub_path: Option<&str>,
    ) -> Result<(), MountError> {
        let Some(sub_path) = sub_path.filter(|path| !path.is_empty()) else {
            return self.insert(guest, Preopen::Memory(tree));
        };
        let version = tree.version();
        match version.root.find(sub_path) {
            Some(MemoryNode::File(data)) => self.insert_file(
                guest,
                FileMount::Memory {
                    data: data.clone(),
                    tree,
                },
            ),
            Some(directory) => {
                let part = Arc::new(MemoryTree::new(directory.clone()));
                self.insert(guest, Preopen::Memory(part))
            }
            None => Err(MountError::NoSuchSubPath {
                guest: guest.to_owned(),
                sub_path: sub_path.to_owned(),
                source: None,
            }),
        }
    }

    fn insert(&mut self, guest: &str, preopen: Preopen) -> Result<(), MountError> {
        let path = normalise(guest)?;
        match self.preopens.get(&path) {
            None => {
                self.preopens.insert(path, preopen);
                Ok(())
            }
            Some(Preopen::Files(files)) => {
                let name = files.keys().next().cloned().unwrap_or_default();
                Err(MountError::FileInMount(format!(
                    "{}/{name}",
                    path.trim_end_matches('/')
                )))
            }
            Some(_) => Err(MountError::Duplicate(path)),
        }
    }

    fn insert_file(&mut self, guest: &str, file: FileMount) -> Result<(), MountError> {
        let path = normalise(guest)?;
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", &path));
        if name.is_empty() {
            return Err(MountError::NotAbsolute(guest.to_owned()));
        }
        let parent = if parent.is_empty() { "/" } else { parent };
        let new = || Preopen::Files(Arc::default());
        match self.preopens.entry(parent.to_owned()).or_insert_with(new) {
            Preopen::Files(files) => match Arc::make_mut(files).insert(name.to_owned(), file) {
                None => Ok(()),
                Some(_) => Err(MountError::Duplicate(path)),
            },
            _ => Err(MountError::FileInMount(path)),
        }
    }

    /// A file as the guest names it, open.
    ///
    /// Blocks: call it where that is allowed.
    ///
    /// # Errors
    /// There is no such file, or it is no file.
    pub fn open(&self, guest: &str) -> io::Result<OpenFile> {
        let path = normalise(guest).map_err(io::Error::other)?;
        let below = |preopen: &str| {
            let below = path.strip_prefix(preopen.trim_end_matches('/'))?;
            below.strip_prefix('/').map(str::to_owned)
        };
        let inside = self
            .preopens()
            .filter_map(|(at, preopen)| Some((below(at)?, preopen)));
        let (below, preopen) = inside
            .min_by_key(|(below, _)| below.len())
            .ok_or(io::ErrorKind::NotFound)?;
        match preopen {
            Preopen::Host(dir) => {
                let dir = cap_std::fs::Dir::from_std_file(dir.dir.try_clone()?);
                // Asked before it is opened: a pipe would wait for its other end.
                if !dir.metadata(&below)?.is_file() {
                    return Err(not_a_file());
                }
                let file = dir.open(below)?.into_std();
                Ok(OpenFile::Host(Arc::new(file)))
            }
            Preopen::Memory(tree) => match tree.version().root.find(&below) {
                Some(MemoryNode::File(data)) => Ok(OpenFile::Memory(data.clone())),
                Some(MemoryNode::Directory(_)) => Err(not_a_file()),
                None => Err(io::ErrorKind::NotFound.into()),
            },
            Preopen::Files(files) => match files.get(&below).ok_or(io::ErrorKind::NotFound)? {
                FileMount::Memory { data, .. } => Ok(OpenFile::Memory(data.clone())),
                FileMount::Host(file) => Ok(OpenFile::Host(file.file.clone())),
            },
        }
    }

    pub(super) fn preopens(&self) -> impl Iterator<Item = (&str, &Preopen)> {
        self.preopens
            .iter()
            .map(|(path, preopen)| (path.as_str(), preopen))
    }
}

/// A file of the mounts that the host looks at itself.
#[derive(Clone, Debug)]
pub enum OpenFile {
    /// One that exists only in memory.
    Memory(Bytes),
    /// One of the host's.
    Host(Arc<std::fs::File>),
}

impl OpenFile {
    /// The content, if it has at most `limit` bytes. Blocks.
    ///
    /// # Errors
    /// It is larger, or can't be read.
    pub fn read(&self, limit: u64) -> io::Result<Bytes> {
        let file = match self {
            Self::Memory(data) if data.len() as u64 > limit => {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            Self::Memory(data) => return Ok(data.clone()),
            Self::Host(file) => file,
        };
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(not_a_file());
        }
        if metadata.len() > limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let length = usize::try_from(metadata.len()).map_err(io::Error::other)?;
        let mut data = vec![0; length];
        // The offset belongs to the guest.
        file.read_exact_at(&mut data, 0)?;
        Ok(data.into())
    }

    /// What tells this content of the file from any other; nothing of one in memory. Blocks.
    ///
    /// # Errors
    /// The file system does not say.
    pub fn stamp(&self) -> io::Result<Option<FileStamp>> {
        let Self::Host(file) = self else {
            return Ok(None);
        };
        let metadata = file.metadata()?;
        Ok(Some(FileStamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }))
    }
}

/// Which file, and when it was changed last: every write changes that, and nobody but the kernel sets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileStamp {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl FileStamp {
    /// Whether the last change is so long ago that another one would show: the kernel's clock for it ticks slowly.
    #[must_use]
    pub fn is_settled(&self, now: SystemTime) -> bool {
        const TICK: Duration = Duration::from_secs(1);
        let (seconds, _) = self.changed;
        let changed = u64::try_from(seconds).map(Duration::from_secs);
        let since = now.duration_since(UNIX_EPOCH);
        match (changed, since) {
            (Ok(changed), Ok(since)) => since > changed + 2 * TICK,
            _ => false,
        }
    }
}

fn not_a_file() -> io::Error {
    io::Error::other("not a regular file")
}

/// The path without doubled or trailing slashes.
fn normalise(guest: &str) -> Result<String, MountError> {
    let parts: Vec<&str> = guest
        .split('/')
        .filter(|part| !matches!(*part, "" | "."))
        .collect();
    if !guest.starts_with('/') || parts.contains(&"..") {
        return Err(MountError::NotAbsolute(guest.to_owned()));
    }
    Ok(format!("/{}", parts.join("/")))
}

enum Opened {
    Directory(Dir),
    File(File),
}

fn open_below(root: &cap_std::fs::Dir, path: &Path, read_only: bool) -> io::Result<Opened> {
    match root.metadata(path) {
        Ok(metadata) if !metadata.is_dir() => {
            let options = OpenOptions::new().read(true).write(!read_only).to_owned();
            let file = root.open_with(path, &options)?.into_std();
            return Ok(Opened::File(File::new(
                file,
                perms(read_only),
                mode(read_only),
                false,
            )));
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => root.create_dir_all(path)?,
        Err(error) => return Err(error),
    }
    Ok(Opened::Directory(directory(
        root.open_dir(path)?,
        read_only,
    )))
}

fn directory(dir: cap_std::fs::Dir, read_only: bool) -> Dir {
    Dir::new(
        dir.into_std_file(),
        perms(read_only),
        mode(read_only),
        false,
    )
}

fn perms(read_only: bool) -> FsPerms {
    if read_only {
        FsPerms::ReadOnly
    } else {
        FsPerms::ReadWrite
    }
}

fn mode(read_only: bool) -> OpenMode {
    if read_only {
        OpenMode::READ
    } else {
        OpenMode::READ | OpenMode::WRITE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(mounts: &Mounts, path: &str, limit: u64) -> io::Result<Bytes> {
        mounts.open(path)?.read(limit)
    }

    fn tree() -> Arc<MemoryTree> {
        let files = [
            ("app.conf", Bytes::from_static(b"x")),
            ("dir/a", Bytes::from_static(b"y")),
        ];
        Arc::new(MemoryTree::from_files(files).unwrap())
    }

    fn paths(mounts: &Mounts) -> Vec<&str> {
        mounts.preopens().map(|(path, _)| path).collect()
    }

    #[test]
    fn paths_are_normalised_and_checked() {
        for (path, want) in [
            ("/data", Some("/data")),
            ("/data/", Some("/data")),
            ("//data//x/./y", Some("/data/x/y")),
            ("/", Some("/")),
            ("data", None),
            ("", None),
            ("/data/../etc", None),
        ] {
            assert_eq!(normalise(path).ok().as_deref(), want, "{path:?}");
        }
    }

    #[test]
    fn files_share_the_directory_made_for_them() {
        let mut mounts = Mounts::new();
        mounts
            .memory("/etc/app.conf", tree(), Some("app.conf"))
            .unwrap();
        mounts
            .memory("/etc/other.conf", tree(), Some("dir/a"))
            .unwrap();
        mounts.memory("/config", tree(), None).unwrap();
        mounts.memory("/part", tree(), Some("dir")).unwrap();
        assert_eq!(paths(&mounts), ["/config", "/etc", "/part"]);
        for path in ["/etc/app.conf", "/config/app.conf"] {
            assert_eq!(read(&mounts, path, 1).unwrap(), "x");
            assert!(read(&mounts, path, 0).is_err());
        }
        assert_eq!(read(&mounts, "/part/a", 1).unwrap(), "y");
        assert!(read(&mounts, "/config/dir", 9).is_err());
    }

    #[test]
    fn mounts_that_clash_are_errors() {
        let mut mounts = Mounts::new();
        mounts.memory("/etc", tree(), None).unwrap();
        mounts.memory("/run/x", tree(), Some("app.conf")).unwrap();
        for (path, sub_path) in [
            ("/etc", None),
            ("/etc/", None),
            ("/etc/app.conf", Some("app.conf")),
            ("/run/x", Some("app.conf")),
            ("/run", None),
            ("/", Some("app.conf")),
            ("/new", Some("nosuch")),
        ] {
            assert!(
                mounts.memory(path, tree(), sub_path).is_err(),
                "{path} {sub_path:?}"
            );
        }
        assert_eq!(paths(&mounts), ["/etc", "/run"]);
    }

    #[test]
    fn sub_paths_stay_inside_the_volume() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("volume");
        std::fs::create_dir(&volume).unwrap();
        std::fs::write(dir.path().join("secret"), "x").unwrap();
        std::fs::write(volume.join("file"), "y").unwrap();
        std::os::unix::fs::symlink("../secret", volume.join("link")).unwrap();
        let mut mounts = Mounts::new();
        assert!(
            mounts
                .host("/a", &volume, Some("link".as_ref()), true)
                .is_err()
        );
        assert!(
            mounts
                .host("/a", &volume, Some("../secret".as_ref()), true)
                .is_err()
        );
        assert!(
            mounts
                .host("/a", &dir.path().join("nosuch"), None, true)
                .is_err()
        );
        mounts
            .host("/b/file", &volume, Some("file".as_ref()), true)
            .unwrap();
        mounts
            .host("/c/file", &volume.join("file"), None, false)
            .unwrap();
        mounts
            .host("/d", &volume, Some("made/on/demand".as_ref()), false)
            .unwrap();
        mounts.host("/e", &volume, None, false).unwrap();
        assert_eq!(read(&mounts, "/e/file", 1).unwrap(), "y");
        assert_eq!(read(&mounts, "/b/file", 1).unwrap(), "y");
        for path in ["/e/link", "/e/../e/file", "/e", "/e/nosuch", "/f", "file"] {
            assert!(read(&mounts, path, 9).is_err(), "{path}");
        }
        assert!(read(&mounts, "/e/file", 0).is_err());
        assert_eq!(paths(&mounts), ["/b", "/c", "/d", "/e"]);
        assert!(volume.join("made/on/demand").is_dir());
    }
}
