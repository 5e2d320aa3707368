//! Image manifests and indexes, and what of them a node runs.
//!
//! Spec: OCI image specification v1.1 (`image-manifest`, `image-index`, `descriptor`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::media_type;

/// Points at a blob by digest, with its type and size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Media type of the blob.
    pub media_type: String,
    /// Digest of the blob.
    pub digest: Digest,
    /// Size of the blob in bytes.
    pub size: u64,
    /// Type of the artifact; in a list of referrers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Platform the blob is for; in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What a manifest of an index is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// `wasm`, `amd64`, `arm64`, ...
    pub architecture: String,
    /// `wasip1`, `wasip2`, `wasi`, `linux`, ...
    pub os: String,
    /// Variant of the architecture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// One image or artifact: its configuration and layers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageManifest {
    /// Always 2.
    pub schema_version: u32,
    /// Media type of this document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Type of the artifact when the configuration does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Configuration.
    pub config: Descriptor,
    /// Layers, lowest first.
    #[serde(default)]
    pub layers: Vec<Descriptor>,
    /// The manifest that this one is about, such as what it signs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A list of manifests, one per platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageIndex {
    /// Always 2.
    pub schema_version: u32,
    /// Media type of this document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Type of the artifact, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The manifests.
    pub manifests: Vec<Descriptor>,
    /// The manifest that this one is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Either document a tag can point at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Manifest {
    /// One image.
    Image(ImageManifest),
    /// Several, by platform.
    Index(ImageIndex),
}

/// Why a document is not a manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON of the right shape.
    #[error("malformed manifest: {0}")]
    Malformed(#[from] serde_json::Error),
    /// A media type that is neither a manifest nor an index.
    #[error("unsupported manifest media type {0:?}")]
    MediaType(String),
    /// Another schema version.
    #[error("unsupported manifest schema version {0}")]
    SchemaVersion(u32),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    schema_version: u32,
    media_type: Option<String>,
    manifests: Option<serde::de::IgnoredAny>,
}

impl Manifest {
    /// Parses a manifest or index.
    ///
    /// The document's own `mediaType` decides; where it has none, the type it was served with; where
    /// that says nothing either, its shape.
    ///
    /// # Errors
    /// The document is neither.
    pub fn parse(bytes: &[u8], served_as: Option<&str>) -> Result<Self, ManifestError> {
        let probe: Probe = serde_json::from_slice(bytes)?;
        if probe.schema_version != 2 {
            return Err(ManifestError::SchemaVersion(probe.schema_version));
        }
        let served_as = served_as.filter(|served| served.starts_with("application/vnd."));
        let media_type = probe.media_type.as_deref().or(served_as);
        match media_type {
            Some(text) if media_type::is_index(text) => Self::parse_index(bytes),
            Some(text) if media_type::is_image_manifest(text) => Self::parse_image(bytes),
            Some(other) => Err(ManifestError::MediaType(other.to_owned())),
            None if probe.manifests.is_some() => Self::parse_index(bytes),
            None => Self::parse_image(bytes),
        }
    }

    fn parse_index(bytes: &[u8]) -> Result<Self, ManifestError> {
        Ok(Self::Index(serde_json::from_slice(bytes)?))
    }

    fn parse_image(bytes: &[u8]) -> Result<Self, ManifestError> {
        Ok(Self::Image(serde_json::from_slice(bytes)?))
    }

    /// The media type to serve this document with when it names none itself.
    #[must_use]
    pub fn media_type(&self) -> &str {
        match self {
            Self::Image(image) => image
                .media_type
                .as_deref()
                .unwrap_or(media_type::IMAGE_MANIFEST),
            Self::Index(index) => index
                .media_type
                .as_deref()
                .unwrap_or(media_type::IMAGE_INDEX),
        }
    }

