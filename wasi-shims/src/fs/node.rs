//! Files and directories that are not the host's own, and how paths are walked in them.
//!
//! It is the same for every version of WASI: `p2.rs` and `p3.rs` put it in the words of theirs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use wasmtime_wasi::filesystem::File;

use super::memory::{MemoryNode, MemoryTree};
use super::mounts::FileMount;

/// An open file or directory of ours.
#[derive(Clone)]
pub(super) enum Node {
    /// A file, with the content it had when it was opened.
    File { data: Bytes, modified: SystemTime },
    /// A directory of a tree: looked up anew by every call, so that updates show.
    Directory { tree: Arc<MemoryTree>, path: String },
    /// A directory made up for single-file mounts.
    Files(Arc<BTreeMap<String, FileMount>>),
}

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
}

/// Why something can't be done with what is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    Exist,
    Invalid,
    IsDirectory,
    NoEntry,
    NotDirectory,
    /// The path leads out.
    NotPermitted,
    /// The guest holds as many descriptors as it may.
    Quota,
    ReadOnly,
}

/// What is known of a node.
pub(super) struct Stat {
    pub(super) kind: Kind,
    pub(super) size: u64,
    pub(super) modified: Option<SystemTime>,
}

/// How a node is to be opened.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct How {
    pub(super) create: bool,
    pub(super) directory: bool,
    pub(super) exclusive: bool,
    pub(super) truncate: bool,
    /// Its content is to be changed, or what is below it.
    pub(super) write: bool,
}

/// What a path leads to.
pub(super) enum Found {
    Ours(Node),
    Host(File),
}

impl Node {
    /// What lies at `path`, relative to this directory.
    pub(super) fn find(&self, path: &str) -> Result<Found, Denied> {
        match self {
            Self::File { .. } => Err(Denied::NotDirectory),
            Self::Directory { tree, path: base } => {
                let path = join(base, path)?;
                let version = tree.version();
                Ok(Found::Ours(
                    match version.root.find(&path).ok_or(Denied::NoEntry)? {
                        MemoryNode::File(data) => Self::File {
                            data: data.clone(),
                            modified: version.modified,
                        },
                        MemoryNode::Directory(_) => Self::Directory {
                            tree: tree.clone(),
                            path,
                        },
                    },
                ))
            }
            Self::Files(files) => {
                let path = join("", path)?;
                if path.is_empty() {
                    return Ok(Found::Ours(self.clone()));
                }
                Ok(match files.get(&path).ok_or(Denied::NoEntry)? {
                    FileMount::Host(file) => Found::Host(file.clone()),
                    FileMount::Memory { data, tree } => Found::Ours(Self::File {
                        data: data.clone(),
                        modified: tree.version().modified,
                    }),
                })
            }
        }
    }

