//! Volumes that are files in memory, written out for containers that need files of the kernel's: configMap, secret,
//! downwardAPI and projected.
//!
//! ```text
//!   TREE/..2026-01-02T03:04:05.6Z/dir/file   a version, whole before anybody sees it
//!   TREE/..data -> ..2026-01-02T03:04:05.6Z  the version that counts, replaced by one rename
//!   TREE/dir    -> ..data/dir                what containers read
//! ```
//!
//! 1. The trees of a pod lie in one file system in memory, so that secrets touch no disk.
//! 2. A task per tree waits for a new version and writes it, as kubelet's atomic writer does: a reader sees all old files
//!    or all new ones.
//! 3. Modes are those of the volume (`defaultMode`, `mode` of an item); with an `fsGroup` that group may read.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{KeyToPath, Volume};
use windlass_wasi_shims::fs::{MemoryNode, MemoryTree, MemoryVersion};

use crate::tasks::OwnedTask;

const DATA: &str = "..data";
const DATA_NEW: &str = "..data_tmp";
/// Spec: the default of `defaultMode`.
const DEFAULT_MODE: u32 = 0o644;

/// Who may read the files of a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Modes {
    default: Option<u32>,
    by_path: BTreeMap<String, u32>,
    group: Option<u32>,
}

impl Modes {
    /// What the volume says.
    pub(super) fn of(volume: Option<&Volume>, fs_group: Option<i64>) -> Self {
        let mut modes = Self {
            group: fs_group.and_then(|group| u32::try_from(group).ok()),
            ..Self::default()
        };
        let Some(volume) = volume else { return modes };
        if let Some(source) = &volume.config_map {
            modes.take(source.default_mode, source.items.as_deref());
        }
        if let Some(source) = &volume.secret {
            modes.take(source.default_mode, source.items.as_deref());
        }
        if let Some(source) = &volume.downward_api {
            modes.take(source.default_mode, None);
            for item in source.items.iter().flatten() {
                modes.item(&item.path, item.mode);
            }
        }
        if let Some(projected) = &volume.projected {
            modes.take(projected.default_mode, None);
            for source in projected.sources.iter().flatten() {
                let of_map = source
                    .config_map
                    .as_ref()
                    .and_then(|map| map.items.as_deref());
                let of_secret = source
                    .secret
                    .as_ref()
                    .and_then(|secret| secret.items.as_deref());
                modes.take(None, of_map);
                modes.take(None, of_secret);
                let downward = source
                    .downward_api
                    .iter()
                    .flat_map(|source| source.items.iter().flatten());
                for item in downward {
                    modes.item(&item.path, item.mode);
                }
            }
        }
        modes
    }

    fn take(&mut self, default: Option<i32>, items: Option<&[KeyToPath]>) {
        self.default = default
            .and_then(|mode| u32::try_from(mode).ok())
            .or(self.default);
        for item in items.into_iter().flatten() {
            self.item(&item.path, item.mode);
        }
    }

    fn item(&mut self, path: &str, mode: Option<i32>) {
        if let Some(mode) = mode.and_then(|mode| u32::try_from(mode).ok()) {
            self.by_path.insert(path.to_owned(), mode);
        }
    }

    fn file(&self, path: &str) -> u32 {
        let mode = self.by_path.get(path).copied();
        let mode = mode.or(self.default).unwrap_or(DEFAULT_MODE);
        // Spec: a group of the volume may read what is in it.
        mode | if self.group.is_some() { 0o440 } else { 0 }
    }
}

/// A tree on disk that is kept as its original in memory.
#[derive(Debug)]
pub(super) struct WrittenTree {
    _follow: OwnedTask,
}

impl WrittenTree {
    /// Writes the tree into a directory, and each new version from then on until dropped.
    pub(super) async fn write(
        directory: PathBuf,
        tree: Arc<MemoryTree>,
        modes: Modes,
    ) -> io::Result<Self> {
        let version = tree.version();
        write_blocking(&directory, &version, &modes).await?;
        let follow = OwnedTask::spawn(async move {
            let mut seen = version;
            loop {
                seen = tree.newer_than(&seen).await;
                if let Err(error) = write_blocking(&directory, &seen, &modes).await {
                    tracing::warn!(path = %directory.display(), %error, "a volume is left as it was");
                }
            }
        });
        Ok(Self { _follow: follow })
    }
}

async fn write_blocking(
    directory: &Path,
    version: &Arc<MemoryVersion>,
    modes: &Modes,
) -> io::Result<()> {
    let (directory, version, modes) = (directory.to_owned(), version.clone(), modes.clone());
    let written = tokio::task::spawn_blocking(move || write(&directory, &version.root, &modes));
    written.await.map_err(io::Error::other)?
}

fn write(directory: &Path, root: &MemoryNode, modes: &Modes) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    share(directory, 0o755, modes.group)?;
    let old = std::fs::read_link(directory.join(DATA)).ok();
    let name = format!("..{}.{}", Timestamp::now(), uuid::Uuid::new_v4().simple());
    write_node(&directory.join(&name), root, "", modes)?;
    let new = directory.join(DATA_NEW);
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(&name, &new)?;
    std::fs::rename(&new, directory.join(DATA))?;
    link_entries(directory, root)?;
    match old {
        // What is mounted of it stays until it is not any more.
        Some(old) => std::fs::remove_dir_all(directory.join(old)),
        None => Ok(()),
    }
}

