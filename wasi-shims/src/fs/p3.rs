//! `wasi:filesystem` 0.3.
//!
//! Calls run beside each other here, and the guest may drop one: what a call counts, it counts at once, so a dropped call
//! can cost the guest a descriptor of its own, and nobody else anything.

use std::collections::VecDeque;
use std::iter;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{SystemTime, UNIX_EPOCH};

use futures::FutureExt;
use futures::future::BoxFuture;
use rustix::fs::FileType;
use tokio::sync::oneshot;
use wasmtime::component::{
    Access, Accessor, Destination, FutureReader, Linker, Resource, StreamProducer, StreamReader,
    StreamResult, VecBuffer,
};
use wasmtime::{AsContextMut, StoreContextMut};
use wasmtime_wasi::filesystem::{Descriptor, File, WasiFilesystem, WasiFilesystemCtxView};
use wasmtime_wasi::p3::bindings::clocks::system_clock::Instant;
use wasmtime_wasi::p3::bindings::filesystem::preopens;
use wasmtime_wasi::p3::bindings::filesystem::types::{
    self, Advice, DescriptorFlags, DescriptorStat, DescriptorType, DirectoryEntry, ErrorCode,
    HostDescriptorWithStore, MetadataHashValue, NewTimestamp, OpenFlags, PathFlags,
};
use wasmtime_wasi::p3::filesystem::{FilesystemError, FilesystemResult};

use super::listing::{Entry, Listing, ListingError};
use super::node::{Denied, Found, How, Kind, Node, Stat};
use super::view::{FilesystemView, Handle, HasFiles, HasFilesystem};

/// How what a stream carries ended.
type Outcome = FutureReader<Result<(), ErrorCode>>;

pub(super) fn add_to_linker<T: HasFiles>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    preopens::add_to_linker::<T, HasFilesystem>(linker, T::files)?;
    types::add_to_linker::<T, HasFilesystem>(linker, T::files)
}

impl From<Denied> for ErrorCode {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Exist => Self::Exist,
            Denied::Invalid => Self::Invalid,
            Denied::IsDirectory => Self::IsDirectory,
            Denied::NoEntry => Self::NoEntry,
            Denied::NotDirectory => Self::NotDirectory,
            Denied::NotPermitted => Self::NotPermitted,
            Denied::Quota => Self::Quota,
            Denied::ReadOnly => Self::ReadOnly,
        }
    }
}

impl From<Denied> for FilesystemError {
    fn from(denied: Denied) -> Self {
        ErrorCode::from(denied).into()
    }
}

const fn kind(kind: Kind) -> DescriptorType {
    match kind {
        Kind::File => DescriptorType::RegularFile,
        Kind::Directory => DescriptorType::Directory,
    }
}

fn stat(stat: &Stat) -> DescriptorStat {
    let modified = stat.modified.map(instant);
    DescriptorStat {
        type_: kind(stat.kind),
        link_count: 1,
        size: stat.size,
        data_access_timestamp: modified,
        data_modification_timestamp: modified,
        status_change_timestamp: modified,
    }
}

fn instant(time: SystemTime) -> Instant {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Instant {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanoseconds: since.subsec_nanos(),
    }
}

fn hash(node: &Node) -> MetadataHashValue {
    let (lower, upper) = node.hash();
    MetadataHashValue { lower, upper }
}

fn read_only<T>() -> FilesystemResult<T> {
    Err(Denied::ReadOnly.into())
}

/// The node behind a descriptor, if it is one of ours.
fn node<T: HasFiles>(store: &Accessor<T, HasFilesystem>, fd: &Handle) -> Option<Node> {
    store.with(|mut store| store.get().node(fd))
}

fn host_view<T: HasFiles>(data: &mut T) -> WasiFilesystemCtxView<'_> {
    data.files().host
}

/// wasmtime-wasi's access to the same store, for the host's files.
fn host<T: HasFiles>(store: &Accessor<T, HasFilesystem>) -> Accessor<T, WasiFilesystem> {
    store.with_getter::<WasiFilesystem>(host_view::<T>)
}

/// The same for calls that do not wait.
fn host_access<'a, T: HasFiles>(
    store: &'a mut Access<'_, T, HasFilesystem>,
) -> Access<'a, T, WasiFilesystem> {
    Access::<T, WasiFilesystem>::new(store.as_context_mut(), host_view::<T>)
}

