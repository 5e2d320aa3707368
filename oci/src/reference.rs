//! Image references as Docker and Kubernetes write them: `[HOST/]REPOSITORY[:TAG][@DIGEST]`.
//!
//! A name without a host is Docker Hub's, as everywhere else; a reference without tag and digest means
//! `latest`. A path of somebody's disk (`./app.wasm`) is an error of its own, since what the writer
//! wanted is to push the file.

use std::fmt;
use std::str::FromStr;

use crate::digest::{Digest, DigestError};

/// Host name under which every node reaches the cluster's own registry, whatever the address of its
/// API server: `registry.windlass.local/NAMESPACE/NAME:TAG`.
///
/// The name is never looked up in DNS; agents send these requests over their API connection.
pub const CLUSTER_REGISTRY: &str = "registry.windlass.local";

const DOCKER_HUB: &str = "docker.io";
const MAX_NAME: usize = 255;
const MAX_TAG: usize = 128;

/// A parsed reference, with host and tag filled in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is not an image reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// The text is empty.
    #[error("invalid reference format: empty")]
    Empty,
    /// The text is a path of a file.
    #[error(
        "{0:?} is a path of a file, not an image reference; push the file with \
         `windlass push {0} {CLUSTER_REGISTRY}/NAMESPACE/NAME:TAG` and name that"
    )]
    Path(String),
    /// The repository has upper-case letters.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    /// The text breaks the grammar.
    #[error("invalid reference format: {0:?}")]
    Format(String),
    /// The repository name is too long.
    #[error("repository name must not be more than {MAX_NAME} characters")]
    TooLong,
    /// The digest after `@` is malformed.
    #[error("invalid reference format: {0}")]
    Digest(#[from] DigestError),
}

impl Reference {
    /// Host (and port) of the registry: `docker.io`, `registry.windlass.local`.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Repository below the registry: `library/nginx`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; `None` only when there is a digest.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest; it wins over the tag.
    #[must_use]
    pub const fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Whether this names an image in the cluster's own registry.
    #[must_use]
    pub fn is_cluster_registry(&self) -> bool {
        self.registry == CLUSTER_REGISTRY
    }

    /// The same repository, by digest alone.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self {
            tag: None,
            digest: Some(digest),
            ..self.clone()
        }
    }

    /// What the distribution API calls `<reference>`: the digest, else the tag.
    #[must_use]
    pub fn manifest_reference(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        }
    }

    /// Whether Kubernetes defaults `imagePullPolicy` to `Always`: the tag `latest` and no digest.
    #[must_use]
    pub fn is_latest(&self) -> bool {
        self.digest.is_none() && self.tag.as_deref().is_none_or(|tag| tag == "latest")
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        if is_path(text) {
            return Err(ReferenceError::Path(text.to_owned()));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse()?)),
            None => (text, None),
        };
        let (name, tag) = split_tag(rest);
        let (registry, repository) = split_registry(name);
        check_repository(text, &repository)?;
        if registry.len() + repository.len() >= MAX_NAME {
            return Err(ReferenceError::TooLong);
        }
        if tag.is_some_and(|tag| !is_tag(tag)) || !is_host(&registry) {
            return Err(ReferenceError::Format(text.to_owned()));
        }
        let tag = match (tag, &digest) {
            (None, None) => Some("latest".to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Self {
            registry,
            repository,
            tag,
            digest,
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(formatter, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(formatter, "@{digest}"),
            None => Ok(()),
        }
    }
}

/// A path is what starts like one, or a bare `.wasm` file name without a registry host in front.
fn is_path(text: &str) -> bool {
    let rooted = text.starts_with('/') || text.starts_with('~');
    let relative = text.starts_with("./") || text.starts_with("../");
    let first = text.split_once('/').map(|(first, _)| first);
    rooted || relative || (text.ends_with(".wasm") && !first.is_some_and(looks_like_host))
}

fn split_tag(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        // A colon before a slash belongs to the host's port.
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (text, None),
    }
}

fn looks_like_host(text: &str) -> bool {
    text.contains('.') || text.contains(':') || text == "localhost"
}

