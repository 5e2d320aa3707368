//! `wasi:filesystem` 0.2 over [`Mounts`].
//!
//! A descriptor of the guest is a number in its table. Behind it stands either wasmtime-wasi's own
//! descriptor of a host file, to which every call is handed on, or a [`Node`] of ours, which is
//! read-only and answered from memory.
//!
//! Invariant: a guest holds at most [`MAX_DESCRIPTORS`] descriptors; one more is an error it can
//! deal with (`quota`), never a trap and never the agent's last file descriptor.

use bytes::Bytes;
use wasmtime::component::{HasData, Linker, Resource, ResourceTableError};
use wasmtime_wasi::filesystem::{Descriptor, File, WasiFilesystemCtxView};
use wasmtime_wasi::p2::bindings::filesystem::preopens;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    self, Advice, DescriptorFlags, DescriptorStat, DescriptorType, DirectoryEntry,
    DirectoryEntryStream, ErrorCode, HostDescriptor, HostDirectoryEntryStream, MetadataHashValue,
    NewTimestamp, OpenFlags, PathFlags,
};
use wasmtime_wasi::p2::pipe::MemoryInputPipe;
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, FsError, FsResult};

use super::mounts::{Mounts, Preopen};
use super::node::{Found, Node};

/// Descriptors one instance may hold.
pub const MAX_DESCRIPTORS: usize = 1024;

/// Bytes read from memory in one call.
const READ_SIZE: usize = 64 * 1024;

/// What the file calls of one store work on.
pub struct FilesystemView<'a> {
    /// wasmtime-wasi's view, for the host's files.
    pub host: WasiFilesystemCtxView<'a>,
    /// What is mounted.
    pub mounts: &'a Mounts,
    /// How many descriptors the guest holds.
    pub open: &'a mut usize,
}

/// Names [`FilesystemView`] as the data of the file interfaces.
struct HasFilesystem;

impl HasData for HasFilesystem {
    type Data<'a> = FilesystemView<'a>;
}

/// Links all of `wasi:filesystem` 0.2.
///
/// # Errors
/// If one of the interfaces is linked already.
pub fn add_to_linker<T: Send + 'static>(
    linker: &mut Linker<T>,
    view: fn(&mut T) -> FilesystemView<'_>,
) -> wasmtime::Result<()> {
    preopens::add_to_linker::<T, HasFilesystem>(linker, view)?;
    types::add_to_linker::<T, HasFilesystem>(linker, view)
}

type Handle = Resource<Descriptor>;

/// The entries of a directory of ours that are still to be read.
struct Entries(std::vec::IntoIter<DirectoryEntry>);

impl FilesystemView<'_> {
    /// The node behind a descriptor, if it is one of ours.
    fn node(&self, fd: &Handle) -> Option<Node> {
        self.host
            .table
            .get::<Node>(&Resource::new_borrow(fd.rep()))
            .ok()
            .cloned()
    }

    fn push_node(&mut self, node: Node) -> Result<Handle, ResourceTableError> {
        let handle = self.host.table.push(node)?;
        *self.open += 1;
        Ok(Resource::new_own(handle.rep()))
    }

    fn push_host(&mut self, descriptor: Descriptor) -> Result<Handle, ResourceTableError> {
        let handle = self.host.table.push(descriptor)?;
        *self.open += 1;
        Ok(handle)
    }

    fn check_room(&self) -> FsResult<()> {
        if *self.open < MAX_DESCRIPTORS {
            Ok(())
        } else {
            Err(ErrorCode::Quota.into())
        }
    }

    /// The status of a host file that has no descriptor.
    async fn stat_host(&mut self, file: File) -> FsResult<DescriptorStat> {
        let handle = self.host.table.push(Descriptor::File(file))?;
        let stat = self.host.stat(Resource::new_borrow(handle.rep())).await;
        self.host.table.delete(handle)?;
        stat
    }

    fn open_found(
        &mut self,
        found: Found,
        how: OpenFlags,
        mode: DescriptorFlags,
    ) -> FsResult<Handle> {
        if how.contains(OpenFlags::EXCLUSIVE) {
            return Err(ErrorCode::Exist.into());
        }
        let directory =
            matches!(&found, Found::Ours(node) if node.kind() == DescriptorType::Directory);
        if how.contains(OpenFlags::DIRECTORY) && !directory {
            return Err(ErrorCode::NotDirectory.into());
        }
        match found {
            Found::Ours(node) => {
                let writes = DescriptorFlags::WRITE | DescriptorFlags::MUTATE_DIRECTORY;
                if mode.intersects(writes) || how.contains(OpenFlags::TRUNCATE) {
                    return Err(ErrorCode::ReadOnly.into());
                }
                Ok(self.push_node(node)?)
            }
            Found::Host(file) => {
                let read_only = file.perms.write_not_permitted();
                let writing =
                    mode.contains(DescriptorFlags::WRITE) || how.contains(OpenFlags::TRUNCATE);
                if writing && read_only {
                    return Err(ErrorCode::ReadOnly.into());
                }
                if how.contains(OpenFlags::TRUNCATE) {
                    file.file.set_len(0).map_err(ErrorCode::from)?;
                }
                Ok(self.push_host(Descriptor::File(file))?)
            }
        }
    }
}