/// A descriptor of a host file for one call.
async fn with_host_file<T: HasFiles, R>(
    store: &Accessor<T, HasFilesystem>,
    file: File,
    call: impl AsyncFnOnce(Handle) -> FilesystemResult<R>,
) -> FilesystemResult<R> {
    let handle = store.with(|mut store| {
        let mut view = store.get();
        view.check_room()?;
        Ok::<_, FilesystemError>(view.push_host(Descriptor::File(file))?)
    })?;
    let answer = call(Resource::new_borrow(handle.rep())).await;
    store
        .with(|mut store| store.get().close(handle))
        .map_err(FilesystemError::trap)?;
    answer
}

/// A stream that ends at once, and why.
fn ended<T: HasFiles, R>(
    store: &mut Access<'_, T, HasFilesystem>,
    outcome: Result<(), ErrorCode>,
) -> wasmtime::Result<(StreamReader<R>, Outcome)>
where
    R: wasmtime::component::Lower + wasmtime::component::Lift + Send + Sync + 'static,
{
    let stream = StreamReader::new(&mut *store, iter::empty())?;
    Ok((stream, known(store, outcome)?))
}

/// A future whose outcome is known.
fn known<T: HasFiles>(
    store: &mut Access<'_, T, HasFilesystem>,
    outcome: Result<(), ErrorCode>,
) -> wasmtime::Result<Outcome> {
    FutureReader::new(store, async move { wasmtime::error::Ok(outcome) })
}

/// Refuses what a guest wants to write into a node of ours.
fn refuse_writes<T: HasFiles>(
    store: &mut Access<'_, T, HasFilesystem>,
    mut data: StreamReader<u8>,
) -> wasmtime::Result<Outcome> {
    data.close(&mut *store)?;
    known(store, Err(ErrorCode::ReadOnly))
}

impl preopens::Host for FilesystemView<'_> {
    fn get_directories(&mut self) -> wasmtime::Result<Vec<(Handle, String)>> {
        self.preopens()
    }
}

impl types::Host for FilesystemView<'_> {
    fn convert_error_code(&mut self, error: FilesystemError) -> wasmtime::Result<ErrorCode> {
        error.downcast()
    }
}

impl types::HostDescriptor for FilesystemView<'_> {
    fn drop(&mut self, fd: Handle) -> wasmtime::Result<()> {
        self.close(fd)
    }
}

impl<T: HasFiles> HostDescriptorWithStore<T> for HasFilesystem {
    fn read_via_stream(
        mut store: Access<'_, T, Self>,
        fd: Handle,
        offset: u64,
    ) -> wasmtime::Result<(StreamReader<u8>, Outcome)> {
        let Some(node) = store.get().node(&fd) else {
            let host = host_access(&mut store);
            return WasiFilesystem::read_via_stream(host, fd, offset);
        };
        match node.data_from(offset) {
            Ok(data) => {
                let stream = StreamReader::new(&mut store, data)?;
                Ok((stream, known(&mut store, Ok(()))?))
            }
            Err(denied) => ended(&mut store, Err(denied.into())),
        }
    }

    fn write_via_stream(
        mut store: Access<'_, T, Self>,
        fd: Handle,
        data: StreamReader<u8>,
        offset: u64,
    ) -> wasmtime::Result<Outcome> {
        if store.get().node(&fd).is_some() {
            return refuse_writes(&mut store, data);
        }
        let host = host_access(&mut store);
        WasiFilesystem::write_via_stream(host, fd, data, offset)
    }

    fn append_via_stream(
        mut store: Access<'_, T, Self>,
        fd: Handle,
        data: StreamReader<u8>,
    ) -> wasmtime::Result<Outcome> {
        if store.get().node(&fd).is_some() {
            return refuse_writes(&mut store, data);
        }
        let host = host_access(&mut store);
        WasiFilesystem::append_via_stream(host, fd, data)
    }

    async fn advise(
        store: &Accessor<T, Self>,
        fd: Handle,
        offset: u64,
        length: u64,
        advice: Advice,
    ) -> FilesystemResult<()> {
        match node(store, &fd) {
            Some(node) => Ok(node.data().map(|_| ())?),
            None => WasiFilesystem::advise(&host(store), fd, offset, length, advice).await,
        }
    }