fn split_registry(name: &str) -> (String, String) {
    match name.split_once('/') {
        Some((host, repository)) if looks_like_host(host) => {
            let host = if host == "index.docker.io" {
                DOCKER_HUB
            } else {
                host
            };
            (host.to_owned(), hub_repository(host, repository))
        }
        _ => (DOCKER_HUB.to_owned(), hub_repository(DOCKER_HUB, name)),
    }
}

fn hub_repository(host: &str, repository: &str) -> String {
    if host == DOCKER_HUB && !repository.contains('/') {
        format!("library/{repository}")
    } else {
        repository.to_owned()
    }
}

fn check_repository(text: &str, repository: &str) -> Result<(), ReferenceError> {
    if repository.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(ReferenceError::Uppercase(repository.to_owned()));
    }
    if is_repository(repository) {
        Ok(())
    } else {
        Err(ReferenceError::Format(text.to_owned()))
    }
}

/// Whether `text` is a repository name: components of `[a-z0-9]+` joined by `.`, `_`, `__` or dashes.
#[must_use]
pub fn is_repository(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_NAME && text.split('/').all(is_component)
}

fn is_component(text: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let (Some(first), Some(last)) = (text.bytes().next(), text.bytes().last()) else {
        return false;
    };
    let separators =
        text.split(|character: char| character.is_ascii_lowercase() || character.is_ascii_digit());
    alphanumeric(first)
        && alphanumeric(last)
        && separators.into_iter().all(|separator| {
            matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-')
        })
}

/// Whether `text` is a tag: `[A-Za-z0-9_][A-Za-z0-9._-]{0,127}`.
#[must_use]
pub fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= MAX_TAG
        && text.bytes().next().is_some_and(word)
        && text
            .bytes()
            .all(|byte| word(byte) || byte == b'.' || byte == b'-')
}

/// Whether `text` is a host, with a port or without.
#[must_use]
pub fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let host = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host);
    let host_byte = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':');
    !host.is_empty()
        && host.bytes().all(host_byte)
        && !host.starts_with(['.', '-'])
        && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn references_are_filled_in_as_docker_does() {
        let cases = [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.27", "docker.io/library/nginx:1.27"),
            ("someone/app", "docker.io/someone/app:latest"),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:5000/a/b:v1", "localhost:5000/a/b:v1"),
            ("[::1]:5000/a/b:v1", "[::1]:5000/a/b:v1"),
            (
                "registry.windlass.local/default/hello:v1",
                "registry.windlass.local/default/hello:v1",
            ),
            (
                "registry.windlass.local/default/x.wasm",
                "registry.windlass.local/default/x.wasm:latest",
            ),
        ];
        for (text, want) in cases {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), want);
        }
    }

    #[test]
    fn a_digest_wins_over_the_tag() {
        let text = format!("registry.windlass.local/default/hello:v1@sha256:{HEX}");
        let reference: Reference = text.parse().unwrap();
        assert_eq!(reference.manifest_reference(), format!("sha256:{HEX}"));
        assert!(reference.is_cluster_registry());
        assert!(!reference.is_latest());
        assert_eq!(reference.to_string(), text);
    }

    #[test]
    fn paths_are_told_from_references() {
        for text in [
            "./x.wasm",
            "/x.wasm",
            "x.wasm",
            "../a/x.wasm",
            "target/x.wasm",
            "./dir",
            "~/x",
        ] {
            let error = text.parse::<Reference>().unwrap_err();
            assert!(matches!(error, ReferenceError::Path(_)), "{text}");
            assert!(error.to_string().contains("windlass push"), "{error}");
        }
    }

    #[test]
    fn what_breaks_the_grammar_is_refused() {
        for text in [
            "",
            "Nginx",
            "a//b",
            "-a",
            "a:",
            "a:-x",
            "a@sha256:0",
            "a b",
            "a/.b",
            "a___b",
            "a..b",
            "h.x:y/a",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
        assert!("a".repeat(300).parse::<Reference>().is_err());
    }
}