    /// What this document is about, if it is about another.
    #[must_use]
    pub const fn subject(&self) -> Option<&Descriptor> {
        match self {
            Self::Image(image) => image.subject.as_ref(),
            Self::Index(index) => index.subject.as_ref(),
        }
    }

    /// The blobs and manifests this document needs.
    pub fn children(&self) -> Box<dyn Iterator<Item = &Descriptor> + Send + '_> {
        match self {
            Self::Image(image) => {
                Box::new(std::iter::once(&image.config).chain(image.layers.iter()))
            }
            Self::Index(index) => Box::new(index.manifests.iter()),
        }
    }
}

impl Descriptor {
    /// Describes a blob by its type, digest and size alone.
    #[must_use]
    pub fn new(media_type: impl Into<String>, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.into(),
            digest,
            size,
            artifact_type: None,
            platform: None,
            annotations: BTreeMap::new(),
        }
    }
}

impl ImageManifest {
    /// The layers that are `.wasm` files by their type, which only a wasm artifact has. The first is its program.
    pub fn wasm_layers(&self) -> impl Iterator<Item = &Descriptor> {
        let layers = self.layers.iter();
        layers.filter(|layer| media_type::is_wasm_layer(&layer.media_type))
    }
}

/// Operating systems of wasm platforms, best first: what a node runs at its fullest, then what it has to wrap.
const WASI: &[&str] = &["wasip2", "wasi", "wasip1"];

impl Platform {
    /// Whether this is WebAssembly with WASI: `wasi/wasm` and its variants, but not `js/wasm`.
    #[must_use]
    pub fn is_wasm(&self) -> bool {
        matches!(&*self.architecture, "wasm" | "wasm32") && self.os.starts_with("wasi")
    }

    /// How well a node of this architecture runs it; lower is better, `None` is not at all.
    fn rank(&self, architecture: &str) -> Option<usize> {
        if self.is_wasm() {
            let known = WASI.iter().position(|os| *os == self.os);
            return Some(known.unwrap_or(WASI.len()));
        }
        let is_native = self.os == "linux" && self.architecture == architecture;
        // Without a variant it is for every machine of the architecture.
        let variants: &[Option<&str>] = match architecture {
            "arm64" => &[Some("v8"), None],
            "amd64" => &[None, Some("v1")],
            "arm" => &[Some("v7"), Some("v6"), None],
            _ => &[None],
        };
        let fits = variants
            .iter()
            .position(|known| *known == self.variant.as_deref());
        Some(WASI.len() + 1 + fits.filter(|_| is_native)?)
    }
}

