//! `wasi:filesystem` over host directories and over trees in memory.
//!
//! - `mounts.rs`: what a guest may see; made once per container.
//! - `memory.rs`: files that exist only in memory, replaced as a whole.
//! - `node.rs`: an open file or directory of a tree.
//! - `listing.rs`: the entries of a host directory, as they are asked for.
//! - `view.rs`: what the calls of all versions work on; `p2.rs` and `p3.rs` are the calls.

mod listing;
mod memory;
mod mounts;
mod node;
mod p2;
mod p3;
mod view;

pub(crate) use listing::MAX_LISTINGS;
pub use memory::{MemoryNode, MemoryTree, MemoryVersion, PathError};
pub use mounts::{FileStamp, MountError, Mounts, OpenFile};
pub use view::{FilesystemView, HasFiles, MAX_DESCRIPTORS, add_to_linker};
