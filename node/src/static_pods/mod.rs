//! Static pods: those of a folder, run whether or not an API server answers, and shown there by mirrors.
//!
//! ```text
//!   folder ── source.rs ── manifest.rs ──► StaticPods ──► pods/from_files.rs: a worker each
//!                                                              │ view
//!   API server ◄── create, delete ── mirrors.rs ◄──────────────┘
//! ```
//!
//! 1. A pod of a file gets the node's name behind its own, and a uid that is a digest of the file's path and the pod. A
//!    changed pod is so another pod: the one before ends with its grace, then the new one starts.
//! 2. Its mirror in the API carries that uid as annotation and belongs to the Node. The pod's status is written to it.
//! 3. Deleting the mirror ends nothing: it is made anew. It goes for good after the pod of the file has ended.
//!
//! Invariant: a static pod refers to no object of the API, so nothing there can keep it from running. What it needs of the
//! cluster once, a range of addresses, is remembered (`address_range.rs`); Services are told to it as far as they are known.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

pub(crate) mod address_range;
mod manifest;
pub(crate) mod mirrors;
mod source;

pub(crate) use source::Source;

/// Annotation of a mirror: the digest of what it stands for.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// Annotation of a static pod and its mirror: the digest of the pod as its file has it.
const HASH: &str = "kubernetes.io/config.hash";
/// Annotation that says where the node has the pod from.
const SOURCE: &str = "kubernetes.io/config.source";
/// Its value for pods of files.
const FILE: &str = "file";

/// The pods that files ask for, by uid.
pub(crate) type StaticPods = Arc<BTreeMap<String, Arc<Pod>>>;

/// Namespace and name of a pod.
pub(crate) type PodName = (String, String);

fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    let annotations = pod.metadata.annotations.as_ref()?;
    annotations.get(key).map(String::as_str)
}

/// Whether the node has the pod from a file. Of pods of the API only after [`forget_source`].
pub(crate) fn is_static(pod: &Pod) -> bool {
    annotation(pod, SOURCE) == Some(FILE)
}

/// Whether the pod stands for a static one.
pub(crate) fn is_mirror(pod: &Pod) -> bool {
    annotation(pod, MIRROR).is_some()
}

/// A pod of the API is not of a file, whatever its annotations say.
pub(crate) fn forget_source(pod: &mut Pod) {
    if let Some(annotations) = &mut pod.metadata.annotations {
        annotations.remove(SOURCE);
    }
}

/// Namespace and name of a pod.
pub(crate) fn name_of(pod: &Pod) -> PodName {
    let metadata = &pod.metadata;
    (
        metadata.namespace.clone().unwrap_or_default(),
        metadata.name.clone().unwrap_or_default(),
    )
}