    async fn sync_data(store: &Accessor<T, Self>, fd: Handle) -> FilesystemResult<()> {
        match node(store, &fd) {
            Some(_) => Ok(()),
            None => WasiFilesystem::sync_data(&host(store), fd).await,
        }
    }

    async fn get_flags(store: &Accessor<T, Self>, fd: Handle) -> FilesystemResult<DescriptorFlags> {
        match node(store, &fd) {
            Some(_) => Ok(DescriptorFlags::READ),
            None => WasiFilesystem::get_flags(&host(store), fd).await,
        }
    }

    async fn get_type(store: &Accessor<T, Self>, fd: Handle) -> FilesystemResult<DescriptorType> {
        match node(store, &fd) {
            Some(node) => Ok(kind(node.kind())),
            None => WasiFilesystem::get_type(&host(store), fd).await,
        }
    }

    async fn set_size(store: &Accessor<T, Self>, fd: Handle, size: u64) -> FilesystemResult<()> {
        match node(store, &fd) {
            Some(_) => read_only(),
            None => WasiFilesystem::set_size(&host(store), fd, size).await,
        }
    }

    async fn set_times(
        store: &Accessor<T, Self>,
        fd: Handle,
        accessed: NewTimestamp,
        modified: NewTimestamp,
    ) -> FilesystemResult<()> {
        match node(store, &fd) {
            Some(_) => read_only(),
            None => WasiFilesystem::set_times(&host(store), fd, accessed, modified).await,
        }
    }

    fn read_directory(
        mut store: Access<'_, T, Self>,
        fd: Handle,
    ) -> wasmtime::Result<(StreamReader<DirectoryEntry>, Outcome)> {
        let mut view = store.get();
        let Some(node) = view.node(&fd) else {
            return match host_listing(&mut view, &fd)? {
                Ok(listing) => {
                    let (sender, outcome) = oneshot::channel();
                    let entries = HostEntries::new(listing, sender);
                    let stream = StreamReader::new(&mut store, entries)?;
                    Ok((stream, FutureReader::new(&mut store, outcome)?))
                }
                Err(error) => ended(&mut store, Err(error)),
            };
        };
        match node.entries() {
            Ok(entries) => {
                let entries = entries.into_iter().map(|(of, name)| DirectoryEntry {
                    type_: kind(of),
                    name,
                });
                let stream = StreamReader::new(&mut store, entries.collect::<Vec<_>>())?;
                Ok((stream, known(&mut store, Ok(()))?))
            }
            Err(denied) => ended(&mut store, Err(denied.into())),
        }
    }

    async fn sync(store: &Accessor<T, Self>, fd: Handle) -> FilesystemResult<()> {
        match node(store, &fd) {
            Some(_) => Ok(()),
            None => WasiFilesystem::sync(&host(store), fd).await,
        }
    }

    async fn create_directory_at(
        store: &Accessor<T, Self>,
        fd: Handle,
        path: String,
    ) -> FilesystemResult<()> {
        match node(store, &fd) {
            Some(_) => read_only(),
            None => WasiFilesystem::create_directory_at(&host(store), fd, path).await,
        }
    }

    async fn stat(store: &Accessor<T, Self>, fd: Handle) -> FilesystemResult<DescriptorStat> {
        match node(store, &fd) {
            Some(node) => Ok(stat(&node.stat())),
            None => WasiFilesystem::stat(&host(store), fd).await,
        }
    }

    async fn stat_at(
        store: &Accessor<T, Self>,
        fd: Handle,
        flags: PathFlags,
        path: String,
    ) -> FilesystemResult<DescriptorStat> {
        let Some(node) = node(store, &fd) else {
            return WasiFilesystem::stat_at(&host(store), fd, flags, path).await;
        };
        match node.find(&path)? {
            Found::Ours(node) => Ok(stat(&node.stat())),
            Found::Host(file) => {
                let call = async |fd| WasiFilesystem::stat(&host(store), fd).await;
                with_host_file(store, file, call).await
            }
        }
    }

    async fn set_times_at(
        store: &Accessor<T, Self>,
        fd: Handle,
        flags: PathFlags,
        path: String,
        accessed: NewTimestamp,
        modified: NewTimestamp,
    ) -> FilesystemResult<()> {
        if node(store, &fd).is_some() {
            return read_only();
        }
        WasiFilesystem::set_times_at(&host(store), fd, flags, path, accessed, modified).await
    }

