//! What a machine's file says about registries.
//!
//! ```yaml
//! registries:
//!   docker.io:
//!     mirrors: [mirror.internal:5000, harbor.internal/dockerhub]
//!   mirror.internal:5000:
//!     plainHttp: true
//!   harbor.internal:
//!     caFile: harbor-ca.pem
//!     credentialsFile: harbor-auth.json
//! ```
//!
//! A mirror is a host, with a prefix of its repositories where it has one; how it is reached, an entry of its own says.
//! Relative paths are below the file's directory. The files are read when the program starts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::reference::{is_host, is_repository};

/// Larger files are refused.
const MAX_FILE: usize = 1 << 20;

/// How registries are reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistryConfig {
    /// By host, with the port if there is one, as references name it.
    #[serde(default)]
    pub registries: BTreeMap<String, HostConfig>,
}

/// How one registry is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HostConfig {
    /// Asked first, in this order: `HOST[:PORT][/PREFIX]`.
    pub mirrors: Vec<String>,
    /// HTTP without TLS.
    pub plain_http: bool,
    /// PEM certificates of authorities that are trusted for this registry besides the machine's.
    pub ca_file: Option<PathBuf>,
    /// Credentials as `docker login` writes them to its `config.json`, tried after those of whoever asks.
    pub credentials_file: Option<PathBuf>,
}

/// Why a file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not YAML of the right shape.
    #[error("{0}")]
    Malformed(String),
    /// A field that makes no sense.
    #[error("{path}: {reason}")]
    Field {
        /// Path of the field.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Path of a field of a host's entry.
pub(super) fn field(host: &str, name: &str) -> String {
    format!("registries[{host:?}].{name}")
}

impl RegistryConfig {
    /// Reads a file's text; paths in it are below `directory`.
    ///
    /// # Errors
    /// It has unknown fields, or some that make no sense.
    pub fn parse(text: &str, directory: &Path) -> Result<Self, ConfigError> {
        if text.len() > MAX_FILE {
            let text = format!("larger than {MAX_FILE} bytes");
            return Err(ConfigError::Malformed(text));
        }
        let mut config: Self = serde_yaml::from_str(text)
            .map_err(|error| ConfigError::Malformed(error.to_string()))?;
        for (host, entry) in &mut config.registries {
            entry.check(host)?;
            for path in [&mut entry.ca_file, &mut entry.credentials_file] {
                *path = path.take().map(|path| directory.join(path));
            }
        }
        Ok(config)
    }

    /// What is said about a host.
    #[must_use]
    pub fn host(&self, host: &str) -> HostConfig {
        self.registries.get(host).cloned().unwrap_or_default()
    }
}

impl HostConfig {
    fn check(&self, host: &str) -> Result<(), ConfigError> {
        let wrong = |path: String, reason: &str| ConfigError::Field {
            path,
            reason: reason.to_owned(),
        };
        if !is_host(host) {
            let path = format!("registries[{host:?}]");
            return Err(wrong(path, "want HOST or HOST:PORT"));
        }
        if self.plain_http && self.ca_file.is_some() {
            let path = field(host, "caFile");
            return Err(wrong(
                path,
                "there are no certificates with plainHttp: true",
            ));
        }
        for (at, mirror) in self.mirrors.iter().enumerate() {
            let (name, prefix) = split_mirror(mirror);
            if !is_host(name) || prefix.is_some_and(|prefix| !is_repository(prefix)) {
                let path = field(host, &format!("mirrors[{at}]"));
                return Err(wrong(path, "want HOST[:PORT][/PREFIX], without a scheme"));
            }
            if name == host && prefix.is_none() {
                let path = field(host, &format!("mirrors[{at}]"));
                return Err(wrong(path, "a registry is no mirror of itself"));
            }
        }
        Ok(())
    }
}

/// Host and prefix of a mirror.
pub(super) fn split_mirror(mirror: &str) -> (&str, Option<&str>) {
    match mirror.split_once('/') {
        Some((host, prefix)) => (host, Some(prefix)),
        None => (mirror, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<RegistryConfig, ConfigError> {
        RegistryConfig::parse(text, Path::new("/etc/windlass"))
    }

    #[test]
    fn a_file_says_how_registries_are_reached() {
        let text = "
registries:
  docker.io:
    mirrors: ['mirror.internal:5000', harbor.internal/hub]
  mirror.internal:5000: {plainHttp: true}
  harbor.internal: {caFile: ca.pem, credentialsFile: /auth.json}
";
        let config = parse(text).unwrap();
        let mirrors = config.host("docker.io").mirrors;
        assert_eq!(mirrors, ["mirror.internal:5000", "harbor.internal/hub"]);
        assert!(config.host("mirror.internal:5000").plain_http);
        let harbor = config.host("harbor.internal");
        assert_eq!(harbor.ca_file.unwrap(), Path::new("/etc/windlass/ca.pem"));
        assert_eq!(harbor.credentials_file.unwrap(), Path::new("/auth.json"));
        assert_eq!(config.host("other"), HostConfig::default());
        assert_eq!(parse("registries: {}").unwrap(), RegistryConfig::default());
    }

    #[test]
    fn mistakes_are_named_with_their_path() {
        let cases = [
            ("registries: {r.io: {plainHTTP: true}}", "plainHTTP"),
            ("registries: {r.io: {plainHttp: 1}}", "line 1"),
            ("registry: {}", "registry"),
            (
                "registries: {'https://r.io': {}}",
                r#"registries["https://r.io"]"#,
            ),
            (
                "registries: {r.io: {mirrors: [a.io, 'http://m.io']}}",
                r#"registries["r.io"].mirrors[1]: want HOST"#,
            ),
            (
                "registries: {r.io: {mirrors: [r.io]}}",
                r#"registries["r.io"].mirrors[0]: a registry is no mirror"#,
            ),
            (
                "registries: {r.io: {plainHttp: true, caFile: x}}",
                r#"registries["r.io"].caFile"#,
            ),
        ];
        for (text, want) in cases {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(want), "{text}: {error}");
        }
    }
}
