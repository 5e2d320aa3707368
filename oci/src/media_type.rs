//! The media types we write and those we accept.

/// OCI image manifest.
pub const IMAGE_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI image index.
pub const IMAGE_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Docker's manifest, the same shape as the OCI one.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's manifest list, the same shape as the OCI index.
pub const DOCKER_MANIFEST_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Configuration of a container image.
pub const IMAGE_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Layer of a container image: a tar archive.
pub const IMAGE_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// Configuration of a wasm artifact (CNCF TAG Runtime's wasm OCI artifact layout).
pub const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";
/// Layer of a wasm artifact.
pub const WASM: &str = "application/wasm";
/// Configuration as earlier Bytecode Alliance tools wrote it.
pub const WASM_CONFIG_V1: &str = "application/vnd.wasm.config.v1+json";
/// Layer as earlier Bytecode Alliance tools wrote it.
pub const WASM_LAYER_V1: &str = "application/vnd.wasm.content.layer.v1+wasm";

/// Annotation of a layer: the name of the file that it is.
pub const TITLE: &str = "org.opencontainers.image.title";

/// What a client says it accepts when it asks for a manifest.
pub const ACCEPT_MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json, \
     application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.docker.distribution.manifest.list.v2+json";

/// Configuration of a Docker image, the same shape as the OCI one.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// Types of layers that are a `.wasm` file, in the layouts that tools write or wrote: the CNCF's artifact and `wkg`,
/// earlier Bytecode Alliance tools, Solo's `wasm-to-oci`, and the registry of components' draft.
const WASM_LAYERS: &[&str] = &[
    WASM,
    WASM_LAYER_V1,
    "application/vnd.module.wasm.content.layer.v1+wasm",
    "application/vnd.bytecodealliance.component.v1+wasm",
    "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm",
];

/// Whether a layer of this type is a `.wasm` file, compressed or not.
#[must_use]
pub fn is_wasm_layer(media_type: &str) -> bool {
    let bare = media_type.strip_suffix("+gzip");
    let bare = bare.or_else(|| media_type.strip_suffix("+zstd"));
    WASM_LAYERS.contains(&bare.unwrap_or(media_type))
}

/// Whether this is the configuration of a container image, which says how to run it.
#[must_use]
pub fn is_image_config(media_type: &str) -> bool {
    matches!(media_type, IMAGE_CONFIG | DOCKER_CONFIG)
}

/// Whether this is an index: a list of manifests.
#[must_use]
pub fn is_index(media_type: &str) -> bool {
    matches!(media_type, IMAGE_INDEX | DOCKER_MANIFEST_LIST)
}

/// Whether this is a manifest of one image.
#[must_use]
pub fn is_image_manifest(media_type: &str) -> bool {
    matches!(media_type, IMAGE_MANIFEST | DOCKER_MANIFEST)
}
