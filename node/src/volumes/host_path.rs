//! `hostPath`: files of the node, as far as the node allows it.
//!
//! A node allows nothing unless it is told which paths ([`HostPaths`]). What a pod names must lie below one of them, and
//! is opened from there (cap-std): a symbolic link in it leads nowhere else, even one that is put there after the check.
//! The agent's own directory is never handed out.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use cap_std::ambient_authority;
use cap_std::fs::{Dir, OpenOptions};
use k8s_openapi::api::core::v1::Volume;

use super::{Mounted, VolumeContext, VolumeType};
use crate::runtime::MountSource;

pub(super) struct HostPath;

/// The paths of the node that pods may mount.
#[derive(Clone, Debug, Default)]
pub struct HostPaths(Arc<[PathBuf]>);

impl HostPaths {
    /// These directories and what is below them.
    ///
    /// # Errors
    /// One of them is not there, or no directory.
    pub fn allow(paths: impl IntoIterator<Item = PathBuf>) -> io::Result<Self> {
        let resolve = |path: PathBuf| {
            let name = |error: io::Error| {
                io::Error::new(error.kind(), format!("{}: {error}", path.display()))
            };
            let found = path.canonicalize().map_err(name)?;
            if !found.is_dir() {
                return Err(name(io::ErrorKind::NotADirectory.into()));
            }
            Ok(found)
        };
        paths
            .into_iter()
            .map(resolve)
            .collect::<io::Result<Vec<_>>>()
            .map(|paths| Self(paths.into()))
    }

    /// The allowed directory that holds the path, and the way from there.
    fn find(&self, path: &Path) -> Result<(PathBuf, PathBuf), String> {
        let below = |root: &PathBuf| Some((root.clone(), path.strip_prefix(root).ok()?.to_owned()));
        let found = self.0.iter().filter_map(below);
        found
            .min_by_key(|(_, below)| below.components().count())
            .ok_or_else(|| {
                let allowed: Vec<_> = self
                    .0
                    .iter()
                    .map(|path| path.display().to_string())
                    .collect();
                let allowed = if allowed.is_empty() {
                    "no paths at all".to_owned()
                } else {
                    allowed.join(", ")
                };
                format!(
                    "hostPath {} is not allowed by this node, which allows {allowed} \
                 (--allow-host-path)",
                    path.display()
                )
            })
    }
}

#[async_trait]
impl VolumeType for HostPath {
    fn claims(&self, volume: &Volume) -> bool {
        volume.host_path.is_some()
    }

    async fn set_up(
        &self,
        context: &Arc<VolumeContext>,
        volume: &Volume,
    ) -> Result<Mounted, String> {
        let Some(source) = volume.host_path.clone() else {
            return Err("no hostPath".to_owned());
        };
        let (root, below) = context.host_paths.find(Path::new(&source.path))?;
        let kind = source.type_.unwrap_or_default();
        let (own, for_linux) = (context.data_dir.clone(), context.for_linux);
        let checked = tokio::task::spawn_blocking(move || {
            check(&root, &below, &kind, &own, for_linux)?;
            Ok::<_, String>((root, below))
        });
        let (path, below) = checked.await.map_err(|error| error.to_string())??;
        Ok(Mounted {
            source: MountSource::Host {
                path,
                below: Some(below).filter(|below| !below.as_os_str().is_empty()),
            },
            read_only: false,
            _updater: None,
            _image: None,
        })
    }
}