    async fn link_at(
        store: &Accessor<T, Self>,
        fd: Handle,
        flags: PathFlags,
        path: String,
        new_fd: Handle,
        new_path: String,
    ) -> FilesystemResult<()> {
        if node(store, &fd).or_else(|| node(store, &new_fd)).is_some() {
            return read_only();
        }
        WasiFilesystem::link_at(&host(store), fd, flags, path, new_fd, new_path).await
    }

    async fn open_at(
        store: &Accessor<T, Self>,
        fd: Handle,
        flags: PathFlags,
        path: String,
        how: OpenFlags,
        mode: DescriptorFlags,
    ) -> FilesystemResult<Handle> {
        let ours = store.with(|mut store| {
            let view = store.get();
            view.check_room()?;
            Ok::<_, Denied>(view.node(&fd))
        })?;
        let Some(node) = ours else {
            let opened = WasiFilesystem::open_at(&host(store), fd, flags, path, how, mode).await?;
            return store.with(|mut store| count(&mut store.get(), opened));
        };
        let truncate = how.contains(OpenFlags::TRUNCATE);
        let how = How {
            create: how.contains(OpenFlags::CREATE),
            directory: how.contains(OpenFlags::DIRECTORY),
            exclusive: how.contains(OpenFlags::EXCLUSIVE),
            truncate,
            write: mode.intersects(DescriptorFlags::WRITE | DescriptorFlags::MUTATE_DIRECTORY),
        };
        let found = node.open(&path, how)?;
        store.with(|mut store| match found {
            Found::Ours(node) => Ok(store.get().push_node(node)?),
            Found::Host(file) => {
                if truncate {
                    file.file.set_len(0)?;
                }
                Ok(store.get().push_host(Descriptor::File(file))?)
            }
        })
    }

    async fn readlink_at(
        store: &Accessor<T, Self>,
        fd: Handle,
        path: String,
    ) -> FilesystemResult<String> {
        match node(store, &fd) {
            // There are no symbolic links among ours.
            Some(node) => Err(node.find(&path).err().unwrap_or(Denied::Invalid).into()),
            None => WasiFilesystem::readlink_at(&host(store), fd, path).await,
        }
    }

    async fn remove_directory_at(
        store: &Accessor<T, Self>,
        fd: Handle,
        path: String,
    ) -> FilesystemResult<()> {
        match node(store, &fd) {
            Some(_) => read_only(),
            None => WasiFilesystem::remove_directory_at(&host(store), fd, path).await,
        }
    }

    async fn rename_at(
        store: &Accessor<T, Self>,
        fd: Handle,
        path: String,
        new_fd: Handle,
        new_path: String,
    ) -> FilesystemResult<()> {
        if node(store, &fd).or_else(|| node(store, &new_fd)).is_some() {
            return read_only();
        }
        WasiFilesystem::rename_at(&host(store), fd, path, new_fd, new_path).await
    }

    async fn symlink_at(
        store: &Accessor<T, Self>,
        fd: Handle,
        target: String,
        path: String,
    ) -> FilesystemResult<()> {
        match node(store, &fd) {
            Some(_) => read_only(),
            None => WasiFilesystem::symlink_at(&host(store), fd, target, path).await,
        }
    }

    async fn unlink_file_at(
        store: &Accessor<T, Self>,
        fd: Handle,
        path: String,
    ) -> FilesystemResult<()> {
        match node(store, &fd) {
            Some(_) => read_only(),
            None => WasiFilesystem::unlink_file_at(&host(store), fd, path).await,
        }
    }

    async fn is_same_object(
        store: &Accessor<T, Self>,
        a: Handle,
        b: Handle,
    ) -> wasmtime::Result<bool> {
        match (node(store, &a), node(store, &b)) {
            (Some(a), Some(b)) => Ok(a.hash() == b.hash()),
            (None, None) => WasiFilesystem::is_same_object(&host(store), a, b).await,
            _ => Ok(false),
        }
    }

