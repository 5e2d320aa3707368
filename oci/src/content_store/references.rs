//! Names that point at blobs: one small file each, replaced whole.
//!
//! ```text
//! ROOT/refs/<NAME...>/_/<LEAF>   the JSON of a descriptor
//! ```
//!
//! A name is a path of plain components (`docker.io/library/nginx`), a leaf one more (`1.27`).

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::fs::{self, File};
use tokio::io::AsyncWriteExt;

use super::writer::Partial;
use super::{ContentError, ContentStore, io_error, sync_directory};
use crate::manifest::Descriptor;

/// Deepest name that is looked for; no repository name is longer in components.
const MAX_DEPTH: usize = 128;

impl ContentStore {
    /// Points a name at a descriptor, replacing what it pointed at.
    ///
    /// # Errors
    /// The name is no path of plain components, or the file system failed.
    pub async fn set_ref(
        &self,
        name: &str,
        leaf: &str,
        target: &Descriptor,
    ) -> Result<(), ContentError> {
        let path = self.ref_path(name, leaf)?;
        let encoded =
            serde_json::to_vec(target).map_err(|source| ContentError::DamagedReference {
                name: format!("{name}:{leaf}"),
                source,
            })?;
        let directory = path.parent().unwrap_or(&self.root).to_owned();
        let partial = Partial::new(self);
        let write = async {
            fs::create_dir_all(&directory).await?;
            let mut file = File::create_new(partial.path()).await?;
            file.write_all(&encoded).await?;
            file.sync_all().await?;
            fs::rename(partial.path(), &path).await?;
            sync_directory(&directory).await
        };
        write
            .await
            .map_err(io_error(format!("write reference {name}:{leaf}")))
    }

    /// What a name points at.
    ///
    /// # Errors
    /// The name is malformed, its file damaged, or the file system failed.
    pub async fn get_ref(
        &self,
        name: &str,
        leaf: &str,
    ) -> Result<Option<Descriptor>, ContentError> {
        match fs::read(self.ref_path(name, leaf)?).await {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|source| {
                ContentError::DamagedReference {
                    name: format!("{name}:{leaf}"),
                    source,
                }
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error(format!("read reference {name}:{leaf}"))(error)),
        }
    }

    /// How long ago a name was pointed at what it points at; no time at all for one that is not there.
    ///
    /// # Errors
    /// The name is malformed or the file system failed.
    pub async fn ref_age(&self, name: &str, leaf: &str) -> Result<Duration, ContentError> {
        let failed = || io_error(format!("look at reference {name}:{leaf}"));
        match fs::metadata(self.ref_path(name, leaf)?).await {
            Ok(metadata) => {
                let written = metadata.modified().map_err(failed())?;
                Ok(written.elapsed().unwrap_or_default())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Duration::ZERO),
            Err(error) => Err(failed()(error)),
        }
    }

    /// Removes a name; what it pointed at stays. Answers whether it was there.
    ///
    /// # Errors
    /// The name is malformed or the file system failed.
    pub async fn remove_ref(&self, name: &str, leaf: &str) -> Result<bool, ContentError> {
        match fs::remove_file(self.ref_path(name, leaf)?).await {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(io_error(format!("remove reference {name}:{leaf}"))(error)),
        }
    }

    /// The leaves below a name in order.
    ///
    /// # Errors
    /// The name is malformed or the file system failed.
    pub async fn list_refs(&self, name: &str) -> Result<Vec<String>, ContentError> {
        let mut leaves = directory_names(&self.ref_directory(name)?)
            .await
            .map_err(io_error(format!("list references of {name}")))?;
        leaves.sort_unstable();
        Ok(leaves)
    }

    /// Every name and leaf below a name, or of the whole store for the empty one, in no order.
    ///
    /// # Errors
    /// The name is malformed or the file system failed.
    pub async fn all_refs(&self, below: &str) -> Result<Vec<(String, String)>, ContentError> {
        let mut found = Vec::new();
        let mut open = vec![below.to_owned()];
        while let Some(name) = open.pop() {
            for part in self.name_parts(&name).await? {
                let deeper = join(&name, &part);
                if part == "_" {
                    let leaves = self.list_refs(&name).await?;
                    found.extend(leaves.into_iter().map(|leaf| (name.clone(), leaf)));
                } else if is_plain(&part) && deeper.split('/').count() <= MAX_DEPTH {
                    open.push(deeper);
                }
            }
        }
        Ok(found)
    }

    async fn name_parts(&self, name: &str) -> Result<Vec<String>, ContentError> {
        let refs = self.root.join("refs");
        let directory = if name.is_empty() {
            refs
        } else {
            // The directory of a name is the parent of the one that holds its leaves.
            let leaves = self.ref_directory(name)?;
            leaves.parent().map_or(refs, PathBuf::from)
        };
        directory_names(&directory)
            .await
            .map_err(io_error(format!("list names below {name:?}")))
    }

    fn ref_directory(&self, name: &str) -> Result<PathBuf, ContentError> {
        // `_` can't be a component of a repository name, so `a/_/b` never collides with `a/b/_/c`.
        let plain = |part: &str| is_plain(part) && part != "_";
        if !name.split('/').all(plain) {
            return Err(ContentError::InvalidName(name.to_owned()));
        }
        Ok(self.root.join("refs").join(name).join("_"))
    }

    fn ref_path(&self, name: &str, leaf: &str) -> Result<PathBuf, ContentError> {
        if !is_plain(leaf) {
            return Err(ContentError::InvalidName(leaf.to_owned()));
        }
        Ok(self.ref_directory(name)?.join(leaf))
    }
}

fn join(name: &str, part: &str) -> String {
    match name {
        "" => part.to_owned(),
        name => format!("{name}/{part}"),
    }
}

/// The names in a directory; none where there is no directory.
async fn directory_names(directory: &std::path::Path) -> io::Result<Vec<String>> {
    let mut entries = match fs::read_dir(directory).await {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    while let Some(entry) = entries.next_entry().await? {
        names.extend(entry.file_name().into_string());
    }
    Ok(names)
}

fn is_plain(part: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:[]".contains(&byte);
    !part.is_empty()
        && part != "."
        && part != ".."
        && part.len() <= 255
        && part.bytes().all(allowed)
}
