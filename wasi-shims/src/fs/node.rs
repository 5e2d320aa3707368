//! Files and directories that are not the host's own, and how paths are walked in them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use wasmtime_wasi::filesystem::File;
use wasmtime_wasi::p2::bindings::clocks::wall_clock::Datetime;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    DescriptorStat, DescriptorType, DirectoryEntry, ErrorCode, MetadataHashValue,
};

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

/// What a path leads to.
pub(super) enum Found {
    Ours(Node),
    Host(File),
}

impl Node {
    /// What lies at `path`, relative to this directory.
    pub(super) fn find(&self, path: &str) -> Result<Found, ErrorCode> {
        match self {
            Self::File { .. } => Err(ErrorCode::NotDirectory),
            Self::Directory { tree, path: base } => {
                let path = join(base, path)?;
                let version = tree.version();
                Ok(Found::Ours(
                    match version.root.find(&path).ok_or(ErrorCode::NoEntry)? {
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
                Ok(match files.get(&path).ok_or(ErrorCode::NoEntry)? {
                    FileMount::Host(file) => Found::Host(file.clone()),
                    FileMount::Memory { data, tree } => Found::Ours(Self::File {
                        data: data.clone(),
                        modified: tree.version().modified,
                    }),
                })
            }
        }
    }

    pub(super) fn kind(&self) -> DescriptorType {
        match self {
            Self::File { .. } => DescriptorType::RegularFile,
            Self::Directory { .. } | Self::Files(_) => DescriptorType::Directory,
        }
    }

    /// The content, if this is a file.
    pub(super) fn data(&self) -> Result<&Bytes, ErrorCode> {
        match self {
            Self::File { data, .. } => Ok(data),
            Self::Directory { .. } | Self::Files(_) => Err(ErrorCode::IsDirectory),
        }
    }

    pub(super) fn stat(&self) -> DescriptorStat {
        let (size, modified) = match self {
            Self::File { data, modified } => (data.len() as u64, Some(*modified)),
            Self::Directory { tree, .. } => (0, Some(tree.version().modified)),
            Self::Files(_) => (0, None),
        };
        let modified = modified.map(datetime);
        DescriptorStat {
            type_: self.kind(),
            link_count: 1,
            size,
            data_access_timestamp: modified,
            data_modification_timestamp: modified,
            status_change_timestamp: modified,
        }
    }

    /// Equal for the same file or directory, and different after an update of a file.
    pub(super) fn hash(&self) -> MetadataHashValue {
        let (lower, upper) = match self {
            Self::File { data, .. } => (data.as_ptr() as u64, data.len() as u64),
            Self::Directory { tree, path } => {
                let hasher = std::hash::BuildHasherDefault::<std::hash::DefaultHasher>::default();
                let hash = std::hash::BuildHasher::hash_one(&hasher, path);
                (Arc::as_ptr(tree) as u64, hash)
            }
            Self::Files(files) => (Arc::as_ptr(files) as u64, 0),
        };
        MetadataHashValue { lower, upper }
    }

    /// The entries, if this is a directory.
    pub(super) fn entries(&self) -> Result<Vec<DirectoryEntry>, ErrorCode> {
        match self {
            Self::File { .. } => Err(ErrorCode::NotDirectory),
            Self::Directory { tree, path } => match tree.version().root.find(path) {
                Some(MemoryNode::Directory(entries)) => Ok(entries
                    .iter()
                    .map(|(name, node)| entry(name, node))
                    .collect()),
                Some(MemoryNode::File(_)) => Err(ErrorCode::NotDirectory),
                None => Err(ErrorCode::NoEntry),
            },
            Self::Files(files) => Ok(files
                .keys()
                .map(|name| DirectoryEntry {
                    type_: DescriptorType::RegularFile,
                    name: name.clone(),
                })
                .collect()),
        }
    }
}

fn entry(name: &str, node: &MemoryNode) -> DirectoryEntry {
    let type_ = match node {
        MemoryNode::File(_) => DescriptorType::RegularFile,
        MemoryNode::Directory(_) => DescriptorType::Directory,
    };
    DirectoryEntry {
        type_,
        name: name.to_owned(),
    }
}

fn datetime(time: SystemTime) -> Datetime {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Datetime {
        seconds: since.as_secs(),
        nanoseconds: since.subsec_nanos(),
    }
}

/// Joins a relative path to a directory's; neither may lead above the top.
fn join(base: &str, path: &str) -> Result<String, ErrorCode> {
    if path.starts_with('/') {
        return Err(ErrorCode::NotPermitted);
    }
    if path.is_empty() {
        return Err(ErrorCode::NoEntry);
    }
    let mut parts: Vec<&str> = base.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop().ok_or(ErrorCode::NotPermitted)?;
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

    fn read(node: &Node, path: &str) -> Result<Bytes, ErrorCode> {
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
            ("dir", Err(ErrorCode::IsDirectory)),
            ("nosuch", Err(ErrorCode::NoEntry)),
            ("a/b", Err(ErrorCode::NoEntry)),
            ("../a", Err(ErrorCode::NotPermitted)),
            ("dir/../../a", Err(ErrorCode::NotPermitted)),
            ("/a", Err(ErrorCode::NotPermitted)),
            ("", Err(ErrorCode::NoEntry)),
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
        assert_ne!(again.hash().lower, before.lower);
        assert_eq!(root.entries().unwrap().len(), 1);
    }
}