    async fn metadata_hash(
        store: &Accessor<T, Self>,
        fd: Handle,
    ) -> FilesystemResult<MetadataHashValue> {
        match node(store, &fd) {
            Some(node) => Ok(hash(&node)),
            None => WasiFilesystem::metadata_hash(&host(store), fd).await,
        }
    }

    async fn metadata_hash_at(
        store: &Accessor<T, Self>,
        fd: Handle,
        flags: PathFlags,
        path: String,
    ) -> FilesystemResult<MetadataHashValue> {
        let Some(node) = node(store, &fd) else {
            return WasiFilesystem::metadata_hash_at(&host(store), fd, flags, path).await;
        };
        match node.find(&path)? {
            Found::Ours(node) => Ok(hash(&node)),
            Found::Host(file) => {
                let call = async |fd| WasiFilesystem::metadata_hash(&host(store), fd).await;
                with_host_file(store, file, call).await
            }
        }
    }
}

/// A listing of a host directory, or why there is none.
fn host_listing(
    view: &mut FilesystemView<'_>,
    fd: &Handle,
) -> wasmtime::Result<Result<Listing, ErrorCode>> {
    let Descriptor::Dir(directory) = view.host.table.get(fd)? else {
        return Ok(Err(ErrorCode::NotDirectory));
    };
    Ok(Listing::new(directory.dir.clone(), view.listings).map_err(ErrorCode::from))
}

/// What a listing answers: itself, and the next entries.
type Read = (Option<Listing>, Result<VecDeque<Entry>, ListingError>);

/// The entries of a host directory as a stream. wasmtime-wasi's own keeps a thread for as long as nobody reads it.
struct HostEntries {
    reading: Option<BoxFuture<'static, Read>>,
    outcome: Option<oneshot::Sender<Result<(), ErrorCode>>>,
}

impl HostEntries {
    fn new(listing: Listing, outcome: oneshot::Sender<Result<(), ErrorCode>>) -> Self {
        Self {
            reading: Some(listing.next().boxed()),
            outcome: Some(outcome),
        }
    }

    fn end(&mut self, outcome: Result<(), ErrorCode>) {
        self.reading = None;
        if let Some(sender) = self.outcome.take() {
            // A guest that dropped the other end does not want to know.
            let _ = sender.send(outcome);
        }
    }
}

impl<D> StreamProducer<D> for HostEntries {
    type Item = DirectoryEntry;
    type Buffer = VecBuffer<DirectoryEntry>;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut store: StoreContextMut<'a, D>,
        mut destination: Destination<'a, Self::Item, Self::Buffer>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        // Whether there is more can't be told without reading it.
        if destination.remaining(&mut store) == Some(0) {
            return Poll::Ready(Ok(StreamResult::Completed));
        }
        let Some(reading) = &mut self.reading else {
            return Poll::Ready(Ok(StreamResult::Dropped));
        };
        let (listing, read) = match reading.poll_unpin(context) {
            Poll::Ready(read) => read,
            Poll::Pending if finish => return Poll::Ready(Ok(StreamResult::Cancelled)),
            Poll::Pending => return Poll::Pending,
        };
        let outcome = match read {
            Ok(entries) if !entries.is_empty() => {
                let entries: Vec<_> = entries.into_iter().map(DirectoryEntry::from).collect();
                destination.set_buffer(entries.into());
                self.reading = listing.map(|listing| listing.next().boxed());
                return Poll::Ready(Ok(StreamResult::Completed));
            }
            Ok(_) => Ok(()),
            Err(ListingError::Io(error)) => Err(error.into()),
            Err(ListingError::Name) => Err(ErrorCode::IllegalByteSequence),
        };
        self.end(outcome);
        Poll::Ready(Ok(StreamResult::Dropped))
    }
}

impl Drop for HostEntries {
    fn drop(&mut self) {
        // A guest that stops reading has had no error.
        self.end(Ok(()));
    }
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
                _ => DescriptorType::Other(None),
            },
            name: entry.name,
        }
    }
}

/// Counts a descriptor that was opened beside others: they may have taken the last place meanwhile.
fn count(view: &mut FilesystemView<'_>, opened: Handle) -> FilesystemResult<Handle> {
    *view.open += 1;
    if *view.open > super::MAX_DESCRIPTORS {
        view.close(opened).map_err(FilesystemError::trap)?;
        return Err(Denied::Quota.into());
    }
    Ok(opened)
}
