//! Brings an image from our content store into containerd's.
//!
//! 1. Our client has pulled and verified it (`images/`): one client, and the same credentials, mirrors, policies and
//!    events for both runtimes.
//! 2. A lease keeps what is written from containerd's collection until the image has a name. Whoever dies in between
//!    leaves a lease that ends by itself.
//! 3. Layers and configuration are written, then the manifest, whose labels keep the others, then the name. containerd
//!    checks the digest of each again, and that of each layer's files when it unpacks it for the first container.
//! 4. CRI learns of the image from containerd's events; the import ends when it has.
//!
//! The name is by digest, so that it never means another image. Concurrent imports of one image are one.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use jiff::Timestamp;
use tokio::io::AsyncReadExt;
use tokio_stream::wrappers::ReceiverStream;
use windlass_oci::digest::Digest;
use windlass_oci::manifest::Descriptor as Blob;

use super::client::{CallError, Client};
use super::cri::Cri;
use super::native::messages::{
    Descriptor, Image, WriteAction, WriteContentRequest, WriteContentResponse,
};
use super::native::{Blobs, MANAGED};
use crate::runtime::LinuxImage;

/// Bytes of a blob that are sent at once.
const PIECE: usize = 1 << 20;
/// How long an import may take before its lease ends.
const LEASE: Duration = Duration::from_secs(3600);
/// How long CRI may take to learn of an image.
const NOTICE: Duration = Duration::from_secs(20);
/// What keeps one blob as long as another.
const KEEPS: &str = "containerd.io/gc.ref.content";
/// What says that the image is ours to remove.
const OURS: &str = "dev.windlass.image";

