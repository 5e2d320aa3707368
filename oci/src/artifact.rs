//! Wraps `.wasm` files into an OCI artifact: configuration, a layer for each file, manifest.
//!
//! Spec: CNCF wasm OCI artifact layout: config `application/vnd.wasm.config.v0+json` naming
//! architecture `wasm`, os `wasip1` or `wasip2` and the layers' digests; layers of `application/wasm`, of which
//! the first is the program. Where there are several, each is titled with its file's name.
//! The result is a function of the files alone, so pushing them twice gives the same digest.

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
    /// Blobs the manifest names: configuration first, then the layers.
    pub blobs: Vec<(Descriptor, Bytes)>,
}

/// Why bytes can't be made into an artifact.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// The file does not start as a wasm file does.
    #[error("not a WebAssembly component or module")]
    NotWasm,
    /// One of several files does not.
    #[error("{0}: not a WebAssembly component or module")]
    FileNotWasm(String),
    /// A name that would mean two files.
    #[error("two files are called {0}; the components of an image are told apart by their names")]
    SameName(String),
    /// There is no file.
    #[error("no file was given")]
    Empty,
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
        Self::assemble(kind, vec![(describe(media_type::WASM, &wasm), wasm)])
    }

    /// Wraps several files, each with its name; the first is the program, and the others are run by their names.
    ///
    /// # Errors
    /// There is none, one is no wasm, or two have the same name.
    pub fn wrap_all(files: Vec<(String, Bytes)>) -> Result<Self, ArtifactError> {
        let mut program = None;
        let mut layers: Vec<(Descriptor, Bytes)> = Vec::new();
        for (name, wasm) in files {
            let Some(kind) = WasmKind::of(&wasm) else {
                return Err(ArtifactError::FileNotWasm(name));
            };
            program.get_or_insert(kind);
            let is_called = |(layer, _): &(Descriptor, Bytes)| {
                layer.annotations.get(media_type::TITLE) == Some(&name)
            };
            if layers.iter().any(is_called) {
                return Err(ArtifactError::SameName(name));
            }
            let mut layer = describe(media_type::WASM, &wasm);
            layer.annotations.insert(media_type::TITLE.to_owned(), name);
            layers.push((layer, wasm));
        }
        Self::assemble(program.ok_or(ArtifactError::Empty)?, layers)
    }

    fn assemble(
        program: WasmKind,
        layers: Vec<(Descriptor, Bytes)>,
    ) -> Result<Self, ArtifactError> {
        let descriptors: Vec<_> = layers.iter().map(|(layer, _)| layer.clone()).collect();
        let config = Bytes::from(serde_json::to_vec(&configuration(program, &descriptors))?);
        let config_descriptor = describe(media_type::WASM_CONFIG, &config);
        let manifest = Bytes::from(serde_json::to_vec(&ImageManifest {
            schema_version: 2,
            media_type: Some(media_type::IMAGE_MANIFEST.to_owned()),
            artifact_type: None,
            config: config_descriptor.clone(),
            layers: descriptors,
            subject: None,
            annotations: BTreeMap::new(),
        })?);
        let mut blobs = vec![(config_descriptor, config)];
        blobs.extend(layers);
        Ok(Self {
            digest: Digest::sha256(&manifest),
            manifest,
            blobs,
        })
    }
}

fn configuration(program: WasmKind, layers: &[Descriptor]) -> serde_json::Value {
    let os = match program {
        WasmKind::Component => "wasip2",
        WasmKind::CoreModule => "wasip1",
    };
    let digests: Vec<_> = layers.iter().map(|layer| &layer.digest).collect();
    json!({ "architecture": "wasm", "os": os, "layerDigests": digests })
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
            manifest.wasm_layers().next().unwrap().digest,
            Digest::sha256(COMPONENT)
        );
        assert!(WasmArtifact::wrap(Bytes::from_static(b"#!/bin/sh")).is_err());
    }

    #[test]
    fn several_files_are_layers_with_titles() {
        let file = |name: &str, bytes| (name.to_owned(), Bytes::from_static(bytes));
        let files = vec![file("a.wasm", COMPONENT), file("b.wasm", MODULE)];
        let artifact = WasmArtifact::wrap_all(files).unwrap();
        let manifest: ImageManifest = serde_json::from_slice(&artifact.manifest).unwrap();
        let titles = manifest.wasm_layers();
        let titles: Vec<_> = titles
            .map(|it| &it.annotations[media_type::TITLE])
            .collect();
        assert_eq!(titles, ["a.wasm", "b.wasm"]);
        assert_eq!(artifact.blobs.len(), 3);

        let refused = |files| WasmArtifact::wrap_all(files).unwrap_err().to_string();
        let same = refused(vec![file("a", COMPONENT), file("a", MODULE)]);
        assert!(same.starts_with("two files are called a;"), "{same}");
        let text = refused(vec![file("a", COMPONENT), file("b.sh", b"#!/bin/sh")]);
        assert_eq!(text, "b.sh: not a WebAssembly component or module");
        assert_eq!(refused(Vec::new()), "no file was given");
    }
}
