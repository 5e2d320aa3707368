//! Files that exist only in memory, replaced as a whole.
//!
//! A [`MemoryTree`] is what backs configMap, secret, projected and downward mounts. The tree is an
//! immutable value behind one atomic pointer: a reader sees either all old files or all new ones,
//! and a file that is open keeps the content it was opened with.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::Notify;

/// A file or a directory of a [`MemoryTree`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemoryNode {
    /// A file's content.
    File(Bytes),
    /// A directory's entries by name.
    Directory(Arc<BTreeMap<String, MemoryNode>>),
}

impl MemoryNode {
    /// An empty directory.
    pub fn empty_directory() -> Self {
        Self::Directory(Arc::default())
    }

    /// The node at `path` below this one. `.` and empty parts are skipped; `..` never matches.
    pub fn find(&self, path: &str) -> Option<&Self> {
        let mut node = self;
        for part in path.split('/').filter(|part| !matches!(*part, "" | ".")) {
            let Self::Directory(entries) = node else {
                return None;
            };
            node = entries.get(part)?;
        }
        Some(node)
    }

    /// A tree of the given files; directories are made from the slashes of their paths.
    ///
    /// # Errors
    /// [`PathError`] if a path is empty, has a `..` part, or is both a file and a directory.
    pub fn from_files<P, I>(files: I) -> Result<Self, PathError>
    where
        P: Into<String>,
        I: IntoIterator<Item = (P, Bytes)>,
    {
        let mut root = Self::empty_directory();
        for (path, data) in files {
            let path = path.into();
            root.insert(&path, data).ok_or(PathError { path })?;
        }
        Ok(root)
    }

    fn insert(&mut self, path: &str, data: Bytes) -> Option<()> {
        let Self::Directory(entries) = self else {
            return None;
        };
        let entries = Arc::make_mut(entries);
        let path = path.trim_start_matches('/');
        let (first, rest) = path.split_once('/').unwrap_or((path, ""));
        if matches!(first, "" | "." | "..") {
            return None;
        }
        if !rest.is_empty() {
            let child = entries
                .entry(first.to_owned())
                .or_insert_with(Self::empty_directory);
            return child.insert(rest, data);
        }
        match entries.insert(first.to_owned(), Self::File(data)) {
            Some(Self::Directory(_)) => None,
            _ => Some(()),
        }
    }
}

/// A path that can't name a file of a tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path:?} is not a usable file path")]
pub struct PathError {
    /// The path as given.
    pub path: String,
}

/// One version of a tree's files.
#[derive(Debug)]
pub struct MemoryVersion {
    /// The top directory.
    pub root: MemoryNode,
    /// When this version was put in place; the files' time stamps.
    pub modified: SystemTime,
}

/// Files in memory that are replaced as a whole.
#[derive(Debug)]
pub struct MemoryTree {
    version: ArcSwap<MemoryVersion>,
    replaced: Notify,
}

impl MemoryTree {
    /// A tree with this top directory.
    pub fn new(root: MemoryNode) -> Self {
        Self {
            version: ArcSwap::from_pointee(MemoryVersion {
                root,
                modified: SystemTime::now(),
            }),
            replaced: Notify::new(),
        }
    }

    /// A tree of the given files: see [`MemoryNode::from_files`].
    ///
    /// # Errors
    /// As [`MemoryNode::from_files`].
    pub fn from_files<P, I>(files: I) -> Result<Self, PathError>
    where
        P: Into<String>,
        I: IntoIterator<Item = (P, Bytes)>,
    {
        MemoryNode::from_files(files).map(Self::new)
    }

    /// Puts `root` in the place of all files there were, at once. The same content is left alone,
    /// time stamps included.
    pub fn replace(&self, root: MemoryNode) {
        if self.version.load().root != root {
            self.version.store(Arc::new(MemoryVersion {
                root,
                modified: SystemTime::now(),
            }));
            self.replaced.notify_waiters();
        }
    }

    /// The files as they are now.
    pub fn version(&self) -> Arc<MemoryVersion> {
        self.version.load_full()
    }

    /// Waits until the files are others than those seen last. Cancel-safe.
    pub async fn newer_than(&self, seen: &Arc<MemoryVersion>) -> Arc<MemoryVersion> {
        loop {
            let mut replaced = std::pin::pin!(self.replaced.notified());
            // Before the look: a replacement right after it must not be missed.
            replaced.as_mut().enable();
            let version = self.version();
            if !Arc::ptr_eq(&version, seen) {
                return version;
            }
            replaced.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &'static str)]) -> Result<MemoryNode, PathError> {
        MemoryNode::from_files(
            files
                .iter()
                .map(|(path, data)| (*path, Bytes::from_static(data.as_bytes()))),
        )
    }

    #[test]
    fn paths_make_directories() {
        let root = tree(&[("a", "1"), ("dir/b", "2"), ("dir/sub/c", "3")]).unwrap();
        for (path, want) in [("a", "1"), ("/dir/b", "2"), ("dir//sub/./c", "3")] {
            assert_eq!(
                root.find(path),
                Some(&MemoryNode::File(Bytes::from(want))),
                "{path}"
            );
        }
        for path in ["b", "a/b", "dir/../a", "dir/sub/c/d"] {
            assert_eq!(root.find(path), None, "{path}");
        }
    }

    #[test]
    fn unusable_paths_are_errors() {
        for files in [
            &[("", "1")][..],
            &[("a/../b", "1")],
            &[("a", "1"), ("a/b", "2")],
            &[("a/b", "1"), ("a", "2")],
        ] {
            assert!(tree(files).is_err(), "{files:?}");
        }
    }

    #[test]
    fn an_old_version_outlives_its_replacement() {
        let tree_ = MemoryTree::new(tree(&[("a", "old")]).unwrap());
        let old = tree_.version();
        tree_.replace(tree(&[("a", "new")]).unwrap());
        assert_eq!(
            old.root.find("a"),
            Some(&MemoryNode::File(Bytes::from("old")))
        );
        assert_eq!(
            tree_.version().root.find("a"),
            Some(&MemoryNode::File(Bytes::from("new")))
        );
    }

    #[test]
    fn replacing_with_the_same_content_keeps_the_version() {
        let tree_ = MemoryTree::new(tree(&[("a", "1")]).unwrap());
        let before = tree_.version();
        tree_.replace(tree(&[("a", "1")]).unwrap());
        assert!(Arc::ptr_eq(&before, &tree_.version()));
    }
}
