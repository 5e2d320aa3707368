//! Pushes `.wasm` files as an artifact.

use bytes::Bytes;

use crate::artifact::{ArtifactError, WasmArtifact};
use crate::digest::Digest;
use crate::media_type;
use crate::reference::Reference;
use crate::registry::client::{ClientError, RegistryClient};

/// Why a file was not pushed.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The file is no wasm.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// The registry did not take it.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// Wraps the bytes of a `.wasm` file and pushes them; answers the digest to refer to them by.
///
/// Blobs the repository has already are not sent again. The manifest goes last, so the tag moves only
/// when everything it names is there.
///
/// # Errors
/// The bytes are no wasm, or the registry did not take them.
pub async fn push_wasm(
    client: &RegistryClient,
    reference: &Reference,
    wasm: Bytes,
) -> Result<Digest, PushError> {
    push(client, reference, WasmArtifact::wrap(wasm)?).await
}

/// Pushes several files as one artifact: the first is its program, the others are run by their names.
///
/// # Errors
/// As of [`push_wasm`]; two files have the same name.
pub async fn push_components(
    client: &RegistryClient,
    reference: &Reference,
    files: Vec<(String, Bytes)>,
) -> Result<Digest, PushError> {
    push(client, reference, WasmArtifact::wrap_all(files)?).await
}

async fn push(
    client: &RegistryClient,
    reference: &Reference,
    artifact: WasmArtifact,
) -> Result<Digest, PushError> {
    let repository = reference.repository();
    for (descriptor, bytes) in artifact.blobs {
        if !client.has_blob(repository, &descriptor.digest).await? {
            client
                .push_blob(repository, &descriptor.digest, bytes)
                .await?;
        }
    }
    let name = match reference.tag() {
        Some(tag) => tag.to_owned(),
        None => artifact.digest.to_string(),
    };
    let manifest = artifact.manifest;
    client
        .push_manifest(repository, &name, media_type::IMAGE_MANIFEST, manifest)
        .await?;
    Ok(artifact.digest)
}
