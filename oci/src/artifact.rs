//! Wraps a `.wasm` file into an OCI artifact: configuration, one layer, manifest.
//!
//! Spec: CNCF wasm OCI artifact layout: config `application/vnd.wasm.config.v0+json` naming
//! architecture `wasm`, os `wasip1` or `wasip2` and the layer's digest; one layer `application/wasm`.
//! The result is a function of the bytes alone, so pushing a file twice gives the same digest.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::json;

use crate::digest::Digest;
use crate::manifest::{Descriptor, ImageManifest};
use crate::media_type;

/// What the first eight bytes of a `.wasm` file say it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WasmKind {
    /// A component (layer 1).
    Component,
    /// A core module (layer 0).
    CoreModule,
}

impl WasmKind {
    /// Reads the preamble: magic number, version, layer.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Option<Self> {
        match bytes.get(..8)? {
            [0, b'a', b's', b'm', 1, 0, 0, 0] => Some(Self::CoreModule),
            [0, b'a', b's', b'm', _, _, 1, 0] => Some(Self::Component),
            _ => None,
        }
    }
}

/// An artifact ready to be pushed.
#[derive(Clone, Debug)]
pub struct WasmArtifact {
    /// Digest of the manifest: the identity of the artifact.
    pub digest: Digest,
    /// The manifest as bytes.
    pub manifest: Bytes,
    /// Blobs the manifest names: configuration first, then the layer.
    pub blobs: Vec<(Descriptor, Bytes)>,
}

/// Why bytes can't be made into an artifact.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// The file does not start as a wasm file does.
    #[error("not a WebAssembly component or module")]
    NotWasm,
    /// JSON of our own could not be written.
    #[error("encode manifest")]
    Encode(#[from] serde_json::Error),
}

impl WasmArtifact {
    /// Wraps the bytes of a `.wasm` file.
    ///
    /// # Errors
    /// The bytes are no wasm.
    pub fn wrap(wasm: Bytes) -> Result<Self, ArtifactError> {
        let kind = WasmKind::of(&wasm).ok_or(ArtifactError::NotWasm)?;
        let layer = describe(media_type::WASM, &wasm);
        let config = Bytes::from(serde_json::to_vec(&configuration(kind, &layer.digest))?);
        let config_descriptor = describe(media_type::WASM_CONFIG, &config);
        let manifest = Bytes::from(serde_json::to_vec(&ImageManifest {
            schema_version: 2,
            media_type: Some(media_type::IMAGE_MANIFEST.to_owned()),
            artifact_type: None,
            config: config_descriptor.clone(),
            layers: vec![layer.clone()],
            subject: None,
            annotations: BTreeMap::new(),
        })?);
        let blobs = vec![(config_descriptor, config), (layer, wasm)];
        Ok(Self {
            digest: Digest::sha256(&manifest),
            manifest,
            blobs,
        })
    }
}

fn configuration(kind: WasmKind, layer: &Digest) -> serde_json::Value {
    let os = match kind {
        WasmKind::Component => "wasip2",
        WasmKind::CoreModule => "wasip1",
    };
    json!({ "architecture": "wasm", "os": os, "layerDigests": [layer] })
}

fn describe(media_type: &str, bytes: &[u8]) -> Descriptor {
    Descriptor::new(media_type, Digest::sha256(bytes), bytes.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";
    const MODULE: &[u8] = b"\0asm\x01\0\0\0";

    #[test]
    fn the_preamble_tells_components_from_modules() {
        assert_eq!(WasmKind::of(COMPONENT), Some(WasmKind::Component));
        assert_eq!(WasmKind::of(MODULE), Some(WasmKind::CoreModule));
        assert_eq!(WasmKind::of(b"\x7fELF\0\0\0\0"), None);
        assert_eq!(WasmKind::of(b"\0asm"), None);
    }

    #[test]
    fn wrapping_is_a_function_of_the_bytes() {
        let first = WasmArtifact::wrap(Bytes::from_static(COMPONENT)).unwrap();
        let second = WasmArtifact::wrap(Bytes::from_static(COMPONENT)).unwrap();
        assert_eq!(first.digest, second.digest);
        let manifest: ImageManifest = serde_json::from_slice(&first.manifest).unwrap();
        assert_eq!(
            manifest.wasm_layer().unwrap().digest,
            Digest::sha256(COMPONENT)
        );
        assert!(WasmArtifact::wrap(Bytes::from_static(b"#!/bin/sh")).is_err());
    }
}