/// Makes what is to be made, and looks whether it is what the pod says.
/// Containers of Linux can use sockets and devices too; a wasm container that mounts one is told when it starts.
fn check(root: &Path, below: &Path, kind: &str, own: &Path, for_linux: bool) -> Result<(), String> {
    let path = root.join(below);
    let failed = |error: io::Error| format!("hostPath {}: {error}", path.display());
    let directory = Dir::open_ambient_dir(root, ambient_authority()).map_err(failed)?;
    let here = if below.as_os_str().is_empty() {
        Path::new(".")
    } else {
        below
    };
    match kind {
        "DirectoryOrCreate" => directory.create_dir_all(here).map_err(failed)?,
        "FileOrCreate" => {
            let options = OpenOptions::new().append(true).create(true).to_owned();
            match directory.metadata(here) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    directory.open_with(here, &options).map_err(failed)?;
                }
                _ => {}
            }
        }
        _ => {}
    }
    let found = directory.metadata(here).map_err(failed)?;
    let real = path.canonicalize().map_err(failed)?;
    let own = own.canonicalize().unwrap_or_else(|_| own.to_owned());
    if real.starts_with(&own) || own.starts_with(&real) {
        return Err(format!(
            "hostPath {} holds the node agent's own directory, or lies in it",
            path.display()
        ));
    }
    let kind_of_file = found.file_type();
    let wanted = match kind {
        "" if for_linux || found.is_dir() || found.is_file() => return Ok(()),
        "Directory" | "DirectoryOrCreate" => found.is_dir().then_some(()).ok_or("a directory"),
        "File" | "FileOrCreate" => found.is_file().then_some(()).ok_or("a file"),
        "Socket" if !kind_of_file_is(&path, FileTypeExt::is_socket) => Err("a socket"),
        "CharDevice" if !kind_of_file_is(&path, FileTypeExt::is_char_device) => {
            Err("a character device")
        }
        "BlockDevice" if !kind_of_file_is(&path, FileTypeExt::is_block_device) => {
            Err("a block device")
        }
        "Socket" | "CharDevice" | "BlockDevice" if for_linux => return Ok(()),
        _ => {
            return Err(format!(
                "hostPath {}: a wasm container can use files and directories only, and this is a \
                 {kind_of_file:?}",
                path.display()
            ));
        }
    };
    wanted.map_err(|what| {
        format!(
            "hostPath type check failed: {} is not {what}",
            path.display()
        )
    })
}

fn kind_of_file_is(path: &Path, is: impl Fn(&std::fs::FileType) -> bool) -> bool {
    std::fs::metadata(path).is_ok_and(|found| is(&found.file_type()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_allowed_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        let paths = HostPaths::allow([root.join("a"), root.join("a/b")]).unwrap();
        let (found, below) = paths.find(&root.join("a/b/c")).unwrap();
        assert_eq!((found, below), (root.join("a/b"), PathBuf::from("c")));
        let error = paths.find(&root.join("ab")).unwrap_err();
        assert!(
            error.contains("is not allowed by this node, which allows "),
            "{error}"
        );
        let error = HostPaths::default().find(&root).unwrap_err();
        assert!(
            error.contains("allows no paths at all (--allow-host-path)"),
            "{error}"
        );
        assert!(HostPaths::allow([root.join("nosuch")]).is_err());
    }

    #[test]
    fn types_are_checked_and_made() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let own = root.join("agent");
        std::fs::create_dir(&own).unwrap();
        std::fs::write(root.join("file"), "x").unwrap();
        std::os::unix::fs::symlink("/etc", root.join("out")).unwrap();
        std::os::unix::fs::symlink("agent", root.join("link")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
        for (below, kind, wanted) in [
            ("file", "", ""),
            ("file", "File", ""),
            ("file", "Directory", "is not a directory"),
            ("made/here", "DirectoryOrCreate", ""),
            ("made/here", "File", "is not a file"),
            ("made/file", "FileOrCreate", ""),
            ("nosuch", "Directory", "hostPath"),
            ("out", "", "hostPath"),
            ("out/passwd", "File", "hostPath"),
            ("made/../../x", "", "hostPath"),
            ("agent", "", "the node agent's own directory"),
            ("link", "Directory", "the node agent's own directory"),
            ("", "", "the node agent's own directory"),
            ("socket", "Socket", "files and directories only"),
            ("file", "Socket", "is not a socket"),
            ("file", "BlockDevice", "is not a block device"),
        ] {
            let found = check(&root, Path::new(below), kind, &own, false);
            match found {
                Ok(()) => assert_eq!(wanted, "", "{below} {kind}"),
                Err(error) => assert!(
                    !wanted.is_empty() && error.contains(wanted),
                    "{below} {kind}: {error}"
                ),
            }
        }
        for kind in ["", "Socket"] {
            check(&root, Path::new("socket"), kind, &own, true).unwrap();
        }
        assert!(root.join("made/here").is_dir() && root.join("made/file").is_file());
    }
}