fn write_node(path: &Path, node: &MemoryNode, name: &str, modes: &Modes) -> io::Result<()> {
    match node {
        MemoryNode::File(data) => {
            std::fs::write(path, data)?;
            share(path, modes.file(name), modes.group)
        }
        MemoryNode::Directory(entries) => {
            std::fs::create_dir(path)?;
            for (entry, node) in entries.iter() {
                let name = match name {
                    "" => entry.clone(),
                    _ => format!("{name}/{entry}"),
                };
                write_node(&path.join(entry), node, &name, modes)?;
            }
            share(path, 0o755, modes.group)
        }
    }
}

/// What containers see: a link per entry of the top, and none besides.
fn link_entries(directory: &Path, root: &MemoryNode) -> io::Result<()> {
    let MemoryNode::Directory(entries) = root else {
        return Ok(());
    };
    for entry in entries.keys() {
        match symlink(Path::new(DATA).join(entry), directory.join(entry)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    for found in std::fs::read_dir(directory)? {
        let found = found?;
        let name = found.file_name();
        let is_ours = name
            .to_str()
            .is_some_and(|name| name.starts_with("..") || entries.contains_key(name));
        if !is_ours {
            std::fs::remove_file(found.path())?;
        }
    }
    Ok(())
}

/// Sets who may read, and whose it is. The group must come first: changing it clears bits of the mode.
pub(super) fn share(path: &Path, mode: u32, group: Option<u32>) -> io::Result<()> {
    if group.is_some() {
        chown(path, None, group)?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::{Value, json};

    use super::*;

    fn modes(volume: Value, group: Option<i64>) -> Modes {
        let volume: Volume = serde_json::from_value(volume).unwrap();
        Modes::of(Some(&volume), group)
    }

    #[test]
    fn modes_are_those_of_the_volume_and_its_items() {
        let items =
            json!([{ "key": "a", "path": "a", "mode": 0o400 }, { "key": "b", "path": "b/c" }]);
        for (volume, a, b) in [
            (
                json!({ "name": "v", "configMap": { "name": "m", "items": items } }),
                0o400,
                0o644,
            ),
            (
                json!({ "name": "v", "secret": { "secretName": "s", "defaultMode": 0o600, "items": items } }),
                0o400,
                0o600,
            ),
            (
                json!({ "name": "v", "projected": { "defaultMode": 0o640, "sources": [{ "secret": { "name": "s", "items": items } }] } }),
                0o400,
                0o640,
            ),
            (
                json!({ "name": "v", "downwardAPI": { "items": [{ "path": "a", "mode": 0o600 }] } }),
                0o600,
                0o644,
            ),
            (json!({ "name": "v", "emptyDir": {} }), 0o644, 0o644),
        ] {
            let found = modes(volume.clone(), None);
            assert_eq!((found.file("a"), found.file("b/c")), (a, b), "{volume}");
        }
        let shared = modes(
            json!({ "name": "v", "configMap": { "name": "m", "defaultMode": 0o400 } }),
            Some(5),
        );
        assert_eq!(shared.file("a"), 0o440);
    }

    fn tree(files: &[(&str, &'static str)]) -> MemoryNode {
        let files = files
            .iter()
            .map(|(path, data)| (*path, Bytes::from_static(data.as_bytes())));
        MemoryNode::from_files(files).unwrap()
    }

    #[tokio::test]
    async fn a_new_version_replaces_all_files_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("v");
        write(
            &at,
            &tree(&[("a", "1"), ("d/b", "1"), ("gone", "1")]),
            &Modes::default(),
        )
        .unwrap();
        let before = std::fs::read_link(at.join(DATA)).unwrap();
        assert_eq!(std::fs::read_to_string(at.join("d/b")).unwrap(), "1");
        let mode = std::fs::metadata(at.join("a"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o644);
        write(&at, &tree(&[("a", "2"), ("d/b", "2")]), &Modes::default()).unwrap();
        assert_eq!(std::fs::read_to_string(at.join("a")).unwrap(), "2");
        assert!(!at.join("gone").exists() && !at.join(before).exists());
        assert_eq!(
            std::fs::read_link(at.join("a")).unwrap(),
            Path::new("..data/a")
        );
    }

    #[tokio::test]
    async fn what_changes_in_memory_changes_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        let memory = Arc::new(MemoryTree::new(tree(&[("a", "1")])));
        let at = dir.path().join("v");
        let _written = WrittenTree::write(at.clone(), memory.clone(), Modes::default())
            .await
            .unwrap();
        let first = std::fs::read_link(at.join(DATA)).unwrap();
        memory.replace(tree(&[("a", "2")]));
        let changed = async {
            while std::fs::read_link(at.join(DATA)).is_ok_and(|now| now == first) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), changed)
            .await
            .unwrap();
        assert_eq!(std::fs::read_to_string(at.join("a")).unwrap(), "2");
    }
}