/// Why an image is not in containerd.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImportError {
    /// containerd did not take it.
    #[error("import the image into containerd: {0}")]
    Call(#[from] CallError),
    /// A blob of ours can't be read.
    #[error("import the image into containerd: read {digest}: {source}")]
    Read {
        /// Which.
        digest: Digest,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// CRI does not see it.
    #[error("containerd does not offer image {image} to containers within {}s", limit.as_secs())]
    NotNoticed {
        /// Which.
        image: Digest,
        /// How long was waited.
        limit: Duration,
    },
}

/// Images of containerd.
#[derive(Clone)]
pub(super) struct Importer {
    blobs: Blobs,
    cri: Cri,
    turns: Arc<Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<()>>>>>,
}

impl Importer {
    pub(super) fn new(client: &Client) -> Self {
        Self {
            blobs: Blobs::new(client.clone()),
            cri: Cri::new(client.clone()),
            turns: Arc::default(),
        }
    }

    /// Has the image in containerd; answers the id by which containers are made from it.
    pub(super) async fn import(
        &self,
        name: &str,
        image: &LinuxImage,
    ) -> Result<String, ImportError> {
        let config = &image.manifest.config.digest;
        let id = config.to_string();
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            turns.entry(config.clone()).or_default().clone()
        };
        let _turn = turn.lock().await;
        if self.cri.has_image(&id).await? {
            return Ok(id);
        }
        let lease = format!("windlass-{}", uuid::Uuid::new_v4().simple());
        let expires = (Timestamp::now() + LEASE).to_string();
        self.blobs.lease(&lease, expires).await?;
        let written = self.write(name, image, &lease).await;
        let noticed = match written {
            Ok(()) => self.noticed(&id, config).await,
            Err(error) => Err(error),
        };
        if let Err(error) = self.blobs.end_lease(&lease).await {
            tracing::warn!(%error, "a lease of containerd's stays for an hour");
        }
        noticed.map(|()| id)
    }

    async fn write(&self, name: &str, image: &LinuxImage, lease: &str) -> Result<(), ImportError> {
        let manifest = &image.manifest;
        for blob in manifest.layers.iter().chain([&manifest.config]) {
            self.blob(image, blob, BTreeMap::new(), lease).await?;
        }
        let children = [&manifest.config].into_iter().chain(&manifest.layers);
        let labels = children
            .enumerate()
            .map(|(number, blob)| (format!("{KEEPS}.{number}"), blob.digest.to_string()));
        let target = &image.descriptor;
        self.blob(image, target, labels.collect(), lease).await?;
        let labels = [MANAGED, (OURS, "true")];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let named = Image {
            name: name.to_owned(),
            labels: labels.into(),
            target: Some(Descriptor {
                media_type: target.media_type.clone(),
                digest: target.digest.to_string(),
                size: i64::try_from(target.size).unwrap_or(i64::MAX),
            }),
        };
        Ok(self.blobs.name_image(named, lease).await?)
    }

    /// Has one blob in containerd's store.
    async fn blob(
        &self,
        image: &LinuxImage,
        blob: &Blob,
        labels: BTreeMap<String, String>,
        lease: &str,
    ) -> Result<(), ImportError> {
        let digest = blob.digest.to_string();
        if self.blobs.has(&digest).await? {
            return Ok(self.blobs.keep(lease, &digest).await?);
        }
        let unreadable = |source| ImportError::Read {
            digest: blob.digest.clone(),
            source,
        };
        let file = tokio::fs::File::open(image.store.path(&blob.digest)).await;
        let mut file = file.map_err(unreadable)?;
        let (pieces, receiver) = tokio::sync::mpsc::channel(2);
        let reading = async move {
            let mut offset = 0;
            loop {
                let mut piece = Vec::with_capacity(PIECE);
                let mut limited = (&mut file).take(PIECE as u64);
                limited.read_to_end(&mut piece).await?;
                let last = piece.len() < PIECE;
                let length = piece.len() as i64;
                let action = if last {
                    WriteAction::Commit
                } else {
                    WriteAction::Write
                };
                let request = WriteContentRequest {
                    action: action.into(),
                    r#ref: format!("{lease}-{digest}"),
                    total: i64::try_from(blob.size).unwrap_or(i64::MAX),
                    expected: digest.clone(),
                    offset,
                    data: Bytes::from(piece),
                    labels: labels.clone(),
                };
                offset += length;
                // A receiver that is gone has said why.
                if pieces.send(request).await.is_err() || last {
                    return Ok(());
                }
            }
        };
        let writing = async {
            let mut answers = self
                .blobs
                .write(ReceiverStream::new(receiver), lease)
                .await?;
            while let Some(answer) = answers.next().await {
                let _progress: WriteContentResponse =
                    answer.map_err(|status| self.blobs.failed(&status))?;
            }
            Ok::<_, CallError>(())
        };
        let (read, written) = tokio::join!(reading, writing);
        read.map_err(unreadable)?;
        match written {
            Err(error) if error.is_already_there() => Ok(()),
            written => Ok(written?),
        }
    }

    /// Waits until CRI knows the image.
    async fn noticed(&self, id: &str, config: &Digest) -> Result<(), ImportError> {
        let mut delay = Duration::from_millis(2);
        let look = async {
            loop {
                if self.cri.has_image(id).await? {
                    return Ok(());
                }
                tokio::time::sleep(delay).await;
                delay = (delay * 2).min(Duration::from_millis(200));
            }
        };
        let looked = tokio::time::timeout(NOTICE, look).await;
        looked.unwrap_or_else(|_| {
            Err(ImportError::NotNoticed {
                image: config.clone(),
                limit: NOTICE,
            })
        })
    }

    /// Removes the images that this agent brought and does not keep.
    pub(super) async fn forget_but(
        &self,
        keep: impl Fn(&str, &str) -> bool,
    ) -> Result<(), CallError> {
        let ours = format!("labels.\"{OURS}\"==true");
        for image in self.blobs.images(ours).await? {
            let digest = image.target.map(|target| target.digest).unwrap_or_default();
            if !keep(&image.name, &digest) {
                self.blobs.forget_image(image.name).await?;
            }
        }
        Ok(())
    }
}
