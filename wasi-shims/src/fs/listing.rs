//! The entries of a host directory on their way to a guest.
//!
//! They are read as the guest asks for them, [`BATCH`] at a time: a guest may make millions of files and list them as often
//! as it likes, and neither names nor threads of the host are held for that. A listing is a file descriptor of the host;
//! [`MAX_LISTINGS`] is how many an instance may have.

use std::collections::VecDeque;
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::sync::Arc;

use rustix::fs::{AtFlags, Dir, FileType, statat};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::node::Denied;

/// Listings that an instance may have open.
pub(crate) const MAX_LISTINGS: usize = 64;
/// Entries that are read at a time.
const BATCH: usize = 128;

/// What is in a directory.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) kind: FileType,
    pub(super) name: String,
}

/// Why a directory can't be listed further.
#[derive(Debug)]
pub(super) enum ListingError {
    Io(io::Error),
    /// A name is not Unicode.
    Name,
}

impl From<io::Error> for ListingError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The entries that are still to be told.
pub(super) struct Listing {
    directory: Arc<File>,
    rest: Rest,
    _place: OwnedSemaphorePermit,
}

/// What the kernel has not told yet.
enum Rest {
    All,
    Some(Dir),
    Failed(ListingError),
    Nothing,
}

impl Listing {
    /// # Errors
    /// The instance has as many as it may.
    pub(super) fn new(directory: Arc<File>, places: &Arc<Semaphore>) -> Result<Self, Denied> {
        let place = places.clone().try_acquire_owned();
        Ok(Self {
            directory,
            rest: Rest::All,
            _place: place.map_err(|_| Denied::Quota)?,
        })
    }

    /// The listing with the next entries; none are the end.
    pub(super) async fn next(self) -> (Option<Self>, Result<VecDeque<Entry>, ListingError>) {
        match tokio::task::spawn_blocking(move || self.read()).await {
            Ok((listing, read)) => (Some(listing), read),
            Err(error) => (None, Err(io::Error::other(error).into())),
        }
    }

    /// Blocks.
    fn read(mut self) -> (Self, Result<VecDeque<Entry>, ListingError>) {
        let mut entries = VecDeque::new();
        let rest = match std::mem::replace(&mut self.rest, Rest::Nothing) {
            Rest::All => Dir::read_from(&*self.directory).map_err(io::Error::from),
            Rest::Some(rest) => Ok(rest),
            Rest::Failed(error) => return (self, Err(error)),
            Rest::Nothing => return (self, Ok(entries)),
        };
        let mut rest = match rest {
            Ok(rest) => rest,
            Err(error) => return (self, Err(error.into())),
        };
        while entries.len() < BATCH {
            let Some(entry) = rest.read() else {
                return (self, Ok(entries));
            };
            let entry = match entry {
                Ok(entry) if matches!(entry.file_name().to_bytes(), b"." | b"..") => continue,
                Ok(entry) => describe(&self.directory, entry.file_name(), entry.file_type()),
                Err(error) => Err(io::Error::from(error).into()),
            };
            match entry {
                Ok(entry) => entries.push_back(entry),
                // What was read before it is told first.
                Err(error) if entries.is_empty() => return (self, Err(error)),
                Err(error) => {
                    self.rest = Rest::Failed(error);
                    return (self, Ok(entries));
                }
            }
        }
        self.rest = Rest::Some(rest);
        (self, Ok(entries))
    }
}

fn describe(directory: &File, name: &CStr, kind: FileType) -> Result<Entry, ListingError> {
    let kind = match kind {
        // Not every file system tells it with the name.
        FileType::Unknown => {
            let found = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW);
            found.map_or(kind, |found| FileType::from_raw_mode(found.st_mode))
        }
        kind => kind,
    };
    let name = name.to_str().map_err(|_| ListingError::Name)?;
    Ok(Entry {
        kind,
        name: name.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    fn listing(directory: &Path) -> Listing {
        let directory = Arc::new(File::open(directory).unwrap());
        Listing::new(directory, &Arc::new(Semaphore::new(1))).unwrap()
    }

    async fn all(directory: &Path) -> Vec<Entry> {
        let mut listing = listing(directory);
        let mut found = Vec::new();
        loop {
            let (rest, entries) = listing.next().await;
            let entries = entries.unwrap();
            assert!(entries.len() <= BATCH);
            if entries.is_empty() {
                break;
            }
            found.extend(entries);
            listing = rest.unwrap();
        }
        found.sort_by(|one, other| one.name.cmp(&other.name));
        found
    }

    #[tokio::test]
    async fn every_entry_is_told_once_whatever_their_number() {
        for count in [0, 1, BATCH - 1, BATCH, BATCH + 1, 5 * BATCH] {
            let directory = tempfile::tempdir().unwrap();
            let names: Vec<_> = (0..count).map(|number| format!("{number:05}")).collect();
            for name in &names {
                std::fs::write(directory.path().join(name), "").unwrap();
            }
            let found = all(directory.path()).await;
            let found: Vec<_> = found.into_iter().map(|entry| entry.name).collect();
            assert_eq!(found, names);
        }
    }

    #[tokio::test]
    async fn kinds_are_told_and_links_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("file"), "").unwrap();
        std::fs::create_dir(path("sub")).unwrap();
        std::os::unix::fs::symlink("sub", path("link")).unwrap();
        let found = all(directory.path()).await;
        let found: Vec<_> = found.iter().map(|it| (&*it.name, it.kind)).collect();
        assert_eq!(
            found,
            [
                ("file", FileType::RegularFile),
                ("link", FileType::Symlink),
                ("sub", FileType::Directory),
            ]
        );
    }

    #[tokio::test]
    async fn a_name_that_is_no_text_is_an_error_and_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let name = std::ffi::OsStr::from_bytes(b"\xff");
        std::fs::write(directory.path().join(name), "").unwrap();
        let (listing, read) = listing(directory.path()).next().await;
        assert!(matches!(read, Err(ListingError::Name)), "{read:?}");
        let (_, read) = listing.unwrap().next().await;
        assert!(read.unwrap().is_empty());
    }

    #[test]
    fn an_instance_has_so_many_and_no_more() {
        let directory = Arc::new(File::open("/").unwrap());
        let places = Arc::new(Semaphore::new(1));
        let first = Listing::new(directory.clone(), &places).unwrap();
        let refused = Listing::new(directory.clone(), &places).err();
        assert!(matches!(refused, Some(Denied::Quota)));
        drop(first);
        assert!(Listing::new(directory, &places).is_ok());
    }
}
