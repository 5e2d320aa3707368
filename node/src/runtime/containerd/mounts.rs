//! The files that a container sees, each as a file or directory of the host.
//!
//! | what | on the host |
//! |---|---|
//! | a directory of the host | itself |
//! | files in memory | a tree that is written out (`trees.rs`) |
//! | a `subPath`, or what lies below an allowed hostPath | a bind mount in the pod's directory |
//! | `/etc/hosts`, the termination message | files in the pod's directory |
//!
//! Invariant: what a `subPath` means is found without leaving the volume, and mounted as it was found: a symbolic link in
//! the volume leads nowhere else, however fast a container changes it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use k8s_openapi::api::core::v1::{PodSpec, Volume};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use super::config::{self, hosts};
use super::cri::messages::{Mount, MountPropagation};
use super::pods::PodFiles;
use super::trees::{self, Modes, WrittenTree};
use crate::host_mounts;
use crate::runtime::{ContainerSpec, Mount as VolumeMount, MountSource, StartError};

const HOSTS: &str = "/etc/hosts";

/// Where everything of a pod's files is on the host.
pub(super) struct Places {
    /// The pod's directory.
    pub(super) pod: PathBuf,
    /// Domain of the cluster.
    pub(super) cluster_domain: String,
}

/// The mounts of a container; what has to be made for them is made. One that is not new has them, and needs only what is
/// kept current.
pub(super) async fn of_container(
    spec: &ContainerSpec,
    places: &Places,
    ip: std::net::IpAddr,
    files: &mut PodFiles,
    is_new: bool,
) -> Result<Vec<Mount>, StartError> {
    let mut mounts = Vec::new();
    for (number, mount) in spec.mounts.iter().enumerate() {
        let failed = |error: io::Error| {
            let text = format!(
                "volumeMount {:?} of container {:?}: {error}",
                mount.volume, spec.name
            );
            StartError::config(text)
        };
        let host = host_path(spec, places, files, mount, (number, is_new))
            .await
            .map_err(failed)?;
        mounts.push(Mount {
            container_path: mount.path.clone(),
            host_path: host.display().to_string(),
            readonly: mount.read_only,
            propagation: config::propagation(mount.propagation).into(),
        });
    }
    let plain = |container_path: &str, host: &Path| Mount {
        container_path: container_path.to_owned(),
        host_path: host.display().to_string(),
        readonly: false,
        propagation: MountPropagation::Private.into(),
    };
    let has_hosts = mounts.iter().any(|mount| mount.container_path == HOSTS);
    if !has_hosts {
        let file = write_hosts(spec, places, ip).await;
        let file = file.map_err(|error| StartError::create(format!("make {HOSTS}: {error}")))?;
        mounts.push(plain(HOSTS, &file));
    }
    if let Some(message) = &spec.termination_message {
        mounts.push(plain(&message.path, &message.host));
    }
    Ok(mounts)
}

async fn host_path(
    spec: &ContainerSpec,
    places: &Places,
    files: &mut PodFiles,
    mount: &VolumeMount,
    (number, is_new): (usize, bool),
) -> io::Result<PathBuf> {
    let (root, below) = match &mount.source {
        MountSource::Host { path, below } => (path.clone(), below.clone()),
        MountSource::Memory(tree) => {
            let trees = places.pod.join("trees");
            let directory = trees.join(&mount.volume);
            if !files.trees.contains_key(&mount.volume) {
                host_mounts::in_memory(&trees, None, 0o755).await?;
                let modes = Modes::of(volume(spec, &mount.volume), fs_group(spec));
                let written = WrittenTree::write(directory.clone(), tree.clone(), modes).await?;
                files.trees.insert(mount.volume.clone(), written);
            }
            (directory, None)
        }
    };
    let is_empty_dir = volume(spec, &mount.volume).is_some_and(|volume| volume.empty_dir.is_some());
    if is_empty_dir && let Some(group) = fs_group(spec).and_then(|group| u32::try_from(group).ok())
    {
        // Spec: what is made in it belongs to the pod's group too.
        trees::share(&root, 0o2777, Some(group))?;
    }
    let is_hosts = below.is_some();
    let way = match (below, &mount.sub_path) {
        (Some(below), Some(sub_path)) => below.join(sub_path),
        (Some(below), None) => below,
        (None, Some(sub_path)) => PathBuf::from(sub_path),
        (None, None) => return Ok(root),
    };
    let at = places.pod.join("subpaths").join(&spec.name);
    let at = at.join(format!("{}-{number}", spec.attempt));
    if !is_new {
        // The container that is taken over has it.
        return Ok(at);
    }
    // What a hostPath names was made, if it had to be, when the volume was set up.
    let make = mount.sub_path.is_some() && !(is_hosts && mount.read_only);
    let found = tokio::task::spawn_blocking({
        let at = at.clone();
        move || open_beneath(&root, &way, make, &at)
    });
    let found = found.await.map_err(io::Error::other)??;
    host_mounts::bind(found.as_fd(), &at).await?;
    Ok(at)
}