    /// What lies at `path`, opened.
    pub(super) fn open(&self, path: &str, how: How) -> Result<Found, Denied> {
        let found = match self.find(path) {
            Err(Denied::NoEntry) if how.create => return Err(Denied::ReadOnly),
            found => found?,
        };
        if how.exclusive {
            return Err(Denied::Exist);
        }
        let directory = matches!(&found, Found::Ours(node) if node.kind() == Kind::Directory);
        if how.directory && !directory {
            return Err(Denied::NotDirectory);
        }
        let writable = match &found {
            Found::Ours(_) => false,
            Found::Host(file) => !file.perms.write_not_permitted(),
        };
        if (how.write || how.truncate) && !writable {
            return Err(Denied::ReadOnly);
        }
        Ok(found)
    }

    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::File { .. } => Kind::File,
            Self::Directory { .. } | Self::Files(_) => Kind::Directory,
        }
    }

    /// The content, if this is a file.
    pub(super) fn data(&self) -> Result<&Bytes, Denied> {
        match self {
            Self::File { data, .. } => Ok(data),
            Self::Directory { .. } | Self::Files(_) => Err(Denied::IsDirectory),
        }
    }

    /// The content from an offset on, if this is a file.
    pub(super) fn data_from(&self, offset: u64) -> Result<Bytes, Denied> {
        let data = self.data()?;
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        Ok(data.slice(offset.min(data.len())..))
    }

    pub(super) fn stat(&self) -> Stat {
        let (size, modified) = match self {
            Self::File { data, modified } => (data.len() as u64, Some(*modified)),
            Self::Directory { tree, .. } => (0, Some(tree.version().modified)),
            Self::Files(_) => (0, None),
        };
        Stat {
            kind: self.kind(),
            size,
            modified,
        }
    }

    /// Equal for the same file or directory, and different after an update of a file.
    pub(super) fn hash(&self) -> (u64, u64) {
        match self {
            Self::File { data, .. } => (data.as_ptr() as u64, data.len() as u64),
            Self::Directory { tree, path } => {
                let hasher = std::hash::BuildHasherDefault::<std::hash::DefaultHasher>::default();
                let hash = std::hash::BuildHasher::hash_one(&hasher, path);
                (Arc::as_ptr(tree) as u64, hash)
            }
            Self::Files(files) => (Arc::as_ptr(files) as u64, 0),
        }
    }

    /// The entries, if this is a directory.
    pub(super) fn entries(&self) -> Result<Vec<(Kind, String)>, Denied> {
        match self {
            Self::File { .. } => Err(Denied::NotDirectory),
            Self::Directory { tree, path } => match tree.version().root.find(path) {
                Some(MemoryNode::Directory(entries)) => Ok(entries
                    .iter()
                    .map(|(name, node)| entry(name, node))
                    .collect()),
                Some(MemoryNode::File(_)) => Err(Denied::NotDirectory),
                None => Err(Denied::NoEntry),
            },
            Self::Files(files) => Ok(files
                .keys()
                .map(|name| (Kind::File, name.clone()))
                .collect()),
        }
    }
}

fn entry(name: &str, node: &MemoryNode) -> (Kind, String) {
    let kind = match node {
        MemoryNode::File(_) => Kind::File,
        MemoryNode::Directory(_) => Kind::Directory,
    };
    (kind, name.to_owned())
}

/// Joins a relative path to a directory's; neither may lead above the top.
fn join(base: &str, path: &str) -> Result<String, Denied> {
    if path.starts_with('/') {
        return Err(Denied::NotPermitted);
    }
    if path.is_empty() {
        return Err(Denied::NoEntry);
    }
    let mut parts: Vec<&str> = base.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop().ok_or(Denied::NotPermitted)?;
            }
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Arc<MemoryTree> {
        let files = [
            ("a", Bytes::from_static(b"one")),
            ("dir/b", Bytes::from_static(b"two")),
        ];
        Arc::new(MemoryTree::from_files(files).unwrap())
    }

    fn read(node: &Node, path: &str) -> Result<Bytes, Denied> {
        match node.find(path)? {
            Found::Ours(node) => node.data().cloned(),
            Found::Host(_) => panic!("not a host file"),
        }
    }

    #[test]
    fn paths_are_walked_inside_the_tree_only() {
        let root = Node::Directory {
            tree: tree(),
            path: String::new(),
        };
        for (path, want) in [
            ("a", Ok("one")),
            ("./dir//b", Ok("two")),
            ("dir/../a", Ok("one")),
            ("dir", Err(Denied::IsDirectory)),
            ("nosuch", Err(Denied::NoEntry)),
            ("a/b", Err(Denied::NoEntry)),
            ("../a", Err(Denied::NotPermitted)),
            ("dir/../../a", Err(Denied::NotPermitted)),
            ("/a", Err(Denied::NotPermitted)),
            ("", Err(Denied::NoEntry)),
        ] {
            assert_eq!(read(&root, path), want.map(Bytes::from), "{path:?}");
        }
    }

    #[test]
    fn an_open_file_keeps_its_content_and_an_open_directory_follows() {
        let tree = tree();
        let root = Node::Directory {
            tree: tree.clone(),
            path: String::new(),
        };
        let Found::Ours(open) = root.find("a").unwrap() else {
            panic!("not ours")
        };
        let before = open.hash();
        tree.replace(MemoryNode::from_files([("a", Bytes::from_static(b"new"))]).unwrap());
        assert_eq!(open.data().unwrap(), "one");
        assert_eq!(read(&root, "a").unwrap(), "new");
        let Found::Ours(again) = root.find("a").unwrap() else {
            panic!("not ours")
        };
        assert_ne!(again.hash().0, before.0);
        assert_eq!(root.entries().unwrap().len(), 1);
    }
}
