//! What an image's configuration and manifest say about running it.

use serde::Deserialize;

use crate::manifest::{ImageManifest, Platform};
use crate::media_type;

/// Says of an image for Linux that its program is wasm, as crun and its kin read it.
const VARIANT: &str = "module.wasm.image/variant";

/// What an image's configuration says about running it; empty for wasm artifacts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfig {
    /// Program and its first arguments.
    pub entrypoint: Option<Vec<String>>,
    /// Arguments, or the program where there is no entrypoint.
    pub cmd: Option<Vec<String>>,
    /// Environment as `NAME=VALUE`.
    pub env: Option<Vec<String>>,
    /// Working directory.
    pub working_dir: Option<String>,
    /// User to run as.
    pub user: Option<String>,
}

impl ImageConfig {
    /// The program: the entrypoint's first word, or the command's.
    pub(super) fn program(&self) -> Option<&str> {
        let words = [&self.entrypoint, &self.cmd];
        let mut words = words.into_iter().flatten().flatten();
        words.next().map(String::as_str)
    }
}

/// The file that a configuration is.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ConfigFile {
    pub(super) config: Option<ImageConfig>,
    architecture: String,
    os: String,
}

impl ConfigFile {
    /// Whether the image is a wasm program. What is no container image at all can be nothing else.
    pub(super) fn is_wasm(&self, manifest: &ImageManifest) -> bool {
        let layers = &manifest.layers;
        let platform = Platform {
            architecture: self.architecture.clone(),
            os: self.os.clone(),
            variant: None,
        };
        let program = self.config.as_ref().and_then(ImageConfig::program);
        let variant = manifest.annotations.get(VARIANT).map(String::as_str);
        !media_type::is_image_config(&manifest.config.media_type)
            || layers
                .iter()
                .any(|layer| media_type::is_wasm_layer(&layer.media_type))
            || platform.is_wasm()
            || matches!(variant, Some("compat" | "compat-smart"))
            || program.is_some_and(|program| program.ends_with(".wasm"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::manifest::Descriptor;

    #[test]
    fn wasm_images_are_told_from_linux_images() {
        let linux = r#"{"os":"linux","architecture":"amd64","config":{"Cmd":["/bin/sh"]}}"#;
        let program =
            r#"{"os":"linux","architecture":"amd64","config":{"Entrypoint":["/a.wasm"]}}"#;
        let tar = "application/vnd.oci.image.layer.v1.tar+gzip";
        let config = media_type::IMAGE_CONFIG;
        let cases = [
            (config, linux, tar, "", false),
            (media_type::DOCKER_CONFIG, linux, tar, "", false),
            (config, linux, tar, "compat", true),
            (config, linux, tar, "other", false),
            (config, program, tar, "", true),
            (
                config,
                r#"{"os":"wasi","architecture":"wasm"}"#,
                tar,
                "",
                true,
            ),
            (
                config,
                r#"{"os":"wasip1","architecture":"wasm32"}"#,
                tar,
                "",
                true,
            ),
            (
                config,
                r#"{"os":"js","architecture":"wasm"}"#,
                tar,
                "",
                false,
            ),
            (config, linux, media_type::WASM, "", true),
            (media_type::WASM_CONFIG, "{}", media_type::WASM, "", true),
            ("application/vnd.oci.empty.v1+json", "{}", tar, "", true),
        ];
        for (config, file, layer, variant, want) in cases {
            let describe = |kind: &str| Descriptor::new(kind, Digest::sha256(b""), 0);
            let mut annotations = std::collections::BTreeMap::new();
            if !variant.is_empty() {
                annotations.insert(VARIANT.to_owned(), variant.to_owned());
            }
            let manifest = ImageManifest {
                schema_version: 2,
                media_type: None,
                artifact_type: None,
                config: describe(config),
                layers: vec![describe(layer)],
                subject: None,
                annotations,
            };
            let file: ConfigFile = serde_json::from_str(file).unwrap();
            assert_eq!(file.is_wasm(&manifest), want, "{config} {layer} {file:?}");
        }
    }
}