/// Opens what is below a directory, and makes a place of the same kind to mount it at.
fn open_beneath(root: &Path, way: &Path, make: bool, at: &Path) -> io::Result<OwnedFd> {
    let directory = Dir::open_ambient_dir(root, ambient_authority())?;
    if make && !directory.try_exists(way)? {
        directory.create_dir_all(way)?;
        // Spec: it is as open as the volume.
        let mode = std::fs::metadata(root)?.mode();
        let permissions =
            cap_std::fs::Permissions::from_std(std::os::unix::fs::PermissionsExt::from_mode(mode));
        directory.set_permissions(way, permissions)?;
    }
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let found = openat2(&directory, way, flags, Mode::empty(), resolve)?;
    let kind = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode);
    if kind.is_dir() {
        std::fs::create_dir_all(at)?;
    } else {
        at.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        std::fs::File::options()
            .create(true)
            .append(true)
            .open(at)?;
    }
    Ok(found)
}

fn pod_spec(spec: &ContainerSpec) -> Option<&PodSpec> {
    spec.objects.pod.spec.as_ref()
}

fn volume<'a>(spec: &'a ContainerSpec, name: &str) -> Option<&'a Volume> {
    let volumes = pod_spec(spec).and_then(|spec| spec.volumes.as_ref());
    volumes
        .into_iter()
        .flatten()
        .find(|volume| volume.name == name)
}

fn fs_group(spec: &ContainerSpec) -> Option<i64> {
    let context = pod_spec(spec).and_then(|spec| spec.security_context.as_ref());
    context.and_then(|context| context.fs_group)
}

/// The pod's `/etc/hosts`, the same for all of its containers.
async fn write_hosts(
    spec: &ContainerSpec,
    places: &Places,
    ip: std::net::IpAddr,
) -> io::Result<PathBuf> {
    let file = places.pod.join("etc-hosts");
    let empty = PodSpec::default();
    let pod = pod_spec(spec).unwrap_or(&empty);
    let of_host = match pod.host_network {
        Some(true) => tokio::fs::read_to_string(HOSTS).await?,
        _ => String::new(),
    };
    let name = config::host_name(pod, &spec.pod, &places.cluster_domain);
    tokio::fs::create_dir_all(&places.pod).await?;
    // In place: containers that run have it mounted.
    tokio::fs::write(&file, hosts::text(pod, &name, ip, &of_host)).await?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sub_path_is_found_in_the_volume_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("volume");
        std::fs::create_dir_all(volume.join("a")).unwrap();
        std::fs::write(volume.join("a/file"), "x").unwrap();
        std::fs::write(dir.path().join("secret"), "x").unwrap();
        for (link, target) in [
            ("in", "a/file"),
            ("out", "../secret"),
            ("root", "/etc/passwd"),
        ] {
            std::os::unix::fs::symlink(target, volume.join(link)).unwrap();
        }
        for (way, make, found) in [
            ("a/file", true, true),
            ("a", false, true),
            ("in", true, true),
            ("new/deep", true, true),
            ("other", false, false),
            ("out", true, false),
            ("root", true, false),
            ("a/../../secret", true, false),
        ] {
            let at = dir.path().join("at").join(way.replace('/', "_"));
            let opened = open_beneath(&volume, Path::new(way), make, &at);
            assert_eq!(opened.is_ok(), found, "{way}: {opened:?}");
            assert_eq!(at.exists(), found, "{way}");
        }
        assert!(volume.join("new/deep").is_dir());
        assert!(dir.path().join("at/a_file").is_file());
    }
}