impl ImageIndex {
    /// The manifest a node takes: a wasm one first, else the one for this machine's Linux. Of an index with a single
    /// manifest for no platform, that one.
    #[must_use]
    pub fn select(&self, architecture: &str) -> Option<&Descriptor> {
        let ranked = self.manifests.iter().filter_map(|entry| {
            let rank = entry.platform.as_ref()?.rank(architecture)?;
            Some((rank, entry))
        });
        let best = ranked.min_by_key(|(rank, _)| *rank).map(|(_, entry)| entry);
        best.or_else(|| match self.manifests.as_slice() {
            [only] if only.platform.is_none() => Some(only),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(media_type: &str, platform: Option<(&str, &str)>) -> Descriptor {
        Descriptor {
            media_type: media_type.to_owned(),
            digest: Digest::sha256(media_type.as_bytes()),
            size: 1,
            artifact_type: None,
            platform: platform.map(|(os, architecture)| Platform {
                architecture: architecture.to_owned(),
                os: os.to_owned(),
                variant: None,
            }),
            annotations: BTreeMap::new(),
        }
    }

    fn index(platforms: &[(&str, &str)]) -> ImageIndex {
        ImageIndex {
            schema_version: 2,
            media_type: None,
            artifact_type: None,
            subject: None,
            manifests: platforms
                .iter()
                .map(|platform| descriptor(media_type::IMAGE_MANIFEST, Some(*platform)))
                .collect(),
            annotations: BTreeMap::new(),
        }
    }

    #[test]
    fn wasm_is_chosen_before_the_machines_own_platform() {
        type Case = (
            &'static [(&'static str, &'static str)],
            &'static str,
            Option<usize>,
        );
        let cases: &[Case] = &[
            (&[("linux", "amd64"), ("wasip2", "wasm")], "amd64", Some(1)),
            (&[("wasi", "wasm"), ("linux", "amd64")], "amd64", Some(0)),
            (&[("wasip1", "wasm"), ("wasip2", "wasm")], "amd64", Some(1)),
            (&[("wasip1", "wasm"), ("wasi", "wasm32")], "amd64", Some(1)),
            (&[("wasip9", "wasm"), ("linux", "amd64")], "amd64", Some(0)),
            (&[("js", "wasm"), ("linux", "amd64")], "amd64", Some(1)),
            (&[("linux", "arm64"), ("linux", "amd64")], "amd64", Some(1)),
            (&[("linux", "arm64"), ("linux", "amd64")], "s390x", None),
            (
                &[("unknown", "unknown"), ("windows", "amd64")],
                "amd64",
                None,
            ),
            (&[], "amd64", None),
        ];
        for (platforms, architecture, want) in cases {
            let index = index(platforms);
            let want = want.and_then(|at| index.manifests.get(at));
            assert_eq!(index.select(architecture), want, "{platforms:?}");
        }
    }

    #[test]
    fn the_variant_that_every_machine_runs_is_chosen() {
        let mut index = index(&[("linux", "amd64"), ("linux", "amd64"), ("linux", "arm64")]);
        let mut set = |at: usize, variant: &str| {
            index.manifests[at].platform.as_mut().unwrap().variant = Some(variant.to_owned());
        };
        set(0, "v3");
        set(2, "v8");
        assert_eq!(index.select("amd64"), index.manifests.get(1));
        assert_eq!(index.select("arm64"), index.manifests.get(2));
    }

    #[test]
    fn an_index_of_one_manifest_needs_no_platform() {
        let mut index = index(&[("x", "y")]);
        assert_eq!(index.select("amd64"), None);
        index.manifests[0].platform = None;
        assert_eq!(index.select("amd64"), index.manifests.first());
    }

    #[test]
    fn the_documents_own_type_decides_what_it_is() {
        let bytes = serde_json::to_vec(&index(&[])).unwrap();
        assert!(matches!(
            Manifest::parse(&bytes, None),
            Ok(Manifest::Index(_))
        ));
        assert!(matches!(
            Manifest::parse(&bytes, Some("application/json")),
            Ok(Manifest::Index(_))
        ));
        assert!(matches!(
            Manifest::parse(br#"{"schemaVersion":2,"mediaType":"text/plain"}"#, None),
            Err(ManifestError::MediaType(_))
        ));
        assert!(matches!(
            Manifest::parse(br#"{"schemaVersion":1}"#, None),
            Err(ManifestError::SchemaVersion(1))
        ));
        assert!(matches!(
            Manifest::parse(b"{", None),
            Err(ManifestError::Malformed(_))
        ));
    }

    #[test]
    fn the_layers_of_a_wasm_artifact_are_told_by_their_types() {
        let tar = "application/vnd.oci.image.layer.v1.tar+gzip";
        let layers = [media_type::WASM, tar, media_type::WASM_LAYER_V1];
        let manifest = ImageManifest {
            schema_version: 2,
            media_type: None,
            artifact_type: None,
            config: descriptor(media_type::WASM_CONFIG, None),
            layers: layers.map(|kind| descriptor(kind, None)).to_vec(),
            subject: None,
            annotations: BTreeMap::new(),
        };
        let found: Vec<_> = manifest.wasm_layers().map(|it| &*it.media_type).collect();
        assert_eq!(found, [media_type::WASM, media_type::WASM_LAYER_V1]);
    }
}
