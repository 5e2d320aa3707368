//! `wasi:filesystem` over host directories and over trees in memory.
//!
//! - `mounts.rs`: what a guest may see; made once per container.
//! - `memory.rs`: files that exist only in memory, replaced as a whole.
//! - `node.rs`: an open file or directory of a tree.
//! - `view.rs`: the WASI calls.

mod memory;
mod mounts;
mod node;
mod view;

pub use memory::{MemoryNode, MemoryTree, MemoryVersion, PathError};
pub use mounts::{MountError, Mounts};
pub use view::{FilesystemView, MAX_DESCRIPTORS, add_to_linker};
