//! `wasi:filesystem` 0.2.

use std::collections::VecDeque;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::FileType;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::filesystem::{Descriptor, File};
use wasmtime_wasi::p2::bindings::clocks::wall_clock::Datetime;
use wasmtime_wasi::p2::bindings::filesystem::preopens;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    self, Advice, DescriptorFlags, DescriptorStat, DescriptorType, DirectoryEntry,
    DirectoryEntryStream, ErrorCode, HostDescriptor, HostDirectoryEntryStream, MetadataHashValue,
    NewTimestamp, OpenFlags, PathFlags,
};
use wasmtime_wasi::p2::pipe::MemoryInputPipe;
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, FsError, FsResult};

use super::listing::{Entry, Listing, ListingError};
use super::node::{Denied, Found, How, Kind, Node, Stat};
use super::view::{FilesystemView, Handle, HasFiles, HasFilesystem};

/// Bytes read from memory in one call.
const READ_SIZE: usize = 64 * 1024;

pub(super) fn add_to_linker<T: HasFiles>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    preopens::add_to_linker::<T, HasFilesystem>(linker, T::files)?;
    types::add_to_linker::<T, HasFilesystem>(linker, T::files)
}

/// The entries of a directory that are still to be told.
struct Entries {
    read: VecDeque<DirectoryEntry>,
    /// Of a host directory, what is not read yet.
    rest: Option<Listing>,
}

impl From<Entry> for DirectoryEntry {
    fn from(entry: Entry) -> Self {
        Self {
            type_: match entry.kind {
                FileType::RegularFile => DescriptorType::RegularFile,
                FileType::Directory => DescriptorType::Directory,
                FileType::Symlink => DescriptorType::SymbolicLink,
                FileType::CharacterDevice => DescriptorType::CharacterDevice,
                FileType::BlockDevice => DescriptorType::BlockDevice,
                // As wasmtime-wasi tells them.
                _ => DescriptorType::Unknown,
            },
            name: entry.name,
        }
    }
}

impl From<ListingError> for FsError {
    fn from(error: ListingError) -> Self {
        match error {
            ListingError::Io(error) => error.into(),
            ListingError::Name => ErrorCode::IllegalByteSequence.into(),
        }
    }
}

impl From<Denied> for FsError {
    fn from(denied: Denied) -> Self {
        let code = match denied {
            Denied::Exist => ErrorCode::Exist,
            Denied::Invalid => ErrorCode::Invalid,
            Denied::IsDirectory => ErrorCode::IsDirectory,
            Denied::NoEntry => ErrorCode::NoEntry,
            Denied::NotDirectory => ErrorCode::NotDirectory,
            Denied::NotPermitted => ErrorCode::NotPermitted,
            Denied::Quota => ErrorCode::Quota,
            Denied::ReadOnly => ErrorCode::ReadOnly,
        };
        code.into()
    }
}

const fn kind(kind: Kind) -> DescriptorType {
    match kind {
        Kind::File => DescriptorType::RegularFile,
        Kind::Directory => DescriptorType::Directory,
    }
}

fn stat(stat: &Stat) -> DescriptorStat {
    let modified = stat.modified.map(datetime);
    DescriptorStat {
        type_: kind(stat.kind),
        link_count: 1,
        size: stat.size,
        data_access_timestamp: modified,
        data_modification_timestamp: modified,
        status_change_timestamp: modified,
    }
}

fn datetime(time: SystemTime) -> Datetime {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Datetime {
        seconds: since.as_secs(),
        nanoseconds: since.subsec_nanos(),
    }
}

fn hash(node: &Node) -> MetadataHashValue {
    let (lower, upper) = node.hash();
    MetadataHashValue { lower, upper }
}

fn read_only<T>() -> FsResult<T> {
    Err(Denied::ReadOnly.into())
}

impl FilesystemView<'_> {
    /// The status of a host file that has no descriptor.
    async fn stat_host(&mut self, file: File) -> FsResult<DescriptorStat> {
        let handle = self.host.table.push(Descriptor::File(file))?;
        let stat = self.host.stat(Resource::new_borrow(handle.rep())).await;
        self.host.table.delete(handle)?;
        stat
    }
}

