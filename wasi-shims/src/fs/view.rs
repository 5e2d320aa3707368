//! What the file calls of every version of WASI work on.
//!
//! A descriptor of the guest is a number in its table. Behind it stands either wasmtime-wasi's own
//! descriptor of a host file, to which every call is handed on, or a [`Node`] of ours, which is
//! read-only and answered from memory.
//!
//! Invariant: a guest holds at most [`MAX_DESCRIPTORS`] descriptors; one more is an error it can
//! deal with, never a trap and never the agent's last file descriptor.

use std::sync::Arc;

use tokio::sync::Semaphore;
use wasmtime::component::{HasData, Linker, Resource, ResourceTableError};
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystemCtxView};

use super::mounts::{Mounts, Preopen};
use super::node::{Denied, Node};
use super::{p2, p3};

/// Descriptors one instance may hold.
pub const MAX_DESCRIPTORS: usize = 1024;

/// What the file calls of one store work on.
pub struct FilesystemView<'a> {
    /// wasmtime-wasi's view, for the host's files.
    pub host: WasiFilesystemCtxView<'a>,
    /// What is mounted.
    pub mounts: &'a Mounts,
    /// How many descriptors the guest holds.
    pub open: &'a mut usize,
    /// Places for listings of host directories.
    pub listings: &'a Arc<Semaphore>,
}

/// A store's data that has files.
pub trait HasFiles: Send + 'static {
    /// The files.
    fn files(&mut self) -> FilesystemView<'_>;
}

/// Names [`FilesystemView`] as the data of the file interfaces.
pub(super) struct HasFilesystem;

impl HasData for HasFilesystem {
    type Data<'a> = FilesystemView<'a>;
}

/// Links all of `wasi:filesystem`, 0.2 and 0.3.
///
/// # Errors
/// If one of the interfaces is linked already.
pub fn add_to_linker<T: HasFiles>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    p2::add_to_linker(linker)?;
    p3::add_to_linker(linker)
}

pub(super) type Handle = Resource<Descriptor>;

impl FilesystemView<'_> {
    /// The node behind a descriptor, if it is one of ours.
    pub(super) fn node(&self, fd: &Handle) -> Option<Node> {
        self.host
            .table
            .get::<Node>(&Resource::new_borrow(fd.rep()))
            .ok()
            .cloned()
    }

    pub(super) fn push_node(&mut self, node: Node) -> Result<Handle, ResourceTableError> {
        let handle = self.host.table.push(node)?;
        *self.open += 1;
        Ok(Resource::new_own(handle.rep()))
    }

    pub(super) fn push_host(
        &mut self,
        descriptor: Descriptor,
    ) -> Result<Handle, ResourceTableError> {
        let handle = self.host.table.push(descriptor)?;
        *self.open += 1;
        Ok(handle)
    }

    pub(super) fn check_room(&self) -> Result<(), Denied> {
        if *self.open < MAX_DESCRIPTORS {
            Ok(())
        } else {
            Err(Denied::Quota)
        }
    }

    /// Forgets a descriptor.
    pub(super) fn close(&mut self, fd: Handle) -> wasmtime::Result<()> {
        *self.open = self.open.saturating_sub(1);
        match self.node(&fd) {
            Some(_) => drop(
                self.host
                    .table
                    .delete::<Node>(Resource::new_own(fd.rep()))?,
            ),
            None => drop(self.host.table.delete(fd)?),
        }
        Ok(())
    }

    /// A descriptor of each directory that the guest has from the start.
    pub(super) fn preopens(&mut self) -> wasmtime::Result<Vec<(Handle, String)>> {
        let mounts = self.mounts;
        let mut directories = Vec::new();
        for (path, preopen) in mounts.preopens() {
            let handle = match preopen {
                Preopen::Host(dir) => self.push_host(Descriptor::Dir(dir.clone()))?,
                Preopen::Memory(tree) => self.push_node(Node::Directory {
                    tree: tree.clone(),
                    path: String::new(),
                })?,
                Preopen::Files(files) => self.push_node(Node::Files(files.clone()))?,
            };
            directories.push((handle, path.to_owned()));
        }
        Ok(directories)
    }
}