fn read_only<T>() -> FsResult<T> {
    Err(ErrorCode::ReadOnly.into())
}

impl preopens::Host for FilesystemView<'_> {
    fn get_directories(&mut self) -> wasmtime::Result<Vec<(Handle, String)>> {
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

impl types::Host for FilesystemView<'_> {
    fn convert_error_code(&mut self, error: FsError) -> wasmtime::Result<ErrorCode> {
        self.host.convert_error_code(error)
    }

    fn filesystem_error_code(
        &mut self,
        error: Resource<wasmtime::Error>,
    ) -> wasmtime::Result<Option<ErrorCode>> {
        self.host.filesystem_error_code(error)
    }
}

impl HostDescriptor for FilesystemView<'_> {
    async fn advise(&mut self, fd: Handle, offset: u64, len: u64, advice: Advice) -> FsResult<()> {
        match self.node(&fd) {
            Some(node) => Ok(node.data().map(|_| ())?),
            None => self.host.advise(fd, offset, len, advice).await,
        }
    }

    async fn sync_data(&mut self, fd: Handle) -> FsResult<()> {
        match self.node(&fd) {
            Some(_) => Ok(()),
            None => self.host.sync_data(fd).await,
        }
    }

    async fn sync(&mut self, fd: Handle) -> FsResult<()> {
        match self.node(&fd) {
            Some(_) => Ok(()),
            None => self.host.sync(fd).await,
        }
    }

    async fn get_flags(&mut self, fd: Handle) -> FsResult<DescriptorFlags> {
        match self.node(&fd) {
            Some(_) => Ok(DescriptorFlags::READ),
            None => self.host.get_flags(fd).await,
        }
    }

    async fn get_type(&mut self, fd: Handle) -> FsResult<DescriptorType> {
        match self.node(&fd) {
            Some(node) => Ok(node.kind()),
            None => self.host.get_type(fd).await,
        }
    }

    async fn set_size(&mut self, fd: Handle, size: u64) -> FsResult<()> {
        match self.node(&fd) {
            Some(_) => read_only(),
            None => self.host.set_size(fd, size).await,
        }
    }

    async fn set_times(
        &mut self,
        fd: Handle,
        accessed: NewTimestamp,
        modified: NewTimestamp,
    ) -> FsResult<()> {
        match self.node(&fd) {
            Some(_) => read_only(),
            None => self.host.set_times(fd, accessed, modified).await,
        }
    }

    async fn read(&mut self, fd: Handle, len: u64, offset: u64) -> FsResult<(Vec<u8>, bool)> {
        let Some(node) = self.node(&fd) else {
            return self.host.read(fd, len, offset).await;
        };
        let rest = from_offset(node.data()?, offset);
        let len = usize::try_from(len)
            .unwrap_or(usize::MAX)
            .min(READ_SIZE)
            .min(rest.len());
        Ok((rest.slice(..len).into(), len == rest.len()))
    }

    async fn write(&mut self, fd: Handle, data: Vec<u8>, offset: u64) -> FsResult<u64> {
        match self.node(&fd) {
            Some(_) => read_only(),
            None => self.host.write(fd, data, offset).await,
        }
    }

    async fn read_directory(&mut self, fd: Handle) -> FsResult<Resource<DirectoryEntryStream>> {
        let Some(node) = self.node(&fd) else {
            return self.host.read_directory(fd).await;
        };
        let entries = self.host.table.push(Entries(node.entries()?.into_iter()))?;
        Ok(Resource::new_own(entries.rep()))
    }

    async fn create_directory_at(&mut self, fd: Handle, path: String) -> FsResult<()> {
        match self.node(&fd) {
            Some(_) => read_only(),
            None => self.host.create_directory_at(fd, path).await,
        }
    }

    async fn stat(&mut self, fd: Handle) -> FsResult<DescriptorStat> {
        match self.node(&fd) {
            Some(node) => Ok(node.stat()),
            None => self.host.stat(fd).await,
        }
    }

    async fn stat_at(
        &mut self,
        fd: Handle,
        flags: PathFlags,
        path: String,
    ) -> FsResult<DescriptorStat> {
        let Some(node) = self.node(&fd) else {
            return self.host.stat_at(fd, flags, path).await;
        };
        match node.find(&path)? {
            Found::Ours(node) => Ok(node.stat()),
            Found::Host(file) => self.stat_host(file).await,
        }
    }

    async fn set_times_at(
        &mut self,
        fd: Handle,
        flags: PathFlags,
        path: String,
        accessed: NewTimestamp,
        modified: NewTimestamp,
    ) -> FsResult<()> {
        match self.node(&fd) {
            Some(_) => read_only(),
            None => {
                self.host
                    .set_times_at(fd, flags, path, accessed, modified)
                    .await
            }
        }
    }

    async fn link_at(
        &mut self,
        fd: Handle,
        flags: PathFlags,
        path: String,
        new_fd: Handle,
        new_path: String,
    ) -> FsResult<()> {
        match self.node(&fd).or_else(|| self.node(&new_fd)) {
            Some(_) => read_only(),
            None => self.host.link_at(fd, flags, path, new_fd, new_path).await,
        }
    }

    async fn open_at(
        &mut self,
        fd: Handle,
        flags: PathFlags,
        path: String,
        how: OpenFlags,
        mode: DescriptorFlags,
    ) -> FsResult<Handle> {
        self.check_room()?;
        let Some(node) = self.node(&fd) else {
            let opened = self.host.open_at(fd, flags, path, how, mode).await?;
            *self.open += 1;
            return Ok(opened);
        };
        match node.find(&path) {
            Ok(found) => self.open_found(found, how, mode),
            Err(ErrorCode::NoEntry) if how.contains(OpenFlags::CREATE) => read_only(),
            Err(code) => Err(code.into()),
        }
    }

    fn drop(&mut self, fd: Handle) -> wasmtime::Result<()> {
        *self.open = self.open.saturating_sub(1);
        match self.node(&fd) {
            Some(_) => {
                self.host
                    .table
                    .delete::<Node>(Resource::new_own(fd.rep()))?;
                Ok(())
            }
            None => HostDescriptor::drop(&mut self.host, fd),
        }
    }

    async fn readlink_at(&mut self, fd: Handle, path: String) -> FsResult<String> {
        match self.node(&fd) {
            // There are no symbolic links among ours.
            Some(node) => Err(node.find(&path).err().unwrap_or(ErrorCode::Invalid).into()),
            None => self.host.readlink_at(fd, path).await,
        }
    }

    async fn remove_directory_at(&mut self, fd: Handle, path: String) -> FsResult<()> {
        match self.node(&fd) {
            Some(_) => read_only(),
            None => self.host.remove_directory_at(fd, path).await,
        }
    }

    async fn rename_at(
        &mut self,
        fd: Handle,
        path: String,
        new_fd: Handle,
        new_path: String,
    ) -> FsResult<()> {
        match self.node(&fd).or_else(|| self.node(&new_fd)) {
            Some(_) => read_only(),
            None => self.host.rename_at(fd, path, new_fd, new_path).await,
        }
    }

    async fn symlink_at(&mut self, fd: Handle, target: String, path: String) -> FsResult<()> {
        match self.node(&fd) {
            Some(_) => read_only(),
            None => self.host.symlink_at(fd, target, path).await,
        }
    }

    async fn unlink_file_at(&mut self, fd: Handle, path: String) -> FsResult<()> {
        match self.node(&fd) {
            Some(_) => read_only(),
            None => self.host.unlink_file_at(fd, path).await,
        }
    }

    fn read_via_stream(&mut self, fd: Handle, offset: u64) -> FsResult<Resource<DynInputStream>> {
        let Some(node) = self.node(&fd) else {
            return self.host.read_via_stream(fd, offset);
        };
        let rest = MemoryInputPipe::new(from_offset(node.data()?, offset));
        Ok(self.host.table.push(Box::new(rest) as DynInputStream)?)
    }

    fn write_via_stream(&mut self, fd: Handle, offset: u64) -> FsResult<Resource<DynOutputStream>> {
        match self.node(&fd) {
            Some(_) => read_only(),
            None => self.host.write_via_stream(fd, offset),
        }
    }

    fn append_via_stream(&mut self, fd: Handle) -> FsResult<Resource<DynOutputStream>> {
        match self.node(&fd) {
            Some(_) => read_only(),
            None => self.host.append_via_stream(fd),
        }
    }

    async fn is_same_object(&mut self, a: Handle, b: Handle) -> wasmtime::Result<bool> {
        match (self.node(&a), self.node(&b)) {
            (Some(a), Some(b)) => {
                let (a, b) = (a.hash(), b.hash());
                Ok((a.lower, a.upper) == (b.lower, b.upper))
            }
            (None, None) => self.host.is_same_object(a, b).await,
            _ => Ok(false),
        }
    }

    async fn metadata_hash(&mut self, fd: Handle) -> FsResult<MetadataHashValue> {
        match self.node(&fd) {
            Some(node) => Ok(node.hash()),
            None => self.host.metadata_hash(fd).await,
        }
    }

    async fn metadata_hash_at(
        &mut self,
        fd: Handle,
        flags: PathFlags,
        path: String,
    ) -> FsResult<MetadataHashValue> {
        let Some(node) = self.node(&fd) else {
            return self.host.metadata_hash_at(fd, flags, path).await;
        };
        match node.find(&path)? {
            Found::Ours(node) => Ok(node.hash()),
            Found::Host(file) => {
                let handle = self.host.table.push(Descriptor::File(file))?;
                let hash = self
                    .host
                    .metadata_hash(Resource::new_borrow(handle.rep()))
                    .await;
                self.host.table.delete(handle)?;
                hash
            }
        }
    }
}

fn from_offset(data: &Bytes, offset: u64) -> Bytes {
    data.slice(
        usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(data.len())..,
    )
}

impl HostDirectoryEntryStream for FilesystemView<'_> {
    async fn read_directory_entry(
        &mut self,
        stream: Resource<DirectoryEntryStream>,
    ) -> FsResult<Option<DirectoryEntry>> {
        match self
            .host
            .table
            .get_mut::<Entries>(&Resource::new_borrow(stream.rep()))
        {
            Ok(entries) => Ok(entries.0.next()),
            Err(_) => self.host.read_directory_entry(stream).await,
        }
    }

    fn drop(&mut self, stream: Resource<DirectoryEntryStream>) -> wasmtime::Result<()> {
        let ours = Resource::<Entries>::new_own(stream.rep());
        if self.host.table.get(&ours).is_ok() {
            self.host.table.delete(ours)?;
            return Ok(());
        }
        HostDirectoryEntryStream::drop(&mut self.host, stream)
    }
}