impl preopens::Host for FilesystemView<'_> {
    fn get_directories(&mut self) -> wasmtime::Result<Vec<(Handle, String)>> {
        self.preopens()
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
            Some(node) => Ok(kind(node.kind())),
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
        let rest = node.data_from(offset)?;
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
        let listing = match self.node(&fd) {
            Some(node) => {
                let entries = node.entries()?.into_iter();
                let entries = entries.map(|(of, name)| DirectoryEntry {
                    type_: kind(of),
                    name,
                });
                Entries {
                    read: entries.collect(),
                    rest: None,
                }
            }
            None => {
                let Descriptor::Dir(directory) = self.host.table.get(&fd)? else {
                    return Err(ErrorCode::NotDirectory.into());
                };
                Entries {
                    read: VecDeque::new(),
                    rest: Some(Listing::new(directory.dir.clone(), self.listings)?),
                }
            }
        };
        let listing = self.host.table.push(listing)?;
        Ok(Resource::new_own(listing.rep()))
    }

    async fn create_directory_at(&mut self, fd: Handle, path: String) -> FsResult<()> {
        match self.node(&fd) {
            Some(_) => read_only(),
            None => self.host.create_directory_at(fd, path).await,
        }
    }

    async fn stat(&mut self, fd: Handle) -> FsResult<DescriptorStat> {
        match self.node(&fd) {
            Some(node) => Ok(stat(&node.stat())),
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
            Found::Ours(node) => Ok(stat(&node.stat())),
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
        let truncate = how.contains(OpenFlags::TRUNCATE);
        let how = How {
            create: how.contains(OpenFlags::CREATE),
            directory: how.contains(OpenFlags::DIRECTORY),
            exclusive: how.contains(OpenFlags::EXCLUSIVE),
            truncate,
            write: mode.intersects(DescriptorFlags::WRITE | DescriptorFlags::MUTATE_DIRECTORY),
        };
        match node.open(&path, how)? {
            Found::Ours(node) => Ok(self.push_node(node)?),
            Found::Host(file) => {
                if truncate {
                    file.file.set_len(0).map_err(ErrorCode::from)?;
                }
                Ok(self.push_host(Descriptor::File(file))?)
            }
        }
    }

    fn drop(&mut self, fd: Handle) -> wasmtime::Result<()> {
        self.close(fd)
    }

    async fn readlink_at(&mut self, fd: Handle, path: String) -> FsResult<String> {
        match self.node(&fd) {
            // There are no symbolic links among ours.
            Some(node) => Err(node.find(&path).err().unwrap_or(Denied::Invalid).into()),
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
        let rest = MemoryInputPipe::new(node.data_from(offset)?);
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
            (Some(a), Some(b)) => Ok(a.hash() == b.hash()),
            (None, None) => self.host.is_same_object(a, b).await,
            _ => Ok(false),
        }
    }

    async fn metadata_hash(&mut self, fd: Handle) -> FsResult<MetadataHashValue> {
        match self.node(&fd) {
            Some(node) => Ok(hash(&node)),
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
            Found::Ours(node) => Ok(hash(&node)),
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

impl HostDirectoryEntryStream for FilesystemView<'_> {
    async fn read_directory_entry(
        &mut self,
        stream: Resource<DirectoryEntryStream>,
    ) -> FsResult<Option<DirectoryEntry>> {
        let entries = Resource::<Entries>::new_borrow(stream.rep());
        let entries = self.host.table.get_mut(&entries)?;
        if entries.read.is_empty()
            && let Some(listing) = entries.rest.take()
        {
            let (rest, read) = listing.next().await;
            entries.read = read?.into_iter().map(DirectoryEntry::from).collect();
            // None are the end.
            entries.rest = rest.filter(|_| !entries.read.is_empty());
        }
        Ok(entries.read.pop_front())
    }

    fn drop(&mut self, stream: Resource<DirectoryEntryStream>) -> wasmtime::Result<()> {
        let entries = Resource::<Entries>::new_own(stream.rep());
        self.host.table.delete(entries)?;
        Ok(())
    }
}
